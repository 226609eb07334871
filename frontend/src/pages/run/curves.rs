//! Charts of a run, as functions from its state: the supervised stages, the classes of the answers, and how lines are made.

use crate::parts::chart::Chart;
use crate::state::{RunState, Topic};
use crate::stream::Run;
use leptos::prelude::*;
use moslim_charts::{BandPlot, Ink, LinePlot, Plot, Series};
use moslim_shared::event::{PolicyStep, Stage};
use moslim_shared::objective::Objective;

/// Loss curves of the supervised stages and the reward model's agreement with labels.
#[component]
pub fn Training(run: Run) -> impl IntoView {
    view! {
        <section id="training" class="section" aria-labelledby="training-title">
            <h2 id="training-title">"Supervised stages"</h2>
            <div class="grid three">
                <Chart
                    id="chart-sft"
                    title="Does the policy learn the language?"
                    hint="Loss of supervised fine-tuning, nats per token. Lower is better; no preference is involved yet."
                    empty="Fills while SFT runs. A stage taken from the cache has no curve."
                    plot=run.on(Topic::Loss, |s| loss(s, Stage::Sft, "SFT loss"))
                />
                <Chart
                    id="chart-reward"
                    title="Does the reward model learn to grade?"
                    hint="Loss of the reward model, summed over its heads. Lower is better."
                    empty="Fills while the reward model trains. A stage taken from the cache has no curve."
                    plot=run.on(Topic::Loss, |s| loss(s, Stage::RewardModel, "Reward model loss"))
                />
                <Chart
                    id="chart-qwk"
                    title="Do its grades agree with the labels?"
                    hint="Quadratic weighted kappa on validation rows: 1 is perfect agreement, 0 is chance, near misses count in part."
                    empty="Fills with the reward model's first validation."
                    plot=run.on(Topic::Validation, validation)
                />
            </div>
        </section>
    }
}

/// One band of class mass per objective.
#[component]
pub fn Distributions(run: Run) -> impl IntoView {
    let known = run.memo(|s| (s.optimises(), s.objectives.clone()));
    view! {
        <section id="classes" class="section" aria-labelledby="classes-title">
            <h2 id="classes-title">"Where does the mass of each objective go?"</h2>
            <p class="muted">
                "Mean class probabilities over all answers of an iteration, lowest class at the bottom. "
                "When every class is asked for equally often and obeyed, the bands become equally high."
            </p>
            <div class="grid two">
                {move || {
                    let (optimises, objectives) = known.get();
                    if !optimises {
                        view! { <p class="card empty">"This method has no iterations to look at."</p> }.into_any()
                    } else if objectives.is_empty() {
                        view! { <p class="card empty">"The objectives appear when the run starts."</p> }.into_any()
                    } else {
                        objectives.into_iter().enumerate().map(|(i, o)| distribution(run, i, o)).collect_view().into_any()
                    }
                }}
            </div>
        </section>
    }
}

fn distribution(run: Run, index: usize, objective: Objective) -> impl IntoView {
    let classes: Vec<String> = objective.classes.iter().enumerate().map(|(c, label)| format!("{c} {label}")).collect();
    view! {
        <Chart
            id=format!("chart-classes-{}", objective.id)
            title=format!("{}: share of each class", objective.name)
            hint="One shade per class, pale is low."
            empty="Fills with the first iteration of policy optimisation."
            plot=run.on(Topic::Policy, move |s| band(s, index, &classes))
        />
    }
}

/// A line of a chart.
pub fn line(label: &str, ink: Ink, bold: bool, points: Vec<(f64, f64)>) -> Series {
    Series { label: label.into(), ink, bold, points }
}

/// Loss of a supervised stage.
pub fn loss(state: &RunState, stage: Stage, label: &str) -> Plot {
    let curves = state.loss_curves(stage);
    let last = curves.len();
    let name = |n: usize| if n == 0 { label.to_string() } else { format!("{label} {n}") };
    // The part that trains now stands out.
    let series = curves.iter().enumerate().map(|(i, (n, points))| {
        let (ink, bold) = if i + 1 == last { (Ink::Strong, true) } else { (Ink::Accent, false) };
        line(&name(*n), ink, bold, points.to_vec())
    });
    Plot::Lines(LinePlot {
        series: series.collect(),
        unit: if stage == Stage::Sft { "nats per token" } else { "loss" },
        ..Default::default()
    })
}

/// Agreement of every head with the labels.
pub fn validation(state: &RunState) -> Plot {
    let points = |i: usize| state.validation.get(&(Stage::RewardModel, i)).cloned().unwrap_or_default();
    let objectives = state.objectives.iter().enumerate();
    let series = objectives.map(|(i, o)| line(&o.name, Ink::Objective(i), false, points(i))).collect();
    Plot::Lines(LinePlot::over_steps(series, "kappa"))
}

/// Lines over policy steps; `value` gives the value of line number n.
pub fn lines(
    state: &RunState,
    unit: &'static str,
    heads: Vec<(String, Ink, bool)>,
    value: &dyn Fn(&PolicyStep, usize) -> Option<f64>,
) -> Plot {
    let points = |n: usize| state.policy().iter().filter_map(|p| Some((p.step as f64, value(p, n)?))).collect();
    let series = heads.into_iter().enumerate().map(|(n, (label, ink, bold))| line(&label, ink, bold, points(n))).collect();
    Plot::Lines(LinePlot::over_steps(series, unit))
}

fn band(state: &RunState, objective: usize, classes: &[String]) -> Plot {
    let rows = state.policy().iter().filter_map(|p| Some((p.step as f64, p.distributions.get(objective)?.clone()))).collect();
    Plot::Bands(BandPlot { objective, classes: classes.to_vec(), rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_values_leave_an_empty_chart() {
        let mut state = RunState::default();
        state.policies.entry(0).or_default().push(PolicyStep { step: 1, ..Default::default() });
        assert!(band(&state, 0, &["no".into(), "yes".into()]).is_empty());
        state.objectives.push(Objective::new("honesty", "Honesty", "", &["no", "yes"]));
        state.validation.insert((Stage::HeldOutRewardModel, 0), vec![(1.0, 0.5)]);
        assert!(validation(&state).is_empty(), "the held-out reward model is another one");
    }
}
