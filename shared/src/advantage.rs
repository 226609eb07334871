//! Advantages: how much better a sample is than what was to be expected, for every optimiser.
//!
//! Group functions take the rewards of one group: samples of one prompt with one preference. A mixed group has no common
//! baseline.

/// REINFORCE leave-one-out (Ahmadian et al. 2024, eq. 5): `A_j = r_j - mean of the other rewards of the group`.
///
/// All rewards must belong to one prompt with one preference: a mixed group has no common baseline.
/// A group of fewer than two samples has no baseline and gets zeros.
///
/// ```
/// use moslim_shared::advantage::rloo;
/// // The others of the first sample earned 0 and 2: one on average.
/// assert_eq!(rloo(&[4.0, 0.0, 2.0]), [3.0, -3.0, 0.0]);
/// assert_eq!(rloo(&[4.0]), [0.0]);
/// ```
pub fn rloo(rewards: &[f64]) -> Vec<f64> {
    let n = rewards.len() as f64;
    if rewards.len() < 2 {
        return vec![0.0; rewards.len()];
    }
    let sum: f64 = rewards.iter().sum();
    rewards.iter().map(|r| r - (sum - r) / (n - 1.0)).collect()
}

/// Leave-one-out over the tokens of one group: from every token's advantage, `[sample][token]`, the mean over the tokens of the group's
/// other samples is taken. It is what a critic of one prompt and preference is wrong by, and knows nothing of the sample itself. A
/// group of fewer than two samples gets zeros.
///
/// ```
/// use moslim_shared::advantage::rloo_of_tokens;
/// let group = [vec![1.0, 2.0], vec![3.0], vec![0.0, 0.0, 2.0]];
/// assert_eq!(rloo_of_tokens(&group), [vec![-0.25, 0.75], vec![2.0], vec![-2.0, -2.0, 0.0]]);
/// assert_eq!(rloo_of_tokens(&group[..1]), [[0.0, 0.0]]);
/// ```
pub fn rloo_of_tokens(advantages: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let sums: Vec<f64> = advantages.iter().map(|a| a.iter().sum()).collect();
    let (sum, tokens) = (sums.iter().sum::<f64>(), advantages.iter().map(Vec::len).sum::<usize>());
    let without = |own: &Vec<f64>, own_sum: f64| {
        let others = tokens - own.len();
        let mean = (sum - own_sum) / others.max(1) as f64;
        own.iter().map(|a| if others == 0 { 0.0 } else { a - mean }).collect()
    };
    advantages.iter().zip(sums).map(|(own, own_sum)| without(own, own_sum)).collect()
}

/// Added to a deviation before it divides, as in GRPO's reference code.
const EPSILON: f64 = 1e-4;

/// Mean and deviation with Bessel's correction; the deviation of fewer than two numbers is 0.
fn mean_and_std(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (mean, if values.len() < 2 { 0.0 } else { (squares / (n - 1.0)).sqrt() })
}

/// GRPO (Shao et al. 2024): distance from the group's mean in deviations of the group.
///
/// ```
/// use moslim_shared::advantage::grpo;
/// let advantages = grpo(&[0.0, 2.0]);
/// assert!((advantages[1] - 0.7070).abs() < 1e-4 && advantages[0] == -advantages[1]);
/// ```
pub fn grpo(rewards: &[f64]) -> Vec<f64> {
    let (mean, std) = mean_and_std(rewards);
    rewards.iter().map(|r| (r - mean) / (std + EPSILON)).collect()
}

/// Dr. GRPO (Liu et al. 2025): distance from the group's mean. Dividing by the group's deviation would give questions that
/// are almost solved, or almost never, more weight than the others.
///
/// ```
/// use moslim_shared::advantage::dr_grpo;
/// assert_eq!(dr_grpo(&[0.0, 2.0, 4.0]), [-2.0, 0.0, 2.0]);
/// ```
pub fn dr_grpo(rewards: &[f64]) -> Vec<f64> {
    let (mean, _) = mean_and_std(rewards);
    rewards.iter().map(|r| r - mean).collect()
}

