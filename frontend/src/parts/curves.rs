//! All charts of a run, as functions from its state.

use crate::charts::{BandPlot, Ink, LinePlot, Plot, Series};
use crate::parts::chart::chart;
use crate::state::{RunState, Topic};
use crate::stream::Run;
use leptos::prelude::*;
use moslim_shared::event::PolicyStep;

/// Loss curves of the supervised stages and the reward model's agreement with labels.
pub fn training(run: Run) -> AnyView {
    let sft = chart(
        run,
        Topic::Loss,
        "chart-sft".into(),
        "Does the policy learn the language?".into(),
        (
            "Loss of supervised fine-tuning, nats per token. Lower is better; no preference is involved yet.",
            "Fills while SFT runs. A stage taken from the cache has no curve.",
        ),
        Box::new(|s| loss(s, 0, "SFT loss")),
    );
    let reward = chart(
        run,
        Topic::Loss,
        "chart-reward".into(),
        "Does the reward model learn to grade?".into(),
        (
            "Loss of the reward model, summed over its heads. Lower is better.",
            "Fills while the reward model trains. A stage taken from the cache has no curve.",
        ),
        Box::new(|s| loss(s, 1, "Reward model loss")),
    );
    let qwk = chart(
        run,
        Topic::Validation,
        "chart-qwk".into(),
        "Do its grades agree with the labels?".into(),
        (
            "Quadratic weighted kappa on validation rows: 1 is perfect agreement, 0 is chance, near misses count in part.",
            "Fills with the reward model's first validation.",
        ),
        Box::new(validation),
    );
    view! {
        <section id="training" class="section" aria-labelledby="training-title">
            <h2 id="training-title">"Supervised stages"</h2>
            <div class="grid three">{sft}{reward}{qwk}</div>
        </section>
    }
    .into_any()
}

/// The curves of policy optimisation.
pub fn optimisation(run: Run) -> AnyView {
    let reward = chart(
        run,
        Topic::Policy,
        "chart-learning".into(),
        "Is it learning?".into(),
        (
            "Bold: the scalar that is optimised (score − β·KL). Thin: the score before KL, and what each objective adds when it is asked for.",
            "Fills with the first iteration of policy optimisation.",
        ),
        Box::new(learning),
    );
    let kl = chart(
        run,
        Topic::Policy,
        "chart-kl".into(),
        "How far has it moved from the SFT model?".into(),
        (
            "KL divergence in nats per answer, and its cost in the reward (β·KL).",
            "Fills with the first iteration of policy optimisation.",
        ),
        Box::new(divergence),
    );
    let target = chart(
        run,
        Topic::Policy,
        "chart-target".into(),
        "How likely is the class asked for?".into(),
        (
            "Probability that the reward model gives to the class asked for, mean over the answers that ask.",
            "Fills with the first iteration of policy optimisation.",
        ),
        Box::new(on_target),
    );
    let length = chart(
        run,
        Topic::Policy,
        "chart-entropy".into(),
        "Does it still try different things?".into(),
        (
            "Mean entropy of the next token, nats. A fall to zero means that the policy says one thing only.",
            "Fills with the first iteration of policy optimisation.",
        ),
        Box::new(|s| lines(s, false, vec![("Token entropy, nats".into(), Ink::Strong, true)], &|p, _| Some(p.entropy))),
    );
    view! {
        <section id="learning" class="section" aria-labelledby="learning-title">
            <h2 id="learning-title">"Policy optimisation"</h2>
            <div class="grid two">{reward}{kl}{target}{length}</div>
        </section>
    }
    .into_any()
}

/// One band of class mass per objective.
pub fn distributions(run: Run) -> AnyView {
    let known = run.text(|s| s.objectives.iter().map(|o| o.id.as_str()).collect::<Vec<_>>().join(" "));
    view! {
        <section id="classes" class="section" aria-labelledby="classes-title">
            <h2 id="classes-title">"Where does the mass of each objective go?"</h2>
            <p class="muted">
                "Mean class probabilities over all answers of an iteration, lowest class at the bottom. "
                "When every class is asked for equally often and obeyed, the bands become equally high."
            </p>
            <div class="grid two">
                {move || {
                    let _ = known.get();
                    let list = run.read(|s| s.objectives.clone());
                    if list.is_empty() {
                        return view! { <p class="card empty">"The objectives appear when the run starts."</p> }.into_any();
                    }
                    list.into_iter()
                        .enumerate()
                        .map(|(i, o)| {
                            let classes: Vec<String> =
                                o.classes.iter().enumerate().map(|(c, label)| format!("{c} {label}")).collect();
                            chart(
                                run,
                                Topic::Policy,
                                format!("chart-classes-{}", o.id),
                                format!("{}: share of each class", o.name),
                                ("One shade per class, pale is low.", "Fills with the first iteration of policy optimisation."),
                                Box::new(move |s| band(s, i, &classes)),
                            )
                        })
                        .collect::<Vec<_>>()
                        .into_any()
                }}
            </div>
        </section>
    }
    .into_any()
}

