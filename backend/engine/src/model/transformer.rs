//! A decoder-only transformer of the Llama family: RMS norm, rotary embeddings, grouped-query attention, SwiGLU. What differs
//! between families are the switches of [`Architecture`].

use super::adapter::{Adapter, AdapterConfig, LayerAdapters, adapters};
use super::architecture::{Architecture, LayerPart, Part};
use super::initialiser::Initialiser;
use super::kernels::layer::{Adapted, LayerTensors};
use super::kernels::{AttentionShape, Kernels, LayerCache, RopeTable, indices};
use super::packed::Packed;
use super::span::Span;
use anyhow::{Result, ensure};
use burn::module::Param;
use burn::prelude::*;
use burn::tensor::FloatDType;
use moslim_shared::config::{ModelConfig, Precision};
use std::sync::Arc;

/// Standard deviation of initial weights; projections back into the residual stream are divided by `sqrt(2 layers)`.
const INITIAL_STD: f64 = 0.06;

/// One decoder layer. Matrices act from the right: `[in, out]`.
#[derive(Module, Debug)]
pub struct Layer<B: Backend> {
    attention_norm: Param<Tensor<B, 1>>,
    /// Queries, keys, values: `[d_model, qkv_dim]`.
    qkv: Param<Tensor<B, 2>>,
    /// `[qkv_dim]`, in families that have it.
    qkv_bias: Option<Param<Tensor<B, 1>>>,
    /// Of every query head and every key head before they are rotated, `[head_dim]` each, in families that have them.
    query_norm: Option<Param<Tensor<B, 1>>>,
    key_norm: Option<Param<Tensor<B, 1>>>,
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
    /// Of every layer, in a model that is adapted; none otherwise.
    pub(super) adapters: Vec<LayerAdapters<B>>,
    /// Embeddings of the tags that were added to an adapted model's vocabulary, `[tags, d_model]`.
    pub(super) tags: Option<Param<Tensor<B, 2>>>,
    /// The first `outputs` entries of the vocabulary can be written.
    outputs: usize,
    /// Whether a tape keeps of each layer, where it is adapted, no more than its input.
    #[module(skip)]
    checkpointing: bool,
    #[module(skip)]
    shape: Arc<AttentionShape>,
    #[module(skip)]
    precision: Precision,
    #[module(skip)]
    norm_eps: f32,
    #[module(skip)]
    pub(super) architecture: Arc<Architecture>,
}

/// Tokens or positions as a tensor.
pub fn index_tensor<B: Backend>(index: &[u32], device: &B::Device) -> Tensor<B, 1, Int> {
    indices(index.iter().map(|&i| i as usize), device)
}

impl<B: Kernels> Transformer<B> {
    /// A model with random weights. `vocabulary` entries can be read, the first `outputs` of them written.
    pub fn new(config: &ModelConfig, vocabulary: usize, outputs: usize, seed: u64, device: &B::Device) -> Self {
        Self::drawn(config, vocabulary, outputs, seed, device, || Ok(())).expect("random weights can always be had")
    }

    /// [`Self::new`]; before every part `check` says whether the model is still wanted, for a large one takes a while.
    ///
    /// # Errors
    /// What `check` says.
    pub fn drawn(
        config: &ModelConfig,
        vocabulary: usize,
        outputs: usize,
        seed: u64,
        device: &B::Device,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let mut init = Initialiser::new(seed);
        let back = INITIAL_STD / (2.0 * config.layers as f64).sqrt();
        let architecture = Architecture::own(config, vocabulary, outputs);
        let numbers = (config.precision, Precision::F32);
        Self::assemble(&architecture, numbers, config.context, device, |part, shape| {
            check()?;
            let n = shape.iter().product();
            Ok(match part {
                Part::Layer(_, LayerPart::AttentionOut | LayerPart::Down) => init.normal(n, back),
                part if part.is_norm() => vec![1.0; n],
                _ => init.normal(n, INITIAL_STD),
            })
        })
    }

