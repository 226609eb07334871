//! The operations without a tape: sampling, reference, reward model.

use super::super::{AdamStep, AttentionShape, Kernels, LayerCache, cpu};
use super::tensors::{CHUNK_ROWS, CHUNK_TOKENS, float, ordered, primitive, projection, tensor, values, whole};
use crate::model::span::Span;
use burn::backend::Flex;
use burn::prelude::*;
use burn_flex::FlexTensor;
use moslim_shared::config::Precision;

impl Kernels for Flex {
    const CHUNK_TOKENS: usize = CHUNK_TOKENS;
    const CHUNK_ROWS: usize = CHUNK_ROWS;
    const THREADED: bool = true;

    /// The fused operations are f32.
    fn computes_in(_: &Self::Device, precision: Precision) -> bool {
        precision == Precision::F32
    }

    fn projection(
        x: Tensor<Self, 2>,
        w: Tensor<Self, 2>,
        transposed: bool,
        added: Option<Tensor<Self, 2>>,
        _: Precision,
    ) -> Tensor<Self, 2> {
        let (x, w) = (ordered(primitive(x)), ordered(primitive(w)));
        float(projection(&x, &w, transposed, added.map(primitive)))
    }

    fn causal_attention(qkv: Tensor<Self, 2>, shape: &AttentionShape, spans: &[Span]) -> Tensor<Self, 2> {
        let [n, _] = qkv.dims();
        let qkv = ordered(primitive(qkv));
        float(tensor(cpu::attention(values(&qkv), shape, spans).0, [n, shape.heads * shape.head_dim]))
    }

    fn prompt_attention(
        qkv: Tensor<Self, 2>,
        shape: &AttentionShape,
        spans: &[Span],
        cache: &mut LayerCache<Self>,
    ) -> Tensor<Self, 2> {
        let [n, _] = qkv.dims();
        let qkv = ordered(primitive(qkv));
        cache.prompts_host = cpu::prompt_caches(values(&qkv), shape, spans);
        float(tensor(cpu::attention(values(&qkv), shape, spans).0, [n, shape.heads * shape.head_dim]))
    }

    fn step_attention(
        qkv: Tensor<Self, 2>,
        shape: &AttentionShape,
        _: &[Span],
        owners: &[usize],
        cache: &mut LayerCache<Self>,
    ) -> Tensor<Self, 2> {
        let [n, _] = qkv.dims();
        let qkv = ordered(primitive(qkv));
        let (capacity, slot) = (cache.capacity, cache.length);
        cache.length += 1;
        let (prompts, answers) = (&cache.prompts_host, &mut cache.answers_host);
        let out = cpu::step_attention(values(&qkv), shape, prompts, owners, answers, capacity, slot);
        float(tensor(out, [n, shape.heads * shape.head_dim]))
    }

    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f32) -> Tensor<Self, 2> {
        let shape = x.dims();
        let (x, weight) = (ordered(primitive(x)), ordered(primitive(weight)));
        float(tensor(cpu::rms_norm(values(&x), values(&weight), eps).0, shape))
    }

    fn swiglu(gate_up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let [n, f2] = gate_up.dims();
        let gate_up = ordered(primitive(gate_up));
        float(tensor(cpu::swiglu(values(&gate_up), f2 / 2), [n, f2 / 2]))
    }

    fn log_prob(logits: Tensor<Self, 2>, targets: &[u32], temperature: f32) -> Tensor<Self, 1> {
        let logits = ordered(primitive(logits));
        float(tensor(cpu::log_prob(values(&logits), targets, temperature).0, [targets.len()]))
    }

    fn add_all<const D: usize>(parts: Vec<Tensor<Self, D>>) -> Tensor<Self, D> {
        let mut parts = parts.into_iter().map(|part| ordered(primitive(part)));
        let mut sum = whole(parts.next().expect("at least one part"));
        let rest: Vec<FlexTensor> = parts.collect();
        cpu::add_all(sum.storage_mut(), &rest.iter().map(values).collect::<Vec<_>>());
        float(sum)
    }

    fn square_sum<const D: usize>(x: Tensor<Self, D>) -> f64 {
        cpu::square_sum(values(&ordered(primitive(x))))
    }

    fn adamw<const D: usize>(
        weights: Tensor<Self, D>,
        grad: Tensor<Self, D>,
        moments: [Tensor<Self, D>; 2],
        step: &AdamStep,
    ) -> (Tensor<Self, D>, [Tensor<Self, D>; 2]) {
        let grad = ordered(primitive(grad));
        let ([mut first, mut second], mut weights) = (moments.map(|m| whole(primitive(m))), whole(primitive(weights)));
        cpu::adamw(weights.storage_mut(), values(&grad), first.storage_mut(), second.storage_mut(), step);
        (float(weights), [float(first), float(second)])
    }
}