fn loss(state: &RunState, stage: usize, label: &str) -> Plot {
    let series = Series { label: label.into(), ink: Ink::Strong, bold: true, points: state.losses[stage].clone() };
    Plot::Lines(LinePlot { series: vec![series], ..Default::default() })
}

fn validation(state: &RunState) -> Plot {
    let series = state
        .objectives
        .iter()
        .enumerate()
        .map(|(i, o)| Series {
            label: o.name.clone(),
            ink: Ink::Objective(i),
            bold: false,
            points: state.validation.iter().filter_map(|(step, q)| Some((*step as f64, *q.get(i)?))).collect(),
        })
        .collect();
    Plot::Lines(LinePlot { series, zero: true, ..Default::default() })
}

/// Lines over policy steps; `value` gives the value of line number n.
fn lines(
    state: &RunState,
    percent: bool,
    heads: Vec<(String, Ink, bool)>,
    value: &dyn Fn(&PolicyStep, usize) -> Option<f64>,
) -> Plot {
    let series = heads
        .into_iter()
        .enumerate()
        .map(|(n, (label, ink, bold))| Series {
            label,
            ink,
            bold,
            points: state.policy.iter().filter_map(|p| Some((p.step as f64, value(p, n)?))).collect(),
        })
        .collect();
    Plot::Lines(LinePlot { series, range: percent.then_some((0.0, 1.0)), zero: true, percent })
}

/// One thin line per objective that prompts may ask for.
fn per_objective(state: &RunState) -> Vec<(String, Ink, bool)> {
    state.objectives.iter().enumerate().map(|(i, o)| (o.name.clone(), Ink::Objective(i), false)).collect()
}

fn learning(state: &RunState) -> Plot {
    let mut heads =
        vec![("Reward as optimised".to_string(), Ink::Strong, true), ("Score before KL".to_string(), Ink::Accent, false)];
    heads.extend(per_objective(state));
    lines(state, false, heads, &|p, n| match n {
        0 => Some(p.reward),
        1 => Some(p.score),
        _ => p.contributions.get(n - 2).copied(),
    })
}

fn divergence(state: &RunState) -> Plot {
    let heads = vec![("KL, nats per answer".to_string(), Ink::Strong, true), ("β·KL, its cost".to_string(), Ink::Accent, false)];
    lines(state, false, heads, &|p, n| Some(if n == 0 { p.kl } else { p.score - p.reward }))
}

fn on_target(state: &RunState) -> Plot {
    lines(state, true, per_objective(state), &|p, n| p.on_target.get(n).copied())
}

fn band(state: &RunState, objective: usize, classes: &[String]) -> Plot {
    let rows = state.policy.iter().filter_map(|p| Some((p.step as f64, p.distributions.get(objective)?.clone()))).collect();
    Plot::Bands(BandPlot { objective, classes: classes.to_vec(), rows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::objective::Objective;

    fn state() -> RunState {
        let step = PolicyStep { step: 1, reward: 0.5, score: 0.75, contributions: vec![0.25], kl: 2.0, ..Default::default() };
        let mut state = RunState::default();
        state.objectives.push(Objective::new("honesty", "Honesty", "", &["no", "yes"]));
        state.policy.push(step);
        state
    }

    fn values(plot: Plot) -> Vec<(String, f64)> {
        match plot {
            Plot::Lines(p) => p.series.into_iter().map(|s| (s.label, s.points[0].1)).collect(),
            Plot::Bands(_) => Vec::new(),
        }
    }

    #[test]
    fn the_bold_line_is_what_the_optimiser_used() {
        assert_eq!(
            values(learning(&state())),
            [("Reward as optimised".to_string(), 0.5), ("Score before KL".to_string(), 0.75), ("Honesty".to_string(), 0.25)]
        );
    }

    #[test]
    fn the_cost_of_kl_is_the_difference_of_score_and_reward() {
        assert_eq!(values(divergence(&state()))[1].1, 0.25);
    }

    #[test]
    fn missing_values_leave_an_empty_line() {
        assert!(on_target(&state()).is_empty());
        assert!(band(&state(), 0, &["no".into(), "yes".into()]).is_empty());
    }
}
