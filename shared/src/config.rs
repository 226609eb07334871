//! What a valid run is: one type for form, file, command line, API and worker.

use crate::mapping::{MappingConfig, Pooling};
use crate::method::{Method, MethodConfig};
use crate::objective::{Objective, index_of};
use crate::ordinal::RewardLoss;
use serde::{Deserialize, Serialize};

/// A problem of a configuration: which field, what is wrong with it, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Path of the field, for example `policy.samples_per_prompt`.
    pub field: String,
    pub message: String,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// CUDA, else wgpu on a hardware adapter, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda,
    Wgpu,
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            "wgpu" => Ok(Self::Wgpu),
            other => Err(format!("unknown device \"{other}\"; allowed are auto, cpu, cuda, wgpu")),
        }
    }
}

/// The built-in world's data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldConfig {
    /// Question-answer rows generated, before duplicates are dropped.
    pub rows: usize,
    /// Share of labels moved to a neighbouring class, in [0, 0.5].
    pub label_noise: f64,
    /// Share of labels removed, in [0, 0.9].
    pub missing_labels: f64,
    /// Seed of the generator. It is apart from the run's seed, so that runs share data and cached stages.
    pub seed: u64,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self { rows: 40_000, label_noise: 0.0, missing_labels: 0.0, seed: 1 }
    }
}

/// Sizes of a decoder-only transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads; divides `d_model`.
    pub heads: usize,
    /// Key and value heads; divides `heads` (grouped-query attention).
    pub kv_heads: usize,
    /// Width of the SwiGLU feed-forward block.
    pub d_ff: usize,
    /// Longest sequence, tokens.
    pub context: usize,
    /// Whether input and output embeddings are one matrix.
    pub tied_embeddings: bool,
    /// What activations and weights are multiplied in. Weights, their gradients, norms and softmax are f32 in any case.
    pub precision: Precision,
}

/// Numbers in which activations are multiplied with weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    #[default]
    F32,
    /// bfloat16, on devices that have it.
    Bf16,
}

impl Precision {
    /// Its name in configurations.
    pub fn id(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            layers: 2,
            d_model: 96,
            heads: 4,
            kv_heads: 2,
            d_ff: 256,
            context: 128,
            tied_embeddings: true,
            precision: Precision::F32,
        }
    }
}

/// Supervised fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SupervisedConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Rows in a batch.
    pub batch: usize,
    /// Peak learning rate of AdamW, after a linear warm-up over the first 5 % and before a cosine decay to 10 %.
    pub learning_rate: f64,
    /// Read, so that older configurations stay readable, and always 0: only the reward model smooths labels.
    #[serde(skip_serializing)]
    pub label_smoothing: f64,
}

impl Default for SupervisedConfig {
    fn default() -> Self {
        Self { steps: 600, batch: 64, learning_rate: 2e-3, label_smoothing: 0.0 }
    }
}

/// Weights of classes in the reward model's loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// All 1.
    #[default]
    Equal,
    /// `1 / sqrt(frequency)`, mean 1, between 0.3 and 3. Calibration afterwards is on unweighted data.
    InverseSqrt,
}

/// The reward model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardModelConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Rows in a batch; pairs share it, two rows each.
    pub batch: usize,
    /// Peak learning rate of AdamW, with the schedule of SFT.
    pub learning_rate: f64,
    /// What its heads are trained for.
    pub loss: RewardLoss,
    /// Label smoothing of the cross-entropy, in [0, 0.5].
    pub label_smoothing: f64,
    pub class_weights: ClassWeights,
    /// Weight of each head's loss; empty for 1 everywhere.
    pub head_weights: Vec<f64>,
    /// Whether the heads' weights are learnt: `exp(-s_i) L_i + s_i` (Kendall et al. 2018).
    pub learned_head_weights: bool,
    /// Whether every objective gets a model of its own instead of a head on one shared model. Each is trained for
    /// `steps / objectives` steps, so that all together cost as much as the shared one.
    pub separate: bool,
}

