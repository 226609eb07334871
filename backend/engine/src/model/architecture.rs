//! What tells decoder-only models of the Llama family apart: sizes, and a handful of switches. Every family is a line in
//! [`FAMILIES`]; the decoder itself is written once.

use anyhow::{Context, Result, bail, ensure};
use moslim_shared::config::ModelConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Base of the rotary frequencies of the lab's own models.
const ROPE_THETA: f64 = 1e4;
/// Epsilon of their RMS norms.
const NORM_EPS: f32 = 1e-5;

/// A family of models, as `config.json` and GGUF files name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// `model_type` in config.json and `general.architecture` in GGUF.
    pub id: &'static str,
    pub title: &'static str,
    /// Queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Every head of queries and keys is normed before it is rotated.
    pub qk_norm: bool,
    /// Whether GGUF files hold query and key rows in the order of interleaved rotary embeddings.
    pub interleaved_in_gguf: bool,
    /// Whether a window of attention is on unless the configuration says otherwise.
    pub windowed: bool,
}

/// Every family that the decoder computes.
pub const FAMILIES: [Family; 4] = [
    Family {
        id: "llama",
        title: "Llama 1 to 3, SmolLM2",
        qkv_bias: false,
        qk_norm: false,
        interleaved_in_gguf: true,
        windowed: false,
    },
    Family { id: "mistral", title: "Mistral", qkv_bias: false, qk_norm: false, interleaved_in_gguf: true, windowed: true },
    Family { id: "qwen2", title: "Qwen2, Qwen2.5", qkv_bias: true, qk_norm: false, interleaved_in_gguf: false, windowed: false },
    Family { id: "qwen3", title: "Qwen3", qkv_bias: false, qk_norm: true, interleaved_in_gguf: false, windowed: false },
];

impl Family {
    /// The family that files call `id`.
    ///
    /// # Errors
    /// When there is none; the message names those that there are.
    pub fn of(id: &str) -> Result<Self> {
        FAMILIES.into_iter().find(|f| f.id == id).with_context(|| {
            let known: Vec<&str> = FAMILIES.iter().map(|f| f.id).collect();
            format!("the family \"{id}\" is not known; known are {}", known.join(", "))
        })
    }
}

/// How rotary frequencies are stretched for long contexts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RopeScaling {
    None,
    /// All frequencies divided by `factor`.
    Linear {
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, those between blended.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_context: f64,
    },
    /// Every frequency divided by a number of its own, as GGUF files have them.
    Each {
        divisors: Vec<f64>,
    },
}

/// Rotary position embeddings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
}

impl Rope {
    /// Angle per position of every pair of dimensions, `[head_dim / 2]`.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let plain = (0..head_dim / 2).map(|d| self.theta.powf(-2.0 * d as f64 / head_dim as f64));
        match &self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            RopeScaling::Each { divisors } => plain.zip(divisors).map(|(f, divisor)| f / divisor).collect(),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => plain
                .map(|f| {
                    // Turns within the context that the model was first trained on.
                    let turns = original_context * f / std::f64::consts::TAU;
                    let keep = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                    keep * f + (1.0 - keep) * f / factor
                })
                .collect(),
        }
    }
}

/// Sizes and switches of a decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// One of [`FAMILIES`], or `moslim` for the lab's own models.
    pub family: String,
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head, even.
    pub head_dim: usize,
    pub d_ff: usize,
    /// Longest sequence, tokens.
    pub context: usize,
    /// Entries that can be read.
    pub vocabulary: usize,
    /// The first of them, which can be written.
    pub outputs: usize,
    /// Whether input and output embeddings are one matrix.
    pub tied: bool,
    pub norm_eps: f32,
    pub rope: Rope,
    pub qkv_bias: bool,
    pub qk_norm: bool,
}

/// A part of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Embedding,
    Layer(usize, LayerPart),
    Norm,
    /// What scores the vocabulary, where the embeddings do not.
    Head,
}

/// A part of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerPart {
    AttentionNorm,
    /// Queries, keys and values side by side.
    Qkv,
    QkvBias,
    QueryNorm,
    KeyNorm,
    AttentionOut,
    FeedNorm,
    /// Gate and up side by side.
    GateUp,
    Down,
}

impl Part {
    /// Whether it is the weight of a norm, which begins at 1.
    pub fn is_norm(self) -> bool {
        use LayerPart::{AttentionNorm, FeedNorm, KeyNorm, QueryNorm};
        matches!(self, Self::Norm | Self::Layer(_, AttentionNorm | FeedNorm | KeyNorm | QueryNorm))
    }
}

