//! The operations that a small transformer spends its time in, each fused where that pays.
//!
//! [`Kernels`] states every operation once, written with burn's tensor operations; that definition serves any backend.
//! The CPU backend overrides it with fused loops (`cpu/`) and hand-written gradients (`flex/`), because element-wise
//! passes and strided copies, not matrix products, dominate small models there. A test compares both.

pub(super) mod cpu;
#[cfg(target_arch = "x86_64")]
mod few;
mod flex;
pub mod layer;
mod product;
pub mod shape;

use super::span::Span;
use burn::prelude::*;
use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::{DType, FloatDType};
use layer::LayerTensors;
use moslim_shared::config::Precision;
pub use shape::{AdamStep, AttentionShape, RopeTable};
use std::ops::Range;

/// Keys and values of one layer while answers are generated: those of the prompts, which their answers share, and those of
/// every answer.
///
/// Backends with fused kernels keep them on the host; the others as tensors.
#[derive(Debug, Clone)]
pub struct LayerCache<B: Backend> {
    prompts: Option<KeysValues<B>>,
    answers: Option<KeysValues<B>>,
    prompts_host: Vec<cpu::HostCache>,
    answers_host: Vec<cpu::HostCache>,
    /// Most tokens of an answer.
    capacity: usize,
    /// Tokens that every answer has by now.
    length: usize,
}

/// Rotated keys and values, `[rows, kv_heads, length, head_dim]` each.
type KeysValues<B> = (Tensor<B, 4>, Tensor<B, 4>);

impl<B: Backend> LayerCache<B> {
    /// An empty cache with room for answers of `capacity` tokens.
    pub fn new(capacity: usize) -> Self {
        Self { prompts: None, answers: None, prompts_host: Vec::new(), answers_host: Vec::new(), capacity, length: 0 }
    }

    /// Keeps the answers at `rows` (ascending), in that order.
    pub fn keep(&mut self, rows: &[usize], device: &B::Device) {
        if let Some((k, v)) = self.answers.take() {
            let index = indices(rows.iter().copied(), device);
            self.answers = Some((k.select(0, index.clone()), v.select(0, index)));
        }
        let mut row = 0;
        self.answers_host.retain(|_| {
            row += 1;
            rows.binary_search(&(row - 1)).is_ok()
        });
    }
}

