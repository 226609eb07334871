//! The mapping function: class distributions and a preference in, one scalar out.
//!
//! `r = 1/k * sum_i m_i * (f_i(p_i, t_i) - avg_i[t_i]) / std_i[t_i]` (MOSLIM, arXiv 2505.20336), where for MOSLIM itself
//! `f(p, t) = p[t]`, the probability of the class asked for. Nothing else in the project turns classes into a scalar. In the place of the
//! sum may stand a smooth minimum (`tchebycheff`).

use crate::distribution::{argmax, expected_class};
use crate::preference::Preference;
use serde::{Deserialize, Serialize};

/// What is read off a class distribution `p` for the class `t` asked for, before it is standardised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
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
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
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
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// One mean and deviation per objective and class.
    #[default]
    Class,
    /// One deviation per objective (classes pooled), a mean per class.
    Head,
    /// Moving averages of what the policy's own samples got, per objective and class. Follows the policy: rewards of
    /// different times cannot be compared.
    Running,
    /// Mean and deviation of the samples of one prompt: every objective is standardised within the group, as in GDPO.
    Group,
}

/// Settings of the mapping function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
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
    /// Weights that take the place of the masks `m_i`, one per objective; empty for 1 everywhere.
    pub weights: Vec<f64>,
    /// When set, what is asked for is not added up: the scalar is the smooth minimum `-mu ln(1/n sum exp(-m_i z_i / mu))` of its `n` z-scores,
    /// with this `mu` in deviations (smooth Tchebycheff scalarisation, Lin et al. 2024), times `n` over the divisor: the less of it, the more
    /// counts the wish that is met worst. What weighs nothing is left out. Of [`map_weighted`]'s objectives it is the smooth minimum, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tchebycheff: Option<f64>,
}

impl Default for MappingConfig {
    fn default() -> Self {
        Self {
            function: MappingFunction::Moslim,
            divisor: Divisor::Active,
            pooling: Pooling::Class,
            std_floor: 0.05,
            z_clip: 5.0,
            weights: Vec::new(),
            tchebycheff: None,
        }
    }
}

impl MappingFunction {
    /// Value for distribution `p` (length `C`) and class `t < C`.
    ///
    /// ```
    /// use moslim_shared::mapping::MappingFunction::{Argmax, Expected, Moslim, RankedProbability};
    /// let p = [0.25, 0.25, 0.5];
    /// assert_eq!([Moslim, Expected, RankedProbability, Argmax].map(|f| f.value(&p, 2)), [0.5, -0.375, -0.15625, 1.0]);
    /// ```
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct RewardStatistics {
    /// `mean[objective][class]`.
    pub mean: Vec<Vec<f64>>,
    /// `std[objective][class]`, not floored.
    pub std: Vec<Vec<f64>>,
    /// Mean of `E[c]` per objective, in classes: the scale of [`map_weighted`].
    #[serde(default)]
    pub expected_mean: Vec<f64>,
    /// Its standard deviation.
    #[serde(default)]
    pub expected_std: Vec<f64>,
}

/// Mean and population deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt())
}

impl RewardStatistics {
    /// One pass over `rows[answer][objective][class]`. Every objective of every row must have the same class count.
    ///
    /// ```
    /// use moslim_shared::mapping::{MappingConfig, RewardStatistics};
    /// // Two answers, one objective of two classes.
    /// let statistics = RewardStatistics::over(&MappingConfig::default(), &[vec![vec![0.25, 0.75]], vec![vec![0.75, 0.25]]]);
    /// assert_eq!((statistics.mean, statistics.std), (vec![vec![0.5, 0.5]], vec![vec![0.25, 0.25]]));
    /// ```
    pub fn over(config: &MappingConfig, rows: &[Vec<Vec<f64>>]) -> Self {
        let heads = rows.first().map_or(0, Vec::len);
        let (mut mean, mut std) = (Vec::new(), Vec::new());
        let (mut expected_mean, mut expected_std) = (Vec::new(), Vec::new());
        for i in 0..heads {
            let classes = rows[0][i].len();
            let (mut means, mut deviations) = (Vec::new(), Vec::new());
            for t in 0..classes {
                let (m, s) = moments(&rows.iter().map(|r| config.function.value(&r[i], t)).collect::<Vec<_>>());
                means.push(m);
                deviations.push(s);
            }
            let (m, s) = moments(&rows.iter().map(|r| expected_class(&r[i])).collect::<Vec<_>>());
            expected_mean.push(m);
            expected_std.push(s);
            if config.pooling == Pooling::Head {
                let pooled = (deviations.iter().map(|s| s * s).sum::<f64>() / classes as f64).sqrt();
                deviations.fill(pooled);
            }
            mean.push(means);
            std.push(deviations);
        }
        Self { mean, std, expected_mean, expected_std }
    }

