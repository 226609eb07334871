//! The fields of a run's configuration, as data: path, label, help and kind. The form is drawn from these tables.

use crate::json;
use moslim_shared::config::RunConfig;
use serde_json::{Number as JsonNumber, Value};

/// How a field is edited.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Text,
    /// A whole number, 0 or more.
    Integer,
    Number,
    /// A number, or nothing.
    Optional,
    Toggle,
    /// (value, label).
    Choice(&'static [(&'static str, &'static str)]),
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field {
    /// Path as problems name it, for example `policy.samples_per_prompt`.
    pub path: &'static str,
    pub label: &'static str,
    pub help: &'static str,
    pub kind: Kind,
}

/// Fields under one heading.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    pub id: &'static str,
    pub title: &'static str,
    pub intro: &'static str,
    pub fields: &'static [Field],
}

const fn f(path: &'static str, label: &'static str, kind: Kind, help: &'static str) -> Field {
    Field { path, label, help, kind }
}

use Kind::{Choice, Integer, Number, Optional, Text, Toggle};

/// Fields of preferences; the objectives and the held-out pairs have editors of their own.
pub const TARGETS: &[Field] = &[
    f("targets.active_probability", "Chance that an objective is asked for", Number, "0 to 1. At least one is always asked for."),
    f(
        "targets.empirical_share",
        "Classes drawn as in the data",
        Number,
        "Share from 0 to 1. The rest is drawn uniformly over the classes.",
    ),
    f(
        "targets.shuffled_share",
        "Tags in random order",
        Number,
        "Share of prompts, 0 to 1. The others keep the order of the objectives.",
    ),
];

