//! The studies that are shipped, with the settings that suit each method and optimiser, and their budgets.

use super::plan::{Axis, StudyConfig, Variant};
use super::state::StudyPreset;
use super::tries::taken;
use crate::config::{PolicyConfig, PolicyOptimizer, RunConfig};
use crate::method::{Budget, ChosenBy, Method};
use crate::presets;
use serde_json::{Value, json};

/// Ids of the shipped studies.
pub const PRESETS: [&str; 8] = ["methods", "ceiling", "optimisers", "credit", "mappings", "reward-size", "stages", "labels"];

/// A shipped study over `base`, if `id` is one of [`PRESETS`]. Every run gets the same budget: that of `base`, or what its iterations
/// cost.
pub fn preset(id: &str, base: RunConfig, seeds: Vec<u64>) -> Option<StudyConfig> {
    let base = budgeted(base);
    let variant = |label: &str, field: &str, value: Value| Variant { label: label.into(), set: [(field.into(), value)].into() };
    let (question, axes) = match id {
        "methods" => {
            let mut kinds = Method::ALL.map(|m| Variant { label: m.title().into(), set: suited(m, &base) }).to_vec();
            kinds.insert(1, after_preference_sft(&base));
            let budgets = [("equal in total", Budget::Total), ("equal per policy", Budget::PerPolicy)];
            (
                "Does one tag-steered policy beat the methods that train many, at an equal budget?",
                vec![
                    Axis { name: "method".into(), variants: kinds },
                    Axis {
                        name: "budget".into(),
                        variants: budgets.map(|(label, b)| variant(label, "method.budget", json!(b))).to_vec(),
                    },
                ],
            )
        }
        "ceiling" => {
            let choosing = |label: &str, best_of: usize, by: ChosenBy| {
                let set = [("kind", json!(Method::BestOfN)), ("best_of", json!(best_of)), ("chosen_by", json!(by))];
                let set = set.map(|(field, value)| (format!("method.{field}"), value)).into();
                Variant { label: label.into(), set }
            };
            let variants = [
                choosing("best of 8, by the reward model", 8, ChosenBy::RewardModel),
                choosing("best of 64, by the reward model", 64, ChosenBy::RewardModel),
                choosing("best of 8, by the rules", 8, ChosenBy::Rules),
                choosing("best of 64, by the rules", 64, ChosenBy::Rules),
            ];
            (
                "How far could choosing among answers of SFT get, by the reward model and by the rules themselves?",
                vec![Axis { name: "choice".into(), variants: variants.to_vec() }],
            )
        }
        "optimisers" => {
            let variants = PolicyOptimizer::ALL.map(|o| tuned(o, &base.policy));
            (
                "Which policy optimiser gets furthest on the same samples?",
                vec![Axis { name: "optimiser".into(), variants: variants.to_vec() }],
            )
        }
        "credit" => {
            let reading = |label: &str, beginnings: f64, lambda: Option<f64>| {
                let set = [("reward_model.beginnings", json!(beginnings)), ("policy.head_credit", json!(lambda))];
                Variant { label: label.into(), set: set.map(|(field, value)| (field.to_string(), value)).into() }
            };
            let variants = [
                reading("whole answers", 0.0, None),
                reading("beginnings too", 0.3, None),
                reading("credit, lambda 1", 0.3, Some(1.0)),
                reading("credit, lambda 0.95", 0.3, Some(0.95)),
            ];
            (
                "Does a reward model that also reads beginnings steer better, and what is credit for every token worth?",
                vec![Axis { name: "reward model".into(), variants: variants.to_vec() }],
            )
        }
        "mappings" => {
            let variants = [
                ("p[t]", json!({"function": "moslim"})),
                ("p[t], one deviation a head", json!({"function": "moslim", "pooling": "head"})),
                ("p[t], running", json!({"function": "moslim", "pooling": "running"})),
                ("p[t], group", json!({"function": "moslim", "pooling": "group"})),
                ("p[t], divided by k", json!({"function": "moslim", "divisor": "objectives"})),
                ("log p[t]", json!({"function": "log"})),
                ("expected class", json!({"function": "expected"})),
                ("ranked probability", json!({"function": "ranked_probability"})),
                ("argmax", json!({"function": "argmax"})),
            ];
            let mut variants = variants.map(|(label, value)| variant(label, "mapping", value));
            // A beginning has no group: where the heads give credit, that mapping does without.
            if base.policy.head_credit.is_some() {
                variants[3].set.insert("policy.head_credit".into(), Value::Null);
            }
            (
                "How should class distributions become one scalar?",
                vec![Axis { name: "mapping".into(), variants: variants.to_vec() }],
            )
        }
        "reward-size" => {
            let sizes = [
                ("16 wide", 1, 16, 2, 1, 32),
                ("32 wide", 1, 32, 2, 1, 64),
                ("64 wide", 2, 64, 4, 2, 172),
                ("96 wide", 2, 96, 4, 2, 256),
            ];
            let variants = sizes.map(|(label, layers, d_model, heads, kv_heads, d_ff)| {
                let trunk = json!({"layers": layers, "d_model": d_model, "heads": heads, "kv_heads": kv_heads, "d_ff": d_ff});
                Variant {
                    label: label.into(),
                    set: [("reward_from_sft".into(), json!(false)), ("reward_trunk".into(), trunk)].into(),
                }
            });
            (
                "Does a bigger reward model give a better policy?",
                vec![Axis { name: "reward model".into(), variants: variants.to_vec() }],
            )
        }
        "stages" => {
            let variants = [
                variant("no preference SFT", "method.preference_sft", json!(0)),
                Variant { label: "preference SFT first".into(), ..after_preference_sft(&base) },
            ];
            let rewards = [
                ("shared classifier", json!({})),
                ("one model each", json!({"separate": true})),
                // Which has no classes to be weighed.
                ("regression", json!({"loss": "regression", "class_weights": "equal"})),
            ];
            let rewards = rewards.map(|(label, value)| variant(label, "reward_model", value));
            (
                "Is preference SFT worth its share of the budget, and is one classifying reward model as good as several or as regression?",
                vec![
                    Axis { name: "SFT".into(), variants: variants.to_vec() },
                    Axis { name: "reward model".into(), variants: rewards.to_vec() },
                ],
            )
        }
        "labels" => {
            let clean = variant("clean", "task", json!(base.task));
            let imperfect = presets::IMPERFECT.map(|labels| variant(labels.id, "task", json!(labels.of(&base.task))));
            let variants = [clean].into_iter().chain(imperfect).collect();
            ("What do noisy, sparse and biased labels cost?", vec![Axis { name: "labels".into(), variants }])
        }
        _ => return None,
    };
    Some(StudyConfig { name: id.into(), question: question.into(), base, axes, seeds })
}

