//! What a finished run reports: the contract of `moslim-lab train --json` and of `GET /api/v1/runs/{id}`.

mod compute;
mod reward;

use crate::config::PolicyOptimizer;
use crate::method::Method;
use crate::preference::Preference;
use serde::{Deserialize, Serialize};

pub use compute::{ComputeReport, Work};
pub use reward::{RewardHeadReport, RewardModelReport, RewardPartReport, mostly_length, still_rises};

/// Wall seconds per stage. A stage taken from the cache counts the seconds it took to load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct StageSeconds {
    pub sft: f64,
    pub reward_model: f64,
    pub calibration: f64,
    pub policy: f64,
    pub evaluation: f64,
    pub total: f64,
}

/// Control over one objective: asked for against achieved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ControlHead {
    pub objective: String,
    /// Answers graded.
    pub n: usize,
    /// Share of answers whose class is the one asked for, averaged over the classes asked for.
    pub hit_rate: f64,
    /// Share at most one class away, averaged likewise.
    pub within_one: f64,
    /// Hit rate of blind guessing, `1 / C`: every class is asked for equally often.
    pub chance: f64,
    /// Spearman's rank correlation of class asked for and class achieved.
    pub spearman: f64,
    /// `matrix[asked][achieved]`, each row sums to 1.
    pub matrix: Vec<Vec<f64>>,
    /// Mean words of an answer by the class asked for; 0 where it was not asked for. Empty in runs of before it was counted.
    #[serde(default)]
    pub words: Vec<f64>,
}

impl ControlHead {
    /// Mean words of an answer from the lowest class that was asked for to the highest, for people: what a ruler sees of the control, whoever
    /// grades.
    pub fn words_told(&self) -> Option<String> {
        // Who was asked may have said nothing.
        let rows = self.words.iter().zip(&self.matrix);
        let mut asked = rows.filter(|(_, row)| row.iter().sum::<f64>() > 0.0).map(|(words, _)| words);
        let first = asked.next()?;
        Some(format!("{first:.0} to {:.0}", asked.next_back().unwrap_or(first)))
    }
}

/// Control over all objectives by one policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ControlReport {
    pub heads: Vec<ControlHead>,
    /// Share of answers that meet every class asked for, when several objectives are asked for together.
    pub joint_hit_rate: f64,
    /// Hit rate over the objectives of combinations that were kept out of training.
    pub held_out_hit_rate: f64,
    /// Hit rate over the objectives of combinations that were trained on, for comparison with `held_out_hit_rate`.
    pub trained_hit_rate: f64,
    /// Share of answers that end by themselves and that the gold grader finds fluent; without one, that hold a word.
    pub fluency: f64,
    /// Hit rate over the objectives asked for, by their number, from 1.
    #[serde(default)]
    pub hit_rate_by_active: Vec<f64>,
    /// `cross_talk[asked][other]`: how many classes objective `other` moves when the class asked for rises by one.
    #[serde(default)]
    pub cross_talk: Vec<Vec<f64>>,
    #[serde(default)]
    pub diversity: Diversity,
    /// Share of answers without a word.
    #[serde(default)]
    pub empty: f64,
    /// Mean log-likelihood of a token of the answers under the model that training began with, asked without a wish, nats: how much
    /// like its own they still are.
    #[serde(default)]
    pub likelihood: Option<f64>,
    /// Share of joint prompts on which this policy is nearer to what is asked for than the SFT baseline, ties counting half.
    #[serde(default)]
    pub win_rate: f64,
    /// 95 % Wilson interval of `win_rate`.
    #[serde(default)]
    pub win_rate_interval: [f64; 2],
    /// Hit rate on the same prompts with several tags, by how they are asked. Empty for methods whose prompts say nothing.
    #[serde(default)]
    pub wordings: Vec<WordingReport>,
    /// Of what is claimed in answers to prompts that want to be told something, the share that is about the question; where the
    /// grader tells.
    #[serde(default)]
    pub on_topic: Option<f64>,
    /// Bounds of 95 % intervals by bootstrap over the questions' topics, the lower ones first.
    #[serde(default)]
    pub intervals: Option<[ControlFigures; 2]>,
    /// The figures on parts of the split that differ in what training knew of them.
    #[serde(default)]
    pub parts: Vec<PartReport>,
}

