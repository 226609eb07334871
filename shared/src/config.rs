//! What a valid run is: one type for form, file, command line, API and worker.

use crate::mapping::MappingConfig;
use crate::objective::{Objective, index_of};
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
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self { layers: 2, d_model: 96, heads: 4, kv_heads: 2, d_ff: 256, context: 128, tied_embeddings: true }
    }
}

/// A supervised stage: SFT or the reward model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SupervisedConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Rows in a batch.
    pub batch: usize,
    /// Peak learning rate of AdamW, after a linear warm-up over the first 5 % and before a cosine decay to 10 %.
    pub learning_rate: f64,
    /// Label smoothing, in [0, 0.5]; used by the reward model.
    pub label_smoothing: f64,
}

impl Default for SupervisedConfig {
    fn default() -> Self {
        Self { steps: 600, batch: 64, learning_rate: 2e-3, label_smoothing: 0.0 }
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
    /// Iterations: sample, score, update.
    pub iterations: usize,
    /// Prompts (with one preference each) per iteration.
    pub prompts: usize,
    /// Samples per prompt `G`; RLOO needs at least 2.
    pub samples_per_prompt: usize,
    /// Learning rate of Adam, constant after ten iterations of warm-up, with a linear decay over the last quarter.
    pub learning_rate: f64,
    /// Passes over each batch of samples.
    pub epochs: usize,
    /// Minibatches per pass.
    pub minibatches: usize,
    /// Clipping range of the sequence's probability ratio.
    pub clip: f64,
    /// KL coefficient beta, per nat of the summed k1.
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
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            iterations: 200,
            prompts: 32,
            samples_per_prompt: 8,
            learning_rate: 1e-3,
            epochs: 1,
            minibatches: 1,
            clip: 0.2,
            kl_coefficient: 0.03,
            kl_target: None,
            temperature: 1.0,
            max_new_tokens: 48,
            missing_eos_penalty: 1.0,
            max_gradient_norm: 1.0,
            checkpoint_every: 25,
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
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { questions: 64, joint: 256, held_out: 64, temperature: 1.0 }
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
    /// Entries of the tokenizer's vocabulary before special tokens and tags are added; at least the 256 bytes.
    pub vocabulary: usize,
    pub world: WorldConfig,
    /// Policy (and its SFT).
    pub model: ModelConfig,
    /// Trunk of the reward model.
    pub reward_trunk: ModelConfig,
    /// Whether the reward model's trunk starts from the SFT policy's weights, which know the language already. Needs
    /// trunks of the same sizes.
    pub reward_from_sft: bool,
    pub sft: SupervisedConfig,
    pub reward_model: SupervisedConfig,
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
            vocabulary: 640,
            world: WorldConfig::default(),
            model: ModelConfig::default(),
            reward_trunk: ModelConfig::default(),
            reward_from_sft: true,
            sft: SupervisedConfig::default(),
            reward_model: SupervisedConfig::default(),
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
        self.range(&f("label_smoothing"), stage.label_smoothing, 0.0, 0.5);
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
        c.supervised("reward_model", &self.reward_model);
        c.require(self.sft.label_smoothing == 0.0, "sft.label_smoothing", "is only used by the reward model; it must be 0 here");

        c.range("mapping.std_floor", self.mapping.std_floor, 0.0, 1.0);
        c.range("mapping.z_clip", self.mapping.z_clip, 0.1, 100.0);

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
        c.require(
            policy.samples_per_prompt >= 2,
            "policy.samples_per_prompt",
            format!("is {}; RLOO needs at least 2, or no sample has a baseline", policy.samples_per_prompt),
        );
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
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = serde_json::from_str::<RunConfig>(r#"{"sead": 1}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `sead`"), "{error}");
    }
}
