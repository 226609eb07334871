//! The values of a GGUF file for a model that was no GGUF file before: sizes, and its tokenizer as readers of GGUF rebuild it.

use super::ModelFiles;
use super::gguf::Value;
use super::gguf_model::{CONTROL, CUTS, NORMAL, UNUSED, USER_DEFINED, cut};
use crate::model::architecture::{Architecture, Family, Rope, RopeScaling};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value as Json;

/// Sizes, switches and tokenizer of `files`; the model is called `name`.
///
/// # Errors
/// When the family or the tokenizer has no counterpart in GGUF that the lab knows; the message names it.
pub fn values(files: &ModelFiles, name: &str) -> Result<Vec<(String, Value)>> {
    let a = &files.architecture;
    let family = Family::of(&a.family).context("GGUF files")?;
    let mut out = vec![
        ("general.architecture".to_string(), Value::Text(family.id.into())),
        ("general.name".to_string(), Value::Text(name.into())),
    ];
    let sizes = [
        ("block_count", a.layers),
        ("context_length", a.context),
        ("embedding_length", a.d_model),
        ("feed_forward_length", a.d_ff),
        ("attention.head_count", a.heads),
        ("attention.head_count_kv", a.kv_heads),
        ("attention.key_length", a.head_dim),
        ("attention.value_length", a.head_dim),
        ("rope.dimension_count", a.head_dim),
        ("vocab_size", a.vocabulary),
    ];
    out.extend(sizes.map(|(key, n)| (format!("{}.{key}", family.id), Value::Unsigned(n as u64))));
    let mut numbers = vec![("attention.layer_norm_rms_epsilon", f64::from(a.norm_eps)), ("rope.freq_base", a.rope.theta)];
    if let RopeScaling::Linear { factor } = a.rope.scaling {
        out.push((format!("{}.rope.scaling.type", family.id), Value::Text("linear".into())));
        numbers.push(("rope.scaling.factor", factor));
    }
    out.extend(numbers.into_iter().map(|(key, n)| (format!("{}.{key}", family.id), Value::Float(n))));
    out.extend(tokenizer(files).context("the tokenizer")?);
    if let Some(template) = &files.template {
        out.push(("tokenizer.chat_template".into(), Value::Text(template.clone())));
    }
    Ok(out)
}

/// What every rotary frequency is divided by, where that is no plain rule in GGUF.
pub fn divisors(a: &Architecture) -> Option<Vec<f32>> {
    match &a.rope.scaling {
        RopeScaling::None | RopeScaling::Linear { .. } => None,
        _ => {
            let plain = Rope { theta: a.rope.theta, scaling: RopeScaling::None };
            let both = plain.frequencies(a.head_dim).into_iter().zip(a.rope.frequencies(a.head_dim));
            Some(both.map(|(plain, own)| (plain / own) as f32).collect())
        }
    }
}

/// Adds `tokens` as control tokens behind the `vocabulary` embeddings of a model, whose values these are.
pub fn add_tokens(values: &mut [(String, Value)], vocabulary: usize, tokens: Vec<String>) {
    let count = vocabulary + tokens.len();
    for (key, value) in values {
        match (key.as_str(), value) {
            ("tokenizer.ggml.tokens", Value::Array(all)) => {
                let unused = (all.len()..vocabulary).map(unused);
                all.extend(unused.chain(tokens.iter().cloned()).map(Value::Text));
            }
            ("tokenizer.ggml.token_type", Value::Array(all)) => {
                let signed = !matches!(all.first(), Some(Value::Unsigned(_)));
                let kind = |kind: usize| if signed { Value::Signed(kind as i64) } else { Value::Unsigned(kind as u64) };
                all.resize(vocabulary, kind(UNUSED));
                all.resize(count, kind(CONTROL));
            }
            ("tokenizer.ggml.scores", Value::Array(all)) => all.resize(count, Value::Float(0.0)),
            (key, value) if key.ends_with(".vocab_size") => *value = Value::Unsigned(count as u64),
            _ => {}
        }
    }
}

/// What an embedding without a token is called.
fn unused(id: usize) -> String {
    format!("[PAD{id}]")
}

