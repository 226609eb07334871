//! Models: a decoder-only transformer of the Llama family, what it computes, how it generates, and how it is kept.

pub mod adapter;
pub mod architecture;
pub mod files;
pub mod generate;
pub mod initialiser;
pub mod kernels;
pub mod memory;
pub mod mixture;
pub mod optimizer;
pub mod packed;
pub mod span;
pub mod store;
pub mod tags;
pub mod transformer;

use burn::tensor::backend::AutodiffBackend;
use kernels::Kernels;

/// A backend that trains: autodiff over an inner backend, both with the transformer's operations.
pub trait TrainBackend: AutodiffBackend<InnerBackend: Kernels> + Kernels {}

impl<B> TrainBackend for B
where
    B: AutodiffBackend + Kernels,
    B::InnerBackend: Kernels,
{
}
