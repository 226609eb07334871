//! The settings of a run, section by section, as data from which the form is drawn; and which of them a choice of method,
//! optimiser or loss leaves without use.

use crate::pages::configure::fields::Kind::{Choice, Integer, Methods, Number, Optimizers, Optional, Text, Toggle};
use crate::pages::configure::fields::{Field, Section, f};
use crate::parts::format::kl_penalty;
use crate::state::optimises;
use moslim_shared::config::{KlPlacement, PolicyOptimizer, RunConfig};
use moslim_shared::method::Method;
use moslim_shared::ordinal::RewardLoss;

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

/// Sizes of one transformer. A macro, because paths are joined before the program runs, which a function cannot do.
macro_rules! sizes {
    ($model:literal) => {
        &[
            f(concat!($model, ".layers"), "Layers", Integer, "Decoder blocks."),
            f(concat!($model, ".d_model"), "Width", Integer, "Of the residual stream; an even multiple of the heads."),
            f(concat!($model, ".heads"), "Heads", Integer, "Query heads."),
            f(concat!($model, ".kv_heads"), "Key-value heads", Integer, "Divides the heads."),
            f(concat!($model, ".d_ff"), "Feed-forward width", Integer, "Of the SwiGLU block."),
            f(concat!($model, ".context"), "Context", Integer, "Longest sequence, tokens."),
            f(concat!($model, ".tied_embeddings"), "Tied embeddings", Toggle, "Input and output embeddings are one matrix."),
            f(
                concat!($model, ".precision"),
                "Precision",
                Choice(&[("f32", "f32"), ("bf16", "bf16 products, f32 weights")]),
                "bf16 needs a device that has it; the CPU does not.",
            ),
        ]
    };
}