impl Default for RewardModelConfig {
    fn default() -> Self {
        Self {
            steps: 600,
            batch: 64,
            learning_rate: 2e-3,
            loss: RewardLoss::CrossEntropy,
            label_smoothing: 0.0,
            class_weights: ClassWeights::Equal,
            head_weights: Vec::new(),
            learned_head_weights: false,
            separate: false,
        }
    }
}

impl RewardModelConfig {
    /// The steps as those of a supervised stage.
    pub fn schedule(&self) -> SupervisedConfig {
        SupervisedConfig { steps: self.steps, batch: self.batch, learning_rate: self.learning_rate, ..Default::default() }
    }
}

/// How a policy is updated from its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyOptimizer {
    /// REINFORCE leave-one-out.
    #[default]
    Rloo,
    /// Group relative policy optimisation.
    Grpo,
    /// GRPO without the division by the group's deviation and by the answer's length.
    DrGrpo,
    /// GRPO averaged over tokens, clipped higher upwards, without KL; groups of equal rewards are drawn again.
    Dapo,
    /// REINFORCE with a batch-wide baseline and PPO's clipping.
    ReinforcePlusPlus,
    /// Proximal policy optimisation with a critic.
    Ppo,
    /// Direct preference optimisation on the best and the worst sample of each prompt.
    OnlineDpo,
    /// The same with IPO's squared loss.
    OnlineIpo,
}

/// Where an optimiser has its KL penalty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KlPlacement {
    /// k1, summed or per token, is subtracted from the reward.
    Reward,
    /// k3 is added to the loss.
    Loss,
    /// The loss itself holds the policy near the reference.
    Implicit,
    /// There is none.
    None,
}

impl PolicyOptimizer {
    /// All optimisers.
    pub const ALL: [Self; 8] =
        [Self::Rloo, Self::Grpo, Self::DrGrpo, Self::Dapo, Self::ReinforcePlusPlus, Self::Ppo, Self::OnlineDpo, Self::OnlineIpo];

    /// Name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Rloo => "RLOO",
            Self::Grpo => "GRPO",
            Self::DrGrpo => "Dr. GRPO",
            Self::Dapo => "DAPO",
            Self::ReinforcePlusPlus => "REINFORCE++",
            Self::Ppo => "PPO",
            Self::OnlineDpo => "Online DPO",
            Self::OnlineIpo => "Online IPO",
        }
    }

    /// Where the KL penalty is, as in the optimiser's source.
    pub fn kl_placement(self) -> KlPlacement {
        match self {
            Self::Rloo | Self::ReinforcePlusPlus | Self::Ppo => KlPlacement::Reward,
            Self::Grpo | Self::DrGrpo => KlPlacement::Loss,
            Self::Dapo => KlPlacement::None,
            Self::OnlineDpo | Self::OnlineIpo => KlPlacement::Implicit,
        }
    }

    /// Whether it compares the samples of a prompt and so needs at least two.
    pub fn compares_samples(self) -> bool {
        !matches!(self, Self::ReinforcePlusPlus | Self::Ppo)
    }
}

/// How rewards of several objectives become one advantage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// The mapping adds the objectives; the optimiser normalises the sum.
    #[default]
    SumThenNormalise,
    /// GDPO: every objective is normalised within its group, then they are added, then the batch is normalised. For GRPO and
    /// its variants.
    NormaliseThenSum,
}

/// What PPO has besides the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PpoConfig {
    /// Discount of later rewards.
    pub gamma: f64,
    /// Lambda of the advantage estimator.
    pub lambda: f64,
    /// Learning rate of the critic.
    pub critic_learning_rate: f64,
    /// Clipping range of a value around its old one.
    pub value_clip: f64,
    /// First iterations in which only the critic learns.
    pub critic_warm_up: usize,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self { gamma: 1.0, lambda: 0.95, critic_learning_rate: 2e-3, value_clip: 0.5, critic_warm_up: 5 }
    }
}

/// What online DPO and IPO have besides the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DpoConfig {
    /// Strength of the pull towards the reference: beta of the loss.
    pub beta: f64,
    /// Pairs whose scores differ by less are left out: their order is noise.
    pub margin: f64,
    /// Assumed share of wrongly ordered pairs, in [0, 0.5) (conservative DPO).
    pub label_smoothing: f64,
}

