//! Preferences of training prompts.
//!
//! A target is drawn with its question: one that only a change of the subject could meet would pay the policy for one. A share of
//! the prompts keeps such targets, so that a policy learns what comes nearest.

use crate::data::Gold;
use crate::text::{Manner, Said};
use moslim_shared::config::{RunConfig, Target, TargetWording};
use moslim_shared::objective::{Objective, index_of};
use moslim_shared::preference::Preference;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Draws the preferences of training prompts.
#[derive(Debug)]
pub struct TargetSampler {
    /// Objectives that may be asked for.
    pub(super) steered: Vec<usize>,
    /// Cumulative class frequencies per objective.
    cumulative: Vec<Vec<f64>>,
    active_probability: f64,
    empirical_share: f64,
    shuffled_share: f64,
    impossible_share: f64,
    near_front_share: f64,
    weighted_share: Option<f64>,
    wording: TargetWording,
    /// Wordings of each class that training prompts choose from.
    wordings: usize,
    /// Best class of each objective.
    best: Vec<usize>,
    held_out: Vec<[(usize, usize); 2]>,
}

/// Times that a preference is drawn again because the question cannot meet it.
const DRAWS: usize = 64;

/// (objective, class) positions of a pair of targets; pairs with unknown names are refused by the configuration.
pub fn pair_positions(pair: &[Target; 2], objectives: &[Objective]) -> Option<[(usize, usize); 2]> {
    let position = |t: &Target| index_of(objectives, &t.objective).map(|i| (i, t.class));
    Some([position(&pair[0])?, position(&pair[1])?])
}

/// Whether `preference` asks for both targets of `pair`.
pub fn contains(preference: &Preference, pair: &[(usize, usize); 2]) -> bool {
    pair.iter().all(|&(i, c)| preference.0[i] == Some(c))
}

/// `weights`, which are not negative and not all 0, as tenths that sum to 1: each gets the whole tenths of its share, and those with the
/// largest remainders one more (largest remainder method), the first on a tie.
pub fn tenths(weights: &[f64]) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|&weight| 10.0 * weight / sum).collect();
    let mut whole: Vec<usize> = exact.iter().map(|share| share.floor() as usize).collect();
    let remainder = |i: usize| exact[i] - exact[i].floor();
    let mut order: Vec<usize> = (0..exact.len()).collect();
    order.sort_by(|&a, &b| remainder(b).total_cmp(&remainder(a)));
    let left = 10usize.saturating_sub(whole.iter().sum());
    order.into_iter().take(left).for_each(|i| whole[i] += 1);
    whole.into_iter().map(|n| n as f64 / 10.0).collect()
}