/// All other sections, in the order of the page.
pub const SECTIONS: &[Section] = &[
    Section {
        id: "mapping",
        title: "Mapping",
        intro: "How class probabilities and the classes asked for become one scalar.",
        fields: &[
            f(
                "mapping.function",
                "Function",
                Choice(&[
                    ("moslim", "MOSLIM: probability of the class asked for"),
                    ("log", "Logarithm of that probability"),
                    ("expected", "Distance of the expected class"),
                    ("ranked_probability", "Ranked probability score"),
                    ("argmax", "Hit or miss of the likeliest class"),
                ]),
                "What is read off a class distribution. The paper uses the probability; the ordinal ones give credit for near misses.",
            ),
            f(
                "mapping.divisor",
                "Divide the sum by",
                Choice(&[("active", "objectives asked for"), ("objectives", "all objectives (as printed in the paper)")]),
                "Dividing by the objectives asked for keeps the reward's size when fewer are.",
            ),
            f(
                "mapping.pooling",
                "Deviation per",
                Choice(&[("class", "objective and class"), ("head", "objective (classes pooled)")]),
                "What the z-score is scaled by.",
            ),
            f("mapping.std_floor", "Smallest deviation", Number, "0 to 1. Keeps rare classes from exploding."),
            f("mapping.z_clip", "Clip of the z-score", Number, "0.1 to 100 deviations, either side."),
        ],
    },
    Section {
        id: "models",
        title: "Models",
        intro: "Sizes of two decoder-only transformers: the policy, and the trunk of the reward model.",
        fields: &[
            f("vocabulary", "Vocabulary", Integer, "Entries of the tokenizer before special tokens and tags."),
            f("model.layers", "Policy: layers", Integer, "Decoder blocks."),
            f("model.d_model", "Policy: width", Integer, "Of the residual stream; an even multiple of the heads."),
            f("model.heads", "Policy: heads", Integer, "Query heads."),
            f("model.kv_heads", "Policy: key-value heads", Integer, "Divides the heads."),
            f("model.d_ff", "Policy: feed-forward width", Integer, "Of the SwiGLU block."),
            f("model.context", "Policy: context", Integer, "Longest sequence, tokens."),
            f("model.tied_embeddings", "Policy: tied embeddings", Toggle, "Input and output embeddings are one matrix."),
            f(
                "reward_from_sft",
                "Reward trunk starts from SFT",
                Toggle,
                "It then knows the language already; needs a trunk of the policy's sizes.",
            ),
            f("reward_trunk.layers", "Reward trunk: layers", Integer, "Decoder blocks."),
            f("reward_trunk.d_model", "Reward trunk: width", Integer, "Of the residual stream; an even multiple of the heads."),
            f("reward_trunk.heads", "Reward trunk: heads", Integer, "Query heads."),
            f("reward_trunk.kv_heads", "Reward trunk: key-value heads", Integer, "Divides the heads."),
            f("reward_trunk.d_ff", "Reward trunk: feed-forward width", Integer, "Of the SwiGLU block."),
            f("reward_trunk.context", "Reward trunk: context", Integer, "Longest sequence, tokens."),
        ],
    },
    Section {
        id: "sft",
        title: "Supervised fine-tuning",
        intro: "The policy learns to answer; it sees no preference.",
        fields: &[
            f("sft.steps", "Steps", Integer, "Optimiser steps."),
            f("sft.batch", "Batch", Integer, "Rows."),
            f("sft.learning_rate", "Learning rate", Number, "Peak of AdamW; warm-up 5 %, cosine decay to 10 %."),
        ],
    },
    Section {
        id: "reward-model",
        title: "Reward model",
        intro: "One head per objective learns to grade answers. It never sees the tags.",
        fields: &[
            f("reward_model.steps", "Steps", Integer, "Optimiser steps."),
            f("reward_model.batch", "Batch", Integer, "Rows."),
            f("reward_model.learning_rate", "Learning rate", Number, "Peak of AdamW; warm-up 5 %, cosine decay to 10 %."),
            f("reward_model.label_smoothing", "Label smoothing", Number, "0 to 0.5."),
        ],
    },
    Section {
        id: "policy",
        title: "Policy optimisation",
        intro: "RLOO: several answers per prompt, each compared with the mean of the others.",
        fields: &[
            f("policy.iterations", "Iterations", Integer, "Sample, score, update."),
            f("policy.prompts", "Prompts per iteration", Integer, "Each with one preference."),
            f("policy.samples_per_prompt", "Answers per prompt", Integer, "At least 2, or no answer has a baseline."),
            f(
                "policy.learning_rate",
                "Learning rate",
                Number,
                "Of Adam; ten iterations of warm-up, decay over the last quarter.",
            ),
            f("policy.epochs", "Passes over a batch", Integer, "1 is on-policy."),
            f("policy.minibatches", "Minibatches per pass", Integer, "1 is on-policy."),
            f("policy.clip", "Clip", Number, "Range of the probability ratio of an answer."),
            f("policy.kl_coefficient", "KL coefficient β", Number, "Per nat. Larger stays closer to the SFT model."),
            f("policy.kl_target", "KL target", Optional, "Nats per answer. When set, β adapts towards it; empty is off."),
            f("policy.temperature", "Sampling temperature", Number, "1 samples from the policy as it is."),
            f("policy.max_new_tokens", "Longest answer", Integer, "Tokens."),
            f(
                "policy.missing_eos_penalty",
                "Penalty for a cut answer",
                Number,
                "Subtracted when an answer does not end by itself.",
            ),
            f("policy.max_gradient_norm", "Largest gradient norm", Number, "Gradients are scaled down to it."),
            f("policy.checkpoint_every", "Checkpoint every", Integer, "Iterations. A run resumes from the last one."),
        ],
    },
    Section {
        id: "evaluation",
        title: "Evaluation",
        intro: "On held-out questions, by gold rules and by the reward model.",
        fields: &[
            f("evaluation.questions", "Questions per class", Integer, "At least 2."),
            f("evaluation.joint", "Prompts with several tags", Integer, "0 skips this part."),
            f("evaluation.held_out", "Prompts per held-out pair", Integer, "And as many with a trained pair beside it."),
            f("evaluation.temperature", "Temperature", Number, "0 is greedy."),
        ],
    },
    Section {
        id: "run",
        title: "Run and data",
        intro: "The same settings, seed and device give the same figures on the CPU.",
        fields: &[
            f("name", "Name", Text, "For people; may be empty."),
            f("seed", "Seed", Integer, "Of every random choice but the data's."),
            f(
                "device",
                "Device",
                Choice(&[("auto", "Choose for me"), ("cpu", "CPU"), ("cuda", "CUDA"), ("wgpu", "wgpu (Vulkan, Metal)")]),
                "Where to compute.",
            ),
            f("world.rows", "Rows of data", Integer, "Question-answer rows, before duplicates are dropped."),
            f("world.seed", "Seed of the data", Integer, "Runs that share it share data and cached stages."),
            f("world.label_noise", "Label noise", Number, "Share of labels moved to a neighbouring class, 0 to 0.5."),
            f("world.missing_labels", "Missing labels", Number, "Share of labels removed, 0 to 0.9."),
        ],
    },
];

/// The element that edits `path`; a problem inside of a list leads to the list.
pub fn element_id(path: &str) -> String {
    let head = path.split('[').next().unwrap_or(path);
    format!("field-{}", head.replace('.', "-"))
}

/// The JSON pointer of a path.
fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}

/// The value at `path`.
pub fn get<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    value.pointer(&pointer(path))
}

/// Puts `new` at `path`.
pub fn set(value: &mut Value, path: &str, new: Value) {
    if let Some(place) = value.pointer_mut(&pointer(path)) {
        *place = new;
    }
}

