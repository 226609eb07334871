//! The settings that are tried for an optimiser, and those that were taken.

use super::plan::Variant;
use crate::config::PolicyOptimizer;
use serde_json::{Value, json};

/// What stands between a method's name and a setting's in the labels of a tuning study.
pub const APART: &str = " · ";

/// A try: what it is called, and the fields that it sets.
pub type Try = (&'static str, Vec<(&'static str, Value)>);

/// The tries of a method or an optimiser as a study has them.
pub fn variants(title: &str, fixed: (&str, Value), tries: Vec<Try>) -> Vec<Variant> {
    let one = |(label, set): Try| {
        let set = set.into_iter().map(|(field, value)| (field.to_string(), value));
        Variant { label: format!("{title}{APART}{label}"), set: set.chain([(fixed.0.to_string(), fixed.1.clone())]).collect() }
    };
    tries.into_iter().map(one).collect()
}

/// Which of an optimiser's tries the tuning took: what `docs/studies/optimisers-tuning.results.json` says, as `cargo lab results --check`
/// makes sure.
pub const TAKEN: [(PolicyOptimizer, &str); 8] = [
    (PolicyOptimizer::Rloo, "1e-3, KL 0.05"),
    (PolicyOptimizer::Grpo, "1e-3, KL 0.25 as k2"),
    (PolicyOptimizer::DrGrpo, "1e-3, KL 0.1 as k2"),
    (PolicyOptimizer::Dapo, "1e-3, KL 0.125 as k2"),
    (PolicyOptimizer::ReinforcePlusPlus, "1e-3, KL 0.075"),
    (PolicyOptimizer::Ppo, "2e-3, KL 0.05"),
    (PolicyOptimizer::OnlineDpo, "1e-3, beta 0.3"),
    (PolicyOptimizer::OnlineIpo, "1e-3, means, beta 1"),
];

/// The settings of an optimiser that the tuning took.
pub fn taken(optimizer: PolicyOptimizer) -> Variant {
    let label = TAKEN.iter().find(|(o, _)| *o == optimizer).map(|(o, label)| format!("{}{APART}{label}", o.title()));
    let own = optimizer_tries()
        .into_iter()
        .find(|v| Some(&v.label) == label.as_ref())
        .expect("every optimiser has a try that was taken");
    Variant { label: optimizer.title().into(), ..own }
}