/// All other sections, in the order of the page.
pub const SECTIONS: &[Section] = &[
    Section {
        id: "method",
        title: "Method",
        intro: "How graded answers become a policy that can be steered.",
        fields: &[
            f("method.kind", "Method", Methods, "MOSLIM, or a method to compare it with."),
            f(
                "method.budget",
                "Iterations are shared by",
                Choice(&[("total", "all policies together"), ("per_policy", "nobody: each policy gets all of them")]),
                "For methods that train several policies.",
            ),
            f(
                "method.preference_sft",
                "Steps of preference SFT",
                Integer,
                "Supervised training on tagged prompts before the optimisation; 0 is none, as in the paper.",
            ),
            f("method.best_of", "Best of", Integer, "Answers to choose from, 2 to 256."),
        ],
    },
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
                "Mean and deviation over",
                Choice(&[
                    ("class", "each objective and class"),
                    ("head", "each objective and class; deviation per objective"),
                    ("running", "each objective and class, following the policy"),
                    ("group", "the answers to one prompt"),
                ]),
                "What the z-score is taken against.",
            ),
            f("mapping.std_floor", "Smallest deviation", Number, "0 to 1. Keeps rare classes from exploding."),
            f("mapping.z_clip", "Clip of the z-score", Number, "0.1 to 100 deviations, either side."),
        ],
    },
    Section { id: "model", title: "Policy: size", intro: "A decoder-only transformer.", fields: sizes!("model") },
    Section {
        id: "reward-trunk",
        title: "Reward model: size",
        intro: "The trunk that its heads share.",
        fields: sizes!("reward_trunk"),
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
            f("reward_model.steps", "Steps", Integer, "Optimiser steps; separate models share them."),
            f("reward_model.batch", "Batch", Integer, "Rows; pairs count two."),
            f("reward_model.learning_rate", "Learning rate", Number, "Peak of AdamW; warm-up 5 %, cosine decay to 10 %."),
            f(
                "reward_model.loss",
                "Loss",
                Choice(&[
                    ("cross_entropy", "Cross-entropy (as in the paper)"),
                    ("squared_emd", "Squared earth mover's distance"),
                    ("coral", "CORAL"),
                    ("corn", "CORN"),
                    ("regression", "Regression"),
                    ("bradley_terry", "Bradley-Terry on pairs"),
                ]),
                "All give class probabilities. Only cross-entropy ignores the order of the classes.",
            ),
            f("reward_model.label_smoothing", "Label smoothing", Number, "0 to 0.5; for cross-entropy."),
            f(
                "reward_model.class_weights",
                "Class weights",
                Choice(&[("equal", "all equal"), ("inverse_sqrt", "1 / √frequency")]),
                "For cross-entropy and the earth mover's distance.",
            ),
            f(
                "reward_model.learned_head_weights",
                "Learned head weights",
                Toggle,
                "Each head's loss is weighed by its uncertainty.",
            ),
            f(
                "reward_model.separate",
                "Separate models",
                Toggle,
                "A model for each objective instead of a head on a shared trunk.",
            ),
            f(
                "reward_from_sft",
                "Trunk starts from SFT",
                Toggle,
                "It then knows the language already; needs a trunk of the policy's sizes.",
            ),
        ],
    },
    Section {
        id: "policy",
        title: "Policy optimisation",
        intro: "Sample several answers per prompt, score them, update the policy.",
        fields: &[
            f("policy.optimizer", "Optimiser", Optimizers, "How the policy is updated from its samples."),
            f(
                "policy.aggregation",
                "Several objectives",
                Choice(&[
                    ("sum_then_normalise", "are added, then normalised"),
                    ("normalise_then_sum", "are normalised one by one, then added (GDPO)"),
                ]),
                "The second is for GRPO and its variants.",
            ),
            f("policy.iterations", "Iterations", Integer, "Sample, score, update."),
            f("policy.prompts", "Prompts per iteration", Integer, "Each with one preference."),
            f(
                "policy.samples_per_prompt",
                "Answers per prompt",
                Integer,
                "At least 2, unless the optimiser compares no answers (PPO, REINFORCE++).",
            ),
            f(
                "policy.learning_rate",
                "Learning rate",
                Number,
                "Of Adam; ten iterations of warm-up, decay over the last quarter.",
            ),
            f("policy.epochs", "Passes over a batch", Integer, "1 is on-policy."),
            f("policy.minibatches", "Minibatches per pass", Integer, "1 is on-policy."),
            f("policy.clip", "Clip", Number, "Range of the probability ratio around 1."),
            f("policy.clip_high", "Clip upwards", Optional, "Where it differs: DAPO advises 0.28. Empty is the same."),
            f("policy.kl_coefficient", "KL coefficient β", Number, "Per nat. Larger stays closer to the SFT model."),
            f("policy.kl_target", "KL target", Optional, "Nats per answer. When set, β adapts towards it; empty is off."),
            f("policy.ppo.gamma", "PPO: discount γ", Number, "Of later rewards, 0 to 1."),
            f("policy.ppo.lambda", "PPO: λ", Number, "Of generalised advantage estimation, 0 to 1."),
            f("policy.ppo.critic_learning_rate", "PPO: critic's learning rate", Number, "Of Adam."),
            f("policy.ppo.value_clip", "PPO: value clip", Number, "Range of a value around its old one."),
            f("policy.ppo.critic_warm_up", "PPO: critic warm-up", Integer, "First iterations in which only the critic learns."),
            f("policy.dpo.beta", "DPO: β", Number, "Pull towards the SFT model."),
            f("policy.dpo.margin", "DPO: margin", Number, "Pairs whose scores differ by less are left out."),
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
            f("evaluation.front", "Questions per trade-off", Integer, "For the Pareto front; 0 leaves it out."),
            f(
                "evaluation.paraphrased",
                "Prompts asked otherwise",
                Integer,
                "With several tags: in reverse order, in words, and without.",
            ),
            f(
                "evaluation.held_out_reward_model",
                "Held-out reward model",
                Toggle,
                "Trains a second one of another seed, which grades rollouts and is never optimised for.",
            ),
            f("evaluation.temperature", "Temperature", Number, "0 is greedy."),
            f(
                "evaluation.split",
                "Questions from",
                Choice(&[("test", "the test split, for results"), ("validation", "the validation split, to choose settings")]),
                "Neither was trained on.",
            ),
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
            f("vocabulary", "Vocabulary", Integer, "Entries of the tokenizer before special tokens and tags."),
            f("task.rows", "Rows of data", Integer, "Question-answer rows, before duplicates are dropped."),
            f("task.seed", "Seed of the data", Integer, "Runs that share it share data and cached stages."),
            f("task.label_noise", "Label noise", Number, "Share of labels moved to a neighbouring class, 0 to 0.5."),
            f("task.missing_labels", "Missing labels", Number, "Share of labels removed, 0 to 0.9."),
        ],
    },
];

/// What there is to add to the help of the field at `path`, as the configuration stands.
pub fn remark(path: &str, config: &RunConfig) -> String {
    match unused_by(path, config) {
        "" if path == "policy.optimizer" => kl_penalty(config.policy.optimizer).to_string(),
        "" => String::new(),
        who => format!("Not used by {who}."),
    }
}

/// Whom the field at `path` is of no use to, as the configuration stands; empty when it is used.
pub fn unused_by(path: &str, config: &RunConfig) -> &'static str {
    let (method, optimizer) = (config.method.kind, config.policy.optimizer);
    if !serves_method(path, method) {
        method.title()
    } else if !serves_optimizer(path, optimizer) {
        optimizer.title()
    } else if !serves_loss(path, config.reward_model.loss) {
        "this loss"
    } else {
        ""
    }
}

