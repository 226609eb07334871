//! Low-rank adapters (LoRA, Hu et al. 2022): `x W + alpha / rank * x A B`, with `W` frozen, `A` drawn at random and `B` zero, so that
//! an adapted model begins as the model it adapts.
//!
//! Matrices that are one here and several in files (queries, keys, values; gate and up) have an adapter for each of those, so that
//! what is learnt can be written down as others have it.

use super::architecture::{Architecture, LayerPart};
use super::initialiser::Initialiser;
use super::kernels::Kernels;
use super::kernels::layer::LowRank;
use burn::module::Param;
use burn::prelude::*;
use moslim_shared::config::{AdapterTarget, BaseConfig, Precision};
use serde::{Deserialize, Serialize};

/// Which matrices have adapters, of which rank, and how their gradients are computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    pub rank: usize,
    /// What is added is multiplied by `alpha / rank`.
    pub alpha: f64,
    pub targets: Vec<AdapterTarget>,
    /// Whether a layer is computed once more for them; see [`Kernels::checkpointed`].
    pub checkpointing: bool,
}

impl AdapterConfig {
    /// As a run's configuration has them.
    pub fn of(base: &BaseConfig) -> Self {
        Self { rank: base.rank, alpha: base.alpha, targets: base.targets.clone(), checkpointing: base.checkpointing }
    }
}

impl Default for AdapterConfig {
    fn default() -> Self {
        Self::of(&BaseConfig::default())
    }
}

/// Adapters of the matrices that make one of ours.
#[derive(Module, Debug)]
pub struct Adapter<B: Backend> {
    /// Side by side: `[in, adapted matrices * rank]`.
    a: Param<Tensor<B, 2>>,
    /// Of every adapted matrix, `[rank, out]`.
    b: Vec<Param<Tensor<B, 2>>>,
    /// Columns of every matrix, and whether it is adapted.
    #[module(skip)]
    columns: Vec<(usize, bool)>,
    #[module(skip)]
    scale: f32,
}

/// The adapters of a layer.
#[derive(Module, Debug)]
pub struct LayerAdapters<B: Backend> {
    pub qkv: Option<Adapter<B>>,
    pub attention_out: Option<Adapter<B>>,
    pub gate_up: Option<Adapter<B>>,
    pub down: Option<Adapter<B>>,
}

impl<B: Kernels> Adapter<B> {
    /// `rows`: entries of the input; `columns`: of every matrix of the output, and whether it is adapted. `None` where none is.
    fn new(
        config: &AdapterConfig,
        rows: usize,
        columns: Vec<(usize, bool)>,
        init: &mut Initialiser,
        device: &B::Device,
    ) -> Option<Self> {
        let adapted: Vec<usize> = columns.iter().filter(|(_, adapted)| *adapted).map(|(n, _)| *n).collect();
        if adapted.is_empty() {
            return None;
        }
        // As spread as PEFT draws it where it is asked for Gaussian numbers: 1 / rank.
        let a = init.matrix(rows, adapted.len() * config.rank, 1.0 / config.rank as f64, device);
        let b = adapted.iter().map(|&n| Param::from_tensor(Tensor::zeros([config.rank, n], device))).collect();
        Some(Self { a, b, columns, scale: (config.alpha / config.rank as f64) as f32 })
    }

    /// Its tensors.
    pub fn low_rank(&self) -> LowRank<B> {
        LowRank { a: self.a.val(), b: self.b.iter().map(Param::val).collect(), columns: self.columns.clone(), scale: self.scale }
    }

    /// The same adapter with all its parts in one, for who multiplies with it again and again. It can no longer be written to files by part.
    fn joined(self) -> Self {
        let out = self.columns.iter().map(|(n, _)| n).sum();
        let wide = self.low_rank().wide();
        Self { b: vec![Param::from_tensor(wide)], columns: vec![(out, true)], ..self }
    }

    /// What every adapted matrix has: its position among those that make ours, `A` as `[rank, in]` and `B` as `[out, rank]`, row after
    /// row, as files have them.
    pub fn pairs(&self) -> Vec<(usize, [Vec<f32>; 2])> {
        let values = |t: Tensor<B, 2>| t.transpose().into_data().to_vec().expect("adapters are f32");
        let rank = self.a.dims()[1] / self.b.len();
        let adapted = self.columns.iter().enumerate().filter(|(_, (_, adapted))| *adapted).map(|(n, _)| n);
        let pair = |(at, n): (usize, usize)| (n, [values(self.a.val().narrow(1, at * rank, rank)), values(self.b[at].val())]);
        adapted.enumerate().map(pair).collect()
    }

    /// Gradient of its first `B`.
    #[cfg(test)]
    pub(super) fn first_gradient(&self, grads: &B::Gradients) -> Vec<f32>
    where
        B: burn::tensor::backend::AutodiffBackend,
    {
        self.b[0].val().grad(grads).expect("B is trained").into_data().to_vec().expect("gradients are f32")
    }

    /// What it adds to the matrix itself, `[in, out]`.
    pub fn matrix(&self) -> Tensor<B, 2> {
        let rows = self.a.dims()[0];
        let eye: Tensor<B, 2> = Tensor::eye(rows, &self.a.val().device());
        self.low_rank().added(eye, None, Precision::F32)
    }
}

/// Fresh adapters for every layer of a decoder.
pub fn adapters<B: Kernels>(config: &AdapterConfig, a: &Architecture, seed: u64, device: &B::Device) -> Vec<LayerAdapters<B>> {
    use AdapterTarget::{DownProj, GateProj, KProj, OProj, QProj, UpProj, VProj};
    let mut init = Initialiser::new(seed);
    let has = |target: AdapterTarget| config.targets.contains(&target);
    let (queries, keys) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
    let mut one = |rows: usize, columns: Vec<(usize, bool)>| Adapter::new(config, rows, columns, &mut init, device);
    (0..a.layers)
        .map(|_| LayerAdapters {
            qkv: one(a.d_model, vec![(queries, has(QProj)), (keys, has(KProj)), (keys, has(VProj))]),
            attention_out: one(queries, vec![(a.d_model, has(OProj))]),
            gate_up: one(a.d_model, vec![(a.d_ff, has(GateProj)), (a.d_ff, has(UpProj))]),
            down: one(a.d_ff, vec![(a.d_model, has(DownProj))]),
        })
        .collect()
}

impl<B: Kernels> LayerAdapters<B> {
    /// The same adapters, each with all its parts in one.
    pub fn joined(self) -> Self {
        let [qkv, attention_out, gate_up, down] =
            [self.qkv, self.attention_out, self.gate_up, self.down].map(|own| own.map(Adapter::joined));
        Self { qkv, attention_out, gate_up, down }
    }
}

impl<B: Backend> LayerAdapters<B> {
    /// The adapter of a part of the layer, if it has one.
    pub fn of(&self, part: LayerPart) -> Option<&Adapter<B>> {
        match part {
            LayerPart::Qkv => self.qkv.as_ref(),
            LayerPart::AttentionOut => self.attention_out.as_ref(),
            LayerPart::GateUp => self.gate_up.as_ref(),
            LayerPart::Down => self.down.as_ref(),
            _ => None,
        }
    }
}