/// Fields of config.json that change nothing in what the decoder computes.
const HARMLESS: [&str; 26] = [
    "architectures",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "initializer_range",
    "attention_dropout",
    "hidden_dropout",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "is_decoder",
    "id2label",
    "label2id",
    "name_or_path",
    "max_window_layers",
    "pretraining_tp",
    "is_llama_config",
    "transformers.js_config",
    "unsloth_fixed",
    "unsloth_version",
];

/// The largest model that is thought possible: more is a damaged or hostile file.
const MOST: usize = 1 << 24;

/// Fields of an object, each taken once: what is left was not understood.
struct Fields {
    left: Map<String, Value>,
}

impl Fields {
    fn take(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name).filter(|v| !v.is_null())
    }

    fn size(&mut self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let n = value.as_u64().filter(|&n| n > 0 && n <= MOST as u64);
        n.map(|n| Some(n as usize)).with_context(|| format!("{name}: is {value}; allowed are whole numbers from 1 to {MOST}"))
    }

    fn needed(&mut self, name: &str) -> Result<usize> {
        self.size(name)?.with_context(|| format!("{name}: is missing"))
    }

    fn number(&mut self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let n = value.as_f64().filter(|n| n.is_finite() && *n > 0.0);
        n.map(Some).with_context(|| format!("{name}: is {value}; allowed are numbers above 0"))
    }

    fn flag(&mut self, name: &str) -> Result<bool> {
        let Some(value) = self.take(name) else { return Ok(false) };
        value.as_bool().with_context(|| format!("{name}: is {value}; allowed are true and false"))
    }

    fn text(&mut self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        value.as_str().map(|s| Some(s.to_string())).with_context(|| format!("{name}: is {value} and should be text"))
    }
}

impl Architecture {
    /// The lab's own decoder.
    pub fn own(config: &ModelConfig, vocabulary: usize, outputs: usize) -> Self {
        Self {
            family: "moslim".into(),
            layers: config.layers,
            d_model: config.d_model,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.d_model / config.heads,
            d_ff: config.d_ff,
            context: config.context,
            vocabulary,
            outputs,
            tied: config.tied_embeddings,
            norm_eps: NORM_EPS,
            rope: Rope { theta: ROPE_THETA, scaling: RopeScaling::None },
            qkv_bias: false,
            qk_norm: false,
        }
    }

    /// What a Hugging Face `config.json` describes. `ignored`: fields that the caller vouches for.
    ///
    /// # Errors
    /// When the family is unknown, a size is missing or impossible, or a field is not understood; the message names it.
    pub fn of_config(config: &Value, ignored: &[String]) -> Result<Self> {
        let mut f = Fields { left: config.as_object().context("it is not a JSON object")?.clone() };
        let family = Family::of(&f.text("model_type")?.context("model_type: is missing")?)?;
        let (d_model, heads) = (f.needed("hidden_size")?, f.needed("num_attention_heads")?);
        let kv_heads = f.size("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = match f.size("head_dim")? {
            Some(n) => n,
            None => {
                ensure!(d_model % heads == 0, "head_dim: is missing, and {heads} heads do not divide hidden_size {d_model}");
                d_model / heads
            }
        };
        let mut context = f.needed("max_position_embeddings")?;
        // Within its window, attention that slides is attention to everything.
        let window = f.size("sliding_window")?;
        let slides = if config.get("use_sliding_window").is_some() { f.flag("use_sliding_window")? } else { family.windowed };
        if let Some(window) = window.filter(|_| slides) {
            context = context.min(window);
        }
        if let Some(act) = f.text("hidden_act")? {
            ensure!(act == "silu", "hidden_act: is \"{act}\"; allowed is silu");
        }
        for name in ["attention_bias", "mlp_bias", "rope_interleaved", "use_qk_norm", "attention_qkv_bias"] {
            ensure!(!f.flag(name)?, "{name}: is true, which this decoder does not compute");
        }
        if let Some(types) = f.take("layer_types") {
            let full = types.as_array().is_some_and(|all| all.iter().all(|t| t == "full_attention"));
            ensure!(full, "layer_types: is {types}; allowed is full_attention");
        }
        let out = Self {
            family: family.id.into(),
            layers: f.needed("num_hidden_layers")?,
            d_model,
            heads,
            kv_heads,
            head_dim,
            d_ff: f.needed("intermediate_size")?,
            context,
            vocabulary: f.needed("vocab_size")?,
            outputs: 0,
            tied: f.flag("tie_word_embeddings")?,
            norm_eps: f.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope: rope(&mut f)?,
            qkv_bias: family.qkv_bias,
            qk_norm: family.qk_norm,
        };
        for (name, value) in &f.left {
            let known = HARMLESS.contains(&name.as_str()) || name.starts_with('_') || ignored.contains(name);
            let absent = value.is_null() || value == &Value::Bool(false);
            if !known && !absent {
                bail!("{name}: is not understood and may change what the model computes; if it does not, name it with --ignore");
            }
        }
        Self { outputs: out.vocabulary, ..out }.checked()
    }

