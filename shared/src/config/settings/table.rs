//! The rows. They are data: one a line where it fits.

use super::Depth::{self, All, Basic, More};
use super::Kind::{
    self, Choice, Integer, Matrices, Methods, Number, Objectives, Optimizers, Optional, Pairs, PerObjective, Text, Toggle,
    WeightVectors,
};
use super::{Section, Setting};
use crate::config::PolicyOptimizer::{self, Dapo, DrGrpo, Grpo, OnlineDpo, OnlineIpo, Ppo, ReinforcePlusPlus, Rloo};
use crate::method::Method::{self, BestOfN, Morlhf, Moslim, ParetoHqd, RewardedSoups, Ric, RicClass};
use crate::ordinal::RewardLoss::{self, CrossEntropy, SquaredEmd};

/// Methods that optimise policies by sampling.
const OPTIMISE: &[Method] = &[Moslim, Morlhf, RewardedSoups];
/// Methods that train at all; RiC trains for as many token passes as policy optimisation would take.
const TRAIN: &[Method] = &[Moslim, Morlhf, RewardedSoups, Ric, RicClass, ParetoHqd];
const RIC: &[Method] = &[Ric, RicClass];
/// Methods that train on scored answers, and those that sample new ones while they do.
const SCORED: &[Method] = &[Moslim, Ric, RicClass, ParetoHqd];
const ONLINE: &[Method] = &[Ric, RicClass, ParetoHqd];
/// Optimisers that clip probability ratios.
const CLIP: &[PolicyOptimizer] = &[Rloo, Grpo, DrGrpo, Dapo, ReinforcePlusPlus, Ppo];
/// Optimisers with a KL coefficient of their own.
const KL: &[PolicyOptimizer] = &[Rloo, Grpo, DrGrpo, ReinforcePlusPlus, Ppo];
const PAIRWISE: &[PolicyOptimizer] = &[OnlineDpo, OnlineIpo];

/// Largest number that a page shows exactly.
const EXACT: u64 = 1 << 53;

const fn row(
    section: &'static str,
    path: &'static str,
    title: &'static str,
    kind: Kind,
    depth: Depth,
    help: &'static str,
) -> Setting {
    Setting { path, section, title, help, unit: "", kind, depth, methods: &[], optimizers: &[], losses: &[] }
}

impl Setting {
    const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    const fn methods(self, methods: &'static [Method]) -> Self {
        Self { methods, ..self }
    }

    const fn optimizers(self, optimizers: &'static [PolicyOptimizer]) -> Self {
        Self { optimizers, ..self }
    }

    const fn losses(self, losses: &'static [RewardLoss]) -> Self {
        Self { losses, ..self }
    }
}

const fn int(low: u64, high: u64) -> Kind {
    Integer { low, high }
}

const fn num(low: f64, high: f64) -> Kind {
    Number { low, high }
}

/// All sections, in the order of the form.
pub const SECTIONS: &[Section] = &[
    Section {
        id: "targets",
        title: "Targets",
        intro: "How often prompts ask for an objective, and which combinations are kept out of training to test on.",
    },
    Section { id: "method", title: "Method", intro: "How graded answers become a policy that can be steered." },
    Section {
        id: "ric",
        title: "Rewards-in-Context",
        intro: "Supervised training on prompts that carry what their answer achieved.",
    },
    Section { id: "mapping", title: "Mapping", intro: "How class probabilities and the classes asked for become one scalar." },
    Section {
        id: "base",
        title: "Off-the-shelf model",
        intro: "A model that was added. Its weights are frozen; policy and reward model are adapters on them.",
    },
    Section { id: "model", title: "Policy: size", intro: "A decoder-only transformer." },
    Section { id: "reward-trunk", title: "Reward model: size", intro: "The trunk that its heads share." },
    Section { id: "sft", title: "Supervised fine-tuning", intro: "The policy learns to answer; it sees no preference." },
    Section {
        id: "reward-model",
        title: "Reward model",
        intro: "One head per objective learns to grade answers. It never sees the tags.",
    },
    Section {
        id: "policy",
        title: "Policy optimisation",
        intro: "Sample several answers per prompt, score them, update the policy.",
    },
    Section {
        id: "evaluation",
        title: "Evaluation",
        intro: "On held-out questions, by the gold grader and by the reward model.",
    },
    Section { id: "run", title: "Run and data", intro: "The same settings, seed and device give the same figures on the CPU." },
];