/// The group-wise half of GDPO (2026): every objective is standardised within the group before they are added, so that
/// different mixtures of rewards keep different advantages. `rewards[sample][objective]`, `None` where an objective is not
/// asked for. Returns one number a sample; [`standardise`] over the whole batch follows.
///
/// ```
/// use moslim_shared::advantage::gdpo;
/// // The second objective pays a hundred times as much, and counts as much as the first.
/// let advantages = gdpo(&[vec![Some(1.0), Some(0.0)], vec![Some(0.0), Some(100.0)]]);
/// assert!(advantages.iter().all(|a| a.abs() < 1e-3));
/// ```
pub fn gdpo(rewards: &[Vec<Option<f64>>]) -> Vec<f64> {
    let mut sums = vec![0.0; rewards.len()];
    let objectives = rewards.first().map_or(0, Vec::len);
    for i in 0..objectives {
        let present: Vec<f64> = rewards.iter().filter_map(|r| r[i]).collect();
        let (mean, std) = mean_and_std(&present);
        for (sum, r) in sums.iter_mut().zip(rewards) {
            *sum += r[i].map_or(0.0, |r| (r - mean) / (std + EPSILON));
        }
    }
    sums
}

/// Weights on the simplex for which the weighted sum of `vectors` is shortest (the min-norm problem of multi-objective optimisation,
/// Sener & Koltun 2018), by Frank-Wolfe steps with exact line search. `vectors[objective][sample]`: advantages of each objective, which
/// are the gradients of its surrogate by the log-probabilities of the samples: that is where MOC (He et al. 2026) balances objectives.
/// An objective whose advantages are large gets a small weight; one without any is left out.
///
/// ```
/// use moslim_shared::advantage::min_norm_weights;
/// // The shortest mixture of two vectors at a right angle, of lengths 1 and 2: four fifths of the shorter.
/// let weights = min_norm_weights(&[vec![1.0, 0.0], vec![0.0, 2.0]]);
/// assert!((weights[0] - 0.8).abs() < 1e-6 && (weights[1] - 0.2).abs() < 1e-6);
/// // Where one is shorter than every mixture, it takes all.
/// assert_eq!(min_norm_weights(&[vec![1.0, 0.0], vec![2.0, 0.0]]), [1.0, 0.0]);
/// assert_eq!(min_norm_weights(&[vec![0.0, 0.0], vec![2.0, 1.0]]), [0.0, 1.0]);
/// ```
pub fn min_norm_weights(vectors: &[Vec<f64>]) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let gram: Vec<Vec<f64>> = vectors.iter().map(|a| vectors.iter().map(|b| dot(a, b)).collect()).collect();
    let alive: Vec<usize> = (0..vectors.len()).filter(|&i| gram[i][i] > 1e-12).collect();
    let mut weights = vec![0.0; vectors.len()];
    if alive.is_empty() {
        return weights;
    }
    alive.iter().for_each(|&i| weights[i] = 1.0 / alive.len() as f64);
    for _ in 0..500 {
        // Slope of half the squared length along each weight; the steepest way down is towards one corner.
        let slope = |i: usize, w: &[f64]| dot(&gram[i], w);
        let corner =
            alive.iter().copied().fold(alive[0], |best, i| if slope(i, &weights) < slope(best, &weights) { i } else { best });
        // Between here and the corner, the length is a parabola: exact minimum, within the segment.
        let (here, there) = (alive.iter().map(|&i| weights[i] * slope(i, &weights)).sum::<f64>(), slope(corner, &weights));
        let curvature = here - 2.0 * there + gram[corner][corner];
        if here - there < 1e-9 || curvature <= 0.0 {
            break;
        }
        let step = ((here - there) / curvature).min(1.0);
        weights.iter_mut().enumerate().for_each(|(i, w)| *w = (1.0 - step) * *w + if i == corner { step } else { 0.0 });
    }
    weights
}

/// Distance from the mean of all `values`, in deviations: GDPO's second half and REINFORCE++'s batch normalisation.
///
/// ```
/// use moslim_shared::advantage::standardise;
/// let mut values = [1.0, 2.0, 3.0];
/// standardise(&mut values);
/// assert!(values[1] == 0.0 && (values[2] - 1.0).abs() < 1e-3);
/// ```
pub fn standardise(values: &mut [f64]) {
    let (mean, std) = mean_and_std(values);
    values.iter_mut().for_each(|v| *v = (*v - mean) / (std + EPSILON));
}