    /// A model whose weights `weights` gives, part by part: numbers of the shape it is told, row after row. It multiplies in `precision`; its
    /// matrices, if they are to be frozen, may be kept in bf16, as `kept` says, and are turned into f32 again piece by piece when they are used.
    ///
    /// # Errors
    /// Whatever `weights` says; when it gives another number of weights than the shape holds.
    pub fn assemble(
        architecture: &Architecture,
        (precision, kept): (Precision, Precision),
        context: usize,
        device: &B::Device,
        mut weights: impl FnMut(Part, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let a = architecture;
        let mut get = |part: Part| {
            let shape = a.shape(part);
            let values = weights(part, &shape)?;
            let n: usize = shape.iter().product();
            ensure!(values.len() == n, "{part:?} has {} weights and should have {n}", values.len());
            Ok(TensorData::new(values, shape))
        };
        fn param<B: Backend, const D: usize>(data: Result<TensorData>, device: &B::Device) -> Result<Param<Tensor<B, D>>> {
            Ok(Param::from_tensor(Tensor::from_data(data?, device)))
        }
        let matrix = |data: Result<TensorData>| -> Result<Param<Tensor<B, 2>>> {
            let values = Tensor::<B, 2>::from_data(data?, device);
            Ok(Param::from_tensor(if kept == Precision::Bf16 { values.cast(FloatDType::BF16) } else { values }))
        };
        let embedding = matrix(get(Part::Embedding))?;
        let mut layers = Vec::with_capacity(a.layers);
        for l in 0..a.layers {
            let mut own = |part: LayerPart| get(Part::Layer(l, part));
            layers.push(Layer {
                attention_norm: param(own(LayerPart::AttentionNorm), device)?,
                qkv: matrix(own(LayerPart::Qkv))?,
                qkv_bias: a.qkv_bias.then(|| param(own(LayerPart::QkvBias), device)).transpose()?,
                query_norm: a.qk_norm.then(|| param(own(LayerPart::QueryNorm), device)).transpose()?,
                key_norm: a.qk_norm.then(|| param(own(LayerPart::KeyNorm), device)).transpose()?,
                attention_out: matrix(own(LayerPart::AttentionOut))?,
                feed_norm: param(own(LayerPart::FeedNorm), device)?,
                gate_up: matrix(own(LayerPart::GateUp))?,
                down: matrix(own(LayerPart::Down))?,
            });
        }
        let head = (!a.tied).then(|| matrix(get(Part::Head))).transpose()?;
        let norm = param(get(Part::Norm), device)?;
        let rope = Arc::new(RopeTable::new(context.min(a.context), &a.rope.frequencies(a.head_dim)));
        let shape = AttentionShape { heads: a.heads, kv_heads: a.kv_heads, head_dim: a.head_dim, rope };
        Ok(Self {
            embedding,
            layers,
            norm,
            head,
            adapters: Vec::new(),
            tags: None,
            outputs: a.outputs,
            checkpointing: false,
            shape: Arc::new(shape),
            precision,
            norm_eps: a.norm_eps,
            architecture: Arc::new(a.clone()),
        })
    }

    /// The same model, its weights frozen, with fresh adapters that are trained instead. The weights are shared, not copied.
    pub fn adapted(self, config: &AdapterConfig, seed: u64) -> Self {
        let fresh = adapters(config, &self.architecture, seed, &self.device());
        let mut frozen = self.no_grad();
        (frozen.adapters, frozen.checkpointing) = (fresh, config.checkpointing);
        frozen
    }

    /// The model up to its `n`th layer, and the last norm; all of it for 0.
    pub fn first_layers(mut self, n: usize) -> Self {
        if n > 0 {
            self.layers.truncate(n);
            self.adapters.truncate(n);
            self.architecture = Arc::new(Architecture { layers: self.layers.len(), ..(*self.architecture).clone() });
        }
        self
    }

    /// The model with adapters that are multiplied with in one piece: for sampling, which does so for every token.
    pub fn joined(mut self) -> Self {
        self.adapters = self.adapters.into_iter().map(LayerAdapters::joined).collect();
        self
    }

    /// The model without its adapters and added tags: what they adapt.
    pub fn unadapted(mut self) -> Self {
        (self.adapters, self.tags) = (Vec::new(), None);
        self
    }

    /// Whether it is adapted, and its own weights are frozen.
    pub fn is_adapted(&self) -> bool {
        !self.adapters.is_empty()
    }

    /// The model with what its adapters have learnt added to its weights, and the tags that it was given behind its embeddings.
    pub fn merged(mut self) -> Self {
        if !self.is_adapted() {
            return self;
        }
        let sum = |w: Param<Tensor<B, 2>>, adapter: &Option<Adapter<B>>| match adapter {
            Some(adapter) => w.map(|w| w.cast(FloatDType::F32) + adapter.matrix()),
            None => w,
        };
        let adapters = std::mem::take(&mut self.adapters);
        self.layers = self
            .layers
            .into_iter()
            .zip(&adapters)
            .map(|(layer, own)| Layer {
                qkv: sum(layer.qkv, &own.qkv),
                attention_out: sum(layer.attention_out, &own.attention_out),
                gate_up: sum(layer.gate_up, &own.gate_up),
                down: sum(layer.down, &own.down),
                ..layer
            })
            .collect();
        self.with_tags_inside()
    }

    /// The weights of a part that the model has, row after row: what [`Self::assemble`] was given.
    pub fn weights(&self, part: Part) -> Vec<f32> {
        fn values<B: Backend, const D: usize>(param: Option<&Param<Tensor<B, D>>>) -> Vec<f32> {
            param.map_or_else(Vec::new, |p| p.val().cast(FloatDType::F32).into_data().to_vec().expect("weights are f32 now"))
        }
        let Part::Layer(l, own) = part else {
            return match part {
                Part::Embedding => values(Some(&self.embedding)),
                Part::Norm => values(Some(&self.norm)),
                _ => values(self.head.as_ref()),
            };
        };
        let layer = &self.layers[l];
        match own {
            LayerPart::AttentionNorm => values(Some(&layer.attention_norm)),
            LayerPart::Qkv => values(Some(&layer.qkv)),
            LayerPart::QkvBias => values(layer.qkv_bias.as_ref()),
            LayerPart::QueryNorm => values(layer.query_norm.as_ref()),
            LayerPart::KeyNorm => values(layer.key_norm.as_ref()),
            LayerPart::AttentionOut => values(Some(&layer.attention_out)),
            LayerPart::FeedNorm => values(Some(&layer.feed_norm)),
            LayerPart::GateUp => values(Some(&layer.gate_up)),
            LayerPart::Down => values(Some(&layer.down)),
        }
    }

    /// What it is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The adapters of its layers; none in a model that has none.
    pub fn adapters(&self) -> &[LayerAdapters<B>] {
        &self.adapters
    }

    /// Where the weights are.
    pub fn device(&self) -> B::Device {
        self.embedding.val().device()
    }

    /// Longest sequence that the position table covers.
    pub fn context(&self) -> usize {
        self.shape.rope.cos.len() / self.shape.rope.half
    }

    /// Hidden states after the last norm, `[positions, d_model]`.
    pub fn hidden(&self, packed: &Packed) -> Tensor<B, 2> {
        // Weights that are not frozen would get no gradients.
        let checkpointing = self.checkpointing && self.is_adapted();
        self.run(&packed.tokens, |_, layer, x| {
            if checkpointing { B::checkpointed(&layer, x, &packed.spans) } else { layer.causal(x, &packed.spans) }
        })
    }

    /// Empty caches with room for answers of `capacity` tokens.
    pub fn cache(&self, capacity: usize) -> Vec<LayerCache<B>> {
        self.layers.iter().map(|_| LayerCache::new(capacity)).collect()
    }

    /// Reads prompts (groups without answers) into `cache`. Returns the hidden states of all positions.
    pub fn read_prompts(&self, packed: &Packed, cache: &mut [LayerCache<B>]) -> Tensor<B, 2> {
        self.run(&packed.tokens, |l, layer, x| {
            layer.forward(x, |qkv| B::prompt_attention(qkv, &self.shape, &packed.spans, &mut cache[l]))
        })
    }

    /// Reads the next token of every answer; answer `r` answers prompt `owners[r]`. Returns `[rows, d_model]`.
    pub fn step(&self, tokens: &[u32], prompts: &[Span], owners: &[usize], cache: &mut [LayerCache<B>]) -> Tensor<B, 2> {
        self.run(tokens, |l, layer, x| {
            layer.forward(x, |qkv| B::step_attention(qkv, &self.shape, prompts, owners, &mut cache[l]))
        })
    }

    /// `layer` makes of the residual stream before a layer, whose number it is told, that after it.
    fn run(&self, tokens: &[u32], mut layer: impl FnMut(usize, LayerTensors<B>, Tensor<B, 2>) -> Tensor<B, 2>) -> Tensor<B, 2> {
        let mut x = self.embedded(tokens); // [n, d_model]
        for l in 0..self.layers.len() {
            x = layer(l, self.layer(l), x);
        }
        B::rms_norm(x, self.norm.val(), self.norm_eps)
    }

    /// Layer `l` with its adapters.
    fn layer(&self, l: usize) -> LayerTensors<B> {
        let layer = &self.layers[l];
        let adapted = |part: LayerPart, weights: &Param<Tensor<B, 2>>| Adapted {
            weights: weights.val(),
            adapter: self.adapters.get(l).and_then(|own| own.of(part)).map(Adapter::low_rank),
        };
        let head_norms = layer.query_norm.as_ref().zip(layer.key_norm.as_ref());
        LayerTensors {
            attention_norm: layer.attention_norm.val(),
            qkv: adapted(LayerPart::Qkv, &layer.qkv),
            qkv_bias: layer.qkv_bias.as_ref().map(Param::val),
            head_norms: head_norms.map(|(query, key)| [query.val(), key.val()]),
            attention_out: adapted(LayerPart::AttentionOut, &layer.attention_out),
            feed_norm: layer.feed_norm.val(),
            gate_up: adapted(LayerPart::GateUp, &layer.gate_up),
            down: adapted(LayerPart::Down, &layer.down),
            shape: self.shape.clone(),
            norm_eps: self.norm_eps,
            precision: self.precision,
        }
    }

    /// Scores of the entries that can be written. `hidden`: `[n, d_model]`; returns `[n, outputs]`.
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.head {
            Some(head) => B::projection(hidden, head.val(), false, None, self.precision),
            None => B::projection(hidden, self.embedding.val().narrow(0, 0, self.outputs), true, None, self.precision),
        }
    }

