//! A frozen, calibrated reward model with the statistics of its mapping: what turns answers into rewards.

use super::RewardModel;
use crate::model::kernels::Kernels;
use crate::model::transformer::Batch;
use moslim_shared::distribution::softmax;
use moslim_shared::mapping::{MappedReward, MappingConfig, RewardStatistics, map_reward};
use moslim_shared::preference::Preference;
use serde::{Deserialize, Serialize};

/// Rows scored at once.
const CHUNK: usize = 64;

/// Logits per row and head of sequences (untagged question, answer, end-of-sequence), in order.
pub fn logits<B: Kernels>(model: &RewardModel<B>, sequences: &[&[u32]], pad: u32) -> Vec<Vec<Vec<f64>>> {
    // Rows of like length share a chunk; results return to their places.
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| sequences[i].len());
    let mut out = vec![Vec::new(); sequences.len()];
    for chunk in order.chunks(CHUNK) {
        let views: Vec<&[u32]> = chunk.iter().map(|&i| sequences[i]).collect();
        let values: Vec<f32> = model.logits(&Batch::right_padded(&views, pad)).into_data().to_vec().expect("logits are f32");
        let width: usize = model.classes().iter().sum();
        for (row, &i) in values.chunks(width).zip(chunk) {
            let mut rest = row;
            for &count in model.classes() {
                let (head, tail) = rest.split_at(count);
                out[i].push(head.iter().map(|&l| l as f64).collect());
                rest = tail;
            }
        }
    }
    out
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
    pub pad: u32,
}

impl<B: Kernels> Judge<B> {
    /// Calibrated class distributions, `[row][objective][class]`.
    pub fn distributions(&self, sequences: &[&[u32]]) -> Vec<Vec<Vec<f64>>> {
        logits(&self.model, sequences, self.pad)
            .into_iter()
            .map(|heads| heads.iter().zip(&self.calibration.temperatures).map(|(l, &t)| softmax(l, t)).collect())
            .collect()
    }

    /// The scalar for one row's distributions under a preference.
    pub fn reward(&self, distributions: &[Vec<f64>], preference: &Preference) -> MappedReward {
        map_reward(&self.calibration.mapping, &self.calibration.statistics, distributions, preference)
    }
}