impl Default for DpoConfig {
    fn default() -> Self {
        Self { beta: 0.1, margin: 0.05, label_smoothing: 0.0 }
    }
}

/// An (objective, class) pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub objective: String,
    pub class: usize,
}

/// How preferences are drawn for training prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    /// Objectives that prompts may ask for; empty means all.
    pub objectives: Vec<String>,
    /// Probability that a prompt asks for an objective; at least one is always asked for. In (0, 1].
    pub active_probability: f64,
    /// Share of classes drawn from their frequency in the data instead of uniformly, in [0, 1].
    pub empirical_share: f64,
    /// Share of prompts that write the tags in random order, in [0, 1]; the others keep the order of the objectives.
    pub shuffled_share: f64,
    /// Pairs of targets that never occur together in training; evaluation measures them apart.
    pub held_out: Vec<[Target; 2]>,
}

impl Default for TargetConfig {
    fn default() -> Self {
        let pair = |a: &str, i: usize, b: &str, j: usize| {
            [Target { objective: a.into(), class: i }, Target { objective: b.into(), class: j }]
        };
        Self {
            objectives: Vec::new(),
            active_probability: 0.5,
            empirical_share: 0.0,
            shuffled_share: 0.5,
            held_out: vec![
                pair("helpfulness", 2, "verbosity", 3),
                pair("helpfulness", 1, "verbosity", 1),
                pair("honesty", 2, "verbosity", 2),
            ],
        }
    }
}

/// Policy optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// How the policy is updated.
    pub optimizer: PolicyOptimizer,
    /// How several objectives become one advantage.
    pub aggregation: Aggregation,
    /// Iterations: sample, score, update.
    pub iterations: usize,
    /// Prompts (with one preference each) per iteration.
    pub prompts: usize,
    /// Samples per prompt `G`; optimisers that compare samples need at least 2.
    pub samples_per_prompt: usize,
    /// Learning rate of Adam, constant after ten iterations of warm-up, with a linear decay over the last quarter.
    pub learning_rate: f64,
    /// Passes over each batch of samples.
    pub epochs: usize,
    /// Minibatches per pass.
    pub minibatches: usize,
    /// Clipping range of the probability ratio.
    pub clip: f64,
    /// Clipping range upwards where it differs (DAPO advises 0.28).
    pub clip_high: Option<f64>,
    /// KL coefficient beta, per nat; DPO and IPO have their own.
    pub kl_coefficient: f64,
    /// When set, beta adapts towards this KL (nats per answer).
    pub kl_target: Option<f64>,
    /// Sampling temperature.
    pub temperature: f64,
    /// Longest answer, tokens.
    pub max_new_tokens: usize,
    /// Subtracted from the score of an answer that was cut off before its end.
    pub missing_eos_penalty: f64,
    /// Gradients are scaled down to this norm.
    pub max_gradient_norm: f64,
    /// Iterations between checkpoints.
    pub checkpoint_every: usize,
    pub ppo: PpoConfig,
    pub dpo: DpoConfig,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            optimizer: PolicyOptimizer::Rloo,
            aggregation: Aggregation::SumThenNormalise,
            iterations: 200,
            prompts: 32,
            samples_per_prompt: 8,
            learning_rate: 1e-3,
            epochs: 1,
            minibatches: 1,
            clip: 0.2,
            clip_high: None,
            kl_coefficient: 0.03,
            kl_target: None,
            temperature: 1.0,
            max_new_tokens: 48,
            missing_eos_penalty: 1.0,
            max_gradient_norm: 1.0,
            checkpoint_every: 25,
            ppo: PpoConfig::default(),
            dpo: DpoConfig::default(),
        }
    }
}

