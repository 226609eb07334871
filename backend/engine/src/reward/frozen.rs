//! A frozen, calibrated reward model with the statistics of its mapping: what turns answers into rewards.

use super::RewardModel;
use crate::model::kernels::Kernels;
use crate::model::packed::{Group, Packed, chunks, share};
use burn::prelude::*;
use moslim_shared::mapping::{MappingConfig, RewardStatistics};
use moslim_shared::ordinal::RewardLoss;
use serde::{Deserialize, Serialize};

/// Outputs per answer and head, in order. `groups`: untagged questions and answers with their end-of-sequence.
pub fn outputs<B: Kernels>(model: &RewardModel<B>, groups: &[Group]) -> Vec<Vec<Vec<f64>>> {
    let pieces = chunks::<B, _>(groups, Group::tokens);
    let values = share::<B, _, _, _>(model, pieces, |model, groups| values(model.outputs(&Packed::new(groups))));
    values.iter().flat_map(|values| by_head(values, &model.widths())).collect()
}

/// Outputs per answer and head, and the same before every token of every answer.
fn outputs_and_beginnings<B: Kernels>(model: &RewardModel<B>, groups: &[Group]) -> [Vec<Vec<Vec<f64>>>; 2] {
    let pieces = chunks::<B, _>(groups, Group::tokens);
    let read = share::<B, _, _, _>(model, pieces, |model, groups| {
        let [whole, begun] = model.outputs_and_beginnings(&Packed::new(groups));
        [values(whole), values(begun)]
    });
    [0, 1].map(|n| read.iter().flat_map(|r| by_head(&r[n], &model.widths())).collect())
}

fn values<B: Backend>(outputs: Tensor<B, 2>) -> Vec<f32> {
    outputs.into_data().to_vec().expect("outputs are f32")
}

/// Rows of outputs, head by head. `widths`: outputs of each head.
fn by_head(values: &[f32], widths: &[usize]) -> Vec<Vec<Vec<f64>>> {
    let heads = |row: &[f32]| {
        let mut rest = row;
        let mut out = Vec::with_capacity(widths.len());
        for &count in widths {
            let (head, tail) = rest.split_at(count);
            out.push(head.iter().map(|&l| l as f64).collect());
            rest = tail;
        }
        out
    };
    values.chunks(widths.iter().sum()).map(heads).collect()
}

/// What is frozen with the reward model before policy optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Temperature per head.
    pub temperatures: Vec<f64>,
    pub statistics: RewardStatistics,
    pub mapping: MappingConfig,
    /// SHA-256 over the reward model's weights and all of the above.
    pub hash: String,
    /// What the heads put out.
    #[serde(default)]
    pub loss: RewardLoss,
    /// Classes per head.
    #[serde(default)]
    pub classes: Vec<usize>,
    /// Scores between classes per head, for Bradley-Terry.
    #[serde(default)]
    pub thresholds: Vec<Vec<f64>>,
}

impl Calibration {
    /// That of heads trained by cross-entropy, before anything is fitted: temperatures of 1, and no statistics. `classes`: of each head.
    pub fn unfitted(classes: Vec<usize>) -> Self {
        Self {
            temperatures: vec![1.0; classes.len()],
            statistics: RewardStatistics::default(),
            mapping: MappingConfig::default(),
            hash: String::new(),
            loss: RewardLoss::CrossEntropy,
            classes,
            thresholds: Vec::new(),
        }
    }

    /// Calibrated class distributions of one answer: `[head][class]`.
    pub fn distributions(&self, outputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        outputs
            .iter()
            .enumerate()
            .map(|(h, o)| {
                let classes = self.classes.get(h).copied().unwrap_or(o.len());
                let thresholds = self.thresholds.get(h).map_or(&[][..], Vec::as_slice);
                self.loss.distribution(o, classes, self.temperatures[h], thresholds)
            })
            .collect()
    }
}

/// Reward model and calibration together.
#[derive(Debug)]
pub struct FrozenRewardModel<B: Kernels> {
    /// One model with all heads, or one model for each objective, in order.
    pub models: Vec<RewardModel<B>>,
    pub calibration: Calibration,
}

/// Outputs of one shared model, or of several with one head each, `[answer][objective]`.
pub fn all_outputs<B: Kernels>(models: &[RewardModel<B>], groups: &[Group]) -> Vec<Vec<Vec<f64>>> {
    let mut out: Vec<Vec<Vec<f64>>> = outputs(&models[0], groups);
    for model in &models[1..] {
        add_heads(&mut out, outputs(model, groups));
    }
    out
}

/// Adds what the heads of a further model say, row by row.
fn add_heads(rows: &mut [Vec<Vec<f64>>], further: Vec<Vec<Vec<f64>>>) {
    rows.iter_mut().zip(further).for_each(|(row, further)| row.extend(further));
}

impl<B: Kernels> FrozenRewardModel<B> {
    /// Calibrated class distributions, `[answer][objective][class]`.
    pub fn distributions(&self, groups: &[Group]) -> Vec<Vec<Vec<f64>>> {
        all_outputs(&self.models, groups).iter().map(|row| self.calibration.distributions(row)).collect()
    }

    /// The same, and what the heads expect before every token of every answer: `[token][objective][class]`, answer after answer.
    pub fn distributions_and_beginnings(&self, groups: &[Group]) -> [Vec<Vec<Vec<f64>>>; 2] {
        let mut all = outputs_and_beginnings(&self.models[0], groups);
        for model in &self.models[1..] {
            let further = outputs_and_beginnings(model, groups);
            all.iter_mut().zip(further).for_each(|(rows, further)| add_heads(rows, further));
        }
        all.map(|rows| rows.iter().map(|row| self.calibration.distributions(row)).collect())
    }
}
