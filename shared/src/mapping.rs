//! The mapping function: class distributions and a preference in, one scalar out.
//!
//! `r = 1/k * sum_i m_i * (f_i(p_i, t_i) - avg_i[t_i]) / std_i[t_i]` (MOSLIM, arXiv 2505.20336), where for MOSLIM itself
//! `f(p, t) = p[t]`, the probability of the class asked for. Nothing else in the project turns classes into a scalar.

use crate::distribution::{argmax, expected_class};
use crate::preference::Preference;
use serde::{Deserialize, Serialize};

/// What is read off a class distribution `p` for the class `t` asked for, before it is standardised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MappingFunction {
    /// `p[t]`, as in the paper.
    #[default]
    Moslim,
    /// `ln p[t]`, clipped at `ln 1e-4`: a strong push when far from the class asked for.
    Log,
    /// `-|E[c] - t| / (C - 1)`: uses the order of the classes.
    Expected,
    /// Negative ranked probability score, divided by `C - 1`: ordinal and proper.
    RankedProbability,
    /// `1` if the most probable class is `t`, else `0`: sparse.
    Argmax,
}

/// What the sum over objectives is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divisor {
    /// `k`, the number of objectives, as the paper prints it.
    Objectives,
    /// The number of objectives that the prompt asks for: the reward keeps its size when fewer are asked for.
    #[default]
    Active,
}

/// Over what `avg` and `std` are pooled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// One mean and deviation per objective and class.
    #[default]
    Class,
    /// One deviation per objective (classes pooled), a mean per class.
    Head,
}

/// Settings of the mapping function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MappingConfig {
    /// What is read off the distribution.
    pub function: MappingFunction,
    /// Divisor of the sum.
    pub divisor: Divisor,
    /// Population of the statistics.
    pub pooling: Pooling,
    /// Smallest standard deviation used (in units of the function); keeps rare classes from exploding.
    pub std_floor: f64,
    /// Each objective's z-score is clipped to `[-z_clip, z_clip]`.
    pub z_clip: f64,
}

impl Default for MappingConfig {
    fn default() -> Self {
        Self {
            function: MappingFunction::Moslim,
            divisor: Divisor::Active,
            pooling: Pooling::Class,
            std_floor: 0.05,
            z_clip: 5.0,
        }
    }
}

impl MappingFunction {
    /// Value for distribution `p` (length `C`) and class `t < C`.
    pub fn value(self, p: &[f64], t: usize) -> f64 {
        let span = (p.len().max(2) - 1) as f64;
        match self {
            Self::Moslim => p[t],
            Self::Log => p[t].max(1e-4).ln(),
            Self::Expected => -(expected_class(p) - t as f64).abs() / span,
            Self::RankedProbability => {
                let mut cumulative = 0.0;
                let mut score = 0.0;
                for (c, p) in p.iter().enumerate() {
                    cumulative += p;
                    let step = if t <= c { 1.0 } else { 0.0 };
                    score += (cumulative - step) * (cumulative - step);
                }
                -score / span
            }
            Self::Argmax => f64::from(argmax(p) == t),
        }
    }
}

/// Mean and standard deviation of the mapping's value per objective and class, over reference answers; frozen together
/// with the reward model before policy optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardStatistics {
    /// `mean[objective][class]`.
    pub mean: Vec<Vec<f64>>,
    /// `std[objective][class]`, not floored.
    pub std: Vec<Vec<f64>>,
}

impl RewardStatistics {
    /// One pass over `rows[answer][objective][class]`. Every objective of every row must have the same class count.
    pub fn over(config: &MappingConfig, rows: &[Vec<Vec<f64>>]) -> Self {
        let heads = rows.first().map_or(0, Vec::len);
        let n = rows.len().max(1) as f64;
        let (mut mean, mut std) = (Vec::new(), Vec::new());
        for i in 0..heads {
            let classes = rows[0][i].len();
            let (mut means, mut deviations) = (Vec::new(), Vec::new());
            for t in 0..classes {
                let values: Vec<f64> = rows.iter().map(|r| config.function.value(&r[i], t)).collect();
                let m = values.iter().sum::<f64>() / n;
                means.push(m);
                deviations.push((values.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / n).sqrt());
            }
            if config.pooling == Pooling::Head {
                let pooled = (deviations.iter().map(|s| s * s).sum::<f64>() / classes as f64).sqrt();
                deviations.fill(pooled);
            }
            mean.push(means);
            std.push(deviations);
        }
        Self { mean, std }
    }
}

/// The scalar that the optimiser uses, with what each objective added to it: `scalar = sum of contributions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MappedReward {
    /// The scalar reward, before the KL penalty.
    pub scalar: f64,
    /// Contribution per objective; 0 where the objective is masked.
    pub contributions: Vec<f64>,
}