/// Per-token rewards of one answer: `-beta k1_t`, and the score on the last token (the end of sequence where there is one).
///
/// ```
/// use moslim_shared::advantage::token_rewards;
/// assert_eq!(token_rewards(1.0, &[0.5, -0.5], 0.5), [-0.25, 1.25]);
/// ```
pub fn token_rewards(score: f64, log_ratios: &[f64], beta: f64) -> Vec<f64> {
    let mut rewards: Vec<f64> = log_ratios.iter().map(|k1| -beta * k1).collect();
    if let Some(last) = rewards.last_mut() {
        *last += score;
    }
    rewards
}

/// Generalised advantage estimation (Schulman et al. 2016). `values[t]` is read before token `t`; after the last token the
/// value is 0. Returns advantages and value targets `A_t + V_t`, the latter before any whitening.
///
/// ```
/// use moslim_shared::advantage::gae;
/// let (advantages, returns) = gae(&[0.0, 1.0], &[0.5, 0.5], 1.0, 1.0);
/// assert_eq!((advantages, returns), (vec![0.5, 0.5], vec![1.0, 1.0]));
/// ```
pub fn gae(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> (Vec<f64>, Vec<f64>) {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        next_advantage = delta + gamma * lambda * next_advantage;
        advantages[t] = next_advantage;
        next_value = values[t];
    }
    let returns = advantages.iter().zip(values).map(|(a, v)| a + v).collect();
    (advantages, returns)
}

/// Sum of the rewards from each token on, discounted by `gamma`.
///
/// ```
/// use moslim_shared::advantage::reward_to_go;
/// assert_eq!(reward_to_go(&[1.0, 0.0, 4.0], 0.5), [2.0, 2.0, 4.0]);
/// ```
pub fn reward_to_go(rewards: &[f64], gamma: f64) -> Vec<f64> {
    let mut out = rewards.to_vec();
    for t in (0..out.len().saturating_sub(1)).rev() {
        out[t] += gamma * out[t + 1];
    }
    out
}

