//! What a run says while it lives: the same type in the journal, in the server and on the socket.
//!
//! Here belong events and what the API says of a run. How they are kept, sent or drawn does not.

mod about;
mod frame;

use crate::config::RunConfig;
use crate::mapping::RewardStatistics;
use crate::objective::Objective;
use crate::preference::Preference;
use crate::summary::{Answerer, ControlReport, FrontReport, FrontSeen, Grader, KlPoint, RewardModelReport, RunSummary};
use serde::{Deserialize, Serialize};

pub use about::About;
pub use frame::{Addressed, First, Frame, Hello, Subscription};

/// The stages of a run, in order. A run has those that its configuration asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Answers of an off-the-shelf model, graded by rules, that its reward model learns from.
    Answers,
    Sft,
    /// A second reward model that no policy is optimised for.
    HeldOutRewardModel,
    RewardModel,
    Calibration,
    /// Supervised training on tagged prompts before policy optimisation.
    PreferenceSft,
    Policy,
    Evaluation,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Stage; 8] = [
        Self::Answers,
        Self::Sft,
        Self::HeldOutRewardModel,
        Self::RewardModel,
        Self::Calibration,
        Self::PreferenceSft,
        Self::Policy,
        Self::Evaluation,
    ];

    /// Name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Answers => "Answers to learn from",
            Self::Sft => "Supervised fine-tuning",
            Self::HeldOutRewardModel => "Held-out reward model",
            Self::RewardModel => "Reward model",
            Self::Calibration => "Calibration",
            Self::PreferenceSft => "Preference SFT",
            Self::Policy => "Policy optimisation",
            Self::Evaluation => "Evaluation",
        }
    }

    /// Name in files.
    pub fn id(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Sft => "sft",
            Self::HeldOutRewardModel => "held-out-reward-model",
            Self::RewardModel => "reward-model",
            Self::Calibration => "calibration",
            Self::PreferenceSft => "preference-sft",
            Self::Policy => "policy",
            Self::Evaluation => "evaluation",
        }
    }

    /// The stages that a run with this configuration has, in order. A run about a task without a gold grader has a held-out
    /// reward model in any case.
    pub fn of(config: &RunConfig) -> Vec<Self> {
        let has = |stage: &Self| match stage {
            Self::HeldOutRewardModel => config.evaluation.held_out_reward_model,
            Self::PreferenceSft => config.method.preference_sft > 0,
            // An off-the-shelf model answers, and needs no SFT.
            Self::Answers => !config.base.model.is_empty(),
            Self::Sft => config.base.model.is_empty(),
            _ => true,
        };
        Self::ALL.into_iter().filter(has).collect()
    }
}

/// Which of several models or policies of one stage something is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Part {
    /// From 1.
    pub index: usize,
    pub count: usize,
    /// An objective, or the weights of a trade-off.
    pub name: String,
}

/// The device a run computes on, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct DeviceReport {
    /// `cpu`, `cuda` or `wgpu`.
    pub device: String,
    /// Name of the processor or adapter.
    pub name: String,
    /// Why it was chosen.
    pub reason: String,
}

/// Sizes of the models of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ModelReport {
    pub policy_parameters: u64,
    pub reward_parameters: u64,
    pub vocabulary: usize,
    /// Distinct rows: train, validation, test.
    pub rows: [usize; 3],
}

/// One answer with everything that its reward is made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Sample {
    /// The question, without tags.
    pub question: String,
    /// What was asked for.
    pub preference: Preference,
    pub answer: String,
    /// The reward model's calibrated class probabilities, `[objective][class]`.
    pub distributions: Vec<Vec<f64>>,
    /// What each objective added to the scalar.
    pub contributions: Vec<f64>,
    /// Penalty for an answer cut off before its end; 0 or negative, part of `score`.
    pub penalty: f64,
    /// Mapped reward plus penalty: what is handed to the optimiser before the KL term.
    pub score: f64,
    /// `sum_t k1`, nats over the answer.
    pub kl: f64,
    /// `score - beta * kl`, what the advantage is computed from.
    pub reward: f64,
    /// Its advantage; where tokens have one each, their mean.
    pub advantage: f64,
}

