//! A frozen, calibrated reward model with the statistics of its mapping: what turns answers into rewards.

use super::RewardModel;
use crate::model::kernels::Kernels;
use crate::model::packed::{Group, Packed, chunks, map};
use moslim_shared::distribution::softmax;
use moslim_shared::mapping::{MappedReward, MappingConfig, RewardStatistics, map_reward};
use moslim_shared::preference::Preference;
use serde::{Deserialize, Serialize};

/// Logits per answer and head, in order. `groups`: untagged questions and answers with their end-of-sequence.
pub fn logits<B: Kernels>(model: &RewardModel<B>, groups: &[Group]) -> Vec<Vec<Vec<f64>>> {
    let pieces = chunks::<B, _>(groups, Group::tokens);
    let classes = model.classes();
    let width: usize = classes.iter().sum();
    let values = map::<B, _, _, _>(model, pieces, |model, groups| {
        model.logits(&Packed::new(groups)).into_data().to_vec::<f32>().expect("logits are f32")
    });
    let heads = |row: &[f32]| {
        let mut rest = row;
        let mut out = Vec::with_capacity(classes.len());
        for &count in classes {
            let (head, tail) = rest.split_at(count);
            out.push(head.iter().map(|&l| l as f64).collect());
            rest = tail;
        }
        out
    };
    values.iter().flat_map(|v| v.chunks(width)).map(heads).collect()
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
}

/// Reward model and calibration together.
#[derive(Debug)]
pub struct Judge<B: Kernels> {
    pub model: RewardModel<B>,
    pub calibration: Calibration,
}

impl<B: Kernels> Judge<B> {
    /// Calibrated class distributions, `[answer][objective][class]`.
    pub fn distributions(&self, groups: &[Group]) -> Vec<Vec<Vec<f64>>> {
        logits(&self.model, groups)
            .into_iter()
            .map(|heads| heads.iter().zip(&self.calibration.temperatures).map(|(l, &t)| softmax(l, t)).collect())
            .collect()
    }

    /// The scalar for one row's distributions under a preference.
    pub fn reward(&self, distributions: &[Vec<f64>], preference: &Preference) -> MappedReward {
        map_reward(&self.calibration.mapping, &self.calibration.statistics, distributions, preference)
    }
}
