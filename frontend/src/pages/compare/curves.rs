//! Curves of several runs on one chart, made as they grow. What is known of a step never changes until the run is resumed from before it, so
//! it is read once: fifty runs that each say ten steps a second cost what their new steps cost.

use super::reading::named;
use crate::state::RunState;
use crate::words::{said, t};
use moslim_charts::{Ink, LinePlot, Plot, Series};
use moslim_shared::event::PolicyStep;

/// (x, y), in ascending order of x.
type Points = Vec<(f64, f64)>;

/// A figure of every step of a policy, of all runs, and of those that belong together the lowest, the median and the highest.
#[derive(Default)]
pub struct Curves {
    runs: Vec<Known>,
    groups: Vec<Group>,
}

/// What is known of a run's curve.
#[derive(Default)]
struct Known {
    run: String,
    /// How often its steps had become void, and how many were read since.
    voided: u64,
    read: usize,
    points: Points,
}

/// What is known of some runs together.
#[derive(Default)]
struct Group {
    /// Of those that have a curve.
    members: Vec<usize>,
    /// Lowest, median and highest at every step that all of them have.
    envelope: [Points; 3],
}

impl Curves {
    /// A curve for each group of runs: of seeds their median, and faintly the lowest and highest.
    pub fn plot(
        &mut self,
        (runs, titles): (&[&RunState], &[String]),
        groups: &[Vec<usize>],
        unit: &'static str,
        of: &dyn Fn(&RunState, &PolicyStep) -> Option<f64>,
    ) -> Plot {
        let anew = self.read(runs, of);
        self.groups.resize_with(groups.len(), Group::default);
        let mut series = Vec::new();
        for (place, (members, kept)) in groups.iter().zip(&mut self.groups).enumerate() {
            let (ink, name) = (Ink::Objective(place), named(titles, members));
            let mut add = |label, bold, points: &Points| series.push(Series { label, ink, bold, points: points.clone() });
            if let [only] = members[..] {
                add(name, false, &self.runs[only].points);
                // What was known of it together with others may be void by the time that it is shown so again.
                *kept = Group::default();
                continue;
            }
            // One that waits or failed before it had any does not take the others' curve away.
            let counted: Vec<usize> = members.iter().copied().filter(|n| !self.runs[*n].points.is_empty()).collect();
            if kept.members != counted || counted.iter().any(|n| anew[*n]) {
                *kept = Group { members: counted, ..Default::default() };
            }
            extend(&mut kept.envelope, &kept.members.iter().map(|n| &self.runs[*n].points[..]).collect::<Vec<_>>());
            let [low, middle, high] = &kept.envelope;
            add(said("{0}, median of {1} seeds", &[&name, &kept.members.len().to_string()]), true, middle);
            add(t("lowest").into(), false, low);
            add(t("highest").into(), false, high);
        }
        Plot::Lines(LinePlot::over_steps(series, unit))
    }

    /// Reads the steps that are new; of each run, whether it had to be read from the beginning.
    fn read(&mut self, runs: &[&RunState], of: &dyn Fn(&RunState, &PolicyStep) -> Option<f64>) -> Vec<bool> {
        self.runs.resize_with(runs.len(), Known::default);
        let grow = |(known, run): (&mut Known, &&RunState)| {
            let (id, steps) = (run.info().map_or("", |info| &info.id), run.policy());
            let anew = known.run != id || known.voided != run.voided();
            if anew {
                *known = Known { run: id.into(), voided: run.voided(), ..Default::default() };
            }
            let value = |step: &PolicyStep| Some((step.step as f64, of(run, step).filter(|v| v.is_finite())?));
            known.points.extend(steps[known.read..].iter().filter_map(value));
            known.read = steps.len();
            anew
        };
        self.runs.iter_mut().zip(runs).map(grow).collect()
    }
}

