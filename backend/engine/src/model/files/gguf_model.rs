//! A model out of a GGUF file: sizes from its values, and the tokenizer that they describe rebuilt as a `tokenizer.json`.

use super::gguf::{Gguf, Value};
use super::names::{DIVISORS, Naming};
use super::{ModelFiles, Tensors};
use crate::model::architecture::{Architecture, Family, Rope, RopeScaling};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, json};
use std::collections::HashMap;
use std::path::Path;

/// Kinds of tokens.
pub(super) const NORMAL: usize = 1;
const UNKNOWN: usize = 2;
pub(super) const CONTROL: usize = 3;
pub(super) const USER_DEFINED: usize = 4;
pub(super) const UNUSED: usize = 5;

/// What stands between words in vocabularies of SentencePiece.
const SPACE: &str = "\u{2581}";
/// How Llama 3 and Qwen 2 cut a text into words before pairs of bytes are joined; they differ in how many digits stay together.
const WORDS: [&str; 2] =
    [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|", r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"];

impl ModelFiles {
    pub(super) fn open_gguf(path: &Path) -> Result<Self> {
        let of = || format!("reading {}", path.display());
        let file = Gguf::open(path).with_context(of)?;
        let (architecture, family) = architecture(&file).with_context(of)?;
        let tokens = Tokens::of(&file).with_context(of)?;
        ensure!(
            tokens.texts.len() <= architecture.vocabulary,
            "{}: has {} tokens, and embeddings of {}",
            path.display(),
            tokens.texts.len(),
            architecture.vocabulary
        );
        let tokenizer = tokenizer(&file, &tokens).with_context(of)?;
        let named = |key: &str| -> Result<Option<String>> {
            let Some(id) = file.optional(key, Value::size).with_context(of)? else { return Ok(None) };
            let text =
                tokens.texts.get(id).with_context(|| format!("{key}: is {id}, and there are {} tokens", tokens.texts.len()));
            text.map(|t| Some((*t).to_string())).with_context(of)
        };
        let (bos, eos) = (named("tokenizer.ggml.bos_token_id")?, named("tokenizer.ggml.eos_token_id")?);
        let template = file.optional("tokenizer.chat_template", Value::text).with_context(of)?.map(String::from);
        Ok(Self {
            architecture,
            tokenizer,
            template,
            bos,
            eos,
            files: vec![path.to_path_buf()],
            naming: Naming::Gguf { interleaved: family.interleaved_in_gguf },
            tensors: Box::new(file),
        })
    }
}

/// Sizes and switches from a file's values.
fn architecture(file: &Gguf) -> Result<(Architecture, Family)> {
    let family = Family::of(file.needed("general.architecture", Value::text)?)?;
    let mut left: Vec<&str> = file.values.keys().filter_map(|k| k.strip_prefix(family.id)?.strip_prefix('.')).collect();
    let mut key = |name: &str| {
        left.retain(|l| *l != name);
        format!("{}.{name}", family.id)
    };
    let mut size = |name: &str| file.optional(&key(name), |v| v.size().filter(|&n| n > 0));
    let missing = |name: &str| format!("{}.{name}: is missing", family.id);
    let needed = |name: &str, found: Result<Option<usize>>| found?.with_context(|| missing(name));
    let d_model = needed("embedding_length", size("embedding_length"))?;
    let heads = needed("attention.head_count", size("attention.head_count"))?;
    let kv_heads = size("attention.head_count_kv")?.unwrap_or(heads);
    let head_dim = match (size("attention.key_length")?, d_model % heads) {
        (Some(n), _) => n,
        (None, 0) => d_model / heads,
        (None, _) => bail!("{heads} heads do not divide a width of {d_model}"),
    };
    let layers = needed("block_count", size("block_count"))?;
    let d_ff = needed("feed_forward_length", size("feed_forward_length"))?;
    let mut context = needed("context_length", size("context_length"))?;
    if let Some(window) = size("attention.sliding_window")? {
        context = context.min(window);
    }
    for name in ["attention.value_length", "rope.dimension_count"] {
        let n = size(name)?.unwrap_or(head_dim);
        ensure!(n == head_dim, "{}.{name}: is {n}; this decoder computes heads of {head_dim} in all of them", family.id);
    }
    let embedding = file.shape("token_embd.weight").context("the tensor token_embd.weight is missing")?;
    let vocabulary = *embedding.first().context("the tensor token_embd.weight has no dimensions")?;
    if let Some(n) = size("vocab_size")? {
        ensure!(n == vocabulary, "{}.vocab_size: is {n}, and there are {vocabulary} embeddings", family.id);
    }
    let mut number = |name: &str| file.optional(&key(name), |v| v.number().filter(|n| n.is_finite() && *n > 0.0));
    let theta = number("rope.freq_base")?.unwrap_or(1e4);
    let epsilon = number("attention.layer_norm_rms_epsilon")?;
    let norm_eps = epsilon.with_context(|| missing("attention.layer_norm_rms_epsilon"))? as f32;
    let factor = number("rope.scaling.factor")?;
    let kind = file.optional(&key("rope.scaling.type"), Value::text)?.unwrap_or("none");
    for name in ["rope.scaling.original_context_length", "rope.scaling.finetuned", "attention.layer_norm_epsilon"] {
        key(name);
    }
    for name in ["expert_count", "expert_used_count"] {
        let n = file.optional(&key(name), Value::size)?.unwrap_or(0);
        ensure!(n == 0, "{}.{name}: is {n}; this decoder has no experts", family.id);
    }
    if let Some(name) = left.first() {
        bail!("{}.{name}: is not understood and may change what the model computes", family.id);
    }
    let scaling = match (kind, file.shape(DIVISORS)) {
        ("none", Some(shape)) => {
            let divisors: Vec<f64> = file.read(DIVISORS)?.into_iter().map(f64::from).collect();
            ensure!(divisors.len() == head_dim / 2, "the tensor {DIVISORS} has the shape {shape:?}");
            RopeScaling::Each { divisors }
        }
        ("none", None) => RopeScaling::None,
        ("linear", None) => RopeScaling::Linear { factor: factor.with_context(|| missing("rope.scaling.factor"))? },
        (other, _) => bail!("{}.rope.scaling.type: is \"{other}\"; allowed are none and linear", family.id),
    };
    let architecture = Architecture {
        family: family.id.into(),
        layers,
        d_model,
        heads,
        kv_heads,
        head_dim,
        d_ff,
        context,
        vocabulary,
        outputs: vocabulary,
        tied: file.shape("output.weight").is_none(),
        norm_eps,
        rope: Rope { theta, scaling },
        qkv_bias: family.qkv_bias,
        qk_norm: family.qk_norm,
    };
    Ok((architecture.checked()?, family))
}

