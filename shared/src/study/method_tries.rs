//! The settings that are tried for a method.

use super::plan::Variant;
use super::shipped;
use super::tries::{Try, variants};
use crate::config::RunConfig;
use crate::method::Method;
use serde_json::{Value, json};

/// Weight of SFT's answers where a try mixes them in.
pub const SFT_MIX: f64 = 0.5;

/// MOSLIM's policy with MOC's balance of the objectives, which is tried and compared like a method.
pub const MOC: &str = "MOC";
/// The label of a method's settings as they are shipped.
pub const SHIPPED: &str = "as shipped";

/// Eight tries for a policy that reads tags and is optimised for what they ask.
fn tagged_tries(base: &RunConfig) -> Vec<Try> {
    let (rate, beta, sft) = (base.policy.learning_rate, base.policy.kl_coefficient, shipped::affordable(base));
    // What preference SFT has taught is moved with half of the rate.
    let first = |more: &[(&'static str, Value)]| {
        let both = [("method.preference_sft", json!(sft)), ("policy.learning_rate", json!(rate / 2.0))];
        both.into_iter().chain(more.iter().cloned()).collect::<Vec<_>>()
    };
    // The best of everything is what cannot be had at once: near the front, half of the goals are drawn whatever the question.
    let near = |share: f64| [("targets.near_front_share", json!(share)), ("targets.impossible_share", json!(0.5))];
    let loose = ("policy.kl_coefficient", json!(beta / 2.0));
    let (mix, average) = (("policy.sft_mix", json!(SFT_MIX)), ("policy.average", json!(0.3)));
    let [half, any] = near(0.5);
    let [all, _] = near(1.0);
    vec![
        (SHIPPED, vec![]),
        ("SFT answers mixed in", vec![mix.clone()]),
        ("preference SFT", first(&[])),
        ("preference SFT, half near the front", first(&[half.clone(), any.clone()])),
        ("preference SFT, half near the front, half the KL coefficient", first(&[half, any.clone(), loose.clone()])),
        ("preference SFT, all near the front, half the KL coefficient", first(&[all.clone(), any.clone(), loose.clone()])),
        (
            "preference SFT, all near the front, half the KL coefficient, averaged weights",
            first(&[all.clone(), any.clone(), loose.clone(), average.clone()]),
        ),
        (
            "preference SFT, all near the front, half the KL coefficient, averaged weights, SFT answers mixed in",
            first(&[all, any, loose, average, mix]),
        ),
    ]
}

/// Eight tries for every method that trains. Each begins with the settings of the base, which were chosen for MOSLIM.
pub fn method_tries(base: &RunConfig) -> Vec<Variant> {
    let (rate, beta, ric) = (base.policy.learning_rate, base.policy.kl_coefficient, &base.method.ric);
    let mut out = Vec::new();
    for method in Method::ALL {
        let tries: Vec<Try> = match method {
            Method::Moslim => tagged_tries(base),
            Method::Morlhf | Method::RewardedSoups => vec![
                (SHIPPED, vec![]),
                ("half the rate", vec![("policy.learning_rate", json!(rate / 2.0))]),
                ("twice the rate", vec![("policy.learning_rate", json!(rate * 2.0))]),
                ("half the KL coefficient", vec![("policy.kl_coefficient", json!(beta / 2.0))]),
                ("twice the KL coefficient", vec![("policy.kl_coefficient", json!(beta * 2.0))]),
                ("half the prompts", vec![("policy.prompts", json!((base.policy.prompts / 2).max(1)))]),
                ("SFT answers mixed in", vec![("policy.sft_mix", json!(SFT_MIX))]),
                ("averaged weights", vec![("policy.average", json!(0.3))]),
            ],
            Method::Ric | Method::RicClass => vec![
                (SHIPPED, vec![]),
                ("half the batch", vec![("method.ric.batch", json!((ric.batch / 2).max(1)))]),
                ("half the rate", vec![("method.ric.learning_rate", json!(ric.learning_rate / 2.0))]),
                ("twice the rate", vec![("method.ric.learning_rate", json!(ric.learning_rate * 2.0))]),
                ("offline only", vec![("method.ric.online_rounds", json!(0))]),
                ("two online rounds", vec![("method.ric.online_rounds", json!(2)), ("method.ric.online_share", json!(0.5))]),
                ("half of it online", vec![("method.ric.online_share", json!(0.5))]),
                ("stricter quantile", vec![("method.ric.quantile", json!(0.9))]),
            ],
            Method::ParetoHqd => vec![
                (SHIPPED, vec![]),
                ("a third of the rows", vec![("method.ric.near_share", json!(ric.near_share / 3.0))]),
                ("three times the rows", vec![("method.ric.near_share", json!(ric.near_share * 3.0))]),
                ("half the rate", vec![("method.ric.learning_rate", json!(ric.learning_rate / 2.0))]),
                ("twice the rate", vec![("method.ric.learning_rate", json!(ric.learning_rate * 2.0))]),
                ("half the batch", vec![("method.ric.batch", json!((ric.batch / 2).max(1)))]),
                ("offline only", vec![("method.ric.online_rounds", json!(0))]),
                ("half of it online", vec![("method.ric.online_share", json!(0.5))]),
            ],
            Method::TaggedSft | Method::BestOfN => Vec::new(),
        };
        out.extend(variants(method.title(), ("method.kind", json!(method)), tries));
    }
    // The same policy with MOC's balance of its objectives.
    out.extend(variants(MOC, ("policy.aggregation", json!("min_norm")), tagged_tries(base)));
    out
}
