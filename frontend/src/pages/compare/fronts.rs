//! The trade-offs of several runs, in the objectives of the first that has any.

use super::reading::named;
use crate::parts::front::{Fronts, Group};
use crate::state::RunState;
use crate::words::said;
use moslim_charts::Ink;
use moslim_shared::objective::index_of;

/// Trade-offs of groups of runs; of several seeds what all, half and any of them reach.
pub fn fronts((runs, titles): (&[&RunState], &[String]), groups: &[Vec<usize>]) -> Fronts {
    let Some((first, report)) = runs.iter().find_map(|run| Some((run, run.trade_offs()?))) else { return Fronts::default() };
    let name = |id: &String| index_of(&first.objectives, id).map_or(id.clone(), |i| first.objectives[i].name.clone());
    // What was measured in other objectives cannot be drawn on these axes.
    let points = |n: &usize| {
        let other = runs[*n].trade_offs().filter(|other| other.objectives == report.objectives)?;
        Some(other.points.iter().map(|p| p.utility.clone()).collect::<Vec<_>>())
    };
    let mut drawn = Vec::new();
    for (place, members) in groups.iter().enumerate() {
        let ink = Ink::Objective(place);
        let known: Vec<Vec<Vec<f64>>> = members.iter().filter_map(points).collect();
        let title = named(titles, members);
        match known.len() {
            0 => {}
            1 => drawn.push(Group { name: title, ink, runs: known, by: 1, again: false }),
            seeds => {
                let half = seeds.div_ceil(2);
                for by in if half > 1 && half < seeds { vec![seeds, half, 1] } else { vec![seeds, 1] } {
                    let name = said("{0}, reached by {1} of {2} seeds", &[&title, &by.to_string(), &seeds.to_string()]);
                    drawn.push(Group { name, ink, runs: known.clone(), by, again: by < seeds });
                }
            }
        }
    }
    Fronts { objectives: report.objectives.iter().map(name).collect(), reference: report.reference.clone(), groups: drawn }
}

#[cfg(test)]
mod tests {
    use super::super::reading::{groups, places, titles};
    use super::*;
    use moslim_shared::config::RunConfig;
    use moslim_shared::event::{Event, EventBody};
    use moslim_shared::summary::{FrontPoint, FrontReport};

    fn run(seed: u64, objectives: [&str; 2], utility: [f64; 2]) -> RunState {
        let mut state = RunState::default();
        state.config = Some(RunConfig { seed, ..Default::default() });
        let point = FrontPoint { utility: utility.to_vec(), ..Default::default() };
        let report = FrontReport {
            objectives: objectives.map(String::from).to_vec(),
            points: vec![point],
            reference: vec![0.0; 2],
            ..Default::default()
        };
        state.apply(Event { seq: 1, time: 0, body: EventBody::Front { report } });
        state
    }

    #[test]
    fn seeds_become_what_all_and_any_of_them_reach_and_other_objectives_stay_out() {
        let runs = [run(1, ["a", "b"], [0.5, 0.25]), run(2, ["a", "b"], [0.25, 0.5]), run(3, ["a", "c"], [1.0, 1.0])];
        let runs: Vec<&RunState> = runs.iter().collect();
        let of = |together| fronts((&runs, &titles(&runs)), &groups(&places(&runs, together)));
        let apart = of(false);
        let inks = |fronts: &Fronts| fronts.groups.iter().map(|g| g.ink).collect::<Vec<_>>();
        assert_eq!(inks(&apart), [Ink::Objective(0), Ink::Objective(1)]);
        assert_eq!(apart.groups.iter().map(|g| (g.runs.len(), g.by)).collect::<Vec<_>>(), [(1, 1), (1, 1)]);
        assert_eq!((apart.objectives, apart.groups[1].runs[0].clone()), (vec!["a".into(), "b".into()], vec![vec![0.25, 0.5]]));
        let together = of(true);
        assert_eq!(inks(&together), [Ink::Objective(0); 2], "of one group whatever share of its seeds reaches it");
        assert_eq!(together.groups.iter().map(|g| (g.runs.len(), g.by)).collect::<Vec<_>>(), [(2, 2), (2, 1)]);
        assert_eq!(fronts((&[&RunState::default()], &[String::new()]), &[vec![0]]), Fronts::default());
    }
}