/// Adds lowest, median and highest at every further step that all curves have.
fn extend(envelope: &mut [Points; 3], curves: &[&[(f64, f64)]]) {
    let Some((first, others)) = curves.split_first() else { return };
    let done = envelope[0].last().map_or(f64::NEG_INFINITY, |p| p.0);
    let after = |curve: &[(f64, f64)]| curve.partition_point(|p| p.0 <= done);
    // What is left of each curve: all of them are walked along once, side by side.
    let mut left: Vec<&[(f64, f64)]> = others.iter().map(|curve| &curve[after(curve)..]).collect();
    let mut values = Vec::with_capacity(curves.len());
    for &(x, y) in &first[after(first)..] {
        values.clear();
        values.push(y);
        for curve in &mut left {
            while let [(before, _), rest @ ..] = curve
                && *before < x
            {
                *curve = rest;
            }
            values.extend(curve.first().filter(|p| p.0 == x).map(|p| p.1));
        }
        if values.len() < curves.len() {
            continue;
        }
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        for (list, value) in envelope.iter_mut().zip([values[0], median, values[values.len() - 1]]) {
            list.push((x, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading::tests::run;
    use super::super::reading::{groups, places};
    use super::*;
    use moslim_shared::config::RunConfig;
    use moslim_shared::event::{Event, EventBody, Frame, RunInfo, Stage};

    fn reward(curves: &mut Curves, runs: &[RunState], together: bool) -> LinePlot {
        let all: Vec<&RunState> = runs.iter().collect();
        let names: Vec<String> = ["a", "a", "a", "b"][..runs.len()].iter().map(ToString::to_string).collect();
        let groups = groups(&places(&all, together));
        let Plot::Lines(plot) = curves.plot((&all, &names), &groups, "reward", &|_, p| Some(p.reward)) else {
            panic!("no lines")
        };
        plot
    }

    fn points(plot: &LinePlot) -> Vec<Points> {
        plot.series.iter().map(|s| s.points.clone()).collect()
    }

    fn hear(run: &mut RunState, body: EventBody) {
        run.apply(Event { seq: run.last_seq() + 1, time: 0, body });
    }

    fn step(step: usize, reward: f64) -> EventBody {
        EventBody::Policy { part: None, total: 9, step: PolicyStep { step, reward, ..Default::default() } }
    }

    #[test]
    fn seeds_of_the_same_settings_become_a_median_with_its_range() {
        let runs = [
            run(1, 1e-3, [0.0; 2], &[1.0, 5.0]),
            run(2, 1e-3, [0.0; 2], &[3.0, 2.0]),
            run(3, 1e-3, [0.0; 2], &[2.0]),
            run(1, 9e-4, [0.0; 2], &[7.0]),
        ];
        let mut curves = Curves::default();
        let plot = reward(&mut curves, &runs, true);
        // The third run has one step only; beyond it there is no median of all.
        assert_eq!(points(&plot), [vec![(1.0, 2.0)], vec![(1.0, 1.0)], vec![(1.0, 3.0)], vec![(1.0, 7.0)]]);
        let of = |plot: &LinePlot| plot.series.iter().map(|s| (s.label.clone(), s.ink)).collect::<Vec<_>>();
        assert_eq!(of(&plot)[0], ("a, median of 3 seeds".into(), Ink::Objective(0)));
        assert_eq!(of(&plot)[3], ("b".into(), Ink::Objective(1)), "a group has a colour");
        let apart = reward(&mut curves, &runs, false);
        assert_eq!(of(&apart)[2], ("a (3)".into(), Ink::Objective(2)));
        let mut even = Default::default();
        extend(&mut even, &[&[(1.0, 1.0)], &[(1.0, 4.0)]]);
        assert_eq!(even[1], [(1.0, 2.5)]);
    }

    /// Makes sure that what was kept gives the picture that everything read at once would give; the lines of the seeds together.
    fn same(curves: &mut Curves, runs: &[RunState], what: &str) -> Vec<Points> {
        for together in [true, true, false] {
            let grown = reward(curves, runs, together);
            assert_eq!(grown, reward(&mut Curves::default(), runs, together), "{what}");
        }
        points(&reward(curves, runs, true))
    }

    /// Whatever comes in whatever order, what was kept gives the picture that everything read at once would give.
    #[test]
    fn curves_that_grew_are_those_that_are_read_at_once() {
        let mut runs = [run(1, 1e-3, [0.0; 2], &[]), run(2, 1e-3, [0.0; 2], &[4.0]), run(3, 1e-3, [0.0; 2], &[1.0])];
        let mut curves = Curves::default();
        same(&mut curves, &runs, "one that waits");
        // The last one is ahead of the others; the first one begins, and has no second step.
        (2..5).for_each(|n| hear(&mut runs[2], step(n, n as f64)));
        assert_eq!(same(&mut curves, &runs, "one is ahead")[0], [(1.0, 2.5)]);
        [1, 3].into_iter().for_each(|n| hear(&mut runs[0], step(n, 2.0)));
        assert_eq!(same(&mut curves, &runs, "a curve that begins counts from its beginning")[0], [(1.0, 2.0)]);
        [2, 3].into_iter().for_each(|n| hear(&mut runs[1], step(n, 9.0)));
        assert_eq!(same(&mut curves, &runs, "steps that all have by now")[0], [(1.0, 2.0), (3.0, 3.0)]);
        // Resumed from a checkpoint, it takes its last steps back, and says others in their place.
        hear(&mut runs[2], EventBody::StageBegan { stage: Stage::Policy, part: None, from: 2, total: 9 });
        hear(&mut runs[2], step(3, 5.0));
        assert_eq!(same(&mut curves, &runs, "a step that was taken back")[0], [(1.0, 2.0), (3.0, 5.0)]);
        // The same while each is shown by itself.
        reward(&mut curves, &runs, false);
        hear(&mut runs[2], EventBody::StageBegan { stage: Stage::Policy, part: None, from: 0, total: 9 });
        (1..5).for_each(|n| hear(&mut runs[2], step(n, 7.0)));
        reward(&mut curves, &runs, false);
        let together = reward(&mut curves, &runs, true);
        assert_eq!(together, reward(&mut Curves::default(), &runs, true), "steps that were taken back while nobody looked");
        // One that is told again without a word.
        [2, 3, 4, 5].into_iter().for_each(|n| hear(&mut runs[2], step(n, -1.0)));
        assert_eq!(same(&mut curves, &runs, "steps that are told again")[1], [(1.0, 2.0), (3.0, -1.0)]);
        // Another run in the place of one; which runs they are is known by then.
        for (run, id) in runs.iter_mut().zip(["x", "y", "z"]) {
            run.receive(Frame::Info { info: RunInfo::new(id, &RunConfig::default(), 0) });
        }
        same(&mut curves, &runs, "runs with names");
        runs.swap(0, 2);
        same(&mut curves, &runs, "another order");
    }
}