fn serves_method(path: &str, method: Method) -> bool {
    let (own, best_of) = (method == Method::Moslim, method == Method::BestOfN);
    match path {
        "method.budget" => matches!(method, Method::Morlhf | Method::RewardedSoups),
        "method.preference_sft" => own,
        "method.best_of" => best_of,
        // RiC names a random choice of objectives, too, but always in their order, and with the classes of given answers.
        "targets.active_probability" => own || matches!(method, Method::Ric | Method::RicClass),
        "targets.empirical_share" | "targets.shuffled_share" => own,
        // The weighted sum of MORLHF and Rewarded Soups is one of expected classes, and shares only the guards.
        "mapping.function" | "mapping.divisor" | "mapping.pooling" => own || best_of,
        "mapping.std_floor" | "mapping.z_clip" => optimises(method) || best_of,
        // Evaluation samples answers as well.
        "policy.max_new_tokens" => true,
        // RiC trains for as many token passes as policy optimisation would take with these.
        "policy.iterations" | "policy.prompts" | "policy.samples_per_prompt" | "policy.epochs" | "policy.max_gradient_norm" => {
            !matches!(method, Method::TaggedSft | Method::BestOfN)
        }
        _ => optimises(method) || !path.starts_with("policy."),
    }
}

fn serves_optimizer(path: &str, optimizer: PolicyOptimizer) -> bool {
    use PolicyOptimizer::{Dapo, DrGrpo, Grpo, OnlineDpo, OnlineIpo, Ppo};
    let pairs = matches!(optimizer, OnlineDpo | OnlineIpo);
    match path {
        "policy.aggregation" => matches!(optimizer, Grpo | DrGrpo | Dapo),
        "policy.clip" | "policy.clip_high" => !pairs,
        "policy.kl_coefficient" | "policy.kl_target" => {
            matches!(optimizer.kl_placement(), KlPlacement::Reward | KlPlacement::Loss)
        }
        _ if path.starts_with("policy.ppo.") => optimizer == Ppo,
        _ if path.starts_with("policy.dpo.") => pairs,
        _ => true,
    }
}

fn serves_loss(path: &str, loss: RewardLoss) -> bool {
    match path {
        "reward_model.label_smoothing" => loss == RewardLoss::CrossEntropy,
        "reward_model.class_weights" => matches!(loss, RewardLoss::CrossEntropy | RewardLoss::SquaredEmd),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::configure::fields::{get, options, read, set, text};
    use serde_json::Value;

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
            for (option, _) in options(field.kind) {
                let mut copy = value.clone();
                set(&mut copy, field.path, Value::from(option.as_str()));
                assert!(serde_json::from_value::<RunConfig>(copy).is_ok(), "{} = {option}", field.path);
            }
        }
    }

    /// The paths that are of no use with the defaults, changed by `change`.
    fn unused(change: impl Fn(&mut RunConfig)) -> Vec<&'static str> {
        let mut config = RunConfig::default();
        change(&mut config);
        all().map(|f| f.path).filter(|path| !unused_by(path, &config).is_empty()).collect()
    }

    #[test]
    fn what_a_choice_leaves_without_use_is_known() {
        let rloo = unused(|_| {});
        assert!(rloo.contains(&"policy.ppo.gamma") && rloo.contains(&"policy.dpo.beta") && rloo.contains(&"method.budget"));
        assert!(!rloo.contains(&"policy.clip") && !rloo.contains(&"mapping.function"));
        let dpo = unused(|c| c.policy.optimizer = PolicyOptimizer::OnlineDpo);
        assert!(dpo.contains(&"policy.clip") && dpo.contains(&"policy.kl_coefficient") && !dpo.contains(&"policy.dpo.beta"));
        let grpo = unused(|c| c.policy.optimizer = PolicyOptimizer::Grpo);
        assert!(!grpo.contains(&"policy.aggregation") && !grpo.contains(&"policy.kl_coefficient"));
        let ric = unused(|c| c.method.kind = Method::Ric);
        assert!(ric.contains(&"policy.optimizer") && !ric.contains(&"policy.iterations"));
        let corn = unused(|c| c.reward_model.loss = RewardLoss::Corn);
        assert!(corn.contains(&"reward_model.class_weights") && corn.contains(&"reward_model.label_smoothing"));
    }

    #[test]
    fn remarks_say_who_does_not_use_a_field_and_where_kl_is() {
        let mut config = RunConfig::default();
        config.policy.optimizer = PolicyOptimizer::Dapo;
        assert_eq!(remark("policy.ppo.gamma", &config), "Not used by DAPO.");
        assert_eq!(remark("policy.optimizer", &config), "It has no KL penalty.");
        config.method.kind = Method::BestOfN;
        assert_eq!(remark("policy.optimizer", &config), "Not used by Best of n.");
        assert_eq!(remark("seed", &config), "");
    }
}