/// Evaluation on held-out questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Questions per class asked for.
    pub questions: usize,
    /// Prompts that ask for several objectives together.
    pub joint: usize,
    /// Prompts per held-out combination (and per trained one beside it).
    pub held_out: usize,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Questions per point of the Pareto front; 0 leaves the front out.
    pub front: usize,
    /// Prompts with several tags that are asked again in other words, in another order and without tags.
    pub paraphrased: usize,
    /// Trains a second reward model of another seed, which grades rollouts beside the first and the gold rules while a policy
    /// is optimised. Nothing is optimised for it.
    pub held_out_reward_model: bool,
    /// Whose questions are asked. Settings are chosen on `validation`, reported on `test`.
    pub split: EvaluationSplit,
}

/// Questions that were not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluationSplit {
    #[default]
    Test,
    Validation,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            questions: 64,
            joint: 256,
            held_out: 64,
            temperature: 1.0,
            front: 64,
            paraphrased: 128,
            held_out_reward_model: false,
            split: EvaluationSplit::Test,
        }
    }
}

/// A run from SFT to evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Name for people.
    pub name: String,
    /// Preset that it started from.
    pub preset: String,
    /// Seed of every random choice but the world's.
    pub seed: u64,
    pub device: DeviceChoice,
    pub method: MethodConfig,
    /// Finished run whose policy this one starts from, instead of from SFT. Needs the same model and vocabulary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Entries of the tokenizer's vocabulary before special tokens and tags are added; at least the 256 bytes.
    pub vocabulary: usize,
    pub world: WorldConfig,
    /// Policy (and its SFT).
    pub model: ModelConfig,
    /// Trunk of the reward model.
    pub reward_trunk: ModelConfig,
    /// Whether the reward model's trunk starts from the SFT policy's weights, which know the language already. Needs
    /// trunks of the same sizes and precision.
    pub reward_from_sft: bool,
    pub sft: SupervisedConfig,
    pub reward_model: RewardModelConfig,
    pub mapping: MappingConfig,
    pub targets: TargetConfig,
    pub policy: PolicyConfig,
    pub evaluation: EvaluationConfig,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            preset: "custom".into(),
            seed: 1,
            device: DeviceChoice::Auto,
            method: MethodConfig::default(),
            from: None,
            vocabulary: 640,
            world: WorldConfig::default(),
            model: ModelConfig::default(),
            reward_trunk: ModelConfig::default(),
            reward_from_sft: true,
            sft: SupervisedConfig::default(),
            reward_model: RewardModelConfig::default(),
            mapping: MappingConfig::default(),
            targets: TargetConfig::default(),
            policy: PolicyConfig::default(),
            evaluation: EvaluationConfig::default(),
        }
    }
}

/// Collects problems with their field paths.
struct Checker {
    problems: Vec<Problem>,
}

impl Checker {
    fn require(&mut self, ok: bool, field: &str, message: impl Into<String>) {
        if !ok {
            self.problems.push(Problem { field: field.into(), message: message.into() });
        }
    }

    fn range<T: PartialOrd + std::fmt::Display>(&mut self, field: &str, value: T, low: T, high: T) {
        let ok = value >= low && value <= high;
        self.require(ok, field, format!("is {value}; allowed is {low} to {high}"));
    }

    fn model(&mut self, path: &str, model: &ModelConfig) {
        let f = |name: &str| format!("{path}.{name}");
        self.range(&f("layers"), model.layers, 1, 48);
        self.range(&f("d_model"), model.d_model, 8, 4096);
        self.range(&f("heads"), model.heads, 1, 64);
        self.range(&f("kv_heads"), model.kv_heads, 1, 64);
        self.range(&f("d_ff"), model.d_ff, 8, 16_384);
        self.range(&f("context"), model.context, 32, 4096);
        if model.heads > 0 && model.kv_heads > 0 {
            let divides = model.d_model.is_multiple_of(model.heads) && (model.d_model / model.heads).is_multiple_of(2);
            self.require(
                divides,
                &f("heads"),
                format!("d_model ({}) must be an even multiple of heads ({})", model.d_model, model.heads),
            );
            self.require(
                model.heads.is_multiple_of(model.kv_heads),
                &f("kv_heads"),
                format!("must divide heads ({}), is {}", model.heads, model.kv_heads),
            );
        }
    }