/// One iteration of policy optimisation, averaged over its samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct PolicyStep {
    /// Iteration, from 1.
    pub step: usize,
    /// Mean of `score - beta * kl`: the scalar that is optimised.
    pub reward: f64,
    /// Mean score before the KL term.
    pub score: f64,
    /// Mean contribution per objective over the samples that ask for it.
    pub contributions: Vec<f64>,
    /// Nats per answer, mean of `sum_t k1`.
    pub kl: f64,
    /// KL coefficient beta used in this iteration, per nat.
    pub kl_coefficient: f64,
    /// Mean token entropy of the sampling distribution, nats.
    pub entropy: f64,
    /// Mean class probabilities over all samples, `[objective][class]`.
    pub distributions: Vec<Vec<f64>>,
    /// Probability of the class asked for, mean over the samples that ask, per objective.
    pub on_target: Vec<f64>,
    /// Summed class probabilities by class asked for, `[objective][asked][class]`; rows with no sample are all zero.
    pub matrix: Vec<Vec<Vec<f64>>>,
    /// Mean answer length, tokens.
    pub length: f64,
    /// Share of answers that end by themselves.
    pub eos_rate: f64,
    /// Share of groups whose samples all got the same reward.
    pub zero_std_groups: f64,
    /// Mean probability ratio of the first minibatch: 1 up to rounding, or something is wrong.
    pub first_ratio: f64,
    /// Share of clipped ratios.
    pub clip_fraction: f64,
    /// `mean((log pi - log pi_old)^2) / 2` over the tokens (RLOO without credit by the heads, and DPO: the sequences) of all minibatches.
    #[serde(default)]
    pub approx_kl: f64,
    /// PPO: value loss, explained variance of the returns, share of clipped values.
    #[serde(default)]
    pub value_loss: Option<f64>,
    #[serde(default)]
    pub explained_variance: Option<f64>,
    #[serde(default)]
    pub value_clip_fraction: Option<f64>,
    /// DPO: share of pairs that the policy, against the reference, orders like the reward.
    #[serde(default)]
    pub preference_accuracy: Option<f64>,
    /// Share of pairs that were left out because their scores are too close: no order, no lesson.
    #[serde(default)]
    pub pairs_left_out: Option<f64>,
    /// Gradient norm before clipping.
    pub gradient_norm: f64,
    /// Answers sampled so far, and their tokens.
    pub samples: u64,
    pub tokens: u64,
    /// Wall seconds of the iteration.
    pub seconds: f64,
}

impl PolicyStep {
    /// Forgets what every class gets, which is most of a step: no distributions, and of the matrix one number for each objective, the sum
    /// of all, which is 0 where nobody asked for it.
    pub fn shorten(&mut self) {
        self.distributions.clear();
        self.matrix.iter_mut().for_each(|rows| *rows = vec![vec![rows.iter().flatten().sum()]]);
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Finished,
    Cancelled,
    Failed,
    /// The worker or the server went away; the run can be resumed.
    Interrupted,
    /// A person wanted it to stop for a while, and to go on later.
    Paused,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)]
pub enum EventBody {
    /// The run starts (again); everything a page needs to draw the rest.
    Started { config: RunConfig, device: DeviceReport, objectives: Vec<Objective>, resumed: bool },
    /// The data and model sizes are known.
    Model { model: ModelReport },
    /// A stage, or a part of it, begins with `total` steps. Steps of it after `from` that were reported earlier are void: the
    /// run was resumed from a checkpoint made at `from`.
    StageBegan {
        stage: Stage,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
        from: usize,
        total: usize,
    },
    /// Reward against KL so far, with the gold grader's view.
    KlFrontier {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
        point: KlPoint,
    },
    /// What the policy reaches over its trade-offs so far, by the reward model.
    FrontSeen {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
        front: FrontSeen,
    },
    /// What the method reaches over its trade-offs.
    Front { report: FrontReport },
    /// A stage, or a part of it, is over; `cached` when its result was found in the cache.
    StageEnded {
        stage: Stage,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
        seconds: f64,
        cached: bool,
    },
    /// Loss of a supervised stage (SFT: per token in nats; reward model: sum over heads), `rate` in steps per second.
    Loss {
        stage: Stage,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
        step: usize,
        total: usize,
        loss: f64,
        rate: f64,
    },
    /// A reward model on validation data while it trains: QWK of each head, and which objectives the heads are of. Without
    /// `objectives`: of all.
    Validation {
        #[serde(default = "reward_model")]
        stage: Stage,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
        step: usize,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        objectives: Vec<usize>,
        qwk: Vec<f64>,
    },
    /// The reward model on the test split, calibrated.
    RewardModel { report: RewardModelReport },
    /// Temperatures and statistics, frozen under `hash`.
    Calibrated { temperatures: Vec<f64>, statistics: RewardStatistics, hash: String },
    /// One policy iteration.
    Policy {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
        total: usize,
        step: PolicyStep,
    },
    /// Fresh samples of a policy iteration.
    Samples {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
        step: usize,
        samples: Vec<Sample>,
    },
    /// A checkpoint was written.
    Checkpoint {
        stage: Stage,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<Part>,
        step: usize,
    },
    /// The policy was kept as it is after `step` iterations, `share` per cent of its optimisation: 25, 50 or 75. It may come again after a
    /// resumption.
    Milestone { share: u8, step: usize },
    /// The model has answered `done` of `total` prompts, for its reward model to learn from.
    Answering { done: usize, total: usize },
    /// Evaluation advanced.
    Evaluating { done: usize, total: usize },
    /// Control by one policy as seen by one grader.
    Control {
        policy: Answerer,
        #[serde(alias = "judge")]
        grader: Grader,
        report: ControlReport,
    },
    /// The final summary.
    Summary { summary: RunSummary },
    /// A remark for people.
    Note { text: String },
    /// The run is over. The last event, unless the run is resumed.
    Ended { outcome: Outcome, message: String },
}

