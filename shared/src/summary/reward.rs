//! How well a reward model grades.

use crate::metrics::ReliabilityBin;
use serde::{Deserialize, Serialize};

/// One head of the reward model on the test split, after calibration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
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
    /// Share of predictions at most one class away.
    #[serde(default)]
    pub within_one: f64,
    /// Mean absolute error of `E[c]`, in classes.
    #[serde(default)]
    pub mae: f64,
    /// Spearman's rank correlation of `E[c]` and label.
    #[serde(default)]
    pub spearman: f64,
    /// Mean negative log-likelihood, nats.
    #[serde(default)]
    pub nll: f64,
    /// Brier score, summed over classes.
    #[serde(default)]
    pub brier: f64,
    /// Share of pairs of answers to one question that `E[c]` orders like their labels; comparable with Bradley-Terry models.
    #[serde(default)]
    pub pairwise_accuracy: f64,
    /// Rank correlation of `E[c]` with the number of tokens.
    #[serde(default)]
    pub length_correlation: f64,
    /// Rank correlation of the labels with the number of tokens: what counting alone would reach.
    #[serde(default)]
    pub label_length_correlation: f64,
    /// Labels per class.
    #[serde(default)]
    pub histogram: Vec<u64>,
    /// Reliability diagram, after calibration.
    #[serde(default)]
    pub reliability: Vec<ReliabilityBin>,
    /// `confusion[label][predicted]`, counts.
    pub confusion: Vec<Vec<u64>>,
}

/// A rank correlation with the labels that is above that of length by no more than this is little more than counting.
const MORE_THAN_LENGTH: f64 = 0.05;
/// A rank correlation of labels with length below which length explains nothing.
const LENGTH_MATTERS: f64 = 0.3;

/// A head whose kappa rises by this much with twice the rows would rise further with more.
const RISES: f64 = 0.05;

/// Whether more labels would help a head whose kappa was `before` with fewer rows and is `now`.
pub fn still_rises(before: f64, now: f64) -> bool {
    now - before >= RISES
}

/// Whether what orders answers like their labels as well as `spearman` says could as well count tokens, whose rank correlation with the labels
/// is `length`: a policy would learn to write longer, or shorter.
pub fn mostly_length(spearman: f64, length: f64) -> bool {
    length.abs() >= LENGTH_MATTERS && spearman < length.abs() + MORE_THAN_LENGTH
}

/// The reward model's report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct RewardModelReport {
    pub heads: Vec<RewardHeadReport>,
    /// Cosines between the heads' gradients on the shared trunk; negative ones interfere. Empty for separate models.
    #[serde(default)]
    pub gradient_cosines: Vec<Vec<f64>>,
    /// Quadratic weighted kappa of each head on parts of the test split that differ in what training knew of them.
    #[serde(default)]
    pub parts: Vec<RewardPartReport>,
}

/// The heads on one part of the test split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct RewardPartReport {
    pub part: String,
    /// Rows.
    pub n: usize,
    /// Quadratic weighted kappa per head.
    pub qwk: Vec<f64>,
}