    /// Log-probability of every answer token given what precedes it, at `temperature`: one flat tensor, answer after answer.
    pub fn answer_log_probs(&self, packed: &Packed, temperature: f32) -> Tensor<B, 1> {
        let (positions, targets) = packed.answer_tokens();
        let hidden = self.hidden(packed);
        let device = hidden.device();
        let chosen = hidden.select(0, index_tensor(&positions, &device));
        B::log_prob(self.logits(chosen), &targets, temperature)
    }
}

#[cfg(test)]
mod tests {
    use super::super::packed::Group;
    use super::*;
    use burn::backend::Flex;
    use moslim_shared::config::{AdapterTarget, BaseConfig};
    use moslim_shared::memory::{Adapters, Shape};

    fn config(tied: bool) -> ModelConfig {
        ModelConfig { d_model: 24, d_ff: 40, context: 64, tied_embeddings: tied, ..Default::default() }
    }

    fn model(tied: bool) -> Transformer<Flex> {
        Transformer::new(&config(tied), 50, 40, 3, &Default::default())
    }

    #[test]
    fn an_adapted_model_begins_as_it_was_and_equals_what_it_is_merged_to() {
        use AdapterTarget::{DownProj, GateProj, KProj, OProj, QProj, UpProj, VProj};
        let plain = model(true);
        let packed = Packed::new(&[Group { prompt: &[1, 5, 9, 30], answers: vec![&[4, 6, 11]] }]);
        let said = |m: &Transformer<Flex>| values(m.logits(m.hidden(&packed)));
        let some = [&AdapterTarget::ALL[..], &[QProj, VProj, OProj, UpProj], &[KProj, VProj], &[GateProj], &[DownProj]];
        for targets in some {
            let base = BaseConfig { rank: 3, alpha: 6.0, targets: targets.to_vec(), ..Default::default() };
            let mut adapted = plain.clone().adapted(&AdapterConfig::of(&base), 7);
            assert_eq!(said(&adapted), said(&plain), "B is zero");
            // As many numbers as are counted before a run starts.
            let counted = Shape::own(&config(true), 50).adapters(&Adapters::of(&base));
            assert_eq!((adapted.num_params() - plain.num_params()) as f64, counted, "{targets:?}");
            // Something is learnt.
            adapted.adapters = adapted.adapters.into_iter().map(|own| own.map(&mut Shift)).collect();
            let got = said(&adapted);
            assert!(got.iter().zip(said(&plain)).any(|(a, b)| (a - b).abs() > 1e-3), "{targets:?}");
            let others = [adapted.clone().merged(), adapted.clone().joined()].map(|other| said(&other));
            for (a, b) in others.iter().flat_map(|other| got.iter().zip(other)) {
                assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "{targets:?}: {a} is not {b}");
            }
            assert_eq!(said(&adapted.unadapted()), said(&plain));
        }
    }

    /// Adds a little to every weight.
    struct Shift;

    impl burn::module::ModuleMapper<Flex> for Shift {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<Flex, D>>) -> Param<Tensor<Flex, D>> {
            param.map(|w| w + 0.05)
        }
    }

    #[test]
    fn only_adapters_get_gradients_in_an_adapted_model() {
        type Taped = burn::backend::Autodiff<Flex>;
        let config = ModelConfig { d_model: 24, d_ff: 40, context: 64, ..Default::default() };
        let model = Transformer::<Taped>::new(&config, 50, 40, 3, &Default::default());
        let packed = Packed::new(&[Group { prompt: &[1, 5, 9], answers: vec![&[4, 6]] }]);
        let adapted = model.adapted(&AdapterConfig::default(), 7);
        let grads = adapted.answer_log_probs(&packed, 1.0).sum().backward();
        assert!(adapted.embedding.val().grad(&grads).is_none() && adapted.layers[0].down.val().grad(&grads).is_none());
        let grads = burn::optim::GradientsParams::from_grads(grads, &adapted);
        // A of every matrix, B of every part.
        assert_eq!(grads.len(), config.layers * (4 + 7));
    }

    /// A model whose matrices are kept in bf16 computes what one of the same numbers in f32 does, and so do the gradients of its adapters.
    #[test]
    fn weights_kept_in_half_change_nothing_but_their_rounding() {
        type Taped = burn::backend::Autodiff<Flex>;
        let packed = Packed::new(&[Group { prompt: &[1, 5, 9], answers: vec![&[4, 6], &[30]] }]);
        for tied in [true, false] {
            let own = model(tied);
            let rounded = |part: Part| -> Vec<f32> {
                let of = own.weights(part).into_iter();
                if part.is_norm() { of.collect() } else { of.map(|w| burn::tensor::bf16::from_f32(w).to_f32()).collect() }
            };
            let [half, whole] = [Precision::Bf16, Precision::F32].map(|kept| {
                let numbers = (Precision::F32, kept);
                Transformer::<Taped>::assemble(&own.architecture, numbers, 64, &Default::default(), |part, _| Ok(rounded(part)))
                    .unwrap()
            });
            assert_eq!(half.embedding.val().dtype(), burn::tensor::DType::BF16);
            assert_eq!(half.weights(Part::Layer(1, LayerPart::Down)), whole.weights(Part::Layer(1, LayerPart::Down)));
            let learn = |model: Transformer<Taped>| {
                let adapted = model.adapted(&AdapterConfig::default(), 7);
                let log_probs = adapted.answer_log_probs(&packed, 1.0);
                let grads = log_probs.clone().sum().backward();
                let b = adapted.adapters[0].down.as_ref().unwrap().first_gradient(&grads);
                (log_probs.into_data().to_vec::<f32>().unwrap(), b)
            };
            let (a, b) = (learn(half.clone()), learn(whole));
            assert!(b.1.iter().any(|g| g.abs() > 1e-3));
            for (a, b) in a.0.iter().zip(&b.0).chain(a.1.iter().zip(&b.1)) {
                assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "{a} is not {b}");
            }
            // What is merged is f32 again.
            let merged = half.adapted(&AdapterConfig::default(), 7).merged();
            assert_eq!(merged.layers[0].down.val().dtype(), burn::tensor::DType::F32);
        }
    }

    fn values<const D: usize>(t: Tensor<Flex, D>) -> Vec<f32> {
        t.into_data().to_vec().unwrap()
    }

    #[test]
    fn neighbours_change_no_logit() {
        let (prompt, answers): (&[u32], [&[u32]; 3]) = (&[1, 5, 9, 30], [&[4, 6, 11], &[2], &[7, 8, 3, 12, 13]]);
        for tied in [true, false] {
            let model = model(tied);
            let groups = [Group { prompt: &[3, 3, 3], answers: vec![&[14, 15]] }, Group { prompt, answers: answers.to_vec() }];
            let packed = Packed::new(&groups);
            let together = values(model.logits(model.hidden(&packed)));
            for (n, answer) in answers.iter().enumerate() {
                let sequence = [prompt, answer].concat();
                let alone = Packed::new(&[Group { prompt: &sequence, answers: vec![] }]);
                let want = values(model.logits(model.hidden(&alone)));
                for (i, at) in packed.spans[1].prompt.clone().chain(packed.spans[1].answers[n].clone()).enumerate() {
                    for (a, b) in want[i * 40..(i + 1) * 40].iter().zip(&together[at * 40..]) {
                        assert!((a - b).abs() < 1e-5, "{a} is not {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn answer_log_probs_are_those_of_the_tokens() {
        let model = model(true);
        let packed =
            Packed::new(&[Group { prompt: &[1, 5], answers: vec![&[9, 30], &[]] }, Group { prompt: &[4], answers: vec![&[6]] }]);
        let log_probs = values(model.answer_log_probs(&packed, 0.5));
        assert_eq!(log_probs.len(), 3);
        let logits = values(model.logits(model.hidden(&packed)));
        for (got, (position, token)) in log_probs.into_iter().zip([(1, 9), (2, 30), (4, 6)]) {
            let row: Vec<f64> = logits[position * 40..(position + 1) * 40].iter().map(|&l| l as f64 / 0.5).collect();
            let want = row[token] - row.iter().map(|l| l.exp()).sum::<f64>().ln();
            assert!((got as f64 - want).abs() < 1e-4);
        }
    }
}