    /// A value of objective `i` at class `t`, in deviations from its mean, within the clip.
    fn standardise(&self, config: &MappingConfig, i: usize, t: usize, value: f64) -> f64 {
        let deviation = self.std[i][t].max(config.std_floor).max(1e-9);
        ((value - self.mean[i][t]) / deviation).clamp(-config.z_clip, config.z_clip)
    }

    /// Moves mean and deviation towards what samples that ask for a class got: [`Pooling::Running`]. `rate`: weight of these
    /// samples against everything before, in (0, 1].
    pub fn observe<'a>(
        &mut self,
        config: &MappingConfig,
        samples: impl Iterator<Item = (&'a [Vec<f64>], &'a Preference)>,
        rate: f64,
    ) {
        let mut seen: Vec<Vec<Vec<f64>>> = self.mean.iter().map(|m| vec![Vec::new(); m.len()]).collect();
        for (distributions, preference) in samples {
            for (i, t) in preference.asked() {
                seen[i][t].push(config.function.value(&distributions[i], t));
            }
        }
        for (i, classes) in seen.iter().enumerate() {
            for (t, values) in classes.iter().enumerate().filter(|(_, v)| !v.is_empty()) {
                let (mean, std) = (&mut self.mean[i][t], &mut self.std[i][t]);
                let new = values.iter().sum::<f64>() / values.len() as f64;
                let spread = values.iter().map(|v| (v - *mean) * (v - *mean)).sum::<f64>() / values.len() as f64;
                *std = ((1.0 - rate) * *std * *std + rate * spread).sqrt();
                *mean += rate * (new - *mean);
            }
        }
    }
}

/// The scalar that the optimiser uses, with what each objective added to it: `scalar = sum of contributions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct MappedReward {
    /// The scalar reward, before the KL penalty.
    pub scalar: f64,
    /// Contribution per objective; 0 where the objective is masked. With a smooth minimum: what it adds to the sum, less its share of that by which
    /// the minimum is below the sum, `exp(-m_i z_i / mu) / sum exp(-m_j z_j / mu)`.
    pub contributions: Vec<f64>,
}

/// Maps `distributions[objective][class]` under `preference` to one scalar. No objective asked for gives 0.
///
/// ```
/// use moslim_shared::mapping::{MappingConfig, RewardStatistics, map_reward};
/// use moslim_shared::preference::Preference;
/// let statistics = RewardStatistics {
///     mean: vec![vec![0.5, 0.5], vec![0.5, 0.5]],
///     std: vec![vec![0.25, 0.25], vec![0.25, 0.25]],
///     ..Default::default()
/// };
/// let answer = [vec![0.25, 0.75], vec![1.0, 0.0]];
/// // Class 1 of the first objective and nothing of the second: one deviation better than the mean.
/// let reward = map_reward(&MappingConfig::default(), &statistics, &answer, &Preference(vec![Some(1), None]));
/// assert_eq!((reward.scalar, reward.contributions), (1.0, vec![1.0, 0.0]));
/// ```
pub fn map_reward(
    config: &MappingConfig,
    statistics: &RewardStatistics,
    distributions: &[Vec<f64>],
    preference: &Preference,
) -> MappedReward {
    contributions_of(config, distributions, preference, |i, t| {
        statistics.standardise(config, i, t, config.function.value(&distributions[i], t))
    })
}

/// The scalar to be expected of an answer that has only begun, of which the heads say what its classes will be: `sum_c p_c r(c)` for each
/// objective, `r(c)` being its part when class `c` is certain.
pub fn expected_reward(
    config: &MappingConfig,
    statistics: &RewardStatistics,
    distributions: &[Vec<f64>],
    preference: &Preference,
) -> f64 {
    let expected = |i: usize, t: usize| -> f64 {
        let p = &distributions[i];
        let certain = |class: usize| (0..p.len()).map(|c| f64::from(u8::from(c == class))).collect::<Vec<f64>>();
        let of = |class: usize| statistics.standardise(config, i, t, config.function.value(&certain(class), t));
        p.iter().enumerate().map(|(class, p)| p * of(class)).sum()
    };
    contributions_of(config, distributions, preference, expected).scalar
}

/// The scalar of what each objective that is asked for gives, `score(objective, class asked for)`.
fn contributions_of(
    config: &MappingConfig,
    distributions: &[Vec<f64>],
    preference: &Preference,
    score: impl Fn(usize, usize) -> f64,
) -> MappedReward {
    let divisor = match config.divisor {
        Divisor::Objectives => distributions.len().max(1),
        Divisor::Active => preference.active().max(1),
    } as f64;
    let mut contributions = vec![0.0; distributions.len()];
    for (i, t) in preference.asked() {
        let weight = config.weights.get(i).copied().unwrap_or(1.0);
        contributions[i] = weight * score(i, t) / divisor;
    }
    if let Some(smoothing) = config.tchebycheff {
        let weighs = |i: usize| config.weights.get(i).is_none_or(|&w| w > 0.0);
        let asked: Vec<usize> = preference.asked().map(|(i, _)| i).filter(|&i| weighs(i)).collect();
        smooth_minimum(&mut contributions, &asked, smoothing / divisor);
    }
    MappedReward { scalar: contributions.iter().sum(), contributions }
}

