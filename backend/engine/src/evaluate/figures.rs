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
    use crate::data::world;
    use crate::evaluate::little::{alone, objectives, probe};
    use rand::SeedableRng;

    /// What is known of thirteen answers.
    struct Known {
        plan: Plan,
        achieved: Vec<Vec<usize>>,
        other: Vec<Vec<usize>>,
        flags: [Vec<bool>; 2],
        claims: Vec<Option<Claims>>,
        objectives: Vec<Objective>,
    }

    impl Known {
        /// Four prompts for the first objective alone, of which one asks for its lowest class, two for the third, four for several, two for held-out
        /// pairs, one for a trained one. Of two, three and five classes: what is asked for, what is achieved, and what the other achieves.
        fn new() -> Self {
            let (joint, held_out, trained) = (Purpose::Joint, Purpose::HeldOut, Purpose::Trained);
            let rows = [
                (alone(0, 0, 0), [0, 0, 0], [0; 3]),
                (alone(0, 0, 1), [0, 0, 0], [0; 3]),
                (alone(0, 0, 1), [1, 0, 0], [0; 3]),
                (alone(0, 0, 1), [1, 0, 0], [0; 3]),
                (alone(0, 2, 0), [0, 0, 4], [0; 3]),
                (alone(0, 2, 4), [0, 0, 0], [0; 3]),
                (probe(0, joint, [Some(1), Some(2), None]), [1, 2, 0], [0, 2, 0]),
                (probe(0, joint, [Some(1), None, Some(2)]), [1, 0, 1], [0, 0, 2]),
                (probe(0, joint, [None, Some(0), Some(4)]), [0, 1, 4], [0, 0, 3]),
                (probe(0, joint, [None, Some(1), Some(2)]), [0, 2, 2], [0, 1, 4]),
                (probe(0, held_out, [Some(1), None, Some(3)]), [1, 0, 2], [0; 3]),
                (probe(0, held_out, [Some(0), None, Some(0)]), [0, 0, 0], [0; 3]),
                (probe(0, trained, [Some(0), None, Some(1)]), [0, 0, 1], [0; 3]),
            ];
            let claims = |n| match n {
                0 => Some(Claims { own: 1, all: 1 }),
                5 => Some(Claims { own: 1, all: 3 }),
                7 => Some(Claims { own: 0, all: 1 }),
                _ => None,
            };
            Self {
                achieved: rows.iter().map(|(_, achieved, _)| achieved.to_vec()).collect(),
                other: rows.iter().map(|(.., other)| other.to_vec()).collect(),
                flags: [(0..13).map(|n| ![1, 5, 12].contains(&n)).collect(), (0..13).map(|n| n > 3).collect()],
                claims: (0..13).map(claims).collect(),
                objectives: objectives(),
                plan: Plan { probes: rows.into_iter().map(|(probe, ..)| probe).collect() },
            }
        }

        fn answered(&self) -> Answered<'_> {
            Answered {
                plan: &self.plan,
                achieved: &self.achieved,
                other: Some(&self.other),
                fluent: &self.flags[0],
                unique: &self.flags[1],
                claims: &self.claims,
                objectives: &self.objectives,
            }
        }
    }

    #[test]
    fn every_figure_is_that_of_its_own_prompts() {
        let known = Known::new();
        let all: Vec<usize> = (0..13).collect();
        let f = known.answered().figures(&all);
        for (name, value, want) in [
            // Ranks 1, 3, 3, 3 and 1.5, 1.5, 3.5, 3.5 of the first objective; the third is the wrong way round.
            ("spearman", f.spearman, (1.0 / 3f64.sqrt() - 1.0) / 2.0),
            // All of class 0 and two of three of class 1; none of the third.
            ("hit rate", f.hit_rate, (1.0 + 2.0 / 3.0) / 2.0 / 2.0),
            ("all at once", f.joint_hit_rate, 1.0 / 4.0),
            ("held out", f.held_out_hit_rate, (0.5 + 1.0) / 2.0),
            // Two wins, one defeat, and half a range each in the last.
            ("wins", f.win_rate, 2.5 / 4.0),
            ("fluent", f.fluency, 10.0 / 13.0),
            ("unique", f.unique, 9.0 / 13.0),
            // Of all claims, not of all answers.
            ("on topic", f.on_topic, 2.0 / 5.0),
        ] {
            assert!((value - want).abs() < 1e-12, "{name}: {value}, not {want}");
        }
        // One that counts twice counts twice; without anybody to compare with nothing is won, and of nothing there is no share.
        let twice = ControlFigures { hit_rate: 2.0 / 3.0, fluency: 2.0 / 3.0, ..Default::default() };
        assert_eq!(known.answered().figures(&[1, 2, 2]), twice);
        let alone = Answered { other: None, ..known.answered() };
        assert_eq!(alone.figures(&all), ControlFigures { win_rate: 0.0, ..f });
        assert_eq!(alone.figures(&[]), ControlFigures::default());
    }

    /// Where there is but one topic, every resample is the whole.
    #[test]
    fn every_interval_is_that_of_its_own_figure() {
        let known = Known::new();
        let whole = known.answered().figures(&(0..13).collect::<Vec<_>>());
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(known.answered().intervals(&[7; 13], &mut rng), [whole; 2]);
        assert_eq!(known.answered().intervals(&[], &mut rng), [ControlFigures::default(); 2]);
    }

    /// A quarter of a range is nearer than a third of another.
    #[test]
    fn who_is_nearer_wins_by_shares_of_ranges() {
        let asked = Probe { question: 0, preference: Preference(vec![Some(4), Some(3), None, None]), purpose: Purpose::Joint };
        let (quarter, third) = ([3, 3, 0, 0], [4, 2, 0, 0]);
        let wins = |a: &[usize], b: &[usize]| wins_against(&asked, a, b, &world::objectives());
        assert_eq!([wins(&quarter, &third), wins(&third, &quarter), wins(&third, &third)], [1.0, 0.0, 0.5]);
        // What is not asked for does not count.
        assert_eq!(wins(&[3, 3, 2, 4], &quarter), 0.5);
    }

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
