//! The figures of control over any choice of prompts: all of them, those of one part, or a resample for an interval.

use super::plan::{Plan, Probe, Purpose};
use crate::data::Claims;
use moslim_shared::metrics::{middle, spearman};
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use moslim_shared::summary::ControlFigures;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 400;

/// What is known of every answer to a plan, in its order.
pub struct Answered<'a> {
    pub plan: &'a Plan,
    /// `[probe][objective]`
    pub achieved: &'a [Vec<usize>],
    /// The same of what the win rate is against.
    pub other: Option<&'a [Vec<usize>]>,
    pub fluent: &'a [bool],
    /// Whether no other answer equals it.
    pub unique: &'a [bool],
    /// Claims, where the prompt wants some.
    pub claims: &'a [Option<Claims>],
    pub objectives: &'a [Objective],
}

/// Mean of what is added.
#[derive(Default)]
struct Mean {
    sum: f64,
    n: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.n += 1.0;
    }

    /// 0 where nothing was added.
    fn value(&self) -> f64 {
        if self.n > 0.0 { self.sum / self.n } else { 0.0 }
    }
}

impl Answered<'_> {
    /// The figures over the probes at `positions`, which may repeat.
    pub fn figures(&self, positions: &[usize]) -> ControlFigures {
        let probes = &self.plan.probes;
        let mut singles: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        let [mut joint, mut held_out, mut wins, mut fluent, mut unique] = [const { Mean { sum: 0.0, n: 0.0 } }; 5];
        let (mut own, mut all) = (0, 0);
        for &n in positions {
            let (probe, achieved) = (&probes[n], &self.achieved[n]);
            fluent.add(f64::from(u8::from(self.fluent[n])));
            unique.add(f64::from(u8::from(self.unique[n])));
            if let Some(claims) = &self.claims[n] {
                own += claims.own;
                all += claims.all;
            }
            let met = || probe.preference.asked().filter(|&(i, class)| achieved[i] == class).count();
            match probe.purpose {
                Purpose::Single { objective, class } => singles.entry(objective).or_default().push((class, achieved[objective])),
                Purpose::Joint => {
                    joint.add(f64::from(u8::from(met() == probe.preference.active())));
                    if let Some(other) = self.other {
                        wins.add(wins_against(probe, achieved, &other[n], self.objectives));
                    }
                }
                Purpose::HeldOut => held_out.add(met() as f64 / probe.preference.active() as f64),
                Purpose::Trained => {}
            }
        }
        let (mut correlations, mut hits) = (Mean::default(), Mean::default());
        for pairs in singles.values() {
            let (asked, got): (Vec<f64>, Vec<f64>) = pairs.iter().map(|&(a, g)| (a as f64, g as f64)).unzip();
            correlations.add(spearman(&asked, &got));
            // Every class asked for counts the same, however often a resample has it.
            let mut classes: BTreeMap<usize, Mean> = BTreeMap::new();
            for &(asked, got) in pairs {
                classes.entry(asked).or_default().add(f64::from(u8::from(asked == got)));
            }
            let mut head = Mean::default();
            classes.values().for_each(|class| head.add(class.value()));
            hits.add(head.value());
        }
        ControlFigures {
            spearman: correlations.value(),
            hit_rate: hits.value(),
            joint_hit_rate: joint.value(),
            held_out_hit_rate: held_out.value(),
            win_rate: wins.value(),
            fluency: fluent.value(),
            unique: unique.value(),
            on_topic: if all > 0 { own as f64 / all as f64 } else { 0.0 },
        }
    }

    /// Lower and upper bounds of 95 % intervals by bootstrap over topics; `topics`: of every probe's question.
    pub fn intervals(&self, topics: &[usize], rng: &mut StdRng) -> [ControlFigures; 2] {
        let draws: Vec<[f64; 8]> =
            by_topic(topics, RESAMPLES, rng).map(|positions| to_array(&self.figures(&positions))).collect();
        let bounds = |i: usize| if draws.is_empty() { [0.0; 2] } else { middle(draws.iter().map(|d| d[i]).collect()) };
        let all: [[f64; 2]; 8] = std::array::from_fn(bounds);
        [0, 1].map(|end| from_array(all.map(|b| b[end])))
    }
}