/// Maps `distributions[objective][class]` under `preference` to one scalar. No objective asked for gives 0.
pub fn map_reward(
    config: &MappingConfig,
    statistics: &RewardStatistics,
    distributions: &[Vec<f64>],
    preference: &Preference,
) -> MappedReward {
    let divisor = match config.divisor {
        Divisor::Objectives => distributions.len().max(1),
        Divisor::Active => preference.active().max(1),
    } as f64;
    let mut contributions = vec![0.0; distributions.len()];
    for (i, t) in preference.asked() {
        let deviation = statistics.std[i][t].max(config.std_floor).max(1e-9);
        let z = (config.function.value(&distributions[i], t) - statistics.mean[i][t]) / deviation;
        contributions[i] = z.clamp(-config.z_clip, config.z_clip) / divisor;
    }
    MappedReward { scalar: contributions.iter().sum(), contributions }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-5, "{a} is not {b}");
    }

    fn vector() -> (RewardStatistics, Vec<Vec<f64>>, Preference) {
        let statistics = RewardStatistics {
            mean: vec![vec![0.0, 0.40], vec![0.35, 0.0], vec![0.70, 0.0]],
            std: vec![vec![1.0, 0.20], vec![0.15, 1.0], vec![0.10, 1.0]],
        };
        let distributions = vec![vec![0.38, 0.62], vec![0.25, 0.75], vec![0.90, 0.10]];
        (statistics, distributions, Preference(vec![Some(1), Some(0), None]))
    }

    #[test]
    fn the_mapping_matches_the_vectors() {
        let (statistics, distributions, preference) = vector();
        let mut config = MappingConfig { divisor: Divisor::Objectives, ..Default::default() };
        let reward = map_reward(&config, &statistics, &distributions, &preference);
        close(reward.contributions[0] * 3.0, 1.1);
        close(reward.contributions[1] * 3.0, -0.666667);
        assert_eq!(reward.contributions[2], 0.0);
        close(reward.scalar, 0.144444);
        config.divisor = Divisor::Active;
        close(map_reward(&config, &statistics, &distributions, &preference).scalar, 0.216667);
    }

    #[test]
    fn permuting_objectives_permutes_contributions() {
        let (statistics, distributions, preference) = vector();
        let config = MappingConfig::default();
        let before = map_reward(&config, &statistics, &distributions, &preference);
        let order = [2usize, 0, 1];
        let pick = |rows: &[Vec<f64>]| order.iter().map(|&i| rows[i].clone()).collect::<Vec<_>>();
        let after = map_reward(
            &config,
            &RewardStatistics { mean: pick(&statistics.mean), std: pick(&statistics.std) },
            &pick(&distributions),
            &Preference(order.iter().map(|&i| preference.0[i]).collect()),
        );
        close(before.scalar, after.scalar);
        for (j, &i) in order.iter().enumerate() {
            close(after.contributions[j], before.contributions[i]);
        }
    }

    #[test]
    fn guards_hold() {
        let statistics = RewardStatistics { mean: vec![vec![0.0, 0.0]], std: vec![vec![0.0, 0.0]] };
        let config = MappingConfig::default();
        let reward = map_reward(&config, &statistics, &[vec![0.0, 1.0]], &Preference(vec![Some(1)]));
        assert_eq!(reward.scalar, 5.0, "the z-score is clipped and a zero deviation is floored");
        let nothing = map_reward(&config, &statistics, &[vec![0.0, 1.0]], &Preference(vec![None]));
        assert_eq!(nothing.scalar, 0.0);
    }

    #[test]
    fn every_function_prefers_the_class_asked_for() {
        let on = [0.05, 0.05, 0.8, 0.1];
        let off = [0.8, 0.1, 0.05, 0.05];
        use MappingFunction::*;
        for f in [Moslim, Log, Expected, RankedProbability, Argmax] {
            assert!(f.value(&on, 2) > f.value(&off, 2), "{f:?}");
        }
        close(-RankedProbability.value(&[0.1, 0.2, 0.4, 0.2, 0.1], 3), 0.15);
    }

    #[test]
    fn statistics_are_those_of_the_reference_answers() {
        let rows = vec![vec![vec![0.2, 0.8]], vec![vec![0.6, 0.4]]];
        let statistics = RewardStatistics::over(&MappingConfig::default(), &rows);
        close(statistics.mean[0][0], 0.4);
        close(statistics.mean[0][1], 0.6);
        close(statistics.std[0][0], 0.2);
        let pooled = RewardStatistics::over(&MappingConfig { pooling: Pooling::Head, ..Default::default() }, &rows);
        close(pooled.std[0][1], 0.2);
    }
}