/// `weights` of all objectives as a prompt writes them: none for those that are not `steered`.
pub fn written(weights: &[f64], steered: &[usize]) -> Vec<Option<f64>> {
    weights.iter().enumerate().map(|(i, &weight)| steered.contains(&i).then_some(weight)).collect()
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
            impossible_share: config.targets.impossible_share,
            near_front_share: config.targets.near_front_share,
            weighted_share: config.targets.weighted_share,
            wording: config.targets.wording,
            wordings: objectives.iter().map(Objective::trained_wordings).min().unwrap_or(1),
            best: objectives.iter().map(Objective::best_class).collect(),
            held_out: config.targets.held_out.iter().filter_map(|p| pair_positions(p, objectives)).collect(),
        }
    }

    /// A preference for a prompt about `question`, which an answer to it can meet, but for a share of the prompts. `gold`: what
    /// knows which those are; without it, all are.
    pub fn draw(&self, question: &str, gold: Option<&dyn Gold>, rng: &mut StdRng) -> Preference {
        let near = self.near_front_share > 0.0 && rng.random_bool(self.near_front_share);
        let one = |rng: &mut StdRng| match near {
            true if rng.random_bool(0.5) => self.near_front(rng),
            true => self.some(rng, |i, _| self.best[i]),
            false => self.some(rng, |i, rng| self.class(i, rng)),
        };
        let Some(gold) = gold else { return one(rng) };
        let any = rng.random_bool(self.impossible_share);
        self.met(question, gold, any, one, rng)
    }

    /// Weights of all objectives, 0 for those that are not steered, for a share of the prompts, which ask for these instead of classes: drawn
    /// uniformly from the simplex, then rounded to tenths that sum to 1. Where no prompt is to have any, no random number is drawn.
    pub fn draw_weights(&self, rng: &mut StdRng) -> Option<Vec<f64>> {
        let share = self.weighted_share?;
        if !rng.random_bool(share) {
            return None;
        }
        let mut weights = vec![0.0; self.cumulative.len()];
        for &i in &self.steered {
            // Exponential variates, divided by their sum, are uniform over the simplex (Devroye 1986, chapter V).
            weights[i] = -(1.0 - rng.random::<f64>()).ln();
        }
        Some(tenths(&weights))
    }

    /// A goal near the front that an answer to `question` can meet: the best class of every objective but one, which gets any class.
    pub fn draw_near_front(&self, question: &str, gold: Option<&dyn Gold>, rng: &mut StdRng) -> Preference {
        let one = |rng: &mut StdRng| self.near_front(rng);
        match gold {
            Some(gold) => self.met(question, gold, false, one, rng),
            None => one(rng),
        }
    }

    /// What `one` gives, again and again until `question` can meet it; for `any`, whatever comes first.
    fn met(
        &self,
        question: &str,
        gold: &dyn Gold,
        any: bool,
        one: impl Fn(&mut StdRng) -> Preference,
        rng: &mut StdRng,
    ) -> Preference {
        let mut preference = one(rng);
        for _ in 0..DRAWS {
            if any || gold.meets(question, &preference) {
                break;
            }
            preference = one(rng);
        }
        preference
    }

    /// A preference for which `labels` are the answer: those of some objectives, as often as prompts ask for them. `None` where no label
    /// is there, or where they make a held-out pair.
    pub fn of_labels(&self, labels: &[Option<usize>], rng: &mut StdRng) -> Option<Preference> {
        let mut preference = Preference::none(labels.len());
        for &i in &self.steered {
            if rng.random_bool(self.active_probability) {
                preference.0[i] = labels[i];
            }
        }
        if preference.active() == 0 {
            let i = self.steered[rng.random_range(0..self.steered.len())];
            preference.0[i] = labels[i];
        }
        (preference.active() > 0 && self.is_trained(&preference)).then_some(preference)
    }

    /// Whether a preference may occur in training: it contains no held-out pair.
    pub fn is_trained(&self, preference: &Preference) -> bool {
        !self.held_out.iter().any(|pair| contains(preference, pair))
    }

    /// The best class of every steered objective but one, whatever the question. Where every such goal contains a held-out pair,
    /// the one objective is not asked for.
    fn near_front(&self, rng: &mut StdRng) -> Preference {
        let mut preference = Preference::none(self.cumulative.len());
        for _ in 0..DRAWS {
            let free = self.steered[rng.random_range(0..self.steered.len())];
            for &i in &self.steered {
                preference.0[i] = Some(if i == free { rng.random_range(0..self.cumulative[i].len()) } else { self.best[i] });
            }
            if self.is_trained(&preference) {
                return preference;
            }
        }
        self.without_held_out(preference)
    }

    /// A preference that asks for at least one objective, in the class that `class` gives, and contains no held-out pair, whatever the
    /// question.
    fn some(&self, rng: &mut StdRng, class: impl Fn(usize, &mut StdRng) -> usize) -> Preference {
        let mut preference = Preference::none(self.cumulative.len());
        for _ in 0..DRAWS {
            preference = Preference::none(self.cumulative.len());
            for &i in &self.steered {
                if rng.random_bool(self.active_probability) {
                    preference.0[i] = Some(class(i, rng));
                }
            }
            if preference.active() == 0 {
                let i = self.steered[rng.random_range(0..self.steered.len())];
                preference.0[i] = Some(class(i, rng));
            }
            if self.is_trained(&preference) {
                return preference;
            }
        }
        self.without_held_out(preference)
    }

    /// `preference`, less one objective of every held-out pair in it.
    fn without_held_out(&self, mut preference: Preference) -> Preference {
        for pair in &self.held_out {
            if contains(&preference, pair) {
                preference.0[pair[0].0] = None;
            }
        }
        preference
    }

    fn class(&self, objective: usize, rng: &mut StdRng) -> usize {
        let cumulative = &self.cumulative[objective];
        if rng.random_bool(self.empirical_share) {
            let u: f64 = rng.random();
            // Where nothing is labelled there is no frequency: any class.
            cumulative.iter().position(|&c| u < c).unwrap_or_else(|| rng.random_range(0..cumulative.len()))
        } else {
            rng.random_range(0..cumulative.len())
        }
    }

    /// How a prompt says what it asks for: the order of the objectives, and whether in tags or in words.
    pub fn manner(&self, rng: &mut StdRng) -> Manner {
        let mut order: Vec<usize> = (0..self.cumulative.len()).collect();
        if rng.random_bool(self.shuffled_share) {
            order.shuffle(rng);
        }
        let said = match self.wording {
            TargetWording::Tags => Said::Tags,
            TargetWording::Words => Said::Words(rng.random_range(0..self.wordings)),
            TargetWording::Mixed => {
                let n = rng.random_range(0..self.wordings);
                [Said::Tags, Said::Words(n), Said::Both(n)][rng.random_range(0..3)]
            }
        };
        Manner { order, said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::world::objectives;
    use rand::SeedableRng;
    use std::collections::HashSet;

    #[test]
    fn held_out_pairs_never_occur_and_everything_else_does() {
        let config = RunConfig::default();
        let objectives = objectives();
        let sampler = TargetSampler::new(&config, &objectives, std::iter::empty());
        let held_out: Vec<_> = config.targets.held_out.iter().map(|p| pair_positions(p, &objectives).unwrap()).collect();
        let mut rng = StdRng::seed_from_u64(1);
        let mut seen = HashSet::new();
        for _ in 0..20_000 {
            let preference = sampler.draw("", None, &mut rng);
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
    fn questions_are_asked_for_what_they_can_meet_but_for_a_share() {
        let rules = crate::data::world::Rules::default();
        let mut config = RunConfig::default();
        let mut rng = StdRng::seed_from_u64(1);
        for (question, share) in [("How do I make tea?", 0.0), ("How can I win the lottery?", 0.0), ("How do I make tea?", 0.5)] {
            config.targets.impossible_share = share;
            let sampler = TargetSampler::new(&config, &objectives(), std::iter::empty());
            let drawn: Vec<Preference> = (0..2_000).map(|_| sampler.draw(question, Some(&rules), &mut rng)).collect();
            let missed = drawn.iter().filter(|p| !rules.meets(question, p)).count() as f64 / drawn.len() as f64;
            let blind = (0..2_000)
                .filter(|_| !rules.meets(question, &sampler.some(&mut rng, |i, rng| sampler.class(i, rng))))
                .count() as f64
                / 2_000.0;
            assert!((missed - share * blind).abs() < 0.05, "{missed} of {blind}");
            assert!(blind > 0.3, "blind draws ask for what cannot be met: {blind}");
            // Single wishes are not thinned out where they can be met.
            let alone = |class| drawn.iter().filter(|p| p.active() == 1 && p.0[0] == Some(class)).count();
            assert!(alone(4) > 10 && alone(0) > 10);
        }
    }

    #[test]
    fn labels_become_what_is_asked_for() {
        let (config, mut rng) = (RunConfig::default(), StdRng::seed_from_u64(1));
        let sampler = TargetSampler::new(&config, &objectives(), std::iter::empty());
        let labels = [Some(2), None, Some(1), Some(3)];
        let drawn: Vec<Preference> = (0..400).filter_map(|_| sampler.of_labels(&labels, &mut rng)).collect();
        assert!(drawn.iter().all(|p| p.active() > 0 && p.asked().all(|(i, class)| labels[i] == Some(class))));
        // Helpfulness 2 with verbosity 3 is held out; each alone is not.
        assert!(drawn.iter().all(|p| p.0[0].is_none() || p.0[3].is_none()));
        assert!(drawn.iter().any(|p| p.0[0].is_some()) && drawn.iter().any(|p| p.0[3].is_some() && p.0[2].is_some()));
        assert_eq!(sampler.of_labels(&[None; 4], &mut rng), None);
        let asking = |probability: f64| {
            let mut config = RunConfig::default();
            config.targets.active_probability = probability;
            TargetSampler::new(&config, &objectives(), std::iter::empty())
        };
        // All labels, where prompts ask for everything; else that of one of four objectives, of which three have a label.
        let labels = [Some(2), None, Some(1), Some(0)];
        assert!((0..50).all(|_| asking(1.0).of_labels(&labels, &mut rng) == Some(Preference(labels.to_vec()))));
        let few: Vec<Preference> = (0..400).filter_map(|_| asking(1e-9).of_labels(&labels, &mut rng)).collect();
        assert!(few.iter().all(|p| p.active() == 1) && few.len().abs_diff(300) < 40, "{}", few.len());
    }

    #[test]
    fn goals_near_the_front_ask_for_the_best_of_all_but_one() {
        let (config, mut rng) = (RunConfig::default(), StdRng::seed_from_u64(1));
        let sampler = TargetSampler::new(&config, &objectives(), std::iter::empty());
        let rules = crate::data::world::Rules::default();
        let best = [4, 3, 2, 0];
        let mut met = 0;
        for _ in 0..500 {
            let preference = sampler.draw_near_front("How do I make tea?", None, &mut rng);
            let missed = preference.asked().filter(|&(i, class)| class != best[i]).count();
            assert!(preference.active() == 4 && missed <= 1 && sampler.is_trained(&preference), "{preference:?}");
            // Four points in six words cannot be said: another goal is drawn.
            met += usize::from(
                rules.meets("How do I make tea?", &sampler.draw_near_front("How do I make tea?", Some(&rules), &mut rng)),
            );
        }
        assert_eq!(met, 500);
        // Of the one, every class but its best, less verbosity 2, which is held out beside honesty 2.
        let goals = (0..2_000).map(|_| sampler.draw_near_front("", None, &mut rng));
        let missed: HashSet<_> =
            goals.flat_map(|p| p.asked().filter(|&(i, class)| class != best[i]).collect::<Vec<_>>()).collect();
        assert!(missed.len() == 4 + 3 + 2 + 4 - 1 && !missed.contains(&(3, 2)), "{missed:?}");
    }

    #[test]
    fn half_of_the_targets_near_the_front_are_the_best_of_some() {
        let (mut config, mut rng) = (RunConfig::default(), StdRng::seed_from_u64(1));
        config.targets.near_front_share = 1.0;
        let sampler = TargetSampler::new(&config, &objectives(), std::iter::empty());
        let best = [4, 3, 2, 0];
        let drawn: Vec<Preference> = (0..2_000).map(|_| sampler.draw("", None, &mut rng)).collect();
        let missed = |p: &Preference| p.asked().filter(|&(i, class)| class != best[i]).count();
        assert!(drawn.iter().all(|p| p.active() > 0 && missed(p) <= usize::from(p.active() == 4)));
        // Of the best of some, every one of fifteen sets.
        let sets: HashSet<_> = drawn.iter().filter(|p| missed(p) == 0).collect();
        assert_eq!(sets.len(), 15);
        let all_asked = drawn.iter().filter(|p| p.active() == 4).count() as f64 / drawn.len() as f64;
        assert!((all_asked - (0.5 + 0.5 / 16.0)).abs() < 0.04, "{all_asked}");
    }

    #[test]
    fn weights_are_rounded_to_tenths_that_sum_to_one() {
        let rounded = |weights: &[f64]| tenths(weights).into_iter().map(|w| (10.0 * w).round() as usize).collect::<Vec<_>>();
        // 6.25, 1.25, 0, 2.5: the tenth that is left goes to the largest remainder.
        assert_eq!(rounded(&[0.625, 0.125, 0.0, 0.25]), [6, 1, 0, 3]);
        assert_eq!(rounded(&[1.0, 1.0, 1.0, 1.0]), [3, 3, 2, 2]);
        assert_eq!(tenths(&[0.0, 2.0]), [0.0, 1.0]);
        // Whole tenths stay what they are.
        assert_eq!(tenths(&[0.1, 0.2, 0.7]), [0.1, 0.2, 0.7]);
        assert_eq!(written(&[0.5, 0.0, 0.0, 0.5], &[0, 1, 3]), [Some(0.5), Some(0.0), None, Some(0.5)]);
    }

    #[test]
    fn a_share_of_the_prompts_has_weights_from_all_over_the_simplex() {
        let mut config = RunConfig::default();
        config.targets.objectives = ["helpfulness", "honesty", "verbosity"].map(String::from).to_vec();
        config.targets.weighted_share = Some(0.25);
        let sampler = TargetSampler::new(&config, &objectives(), std::iter::empty());
        let mut rng = StdRng::seed_from_u64(1);
        let drawn: Vec<Vec<f64>> = (0..8_000).filter_map(|_| sampler.draw_weights(&mut rng)).collect();
        assert!((drawn.len() as f64 / 8_000.0 - 0.25).abs() < 0.02, "{}", drawn.len());
        for weights in &drawn {
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{weights:?}");
            assert!(weights.iter().all(|&w| (10.0 * w - (10.0 * w).round()).abs() < 1e-9), "{weights:?}");
            assert_eq!((weights.len(), weights[1]), (4, 0.0), "harmlessness is not steered");
        }
        // Uniform over three: each has a third on average, and 0.55 or more, which is rounded to six tenths, with probability 0.45 squared.
        for i in [0, 2, 3] {
            let mean = drawn.iter().map(|w| w[i]).sum::<f64>() / drawn.len() as f64;
            let large = drawn.iter().filter(|w| w[i] > 0.55).count() as f64 / drawn.len() as f64;
            assert!((mean - 1.0 / 3.0).abs() < 0.03 && (large - 0.2025).abs() < 0.04, "{mean} {large}");
        }
        config.targets.weighted_share = Some(1.0);
        let always = TargetSampler::new(&config, &objectives(), std::iter::empty());
        assert!((0..50).all(|_| always.draw_weights(&mut rng).is_some()));
    }

    #[test]
    fn without_weights_no_random_number_is_drawn_for_them() {
        let sampler = TargetSampler::new(&RunConfig::default(), &objectives(), std::iter::empty());
        let (mut rng, mut other) = (StdRng::seed_from_u64(1), StdRng::seed_from_u64(1));
        assert!((0..20).all(|_| sampler.draw_weights(&mut rng).is_none()));
        assert_eq!(rng.random::<u64>(), other.random::<u64>());
    }

    #[test]
    fn only_chosen_objectives_are_asked_for() {
        let mut config = RunConfig::default();
        config.targets.objectives = vec!["honesty".into()];
        let sampler = TargetSampler::new(&config, &objectives(), std::iter::empty());
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..200 {
            let preference = sampler.draw("", None, &mut rng);
            assert_eq!(preference.asked().map(|(i, _)| i).collect::<Vec<_>>(), [2]);
        }
    }

    #[test]
    fn a_share_of_the_classes_is_as_frequent_as_in_the_data() {
        let rows = [
            [Some(1), None, Some(0), Some(4)],
            [Some(1), None, Some(2), Some(0)],
            [Some(3), None, Some(2), None],
            [Some(1), None, Some(2), None],
        ];
        let (mut config, mut rng) = (RunConfig::default(), StdRng::seed_from_u64(1));
        // Of helpfulness 1 three times of four and 3 once.
        for (share, want) in [(1.0, [0.0, 0.75, 0.0, 0.25, 0.0]), (0.5, [0.1, 0.475, 0.1, 0.225, 0.1]), (0.0, [0.2; 5])] {
            config.targets.empirical_share = share;
            let sampler = TargetSampler::new(&config, &objectives(), rows.iter().map(|row| &row[..]));
            let sums = [vec![0.0, 0.75, 0.75, 1.0, 1.0], vec![0.0; 4], vec![0.25, 0.25, 1.0], vec![0.5, 0.5, 0.5, 0.5, 1.0]];
            assert_eq!(sampler.cumulative, sums);
            let drawn: Vec<usize> = (0..4_000).map(|_| sampler.class(0, &mut rng)).collect();
            for (class, want) in want.into_iter().enumerate() {
                let got = drawn.iter().filter(|&&c| c == class).count() as f64 / 4_000.0;
                assert!((got - want).abs() < 0.03 && (want > 0.0 || got == 0.0), "{share}: {got} of class {class}, not {want}");
            }
            let any: std::collections::BTreeSet<usize> = (0..50).map(|_| sampler.class(1, &mut rng)).collect();
            assert!(any.into_iter().eq(0..4), "where no label is known, too");
        }
    }

    #[test]
    fn one_objective_of_a_held_out_pair_is_let_go() {
        let sampler = TargetSampler::new(&RunConfig::default(), &objectives(), std::iter::empty());
        let left = |helpfulness, verbosity| {
            sampler.without_held_out(Preference(vec![Some(helpfulness), Some(0), Some(2), Some(verbosity)])).0
        };
        assert_eq!(left(2, 3), [None, Some(0), Some(2), Some(3)]);
        assert_eq!(left(1, 1), [None, Some(0), Some(2), Some(1)]);
        assert_eq!(left(2, 2), [Some(2), Some(0), None, Some(2)]);
        assert_eq!(left(1, 3), [Some(1), Some(0), Some(2), Some(3)]);
    }

    #[test]
    fn prompts_say_what_they_ask_for_in_tags_words_and_orders() {
        // Of three and of four wordings the last is kept: two can be had of both.
        let objectives = [
            Objective::new("a", "A", "", &["x", "y"]).in_words(&[&["1", "2", "3"], &["4", "5", "6"]]),
            Objective::new("b", "B", "", &["x", "y"]).in_words(&[&["1", "2", "3", "4"], &["5", "6", "7", "8"]]),
        ];
        let (mut config, mut rng) = (RunConfig::default(), StdRng::seed_from_u64(1));
        let [tags, words] = [[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0, 0.0]];
        let mixed = [1.0 / 3.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0];
        for (wording, shuffled, want) in
            [(TargetWording::Tags, 0.0, tags), (TargetWording::Words, 1.0, words), (TargetWording::Mixed, 0.5, mixed)]
        {
            (config.targets.wording, config.targets.shuffled_share) = (wording, shuffled);
            let sampler = TargetSampler::new(&config, &objectives, std::iter::empty());
            let drawn: Vec<Manner> = (0..4_000).map(|_| sampler.manner(&mut rng)).collect();
            let share = |of: &dyn Fn(&Manner) -> bool| drawn.iter().filter(|m| of(m)).count() as f64 / 4_000.0;
            for (said, want) in [Said::Tags, Said::Words(0), Said::Words(1), Said::Both(0), Said::Both(1)].into_iter().zip(want) {
                let got = share(&|m| m.said == said);
                assert!((got - want).abs() < 0.03 && (want > 0.0 || got == 0.0), "{wording:?}: {got} {said:?}, not {want}");
            }
            // Half of what is shuffled is as it was.
            assert!((share(&|m| m.order == [1, 0]) - shuffled / 2.0).abs() < 0.03 && share(&|m| m.order.len() == 2) == 1.0);
        }
    }
}