/// Whitens advantages over all tokens of a batch: mean 0, unbiased variance 1. Fewer than two tokens are left alone.
///
/// ```
/// use moslim_shared::advantage::whiten;
/// let mut values = [1.0, 3.0];
/// whiten(&mut values);
/// assert!((values[1] - 0.5f64.sqrt()).abs() < 1e-6 && values[0] == -values[1]);
/// ```
pub fn whiten(values: &mut [f64]) {
    if values.len() < 2 {
        return;
    }
    let (mean, std) = mean_and_std(values);
    let scale = 1.0 / (std * std + 1e-8).sqrt();
    values.iter_mut().for_each(|v| *v = (*v - mean) * scale);
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

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (a, b) in got.iter().zip(want) {
            assert!((a - b).abs() < 1e-5, "{got:?} is not {want:?}");
        }
    }

    #[test]
    fn group_advantages_match_the_vectors() {
        let rewards = [1.0, 0.0, 0.5, 2.5];
        close(&grpo(&rewards), &[0.0, -0.925734, -0.462867, 1.388602]);
        close(&dr_grpo(&rewards), &[0.0, -1.0, -0.5, 1.5]);
        assert_eq!(grpo(&[0.7, 0.7]), [0.0, 0.0], "a group without differences teaches nothing");
    }

    #[test]
    fn ppo_rewards_advantages_and_whitening_match_the_vectors() {
        let rewards = token_rewards(1.0, &[0.2, -0.1, -0.5], 0.1);
        close(&rewards, &[-0.02, 0.01, 1.05]);
        let (mut advantages, returns) = gae(&rewards, &[0.2, 0.1, 0.3], 1.0, 0.95);
        close(&advantages, &[0.756375, 0.9225, 0.75]);
        close(&returns, &[0.956375, 1.0225, 1.05]);
        whiten(&mut advantages);
        close(&advantages, &[-0.544453, 1.154087, -0.609634]);
        close(&reward_to_go(&rewards, 0.5), &[-0.02 + 0.5 * (0.01 + 0.5 * 1.05), 0.01 + 0.5 * 1.05, 1.05]);
    }

    #[test]
    fn min_norm_weights_are_optimal() {
        let vectors = [vec![1.0, 0.2, -0.4], vec![-0.3, 0.8, 0.5], vec![0.1, -0.6, 0.9]];
        let weights = min_norm_weights(&vectors);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9 && weights.iter().all(|w| *w >= 0.0));
        let length = |w: &[f64]| {
            let sum = |s: usize| w.iter().zip(&vectors).map(|(w, v)| w * v[s]).sum::<f64>();
            (0..3).map(|s| sum(s).powi(2)).sum::<f64>()
        };
        // No nearby point of the simplex is shorter.
        for (i, j) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
            let mut moved = weights.clone();
            let by = 0.01f64.min(moved[j]);
            moved[i] += by;
            moved[j] -= by;
            assert!(length(&moved) >= length(&weights) - 1e-9, "{weights:?} {moved:?}");
        }
        assert_eq!(min_norm_weights(&[]), Vec::<f64>::new());
        assert_eq!(min_norm_weights(&[vec![0.0; 2]]), [0.0]);
    }

    #[test]
    fn discounts_and_decays_are_not_each_other() {
        // gamma 0.9 and lambda 0.8: their product decays advantages, gamma alone discounts values.
        let (advantages, returns) = gae(&[1.0, 2.0, 3.0], &[0.5, 1.0, 1.5], 0.9, 0.8);
        close(&advantages, &[3.8696, 3.43, 1.5]);
        close(&returns, &[4.3696, 4.43, 3.0]);
        // With lambda 0 only the next value counts.
        close(&gae(&[1.0, 2.0], &[0.5, 1.0], 0.9, 0.0).0, &[1.4, 1.0]);
        assert_eq!(gae(&[], &[], 0.9, 0.8), (vec![], vec![]));
        assert!(token_rewards(1.0, &[], 0.1).is_empty());
    }

    #[test]
    fn batches_are_standardised_with_bessels_correction() {
        let mut values = [1.0, 2.0, 4.0];
        standardise(&mut values);
        for (a, b) in values.iter().zip([-0.872872, -0.218218, 1.091089]) {
            assert!((a - b).abs() < 2e-4, "{values:?}");
        }
        let mut alone = [3.0];
        whiten(&mut alone);
        assert_eq!(alone, [3.0]);
    }

    #[test]
    fn objectives_that_are_not_asked_for_stay_out_of_gdpo() {
        let rewards = [vec![Some(1.0), None], vec![Some(3.0), Some(2.0)], vec![Some(5.0), Some(6.0)]];
        for (a, b) in gdpo(&rewards).iter().zip([-1.0, -std::f64::consts::FRAC_1_SQRT_2, 1.0 + std::f64::consts::FRAC_1_SQRT_2]) {
            assert!((a - b).abs() < 2e-4, "{a} is not {b}");
        }
        assert!(gdpo(&[]).is_empty());
    }

    #[test]
    fn gdpo_keeps_apart_what_a_sum_would_make_equal() {
        // Three samples earn (1, 0), (0, 1) and (0, 0) in sum-then-normalise: the first two are equal there.
        let rewards = |scale: f64| {
            [[1.0, 0.0], [0.0, scale], [0.0, 0.0], [0.0, scale]].map(|r| r.iter().map(|&x| Some(x)).collect::<Vec<_>>())
        };
        let got = gdpo(&rewards(1.0));
        assert!(got[0] > got[1] + 0.1, "the rarer success counts more: {got:?}");
        close(&gdpo(&rewards(1.0)), &gdpo(&rewards(1.0)));
        // The size of an objective's rewards does not matter (but for the epsilon).
        for (a, b) in got.iter().zip(gdpo(&rewards(100.0))) {
            assert!((a - b).abs() < 1e-3);
        }
        assert_eq!(gdpo(&[vec![None, None], vec![None, None]]), [0.0, 0.0]);
        let mut batch = [1.0, 2.0, 3.0];
        standardise(&mut batch);
        assert!((batch[2] - 1.0 / 1.0001).abs() < 1e-9 && batch[1].abs() < 1e-12);
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
                ..Default::default()
            };
            let rewards: Vec<f64> =
                answers.iter().map(|a| map_reward(&config, &statistics, &a.map(|h| h.to_vec()), &preference).scalar).collect();
            [rloo(&rewards), grpo(&rewards), dr_grpo(&rewards)]
        };
        for (a, b) in advantages(0.0).concat().iter().zip(advantages(0.3).concat()) {
            assert!((a - b).abs() < 1e-9);
        }
    }
}
