//! A run from SFT to evaluation.

use super::models::{BaseConfig, DeviceChoice, ModelConfig, RewardModelConfig, SupervisedConfig, TaskConfig};
use super::policy::{PolicyConfig, TargetConfig};
use crate::mapping::MappingConfig;
use crate::method::MethodConfig;
use crate::objective::Objective;
use serde::{Deserialize, Serialize};

/// A problem of a configuration: which field, what is wrong with it, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Problem {
    /// Path of the field, for example `policy.samples_per_prompt`.
    pub field: String,
    pub message: String,
}

/// Evaluation on held-out questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
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
    /// How often, while a policy is optimised, its front is tried as the reward model sees it; 0: never. It counts in no budget.
    pub fronts_seen: usize,
    /// Prompts with several tags that are asked again in other words, in another order and without tags.
    pub paraphrased: usize,
    /// Trains a second reward model of another seed, which grades rollouts beside the first and the gold rules while a policy
    /// is optimised. Nothing is optimised for it.
    pub held_out_reward_model: bool,
    /// Layers of the held-out reward model, so that it is of another size; 0: as many as the reward model has.
    pub held_out_layers: usize,
    /// Whose questions are asked. Settings are chosen on `validation`, reported on `test`.
    pub split: EvaluationSplit,
}

/// Questions that were not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EvaluationSplit {
    #[default]
    Test,
    Validation,
}

impl std::str::FromStr for EvaluationSplit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "test" => Ok(Self::Test),
            "validation" => Ok(Self::Validation),
            _ => Err("allowed are test and validation".into()),
        }
    }
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            questions: 64,
            joint: 256,
            held_out: 64,
            temperature: 1.0,
            front: 64,
            fronts_seen: 0,
            paraphrased: 128,
            held_out_reward_model: false,
            held_out_layers: 0,
            split: EvaluationSplit::Test,
        }
    }
}

/// A run from SFT to evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Name for people.
    pub name: String,
    /// Preset that it started from.
    pub preset: String,
    /// Seed of every random choice but the task's.
    pub seed: u64,
    pub device: DeviceChoice,
    pub method: MethodConfig,
    /// Finished run whose policy this one starts from, instead of from SFT. Needs the same model and vocabulary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Run with whose policy optimisation this one goes on, from its last checkpoint, with other settings of `policy`; see
    /// [`RunConfig::fork_problems`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fork: Option<String>,
    /// Entries of the tokenizer's vocabulary before special tokens and tags are added; at least the 256 bytes.
    pub vocabulary: usize,
    /// What the run is about. Called `world` before there were other tasks.
    #[serde(alias = "world")]
    pub task: TaskConfig,
    /// The off-the-shelf model that the run is about, if it is.
    pub base: BaseConfig,
    /// Policy (and its SFT). Of an off-the-shelf model, the context and the precision alone.
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
            fork: None,
            vocabulary: 1_024,
            task: TaskConfig::default(),
            base: BaseConfig::default(),
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

impl RunConfig {
    /// Positions of the objectives that prompts may ask for, in the task's order.
    pub fn steered(&self, objectives: &[Objective]) -> Vec<usize> {
        (0..objectives.len())
            .filter(|&i| self.targets.objectives.is_empty() || self.targets.objectives.contains(&objectives[i].id))
            .collect()
    }
}
