//! The reward model: one trunk, one classification head per objective. It never sees the preference tags.

pub mod judge;
pub mod train;

use crate::model::kernels::Kernels;
use crate::model::packed::Packed;
use crate::model::transformer::{Initialiser, Transformer, index_tensor};
use burn::module::Param;
use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use moslim_shared::config::ModelConfig;

/// A transformer trunk with a linear classifier per objective on the hidden state of the last real token.
#[derive(Module, Debug)]
pub struct RewardModel<B: Backend> {
    trunk: Transformer<B>,
    /// All heads side by side: `[d_model, sum of C_i]`.
    heads: Param<Tensor<B, 2>>,
    /// `[sum of C_i]`
    bias: Param<Tensor<B, 1>>,
    #[module(skip)]
    classes: Vec<usize>,
}

impl<B: Kernels> RewardModel<B> {
    /// A reward model with random weights. Heads start at `N(0, 1 / (d_model + 1))`, as reward heads do in the
    /// summarisation work (Huang et al. 2024, detail 9); biases at 0.
    pub fn new(config: &ModelConfig, vocabulary: usize, classes: &[usize], seed: u64, device: &B::Device) -> Self {
        Self::on_trunk(Transformer::new(config, vocabulary, 1, seed, device), classes, seed)
    }

    /// Fresh heads on a trunk that is there already.
    pub fn on_trunk(trunk: Transformer<B>, classes: &[usize], seed: u64) -> Self {
        let device = &trunk.device();
        let d_model = trunk.embedding.dims()[1];
        let total: usize = classes.iter().sum();
        let std = 1.0 / ((d_model + 1) as f64).sqrt();
        let heads = Initialiser::new(seed ^ 0x5EED).matrix(d_model, total, std, device);
        Self { trunk, heads, bias: Param::from_tensor(Tensor::zeros([total], device)), classes: classes.to_vec() }
    }

    /// Where the weights are.
    pub fn device(&self) -> B::Device {
        self.trunk.device()
    }

    /// Classes per head.
    pub fn classes(&self) -> &[usize] {
        &self.classes
    }

    /// Logits of every head, side by side, for every answer in order: `[answers, sum of C_i]`. `packed`: untagged
    /// questions, answers with their end-of-sequence.
    pub fn logits(&self, packed: &Packed) -> Tensor<B, 2> {
        let hidden = self.trunk.hidden(packed);
        let last: Vec<u32> = packed.spans.iter().flat_map(|s| (0..s.answers.len()).map(|n| s.last(n) as u32)).collect();
        let device = hidden.device();
        hidden.select(0, index_tensor(&last, &device)).matmul(self.heads.val()) + self.bias.val().unsqueeze()
    }
}

/// Rows of a batch that have a label, per head.
pub fn labelled(labels: &[&[Option<usize>]], heads: usize) -> Vec<usize> {
    (0..heads).map(|h| labels.iter().filter(|l| l[h].is_some()).count()).collect()
}

/// Sum over heads of the cross-entropy over the rows that have a label for it, divided by `labelled[head]`, the number of
/// such rows in the whole batch: the losses of a batch's pieces add up to its mean.
///
/// `logits`: `[rows, sum of C_i]`; `labels[row][head]`. Targets are `(1 - smoothing)` on the label and `smoothing` spread
/// evenly. A head without any label adds 0 and no gradient.
pub fn masked_cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    labels: &[&[Option<usize>]],
    labelled: &[usize],
    classes: &[usize],
    smoothing: f64,
) -> Tensor<B, 1> {
    let device = logits.device();
    let rows = labels.len();
    let mut total = Tensor::zeros([1], &device);
    let mut from = 0;
    for (head, &count) in classes.iter().enumerate() {
        if labels.iter().any(|l| l[head].is_some()) {
            let mut weights = vec![0f32; rows * count];
            for (row, label) in labels.iter().enumerate() {
                if let Some(class) = label[head] {
                    for c in 0..count {
                        let target = smoothing / count as f64 + if c == class { 1.0 - smoothing } else { 0.0 };
                        weights[row * count + c] = (target / labelled[head] as f64) as f32;
                    }
                }
            }
            let weights = Tensor::<B, 2>::from_data(TensorData::new(weights, [rows, count]), &device);
            total = total - (log_softmax(logits.clone().narrow(1, from, count), 1) * weights).sum();
        }
        from += count;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};

    type B = Autodiff<Flex>;

    #[test]
    fn a_masked_head_gets_no_gradient() {
        let logits = Tensor::<B, 2>::from_data([[0.3, -0.2, 1.0, 0.5, 0.1], [0.0, 0.7, -1.0, 0.2, 0.4]], &Default::default())
            .require_grad();
        let labels: [&[Option<usize>]; 2] = [&[Some(1), None], &[Some(0), None]];
        let loss = masked_cross_entropy(logits.clone(), &labels, &labelled(&labels, 2), &[2, 3], 0.05);
        assert!(loss.clone().into_scalar().is_finite());
        let grad: Vec<f32> = logits.grad(&loss.backward()).unwrap().into_data().to_vec().unwrap();
        for row in grad.chunks(5) {
            assert!(row[0] != 0.0 && row[2..].iter().all(|&g| g == 0.0), "{row:?}");
        }
        let nothing = masked_cross_entropy(logits.clone(), &[&[None, None], &[None, None]], &[0, 0], &[2, 3], 0.0);
        assert_eq!(nothing.into_scalar(), 0.0);
    }

    #[test]
    fn the_loss_is_the_mean_over_labelled_rows() {
        let logits = Tensor::<B, 2>::from_data([[0.0, 3f32.ln()], [1.0, 1.0], [5.0, 0.0]], &Default::default());
        let labels: [&[Option<usize>]; 3] = [&[Some(1)], &[Some(0)], &[None]];
        let counts = labelled(&labels, 1);
        let whole = masked_cross_entropy(logits.clone(), &labels, &counts, &[2], 0.0).into_scalar();
        assert!((whole - (-(0.75f32.ln()) - 0.5f32.ln()) / 2.0).abs() < 1e-6);
        let piece = |from, n| {
            masked_cross_entropy(logits.clone().narrow(0, from, n), &labels[from..from + n], &counts, &[2], 0.0).into_scalar()
        };
        assert!((whole - piece(0, 1) - piece(1, 2)).abs() < 1e-6);
    }
}