/// The figures of control in short; see [`ControlReport`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ControlFigures {
    /// Mean over the objectives of the rank correlation of asked and achieved.
    pub spearman: f64,
    /// Mean over the objectives of their hit rates.
    pub hit_rate: f64,
    pub joint_hit_rate: f64,
    pub held_out_hit_rate: f64,
    pub win_rate: f64,
    pub fluency: f64,
    /// Share of answers that no other equals.
    pub unique: f64,
    pub on_topic: f64,
}

/// The figures on one part of the split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct PartReport {
    pub part: String,
    /// Prompts.
    pub n: usize,
    pub figures: ControlFigures,
}

/// How a preference is written into a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Wording {
    /// As in training.
    #[default]
    Tags,
    /// By a policy that was trained on tags, words and both: the tags alone.
    TagsAlone,
    /// By the same: one of the wordings of training alone.
    WordsAlone,
    /// The tags in reverse order.
    Reversed,
    /// Names of objectives and labels of classes as text, in place of the tags.
    Words,
    /// Not at all.
    Missing,
}

impl Wording {
    /// All of them, that of training first.
    pub const ALL: [Self; 6] = [Self::Tags, Self::TagsAlone, Self::WordsAlone, Self::Reversed, Self::Words, Self::Missing];

    /// Name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Tags => "as in training",
            Self::TagsAlone => "in tags alone",
            Self::WordsAlone => "in words of training",
            Self::Reversed => "in reverse order",
            Self::Words => "in words",
            Self::Missing => "not asked",
        }
    }
}

/// What one way to ask reaches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct WordingReport {
    pub wording: Wording,
    /// Prompts.
    #[serde(default)]
    pub n: usize,
    /// Share of the classes asked for that are met.
    pub hit_rate: f64,
}

/// How much answers differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Diversity {
    /// Distinct words and pairs of words, as shares of all.
    pub distinct_1: f64,
    pub distinct_2: f64,
    /// Share of answers that no other equals.
    pub unique: f64,
}

/// One trade-off of a method and what it achieves, by the gold grader.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct FrontPoint {
    /// Weight per objective: of the policy or mixture, as the prompt said them, or of the trade-off that it serves; empty where a prompt is
    /// for none.
    pub weights: Vec<f64>,
    /// What the prompt asked for, for methods that read it there.
    #[serde(default)]
    pub asked: Option<Preference>,
    /// Mean utility per objective, from 0 (worst class) to 1 (best).
    pub utility: Vec<f64>,
    /// Share of fluent answers.
    pub fluency: f64,
}

/// What a method reaches over all trade-offs, with one set of offers for both figures.
///
/// A method has a *menu*: combinations of classes to ask for, weights to say, policies, or mixtures of policies. All of it is tried on training
/// questions, as the reward model sees the answers, with the same number of samples for every method. `points` are the offers that
/// add most to the hypervolume, as many as there are trade-offs at most, and every trade-off is served by the best of them for its
/// weights; `chosen` has the best of the whole menu for each trade-off. Both are then measured on held-out questions. (In reports
/// without a menu, `points` were asked for what a fixed map made of the weights.)
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct FrontReport {
    /// Objectives of the coordinates, those that are steered.
    pub objectives: Vec<String>,
    pub points: Vec<FrontPoint>,
    /// Reference point of the hypervolume: the worst class everywhere.
    pub reference: Vec<f64>,
    pub hypervolume: f64,
    /// 95 % interval by bootstrap over the questions' topics.
    pub interval: [f64; 2],
    /// Mean over the trade-offs of the weighted utility `sum_i w_i u_i`: what a user with these weights gets (the expected
    /// utility metric of Zintgraf et al. 2015, with a finite set of weights). `None` in runs from before it was measured.
    #[serde(default)]
    pub expected_utility: Option<f64>,
    /// Its 95 % interval, likewise.
    #[serde(default)]
    pub utility_interval: [f64; 2],
    /// The trade-offs: weights of all objectives, and which of `points` serves each.
    #[serde(default)]
    pub served: Vec<Served>,
    /// The best offer for each trade-off.
    #[serde(default)]
    pub chosen: Option<ChosenFront>,
    /// What was chosen from.
    #[serde(default)]
    pub menu: Option<MenuReport>,
    /// The same offers on parts of the test split.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<FrontPart>,
}

