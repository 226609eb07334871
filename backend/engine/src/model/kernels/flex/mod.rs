//! The CPU backend's fused operations, with their gradients.
//!
//! Here belongs what turns tensors into slices for the loops of `cpu`, and keeps what a backward pass needs.

mod checkpointed;
mod plain;
mod taped;
mod tensors;