/// A byte-level tokenizer.
fn tokenizer(files: &ModelFiles) -> Result<Vec<(String, Value)>> {
    let json: Json = serde_json::from_str(&files.tokenizer)?;
    let model = &json["model"];
    let kind = model["type"].as_str().unwrap_or("?");
    let bytes = model["byte_fallback"].as_bool() != Some(true);
    ensure!(kind == "BPE" && bytes, "is of type {kind}, not made of bytes; GGUF is written for byte-level BPE alone");
    let whole_words = model["ignore_merges"].as_bool() == Some(true);
    let same = |name: &&&str| {
        cut(name).is_some_and(|c| {
            (bare(&c.normalizer), bare(&c.pre_tokenizer), c.whole_words)
                == (bare(&json["normalizer"]), bare(&json["pre_tokenizer"]), whole_words)
        })
    };
    let cuts = CUTS.iter().find(same);
    let cuts = cuts.with_context(|| format!("cuts texts in a way that GGUF has no name for; known are {}", CUTS.join(", ")))?;

    let vocabulary = model["vocab"].as_object().context("has no vocabulary")?;
    let mut tokens: Vec<(String, usize)> = vec![(String::new(), 0); files.architecture.vocabulary];
    let mut place = |id: Option<u64>, text: &str, kind: usize| -> Result<()> {
        let slot = id.and_then(|id| tokens.get_mut(id as usize));
        *slot.with_context(|| format!("the token \"{text}\" has no embedding"))? = (text.into(), kind);
        Ok(())
    };
    vocabulary.iter().try_for_each(|(text, id)| place(id.as_u64(), text, NORMAL))?;
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let kind = if token["special"].as_bool() == Some(true) { CONTROL } else { USER_DEFINED };
        place(token["id"].as_u64(), token["content"].as_str().unwrap_or_default(), kind)?;
    }
    // Embeddings without a token, as files for round numbers of them have.
    for (id, token) in tokens.iter_mut().enumerate().filter(|(_, (_, kind))| *kind == 0) {
        *token = (unused(id), UNUSED);
    }
    let id = |text: &Option<String>| text.as_ref().and_then(|t| tokens.iter().position(|(token, _)| token == t));
    let mut merges = Vec::new();
    for merge in model["merges"].as_array().context("has no merges")? {
        merges.push(Value::Text(match merge {
            Json::String(text) => text.clone(),
            Json::Array(pair) if pair.len() == 2 => {
                let [a, b] = [&pair[0], &pair[1]].map(|v| v.as_str().unwrap_or_default());
                format!("{a} {b}")
            }
            other => bail!("has the merge {other}"),
        }));
    }
    let begins = json["post_processor"].to_string().contains("SpecialToken");
    let ids = [("bos", id(&files.bos)), ("eos", id(&files.eos))];
    let mut out = vec![
        ("tokenizer.ggml.model".to_string(), Value::Text("gpt2".into())),
        ("tokenizer.ggml.pre".to_string(), Value::Text((*cuts).into())),
        ("tokenizer.ggml.add_bos_token".to_string(), Value::Bool(begins)),
        (
            "tokenizer.ggml.token_type".to_string(),
            Value::Array(tokens.iter().map(|(_, kind)| Value::Signed(*kind as i64)).collect()),
        ),
    ];
    for (name, id) in ids {
        out.extend(id.map(|id| (format!("tokenizer.ggml.{name}_token_id"), Value::Unsigned(id as u64))));
    }
    out.push(("tokenizer.ggml.tokens".into(), Value::Array(tokens.into_iter().map(|(text, _)| Value::Text(text)).collect())));
    out.push(("tokenizer.ggml.merges".into(), Value::Array(merges)));
    Ok(out)
}

/// A part of a tokenizer without what changes no token: offsets.
fn bare(part: &Json) -> Json {
    match part {
        Json::Object(fields) => fields.iter().filter(|(k, _)| *k != "trim_offsets").map(|(k, v)| (k.clone(), bare(v))).collect(),
        Json::Array(all) => all.iter().map(bare).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::write::{Sheet, gguf};
    use super::super::{DIVISORS, Gguf, Naming, Storage};
    use super::*;
    use crate::model::architecture::Part;
    use std::path::Path;

    /// With vocabularies of both kinds: of scores, and of merges.
    #[test]
    fn added_tokens_are_read_as_special_ones_behind_the_others() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
        let folder = tempfile::tempdir().unwrap();
        for name in ["gguf-pieces", "gguf-llama3"] {
            let path = fixtures.join(name).join("model.gguf");
            let mut a = ModelFiles::open(&path, &[]).unwrap().architecture;
            let mut values: Vec<(String, Value)> = Gguf::open(&path).unwrap().values.into_iter().collect();
            // There is one embedding more than there are tokens.
            let first = a.vocabulary + 1;
            add_tokens(&mut values, first, vec!["<a=0>".into(), "<a=1>".into()]);
            (a.vocabulary, a.outputs) = (first + 2, first + 2);
            let zeros = |part: Part| vec![0.0f32; a.shape(part).iter().product()];
            let mut sheets = Sheet::all(Naming::Gguf { interleaved: true }, &a, Storage::F32, &zeros);
            sheets.extend(divisors(&a).map(|own| Sheet::of(DIVISORS, &[own.len()], own)));
            let to = folder.path().join(name);
            gguf(&to, &values, &sheets).unwrap();
            let read = ModelFiles::open(&to, &[]).unwrap();
            assert_eq!(read.architecture.vocabulary, first + 2, "{name}");
            let tokenizer: tokenizers::Tokenizer = read.tokenizer.parse().unwrap();
            let tokens = tokenizer.encode("tea<a=1><a=0>", false).unwrap().get_ids().to_vec();
            let first = first as u32;
            assert_eq!(tokens[tokens.len() - 2..], [first + 1, first], "{name}: {tokens:?}");
        }
    }
}
