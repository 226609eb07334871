//! A decoder layer as a function of tensors, made of the operations of [`Kernels`]: what it computes, whoever keeps its weights.

use super::{AttentionShape, Kernels, cat};
use crate::model::span::Span;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use moslim_shared::config::Precision;
use std::sync::Arc;

/// What is added to `x W` (LoRA, Hu et al. 2022): `scale * x A B`.
///
/// Matrices that are one here and several in files have a `B` for each of those that is adapted.
#[derive(Debug, Clone)]
pub struct LowRank<B: Backend> {
    /// Side by side: `[in, adapted matrices * rank]`.
    pub a: Tensor<B, 2>,
    /// Of every adapted matrix, `[rank, out]`.
    pub b: Vec<Tensor<B, 2>>,
    /// Columns of every matrix, and whether it is adapted.
    pub columns: Vec<(usize, bool)>,
    /// `alpha / rank`
    pub scale: f32,
}

impl<B: Backend> LowRank<B> {
    /// Every `B`, with the first of its columns and their number.
    fn bands(&self) -> impl Iterator<Item = (&Tensor<B, 2>, usize, usize)> {
        let places = self.columns.iter().scan(0usize, |end, &(columns, adapted)| {
            let from = *end;
            *end += columns;
            Some((from, columns, adapted))
        });
        self.b.iter().zip(places.filter(|place| place.2)).map(|(b, (from, columns, _))| (b, from, columns))
    }

    /// Every `B` where its part of the narrow rows meets its columns, and 0 elsewhere: `[adapted matrices * rank, out]`. It is small; to multiply
    /// with the parts one by one, and to lay what comes out side by side, would cost more than to multiply with its zeros.
    pub fn wide(&self) -> Tensor<B, 2> {
        if let ([only], [_]) = (&self.b[..], &self.columns[..]) {
            return only.clone();
        }
        let out: usize = self.columns.iter().map(|(n, _)| n).sum();
        let bands = self.bands().map(|(b, from, columns)| {
            let zeros = |n: usize| Tensor::<B, 2>::zeros([b.dims()[0], n], &b.device());
            let parts = [zeros(from), b.clone(), zeros(out - from - columns)].into_iter().filter(|part| part.dims()[1] > 0);
            cat(parts.collect(), 1)
        });
        cat(bands.collect(), 0)
    }

    /// What stands in the place of every `B` in a matrix like [`Self::wide`]: `[rank, out]` each.
    pub fn parts(&self, wide: &Tensor<B, 2>) -> Vec<Tensor<B, 2>> {
        let part = |(n, (b, from, columns)): (usize, (&Tensor<B, 2>, usize, usize))| {
            let rank = b.dims()[0];
            wide.clone().narrow(0, n * rank, rank).narrow(1, from, columns)
        };
        self.bands().enumerate().map(part).collect()
    }
}

impl<B: Kernels> LowRank<B> {
    /// `scale * x A`, `[n, adapted matrices * rank]`. `x`: `[n, in]`.
    pub fn narrow(&self, x: Tensor<B, 2>, precision: Precision) -> Tensor<B, 2> {
        B::projection(x, self.a.clone(), false, None, precision) * self.scale
    }

    /// What is added to `x W`, plus `added`. `x`: `[n, in]`; `added` and what is returned: `[n, out]`.
    pub fn added(&self, x: Tensor<B, 2>, added: Option<Tensor<B, 2>>, precision: Precision) -> Tensor<B, 2> {
        B::projection(self.narrow(x, precision), self.wide(), false, added, precision)
    }
}

/// A matrix of a layer, and what adapts it, if anything does.
#[derive(Debug, Clone)]
pub struct Adapted<B: Backend> {
    /// `[in, out]`
    pub weights: Tensor<B, 2>,
    pub adapter: Option<LowRank<B>>,
}

impl<B: Kernels> Adapted<B> {
    /// `x W`, plus what its adapter adds, plus `added`. `x`: `[n, in]`; `added` and what is returned: `[n, out]`.
    pub fn project(&self, x: Tensor<B, 2>, added: Option<Tensor<B, 2>>, precision: Precision) -> Tensor<B, 2> {
        let added = match &self.adapter {
            Some(adapter) => Some(adapter.added(x.clone(), added, precision)),
            None => added,
        };
        B::projection(x, self.weights.clone(), false, added, precision)
    }
}

impl<B: AutodiffBackend> Adapted<B> {
    fn inner(self) -> Adapted<B::InnerBackend> {
        let adapter = self.adapter.map(|LowRank { a, b, columns, scale }| LowRank {
            a: a.inner(),
            b: b.into_iter().map(Tensor::inner).collect(),
            columns,
            scale,
        });
        Adapted { weights: self.weights.inner(), adapter }
    }
}