    /// The same, if its sizes fit together.
    ///
    /// # Errors
    /// When they do not; the message names them.
    pub fn checked(self) -> Result<Self> {
        let Self { heads, kv_heads, head_dim, .. } = self;
        ensure!(heads % kv_heads == 0, "num_key_value_heads: is {kv_heads}, which does not divide the {heads} heads");
        ensure!(head_dim % 2 == 0, "head_dim: is {head_dim}; rotary embeddings need an even one");
        ensure!(self.weights() < 1 << 40, "its sizes make {} weights, more than anybody has", self.weights());
        Ok(self)
    }

    /// Width of the fused projection: queries, keys, values.
    pub fn qkv_dim(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Every part that it has.
    pub fn parts(&self) -> Vec<Part> {
        use LayerPart::{AttentionNorm, AttentionOut, Down, FeedNorm, GateUp, KeyNorm, Qkv, QkvBias, QueryNorm};
        let mut own = vec![AttentionNorm, Qkv, AttentionOut, FeedNorm, GateUp, Down];
        own.extend(self.qkv_bias.then_some(QkvBias));
        own.extend(if self.qk_norm { vec![QueryNorm, KeyNorm] } else { Vec::new() });
        let layers = (0..self.layers).flat_map(|l| own.iter().map(move |&part| Part::Layer(l, part)));
        let head = (!self.tied).then_some(Part::Head);
        std::iter::once(Part::Embedding).chain(layers).chain([Part::Norm]).chain(head).collect()
    }

    /// Rows and columns of a part; the entries of a vector. Matrices act from the right.
    pub fn shape(&self, part: Part) -> Vec<usize> {
        let (d, mixed) = (self.d_model, self.heads * self.head_dim);
        match part {
            Part::Embedding => vec![self.vocabulary, d],
            Part::Norm | Part::Layer(_, LayerPart::AttentionNorm | LayerPart::FeedNorm) => vec![d],
            Part::Head => vec![d, self.outputs],
            Part::Layer(_, LayerPart::Qkv) => vec![d, self.qkv_dim()],
            Part::Layer(_, LayerPart::QkvBias) => vec![self.qkv_dim()],
            Part::Layer(_, LayerPart::QueryNorm | LayerPart::KeyNorm) => vec![self.head_dim],
            Part::Layer(_, LayerPart::AttentionOut) => vec![mixed, d],
            Part::Layer(_, LayerPart::GateUp) => vec![d, 2 * self.d_ff],
            Part::Layer(_, LayerPart::Down) => vec![self.d_ff, d],
        }
    }

    /// Number of weights; more than there can be where they cannot be counted.
    pub fn weights(&self) -> u64 {
        // One layer stands for all: there may be millions in a hostile file.
        let one = Self { layers: 1, ..self.clone() };
        let count = |part: &Part| self.shape(*part).iter().fold(1u64, |n, &d| n.saturating_mul(d as u64));
        let sum = |layer: bool| -> u64 {
            let parts = one.parts();
            let chosen = parts.iter().filter(|p| matches!(p, Part::Layer(..)) == layer);
            chosen.map(count).fold(0, u64::saturating_add)
        };
        sum(true).saturating_mul(self.layers as u64).saturating_add(sum(false))
    }
}

/// `rope_theta` and `rope_scaling`, or newer files' `rope_parameters`.
fn rope(f: &mut Fields) -> Result<Rope> {
    let mut theta = f.number("rope_theta")?;
    let scaling = f.take("rope_parameters").or(f.take("rope_scaling"));
    let Some(scaling) = scaling else { return Ok(Rope { theta: theta.unwrap_or(ROPE_THETA), scaling: RopeScaling::None }) };
    let mut own = Fields { left: scaling.as_object().context("rope_scaling: is no object")?.clone() };
    theta = own.number("rope_theta").context("rope_parameters")?.or(theta);
    let older = own.text("type")?;
    let kind = own.text("rope_type")?.or(older).context("rope_scaling: has no rope_type")?;
    let mut get = |name: &str| -> Result<f64> {
        own.number(name).context("rope_scaling")?.with_context(|| format!("rope_scaling: has no {name}"))
    };
    let scaling = match kind.as_str() {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: get("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: get("factor")?,
            low_freq_factor: get("low_freq_factor")?,
            high_freq_factor: get("high_freq_factor")?,
            original_context: get("original_max_position_embeddings")?,
        },
        other => bail!("rope_scaling: is of type \"{other}\"; allowed are default, linear, llama3"),
    };
    if let RopeScaling::Llama3 { low_freq_factor, high_freq_factor, .. } = scaling {
        ensure!(low_freq_factor < high_freq_factor, "rope_scaling: low_freq_factor must be below high_freq_factor");
    }
    if let Some((name, _)) = own.left.iter().find(|(_, v)| !v.is_null()) {
        bail!("rope_scaling: {name} is not understood");
    }
    Ok(Rope { theta: theta.unwrap_or(ROPE_THETA), scaling })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> Value {
        json!({
            "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3,
            "intermediate_size": 96, "max_position_embeddings": 2048, "vocab_size": 300, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16", "_name_or_path": "x", "mlp_bias": false
        })
    }

    fn changed(field: &str, value: Value) -> Result<Architecture> {
        let mut config = config();
        config[field] = value;
        Architecture::of_config(&config, &[])
    }

    #[test]
    fn sizes_and_switches_are_read() {
        let a = Architecture::of_config(&config(), &[]).unwrap();
        assert_eq!((a.head_dim, a.kv_heads, a.outputs, a.tied, a.qkv_bias), (16, 2, 300, false, false));
        let layer = 64 * (64 + 64) + 64 * 64 + 3 * 64 * 96 + 2 * 64;
        assert_eq!(a.weights(), 3 * layer + 2 * 300 * 64 + 64);
        assert!(changed("model_type", json!("qwen2")).unwrap().qkv_bias);
        let qwen3 = changed("model_type", json!("qwen3")).unwrap();
        assert_eq!((qwen3.qk_norm, qwen3.qkv_bias), (true, false));
        assert_eq!(changed("head_dim", json!(32)).unwrap().qkv_dim(), 8 * 32);
    }

    #[test]
    fn a_window_ends_the_context_where_it_is_on() {
        let mut config = config();
        config["sliding_window"] = json!(512);
        let context = |config: &Value| Architecture::of_config(config, &[]).unwrap().context;
        assert_eq!(context(&config), 2048);
        config["model_type"] = json!("mistral");
        assert_eq!(context(&config), 512);
        config["model_type"] = json!("qwen2");
        config["use_sliding_window"] = json!(true);
        assert_eq!(context(&config), 512);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (field, value, said) in [
            ("model_type", json!("gpt_neox"), "\"gpt_neox\" is not known; known are llama, mistral, qwen2, qwen3"),
            ("hidden_act", json!("gelu"), "hidden_act"),
            ("attention_bias", json!(true), "attention_bias"),
            ("quantization_config", json!({"bits": 4}), "quantization_config"),
            ("vocab_size", json!(0), "vocab_size: is 0; allowed"),
            ("vocab_size", json!(1u64 << 60), "vocab_size"),
            ("hidden_size", Value::Null, "hidden_size: is missing"),
            ("num_key_value_heads", json!(3), "num_key_value_heads"),
            ("head_dim", json!(7), "head_dim"),
            ("rope_scaling", json!({"rope_type": "yarn", "factor": 2.0}), "yarn"),
            ("rope_scaling", json!({"rope_type": "linear", "factor": 2.0, "beta_fast": 3}), "beta_fast"),
            ("layer_types", json!(["full_attention", "sliding_attention"]), "layer_types"),
            ("rms_norm_eps", json!("small"), "rms_norm_eps"),
        ] {
            let error = format!("{:#}", changed(field, value).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
        let mut odd = config();
        odd["my_note"] = json!("hello");
        assert!(format!("{:#}", Architecture::of_config(&odd, &[]).unwrap_err()).starts_with("my_note"));
        Architecture::of_config(&odd, &["my_note".into()]).unwrap();
    }

    #[test]
    fn frequencies_are_stretched_as_the_scaling_says() {
        let of = |scaling| Rope { theta: 5e5, scaling }.frequencies(128);
        let (plain, linear) = (of(RopeScaling::None), of(RopeScaling::Linear { factor: 4.0 }));
        assert_eq!((plain[0], linear[10]), (1.0, plain[10] / 4.0));
        let llama3 =
            of(RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192.0 });
        assert_eq!((llama3[0], llama3[63]), (plain[0], plain[63] / 8.0));
        // 2.5 turns lie in the middle of 1 and 4: half of either.
        let between = (0..64).find(|&d| (1.0..4.0).contains(&(8192.0 * plain[d] / std::f64::consts::TAU))).unwrap();
        let turns = 8192.0 * plain[between] / std::f64::consts::TAU;
        let keep = (turns - 1.0) / 3.0;
        assert!((llama3[between] - plain[between] * (keep + (1.0 - keep) / 8.0)).abs() < 1e-15);
        let newer = changed("rope_parameters", json!({"rope_type": "default", "rope_theta": 1e6})).unwrap();
        assert_eq!(newer.rope, Rope { theta: 1e6, scaling: RopeScaling::None });
        let older = changed("rope_scaling", json!({"type": "linear", "factor": 2.0})).unwrap();
        assert_eq!(older.rope.scaling, RopeScaling::Linear { factor: 2.0 });
    }
}
