//! A decoder-only transformer of the Llama family: RMS norm, rotary embeddings, grouped-query attention, SwiGLU.

use super::kernels::{AttentionShape, Kernels, LayerCache, RopeTable};
use burn::module::Param;
use burn::prelude::*;
use moslim_shared::config::ModelConfig;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;

/// Base of the rotary frequencies.
const ROPE_THETA: f64 = 1e4;
/// Epsilon of the RMS norms.
const NORM_EPS: f32 = 1e-5;
/// Standard deviation of initial weights; projections back into the residual stream are divided by `sqrt(2 layers)`.
const INITIAL_STD: f64 = 0.06;

/// One decoder layer. Matrices act from the right: `[in, out]`.
#[derive(Module, Debug)]
pub struct Layer<B: Backend> {
    attention_norm: Param<Tensor<B, 1>>,
    /// Queries, keys, values: `[d_model, qkv_dim]`.
    qkv: Param<Tensor<B, 2>>,
    /// `[heads * head_dim, d_model]`
    attention_out: Param<Tensor<B, 2>>,
    feed_norm: Param<Tensor<B, 1>>,
    /// Gate and up: `[d_model, 2 d_ff]`.
    gate_up: Param<Tensor<B, 2>>,
    /// `[d_ff, d_model]`
    down: Param<Tensor<B, 2>>,
}

/// The trunk of policy and reward model.
#[derive(Module, Debug)]
pub struct Transformer<B: Backend> {
    /// `[vocabulary, d_model]`
    pub embedding: Param<Tensor<B, 2>>,
    layers: Vec<Layer<B>>,
    norm: Param<Tensor<B, 1>>,
    /// `[d_model, outputs]` when the embeddings are not tied.
    head: Option<Param<Tensor<B, 2>>>,
    /// The first `outputs` entries of the vocabulary can be written.
    outputs: usize,
    #[module(skip)]
    shape: Arc<AttentionShape>,
}

/// Draws normal weights on the host, so that they do not depend on the device.
pub struct Initialiser {
    rng: StdRng,
}

impl Initialiser {
    /// Weights that depend on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed) }
    }

    /// `N(0, std^2)` numbers.
    pub fn normal(&mut self, n: usize, std: f64) -> Vec<f32> {
        (0..n)
            .map(|_| {
                // Box-Muller; one of the pair is enough here.
                let u: f64 = 1.0 - self.rng.random::<f64>();
                let v: f64 = self.rng.random();
                (std * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
            })
            .collect()
    }

    /// A matrix parameter of `N(0, std^2)` numbers.
    pub fn matrix<B: Backend>(&mut self, rows: usize, columns: usize, std: f64, device: &B::Device) -> Param<Tensor<B, 2>> {
        Param::from_tensor(Tensor::from_data(TensorData::new(self.normal(rows * columns, std), [rows, columns]), device))
    }
}

fn ones<B: Backend>(n: usize, device: &B::Device) -> Param<Tensor<B, 1>> {
    Param::from_tensor(Tensor::ones([n], device))
}

/// Sequences of different lengths in one rectangle.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[rows * time]`
    pub tokens: Vec<u32>,
    pub rows: usize,
    pub time: usize,
    /// First real position of each row.
    pub starts: Vec<usize>,
    /// Real tokens of each row.
    pub lengths: Vec<usize>,
}

impl Batch {
    /// Pads on the right, for training and scoring: causal attention never looks at what follows.
    pub fn right_padded(sequences: &[&[u32]], pad: u32) -> Self {
        Self::padded(sequences, pad, false)
    }

    /// Pads on the left, for generation: all rows end at the same position.
    pub fn left_padded(sequences: &[&[u32]], pad: u32) -> Self {
        Self::padded(sequences, pad, true)
    }

    fn padded(sequences: &[&[u32]], pad: u32, left: bool) -> Self {
        let time = sequences.iter().map(|s| s.len()).max().unwrap_or(0);
        let mut tokens = Vec::with_capacity(sequences.len() * time);
        let mut starts = Vec::with_capacity(sequences.len());
        for s in sequences {
            let padding = std::iter::repeat_n(pad, time - s.len());
            if left {
                tokens.extend(padding);
                tokens.extend_from_slice(s);
                starts.push(time - s.len());
            } else {
                tokens.extend_from_slice(s);
                tokens.extend(padding);
                starts.push(0);
            }
        }
        Self { tokens, rows: sequences.len(), time, starts, lengths: sequences.iter().map(|s| s.len()).collect() }
    }
}