/// What a front reaches on one part of the split, by the offers that are kept on the whole of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct FrontPart {
    pub part: String,
    /// Questions.
    pub n: usize,
    pub hypervolume: f64,
    pub expected_utility: f64,
}

/// Which point serves a trade-off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Served {
    pub weights: Vec<f64>,
    pub point: usize,
}

/// What a method offers, and how often it was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct MenuReport {
    pub offers: usize,
    /// Training questions on which each was tried.
    pub questions: usize,
    /// Work of trying them; about the same for every method, and not part of its budget.
    pub work: Work,
}

/// The best offer for each trade-off, by the reward model on training questions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ChosenFront {
    pub points: Vec<FrontPoint>,
    pub hypervolume: f64,
    #[serde(default)]
    pub interval: [f64; 2],
    pub expected_utility: f64,
    #[serde(default)]
    pub utility_interval: [f64; 2],
}

impl FrontReport {
    /// What users with these weights get at best: by the chosen prompts where there are some. 0 where it was not measured.
    pub fn served_utility(&self) -> f64 {
        self.chosen.as_ref().map(|c| c.expected_utility).or(self.expected_utility).unwrap_or(0.0)
    }
}

/// Mean over trade-offs of `sum_i w_i u_i`. `served`: weights of all objectives, and the utilities that serve them, of the
/// `steered` objectives.
///
/// ```
/// use moslim_shared::summary::expected_utility;
/// // Objectives 0 and 2 are steered; weights are of all three.
/// let served = [(&[1.0, 0.0, 0.0][..], &[0.8, 0.1][..]), (&[0.25, 0.0, 0.75], &[0.4, 0.6])];
/// assert!((expected_utility(&served, &[0, 2]) - (0.8 + 0.55) / 2.0).abs() < 1e-12);
/// assert_eq!(expected_utility(&[], &[0]), 0.0);
/// ```
pub fn expected_utility(served: &[(&[f64], &[f64])], steered: &[usize]) -> f64 {
    let weighted = |(weights, utility): &(&[f64], &[f64])| {
        steered.iter().zip(*utility).map(|(&i, u)| weights.get(i).copied().unwrap_or(0.0) * u).sum::<f64>()
    };
    served.iter().map(weighted).sum::<f64>() / served.len().max(1) as f64
}

/// What a policy reaches between the objectives at a step of its optimisation, as the reward model sees answers to training questions.
/// What is kept of the menu is chosen on other training questions than `points` are measured on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct FrontSeen {
    /// Iterations before it; 0 is the policy that optimisation starts from.
    pub step: usize,
    /// Objectives of the coordinates, those that are steered.
    pub objectives: Vec<String>,
    /// What the prompts asked for.
    pub asked: Vec<Preference>,
    /// How much each objective weighed in them, `[offer][objective]`; nothing for those that asked for classes, as all do where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<Vec<f64>>,
    /// Mean utilities, `[offer][steered objective]`, from 0 (worst class) to 1 (best).
    pub points: Vec<Vec<f64>>,
    /// Of the points, over the worst class everywhere.
    pub hypervolume: f64,
}