/// Sizes of one transformer; paths are joined before the program runs, which a function cannot do.
macro_rules! size {
    ($section:literal, $model:literal, $field:literal, $title:literal, $kind:expr, $depth:expr, $help:literal) => {
        row($section, concat!($model, ".", $field), $title, $kind, $depth, $help)
    };
}

const PRECISION: Kind = Choice(&[("f32", "f32"), ("bf16", "bf16 products, f32 weights")]);

/// Every field of a run's configuration.
pub const SETTINGS: &[Setting] = &[
    row("targets", "targets.objectives", "Objectives", Objectives, Basic, "Which ones prompts may ask for; none for all."),
    row(
        "targets",
        "targets.active_probability",
        "Chance that an objective is asked for",
        num(0.0, 1.0),
        More,
        "At least one is always asked for; larger makes prompts ask for more at once.",
    )
    .methods(&[Moslim, Ric, RicClass]),
    row(
        "targets",
        "targets.empirical_share",
        "Classes drawn as in the data",
        num(0.0, 1.0),
        All,
        "Share of classes drawn from their frequency in the data; the rest is drawn uniformly.",
    )
    .methods(&[Moslim]),
    row(
        "targets",
        "targets.shuffled_share",
        "Tags in random order",
        num(0.0, 1.0),
        All,
        "Share of prompts; the others keep the order of the objectives.",
    )
    .methods(&[Moslim]),
    row(
        "targets",
        "targets.impossible_share",
        "Impossible targets",
        num(0.0, 1.0),
        More,
        "Share of prompts whose target is drawn whatever the question; the others can be met by answers to it.",
    )
    .methods(&[Moslim]),
    row(
        "targets",
        "targets.near_front_share",
        "Targets near the front",
        num(0.0, 1.0),
        All,
        "Share of prompts that ask for the best class of every objective but one, or of some.",
    )
    .methods(&[Moslim]),
    row(
        "targets",
        "targets.weighted_share",
        "Weights in place of classes",
        Optional { low: 0.0, high: 1.0 },
        All,
        "Share of prompts that say how much each objective weighs; answers are paid by the weighted sum. Empty: none.",
    )
    .methods(&[Moslim]),
    row(
        "targets",
        "targets.wording",
        "Said in",
        Choice(&[("tags", "Tags"), ("words", "Words"), ("mixed", "Tags, words or both")]),
        More,
        "How prompts say what they ask for. The lab's own models have a token for every tag and read nothing else.",
    )
    .methods(&[Moslim]),
    row("targets", "targets.held_out", "Held-out pairs", Pairs, More, "Pairs of targets that never occur together in training."),
    row("method", "method.kind", "Method", Methods, Basic, "MOSLIM, or a method to compare it with."),
    row(
        "method",
        "method.budget",
        "Iterations are shared by",
        Choice(&[("total", "all policies together"), ("per_policy", "nobody: each policy gets all of them")]),
        More,
        "For methods that train several policies.",
    )
    .methods(&[Morlhf, RewardedSoups]),
    row(
        "method",
        "method.preference_sft",
        "Steps of preference SFT",
        int(0, 1_000_000),
        Basic,
        "Supervised training on tagged prompts before the optimisation; 0 is none, as in the paper.",
    )
    .unit("steps")
    .methods(&[Moslim]),
    row(
        "method",
        "method.rehearsal",
        "SFT's rows among the taught",
        Optional { low: 0.0, high: 0.9 },
        All,
        "Their share in preference SFT and supervised methods, untagged; keeps what SFT knows of other topics.",
    )
    .methods(&[Moslim, Ric, RicClass, ParetoHqd]),
    row(
        "method",
        "method.best_of",
        "Best of",
        int(2, 256),
        Basic,
        "Answers to choose from; more is better and costs as many times more.",
    )
    .unit("answers")
    .methods(&[BestOfN]),
    row(
        "method",
        "method.chosen_by",
        "Chosen by",
        Choice(&[("reward_model", "the reward model"), ("rules", "the rules that grade: a ceiling")]),
        Basic,
        "No method can know the rules; what they choose is the most that choosing can reach.",
    )
    .methods(&[BestOfN]),
    row(
        "method",
        "method.weights",
        "Trade-offs",
        WeightVectors,
        All,
        "Weights of the steered objectives at each trade-off; none for two layers of them (corners, and a lattice around the centre).",
    ),
    row(
        "method",
        "from",
        "Start from the policy of",
        Text { most: 64 },
        All,
        "The id of a finished run with the same model and vocabulary; empty for SFT.",
    )
    .methods(&[Moslim]),
    row("ric", "method.ric.batch", "Batch", int(1, 4096), More, "Also of preference SFT.").unit("rows").methods(SCORED),
    row(
        "ric",
        "method.ric.learning_rate",
        "Learning rate",
        num(1e-7, 0.1),
        More,
        "Peak of the offline stage, and of preference SFT.",
    )
    .methods(SCORED),
    row("ric", "method.ric.online_learning_rate", "Online learning rate", num(1e-7, 0.1), All, "Peak of every online round.")
        .methods(ONLINE),
    row(
        "ric",
        "method.ric.online_rounds",
        "Online rounds",
        int(0, 10),
        More,
        "In each, answers for near-Pareto goals are sampled, and the best are trained on.",
    )
    .methods(ONLINE),
    row(
        "ric",
        "method.ric.online_share",
        "Share of the online rounds",
        num(0.0, 0.9),
        All,
        "Of the budget; unused without rounds.",
    )
    .methods(ONLINE),
    row(
        "ric",
        "method.ric.online_samples",
        "Prompts sampled in a round",
        int(64, 1_000_000),
        All,
        "More gives more to choose from, and costs part of the round.",
    )
    .unit("prompts")
    .methods(ONLINE),
    row(
        "ric",
        "method.ric.quantile",
        "Quantile that is kept",
        num(0.0, 0.99),
        All,
        "Samples stay when at least one objective reaches this quantile; larger keeps fewer and better ones.",
    )
    .methods(RIC),
    row(
        "ric",
        "method.ric.near_share",
        "ParetoHqD: rows for each policy",
        num(1e-4, 1.0),
        More,
        "Share of the rows: those near the front and nearest to the trade-off's direction.",
    )
    .methods(&[ParetoHqd]),
    row(
        "mapping",
        "mapping.function",
        "Function",
        Choice(&[
            ("moslim", "MOSLIM: probability of the class asked for"),
            ("log", "Logarithm of that probability"),
            ("expected", "Distance of the expected class"),
            ("ranked_probability", "Ranked probability score"),
            ("argmax", "Hit or miss of the likeliest class"),
        ]),
        Basic,
        "What is read off a class distribution. The paper uses the probability; the ordinal ones give credit for near misses.",
    )
    .methods(&[Moslim, BestOfN]),
    row(
        "mapping",
        "mapping.divisor",
        "Divide the sum by",
        Choice(&[("active", "objectives asked for"), ("objectives", "all objectives (as printed in the paper)")]),
        All,
        "Dividing by the objectives asked for keeps the reward's size when fewer are.",
    )
    .methods(&[Moslim, BestOfN]),
    row(
        "mapping",
        "mapping.pooling",
        "Mean and deviation over",
        Choice(&[
            ("class", "each objective and class"),
            ("head", "each objective and class; deviation per objective"),
            ("running", "each objective and class, following the policy"),
            ("group", "the answers to one prompt"),
        ]),
        More,
        "What the z-score is taken against.",
    )
    .methods(&[Moslim, BestOfN]),
    row("mapping", "mapping.std_floor", "Smallest deviation", num(0.0, 1.0), All, "Keeps rare classes from exploding.")
        .methods(&[Moslim, Morlhf, RewardedSoups, BestOfN]),
    row("mapping", "mapping.z_clip", "Clip of the z-score", num(0.1, 100.0), All, "Either side; smaller tames outliers.")
        .unit("deviations")
        .methods(&[Moslim, Morlhf, RewardedSoups, BestOfN]),
    row(
        "mapping",
        "mapping.weights",
        "Weights of the objectives",
        PerObjective,
        All,
        "In place of 1 for what is asked for; none for 1 everywhere.",
    )
    .methods(&[Moslim, BestOfN]),
    row(
        "mapping",
        "mapping.tchebycheff",
        "Smooth minimum",
        Optional { low: 0.01, high: 100.0 },
        All,
        "In place of the sum; the less, the more counts the wish that is met worst. Empty: the sum.",
    )
    .unit("deviations")
    .methods(&[Moslim, Morlhf, BestOfN]),
    size!("model", "model", "layers", "Layers", int(1, 48), Basic, "Decoder blocks; more learn more and cost more."),
    size!("model", "model", "d_model", "Width", int(8, 4096), Basic, "Of the residual stream; an even multiple of the heads."),
    size!("model", "model", "heads", "Heads", int(1, 64), More, "Query heads."),
    size!("model", "model", "kv_heads", "Key-value heads", int(1, 64), All, "Divides the heads."),
    size!("model", "model", "d_ff", "Feed-forward width", int(8, 16_384), More, "Of the SwiGLU block."),
    size!("model", "model", "context", "Context", int(32, 4096), More, "Longest sequence.").unit("tokens"),
    size!("model", "model", "tied_embeddings", "Tied embeddings", Toggle, All, "Input and output embeddings are one matrix."),
    size!("model", "model", "precision", "Precision", PRECISION, All, "bf16 needs a device that has it; the CPU does not."),
    size!("reward-trunk", "reward_trunk", "layers", "Layers", int(1, 48), More, "Decoder blocks."),
    size!(
        "reward-trunk",
        "reward_trunk",
        "d_model",
        "Width",
        int(8, 4096),
        More,
        "Of the residual stream; an even multiple of the heads."
    ),
    size!("reward-trunk", "reward_trunk", "heads", "Heads", int(1, 64), All, "Query heads."),
    size!("reward-trunk", "reward_trunk", "kv_heads", "Key-value heads", int(1, 64), All, "Divides the heads."),
    size!("reward-trunk", "reward_trunk", "d_ff", "Feed-forward width", int(8, 16_384), All, "Of the SwiGLU block."),
    size!("reward-trunk", "reward_trunk", "context", "Context", int(32, 4096), All, "Longest sequence.").unit("tokens"),
    size!(
        "reward-trunk",
        "reward_trunk",
        "tied_embeddings",
        "Tied embeddings",
        Toggle,
        All,
        "The reward model has no output embedding; this keeps the shape of the policy's."
    ),
    size!(
        "reward-trunk",
        "reward_trunk",
        "precision",
        "Precision",
        PRECISION,
        All,
        "bf16 needs a device that has it; the CPU does not."
    ),
    row("sft", "sft.steps", "Steps", int(1, 1_000_000), Basic, "Optimiser steps; too few and answers are broken.").unit("steps"),
    row("sft", "sft.batch", "Batch", int(1, 4096), More, "Rows of a step.").unit("rows"),
    row("sft", "sft.learning_rate", "Learning rate", num(1e-7, 0.1), More, "Peak of AdamW; warm-up 5 %, cosine decay to 10 %."),
    row("reward-model", "reward_model.steps", "Steps", int(1, 1_000_000), Basic, "Optimiser steps; separate models share them.")
        .unit("steps"),
    row("reward-model", "reward_model.batch", "Batch", int(1, 4096), More, "Rows of a step; pairs count two.").unit("rows"),
    row(
        "reward-model",
        "reward_model.learning_rate",
        "Learning rate",
        num(1e-7, 0.1),
        More,
        "Peak of AdamW; warm-up 5 %, cosine decay to 10 %.",
    ),
    row(
        "reward-model",
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
        Basic,
        "All give class probabilities. Only cross-entropy ignores the order of the classes.",
    ),
    row(
        "reward-model",
        "reward_model.pooling",
        "Heads read",
        Choice(&[
            ("last", "the last token (as in the paper)"),
            ("mean", "the mean of the answer's tokens"),
            ("last_and_mean", "both"),
        ]),
        More,
        "What is spread over an answer, such as easy words, is in the mean.",
    ),
    row(
        "reward-model",
        "reward_model.label_smoothing",
        "Label smoothing",
        num(0.0, 0.5),
        All,
        "Larger makes it less sure of its labels.",
    )
    .losses(&[CrossEntropy]),
    row(
        "reward-model",
        "reward_model.class_weights",
        "Class weights",
        Choice(&[("equal", "all equal"), ("inverse_sqrt", "1 / √frequency")]),
        All,
        "Whether rare classes count more.",
    )
    .losses(&[CrossEntropy, SquaredEmd]),
    row(
        "reward-model",
        "reward_model.head_weights",
        "Weights of the heads",
        PerObjective,
        All,
        "Of their losses; none for 1 everywhere.",
    ),
    row(
        "reward-model",
        "reward_model.learned_head_weights",
        "Learned head weights",
        Toggle,
        All,
        "Each head's loss is weighed by its uncertainty.",
    ),
    row(
        "reward-model",
        "reward_model.separate",
        "Separate models",
        Toggle,
        More,
        "A model for each objective instead of a head on a shared trunk.",
    ),
    row(
        "reward-model",
        "reward_model.per_prompt",
        "Answers of a prompt",
        int(1, 64),
        All,
        "Drawn together; they share one reading of the prompt. 1: every row by itself.",
    )
    .losses(&[CrossEntropy, SquaredEmd, RewardLoss::Coral, RewardLoss::Corn, RewardLoss::Regression]),
    row(
        "reward-model",
        "reward_model.beginnings",
        "Beginnings of answers",
        num(0.0, 100.0),
        More,
        "Weight of their loss, before every token; 0 leaves it out.",
    )
    .losses(&[CrossEntropy, SquaredEmd, RewardLoss::Coral, RewardLoss::Corn, RewardLoss::Regression]),
    row(
        "reward-model",
        "reward_from_sft",
        "Trunk starts from SFT",
        Toggle,
        More,
        "It then knows the language already; needs a trunk of the policy's sizes.",
    ),
    row("policy", "policy.optimizer", "Optimiser", Optimizers, Basic, "How the policy is updated from its samples.")
        .methods(OPTIMISE),
    row(
        "policy",
        "policy.aggregation",
        "Several objectives",
        Choice(&[
            ("sum_then_normalise", "are added, then normalised"),
            ("normalise_then_sum", "are normalised one by one, then added (GDPO)"),
            ("min_norm", "are weighed so that their advantages are shortest (MOC)"),
        ]),
        All,
        "How rewards of several objectives become one advantage.",
    )
    .methods(OPTIMISE)
    .optimizers(&[Rloo, Grpo, DrGrpo, Dapo]),
    row(
        "policy",
        "policy.iterations",
        "Iterations",
        int(1, 1_000_000),
        Basic,
        "Sample, score, update; more is better until the KL runs away.",
    )
    .methods(TRAIN),
    row(
        "policy",
        "policy.passes",
        "Budget",
        Optional { low: 1e-3, high: 1e9 },
        More,
        "When set, iterations end where it is spent, whatever their number; the same for every method.",
    )
    .unit("million token passes")
    .methods(TRAIN),
    row(
        "policy",
        "policy.prompts",
        "Prompts per iteration",
        int(1, 4096),
        Basic,
        "Each with one preference; more make the update less noisy.",
    )
    .unit("prompts")
    .methods(TRAIN),
    row(
        "policy",
        "policy.samples_per_prompt",
        "Answers per prompt",
        int(1, 256),
        Basic,
        "At least 2, unless the optimiser compares no answers (PPO, REINFORCE++).",
    )
    .unit("answers")
    .methods(TRAIN),
    row(
        "policy",
        "policy.learning_rate",
        "Learning rate",
        num(1e-8, 0.1),
        Basic,
        "Of Adam; warm-up over the first twentieth, decay over the last quarter.",
    )
    .methods(OPTIMISE),
    row("policy", "policy.epochs", "Passes over a batch", int(1, 16), All, "1 is on-policy.").methods(TRAIN),
    row(
        "policy",
        "policy.minibatches",
        "Minibatches per pass",
        int(1, 64),
        More,
        "1 is on-policy; more steps learn faster and less exactly.",
    )
    .methods(OPTIMISE),
    row("policy", "policy.clip", "Clip", num(0.01, 10.0), More, "Range of the probability ratio around 1.")
        .methods(OPTIMISE)
        .optimizers(CLIP),
    row(
        "policy",
        "policy.clip_high",
        "Clip upwards",
        Optional { low: 0.01, high: 10.0 },
        All,
        "Where it differs: DAPO advises 0.28. Empty is the same.",
    )
    .methods(OPTIMISE)
    .optimizers(CLIP),
    row(
        "policy",
        "policy.kl_penalty",
        "KL estimate",
        Choice(&[
            ("own", "as in the optimiser's source"),
            ("k1_reward", "k1, in the reward"),
            ("k2_loss", "k2, in the loss"),
            ("k3_loss", "k3, in the loss"),
            ("k3_ratio_loss", "k3 times the ratio, in the loss"),
        ]),
        All,
        "k3 in the loss pulls like the forward KL; the others like the reverse KL.",
    )
    .methods(OPTIMISE)
    .optimizers(CLIP),
    row(
        "policy",
        "policy.kl_coefficient",
        "KL coefficient β",
        num(0.0, 10.0),
        Basic,
        "Larger stays closer to the reference policy.",
    )
    .unit("per nat")
    .methods(OPTIMISE)
    .optimizers(KL),
    row(
        "policy",
        "policy.kl_target",
        "KL target",
        Optional { low: 0.01, high: 1000.0 },
        More,
        "When set, β adapts towards it; empty is off.",
    )
    .unit("nats per answer")
    .methods(OPTIMISE)
    .optimizers(KL),
    row("policy", "policy.ppo.gamma", "PPO: discount γ", num(0.0, 1.0), All, "Of later rewards.")
        .methods(OPTIMISE)
        .optimizers(&[Ppo]),
    row("policy", "policy.ppo.lambda", "PPO: λ", num(0.0, 1.0), All, "Of generalised advantage estimation.")
        .methods(OPTIMISE)
        .optimizers(&[Ppo]),
    row("policy", "policy.ppo.critic_learning_rate", "PPO: critic's learning rate", num(1e-8, 0.1), More, "Of Adam.")
        .methods(OPTIMISE)
        .optimizers(&[Ppo]),
    row("policy", "policy.ppo.value_clip", "PPO: value clip", num(0.01, 100.0), All, "Range of a value around its old one.")
        .methods(OPTIMISE)
        .optimizers(&[Ppo]),
    row(
        "policy",
        "policy.ppo.critic_warm_up",
        "PPO: critic warm-up",
        int(0, 100_000),
        All,
        "First iterations in which only the critic learns.",
    )
    .unit("iterations")
    .methods(OPTIMISE)
    .optimizers(&[Ppo]),
    row("policy", "policy.dpo.beta", "DPO: β", num(1e-4, 100.0), More, "Pull towards the reference policy.")
        .methods(OPTIMISE)
        .optimizers(PAIRWISE),
    row("policy", "policy.dpo.margin", "DPO: margin", num(0.0, 100.0), All, "Pairs whose scores differ by less are left out.")
        .methods(OPTIMISE)
        .optimizers(PAIRWISE),
    row(
        "policy",
        "policy.dpo.label_smoothing",
        "DPO: label smoothing",
        num(0.0, 0.49),
        All,
        "Assumed share of wrongly ordered pairs (conservative DPO).",
    )
    .methods(OPTIMISE)
    .optimizers(&[OnlineDpo]),
    row(
        "policy",
        "policy.dpo.mean_log_probs",
        "DPO: mean log-probabilities",
        Toggle,
        All,
        "Of an answer's tokens, instead of their sum; what IPO needs where answers differ in length.",
    )
    .methods(OPTIMISE)
    .optimizers(PAIRWISE),
    row(
        "policy",
        "policy.dapo.overlong_buffer",
        "DAPO: penalised length",
        int(1, 8192),
        All,
        "The last tokens before the longest answer, over which a penalty rises to 1.",
    )
    .unit("tokens")
    .methods(OPTIMISE)
    .optimizers(&[Dapo]),
    row(
        "policy",
        "policy.dapo.least_deviation",
        "DAPO: least deviation",
        num(0.0, 100.0),
        All,
        "Groups of answers whose scores deviate by less are drawn again.",
    )
    .methods(OPTIMISE)
    .optimizers(&[Dapo]),
    row("policy", "policy.temperature", "Sampling temperature", num(0.1, 5.0), More, "1 samples from the policy as it is.")
        .methods(OPTIMISE),
    row(
        "policy",
        "policy.max_new_tokens",
        "Longest answer",
        int(1, 1024),
        More,
        "Evaluation samples answers of this length as well.",
    )
    .unit("tokens"),
    row(
        "policy",
        "policy.missing_eos_penalty",
        "Penalty for a cut answer",
        num(0.0, 100.0),
        All,
        "Subtracted when an answer does not end by itself.",
    )
    .methods(OPTIMISE),
    row(
        "policy",
        "policy.sft_mix",
        "SFT answers mixed in",
        num(0.0, 100.0),
        More,
        "Weight of their log-likelihood in every update (PPO-ptx); 0 leaves them out.",
    )
    .methods(OPTIMISE),
    row(
        "policy",
        "policy.rated_mix",
        "Rated answers mixed in",
        num(0.0, 100.0),
        More,
        "Weight of rated answers under tags of their labels, in every update; 0 leaves them out.",
    )
    .methods(&[Moslim]),
    row(
        "policy",
        "policy.hindsight",
        "Hindsight",
        num(0.0, 100.0),
        All,
        "Weight of samples that are told what they achieved, as if it had been asked for; 0 leaves them out.",
    )
    .methods(&[Moslim]),
    row(
        "policy",
        "policy.head_credit",
        "Credit by the heads",
        Optional { low: 0.0, high: 1.0 },
        More,
        "Lambda, where the heads are the critic. Empty: one advantage for a whole answer.",
    )
    .methods(OPTIMISE)
    .optimizers(&[Rloo]),
    row(
        "policy",
        "policy.average",
        "Averaged iterations",
        num(0.0, 1.0),
        All,
        "Share of the iterations, the last ones, whose weights are averaged; 0 takes the last weights.",
    )
    .methods(OPTIMISE),
    row("policy", "policy.max_gradient_norm", "Largest gradient norm", num(1e-3, 1e3), All, "Gradients are scaled down to it.")
        .methods(TRAIN),
    row("policy", "policy.checkpoint_every", "Checkpoint every", int(1, 1_000_000), All, "A run resumes from the last one.")
        .unit("iterations")
        .methods(OPTIMISE),
    row(
        "evaluation",
        "evaluation.questions",
        "Questions per class",
        int(2, 10_000),
        Basic,
        "Each class of each objective is asked for as often.",
    ),
    row("evaluation", "evaluation.joint", "Prompts with several tags", int(0, 100_000), More, "0 skips this part."),
    row(
        "evaluation",
        "evaluation.held_out",
        "Prompts per held-out pair",
        int(0, 10_000),
        More,
        "And as many with a trained pair beside it.",
    ),
    row(
        "evaluation",
        "evaluation.front",
        "Questions per trade-off",
        int(0, 10_000),
        More,
        "For the Pareto front; 0 leaves it out.",
    ),
    row(
        "evaluation",
        "evaluation.fronts_seen",
        "Fronts on the way",
        int(0, 100),
        More,
        "How often a policy's front is tried while it is optimised, by the reward model, in about a thousand answers each time; 0: never.",
    ),
    row(
        "evaluation",
        "evaluation.paraphrased",
        "Prompts asked otherwise",
        int(0, 100_000),
        All,
        "With several tags: in reverse order, in words, and without.",
    ),
    row(
        "evaluation",
        "evaluation.held_out_reward_model",
        "Held-out reward model",
        Toggle,
        More,
        "Trains a second one of another seed, which grades rollouts and is never optimised for.",
    ),
    row(
        "evaluation",
        "evaluation.held_out_layers",
        "Its layers",
        int(0, 256),
        All,
        "Layers of the held-out reward model, so that it is of another size; 0: as many as the reward model.",
    ),
    row("evaluation", "evaluation.temperature", "Temperature", num(0.0, 5.0), More, "0 is greedy."),
    row(
        "evaluation",
        "evaluation.split",
        "Questions from",
        Choice(&[("test", "the test split, for results"), ("validation", "the validation split, to choose settings")]),
        More,
        "Neither was trained on.",
    ),
    row("run", "name", "Name", Text { most: 120 }, Basic, "For people; may be empty."),
    row("run", "preset", "Preset", Text { most: 64 }, All, "What the configuration started from; changes nothing."),
    row("run", "seed", "Seed", int(0, EXACT), Basic, "Of every random choice but the data's."),
    row(
        "run",
        "device",
        "Device",
        Choice(&[("auto", "Choose for me"), ("cpu", "CPU"), ("cuda", "CUDA"), ("wgpu", "wgpu (Vulkan, Metal)")]),
        Basic,
        "Where to compute.",
    ),
    row("run", "vocabulary", "Vocabulary", int(300, 65_536), More, "Entries of the tokenizer before special tokens and tags.")
        .unit("tokens"),
    row("base", "base.model", "Model", Text { most: 64 }, More, "Name of a model that was added; empty for the lab's own."),
    row("base", "base.rank", "Rank", int(1, 256), More, "Of every adapter: the higher, the more can be learnt, and the slower."),
    row("base", "base.alpha", "Alpha", num(0.1, 1024.0), All, "What an adapter adds is multiplied by alpha / rank."),
    row(
        "base",
        "base.targets",
        "Adapted matrices",
        Matrices,
        All,
        "Which matrices of every layer have an adapter; the others stay as they are.",
    ),
    row(
        "base",
        "base.temperature",
        "Temperature of answers",
        num(0.1, 2.0),
        All,
        "At which the answers are sampled that the reward model learns from.",
    ),
    row(
        "base",
        "base.reward_layers",
        "Layers of the reward model",
        int(0, 1_024),
        More,
        "How many of the model's layers it has, from the first on; 0 for all. Half of them cost half.",
    ),
    row(
        "base",
        "base.wishes",
        "Place of wishes",
        Choice(&[("question", "below the question"), ("system", "in the system message")]),
        All,
        "Where a prompt says what it asks for. Small models heed it most below the question.",
    ),
    row(
        "base",
        "base.added_tokens",
        "Tags are tokens",
        Toggle,
        All,
        "Every class gets a token of its own, which begins as the mean of its words and is trained; else tags are text.",
    ),
    row(
        "base",
        "base.weights",
        "Weights are kept in",
        Choice(&[("f32", "f32"), ("bf16", "bf16: half of the memory")]),
        All,
        "bf16 loses nothing where the model's file has it.",
    ),
    row(
        "base",
        "base.checkpointing",
        "Gradient checkpointing",
        Toggle,
        All,
        "Training keeps what goes into each layer and computes the layer again for its gradient: the same figures, less memory, more time. CPU alone.",
    ),
    row(
        "run",
        "task.kind",
        "Task",
        Choice(&[("world", "The built-in world"), ("style", "Style, for off-the-shelf models"), ("ratings", "Imported ratings")]),
        More,
        "What the run is about.",
    ),
    row(
        "run",
        "task.name",
        "Imported task",
        Text { most: 64 },
        More,
        "Its name, where the task is imported ratings; else empty.",
    ),
    row(
        "run",
        "task.every_rater",
        "Every rater's label",
        Toggle,
        More,
        "Of imported ratings, training sees each rater's label instead of the one that they make together.",
    ),
    row(
        "run",
        "task.fold",
        "Fold",
        int(0, 5),
        More,
        "Of imported ratings, the fold of five whose prompts are the test split; 0 is the import's own.",
    ),
    row(
        "run",
        "task.share",
        "Share of prompts",
        num(0.01, 1.0),
        All,
        "Of imported ratings: how much of what there is to train on is used.",
    ),
    row("run", "task.topics", "Topics", int(22, 60), More, "Of the built-in world; the more, the more there is to know.")
        .unit("topics"),
    row("run", "task.rows", "Rows of data", int(500, 2_000_000), More, "Question-answer rows, before duplicates are dropped.")
        .unit("rows"),
    row("run", "task.seed", "Seed of the data", int(0, EXACT), All, "Runs that share it share data and cached stages."),
    row("run", "task.label_noise", "Label noise", num(0.0, 0.5), More, "Share of labels moved to a neighbouring class."),
    row("run", "task.missing_labels", "Missing labels", num(0.0, 0.9), More, "Share of labels removed."),
    row(
        "run",
        "task.length_bias",
        "Length bias",
        num(0.0, 1.0),
        More,
        "Share of long answers whose helpfulness is labelled one class higher than it is.",
    ),
];
