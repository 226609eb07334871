//! The four operations that a small transformer spends its time in, each fused where that pays.
//!
//! [`Kernels`] states every operation once, written with burn's tensor operations; that definition serves any backend.
//! The CPU backend overrides it with fused loops (`cpu.rs`) and hand-written gradients (`flex.rs`), because element-wise
//! passes and strided copies, not matrix products, dominate small models there. A test compares both.

mod cpu;
mod flex;

use burn::prelude::*;
use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use std::sync::Arc;

/// Geometry of grouped-query attention with rotary position embeddings.
#[derive(Debug, Clone)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head, even.
    pub head_dim: usize,
    /// Cosines and sines, `[position][head_dim / 2]` each.
    pub rope: Arc<RopeTable>,
}

impl AttentionShape {
    /// Width of the fused projection: queries, keys, values.
    pub fn qkv_dim(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// Rotary position embeddings (Su et al. 2021) in Hugging Face's convention: dimension `d` is paired with
/// `d + head_dim / 2`, and rotated by `position * theta^(-2d / head_dim)`.
#[derive(Debug)]
pub struct RopeTable {
    /// `[position * half + d]`
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
    /// `head_dim / 2`
    pub half: usize,
}

impl RopeTable {
    /// Table for positions `0..context`.
    pub fn new(context: usize, head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in 0..context {
            for d in 0..half {
                let angle = position as f64 * theta.powf(-2.0 * d as f64 / head_dim as f64);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        Self { cos, sin, half }
    }
}

/// Keys and values of one layer while a batch is generated.
///
/// Backends with fused kernels keep them on the host in `host`; the others as tensors.
#[derive(Debug, Clone)]
pub struct LayerCache<B: Backend> {
    /// Rotated keys and values, `[rows, kv_heads, length, head_dim]` each.
    tensors: Option<(Tensor<B, 4>, Tensor<B, 4>)>,
    /// `[row][position][key heads, value heads]`, room for `capacity` positions.
    host: Vec<f32>,
    capacity: usize,
    /// `2 * kv_heads * head_dim`; known once something is cached on the host.
    width: usize,
    length: usize,
}

impl<B: Backend> LayerCache<B> {
    /// An empty cache with room for `capacity` positions.
    pub fn new(capacity: usize) -> Self {
        Self { tensors: None, host: Vec::new(), capacity, width: 0, length: 0 }
    }

    /// Keeps the rows listed in `rows` (ascending), in that order.
    pub fn keep(&mut self, rows: &[usize], device: &B::Device) {
        if let Some((k, v)) = self.tensors.take() {
            let index: Vec<i32> = rows.iter().map(|&r| r as i32).collect();
            let index = Tensor::<B, 1, Int>::from_data(TensorData::new(index, [rows.len()]), device);
            self.tensors = Some((k.select(0, index.clone()), v.select(0, index)));
        } else if !self.host.is_empty() {
            // `length` positions of each kept row move to the front; rows ascend, so nothing is overwritten unread.
            let size = self.capacity * self.width;
            for (to, &from) in rows.iter().enumerate() {
                self.host.copy_within(from * size..(from + 1) * size, to * size);
            }
            self.host.truncate(rows.len() * size);
        }
    }
}

/// Fused operations of the transformer; see the module.
pub trait Kernels: Backend {
    /// Causal attention over rows padded on the left.
    ///
    /// `qkv`: `[rows, time, qkv_dim]`, queries, keys, values, not yet rotated. `starts[row]` is the first real position;
    /// earlier ones are padding, are never attended to, and positions count from there. Returns `[rows, time, heads * head_dim]`;
    /// what stands at padding positions is unspecified but finite.
    fn causal_attention(qkv: Tensor<Self, 3>, shape: &AttentionShape, starts: &[usize]) -> Tensor<Self, 3> {
        let [b, t, _] = qkv.dims();
        let device = qkv.device();
        let positions: Vec<usize> = (0..b).flat_map(|r| (0..t).map(move |i| i.saturating_sub(starts[r]))).collect();
        let (q, k, v) = split_rotated(qkv, shape, &positions);
        let blocked: Vec<bool> = (0..b).flat_map(|r| (0..t * t).map(move |ij| ij % t > ij / t || ij % t < starts[r])).collect();
        attend(q, k, v, shape, Tensor::from_data(TensorData::new(blocked, [b, 1, t, t]), &device))
    }

    /// Attention of `qkv` (`[rows, new, qkv_dim]`), which follow the positions already in `cache`; appends them to it.
    /// Otherwise as [`Kernels::causal_attention`].
    fn cached_attention(
        qkv: Tensor<Self, 3>,
        shape: &AttentionShape,
        starts: &[usize],
        cache: &mut LayerCache<Self>,
    ) -> Tensor<Self, 3> {
        let [b, t, _] = qkv.dims();
        let device = qkv.device();
        let before = cache.length;
        let positions: Vec<usize> = (0..b).flat_map(|r| (0..t).map(move |i| (before + i).saturating_sub(starts[r]))).collect();
        let (q, k, v) = split_rotated(qkv, shape, &positions);
        let (k, v) = match cache.tensors.take() {
            Some((k0, v0)) => (Tensor::cat(vec![k0, k], 2), Tensor::cat(vec![v0, v], 2)),
            None => (k, v),
        };
        cache.tensors = Some((k.clone(), v.clone()));
        cache.length += t;
        let total = cache.length;
        let blocked: Vec<bool> = (0..b)
            .flat_map(|r| (0..t * total).map(move |ij| ij % total > before + ij / total || ij % total < starts[r]))
            .collect();
        attend(q, k, v, shape, Tensor::from_data(TensorData::new(blocked, [b, 1, t, total]), &device))
    }

    /// `x / sqrt(mean(x^2) + eps) * weight` (Zhang & Sennrich 2019). `x`: `[n, d]`, `weight`: `[d]`.
    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f32) -> Tensor<Self, 2> {
        let scale = (x.clone().powf_scalar(2.0).mean_dim(1) + eps).sqrt().recip();
        x * scale * weight.unsqueeze()
    }

    /// `silu(gate) * up` (Shazeer 2020). `gate_up`: `[n, 2 f]`, gate first. Returns `[n, f]`.
    fn swiglu(gate_up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let f = gate_up.dims()[1] / 2;
        let gate = gate_up.clone().narrow(1, 0, f);
        let up = gate_up.narrow(1, f, f);
        gate.clone() * sigmoid(gate) * up
    }

    /// Log-probability of `targets[n]` under `softmax(logits[n] / temperature)`. `logits`: `[n, classes]`. Returns `[n]`.
    fn log_prob(logits: Tensor<Self, 2>, targets: &[u32], temperature: f32) -> Tensor<Self, 1> {
        let n = targets.len();
        let index: Vec<i32> = targets.iter().map(|&t| t as i32).collect();
        let index = Tensor::<Self, 2, Int>::from_data(TensorData::new(index, [n, 1]), &logits.device());
        log_softmax(logits / temperature, 1).gather(1, index).reshape([n])
    }
}

/// Rotated queries `[rows, heads, time, head_dim]`, rotated keys and values `[rows, kv_heads, time, head_dim]`.
/// `positions`: `[rows * time]`.
fn split_rotated<B: Backend>(
    qkv: Tensor<B, 3>,
    shape: &AttentionShape,
    positions: &[usize],
) -> (Tensor<B, 4>, Tensor<B, 4>, Tensor<B, 4>) {
    let [b, t, _] = qkv.dims();
    let (h, g, hd) = (shape.heads, shape.kv_heads, shape.head_dim);
    let half = shape.rope.half;
    let device = qkv.device();
    let table = |values: &[f32]| {
        let rows: Vec<f32> = positions.iter().flat_map(|&p| values[p * half..(p + 1) * half].iter().copied()).collect();
        Tensor::<B, 4>::from_data(TensorData::new(rows, [b, 1, t, half]), &device)
    };
    let (cos, sin) = (table(&shape.rope.cos), table(&shape.rope.sin));
    let part = |from: usize, heads: usize| {
        qkv.clone().narrow(2, from * hd, heads * hd).reshape([b, t, heads, hd]).swap_dims(1, 2) // [rows, heads, time, head_dim]
    };
    let rotate = |x: Tensor<B, 4>| {
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        Tensor::cat(
            vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos.clone() + first * sin.clone()],
            3,
        )
    };
    (rotate(part(0, h)), rotate(part(h, g)), part(h + g, g))
}

/// Softmax attention. `blocked`: `[rows, 1, new, total]`, true where a key must not be seen.
fn attend<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    shape: &AttentionShape,
    blocked: Tensor<B, 4, Bool>,
) -> Tensor<B, 3> {
    let [b, _, t, hd] = q.dims();
    let total = k.dims()[2];
    let (h, g) = (shape.heads, shape.kv_heads);
    let repeat = |x: Tensor<B, 4>| {
        if h == g {
            return x;
        }
        x.unsqueeze_dim::<5>(2).expand([b, g, h / g, total, hd]).reshape([b, h, total, hd])
    };
    let scores = q.matmul(repeat(k).swap_dims(2, 3)) / (hd as f32).sqrt(); // [rows, heads, new, total]
    // A large finite number: a row of padding that sees nothing must not become NaN.
    let scores = scores.mask_fill(blocked.expand([b, h, t, total]), -1e9);
    softmax(scores, 3).matmul(repeat(v)).swap_dims(1, 2).reshape([b, t, h * hd])
}