/// Nine tries for every optimiser. What an optimiser cannot do without, or its authors advise, is part of all of its tries.
pub fn optimizer_tries() -> Vec<Variant> {
    use PolicyOptimizer::{Dapo, DrGrpo, Grpo, OnlineDpo, OnlineIpo, Ppo, ReinforcePlusPlus, Rloo};
    let mut out = Vec::new();
    for optimizer in PolicyOptimizer::ALL {
        let set = |rate: f64, name: &'static str, value: f64| vec![("policy.learning_rate", json!(rate)), (name, json!(value))];
        let (beta, dpo) = ("policy.kl_coefficient", "policy.dpo.beta");
        let with = |mut set: Vec<(&'static str, Value)>, name: &'static str, value: Value| {
            set.push((name, value));
            set
        };
        let k2 = |rate: f64, value: f64| with(set(rate, beta, value), "policy.kl_penalty", json!("k2_loss"));
        let mut tries: Vec<Try> = match optimizer {
            Rloo | Ppo | ReinforcePlusPlus => vec![
                ("1e-3, KL 0.05", set(1e-3, beta, 0.05)),
                ("5e-4, KL 0.05", set(5e-4, beta, 0.05)),
                ("1e-3, KL 0.1", set(1e-3, beta, 0.1)),
                ("5e-4, KL 0.025", set(5e-4, beta, 0.025)),
                ("2e-3, KL 0.05", set(2e-3, beta, 0.05)),
                ("2e-3, KL 0.1", set(2e-3, beta, 0.1)),
                ("1e-3, KL 0.075", set(1e-3, beta, 0.075)),
                ("1.5e-3, KL 0.1", set(1.5e-3, beta, 0.1)),
                ("1e-3, KL 0.05, SFT answers mixed in", with(set(1e-3, beta, 0.05), "policy.sft_mix", json!(0.5))),
            ],
            // GRPO's advantages are about 2.5 times as large, and its KL coefficient with them.
            Grpo | DrGrpo => vec![
                ("1e-3, KL 0.125", set(1e-3, beta, 0.125)),
                ("5e-4, KL 0.125", set(5e-4, beta, 0.125)),
                ("5e-4, KL 0.05", set(5e-4, beta, 0.05)),
                ("5e-4, KL 0.125 as k2", k2(5e-4, 0.125)),
                // Advantages that no deviation divides are smaller; those that one does drift further from the reference.
                match optimizer {
                    Grpo => ("1e-3, KL 0.25", set(1e-3, beta, 0.25)),
                    _ => ("2e-3, KL 0.125", set(2e-3, beta, 0.125)),
                },
                match optimizer {
                    Grpo => ("2e-3, KL 0.25", set(2e-3, beta, 0.25)),
                    _ => ("4e-3, KL 0.125", set(4e-3, beta, 0.125)),
                },
                match optimizer {
                    Grpo => ("1e-3, KL 0.125 as k2", k2(1e-3, 0.125)),
                    _ => ("1e-3, KL 0.05 as k2", k2(1e-3, 0.05)),
                },
                match optimizer {
                    Grpo => ("2e-3, KL 0.125 as k2", k2(2e-3, 0.125)),
                    _ => ("2e-3, KL 0.05 as k2", k2(2e-3, 0.05)),
                },
                match optimizer {
                    Grpo => ("1e-3, KL 0.25 as k2", k2(1e-3, 0.25)),
                    _ => ("1e-3, KL 0.1 as k2", k2(1e-3, 0.1)),
                },
            ],
            Dapo => vec![
                ("5e-4", set(5e-4, "policy.clip_high", 0.28)),
                ("3e-4", set(3e-4, "policy.clip_high", 0.28)),
                ("2e-4", set(2e-4, "policy.clip_high", 0.28)),
                ("3e-4, symmetric clip", set(3e-4, "policy.clip_high", 0.2)),
                ("4e-4", set(4e-4, "policy.clip_high", 0.28)),
                ("5e-4, symmetric clip", set(5e-4, "policy.clip_high", 0.2)),
                // With the penalty that its authors leave out.
                ("1e-3, KL 0.125 as k2", with(k2(1e-3, 0.125), "policy.clip_high", json!(0.28))),
                ("2e-3, KL 0.125 as k2", with(k2(2e-3, 0.125), "policy.clip_high", json!(0.28))),
                ("1.5e-3, KL 0.2 as k2", with(k2(1.5e-3, 0.2), "policy.clip_high", json!(0.28))),
            ],
            OnlineDpo => vec![
                ("5e-4, beta 0.3", set(5e-4, dpo, 0.3)),
                ("2e-4, beta 0.3", set(2e-4, dpo, 0.3)),
                ("5e-4, beta 0.1", set(5e-4, dpo, 0.1)),
                ("5e-4, beta 1", set(5e-4, dpo, 1.0)),
                ("1e-3, beta 0.1", set(1e-3, dpo, 0.1)),
                ("2e-3, beta 0.1", set(2e-3, dpo, 0.1)),
                ("1e-3, beta 0.3", set(1e-3, dpo, 0.3)),
                ("2e-3, beta 1", set(2e-3, dpo, 1.0)),
                ("1.5e-3, beta 0.5", set(1.5e-3, dpo, 0.5)),
            ],
            // The paper's sums beside the means of the field's libraries.
            OnlineIpo => {
                let ipo = |label, rate, value: f64, mean: bool| {
                    let mut own = set(rate, dpo, value);
                    own.push(("policy.dpo.mean_log_probs", json!(mean)));
                    (label, own)
                };
                vec![
                    ipo("5e-4, sums, beta 0.1", 5e-4, 0.1, false),
                    ipo("5e-4, means, beta 0.5", 5e-4, 0.5, true),
                    ipo("5e-4, means, beta 1", 5e-4, 1.0, true),
                    ipo("5e-4, means, beta 2", 5e-4, 2.0, true),
                    ipo("1e-3, means, beta 0.5", 1e-3, 0.5, true),
                    ipo("2e-3, means, beta 0.5", 2e-3, 0.5, true),
                    ipo("1e-3, means, beta 1", 1e-3, 1.0, true),
                    ipo("2e-3, means, beta 2", 2e-3, 2.0, true),
                    ipo("1.5e-3, means, beta 1.5", 1.5e-3, 1.5, true),
                ]
            }
        };
        if matches!(optimizer, OnlineDpo | OnlineIpo) {
            // Two answers to each of more prompts.
            tries.iter_mut().for_each(|(_, set)| {
                set.extend([("policy.samples_per_prompt", json!(2)), ("policy.prompts", json!(128))]);
            });
        }
        out.extend(variants(optimizer.title(), ("policy.optimizer", json!(optimizer)), tries));
    }
    out
}