    fn supervised(&mut self, path: &str, stage: &SupervisedConfig) {
        let f = |name: &str| format!("{path}.{name}");
        self.range(&f("steps"), stage.steps, 1, 1_000_000);
        self.range(&f("batch"), stage.batch, 1, 4096);
        self.range(&f("learning_rate"), stage.learning_rate, 1e-7, 0.1);
    }

    /// A list of one number for each objective, or none.
    fn per_objective(&mut self, field: &str, values: &[f64], objectives: usize) {
        let fits = values.is_empty() || values.len() == objectives;
        self.require(fits, field, format!("has {} numbers; one for each of the {objectives} objectives, or none", values.len()));
        let good = values.iter().all(|w| w.is_finite() && *w >= 0.0) && (values.is_empty() || values.iter().any(|w| *w > 0.0));
        self.require(good, field, "must not be negative, nor all 0");
    }

    fn reward_model(&mut self, c: &RunConfig, objectives: usize) {
        let r = &c.reward_model;
        self.supervised("reward_model", &r.schedule());
        self.range("reward_model.label_smoothing", r.label_smoothing, 0.0, 0.5);
        self.require(
            r.label_smoothing == 0.0 || r.loss == RewardLoss::CrossEntropy,
            "reward_model.label_smoothing",
            "is used by the cross-entropy alone; it must be 0 with another loss",
        );
        self.per_objective("reward_model.head_weights", &r.head_weights, objectives);
        self.require(
            !r.learned_head_weights || r.head_weights.is_empty(),
            "reward_model.learned_head_weights",
            "cannot be on when head_weights are given",
        );
        self.require(
            r.loss != RewardLoss::BradleyTerry || r.batch.is_multiple_of(2),
            "reward_model.batch",
            "must be even for pairs",
        );
        self.require(
            r.class_weights == ClassWeights::Equal || matches!(r.loss, RewardLoss::CrossEntropy | RewardLoss::SquaredEmd),
            "reward_model.class_weights",
            "are used by cross_entropy and squared_emd alone",
        );
        self.require(
            !r.separate || r.steps >= objectives,
            "reward_model.steps",
            format!("is {}; separate models need at least one step for each of the {objectives} objectives", r.steps),
        );
    }

    fn method(&mut self, c: &RunConfig, objectives: &[Objective]) {
        let m = &c.method;
        let steered = c.steered(objectives).len();
        self.require(m.weights.len() <= 200, "method.weights", "has more than 200 weight vectors");
        for (n, weights) in m.weights.iter().enumerate() {
            let field = format!("method.weights[{n}]");
            let fits = weights.len() == steered;
            self.require(
                fits,
                &field,
                format!("has {} numbers; one for each of the {steered} steered objectives", weights.len()),
            );
            let sum: f64 = weights.iter().sum();
            let good = weights.iter().all(|w| w.is_finite() && *w >= 0.0) && (sum - 1.0).abs() < 1e-6;
            self.require(good, &field, format!("must not be negative and sum to 1; the sum is {sum}"));
        }
        self.range("method.best_of", m.best_of, 2, 256);
        self.range("method.preference_sft", m.preference_sft, 0, 1_000_000);
        self.require(
            m.preference_sft == 0 || m.kind == Method::Moslim,
            "method.preference_sft",
            "is a stage of moslim alone; RiC has its own",
        );
        let ric = &m.ric;
        self.range("method.ric.batch", ric.batch, 1, 4096);
        self.range("method.ric.learning_rate", ric.learning_rate, 1e-7, 0.1);
        self.range("method.ric.online_learning_rate", ric.online_learning_rate, 1e-7, 0.1);
        self.range("method.ric.online_rounds", ric.online_rounds, 0, 10);
        self.range("method.ric.online_share", ric.online_share, 0.0, 0.9);
        self.range("method.ric.online_samples", ric.online_samples, 64, 1_000_000);
        self.range("method.ric.quantile", ric.quantile, 0.0, 0.99);
        self.require(
            m.kind == Method::Moslim || c.from.is_none(),
            "from",
            "is for moslim alone; the other methods start several policies, or none",
        );
        if let Some(from) = &c.from {
            let named = !from.is_empty()
                && from.len() <= 64
                && from.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            self.require(named, "from", "is not the name of a run: lower-case letters, digits and -");
        }
        let policies = m.kind.policies(steered, m.weight_vectors(&c.steered(objectives), objectives.len()).len());
        self.require(
            m.budget == crate::method::Budget::PerPolicy || policies <= c.policy.iterations.max(1),
            "policy.iterations",
            format!("is {}; {policies} policies share them and need at least one each", c.policy.iterations),
        );
    }