/// The vocabulary of a file.
struct Tokens<'a> {
    texts: Vec<&'a str>,
    kinds: Vec<usize>,
}

impl<'a> Tokens<'a> {
    fn of(file: &'a Gguf) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let texts = file.needed(key, |v| v.array()?.iter().map(Value::text).collect::<Option<Vec<_>>>())?;
        let key = "tokenizer.ggml.token_type";
        let kinds = file.optional(key, |v| v.array()?.iter().map(Value::size).collect::<Option<Vec<_>>>())?;
        let kinds = kinds.unwrap_or_else(|| vec![NORMAL; texts.len()]);
        ensure!(kinds.len() == texts.len(), "{key}: has {} entries for {} tokens", kinds.len(), texts.len());
        Ok(Self { texts, kinds })
    }

    /// The tokens that texts are not cut into: control tokens and what the user defined.
    fn added(&self) -> Vec<serde_json::Value> {
        let of = |(id, (text, kind)): (usize, (&&str, &usize))| {
            matches!(*kind, CONTROL | USER_DEFINED | UNKNOWN).then(|| {
                json!({
                    "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                    "special": *kind != USER_DEFINED,
                })
            })
        };
        self.texts.iter().zip(&self.kinds).enumerate().filter_map(of).collect()
    }
}

/// `tokenizer.json` for what the file describes.
fn tokenizer(file: &Gguf, tokens: &Tokens) -> Result<String> {
    let mut vocabulary = Map::new();
    for (id, text) in tokens.texts.iter().enumerate() {
        ensure!(vocabulary.insert((*text).to_string(), json!(id)).is_none(), "the token \"{text}\" is there twice");
    }
    let mut out = match file.needed("tokenizer.ggml.model", Value::text)? {
        "gpt2" => byte_level(file, &vocabulary)?,
        "llama" => sentence_pieces(file, tokens, &vocabulary)?,
        other => bail!("tokenizer.ggml.model: is \"{other}\"; allowed are gpt2 and llama"),
    };
    out["version"] = json!("1.0");
    out["added_tokens"] = json!(tokens.added());
    // Llama's vocabularies begin a sequence unless the file says otherwise.
    let is = |v: &Value| if let Value::Bool(b) = v { Some(*b) } else { None };
    let by_default = out["model"]["byte_fallback"] == json!(true);
    if file.optional("tokenizer.ggml.add_bos_token", is)?.unwrap_or(by_default) {
        let id = file.needed("tokenizer.ggml.bos_token_id", Value::size)?;
        let text = *tokens.texts.get(id).with_context(|| format!("tokenizer.ggml.bos_token_id: is {id}"))?;
        let (special, sequence) = (
            json!({"SpecialToken": {"id": text, "type_id": 0}}),
            |id: &str, type_id: usize| json!({"Sequence": {"id": id, "type_id": type_id}}),
        );
        out["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [special, sequence("A", 0)],
            "pair": [special, sequence("A", 0), special, sequence("B", 1)],
            "special_tokens": {text: {"id": text, "ids": [id], "tokens": [text]}},
        });
    }
    Ok(out.to_string())
}

