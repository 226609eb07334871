//! Charts of a run, as functions from its state: the supervised stages, the classes of the answers, and how lines are made.

use crate::parts::address;
use crate::parts::chart::Chart;
use crate::parts::class_bars::class_bars;
use crate::parts::pick::Pick;
use crate::state::{RunState, Topic};
use crate::stream::Run;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::{BandPlot, Ink, LinePlot, Plot, SHARE, Series, Shape};
use moslim_shared::event::{PolicyStep, Stage};
use moslim_shared::objective::Objective;

/// Loss curves of the supervised stages and the reward model's agreement with labels.
#[component]
pub fn Training(run: Run) -> impl IntoView {
    view! {
        <section id="training" class="section" aria-labelledby="training-title">
            <h2 id="training-title">{t("Supervised stages")}</h2>
            <div class="grid three">
                <Chart
                    id="chart-sft"
                    title=t("Does the policy learn the language?")
                    hint=t("Loss of supervised fine-tuning, nats per token. Lower is better; no preference is involved yet.")
                    empty=t("Fills while SFT runs. A stage taken from the cache has no curve.")
                    plot=run.on(Topic::Loss, |s| loss(s, Stage::Sft, t("SFT loss")))
                />
                <Chart
                    id="chart-reward"
                    title=t("Does the reward model learn to grade?")
                    hint=t("Loss of the reward model, summed over its heads. Lower is better.")
                    empty=t("Fills while the reward model trains. A stage taken from the cache has no curve.")
                    plot=run.on(Topic::Loss, |s| loss(s, Stage::RewardModel, t("Reward model loss")))
                />
                <Chart
                    id="chart-qwk"
                    title=t("Do its grades agree with the labels?")
                    hint=t("Quadratic weighted kappa on validation rows: 1 is perfect agreement, 0 is chance, near misses count in part.")
                    empty=t("Fills with the reward model's first validation.")
                    plot=run.on(Topic::Validation, validation)
                />
            </div>
        </section>
    }
}

/// Ways to look at the mass of classes.
fn ways() -> [(&'static str, &'static str); 5] {
    [
        ("stacked", t("Share of each class over time")),
        ("heat", t("Heat map of the shares")),
        ("ridges", t("Outlines at a few steps")),
        ("least", t("This class or more, over time")),
        ("ends", t("First against newest")),
    ]
}

/// One band of class mass per objective.
#[component]
pub fn Distributions(run: Run) -> impl IntoView {
    let known = run.memo(|s| (s.optimises(), s.objectives.clone()));
    let way = RwSignal::new(address::chosen("classes", &ways()));
    view! {
        <section id="classes" class="section" aria-labelledby="classes-title">
            <h2 id="classes-title">{t("Where does the mass of each objective go?")}</h2>
            <p class="muted">
                {t("Mean class probabilities over all answers of an iteration, lowest class at the bottom. \
                    When every class is asked for equally often and obeyed, the bands become equally high.")}
            </p>
            <div class="fields">
                <Pick
                    id="classes-way"
                    label=t("Shown as")
                    options=ways().map(|(value, text)| (value.to_string(), text.to_string())).to_vec()
                    chosen=way
                    choose=Callback::new(move |new: String| {
                        address::choose("classes", &ways(), &new);
                        way.set(new);
                    })
                />
            </div>
            <div class="grid two">
                {move || {
                    let (optimises, objectives) = known.get();
                    if !optimises {
                        view! { <p class="card empty">{t("This method has no iterations to look at.")}</p> }.into_any()
                    } else if objectives.is_empty() {
                        view! { <p class="card empty">{t("The objectives appear when the run starts.")}</p> }.into_any()
                    } else {
                        objectives.into_iter().enumerate().map(|(i, o)| distribution(run, way, i, o)).collect_view().into_any()
                    }
                }}
            </div>
        </section>
    }
}

