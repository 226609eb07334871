//! The reward model: one trunk, one head per objective. It never sees the preference tags.

pub mod frozen;
pub mod loss;
pub mod train;

use crate::model::initialiser::Initialiser;
use crate::model::kernels::Kernels;
use crate::model::packed::Packed;
use crate::model::transformer::{Transformer, index_tensor};
use burn::module::Param;
use burn::prelude::*;
use moslim_shared::config::ModelConfig;
use moslim_shared::ordinal::RewardLoss;

/// A transformer trunk with a linear head per objective on the hidden state of the last real token.
#[derive(Module, Debug)]
pub struct RewardModel<B: Backend> {
    pub trunk: Transformer<B>,
    /// All heads side by side: `[d_model, sum of columns]`.
    heads: Param<Tensor<B, 2>>,
    /// `[sum of outputs]`
    bias: Param<Tensor<B, 1>>,
    /// Log-variances `s_i` of learnt head weights, `[heads]`; 0 and unused otherwise.
    pub log_variances: Param<Tensor<B, 1>>,
    #[module(skip)]
    classes: Vec<usize>,
    #[module(skip)]
    loss: RewardLoss,
}

impl<B: Kernels> RewardModel<B> {
    /// A reward model with random weights. Heads start at `N(0, 1 / (d_model + 1))`, as reward heads do in the
    /// summarisation work (Huang et al. 2024, detail 9); biases at 0, CORAL's in falling order.
    pub fn new(
        config: &ModelConfig,
        vocabulary: usize,
        classes: &[usize],
        loss: RewardLoss,
        seed: u64,
        device: &B::Device,
    ) -> Self {
        Self::on_trunk(Transformer::new(config, vocabulary, 1, seed, device), classes, loss, seed)
    }

    /// Fresh heads on a trunk that is there already.
    pub fn on_trunk(trunk: Transformer<B>, classes: &[usize], loss: RewardLoss, seed: u64) -> Self {
        let device = &trunk.device();
        let d_model = trunk.embedding.dims()[1];
        let columns: usize = classes.iter().map(|&c| loss.columns(c)).sum();
        let std = 1.0 / ((d_model + 1) as f64).sqrt();
        let heads = Initialiser::new(seed ^ 0x5EED).matrix(d_model, columns, std, device);
        let bias: Vec<f32> = classes
            .iter()
            .flat_map(|&c| {
                let n = loss.outputs(c);
                (0..n).map(move |t| if loss == RewardLoss::Coral { (n - 1) as f32 / 2.0 - t as f32 } else { 0.0 })
            })
            .collect();
        let outputs = bias.len();
        Self {
            trunk,
            heads,
            bias: Param::from_tensor(Tensor::from_data(TensorData::new(bias, [outputs]), device)),
            log_variances: Param::from_tensor(Tensor::zeros([classes.len()], device)),
            classes: classes.to_vec(),
            loss,
        }
    }

    /// Where the weights are.
    pub fn device(&self) -> B::Device {
        self.trunk.device()
    }

    /// Classes per head.
    pub fn classes(&self) -> &[usize] {
        &self.classes
    }

    /// Outputs per head.
    pub fn widths(&self) -> Vec<usize> {
        self.classes.iter().map(|&c| self.loss.outputs(c)).collect()
    }

    /// Weights and biases of all heads, as files have them: `[columns, d_model]` row after row, and `[outputs]`.
    pub fn head_weights(&self) -> [Vec<f32>; 2] {
        let values = |data: TensorData| data.to_vec().expect("weights are f32");
        [values(self.heads.val().transpose().into_data()), values(self.bias.val().into_data())]
    }

    /// What the heads are trained with.
    pub fn loss(&self) -> RewardLoss {
        self.loss
    }

    /// Outputs of every head, side by side, for every answer in order: `[answers, sum of outputs]`. `packed`: untagged
    /// questions, answers with their end-of-sequence.
    pub fn outputs(&self, packed: &Packed) -> Tensor<B, 2> {
        let hidden = self.trunk.hidden(packed);
        let last: Vec<u32> = packed.spans.iter().flat_map(|s| (0..s.answers.len()).map(|n| s.last(n) as u32)).collect();
        let device = hidden.device();
        let mut out = hidden.select(0, index_tensor(&last, &device)).matmul(self.heads.val());
        if self.loss == RewardLoss::Coral {
            // Every threshold of a head reads the head's one column.
            let columns: Vec<u32> =
                self.widths().iter().enumerate().flat_map(|(h, &n)| std::iter::repeat_n(h as u32, n)).collect();
            out = out.select(1, index_tensor(&columns, &device));
        }
        out + self.bias.val().unsqueeze()
    }
}