/// How a byte-level tokenizer cuts texts before it joins pairs.
pub(super) struct Cut {
    pub normalizer: serde_json::Value,
    pub pre_tokenizer: serde_json::Value,
    /// Whether what is a token as a whole is not cut.
    pub whole_words: bool,
}

/// Names of the cuts, as `tokenizer.ggml.pre` has them.
pub(super) const CUTS: [&str; 5] = ["gpt-2", "smollm", "llama-bpe", "llama3", "qwen2"];

fn byte_pieces(regex: bool) -> serde_json::Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex})
}

/// The cut that GGUF calls `name`, if it is one of [`CUTS`].
pub(super) fn cut(name: &str) -> Option<Cut> {
    let split = |digits: &str| {
        let pattern = [WORDS[0], digits, WORDS[1]].concat();
        json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
    };
    let sequence = |first, regex| json!({"type": "Sequence", "pretokenizers": [first, byte_pieces(regex)]});
    let plain = |pre_tokenizer| Cut { normalizer: json!(null), pre_tokenizer, whole_words: false };
    Some(match name {
        "gpt-2" => plain(byte_pieces(true)),
        "smollm" => plain(sequence(json!({"type": "Digits", "individual_digits": true}), true)),
        "llama-bpe" | "llama3" => Cut { whole_words: true, ..plain(sequence(split(r"\p{N}{1,3}"), false)) },
        "qwen2" => Cut { normalizer: json!({"type": "NFC"}), ..plain(sequence(split(r"\p{N}"), false)) },
        _ => return None,
    })
}

/// Byte-level BPE: GPT-2 and what came after it.
fn byte_level(file: &Gguf, vocabulary: &Map<String, serde_json::Value>) -> Result<serde_json::Value> {
    let name = file.optional("tokenizer.ggml.pre", Value::text)?.unwrap_or("gpt-2");
    let known = || format!("tokenizer.ggml.pre: is \"{name}\"; allowed are {}", CUTS.join(", "));
    let Cut { normalizer, pre_tokenizer, whole_words } = cut(name).with_context(known)?;
    let bytes = byte_pieces(true);
    let key = "tokenizer.ggml.merges";
    let merges = file.needed(key, |v| v.array()?.iter().map(Value::text).collect::<Option<Vec<_>>>())?;
    for merge in &merges {
        let known = merge.split_once(' ').is_some_and(|(a, b)| [a, b].iter().all(|t| vocabulary.contains_key(*t)));
        ensure!(known, "{key}: \"{merge}\" does not join two tokens");
    }
    Ok(json!({
        "truncation": null, "padding": null,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": bytes,
        "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole_words, "vocab": vocabulary, "merges": merges,
        },
    }))
}

/// SentencePiece's BPE: the pair with the best score is joined first.
fn sentence_pieces(file: &Gguf, tokens: &Tokens, vocabulary: &Map<String, serde_json::Value>) -> Result<serde_json::Value> {
    let key = "tokenizer.ggml.scores";
    let scores = file.needed(key, |v| v.array()?.iter().map(Value::number).collect::<Option<Vec<_>>>())?;
    ensure!(scores.len() == tokens.texts.len(), "{key}: has {} entries for {} tokens", scores.len(), tokens.texts.len());
    let ids: HashMap<&str, usize> = tokens.texts.iter().enumerate().map(|(id, text)| (*text, id)).collect();
    let mut merges: Vec<(f64, usize, usize, &str, &str)> = Vec::new();
    for ((text, score), kind) in tokens.texts.iter().zip(&scores).zip(&tokens.kinds) {
        if matches!(*kind, CONTROL | UNKNOWN) {
            continue;
        }
        let mut own: Vec<(usize, usize, &str, &str)> = text
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| {
                let (a, b) = text.split_at(at);
                Some((*ids.get(a)?, *ids.get(b)?, a, b))
            })
            .collect();
        own.sort_unstable();
        merges.extend(own.into_iter().map(|(_, _, a, b)| (*score, a.chars().count(), b.chars().count(), a, b)));
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
    let merges: Vec<[&str; 2]> = merges.into_iter().map(|(_, _, _, a, b)| [a, b]).collect();
    let unknown = tokens.texts.iter().zip(&tokens.kinds).find(|(_, kind)| **kind == UNKNOWN).map(|(text, _)| *text);
    let is = |v: &Value| if let Value::Bool(b) = v { Some(*b) } else { None };
    let prefix = file.optional("tokenizer.ggml.add_space_prefix", is)?.unwrap_or(true);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let normalizers = if prefix { json!([{"type": "Prepend", "prepend": SPACE}, replace]) } else { json!([replace]) };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "truncation": null, "padding": null,
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    }))
}