/// Host indices as a tensor.
pub fn index_tensor<B: Backend>(index: &[u32], device: &B::Device) -> Tensor<B, 1, Int> {
    let index: Vec<i32> = index.iter().map(|&i| i as i32).collect();
    let n = index.len();
    Tensor::from_data(TensorData::new(index, [n]), device)
}

impl<B: Kernels> Transformer<B> {
    /// A model with random weights. `vocabulary` entries can be read, the first `outputs` of them written.
    pub fn new(config: &ModelConfig, vocabulary: usize, outputs: usize, seed: u64, device: &B::Device) -> Self {
        let mut init = Initialiser::new(seed);
        let head_dim = config.d_model / config.heads;
        let rope = Arc::new(RopeTable::new(config.context, head_dim, ROPE_THETA));
        let shape = AttentionShape { heads: config.heads, kv_heads: config.kv_heads, head_dim, rope };
        let d = config.d_model;
        let back = INITIAL_STD / (2.0 * config.layers as f64).sqrt();
        let embedding = init.matrix(vocabulary, d, INITIAL_STD, device);
        let layers = (0..config.layers)
            .map(|_| Layer {
                attention_norm: ones(d, device),
                qkv: init.matrix(d, shape.qkv_dim(), INITIAL_STD, device),
                attention_out: init.matrix(d, d, back, device),
                feed_norm: ones(d, device),
                gate_up: init.matrix(d, 2 * config.d_ff, INITIAL_STD, device),
                down: init.matrix(config.d_ff, d, back, device),
            })
            .collect();
        let head = (!config.tied_embeddings).then(|| init.matrix(d, outputs, INITIAL_STD, device));
        Self { embedding, layers, norm: ones(d, device), head, outputs, shape: Arc::new(shape) }
    }

    /// Where the weights are.
    pub fn device(&self) -> B::Device {
        self.embedding.val().device()
    }

    /// Longest sequence that the position table covers.
    pub fn context(&self) -> usize {
        self.shape.rope.cos.len() / self.shape.rope.half
    }

    /// Hidden states after the last norm, `[rows * time, d_model]`.
    pub fn hidden(&self, batch: &Batch) -> Tensor<B, 2> {
        self.run(batch.rows, batch.time, &batch.tokens, |_, qkv| B::causal_attention(qkv, &self.shape, &batch.starts))
    }

    /// Empty caches with room for `capacity` positions.
    pub fn cache(&self, capacity: usize) -> Vec<LayerCache<B>> {
        self.layers.iter().map(|_| LayerCache::new(capacity)).collect()
    }

    /// Hidden states `[rows * new, d_model]` of `tokens` (`[rows * new]`) that follow what is in `cache`.
    pub fn extend(&self, tokens: &[u32], starts: &[usize], cache: &mut [LayerCache<B>]) -> Tensor<B, 2> {
        let rows = starts.len();
        self.run(rows, tokens.len() / rows, tokens, |l, qkv| B::cached_attention(qkv, &self.shape, starts, &mut cache[l]))
    }

    fn run(
        &self,
        rows: usize,
        time: usize,
        tokens: &[u32],
        mut attention: impl FnMut(usize, Tensor<B, 3>) -> Tensor<B, 3>,
    ) -> Tensor<B, 2> {
        let device = self.device();
        let n = rows * time;
        let d = self.norm.dims()[0];
        let mut x = self.embedding.val().select(0, index_tensor(tokens, &device)); // [n, d_model]
        for (l, layer) in self.layers.iter().enumerate() {
            let normed = B::rms_norm(x.clone(), layer.attention_norm.val(), NORM_EPS);
            let qkv = normed.matmul(layer.qkv.val()).reshape([rows, time, self.shape.qkv_dim()]);
            let attended = attention(l, qkv).reshape([n, d]);
            x = x + attended.matmul(layer.attention_out.val());
            let normed = B::rms_norm(x.clone(), layer.feed_norm.val(), NORM_EPS);
            x = x + B::swiglu(normed.matmul(layer.gate_up.val())).matmul(layer.down.val());
        }
        B::rms_norm(x, self.norm.val(), NORM_EPS)
    }

