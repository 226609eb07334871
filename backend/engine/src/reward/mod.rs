//! The reward model: one trunk, one head per objective. It never sees the preference tags.

pub mod frozen;
pub mod loss;
pub mod train;

use crate::model::initialiser::Initialiser;
use crate::model::kernels::{Kernels, cat};
use crate::model::packed::Packed;
use crate::model::span::Span;
use crate::model::transformer::{Transformer, index_tensor};
use burn::module::Param;
use burn::prelude::*;
use moslim_shared::config::{HeadPooling, ModelConfig, RewardModelConfig};
use moslim_shared::ordinal::RewardLoss;
use std::ops::Range;

/// A transformer trunk with a linear head per objective on the hidden state of the last real token, on the mean over the answer, or on
/// both ([`HeadPooling`]).
#[derive(Module, Debug)]
pub struct RewardModel<B: Backend> {
    pub trunk: Transformer<B>,
    /// All heads side by side: `[d_model, sum of columns]`; with both parts `[2 d_model, sum of columns]`, the last token's first.
    heads: Param<Tensor<B, 2>>,
    /// `[sum of outputs]`
    bias: Param<Tensor<B, 1>>,
    /// Log-variances `s_i` of learnt head weights, `[heads]`; 0 and unused otherwise.
    pub log_variances: Param<Tensor<B, 1>>,
    #[module(skip)]
    classes: Vec<usize>,
    #[module(skip)]
    loss: RewardLoss,
    #[module(skip)]
    pooling: HeadPooling,
}

impl<B: Kernels> RewardModel<B> {
    /// A reward model with random weights. Heads start at `N(0, 1 / (width + 1))`, as reward heads do in the
    /// summarisation work (Huang et al. 2024, detail 9); biases at 0, CORAL's in falling order. Of `settings` only the heads' loss and pooling are read.
    pub fn new(
        config: &ModelConfig,
        vocabulary: usize,
        classes: &[usize],
        settings: &RewardModelConfig,
        seed: u64,
        device: &B::Device,
    ) -> Self {
        Self::on_trunk(Transformer::new(config, vocabulary, 1, seed, device), classes, settings, seed)
    }

