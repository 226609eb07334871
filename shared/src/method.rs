//! Methods of multi-objective alignment, and what a trade-off between objectives means to each.

use serde::{Deserialize, Serialize};

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// One policy, optimised for whatever its prompt asks for (arXiv 2505.20336).
    #[default]
    Moslim,
    /// One policy for every weight vector, optimised for the weighted sum of the objectives.
    Morlhf,
    /// One policy for every objective, then interpolation of their weights (Rewarded Soups, arXiv 2306.04488).
    RewardedSoups,
    /// Rewards-in-Context (arXiv 2402.10207): supervised training on prompts that carry the scores their answer achieved.
    Ric,
    /// The same with MOSLIM's class tags in place of numbers: supervised MOSLIM.
    RicClass,
    /// ParetoHqD (arXiv 2504.16628): for every weight vector a policy, trained on answers near the Pareto front in its direction.
    ParetoHqd,
    /// The SFT policy with tags in its prompt, which it never learnt. Nothing is trained.
    TaggedSft,
    /// The best of several answers of the SFT policy under the reward model. Nothing is trained.
    BestOfN,
}

impl Method {
    /// All methods, the paper's own first.
    pub const ALL: [Self; 8] = [
        Self::Moslim,
        Self::Morlhf,
        Self::RewardedSoups,
        Self::Ric,
        Self::RicClass,
        Self::ParetoHqd,
        Self::TaggedSft,
        Self::BestOfN,
    ];

    /// Name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Moslim => "MOSLIM",
            Self::Morlhf => "MORLHF",
            Self::RewardedSoups => "Rewarded Soups",
            Self::Ric => "RiC",
            Self::RicClass => "RiC with class tags",
            Self::ParetoHqd => "ParetoHqD",
            Self::TaggedSft => "SFT with tags",
            Self::BestOfN => "Best of n",
        }
    }

    /// Whether it optimises policies by sampling.
    pub fn optimises(self) -> bool {
        matches!(self, Self::Moslim | Self::Morlhf | Self::RewardedSoups)
    }

    /// Policies that it trains for `objectives` objectives and `weights` weight vectors.
    pub fn policies(self, objectives: usize, weights: usize) -> usize {
        match self {
            Self::Moslim | Self::Ric | Self::RicClass => 1,
            Self::Morlhf | Self::ParetoHqd => weights,
            Self::RewardedSoups => objectives,
            Self::TaggedSft | Self::BestOfN => 0,
        }
    }
}

/// What one budget of policy optimisation is spent on, when a method trains several policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// On all policies together: each gets its share of the iterations.
    #[default]
    Total,
    /// On each policy: the method costs as many times more as it has policies.
    PerPolicy,
}

/// Who chooses among the answers of best-of-n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChosenBy {
    /// The reward model, as whoever uses best-of-n would have it.
    #[default]
    RewardModel,
    /// The rules that also grade: no method can know them, and what is reached so is a ceiling.
    Rules,
}

/// Settings of supervised training on scored answers: Rewards-in-Context, ParetoHqD, preference SFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RicConfig {
    /// Rows in a batch.
    pub batch: usize,
    /// Peak learning rate of the offline stage.
    pub learning_rate: f64,
    /// Learning rate of the online stage.
    pub online_learning_rate: f64,
    /// Rounds of the online stage: sample for near-Pareto goals, score, keep the best, train on them.
    pub online_rounds: usize,
    /// Share of the budget that the online stage gets, in [0, 0.9]; unused without rounds.
    pub online_share: f64,
    /// Prompts sampled in each round.
    pub online_samples: usize,
    /// RiC's samples are kept when at least one objective reaches this quantile, in [0, 1].
    pub quantile: f64,
    /// Share of the rows that ParetoHqD trains each policy on, in (0, 1]: those near the front and nearest to its direction.
    pub near_share: f64,
}

impl Default for RicConfig {
    fn default() -> Self {
        Self {
            batch: 64,
            learning_rate: 2e-3,
            online_learning_rate: 5e-4,
            online_rounds: 1,
            online_share: 0.3,
            online_samples: 4096,
            quantile: 0.7,
            near_share: 0.03,
        }
    }
}

