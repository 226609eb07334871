//! MOC's balance (He et al. 2026): objectives pull one policy in different directions, and the loudest would have its way. They are
//! weighed so that the weighted sum of their advantages is as short as possible, which no objective can dominate. The balance is
//! struck where the policy's log-probabilities are, not its weights: there an objective's gradient is its advantages, and costs nothing.

use super::rollout::Rollout;
use moslim_shared::advantage::{min_norm_weights, rloo};

/// Scores of all rollouts with balanced objectives: `k * sum_i lambda_i c_i + penalty`, `c_i` what objective `i` contributes and `k` the
/// number of objectives that weigh something, so that equal weights change nothing.
pub fn balanced_scores(rollouts: &[Rollout]) -> Vec<f64> {
    let objectives = rollouts.first().map_or(0, |r| r.contributions.len());
    let advantages: Vec<Vec<f64>> = (0..objectives)
        .map(|i| {
            let groups = rollouts.chunk_by(|a, b| a.prompt == b.prompt);
            groups.flat_map(|group| rloo(&group.iter().map(|r| r.contributions[i]).collect::<Vec<f64>>())).collect()
        })
        .collect();
    let weights = min_norm_weights(&advantages);
    let count = weights.iter().filter(|w| **w > 0.0).count() as f64;
    let score = |r: &Rollout| r.contributions.iter().zip(&weights).map(|(c, w)| count * w * c).sum::<f64>() + r.penalty;
    rollouts.iter().map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::update::tests::rollout;

    #[test]
    fn the_louder_objective_is_turned_down() {
        // Two prompts of two samples; the second objective pays ten times as much, for other samples.
        let contributions = [[1.0, 0.0], [0.0, 0.0], [0.0, 10.0], [0.0, 0.0]];
        let rollouts: Vec<Rollout> = contributions
            .iter()
            .enumerate()
            .map(|(n, c)| Rollout {
                contributions: c.to_vec(),
                penalty: if n == 1 { -1.0 } else { 0.0 },
                ..rollout(n / 2, 0.0, 1)
            })
            .collect();
        let scores = balanced_scores(&rollouts);
        // Weights 100/101 and 1/101, times two.
        assert!((scores[0] - 200.0 / 101.0).abs() < 1e-3 && (scores[2] - 20.0 / 101.0).abs() < 1e-3, "{scores:?}");
        assert_eq!((scores[1], scores[3]), (-1.0, 0.0));
        // Equally loud ones keep their say.
        let even: Vec<Rollout> = [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
            .iter()
            .enumerate()
            .map(|(n, c)| Rollout { contributions: c.to_vec(), ..rollout(n / 2, 0.0, 1) })
            .collect();
        assert!(balanced_scores(&even).iter().zip([1.0, 0.0, 1.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn an_objective_without_any_advantage_has_no_say_and_is_not_counted() {
        // The second pays the same for every sample; the first and the third are equally loud, and keep a weight of one each.
        let contributions = [[1.0, 5.0, 0.0], [0.0, 5.0, 0.0], [0.0, 5.0, 1.0], [0.0, 5.0, 0.0]];
        let rollouts: Vec<Rollout> = contributions
            .iter()
            .enumerate()
            .map(|(n, c)| Rollout { contributions: c.to_vec(), ..rollout(n / 2, 0.0, 1) })
            .collect();
        assert!(balanced_scores(&rollouts).iter().zip([1.0, 0.0, 1.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!(balanced_scores(&[]).is_empty());
    }
}
