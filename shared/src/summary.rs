//! What a finished run reports: the contract of `moslim-lab train --json` and of `GET /api/v1/runs/{id}`.

use serde::{Deserialize, Serialize};

/// Wall seconds per stage. A stage taken from the cache counts the seconds it took to load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageSeconds {
    pub sft: f64,
    pub reward_model: f64,
    pub calibration: f64,
    pub policy: f64,
    pub evaluation: f64,
    pub total: f64,
}

/// One head of the reward model on the test split, after calibration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RewardHeadReport {
    pub objective: String,
    pub classes: usize,
    /// Labelled rows.
    pub n: usize,
    pub accuracy: f64,
    /// Share of the most frequent class: what always guessing it would score.
    pub majority: f64,
    pub macro_f1: f64,
    /// Quadratic weighted kappa.
    pub qwk: f64,
    /// Expected calibration error, 15 equal-width bins, after temperature scaling.
    pub ece: f64,
    /// The same before temperature scaling.
    pub ece_uncalibrated: f64,
    /// Fitted temperature.
    pub temperature: f64,
    /// `confusion[label][predicted]`, counts.
    pub confusion: Vec<Vec<u64>>,
}

/// The reward model's report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RewardModelReport {
    pub heads: Vec<RewardHeadReport>,
}

/// Control over one objective: asked for against achieved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ControlHead {
    pub objective: String,
    /// Answers judged.
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
}

/// Control over all objectives by one policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ControlReport {
    pub heads: Vec<ControlHead>,
    /// Share of answers that meet every class asked for, when several objectives are asked for together.
    pub joint_hit_rate: f64,
    /// Hit rate over the objectives of combinations that were kept out of training.
    pub held_out_hit_rate: f64,
    /// Hit rate over the objectives of combinations that were trained on, for comparison with `held_out_hit_rate`.
    pub trained_hit_rate: f64,
    /// Share of answers that the gold judge finds fluent.
    pub fluency: f64,
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

/// Control of the trained policy and of the SFT baseline, by one judge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ControlSummary {
    /// `gold` (the world's rules) or `reward_model`.
    pub judge: String,
    pub policy: ControlReport,
    pub sft: ControlReport,
}

/// What policy optimisation consumed and reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
pub struct RunSummary {
    pub run: String,
    pub preset: String,
    pub seed: u64,
    pub device: String,
    pub seconds: StageSeconds,
    pub reward_model: RewardModelReport,
    pub control: ControlSummary,
    /// The same answers as judged by the reward model that trained the policy.
    pub control_reward_model: ControlSummary,
    pub policy: PolicySummary,
    /// SHA-256 over reward model, temperatures and statistics, frozen before policy optimisation.
    pub reward_hash: String,
}
