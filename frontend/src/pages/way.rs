//! How fronts grew while policies were optimised: what each run's own reward model saw in answers to training questions.

use crate::parts::chart::Chart;
use crate::parts::format;
use crate::parts::front::{Fronts, Group, OwnFront};
use crate::state::RunState;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::{Ink, LinePlot, Plot, Series};
use moslim_shared::event::Stage;
use moslim_shared::objective::index_of;
use moslim_shared::summary::FrontSeen;

/// Trade-offs of runs, with their names, after `share` of their optimisation, in the objectives of the first that has any. Runs of several
/// policies have none on the way.
pub fn fronts_at(runs: &[(String, &RunState)], share: f64) -> Fronts {
    let seen: Vec<Option<&FrontSeen>> = runs.iter().map(|(_, run)| at(run, share)).collect();
    let Some((first, front)) = runs.iter().zip(&seen).find_map(|((_, run), front)| Some((run, (*front)?))) else {
        return Fronts::default();
    };
    let name = |id: &String| index_of(&first.objectives, id).map_or(id.clone(), |i| first.objectives[i].name.clone());
    let group = |(n, found): (usize, &Option<&FrontSeen>)| {
        let own = found.filter(|own| own.objectives == front.objectives)?;
        let title = said("{0}, after {1} iterations", &[&runs[n].0, &own.step.to_string()]);
        Some(Group { name: title, ink: Ink::Objective(n), runs: vec![own.points.clone()], by: 1, again: false })
    };
    Fronts {
        objectives: front.objectives.iter().map(name).collect(),
        reference: vec![0.0; front.objectives.len()],
        groups: seen.iter().enumerate().filter_map(group).collect(),
    }
}

/// The last front that a run tried before `share` of its optimisation was over.
fn at(run: &RunState, share: f64) -> Option<&FrontSeen> {
    let reached = share * run.stages[Stage::Policy as usize].total as f64 + 1e-6;
    run.fronts_seen.iter().rev().find(|front| front.step as f64 <= reached)
}

/// How the hypervolume of every run's front grew.
pub fn growth(runs: &[(String, &RunState)]) -> Plot {
    let line = |(n, (name, run)): (usize, &(String, &RunState))| {
        let points: Vec<(f64, f64)> = run.fronts_seen.iter().map(|f| (f.step as f64, f.hypervolume)).collect();
        (!points.is_empty()).then(|| Series { label: name.clone(), ink: Ink::Objective(n), bold: false, points })
    };
    Plot::Lines(LinePlot::over_steps(runs.iter().enumerate().filter_map(line).collect(), t("hypervolume")))
}

/// Fronts that a slider leads through, and the curve of their hypervolume; nothing where no run has tried any.
#[component]
pub fn Way(share: RwSignal<f64>, fronts: Memo<Fronts>, plot: Memo<Plot>) -> impl IntoView {
    view! {
        <section id="way" class="section" aria-labelledby="way-title" class:gone=move || fronts.with(|f| f.groups.is_empty())>
            <h2 id="way-title">{t("How the front grew")}</h2>
            <p class="muted">
                {t("What a policy could deliver between the objectives on the way, as its own reward model saw answers to training questions: a promise, where the figures at the end are measured. Drag the slider to go back.")}
            </p>
            <label class="slider">
                <span>{t("Share of the optimisation")}</span>
                <input
                    id="way-share" type="range" min="0" max="1" step="0.01"
                    prop:value=move || share.get().to_string()
                    on:input=move |ev| if let Ok(value) = event_target_value(&ev).parse() { share.set(value) }
                />
                <output class="num">{move || format::percent(share.get())}</output>
            </label>
            <OwnFront id="way" fronts=fronts/>
            <Chart
                id="chart-front"
                title=t("How much can be had together?")
                hint=t("Hypervolume of the front: the volume that it dominates, over all objectives, above the worst class of each.")
                empty=t("No run has tried its front on the way; evaluation.fronts_seen says how often.")
                plot=plot
            />
        </section>
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::event::{Event, EventBody};

    fn run(total: usize, steps: [usize; 3], objective: &str) -> RunState {
        let mut state = RunState::default();
        let began = EventBody::StageBegan { stage: Stage::Policy, part: None, from: 0, total };
        let seen = steps.map(|step| {
            let (points, objectives) = (vec![vec![step as f64 / 100.0]], vec![objective.to_string()]);
            let front = FrontSeen { step, points, objectives, hypervolume: step as f64 / 100.0, ..Default::default() };
            EventBody::FrontSeen { part: None, front }
        });
        let bodies = [began].into_iter().chain(seen).enumerate();
        bodies.for_each(|(n, body)| state.apply(Event { seq: n as u64 + 1, time: 0, body }));
        state
    }

    #[test]
    fn fronts_on_the_way_are_those_of_a_share_of_each_run() {
        let runs = [run(20, [0, 10, 20], "a"), run(40, [0, 20, 40], "a"), run(20, [0, 10, 20], "b")];
        let runs: Vec<(String, &RunState)> = runs.iter().enumerate().map(|(n, run)| (format!("run {n}"), run)).collect();
        let values = |share: f64| fronts_at(&runs, share).groups.iter().map(|g| g.runs[0][0][0]).collect::<Vec<_>>();
        assert_eq!((values(0.0), values(0.49)), (vec![0.0; 2], vec![0.0; 2]));
        assert_eq!((values(0.5), values(1.0)), (vec![0.1, 0.2], vec![0.2, 0.4]));
        assert_eq!(fronts_at(&runs, 0.5).groups[1].name, "run 1, after 20 iterations");
        let Plot::Lines(plot) = growth(&runs) else { panic!("lines") };
        assert_eq!(plot.series[1].points, [(0.0, 0.0), (20.0, 0.2), (40.0, 0.4)]);
        assert_eq!(fronts_at(&[(String::new(), &RunState::default())], 1.0), Fronts::default());
    }

    #[test]
    fn a_resumed_run_tries_its_front_anew() {
        let mut state = run(20, [0, 10, 20], "a");
        let body = EventBody::StageBegan { stage: Stage::Policy, part: None, from: 10, total: 20 };
        state.apply(Event { seq: 9, time: 0, body });
        assert_eq!(state.fronts_seen.iter().map(|f| f.step).collect::<Vec<_>>(), [0, 10]);
        let front = FrontSeen { step: 10, hypervolume: 0.5, ..Default::default() };
        state.apply(Event { seq: 10, time: 0, body: EventBody::FrontSeen { part: None, front } });
        assert_eq!(state.fronts_seen.iter().map(|f| f.hypervolume).collect::<Vec<_>>(), [0.0, 0.5]);
    }
}
