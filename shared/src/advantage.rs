//! Advantages: how much better a sample is than the others drawn for the same prompt and preference.

/// REINFORCE leave-one-out (Ahmadian et al. 2024, eq. 5): `A_j = r_j - mean of the other rewards of the group`.
///
/// All rewards must belong to one prompt with one preference: a mixed group has no common baseline.
/// A group of fewer than two samples has no baseline and gets zeros.
pub fn rloo(rewards: &[f64]) -> Vec<f64> {
    let n = rewards.len() as f64;
    if rewards.len() < 2 {
        return vec![0.0; rewards.len()];
    }
    let sum: f64 = rewards.iter().sum();
    rewards.iter().map(|r| r - (sum - r) / (n - 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{Divisor, MappingConfig, MappingFunction, RewardStatistics, map_reward};
    use crate::preference::Preference;

    #[test]
    fn rloo_matches_the_vector() {
        let got = rloo(&[1.0, 0.0, 0.5, 2.5]);
        for (a, b) in got.iter().zip([0.0, -1.333333, -0.666667, 2.0]) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn rloo_is_a_scaled_distance_from_the_mean() {
        let rewards = [0.3, -1.0, 4.0, 0.3, 2.0];
        let mean = rewards.iter().sum::<f64>() / 5.0;
        for (a, r) in rloo(&rewards).iter().zip(rewards) {
            assert!((a - 5.0 / 4.0 * (r - mean)).abs() < 1e-12);
        }
        assert_eq!(rloo(&[3.0]), vec![0.0]);
    }

    #[test]
    fn the_average_of_the_mapping_cancels_within_a_group() {
        let config = MappingConfig {
            function: MappingFunction::Moslim,
            divisor: Divisor::Objectives,
            std_floor: 0.0,
            z_clip: 100.0,
            ..Default::default()
        };
        let preference = Preference(vec![Some(1), Some(0)]);
        let answers = [[[0.2, 0.8], [0.5, 0.5]], [[0.6, 0.4], [0.9, 0.1]], [[0.1, 0.9], [0.3, 0.7]]];
        let advantages = |shift: f64| {
            let statistics = RewardStatistics {
                mean: vec![vec![0.4 + shift, 0.6 - shift], vec![0.5 + shift, 0.5]],
                std: vec![vec![0.2, 0.2], vec![0.1, 0.1]],
            };
            let rewards: Vec<f64> =
                answers.iter().map(|a| map_reward(&config, &statistics, &a.map(|h| h.to_vec()), &preference).scalar).collect();
            rloo(&rewards)
        };
        for (a, b) in advantages(0.0).iter().zip(advantages(0.3)) {
            assert!((a - b).abs() < 1e-9);
        }
    }
}