    fn optimizer(&mut self, c: &RunConfig) {
        let p = &c.policy;
        self.require(
            p.samples_per_prompt >= 2 || p.samples_per_prompt == 1 && !p.optimizer.compares_samples(),
            "policy.samples_per_prompt",
            format!("is {}; {} compares the samples of a prompt and needs at least 2", p.samples_per_prompt, p.optimizer.title()),
        );
        let groups = matches!(p.optimizer, PolicyOptimizer::Grpo | PolicyOptimizer::DrGrpo | PolicyOptimizer::Dapo);
        self.require(
            p.aggregation == Aggregation::SumThenNormalise || groups,
            "policy.aggregation",
            "normalise_then_sum is for grpo, dr_grpo and dapo",
        );
        self.require(
            c.mapping.pooling != Pooling::Group || p.samples_per_prompt >= 2,
            "mapping.pooling",
            "group needs at least 2 samples per prompt",
        );
        if let Some(high) = p.clip_high {
            self.range("policy.clip_high", high, 0.01, 10.0);
        }
        self.range("policy.ppo.gamma", p.ppo.gamma, 0.0, 1.0);
        self.range("policy.ppo.lambda", p.ppo.lambda, 0.0, 1.0);
        self.range("policy.ppo.critic_learning_rate", p.ppo.critic_learning_rate, 1e-8, 0.1);
        self.range("policy.ppo.value_clip", p.ppo.value_clip, 0.01, 100.0);
        self.range("policy.ppo.critic_warm_up", p.ppo.critic_warm_up, 0, 100_000);
        self.range("policy.dpo.beta", p.dpo.beta, 1e-4, 100.0);
        self.range("policy.dpo.margin", p.dpo.margin, 0.0, 100.0);
        self.range("policy.dpo.label_smoothing", p.dpo.label_smoothing, 0.0, 0.49);
    }
}

