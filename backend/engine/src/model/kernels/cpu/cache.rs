//! Attention of one new token against the keys and values before it: what generation does.

use super::super::shape::AttentionShape;
use super::attention::{View, exponentials, rotate};
use super::blocks::add_weighted;
use super::lanes::{add_weighted_rows, padded};
use crate::model::span::Span;
use multiversion::multiversion;

/// Keys and values of one sequence while it grows, for every key-value head.
#[derive(Debug, Clone)]
pub struct HostCache {
    /// Rotated keys, `[kv_head][head_dim][stride]`.
    keys: Vec<f32>,
    /// `[kv_head][position][width]`
    values: Vec<f32>,
    capacity: usize,
}

impl HostCache {
    /// An empty cache for `capacity` positions.
    fn new(shape: &AttentionShape, capacity: usize) -> Self {
        let (g, hd) = (shape.kv_heads, shape.head_dim);
        Self { keys: vec![0.0; g * hd * padded(capacity)], values: vec![0.0; g * capacity * padded(hd)], capacity }
    }

    /// Remembers a token (`qkv_dim` numbers) at `slot`, which stands at `position` of its sequence.
    #[inline(always)]
    fn set(&mut self, slot: usize, position: usize, token: &[f32], shape: &AttentionShape, scratch: &mut [f32]) {
        let (h, g, hd) = (shape.heads, shape.kv_heads, shape.head_dim);
        let (stride, wide) = (padded(self.capacity), padded(hd));
        for kv in 0..g {
            rotate(scratch, &token[(h + kv) * hd..(h + kv + 1) * hd], &shape.rope, position, 1.0);
            for (d, &k) in scratch.iter().enumerate() {
                self.keys[(kv * hd + d) * stride + slot] = k;
            }
            let from = (kv * self.capacity + slot) * wide;
            self.values[from..from + hd].copy_from_slice(&token[(h + g + kv) * hd..(h + g + kv + 1) * hd]);
        }
    }
}

/// Caches of the prompts of `spans`; `qkv`: `[positions, qkv_dim]`.
pub fn prompt_caches(qkv: &[f32], shape: &AttentionShape, spans: &[Span]) -> Vec<HostCache> {
    let width = shape.qkv_dim();
    let mut scratch = vec![0f32; shape.head_dim];
    spans
        .iter()
        .map(|span| {
            let mut cache = HostCache::new(shape, span.prompt.len());
            for (i, at) in span.prompt.clone().enumerate() {
                cache.set(i, i, &qkv[at * width..(at + 1) * width], shape, &mut scratch);
            }
            cache
        })
        .collect()
}

/// Attention of the next token of every answer, at `slot` of its answer; appends it to `answers`. `qkv`: `[rows, qkv_dim]`.
pub fn step_attention(
    qkv: &[f32],
    shape: &AttentionShape,
    prompts: &[HostCache],
    owners: &[usize],
    answers: &mut Vec<HostCache>,
    capacity: usize,
    slot: usize,
) -> Vec<f32> {
    let (width, size) = (shape.qkv_dim(), shape.heads * shape.head_dim);
    if answers.is_empty() {
        answers.extend(owners.iter().map(|_| HostCache::new(shape, capacity)));
    }
    let mut out = vec![0f32; owners.len() * size];
    for ((token, out), (&owner, cache)) in qkv.chunks_exact(width).zip(out.chunks_exact_mut(size)).zip(owners.iter().zip(answers))
    {
        step_attention_row(token, out, shape, &prompts[owner], cache, slot);
    }
    out
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn step_attention_row(
    token: &[f32],
    out: &mut [f32],
    shape: &AttentionShape,
    prompt: &HostCache,
    answer: &mut HostCache,
    slot: usize,
) {
    let (h, g, hd) = (shape.heads, shape.kv_heads, shape.head_dim);
    let scale = 1.0 / (hd as f32).sqrt();
    let wide = padded(hd);
    // The prompt's cache is exactly as long as the prompt.
    let view = View { prompt: prompt.capacity, start: 0, own: slot + 1 };
    let position = prompt.capacity + slot;
    let mut q = vec![0f32; hd];
    answer.set(slot, position, token, shape, &mut q);
    let mut o = vec![0f32; wide];
    let mut scores = vec![0f32; view.size()];
    let size = view.size();
    for head in 0..h {
        let kv = head / (h / g);
        rotate(&mut q, &token[head * hd..(head + 1) * hd], &shape.rope, position, 1.0);
        q.iter_mut().for_each(|q| *q *= scale);
        let (first, second) = scores.split_at_mut(view.gap());
        for (part, cache) in [(first, prompt), (second, &*answer)] {
            let stride = padded(cache.capacity);
            part.fill(0.0);
            add_weighted_rows(part, &q, &cache.keys[kv * hd * stride..(kv + 1) * hd * stride], stride);
        }
        let (_, total) = exponentials(&mut scores, &view);
        o.fill(0.0);
        for ((from, start, n), cache) in view.parts().into_iter().zip([prompt, &*answer]) {
            let rows = &cache.values[kv * cache.capacity * wide..(kv + 1) * cache.capacity * wide];
            add_weighted::<1, 1>(&mut o, wide, &scores[from..], size, n, &rows[start * wide..]);
        }
        for (out, o) in out[head * hd..(head + 1) * hd].iter_mut().zip(&o) {
            *out = o / total;
        }
    }
}