/// Host indices as a tensor.
pub fn indices<B: Backend>(values: impl Iterator<Item = usize>, device: &B::Device) -> Tensor<B, 1, Int> {
    let values: Vec<i32> = values.map(|i| i as i32).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// `parts` side by side along dimension `dim`.
///
/// [`Tensor::cat`] of burn 0.21 lets go of its parts before it is on the tape itself. A backward pass that ends on another thread in between
/// takes them for forgotten, and drops what led to them: their gradients would be lost without a word. So they are held until it is there.
#[expect(clippy::disallowed_methods)]
pub fn cat<B: Backend, const D: usize>(parts: Vec<Tensor<B, D>>, dim: usize) -> Tensor<B, D> {
    let held = parts.clone();
    let all = Tensor::cat(parts, dim);
    drop(held);
    all
}

/// Fused operations of the transformer; see the module.
pub trait Kernels: Backend {
    /// Tokens that are best computed in one piece.
    const CHUNK_TOKENS: usize = 1 << 14;
    /// Answers that are best sampled together, by one thread where pieces are.
    const CHUNK_ROWS: usize = 4096;
    /// Whether pieces are best computed by one thread each, several at a time.
    const THREADED: bool = false;

    /// Whether [`Kernels::projection`] can multiply in `precision`.
    fn computes_in(device: &Self::Device, precision: Precision) -> bool {
        precision == Precision::F32 || Self::supports_dtype(device, DType::BF16)
    }

    /// `x w`, plus `added` where that is given. `x`: `[n, inputs]`; `w`: `[inputs, outputs]`, or `[outputs, inputs]` when
    /// `transposed`; `added`: `[n, outputs]`. Returns `[n, outputs]`. Everything that goes in and comes out is f32, but for frozen weights
    /// that are kept in bf16.
    fn projection(
        x: Tensor<Self, 2>,
        w: Tensor<Self, 2>,
        transposed: bool,
        added: Option<Tensor<Self, 2>>,
        precision: Precision,
    ) -> Tensor<Self, 2> {
        let w = if transposed { w.transpose() } else { w };
        let product = match precision {
            Precision::F32 => x.matmul(w.cast(FloatDType::F32)),
            // The casts are recorded, so gradients are multiplied in bf16, too, and come back as f32.
            Precision::Bf16 => x.cast(FloatDType::BF16).matmul(w.cast(FloatDType::BF16)).cast(FloatDType::F32),
        };
        match added {
            Some(added) => added + product,
            None => product,
        }
    }

    /// Causal attention within the groups of a packed batch: an answer sees its prompt and itself.
    ///
    /// `qkv`: `[positions, qkv_dim]`, queries, keys, values, not yet rotated. Returns `[positions, heads * head_dim]`.
    fn causal_attention(qkv: Tensor<Self, 2>, shape: &AttentionShape, spans: &[Span]) -> Tensor<Self, 2> {
        let device = qkv.device();
        // One row per answer, and one per prompt; their queries stand in rectangles, padded on the right.
        let mut rows: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for span in spans {
            rows.push((0..0, span.prompt.clone()));
            rows.extend(span.answers.iter().map(|a| (span.prompt.clone(), a.clone())));
        }
        rows.retain(|(_, own)| !own.is_empty());
        let [positions, _] = qkv.dims();
        let new = rows.iter().map(|(_, own)| own.len()).max().unwrap_or(0);
        let total = rows.iter().map(|(p, own)| p.len() + own.len()).max().unwrap_or(0);
        let (mut query_at, mut key_at, mut blocked, mut back) = (Vec::new(), Vec::new(), Vec::new(), vec![0; positions]);
        for (r, (prompt, own)) in rows.iter().enumerate() {
            for i in 0..new {
                let at = own.start + i.min(own.len() - 1);
                query_at.push(at);
                if i < own.len() {
                    back[at] = r * new + i;
                }
                blocked.extend((0..total).map(|j| j > prompt.len() + i));
            }
            let last = own.end - 1;
            key_at.extend(
                (0..total).map(|j| if j < prompt.len() { prompt.start + j } else { (own.start + j - prompt.len()).min(last) }),
            );
        }
        let (b, (h, g, hd)) = (rows.len(), (shape.heads, shape.kv_heads, shape.head_dim));
        let (q, k, v) = split_rotated(qkv, shape, &rotary_positions(spans));
        let place = |x: Tensor<Self, 2>, at: &[usize], heads: usize, time: usize| {
            x.select(0, indices(at.iter().copied(), &device)).reshape([b, time, heads, hd]).swap_dims(1, 2)
        };
        let blocked = Tensor::from_data(TensorData::new(blocked, [b, 1, new, total]), &device);
        let out = attend(place(q, &query_at, h, new), place(k, &key_at, g, total), place(v, &key_at, g, total), shape, blocked);
        out.reshape([b * new, h * hd]).select(0, indices(back.into_iter(), &device))
    }

    /// [`Kernels::causal_attention`] over prompts alone, which remembers their keys and values.
    fn prompt_attention(
        qkv: Tensor<Self, 2>,
        shape: &AttentionShape,
        spans: &[Span],
        cache: &mut LayerCache<Self>,
    ) -> Tensor<Self, 2> {
        let device = qkv.device();
        let (_, k, v) = split_rotated(qkv.clone(), shape, &rotary_positions(spans));
        let longest = spans.iter().map(|s| s.prompt.len()).max().unwrap_or(0);
        // Padded on the right; the mask of every step hides the padding.
        let at: Vec<usize> =
            spans.iter().flat_map(|s| (0..longest).map(move |i| s.prompt.start + i.min(s.prompt.len() - 1))).collect();
        let place = |x: Tensor<Self, 2>| {
            x.select(0, indices(at.iter().copied(), &device))
                .reshape([spans.len(), longest, shape.kv_heads, shape.head_dim])
                .swap_dims(1, 2)
        };
        cache.prompts = Some((place(k), place(v)));
        Self::causal_attention(qkv, shape, spans)
    }

    /// Attention of the next token of every answer; appends it to `cache`.
    ///
    /// `qkv`: `[rows, qkv_dim]`; row `r` answers prompt `owners[r]` of `spans`.
    fn step_attention(
        qkv: Tensor<Self, 2>,
        shape: &AttentionShape,
        spans: &[Span],
        owners: &[usize],
        cache: &mut LayerCache<Self>,
    ) -> Tensor<Self, 2> {
        let device = qkv.device();
        let (b, (h, g, hd)) = (owners.len(), (shape.heads, shape.kv_heads, shape.head_dim));
        let positions: Vec<usize> = owners.iter().map(|&o| spans[o].prompt.len() + cache.length).collect();
        let (q, k, v) = split_rotated(qkv, shape, &positions);
        let (k, v) = (k.reshape([b, g, 1, hd]), v.reshape([b, g, 1, hd]));
        let (k, v) = match cache.answers.take() {
            Some((k0, v0)) => (cat(vec![k0, k], 2), cat(vec![v0, v], 2)),
            None => (k, v),
        };
        cache.answers = Some((k.clone(), v.clone()));
        cache.length += 1;
        let (prompt_k, prompt_v) = cache.prompts.clone().expect("prompts were read first");
        let longest = prompt_k.dims()[2];
        let whole = |prompt: Tensor<Self, 4>, own| cat(vec![prompt.select(0, indices(owners.iter().copied(), &device)), own], 2);
        let total = longest + cache.length;
        let blocked: Vec<bool> =
            owners.iter().flat_map(|&o| (0..total).map(move |j| (spans[o].prompt.len()..longest).contains(&j))).collect();
        let blocked = Tensor::from_data(TensorData::new(blocked, [b, 1, 1, total]), &device);
        attend(q.reshape([b, h, 1, hd]), whole(prompt_k, k), whole(prompt_v, v), shape, blocked).reshape([b, h * hd])
    }

    /// [`LayerTensors::causal`] of a layer whose own weights are frozen. A tape keeps of it no more than `x`, and computes it
    /// once more when its gradient is wanted, where the backend has that; with burn's own operations it keeps everything. `x` and what is
    /// returned: `[positions, d_model]`.
    fn checkpointed(layer: &LayerTensors<Self>, x: Tensor<Self, 2>, spans: &[Span]) -> Tensor<Self, 2> {
        layer.causal(x, spans)
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

    /// Sum of `parts`, at least one, added in order.
    fn add_all<const D: usize>(parts: Vec<Tensor<Self, D>>) -> Tensor<Self, D> {
        parts.into_iter().reduce(|sum, part| sum + part).expect("at least one part")
    }

    /// Sum of the squares of all elements.
    fn square_sum<const D: usize>(x: Tensor<Self, D>) -> f64 {
        (x.clone() * x).sum().into_scalar().elem()
    }

    /// One AdamW step: new weights and moments.
    fn adamw<const D: usize>(
        weights: Tensor<Self, D>,
        grad: Tensor<Self, D>,
        moments: [Tensor<Self, D>; 2],
        step: &AdamStep,
    ) -> (Tensor<Self, D>, [Tensor<Self, D>; 2]) {
        let [first, second] = moments;
        let [correct_1, correct_2] = step.corrections();
        let first = first * step.beta_1 + grad.clone() * (1.0 - step.beta_1);
        let second = second * step.beta_2 + grad.clone() * grad * (1.0 - step.beta_2);
        let change = (first.clone() / correct_1) / ((second.clone() / correct_2).sqrt() + step.epsilon);
        (weights * (1.0 - step.learning_rate * step.weight_decay) - change * step.learning_rate, [first, second])
    }
}

/// Position of every token within its sequence: answers count on from their prompt.
fn rotary_positions(spans: &[Span]) -> Vec<usize> {
    let mut out = Vec::new();
    for span in spans {
        let prompt = span.prompt.len();
        out.extend(0..prompt);
        out.extend(span.answers.iter().flat_map(|a| prompt..prompt + a.len()));
    }
    out
}

/// Rotated queries `[n, heads * head_dim]`, rotated keys and values `[n, kv_heads * head_dim]`. `positions`: `[n]`.
fn split_rotated<B: Backend>(
    qkv: Tensor<B, 2>,
    shape: &AttentionShape,
    positions: &[usize],
) -> (Tensor<B, 2>, Tensor<B, 2>, Tensor<B, 2>) {
    let [n, _] = qkv.dims();
    let (h, g, hd) = (shape.heads, shape.kv_heads, shape.head_dim);
    let half = shape.rope.half;
    let device = qkv.device();
    let table = |values: &[f32]| {
        let rows: Vec<f32> = positions.iter().flat_map(|&p| values[p * half..(p + 1) * half].iter().copied()).collect();
        Tensor::<B, 3>::from_data(TensorData::new(rows, [n, 1, half]), &device)
    };
    let (cos, sin) = (table(&shape.rope.cos), table(&shape.rope.sin));
    let part = |from: usize, heads: usize| qkv.clone().narrow(1, from * hd, heads * hd);
    let rotate = |x: Tensor<B, 2>, heads: usize| {
        let x = x.reshape([n, heads, hd]);
        let first = x.clone().narrow(2, 0, half);
        let second = x.narrow(2, half, half);
        let rotated =
            cat(vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos.clone() + first * sin.clone()], 2);
        rotated.reshape([n, heads * hd])
    };
    (rotate(part(0, h), h), rotate(part(h, g), g), part(h + g, g))
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use std::sync::atomic::{AtomicBool, Ordering};

    type Taped = Autodiff<Flex>;

    fn weights(side: usize) -> Tensor<Taped, 2> {
        Tensor::ones([side, side], &Default::default()).require_grad()
    }

    #[test]
    fn parts_side_by_side_keep_their_gradients_beside_the_backward_passes_of_other_threads() {
        let done = AtomicBool::new(false);
        let lost = std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        weights(2).sum().backward();
                    }
                });
            }
            let x = weights(256);
            // After a first pass, as of a second piece of a batch, the weights are in no graph until something is made of them.
            x.clone().sum().backward();
            let lost = (0..300).filter(|_| {
                let both = cat(vec![x.clone() * 2.0, x.clone() * 3.0], 1);
                let grad = x.grad(&both.sum().backward());
                grad.is_none_or(|grad| grad.into_data().to_vec::<f32>().unwrap().iter().any(|&g| g != 5.0))
            });
            let lost = lost.count();
            done.store(true, Ordering::Relaxed);
            lost
        });
        assert_eq!(lost, 0, "of 300 gradients");
    }
}