/// MOSLIM after preference SFT, for as many token passes as without.
fn after_preference_sft(base: &RunConfig) -> Variant {
    let steps = ("method.preference_sft", json!(affordable(base)));
    let set = [("method.kind", json!(Method::Moslim)), ("method.rehearsal", Value::Null), steps];
    let set = set.map(|(field, value)| (field.to_string(), value)).into();
    Variant { label: "MOSLIM after preference SFT".into(), set }
}

/// Tokens of a question, and of an answer that policy optimisation samples, as the built-in world has them.
const QUESTION: f64 = 14.0;
const ANSWER: f64 = 28.0;

/// `base` with a budget: its own, or what its iterations cost.
pub fn budgeted(mut base: RunConfig) -> RunConfig {
    base.policy.passes = Some(base.policy.passes.unwrap_or_else(|| passes(&base)));
    base
}

/// What the iterations of `base` cost, in millions of token passes, rounded: sampling, reference, reward model, and the passes over
/// each batch.
fn passes(base: &RunConfig) -> f64 {
    let c = &base.policy;
    let read = (c.iterations * c.prompts) as f64 * (QUESTION + ANSWER * c.samples_per_prompt as f64);
    (read * (3.0 + 3.0 * c.epochs as f64) / 1e5).round().max(1.0) / 10.0
}

/// Steps of preference SFT that cost half of the budget, with the reward model's reading of every row of SFT.
pub fn affordable(base: &RunConfig) -> usize {
    let budget = base.policy.passes.unwrap_or_else(|| passes(base)) * 1e6;
    let row = QUESTION + ANSWER;
    let labelling = base.task.rows as f64 * 0.3 * row;
    let steps = (0.5 * budget - labelling) / (base.method.ric.batch as f64 * row * 3.0);
    steps.max(0.0) as usize
}

/// What suited a method best in a smaller world, of eight settings; `moslim-lab compare` tries them anew for its own base.
fn suited(method: Method, base: &RunConfig) -> std::collections::BTreeMap<String, Value> {
    let c = &base.policy;
    let own: Vec<(&str, Value)> = match method {
        Method::Moslim => vec![("targets.active_probability", json!(0.35)), ("method.preference_sft", json!(0))],
        Method::Morlhf => vec![
            ("policy.prompts", json!((c.prompts / 2).max(1))),
            ("policy.minibatches", json!(c.minibatches.min((c.prompts / 2).max(1)))),
        ],
        Method::RewardedSoups => vec![("policy.learning_rate", json!(c.learning_rate / 2.0))],
        Method::Ric | Method::RicClass => vec![("method.ric.batch", json!((base.method.ric.batch / 2).max(1)))],
        Method::ParetoHqd | Method::TaggedSft | Method::BestOfN => Vec::new(),
    };
    // What the base rehearses would cost the supervised ones a part of their budget alone; weights are read by MOSLIM's policy alone.
    let unread = (method != Method::Moslim).then_some(("targets.weighted_share", Value::Null));
    [("method.kind", json!(method)), ("method.rehearsal", Value::Null)]
        .into_iter()
        .chain(unread)
        .chain(own)
        .map(|(field, value)| (field.to_string(), value))
        .collect()
}

/// What the tuning took for an optimiser; the preference losses spend the samples of `base` on two answers to each of more prompts.
fn tuned(optimizer: PolicyOptimizer, base: &PolicyConfig) -> Variant {
    let mut own = taken(optimizer);
    if let Some(prompts) = own.set.get_mut("policy.prompts") {
        *prompts = json!((base.prompts * base.samples_per_prompt / 2).max(1));
    }
    own
}

/// Every shipped study, for lists.
pub fn preset_list() -> Vec<StudyPreset> {
    let base = presets::find("quick").expect("a shipped preset").config;
    let studies = PRESETS.iter().filter_map(|id| preset(id, base.clone(), vec![1]));
    studies.map(|s| StudyPreset { settings: s.settings(), id: s.name, question: s.question }).collect()
}