fn reward_model() -> Stage {
    Stage::RewardModel
}

/// An event as stored and sent. Its number is that of its line in the journal, from 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Event {
    pub seq: u64,
    /// Milliseconds since the Unix epoch, when it was written.
    pub time: u64,
    pub body: EventBody,
}

/// State of a run in lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It waits for its turn.
    Queued,
    Running,
    Finished,
    Cancelled,
    Failed,
    Interrupted,
    /// It goes on when it is resumed.
    Paused,
}

impl From<Outcome> for RunStatus {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Finished => Self::Finished,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Failed => Self::Failed,
            Outcome::Interrupted => Self::Interrupted,
            Outcome::Paused => Self::Paused,
        }
    }
}

/// A run as the API lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct RunInfo {
    pub id: String,
    pub name: String,
    pub preset: String,
    pub seed: u64,
    pub status: RunStatus,
    /// Milliseconds since the Unix epoch.
    pub created: u64,
    /// Last event's sequence number; 0 before the first.
    pub last_seq: u64,
    /// Why it failed or was interrupted; empty otherwise.
    pub message: String,
    pub config: RunConfig,
    /// First twelve digits of the SHA-256 of `config.toml`, as this version writes it; empty where a run was known before there was one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config_hash: String,
    pub summary: Option<Box<RunSummary>>,
    /// Per cent of its optimisation after which its policy was kept, and can be asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub milestones: Vec<u8>,
    /// What a person says of it.
    #[serde(default)]
    pub about: About,
}

impl RunInfo {
    /// A run that was made at `created` and has said nothing yet.
    pub fn new(id: &str, config: &RunConfig, created: u64) -> Self {
        Self {
            id: id.into(),
            name: config.name.clone(),
            preset: config.preset.clone(),
            seed: config.seed,
            status: RunStatus::Interrupted,
            created,
            last_seq: 0,
            message: "it has not begun; resume it to begin".into(),
            config: config.clone(),
            config_hash: String::new(),
            summary: None,
            milestones: Vec::new(),
            about: About::default(),
        }
    }

    /// Takes in what an event of its journal says of the run as a whole. How it ended is for the caller to say, who knows whether
    /// what trained it is gone.
    pub fn hear(&mut self, event: &Event) {
        match &event.body {
            EventBody::Started { config, .. } => {
                (self.name, self.preset, self.seed) = (config.name.clone(), config.preset.clone(), config.seed);
                self.config = config.clone();
                if event.seq == 1 {
                    self.created = event.time;
                }
                (self.status, self.message) = (RunStatus::Running, String::new());
            }
            EventBody::Summary { summary } => self.summary = Some(Box::new(summary.clone())),
            EventBody::Milestone { share, .. } if !self.milestones.contains(share) => self.milestones.push(*share),
            _ => {}
        }
    }

    /// What it is called: by a person, else by its configuration, else by what it is.
    pub fn title(&self) -> String {
        let names = [&self.about.name, &self.name];
        names.into_iter().find(|n| !n.is_empty()).cloned().unwrap_or_else(|| {
            let preset = if self.preset.is_empty() { "own settings" } else { &self.preset };
            let method = &self.config.method.kind;
            let how =
                if *method == crate::method::Method::Moslim { self.config.policy.optimizer.title() } else { method.title() };
            format!("{preset}, seed {}, {how}", self.seed)
        })
    }
}

/// A preset as the API lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct PresetInfo {
    pub id: String,
    pub title: String,
    pub description: String,
    pub config: RunConfig,
}

/// What `GET /api/v1/task` says about the task of a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct TaskInfo {
    pub name: String,
    pub objectives: Vec<Objective>,
    /// A few of its questions, to try things with.
    #[serde(default)]
    pub examples: Vec<String>,
}