/// Takes from `parts` at `asked` what their sum is above `n` times their smooth minimum, most of it from the least. `smoothing` is above 0.
fn smooth_minimum(parts: &mut [f64], asked: &[usize], smoothing: f64) {
    let worst = asked.iter().map(|&i| parts[i]).fold(f64::INFINITY, f64::min);
    let shares: Vec<f64> = asked.iter().map(|&i| ((worst - parts[i]) / smoothing).exp()).collect();
    let (sum, n) = (shares.iter().sum::<f64>(), asked.len() as f64);
    let above = asked.iter().map(|&i| parts[i]).sum::<f64>() - n * (worst - smoothing * (sum / n).ln());
    for (&i, share) in asked.iter().zip(&shares) {
        parts[i] -= above * share / sum;
    }
}

/// [`map_reward`] for the samples of one prompt. With [`Pooling::Group`] the statistics are those of the group itself.
///
/// ```
/// use moslim_shared::mapping::{MappingConfig, Pooling, RewardStatistics, map_group};
/// use moslim_shared::preference::Preference;
/// let config = MappingConfig { pooling: Pooling::Group, ..Default::default() };
/// let group = [vec![vec![0.25, 0.75]], vec![vec![0.75, 0.25]]];
/// let rewards = map_group(&config, &RewardStatistics::default(), &group, &Preference(vec![Some(1)]));
/// assert_eq!([rewards[0].scalar, rewards[1].scalar], [1.0, -1.0]);
/// ```
pub fn map_group(
    config: &MappingConfig,
    statistics: &RewardStatistics,
    group: &[Vec<Vec<f64>>],
    preference: &Preference,
) -> Vec<MappedReward> {
    let own = (config.pooling == Pooling::Group).then(|| RewardStatistics::over(config, group));
    let statistics = own.as_ref().unwrap_or(statistics);
    group.iter().map(|distributions| map_reward(config, statistics, distributions, preference)).collect()
}

/// The scalar of linear scalarisation (MORLHF, Rewarded Soups, prompts with weights): `sum_i w_i * z_i` with
/// `z_i = s_i * (E_i[c] - mean_i) / std_i`, where `s_i` is -1 for objectives of which less is better. `weights`: one per objective, not
/// negative, sum 1.
///
/// With `tchebycheff` it is `sum_i w_i b_i - mu ln(1/n sum_i exp(n w_i (b_i - z_i) / mu))` over the `n` objectives that weigh something,
/// `b_i` being the z-score of the best class: how far an answer is from the ideal point, weighed, counts most where it is furthest (smooth
/// Tchebycheff scalarisation, Lin et al. 2024). With a large `mu` that is the weighted sum.
///
/// ```
/// use moslim_shared::mapping::{MappingConfig, RewardStatistics, map_weighted};
/// let rows = [vec![vec![1.0, 0.0], vec![1.0, 0.0]], vec![vec![0.0, 1.0], vec![0.0, 1.0]]];
/// let (config, better) = (MappingConfig::default(), [true, false]);
/// let statistics = RewardStatistics::over(&config, &rows);
/// // The second answer is better in the first objective and worse in the second, by a deviation each.
/// let reward = map_weighted(&config, &statistics, &rows[1], &[0.75, 0.25], &better);
/// assert_eq!((reward.scalar, reward.contributions), (0.5, vec![0.75, -0.25]));
/// ```
pub fn map_weighted(
    config: &MappingConfig,
    statistics: &RewardStatistics,
    distributions: &[Vec<f64>],
    weights: &[f64],
    higher_is_better: &[bool],
) -> MappedReward {
    let part = |i: usize, class: f64| {
        let deviation = statistics.expected_std[i].max(config.std_floor).max(1e-9);
        let z = (class - statistics.expected_mean[i]) / deviation;
        let sign = if higher_is_better[i] { 1.0 } else { -1.0 };
        weights[i] * sign * z.clamp(-config.z_clip, config.z_clip)
    };
    let mut contributions: Vec<f64> = distributions.iter().enumerate().map(|(i, p)| part(i, expected_class(p))).collect();
    if let Some(smoothing) = config.tchebycheff {
        let best = |i: usize| if higher_is_better[i] { distributions[i].len() - 1 } else { 0 };
        let ideal: Vec<f64> = (0..distributions.len()).map(|i| part(i, best(i) as f64)).collect();
        let weighed: Vec<usize> = (0..contributions.len()).filter(|&i| weights[i] > 0.0).collect();
        contributions.iter_mut().zip(&ideal).for_each(|(part, ideal)| *part -= ideal);
        smooth_minimum(&mut contributions, &weighed, smoothing / weighed.len().max(1) as f64);
        contributions.iter_mut().zip(&ideal).for_each(|(part, ideal)| *part += ideal);
    }
    MappedReward { scalar: contributions.iter().sum(), contributions }
}

#[cfg(test)]
mod tests;
