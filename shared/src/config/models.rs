//! Where and on what a run trains: devices, tasks, models, and the supervised stages.

use crate::ordinal::RewardLoss;
use serde::{Deserialize, Deserializer, Serialize};

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
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

/// Kinds of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// The built-in world.
    #[default]
    World,
    /// Everyday instructions, and objectives about how an answer is written; for off-the-shelf models.
    Style,
    /// People's ratings that were imported.
    Ratings,
}

/// Folds of a cross-validation.
pub const FOLDS: usize = 5;

/// Which task a run is about, and its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TaskConfig {
    pub kind: TaskKind,
    /// Name of an imported task; empty for the lab's own.
    pub name: String,
    /// Of imported ratings, whether training sees every rater's label, as often as it was given, instead of the one that they make
    /// together: soft labels. Validation and test keep the one.
    pub every_rater: bool,
    /// Of imported ratings, the fold of a cross-validation whose prompts are the test split, from 1 to [`FOLDS`]; 0 keeps the splits of
    /// the import.
    pub fold: usize,
    /// Of imported ratings, the share of the prompts to train on that is used, in (0, 1]: points of a learning curve.
    pub share: f64,
    /// Topics of the built-in world that there are questions about, from 22 to 60: the more, the more there is to know.
    pub topics: usize,
    /// Question-answer rows generated, before duplicates are dropped.
    pub rows: usize,
    /// Share of labels moved to a neighbouring class, in [0, 0.5].
    pub label_noise: f64,
    /// Share of labels removed, in [0, 0.9].
    pub missing_labels: f64,
    /// Share of long answers whose first objective is labelled one class better than it is: raters who take length for help.
    pub length_bias: f64,
    /// Seed of the generator. It is apart from the run's seed, so that runs share data and cached stages.
    pub seed: u64,
}

impl Default for TaskConfig {
    fn default() -> Self {
        Self {
            kind: TaskKind::World,
            name: String::new(),
            every_rater: false,
            fold: 0,
            share: 1.0,
            topics: 60,
            rows: 60_000,
            label_noise: 0.0,
            missing_labels: 0.0,
            length_bias: 0.0,
            seed: 1,
        }
    }
}

/// An off-the-shelf model to begin with, in place of one of the lab's own. Its weights are frozen, and policy and reward model are
/// low-rank adapters on them (LoRA, Hu et al. 2022).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BaseConfig {
    /// Name of a model that was added; empty for the lab's own.
    pub model: String,
    /// Rank of every adapter.
    pub rank: usize,
    /// What an adapter adds is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// The matrices of every layer that have an adapter, each once, in the order of [`AdapterTarget::ALL`]; the others stay as they are.
    #[serde(deserialize_with = "in_order")]
    pub targets: Vec<AdapterTarget>,
    /// Temperature at which the answers are sampled that the reward model learns from.
    pub temperature: f64,
    /// How many of the model's layers the reward model has, from the first on; 0, or more than there are, for all. Heads on a layer halfway up
    /// cost half.
    pub reward_layers: usize,
    /// Where in a prompt a wish stands.
    pub wishes: WishPlace,
    /// Whether tags are tokens, one for every class, that are added to the model's vocabulary; else they are written as text. Their embeddings
    /// begin as the mean of what asks for the class in words, and are trained with the policy's adapters. The lab's own models have such
    /// tokens in any case.
    pub added_tokens: bool,
    /// What its matrices are kept in, which are frozen. `bf16` takes half of the memory, and loses nothing of a model whose file has it; what is
    /// computed is what `model.precision` says.
    pub weights: Precision,
    /// Whether a backward pass keeps of a layer no more than its input, and computes it once more when its gradient is wanted (gradient
    /// checkpointing, Chen et al. 2016): the same numbers, in less memory and more time. On the CPU; other devices keep everything.
    pub checkpointing: bool,
}

/// A matrix of every layer that can have an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AdapterTarget {
    QProj,
    KProj,
    VProj,
    OProj,
    GateProj,
    UpProj,
    DownProj,
}

impl AdapterTarget {
    /// All of them, in the order in which a token comes to them.
    pub const ALL: [Self; 7] = [Self::QProj, Self::KProj, Self::VProj, Self::OProj, Self::GateProj, Self::UpProj, Self::DownProj];