    /// Fresh heads on a trunk that is there already.
    pub fn on_trunk(trunk: Transformer<B>, classes: &[usize], settings: &RewardModelConfig, seed: u64) -> Self {
        let device = &trunk.device();
        let RewardModelConfig { loss, pooling, .. } = *settings;
        let width = pooling.width(trunk.embedding.dims()[1]);
        let columns: usize = classes.iter().map(|&c| loss.columns(c)).sum();
        let std = 1.0 / ((width + 1) as f64).sqrt();
        let heads = Initialiser::new(seed ^ 0x5EED).matrix(width, columns, std, device);
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
            pooling,
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

    /// Weights and biases of all heads, as files have them: `[columns, width]` row after row, and `[outputs]`.
    pub fn head_weights(&self) -> [Vec<f32>; 2] {
        let values = |data: TensorData| data.to_vec().expect("weights are f32");
        [values(self.heads.val().transpose().into_data()), values(self.bias.val().into_data())]
    }

    /// What the heads read.
    pub fn pooling(&self) -> HeadPooling {
        self.pooling
    }

    /// What the heads are trained with.
    pub fn loss(&self) -> RewardLoss {
        self.loss
    }

    /// Outputs of every head, side by side, for every answer in order: `[answers, sum of outputs]`. `packed`: untagged
    /// questions, answers with their end-of-sequence.
    pub fn outputs(&self, packed: &Packed) -> Tensor<B, 2> {
        self.read(self.trunk.hidden(packed), &whole_answers(packed))
    }

    /// The same, and the outputs before every token of every answer: `[tokens of answers, sum of outputs]`. What they read is the
    /// question and the tokens before.
    pub fn outputs_and_beginnings(&self, packed: &Packed) -> [Tensor<B, 2>; 2] {
        let hidden = self.trunk.hidden(packed);
        [self.read(hidden.clone(), &whole_answers(packed)), self.read(hidden, &beginnings(packed))]
    }

    /// Outputs of every head at `places` of `hidden`, `[tokens, d_model]`: `[places, sum of outputs]`.
    fn read(&self, hidden: Tensor<B, 2>, places: &[Range<usize>]) -> Tensor<B, 2> {
        let device = hidden.device();
        let last = |hidden: Tensor<B, 2>| {
            let last: Vec<u32> = places.iter().map(|over| over.end as u32 - 1).collect();
            hidden.select(0, index_tensor(&last, &device))
        };
        let read = match self.pooling {
            HeadPooling::Last => last(hidden),
            HeadPooling::Mean => mean(hidden, places),
            HeadPooling::LastAndMean => cat(vec![last(hidden.clone()), mean(hidden, places)], 1),
        };
        let mut out = read.matmul(self.heads.val());
        if self.loss == RewardLoss::Coral {
            // Every threshold of a head reads the head's one column.
            let columns: Vec<u32> =
                self.widths().iter().enumerate().flat_map(|(h, &n)| std::iter::repeat_n(h as u32, n)).collect();
            out = out.select(1, index_tensor(&columns, &device));
        }
        out + self.bias.val().unsqueeze()
    }
}

/// What heads read of every answer: its tokens, or where it has none the last of its prompt.
fn whole_answers(packed: &Packed) -> Vec<Range<usize>> {
    let of = |span: &Span| {
        let read = |answer: &Range<usize>| if answer.is_empty() { span.prompt.end - 1..span.prompt.end } else { answer.clone() };
        span.answers.iter().map(read).collect::<Vec<_>>()
    };
    packed.spans.iter().flat_map(of).collect()
}

/// What heads read before every token of every answer: the tokens of it that are there, before the first the last of its prompt.
fn beginnings(packed: &Packed) -> Vec<Range<usize>> {
    let of = |span: &Span| {
        let first = span.prompt.end - 1..span.prompt.end;
        let read = |answer: &Range<usize>| {
            let (start, first) = (answer.start, first.clone());
            answer.clone().map(move |t| if t == start { first.clone() } else { start..t }).collect::<Vec<_>>()
        };
        span.answers.iter().flat_map(read).collect::<Vec<_>>()
    };
    packed.spans.iter().flat_map(of).collect()
}

/// Places whose means are one product: they lie next to each other, so that its matrix stays small.
const PLACES: usize = 256;

/// The mean of `hidden` (`[tokens, d_model]`) over each of `places`, which are in order, as products with their shares: `[places, d_model]`.
fn mean<B: Backend>(hidden: Tensor<B, 2>, places: &[Range<usize>]) -> Tensor<B, 2> {
    let device = hidden.device();
    let of = |some: &[Range<usize>]| {
        let from = some.iter().map(|over| over.start).min().unwrap_or(0);
        let tokens = some.iter().map(|over| over.end).max().unwrap_or(0) - from;
        let mut shares = vec![0f32; some.len() * tokens];
        for (row, over) in shares.chunks_mut(tokens).zip(some) {
            row[over.start - from..over.end - from].fill(1.0 / over.len() as f32);
        }
        let shares = Tensor::<B, 2>::from_data(TensorData::new(shares, [some.len(), tokens]), &device);
        shares.matmul(hidden.clone().narrow(0, from, tokens))
    };
    cat(places.chunks(PLACES).map(of).collect(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::packed::Group;
    use burn::backend::Flex;

    /// Of hidden states that are computed token by token elsewhere.
    #[test]
    fn heads_read_the_last_token_the_mean_or_both() {
        let config = ModelConfig { layers: 1, d_model: 16, heads: 2, kv_heads: 1, d_ff: 24, context: 32, ..Default::default() };
        let device = Default::default();
        let trunk = Transformer::<Flex>::new(&config, 50, 1, 5, &device);
        let groups =
            [Group { prompt: &[3, 9], answers: vec![&[4, 16, 1], &[7, 1]] }, Group { prompt: &[27], answers: vec![&[], &[8]] }];
        let packed = Packed::new(&groups);
        let hidden: Vec<f32> = trunk.hidden(&packed).into_data().to_vec().unwrap();
        let at = |place: usize| &hidden[place * 16..(place + 1) * 16];
        // Two tokens of the first prompt, answers of three and two; one of the second prompt, answers of none and one.
        let places: [&[usize]; 4] = [&[2, 3, 4], &[5, 6], &[7], &[8]];
        for pooling in [HeadPooling::Last, HeadPooling::Mean, HeadPooling::LastAndMean] {
            let settings = RewardModelConfig { pooling, ..Default::default() };
            let model = RewardModel::on_trunk(trunk.clone(), &[3], &settings, 6);
            let weights = &model.head_weights()[0];
            let check = |got: &[f32], places: &[usize], of: &str| {
                let last = at(places[places.len() - 1]).to_vec();
                let mean: Vec<f32> =
                    (0..16).map(|d| places.iter().map(|&p| at(p)[d]).sum::<f32>() / places.len() as f32).collect();
                let read = match pooling {
                    HeadPooling::Last => last,
                    HeadPooling::Mean => mean,
                    HeadPooling::LastAndMean => [last, mean].concat(),
                };
                for (class, row) in weights.chunks(read.len()).enumerate() {
                    let expected: f32 = row.iter().zip(&read).map(|(w, x)| w * x).sum();
                    assert!((got[class] - expected).abs() < 1e-4, "{of}, class {class}: {}, not {expected}", got[class]);
                }
            };
            let got: Vec<f32> = model.outputs(&packed).into_data().to_vec().unwrap();
            for (n, places) in places.iter().enumerate() {
                check(&got[n * 3..(n + 1) * 3], places, &format!("{pooling:?}, answer {n}"));
            }
            // Before every token of the answers: the prompt's end, then what is there of an answer; nothing of its neighbours.
            let [whole, begun] = model.outputs_and_beginnings(&packed).map(|t| t.into_data().to_vec::<f32>().unwrap());
            assert_eq!(whole, got);
            let begun_places: [&[usize]; 6] = [&[1], &[2], &[2, 3], &[1], &[5], &[7]];
            assert_eq!(begun.len(), 3 * begun_places.len());
            for (n, places) in begun_places.iter().enumerate() {
                check(&begun[n * 3..(n + 1) * 3], places, &format!("{pooling:?}, beginning {n}"));
            }
        }
    }
}