    /// Scores of the entries that can be written. `hidden`: `[n, d_model]`; returns `[n, outputs]`.
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.head {
            Some(head) => hidden.matmul(head.val()),
            None => hidden.matmul(self.embedding.val().narrow(0, 0, self.outputs).transpose()),
        }
    }

    /// Log-probability of each answer token given what precedes it, at `temperature`, as one flat tensor `[sum of spans]`.
    ///
    /// `batch` is padded on the right; row `r`'s answer tokens stand at `spans[r].0 .. spans[r].1`. Returns the tensor and,
    /// per element, the row it belongs to.
    pub fn answer_log_probs(&self, batch: &Batch, spans: &[(usize, usize)], temperature: f32) -> (Tensor<B, 1>, Vec<usize>) {
        let (mut positions, mut targets, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (r, &(from, to)) in spans.iter().enumerate() {
            for t in from..to {
                positions.push((r * batch.time + t - 1) as u32);
                targets.push(batch.tokens[r * batch.time + t]);
                rows.push(r);
            }
        }
        let hidden = self.hidden(batch);
        let device = hidden.device();
        let chosen = hidden.select(0, index_tensor(&positions, &device));
        (B::log_prob(self.logits(chosen), &targets, temperature), rows)
    }

    /// Gives `tokens` the embedding of the token `like`, plus noise as strong as the table's entries that tells them apart.
    pub fn copy_embedding(mut self, tokens: &[u32], like: u32, seed: u64) -> Self {
        let device = self.device();
        let [vocabulary, d] = self.embedding.dims();
        let mut values: Vec<f32> = self.embedding.val().into_data().to_vec().expect("embeddings are f32");
        let source: Vec<f32> = values[like as usize * d..(like as usize + 1) * d].to_vec();
        let mut init = Initialiser::new(seed);
        let deviation = (values.iter().map(|v| (v * v) as f64).sum::<f64>() / values.len() as f64).sqrt();
        for &token in tokens {
            let noise = init.normal(d, deviation);
            for i in 0..d {
                values[token as usize * d + i] = source[i] + noise[i];
            }
        }
        self.embedding = Param::from_tensor(Tensor::from_data(TensorData::new(values, [vocabulary, d]), &device));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;

    fn model(tied: bool) -> Transformer<Flex> {
        let config = ModelConfig { layers: 2, d_model: 24, heads: 4, kv_heads: 2, d_ff: 40, context: 64, tied_embeddings: tied };
        Transformer::new(&config, 50, 40, 3, &Default::default())
    }

    fn values<const D: usize>(t: Tensor<Flex, D>) -> Vec<f32> {
        t.into_data().to_vec().unwrap()
    }

    #[test]
    fn padding_changes_no_logit() {
        for tied in [true, false] {
            let model = model(tied);
            let (long, short): (&[u32], &[u32]) = (&[1, 5, 9, 30, 2, 7, 8, 3], &[4, 6, 11]);
            let alone = Batch::right_padded(&[short], 41);
            let want = values(model.logits(model.hidden(&alone)));
            for batch in [Batch::right_padded(&[long, short], 41), Batch::left_padded(&[long, short], 41)] {
                let from = (batch.time + batch.starts[1]) * 40;
                let got = values(model.logits(model.hidden(&batch)));
                for (a, b) in want.iter().zip(&got[from..]) {
                    assert!((a - b).abs() < 1e-5, "{a} is not {b}");
                }
            }
        }
    }

    #[test]
    fn a_cached_step_equals_the_whole_pass() {
        let model = model(true);
        let (a, b): (&[u32], &[u32]) = (&[1, 5, 9, 30, 2], &[4, 6, 11]);
        let batch = Batch::left_padded(&[a, b], 41);
        let mut cache = model.cache(16);
        model.extend(&batch.tokens, &batch.starts, &mut cache);
        let step = values(model.logits(model.extend(&[12, 13], &batch.starts, &mut cache)));
        for (row, sequence) in [[a, &[12]].concat(), [b, &[13]].concat()].iter().enumerate() {
            let whole = values(model.logits(model.hidden(&Batch::right_padded(&[sequence], 41))));
            for (x, y) in whole[whole.len() - 40..].iter().zip(&step[row * 40..]) {
                assert!((x - y).abs() < 1e-5, "{x} is not {y}");
            }
        }
    }

    #[test]
    fn answer_log_probs_are_those_of_the_tokens() {
        let model = model(true);
        let batch = Batch::right_padded(&[&[1, 5, 9, 30], &[4, 6, 11]], 41);
        let (log_probs, rows) = model.answer_log_probs(&batch, &[(2, 4), (1, 2)], 0.5);
        assert_eq!(rows, [0, 0, 1]);
        let logits = values(model.logits(model.hidden(&batch)));
        for (got, (position, token)) in values(log_probs).into_iter().zip([(1, 9), (2, 30), (4, 6)]) {
            let row: Vec<f64> = logits[position * 40..(position + 1) * 40].iter().map(|&l| l as f64 / 0.5).collect();
            let want = row[token] - row.iter().map(|l| l.exp()).sum::<f64>().ln();
            assert!((got as f64 - want).abs() < 1e-4);
        }
    }
}
