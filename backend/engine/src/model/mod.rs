//! Models: a decoder-only transformer of the Llama family and what it computes.

pub mod kernels;