/// One decoder layer. Matrices act from the right: `[in, out]`.
#[derive(Debug, Clone)]
pub struct LayerTensors<B: Backend> {
    /// `[d_model]`
    pub attention_norm: Tensor<B, 1>,
    /// Queries, keys, values: `[d_model, qkv_dim]`.
    pub qkv: Adapted<B>,
    /// `[qkv_dim]`, in families that have it.
    pub qkv_bias: Option<Tensor<B, 1>>,
    /// Of every query head and of every key head before they are rotated, `[head_dim]` each, in families that have them.
    pub head_norms: Option<[Tensor<B, 1>; 2]>,
    /// `[heads * head_dim, d_model]`
    pub attention_out: Adapted<B>,
    /// `[d_model]`
    pub feed_norm: Tensor<B, 1>,
    /// Gate and up: `[d_model, 2 d_ff]`.
    pub gate_up: Adapted<B>,
    /// `[d_ff, d_model]`
    pub down: Adapted<B>,
    pub shape: Arc<AttentionShape>,
    pub norm_eps: f32,
    pub precision: Precision,
}

impl<B: Kernels> LayerTensors<B> {
    /// The residual stream after the layer, of `x`, that before it, `[n, d_model]` both. `attention` makes of queries, keys and values, not yet
    /// rotated, `[n, qkv_dim]`, what the heads have mixed, `[n, heads * head_dim]`.
    pub fn forward(&self, x: Tensor<B, 2>, attention: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>) -> Tensor<B, 2> {
        let normed = B::rms_norm(x.clone(), self.attention_norm.clone(), self.norm_eps);
        let mixed = attention(self.normed_heads(self.raw_heads(normed)));
        let x = self.attention_out.project(mixed, Some(x), self.precision);
        let normed = B::rms_norm(x.clone(), self.feed_norm.clone(), self.norm_eps);
        let fed = B::swiglu(self.gate_up.project(normed, None, self.precision));
        self.down.project(fed, Some(x), self.precision)
    }

    /// [`Self::forward`] with [`Kernels::causal_attention`] within `spans`.
    pub fn causal(&self, x: Tensor<B, 2>, spans: &[Span]) -> Tensor<B, 2> {
        self.forward(x, |qkv| B::causal_attention(qkv, &self.shape, spans))
    }

    /// Queries, keys and values before heads are normed, `[n, qkv_dim]`. `normed`: `[n, d_model]`.
    pub fn raw_heads(&self, normed: Tensor<B, 2>) -> Tensor<B, 2> {
        let qkv = self.qkv.project(normed, None, self.precision);
        match &self.qkv_bias {
            Some(bias) => qkv + bias.clone().unsqueeze(),
            None => qkv,
        }
    }

    /// The same after that, `[n, qkv_dim]` both.
    pub fn normed_heads(&self, raw: Tensor<B, 2>) -> Tensor<B, 2> {
        self.by_head([raw], |[heads], weight| B::rms_norm(heads, weight, self.norm_eps))
    }

    /// What `f` makes of queries and of keys where heads are normed, beside the values of the last of `parts`; all of the last part where they are
    /// not. `parts`: `[n, qkv_dim]` each. `f` gets a head of a token in every row, `[n * heads, head_dim]`, and the weight of their norm.
    pub fn by_head<const N: usize>(
        &self,
        parts: [Tensor<B, 2>; N],
        f: impl Fn([Tensor<B, 2>; N], Tensor<B, 1>) -> Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let last = parts[N - 1].clone();
        let Some([query_norm, key_norm]) = &self.head_norms else { return last };
        let AttentionShape { heads, kv_heads, head_dim, .. } = *self.shape;
        let n = last.dims()[0];
        let made = |from: usize, heads: usize, weight: &Tensor<B, 1>| {
            let rows = |part: Tensor<B, 2>| part.narrow(1, from * head_dim, heads * head_dim).reshape([n * heads, head_dim]);
            f(parts.clone().map(rows), weight.clone()).reshape([n, heads * head_dim])
        };
        let values = last.narrow(1, (heads + kv_heads) * head_dim, kv_heads * head_dim);
        cat(vec![made(0, heads, query_norm), made(heads, kv_heads, key_norm), values], 1)
    }
}

impl<B: Backend> LayerTensors<B> {
    /// What is trained of a layer whose own weights are frozen: `A` and every `B` of its adapters, in the order in which a token comes to them.
    pub fn trained(&self) -> Vec<Tensor<B, 2>> {
        let adapters = [&self.qkv, &self.attention_out, &self.gate_up, &self.down].map(|matrix| &matrix.adapter);
        adapters.into_iter().flatten().flat_map(|own| std::iter::once(&own.a).chain(&own.b)).cloned().collect()
    }
}

impl<B: AutodiffBackend> LayerTensors<B> {
    /// The same without a tape.
    pub fn inner(self) -> LayerTensors<B::InnerBackend> {
        LayerTensors {
            attention_norm: self.attention_norm.inner(),
            qkv: self.qkv.inner(),
            qkv_bias: self.qkv_bias.map(Tensor::inner),
            head_norms: self.head_norms.map(|norms| norms.map(Tensor::inner)),
            attention_out: self.attention_out.inner(),
            feed_norm: self.feed_norm.inner(),
            gate_up: self.gate_up.inner(),
            down: self.down.inner(),
            shape: self.shape,
            norm_eps: self.norm_eps,
            precision: self.precision,
        }
    }
}