/// Which method, and its own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MethodConfig {
    pub kind: Method,
    /// What the iterations of policy optimisation are shared by.
    pub budget: Budget,
    /// Trade-offs between the objectives: weight vectors with one number for each steered objective, not negative, sum 1.
    /// They are the policies of MORLHF, the interpolations of Rewarded Soups and the points of every front. Empty for
    /// [`default_weights`].
    pub weights: Vec<Vec<f64>>,
    /// Answers of which best-of-n takes the best.
    pub best_of: usize,
    /// Who takes it.
    pub chosen_by: ChosenBy,
    /// MOSLIM: steps of supervised training on tagged prompts before policy optimisation (preference SFT). The paper claims
    /// that none are needed, which is the default.
    pub preference_sft: usize,
    /// Share of SFT's own rows, about all of its subjects and without a wish, among those that preference SFT and supervised methods train on, in
    /// [0, 0.9]: they keep what SFT knows of what is not optimised for (rehearsal, Robins 1995).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<f64>,
    pub ric: RicConfig,
}

impl Default for MethodConfig {
    fn default() -> Self {
        Self {
            kind: Method::Moslim,
            budget: Budget::Total,
            weights: Vec::new(),
            best_of: 8,
            chosen_by: ChosenBy::RewardModel,
            preference_sft: 0,
            rehearsal: None,
            ric: RicConfig::default(),
        }
    }
}

/// Two layers of weight vectors (Deb & Jain 2014, section IV-A): every objective alone, and a lattice of halves drawn half-way
/// to the centre, so that most trade-offs give some weight to everything. 14 of them for four objectives.
pub fn default_weights(objectives: usize) -> Vec<Vec<f64>> {
    let alone = |i: usize| (0..objectives).map(|j| if j == i { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
    let mut out: Vec<Vec<f64>> = (0..objectives).map(alone).collect();
    if objectives > 1 {
        let centre = 1.0 / objectives as f64;
        for i in 0..objectives {
            for j in i..objectives {
                let halves = alone(i).into_iter().zip(alone(j)).map(|(a, b)| (a + b) / 2.0);
                out.push(halves.map(|w| (w + centre) / 2.0).collect());
            }
        }
    }
    out
}

/// Every vector of `objectives` multiples of `1 / h` that sums to 1, for the largest `h` up to 20 that gives at most `most` of them (the
/// simplex lattice of Das & Dennis 1998).
///
/// ```
/// use moslim_shared::method::lattice;
/// assert_eq!(lattice(2, 3), [vec![0.0, 1.0], vec![0.5, 0.5], vec![1.0, 0.0]]);
/// // Sixths of four objectives.
/// assert_eq!(lattice(4, 90).len(), 84);
/// ```
pub fn lattice(objectives: usize, most: usize) -> Vec<Vec<f64>> {
    fn split(left: usize, parts: usize) -> Vec<Vec<usize>> {
        if parts == 1 {
            return vec![vec![left]];
        }
        let with = |first: usize| {
            split(left - first, parts - 1).into_iter().map(move |rest| [vec![first], rest].concat()).collect::<Vec<_>>()
        };
        (0..=left).flat_map(with).collect()
    }
    if objectives == 0 {
        return Vec::new();
    }
    // Compositions of h into parts: (h + parts - 1 choose parts - 1), found by counting up.
    let count = |h: usize| (1..objectives).fold(1usize, |n, i| n.saturating_mul(h + i) / i);
    let h = (1..=20).rev().find(|&h| count(h) <= most).unwrap_or(1);
    split(h, objectives).into_iter().map(|v| v.into_iter().map(|n| n as f64 / h as f64).collect()).collect()
}

impl MethodConfig {
    /// The weight vectors over all `objectives`, 0 where an objective is not steered.
    pub fn weight_vectors(&self, steered: &[usize], objectives: usize) -> Vec<Vec<f64>> {
        let short = if self.weights.is_empty() { default_weights(steered.len()) } else { self.weights.clone() };
        short
            .into_iter()
            .map(|weights| {
                let mut out = vec![0.0; objectives];
                for (&i, w) in steered.iter().zip(weights) {
                    out[i] = w;
                }
                out
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_weights_lie_on_the_simplex() {
        for (objectives, count) in [(1, 1), (2, 5), (3, 9), (4, 14)] {
            let weights = default_weights(objectives);
            assert_eq!(weights.len(), count);
            assert!(weights.iter().all(|w| w.len() == objectives && (w.iter().sum::<f64>() - 1.0).abs() < 1e-12));
        }
        let config = MethodConfig::default();
        assert_eq!(config.weight_vectors(&[1, 3], 4)[0], [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(config.weight_vectors(&[1, 3], 4)[2], [0.0, 0.75, 0.0, 0.25]);
        assert_eq!(default_weights(4)[4], [0.625, 0.125, 0.125, 0.125]);
    }
}