    /// Its name in Hugging Face's models, and in configurations.
    pub fn id(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
        }
    }
}

/// Reads targets in any order.
fn in_order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AdapterTarget>, D::Error> {
    let mut targets = Vec::<AdapterTarget>::deserialize(deserializer)?;
    targets.sort_unstable();
    Ok(targets)
}

/// Where in a prompt of an off-the-shelf model a wish stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WishPlace {
    /// In the system message.
    System,
    /// Below the question, where small models heed it most.
    #[default]
    Question,
}

impl Default for BaseConfig {
    fn default() -> Self {
        Self {
            model: String::new(),
            rank: 16,
            alpha: 32.0,
            targets: AdapterTarget::ALL.to_vec(),
            temperature: 1.0,
            reward_layers: 0,
            wishes: WishPlace::default(),
            added_tokens: false,
            weights: Precision::F32,
            checkpointing: false,
        }
    }
}

/// Sizes of a decoder-only transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
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
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
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
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
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
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// All 1.
    #[default]
    Equal,
    /// `1 / sqrt(frequency)`, mean 1, between 0.3 and 3. Calibration afterwards is on unweighted data.
    InverseSqrt,
}

/// What the heads of a reward model read of an answer's hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HeadPooling {
    /// That of its last token, the end of sequence, as in the paper.
    #[default]
    Last,
    /// The mean over its tokens.
    Mean,
    /// Both, side by side.
    LastAndMean,
}

impl HeadPooling {
    /// Values that a head reads, of hidden states of `d_model`.
    pub fn width(self, d_model: usize) -> usize {
        d_model * if self == Self::LastAndMean { 2 } else { 1 }
    }
}

/// The reward model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
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
    /// What they read. What is spread over an answer (how hard its words are) is in the mean; what its end decides, in the last token.
    pub pooling: HeadPooling,
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
    /// Answers to one prompt that a batch takes together, 1: every row by itself. They share one reading of the prompt (Ouyang et
    /// al. 2022, section 3.4), which pays where prompts are long and have several answers.
    pub per_prompt: usize,
    /// Weight of the same loss over the beginnings of answers, read before every token: what the class of the whole will be. 0 leaves
    /// it out. It costs no pass; what the heads say before an answer ends can then be a critic (`policy.head_credit`). Pairs have no
    /// beginnings that could be compared: with their loss it is not read.
    pub beginnings: f64,
}

impl Default for RewardModelConfig {
    fn default() -> Self {
        Self {
            steps: 600,
            batch: 64,
            learning_rate: 2e-3,
            loss: RewardLoss::CrossEntropy,
            pooling: HeadPooling::Last,
            label_smoothing: 0.0,
            class_weights: ClassWeights::Equal,
            head_weights: Vec::new(),
            learned_head_weights: false,
            separate: false,
            per_prompt: 1,
            beginnings: 0.0,
        }
    }
}

impl RewardModelConfig {
    /// Weight of the loss over beginnings, where the heads' loss has any.
    pub fn beginnings(&self) -> Option<f64> {
        (self.beginnings > 0.0 && self.loss != RewardLoss::BradleyTerry).then_some(self.beginnings)
    }

    /// The steps as those of a supervised stage.
    pub fn schedule(&self) -> SupervisedConfig {
        SupervisedConfig { steps: self.steps, batch: self.batch, learning_rate: self.learning_rate, ..Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_in_any_order_by_their_names_and_are_all_where_nothing_is_said() {
        let read = |text: &str| serde_json::from_str::<BaseConfig>(text);
        assert_eq!(read(r#"{"rank": 4}"#).unwrap().targets, AdapterTarget::ALL);
        let some = read(r#"{"targets": ["up_proj", "q_proj"]}"#).unwrap().targets;
        assert_eq!(some, [AdapterTarget::QProj, AdapterTarget::UpProj]);
        for target in AdapterTarget::ALL {
            assert_eq!(serde_json::to_value(target).unwrap(), target.id());
        }
        let error = read(r#"{"targets": ["q_proj", "lm_head"]}"#).unwrap_err().to_string();
        assert!(error.contains("lm_head") && AdapterTarget::ALL.iter().all(|t| error.contains(t.id())), "{error}");
    }
}