fn to_array(f: &ControlFigures) -> [f64; 8] {
    [f.spearman, f.hit_rate, f.joint_hit_rate, f.held_out_hit_rate, f.win_rate, f.fluency, f.unique, f.on_topic]
}

fn from_array(
    [spearman, hit_rate, joint_hit_rate, held_out_hit_rate, win_rate, fluency, unique, on_topic]: [f64; 8],
) -> ControlFigures {
    ControlFigures { spearman, hit_rate, joint_hit_rate, held_out_hit_rate, win_rate, fluency, unique, on_topic }
}

/// 1 where `achieved` is nearer to what is asked for than `other`, half for a tie. Distances are summed over the objectives asked
/// for, in shares of each one's range.
pub fn wins_against(probe: &Probe, achieved: &[usize], other: &[usize], objectives: &[Objective]) -> f64 {
    let distance = |p: &Preference, got: &[usize]| {
        p.asked().map(|(i, t)| got[i].abs_diff(t) as f64 / (objectives[i].class_count() - 1) as f64).sum::<f64>()
    };
    let (a, b) = (distance(&probe.preference, achieved), distance(&probe.preference, other));
    if (a - b).abs() < 1e-9 { 0.5 } else { f64::from(u8::from(a < b)) }
}

/// Resamples of positions: as many topics as there are, drawn with replacement, each with all its positions. Answers about one
/// topic are not independent of each other; topics are. `topics`: of every position.
pub fn by_topic<'a>(topics: &[usize], resamples: usize, rng: &'a mut StdRng) -> impl Iterator<Item = Vec<usize>> + use<'a> {
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    topics.iter().enumerate().for_each(|(n, &topic)| groups.entry(topic).or_default().push(n));
    let groups: Vec<Vec<usize>> = groups.into_values().collect();
    let resamples = if groups.is_empty() { 0 } else { resamples };
    (0..resamples).map(move |_| (0..groups.len()).flat_map(|_| groups[rng.random_range(0..groups.len())].clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn topics_are_resampled_whole() {
        let topics = [7, 7, 3, 3, 3, 9];
        let mut rng = StdRng::seed_from_u64(1);
        let mut sizes = std::collections::HashSet::new();
        for resample in by_topic(&topics, 200, &mut rng) {
            let count = |n: usize| resample.iter().filter(|&&p| p == n).count();
            assert!(count(0) == count(1) && count(2) == count(3) && count(3) == count(4));
            assert_eq!(count(0) + count(2) + count(5), 3, "as many topics as there are");
            sizes.insert(resample.len());
        }
        // Topics of different size give resamples of different size.
        assert!(sizes.contains(&3) && sizes.contains(&9) && sizes.contains(&6));
        assert_eq!(by_topic(&[], 10, &mut rng).count(), 0);
    }

    /// Answers that agree within a topic tell less than as many that are independent: the interval is wider.
    #[test]
    fn intervals_know_that_answers_of_a_topic_are_alike() {
        let mut rng = StdRng::seed_from_u64(2);
        let values: Vec<f64> = (0..60).map(|n| f64::from(u8::from(n / 10 % 2 == 0))).collect();
        let mut width = |topics: Vec<usize>| {
            let means = by_topic(&topics, 400, &mut rng).map(|r| r.iter().map(|&n| values[n]).sum::<f64>() / r.len() as f64);
            let [low, high] = middle(means.collect());
            high - low
        };
        let (clustered, independent) = (width((0..60).map(|n| n / 10).collect()), width((0..60).collect()));
        assert!(clustered > 2.0 * independent, "{clustered} {independent}");
    }
}