fn distribution(run: Run, way: RwSignal<String>, index: usize, objective: Objective) -> impl IntoView {
    let classes: Vec<String> = objective.classes.iter().enumerate().map(|(c, label)| format!("{c} {label}")).collect();
    let (id, empty) = (format!("chart-classes-{}", objective.id), t("Fills with the first iteration of policy optimisation."));
    let first_now = run.on(Topic::Policy, move |s| ends(s, index));
    // A chart is made anew for another kind of picture only.
    move || {
        let (id, name, classes) = (id.clone(), &objective.name, classes.clone());
        match way.get().as_str() {
            "ends" => {
                let (title, objective) = (name.clone(), objective.clone());
                let bars = move || {
                    first_now.get().map_or_else(
                        || view! { <p class="empty">{empty}</p> }.into_any(),
                        |ends| {
                            let row = |(step, shares): (f64, Vec<f64>)| {
                                view! {
                                    <div>
                                        <p class="hint">{said("step {0}", &[&step.to_string()])}</p>
                                        {class_bars(&objective, index, &shares, None, None)}
                                    </div>
                                }
                            };
                            ends.map(row).collect_view().into_any()
                        },
                    )
                };
                view! { <div class="card ends" id=id><h3>{title}</h3>{bars}</div> }.into_any()
            }
            way => {
                let (title, hint, plot) = if way == "least" {
                    let hint = t(
                        "A line for every class but the lowest: the share of this class and all above. Where lines meet, a class is not used.",
                    );
                    let plot = run.on(Topic::Policy, move |s| at_least(s, index, &classes));
                    (said("{0}: so much of it, or more", &[name]), hint, plot)
                } else {
                    let (shape, hint) = match way {
                        "heat" => (
                            Shape::Heat,
                            t("Steps from left to right, a row for every class. The fuller the colour, the larger the share."),
                        ),
                        "ridges" => (
                            Shape::Ridges,
                            t("First step at the bottom, newest at the top. The higher over a class, the larger its share."),
                        ),
                        _ => (Shape::Stacked, t("One shade per class, pale is low.")),
                    };
                    let plot = run.on(Topic::Policy, move |s| band(s, index, &classes, shape));
                    (said("{0}: share of each class", &[name]), hint, plot)
                };
                view! { <Chart id=id title=title hint=hint empty=empty plot=plot/> }.into_any()
            }
        }
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
        unit: if stage == Stage::Sft { t("nats per token") } else { t("loss") },
        ..Default::default()
    })
}

/// Agreement of every head with the labels.
pub fn validation(state: &RunState) -> Plot {
    let points = |i: usize| state.validation.get(&(Stage::RewardModel, i)).cloned().unwrap_or_default();
    let objectives = state.objectives.iter().enumerate();
    let series = objectives.map(|(i, o)| line(&o.name, Ink::Objective(i), false, points(i))).collect();
    Plot::Lines(LinePlot::over_steps(series, t("kappa")))
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

fn band(state: &RunState, objective: usize, classes: &[String], shape: Shape) -> Plot {
    let rows = state.policy().iter().filter_map(|p| Some((p.step as f64, p.distributions.get(objective)?.clone()))).collect();
    Plot::Bands(BandPlot { objective, classes: classes.to_vec(), rows, shape })
}

/// The share of every class and those above it, but for the lowest, which is all.
fn at_least(state: &RunState, objective: usize, classes: &[String]) -> Plot {
    let head = |c: usize| (said("{0} or more", &[&classes[c]]), Ink::Objective(c - 1), false);
    lines(state, SHARE, (1..classes.len()).map(head).collect(), &|p, n| {
        Some(p.distributions.get(objective)?.get(n + 1..)?.iter().sum())
    })
}

/// First and newest step with their shares.
fn ends(state: &RunState, objective: usize) -> Option<[(f64, Vec<f64>); 2]> {
    let of = |p: &PolicyStep| Some((p.step as f64, p.distributions.get(objective)?.clone()));
    Some([of(state.policy().first()?)?, of(state.policy().last()?)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_values_leave_an_empty_chart() {
        let mut state = RunState::default();
        state.policies.entry(0).or_default().push(PolicyStep { step: 1, ..Default::default() });
        assert!(band(&state, 0, &["no".into(), "yes".into()], Shape::Stacked).is_empty());
        assert!(at_least(&state, 0, &["no".into(), "yes".into()]).is_empty());
        assert_eq!(ends(&state, 0), None);
        state.objectives.push(Objective::new("honesty", "Honesty", "", &["no", "yes"]));
        state.validation.insert((Stage::HeldOutRewardModel, 0), vec![(1.0, 0.5)]);
        assert!(validation(&state).is_empty(), "the held-out reward model is another one");
    }

    #[test]
    fn shares_are_summed_from_the_top_and_both_ends_are_kept() {
        let mut state = RunState::default();
        for (step, shares) in [(1, vec![0.5, 0.25, 0.25]), (7, vec![0.0, 0.25, 0.75])] {
            let step = PolicyStep { step, distributions: vec![shares], ..Default::default() };
            state.policies.entry(0).or_default().push(step);
        }
        let names = ["low", "mid", "high"].map(String::from);
        let Plot::Bands(plot) = band(&state, 0, &names, Shape::Ridges) else { panic!("no bands") };
        let rows = vec![(1.0, vec![0.5, 0.25, 0.25]), (7.0, vec![0.0, 0.25, 0.75])];
        assert_eq!((plot.shape, plot.rows), (Shape::Ridges, rows));
        let Plot::Lines(plot) = at_least(&state, 0, &["low".into(), "mid".into(), "high".into()]) else { panic!("no lines") };
        let points: Vec<_> = plot.series.iter().map(|s| (s.label.as_str(), s.points.clone())).collect();
        assert_eq!(points, [("mid or more", vec![(1.0, 0.5), (7.0, 1.0)]), ("high or more", vec![(1.0, 0.25), (7.0, 0.75)])]);
        assert_eq!(ends(&state, 0).map(|e| e.map(|(step, shares)| (step, shares[2]))), Some([(1.0, 0.25), (7.0, 0.75)]));
    }
}