/// A value as an input shows it.
pub fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(Value::Bool(b)) => b.to_string(),
        Some(Value::Number(n)) => match (n.as_u64(), n.as_f64()) {
            (Some(n), _) => n.to_string(),
            (None, x) => x.map(|x| x.to_string()).unwrap_or_default(),
        },
        // These have editors of their own.
        Some(Value::Array(_) | Value::Object(_)) => String::new(),
    }
}

/// Reads what was typed; the error is for people.
pub fn read(kind: Kind, typed: &str) -> Result<Value, String> {
    let typed = typed.trim();
    match kind {
        Kind::Text | Kind::Choice(_) => Ok(Value::from(typed)),
        Kind::Toggle => Ok(Value::from(typed == "true")),
        Kind::Integer => {
            typed.parse::<u64>().map(Value::from).map_err(|_| format!("\"{typed}\" is not a whole number of 0 or more"))
        }
        Kind::Optional if typed.is_empty() => Ok(Value::Null),
        Kind::Number | Kind::Optional => decimal(typed).ok_or_else(|| format!("\"{typed}\" is not a number")),
    }
}

/// Reads a decimal number, also one that JSON wants written otherwise, such as `.5`. The standard library could do this, but
/// would bring another reader with large tables into the module.
fn decimal(typed: &str) -> Option<Value> {
    let (sign, digits) = match typed.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", typed.strip_prefix('+').unwrap_or(typed)),
    };
    let starts = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    if !starts(digits.strip_prefix('.').unwrap_or(digits)) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    let digits = digits.strip_suffix('.').unwrap_or(digits);
    let zero = if starts(digits) { "" } else { "0" };
    let number = json::parse(&format!("{sign}{zero}{digits}"))?.as_f64()?;
    JsonNumber::from_f64(number).map(Value::Number)
}

/// Paths whose values differ, with both values as text.
pub fn differences(old: &RunConfig, new: &RunConfig) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    compare("", &json::to_value(old), &json::to_value(new), &mut found);
    found
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<(String, String, String)>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in b {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&below, a.get(key).unwrap_or(&Value::Null), value, found);
            }
        }
        _ if old == new => {}
        _ => found.push((path.to_string(), brief(old), brief(new))),
    }
}

fn brief(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::Array(list) => format!("{} entries", list.len()),
        other => text(Some(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Field> {
        TARGETS.iter().chain(SECTIONS.iter().flat_map(|s| s.fields))
    }

    #[test]
    fn every_field_exists_and_survives_its_own_text() {
        let value = serde_json::to_value(RunConfig::default()).unwrap();
        for field in all() {
            let found = get(&value, field.path).unwrap_or_else(|| panic!("{} is not in the configuration", field.path));
            let mut copy = value.clone();
            set(&mut copy, field.path, read(field.kind, &text(Some(found))).unwrap());
            assert_eq!(serde_json::from_value::<RunConfig>(copy).unwrap(), RunConfig::default(), "{}", field.path);
        }
    }

    #[test]
    fn every_choice_is_accepted() {
        let value = serde_json::to_value(RunConfig::default()).unwrap();
        for field in all() {
            let Kind::Choice(options) = field.kind else { continue };
            for (option, _) in options {
                let mut copy = value.clone();
                set(&mut copy, field.path, Value::from(*option));
                assert!(serde_json::from_value::<RunConfig>(copy).is_ok(), "{} = {option}", field.path);
            }
        }
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        assert!(read(Kind::Integer, "-1").is_err());
        assert!(read(Kind::Integer, "1.5").is_err());
        assert!(read(Kind::Number, "NaN").is_err());
        assert!(read(Kind::Number, "").is_err());
        assert_eq!(read(Kind::Optional, " "), Ok(Value::Null));
        assert_eq!(read(Kind::Number, "1e-3"), Ok(Value::from(0.001)));
        for (typed, value) in [(".5", 0.5), ("-.5", -0.5), ("+2", 2.0), ("3.", 3.0), ("00.25", 0.25), ("0", 0.0), ("7E2", 700.0)]
        {
            assert_eq!(read(Kind::Number, typed), Ok(Value::from(value)), "{typed}");
        }
        for typed in [".", "-", "e5", "--1", "1..", "inf", "1 2", "0x10", "[1]"] {
            assert!(read(Kind::Number, typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn differences_name_the_path() {
        let mut new = RunConfig::default();
        new.policy.iterations = 7;
        new.policy.kl_target = Some(2.0);
        let found = differences(&RunConfig::default(), &new);
        assert_eq!(
            found,
            [
                ("policy.iterations".to_string(), "200".to_string(), "7".to_string()),
                ("policy.kl_target".to_string(), "none".to_string(), "2".to_string()),
            ]
        );
    }

    #[test]
    fn problems_lead_to_elements() {
        assert_eq!(element_id("policy.samples_per_prompt"), "field-policy-samples_per_prompt");
        assert_eq!(element_id("targets.held_out[0][1].class"), "field-targets-held_out");
    }
}
