//! Between tensors of the CPU backend and plain slices.

use super::super::product::{Matrix, add_product, product};
use burn::prelude::*;
use burn::tensor::{TensorMetadata, TensorPrimitive, bf16};
use burn_flex::FlexTensor;
use moslim_shared::memory;

/// A few hundred tokens of a small model's activations fit into a core's second-level cache.
pub const CHUNK_TOKENS: usize = memory::PIECE;

/// Answers that one thread samples together.
pub const CHUNK_ROWS: usize = memory::ROWS;

pub fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// The tensor with its elements in order, so that [`values`] and [`matrix`] can view them.
pub fn ordered(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().contiguous_offsets().is_some() { tensor } else { tensor.to_contiguous() }
}

pub fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("an ordered f32 tensor")
}

pub fn float<B: Backend, const D: usize>(primitive: B::FloatTensorPrimitive) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

pub fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> B::FloatTensorPrimitive {
    tensor.into_primitive().tensor()
}

/// An ordered tensor as a matrix, of f32 or of bf16.
pub fn matrix(tensor: &FlexTensor) -> Matrix<'_> {
    let [rows, columns] = tensor.shape().dims();
    match tensor.as_slice::<bf16>() {
        Some(halves) => Matrix::of_halves(halves, rows, columns),
        None => Matrix::new(values(tensor), rows, columns),
    }
}

/// The tensor with a buffer that holds nothing but its elements in order, so that it can be changed in place.
pub fn whole(tensor: FlexTensor) -> FlexTensor {
    let all = tensor.as_slice::<f32>().is_some_and(|s| s.len() == tensor.storage::<f32>().len());
    if all { tensor } else { tensor.to_contiguous() }
}

/// `x w + added`; everything in order.
pub fn projection(x: &FlexTensor, w: &FlexTensor, transposed: bool, added: Option<FlexTensor>) -> FlexTensor {
    let w = if transposed { matrix(w).transposed() } else { matrix(w) };
    let shape = [x.shape()[0], w.columns()];
    match added {
        Some(added) => {
            let mut sum = whole(added);
            add_product(sum.storage_mut(), matrix(x), w);
            sum
        }
        None => tensor(product(matrix(x), w), shape),
    }
}