impl RunConfig {
    /// Every problem of this configuration for a world with `objectives`; empty when it is valid.
    pub fn problems(&self, objectives: &[Objective]) -> Vec<Problem> {
        let mut c = Checker { problems: Vec::new() };
        c.require(self.name.chars().count() <= 120, "name", "is longer than 120 characters");
        c.require(!self.name.chars().any(char::is_control), "name", "contains control characters");
        c.require(self.seed <= (1 << 53), "seed", "is larger than 2^53, which a page cannot show exactly");
        c.range("vocabulary", self.vocabulary, 300, 65_536);

        c.range("world.rows", self.world.rows, 500, 2_000_000);
        c.range("world.label_noise", self.world.label_noise, 0.0, 0.5);
        c.range("world.missing_labels", self.world.missing_labels, 0.0, 0.9);
        c.require(self.world.seed <= (1 << 53), "world.seed", "is larger than 2^53, which a page cannot show exactly");

        c.model("model", &self.model);
        c.model("reward_trunk", &self.reward_trunk);
        c.require(
            !self.reward_from_sft || self.model == self.reward_trunk,
            "reward_from_sft",
            "needs reward_trunk to have the sizes of model; make them equal or switch it off",
        );
        c.supervised("sft", &self.sft);
        c.require(self.sft.label_smoothing == 0.0, "sft.label_smoothing", "is used by the reward model alone; it must be 0 here");
        c.reward_model(self, objectives.len());
        c.method(self, objectives);
        c.optimizer(self);

        c.range("mapping.std_floor", self.mapping.std_floor, 0.0, 1.0);
        c.range("mapping.z_clip", self.mapping.z_clip, 0.1, 100.0);
        c.per_objective("mapping.weights", &self.mapping.weights, objectives.len());

        let targets = &self.targets;
        let known = || objectives.iter().map(|o| o.id.as_str()).collect::<Vec<_>>().join(", ");
        for (n, id) in targets.objectives.iter().enumerate() {
            let field = format!("targets.objectives[{n}]");
            c.require(index_of(objectives, id).is_some(), &field, format!("unknown objective \"{id}\"; known are {}", known()));
            c.require(!targets.objectives[..n].contains(id), &field, format!("\"{id}\" is named twice"));
        }
        c.require(targets.active_probability > 0.0, "targets.active_probability", "must be larger than 0");
        c.range("targets.active_probability", targets.active_probability, 0.0, 1.0);
        c.range("targets.empirical_share", targets.empirical_share, 0.0, 1.0);
        c.range("targets.shuffled_share", targets.shuffled_share, 0.0, 1.0);
        c.require(targets.held_out.len() <= 32, "targets.held_out", "has more than 32 pairs");
        for (n, pair) in targets.held_out.iter().enumerate() {
            for (m, target) in pair.iter().enumerate() {
                let field = format!("targets.held_out[{n}][{m}]");
                match index_of(objectives, &target.objective) {
                    None => {
                        c.require(false, &field, format!("unknown objective \"{}\"; known are {}", target.objective, known()))
                    }
                    Some(i) => c.range(&format!("{field}.class"), target.class, 0, objectives[i].class_count() - 1),
                }
            }
            c.require(
                pair[0].objective != pair[1].objective,
                &format!("targets.held_out[{n}]"),
                "names one objective twice; a pair needs two objectives",
            );
        }

        let policy = &self.policy;
        c.range("policy.iterations", policy.iterations, 1, 1_000_000);
        c.range("policy.prompts", policy.prompts, 1, 4096);
        c.require(policy.samples_per_prompt <= 256, "policy.samples_per_prompt", "is larger than 256");
        c.range("policy.learning_rate", policy.learning_rate, 1e-8, 0.1);
        c.range("policy.epochs", policy.epochs, 1, 16);
        c.range("policy.minibatches", policy.minibatches, 1, 64);
        c.require(
            policy.minibatches <= policy.prompts.max(1),
            "policy.minibatches",
            "is larger than the number of prompts; samples of one prompt stay together",
        );
        c.range("policy.clip", policy.clip, 0.01, 10.0);
        c.range("policy.kl_coefficient", policy.kl_coefficient, 0.0, 10.0);
        if let Some(target) = policy.kl_target {
            c.range("policy.kl_target", target, 0.01, 1000.0);
            c.require(
                policy.kl_coefficient > 0.0,
                "policy.kl_coefficient",
                "must be larger than 0 for policy.kl_target to move it",
            );
        }
        c.range("policy.temperature", policy.temperature, 0.1, 5.0);
        c.range("policy.max_new_tokens", policy.max_new_tokens, 1, 1024);
        c.range("policy.missing_eos_penalty", policy.missing_eos_penalty, 0.0, 100.0);
        c.range("policy.max_gradient_norm", policy.max_gradient_norm, 1e-3, 1e3);
        c.range("policy.checkpoint_every", policy.checkpoint_every, 1, 1_000_000);
        c.require(
            policy.max_new_tokens + 40 <= self.model.context,
            "policy.max_new_tokens",
            format!("plus 40 tokens of prompt must fit into model.context ({})", self.model.context),
        );
        c.require(
            policy.max_new_tokens + 40 <= self.reward_trunk.context,
            "policy.max_new_tokens",
            format!("plus 40 tokens of prompt must fit into reward_trunk.context ({})", self.reward_trunk.context),
        );

        c.range("evaluation.questions", self.evaluation.questions, 2, 10_000);
        c.range("evaluation.joint", self.evaluation.joint, 0, 100_000);
        c.range("evaluation.held_out", self.evaluation.held_out, 0, 10_000);
        c.range("evaluation.temperature", self.evaluation.temperature, 0.0, 5.0);
        c.range("evaluation.front", self.evaluation.front, 0, 10_000);
        c.range("evaluation.paraphrased", self.evaluation.paraphrased, 0, 100_000);
        c.problems
    }

