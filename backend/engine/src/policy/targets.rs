//! Preferences of training prompts.

use moslim_shared::config::{RunConfig, Target};
use moslim_shared::objective::{Objective, index_of};
use moslim_shared::preference::Preference;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Draws the preferences of training prompts.
#[derive(Debug)]
pub struct TargetSampler {
    /// Objectives that may be asked for.
    steered: Vec<usize>,
    /// Cumulative class frequencies per objective.
    cumulative: Vec<Vec<f64>>,
    active_probability: f64,
    empirical_share: f64,
    shuffled_share: f64,
    held_out: Vec<[(usize, usize); 2]>,
}

/// (objective, class) positions of a pair of targets; pairs with unknown names are refused by the configuration.
pub fn pair_positions(pair: &[Target; 2], objectives: &[Objective]) -> Option<[(usize, usize); 2]> {
    let position = |t: &Target| index_of(objectives, &t.objective).map(|i| (i, t.class));
    Some([position(&pair[0])?, position(&pair[1])?])
}

/// Whether `preference` asks for both targets of `pair`.
pub fn contains(preference: &Preference, pair: &[(usize, usize); 2]) -> bool {
    pair.iter().all(|&(i, c)| preference.0[i] == Some(c))
}

impl TargetSampler {
    /// A sampler for `config`; `labels` are those of the training rows, for the empirical share.
    pub fn new<'a>(config: &RunConfig, objectives: &[Objective], labels: impl Iterator<Item = &'a [Option<usize>]>) -> Self {
        let mut counts: Vec<Vec<f64>> = objectives.iter().map(|o| vec![0.0; o.class_count()]).collect();
        for row in labels {
            for (counts, label) in counts.iter_mut().zip(row) {
                if let Some(class) = label {
                    counts[*class] += 1.0;
                }
            }
        }
        let cumulative = counts
            .into_iter()
            .map(|counts| {
                let total: f64 = counts.iter().sum::<f64>().max(1.0);
                counts
                    .iter()
                    .scan(0.0, |sum, c| {
                        *sum += c / total;
                        Some(*sum)
                    })
                    .collect()
            })
            .collect();
        Self {
            steered: config.steered(objectives),
            cumulative,
            active_probability: config.targets.active_probability,
            empirical_share: config.targets.empirical_share,
            shuffled_share: config.targets.shuffled_share,
            held_out: config.targets.held_out.iter().filter_map(|p| pair_positions(p, objectives)).collect(),
        }
    }

    /// A preference that asks for at least one objective and contains no held-out pair.
    pub fn draw(&self, rng: &mut StdRng) -> Preference {
        loop {
            let mut preference = Preference::none(self.cumulative.len());
            for &i in &self.steered {
                if rng.random_bool(self.active_probability) {
                    preference.0[i] = Some(self.class(i, rng));
                }
            }
            if preference.active() == 0 {
                let i = self.steered[rng.random_range(0..self.steered.len())];
                preference.0[i] = Some(self.class(i, rng));
            }
            if !self.held_out.iter().any(|pair| contains(&preference, pair)) {
                return preference;
            }
        }
    }

    fn class(&self, objective: usize, rng: &mut StdRng) -> usize {
        let cumulative = &self.cumulative[objective];
        if rng.random_bool(self.empirical_share) {
            let u: f64 = rng.random();
            cumulative.iter().position(|&c| u < c).unwrap_or(cumulative.len() - 1)
        } else {
            rng.random_range(0..cumulative.len())
        }
    }

    /// The order in which the tags of a prompt are written.
    pub fn order(&self, rng: &mut StdRng) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.cumulative.len()).collect();
        if rng.random_bool(self.shuffled_share) {
            order.shuffle(rng);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::world::objectives;
    use rand::SeedableRng;

    #[test]
    fn held_out_pairs_never_occur_and_everything_else_does() {
        let config = RunConfig::default();
        let objectives = objectives();
        let sampler = TargetSampler::new(&config, &objectives, std::iter::empty());
        let held_out: Vec<_> = config.targets.held_out.iter().map(|p| pair_positions(p, &objectives).unwrap()).collect();
        let mut rng = StdRng::seed_from_u64(1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..20_000 {
            let preference = sampler.draw(&mut rng);
            assert!(preference.active() >= 1);
            assert!(!held_out.iter().any(|p| contains(&preference, p)));
            for a in preference.asked() {
                for b in preference.asked().filter(|b| b.0 > a.0) {
                    seen.insert((a, b));
                }
            }
        }
        let sizes: Vec<usize> = objectives.iter().map(Objective::class_count).collect();
        let all: usize = (0..4).flat_map(|i| (i + 1..4).map(move |j| (i, j))).map(|(i, j)| sizes[i] * sizes[j]).sum();
        assert_eq!(seen.len(), all - held_out.len());
    }

    #[test]
    fn only_chosen_objectives_are_asked_for() {
        let mut config = RunConfig::default();
        config.targets.objectives = vec!["honesty".into()];
        let sampler = TargetSampler::new(&config, &objectives(), std::iter::empty());
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..200 {
            let preference = sampler.draw(&mut rng);
            assert_eq!(preference.asked().map(|(i, _)| i).collect::<Vec<_>>(), [2]);
        }
    }
}