/// A point of the trade-off between reward and KL during training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct KlPoint {
    pub step: usize,
    /// Nats per answer.
    pub kl: f64,
    /// Mean score, what the optimiser sees.
    pub proxy: f64,
    /// Share of the classes asked for that the reward model finds met.
    pub proxy_hit_rate: f64,
    /// The same by the gold grader, which has no part in policy optimisation; where there is one.
    #[serde(default)]
    pub gold_hit_rate: Option<f64>,
    /// The same by a reward model of another seed, which has none either; where there is one.
    #[serde(default)]
    pub held_out_hit_rate: Option<f64>,
}

impl ControlReport {
    /// Mean of the heads' rank correlations.
    pub fn mean_spearman(&self) -> f64 {
        self.mean(|h| h.spearman)
    }

    /// Mean of the heads' hit rates.
    pub fn mean_hit_rate(&self) -> f64 {
        self.mean(|h| h.hit_rate)
    }

    fn mean(&self, f: impl Fn(&ControlHead) -> f64) -> f64 {
        self.heads.iter().map(f).sum::<f64>() / self.heads.len().max(1) as f64
    }
}

/// Who grades answers in an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Grader {
    /// The task's rules.
    #[default]
    Gold,
    /// The reward model that the policy was optimised for.
    RewardModel,
    /// A reward model of another seed that no policy was optimised for.
    HeldOutRewardModel,
}

impl Grader {
    /// Name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Gold => "gold grader",
            Self::RewardModel => "reward model",
            Self::HeldOutRewardModel => "held-out reward model",
        }
    }
}

/// Whose answers an evaluation is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Answerer {
    /// The SFT policy, asked without tags; an off-the-shelf model, asked as the policy is.
    Sft,
    /// What the method trained.
    #[default]
    Policy,
}

/// Control of the trained policy and of the SFT baseline, by one grader.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ControlSummary {
    #[serde(alias = "judge")]
    pub grader: Grader,
    pub policy: ControlReport,
    pub sft: ControlReport,
}

/// What policy optimisation consumed and reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct PolicySummary {
    /// Answers sampled for training.
    pub samples: u64,
    /// Answer tokens sampled for training.
    pub tokens: u64,
    /// KL from the reference policy at the end, nats per answer.
    pub kl: f64,
    /// Mean scalar reward over the first tenth of the iterations.
    pub reward_first: f64,
    /// Mean scalar reward over the last tenth of the iterations.
    pub reward_last: f64,
}

/// The summary of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct RunSummary {
    pub run: String,
    pub preset: String,
    pub seed: u64,
    pub device: String,
    pub seconds: StageSeconds,
    pub reward_model: RewardModelReport,
    /// The held-out reward model on the same rows, where there is one: what its grades are worth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_reward_model: Option<RewardModelReport>,
    pub control: ControlSummary,
    /// The same answers as graded by the reward model that trained the policy.
    pub control_reward_model: ControlSummary,
    pub policy: PolicySummary,
    /// SHA-256 over reward model, temperatures and statistics, frozen before policy optimisation.
    pub reward_hash: String,
    #[serde(default)]
    pub method: Method,
    #[serde(default)]
    pub optimizer: PolicyOptimizer,
    #[serde(default)]
    pub front: FrontReport,
    #[serde(default)]
    pub compute: ComputeReport,
    /// Reward against KL while the (last) policy was trained.
    #[serde(default)]
    pub kl_frontier: Vec<KlPoint>,
}

impl RunSummary {
    /// What the grades of a held-out reward model are worth, as a sentence: its own agreement with people, head by head. `None` where rules
    /// grade.
    pub fn judge(&self) -> Option<String> {
        let judge = self.held_out_reward_model.as_ref().filter(|_| self.control.grader == Grader::HeldOutRewardModel)?;
        let rows = judge.heads.iter().map(|h| h.n).max().unwrap_or(0);
        let heads: Vec<String> = judge.heads.iter().map(|h| format!("{} {:.2}", h.objective, h.qwk)).collect();
        Some(format!(
            "No rules can grade these answers. A reward model does that no policy was trained on; its quadratic weighted kappa with the labels \
             of {rows} test rows is {}.",
            heads.join(", ")
        ))
    }
}