    /// Positions of the objectives that prompts may ask for, in world order.
    pub fn steered(&self, objectives: &[Objective]) -> Vec<usize> {
        (0..objectives.len())
            .filter(|&i| self.targets.objectives.is_empty() || self.targets.objectives.contains(&objectives[i].id))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    fn objectives() -> Vec<Objective> {
        vec![
            Objective::new("helpfulness", "", "", &["0", "1", "2", "3", "4"]),
            Objective::new("harmlessness", "", "", &["0", "1", "2", "3"]),
            Objective::new("honesty", "", "", &["0", "1", "2"]),
            Objective::new("verbosity", "", "", &["0", "1", "2", "3", "4"]),
        ]
    }

    /// Changes a valid configuration and expects exactly one problem, at `field`.
    fn check(change: impl Fn(&mut RunConfig), field: &str) {
        let mut config = RunConfig::default();
        change(&mut config);
        let problems = config.problems(&objectives());
        assert_eq!(problems.iter().map(|p| p.field.as_str()).collect::<Vec<_>>(), [field], "{problems:?}");
    }

    #[test]
    fn presets_are_valid_and_survive_serialisation() {
        for preset in presets::all() {
            assert_eq!(preset.config.problems(&objectives()), [], "{}", preset.id);
            let text = serde_json::to_string(&preset.config).unwrap();
            assert_eq!(serde_json::from_str::<RunConfig>(&text).unwrap(), preset.config);
        }
    }

    #[test]
    fn problems_name_their_field() {
        check(|c| c.policy.samples_per_prompt = 1, "policy.samples_per_prompt");
        check(|c| (c.model.d_model, c.reward_from_sft) = (90, false), "model.heads");
        check(|c| (c.model.kv_heads, c.reward_from_sft) = (3, false), "model.kv_heads");
        check(|c| c.reward_trunk.layers = 3, "reward_from_sft");
        check(|c| c.world.label_noise = f64::NAN, "world.label_noise");
        check(|c| c.sft.learning_rate = -1.0, "sft.learning_rate");
        check(|c| c.targets.objectives = vec!["kindness".into()], "targets.objectives[0]");
        check(|c| c.targets.held_out[0][1].class = 9, "targets.held_out[0][1].class");

        check(|c| c.evaluation.temperature = 9.0, "evaluation.temperature");
        check(|c| (c.policy.optimizer, c.policy.samples_per_prompt) = (PolicyOptimizer::Grpo, 1), "policy.samples_per_prompt");
        check(|c| c.method.weights = vec![vec![0.5, 0.5, 0.0, 0.0], vec![0.5, 0.6, 0.0, 0.0]], "method.weights[1]");
        check(|c| c.method.weights = vec![vec![1.0]], "method.weights[0]");
        check(|c| (c.method.kind, c.policy.iterations) = (Method::Morlhf, 5), "policy.iterations");
        check(|c| c.reward_model.head_weights = vec![1.0], "reward_model.head_weights");
        check(
            |c| (c.reward_model.loss, c.reward_model.label_smoothing) = (RewardLoss::Corn, 0.1),
            "reward_model.label_smoothing",
        );
        check(|c| c.policy.aggregation = Aggregation::NormaliseThenSum, "policy.aggregation");
        check(|c| c.mapping.weights = vec![0.0; 4], "mapping.weights");
        check(|c| c.from = Some("../x".into()), "from");
    }

    #[test]
    fn optimisers_that_compare_nothing_take_one_sample() {
        let mut config = RunConfig::default();
        config.policy.samples_per_prompt = 1;
        for optimizer in PolicyOptimizer::ALL {
            config.policy.optimizer = optimizer;
            assert_eq!(config.problems(&objectives()).is_empty(), !optimizer.compares_samples(), "{optimizer:?}");
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = serde_json::from_str::<RunConfig>(r#"{"sead": 1}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `sead`"), "{error}");
    }
}
