//! The first screen of a run: a sentence, what was asked against what came, what moves now, and the newest answers.

use crate::pages::run::behind::{Behind, Cell};
use crate::pages::run::curves::{loss, validation};
use crate::pages::run::learning::on_target;
use crate::parts::chart::{Chart, Linked};
use crate::parts::every::every;
use crate::parts::format;
use crate::parts::matrix::mini;
use crate::parts::memo::{effect, memo};
use crate::parts::spark::Spark;
use crate::state::{RunState, Topic};
use crate::stream::Run;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_shared::distribution::argmax;
use moslim_shared::event::{PolicyStep, RunStatus, Sample, Stage};
use moslim_shared::objective::Objective;
use std::time::Duration;

/// Answers on the first screen.
const ANSWERS: usize = 3;
/// Time between two places when the run is played.
const BEAT: Duration = Duration::from_millis(90);

/// The place in the run that is looked at: a step of policy optimisation; `None` for the newest, or the evaluation.
type Place = RwSignal<Option<usize>>;

/// The first screen.
#[component]
pub fn Cockpit(run: Run) -> impl IntoView {
    let verdict = run.memo(RunState::verdict);
    let alerts = run.on(Topic::Policy, RunState::alerts);
    let place: Place = RwSignal::new(None);
    let linked = expect_context::<Linked>();
    view! {
        <section id="cockpit" class="cockpit" aria-label=t("The run at a glance")>
            <p id="verdict" class="verdict" aria-live="polite">{move || verdict.get()}</p>
            <div role="alert">
                <ul class="plain alerts">
                    {move || alerts.get().into_iter().map(|text| view! { <li>{text}</li> }).collect_view()}
                </ul>
            </div>
            <div class="cockpit-grid">
                <Matrices run=run place=place/>
                <div class="now">{now(run)}</div>
                <Newest run=run place=place/>
            </div>
            <Sparks run=run/>
            <label class="smooth hint">
                {t("Smoothing")}
                <input
                    type="range"
                    min="0"
                    max="0.98"
                    step="0.02"
                    prop:value=move || linked.smoothing.get().to_string()
                    on:input=move |ev| if let Ok(value) = event_target_value(&ev).parse() {
                        linked.smoothing.set(value);
                    }
                />
            </label>
        </section>
    }
}

/// Asked against achieved, small, for every objective; and where in the run that is.
#[component]
fn Matrices(run: Run, place: Place) -> impl IntoView {
    let revision = run.revision(Topic::Control);
    let behind = expect_context::<Behind>();
    let steps = run.on(Topic::Policy, |s| (s.policy().first().map_or(0, |p| p.step), s.policy().last().map_or(0, |p| p.step)));
    let playing = RwSignal::new(false);
    every(BEAT, move || {
        if !playing.get_untracked() {
            return;
        }
        let (first, last) = steps.get_untracked();
        let stride = ((last - first) / 120).max(1);
        match place.get_untracked().map(|p| p + stride) {
            Some(next) if next < last => place.set(Some(next)),
            _ => {
                place.set(None);
                playing.set(false);
            }
        }
    });
    let play = move |_| {
        if playing.get_untracked() {
            playing.set(false);
        } else {
            place.set(Some(steps.get_untracked().0));
            playing.set(true);
        }
    };
    let told = move || {
        let _ = revision.get();
        run.read(|s| source(s, place.get()))
    };
    view! {
        <section class="card asked" aria-labelledby="asked-title">
            <h2 id="asked-title">{t("Asked × achieved")}</h2>
            <p class="hint">{told}</p>
            <div class="minis">
                {move || {
                    let _ = revision.get();
                    let at = place.get();
                    run.read(|s| {
                        let steered = s.config.as_ref().map(|c| c.steered(&s.objectives)).unwrap_or_default();
                        s.objectives
                            .iter()
                            .enumerate()
                            .filter(|(i, _)| steered.is_empty() || steered.contains(i))
                            .map(|(i, o)| {
                                let matrix = matrix(s, i, o, at);
                                let open = Callback::new(move |(asked, got)| behind.open(Cell { objective: i, asked, got }));
                                mini(i, &o.name, &o.classes, matrix.as_ref(), Some(open))
                            })
                            .collect_view()
                    })
                }}
            </div>
            <div class="scrub" class:gone=move || { steps.get().1 == 0 }>
                <input
                    type="range"
                    aria-label=t("Step of policy optimisation")
                    min=move || steps.get().0.to_string()
                    max=move || steps.get().1.to_string()
                    prop:value=move || place.get().unwrap_or(steps.get().1).to_string()
                    on:input=move |ev| {
                        playing.set(false);
                        let step: Option<usize> = event_target_value(&ev).parse().ok();
                        place.set(step.filter(|s| *s < steps.get_untracked().1));
                    }
                />
                <button type="button" class="button quiet small" id="play" on:click=play>
                    {move || if playing.get() { t("Pause") } else { t("Play") }}
                </button>
                <button
                    type="button"
                    class="button quiet small"
                    disabled=move || place.get().is_none()
                    on:click=move |_| {
                        playing.set(false);
                        place.set(None);
                    }
                >
                    {t("Newest")}
                </button>
            </div>
        </section>
    }
}

/// What is shown, and who graded it.
fn source(state: &RunState, place: Option<usize>) -> String {
    if let Some(step) = place {
        return said("Replay: answers up to step {0}, graded by the reward model.", &[&step.to_string()]);
    }
    if state.measured().is_some() {
        return said("Measured on held-out questions, graded by the {0}.", &[t(state.grader().title())]);
    }
    match state.policy().last() {
        Some(step) if state.asks() => said("Its answers up to step {0}, graded by the reward model.", &[&step.step.to_string()]),
        _ => t("Rows are what prompts ask for, columns what answers are. Both fill when policy optimisation begins; \
                obedience is a full diagonal.")
        .into(),
    }
}

/// The matrix of an objective at a place.
fn matrix(state: &RunState, i: usize, objective: &Objective, place: Option<usize>) -> Option<Vec<Vec<f64>>> {
    if !state.asks() && place.is_some() {
        return None;
    }
    let measured = || {
        let report = state.measured()?;
        report.heads.iter().find(|h| h.objective == objective.id).map(|h| h.matrix.clone())
    };
    match place {
        Some(step) => state.rollout_matrix_at(i, step),
        None => measured().or_else(|| state.asks().then(|| state.rollout_matrix(i)).flatten()),
    }
}

/// The chart of the stage that is at work.
fn now(run: Run) -> impl IntoView {
    let stage = run.memo(|s| match s.active() {
        Stage::Calibration => Stage::RewardModel,
        Stage::Evaluation if !s.policy().is_empty() => Stage::Policy,
        stage => stage,
    });
    // Another stage's chart is another chart.
    let chart = move |stage: Stage| match stage {
        Stage::RewardModel | Stage::HeldOutRewardModel => view! {
            <Chart
                id="chart-now"
                title=t("Do its grades agree with the labels?")
                hint=t("Agreement of the reward model with people's grades on rows it never saw: 1 is perfect, 0 is chance.")
                empty=t("Fills with the reward model's first check.")
                plot=run.on(Topic::Validation, validation)
            />
        }
        .into_any(),
        Stage::Policy if run.read(RunState::asks) => view! {
            <Chart
                id="chart-now"
                title=t("How likely is the class asked for?")
                hint=t("What the reward model gives to the class that the prompt asks for. Faint: every step; full: the average.")
                empty=t("Fills with the first step of policy optimisation.")
                plot=run.on(Topic::Policy, on_target)
            />
        }
        .into_any(),
        other => {
            let stage = if other == Stage::Evaluation { Stage::Sft } else { other };
            let title = said("{0}: does the loss fall?", &[t(stage.title())]);
            view! {
                <Chart
                    id="chart-now"
                    title=title
                    hint=t("How badly the model predicts the next token of its training texts. Lower is better.")
                    empty=t("Fills with the first steps.")
                    plot=run.on(Topic::Loss, move |s| loss(s, stage, t("Loss")))
                />
            }
            .into_any()
        }
    };
    view! { <For each=move || [stage.get()] key=|stage| *stage as usize let:stage>{chart(stage)}</For> }
}

/// The newest answers, or those of the place that is looked at.
#[component]
fn Newest(run: Run, place: Place) -> impl IntoView {
    let revision = run.revision(Topic::Samples);
    view! {
        <section class="card newest" tabindex="0" aria-labelledby="newest-title">
            <h2 id="newest-title">{move || if place.get().is_some() { t("Answers then") } else { t("Newest answers") }}</h2>
            {move || {
                let _ = revision.get();
                let at = place.get();
                run.read(|s| answers(s, at))
            }}
        </section>
    }
}

fn answers(state: &RunState, place: Option<usize>) -> AnyView {
    let chosen = match place {
        Some(step) => state.past.iter().rev().find(|(s, _)| *s <= step).or(state.past.first()),
        None => state.samples.as_ref(),
    };
    // A fork that has finished and shows none has trained nothing.
    let finished = state.info().is_some_and(|i| i.status == RunStatus::Finished);
    let other = state.config.as_ref().and_then(|c| c.fork.as_ref()).filter(|_| finished);
    match (chosen, other) {
        (None, Some(run)) => {
            let text = said("It trains no policy: it evaluates what run {0} has trained.", &[run]);
            view! { <p class="empty">{text}</p> }.into_any()
        }
        (None, None) if state.optimises() => {
            view! { <p class="empty">{t("Answers appear with the first step of policy optimisation.")}</p> }.into_any()
        }
        (None, None) => view! { <p class="empty">{t("This method shows no answers while it trains.")}</p> }.into_any(),
        (Some((step, samples)), _) => {
            let cards = samples.iter().take(ANSWERS).map(|sample| answer(sample, &state.objectives)).collect_view();
            view! { <p class="hint num">{said("step {0}", &[&step.to_string()])}</p>{cards} }.into_any()
        }
    }
}

fn answer(sample: &Sample, objectives: &[Objective]) -> impl IntoView + use<> {
    let wishes = sample
        .preference
        .asked()
        .filter_map(|(i, asked)| {
            let (objective, shares) = (objectives.get(i)?, sample.distributions.get(i)?);
            let (wish, got) = (objective.classes.get(asked)?, argmax(shares));
            let met = got == asked;
            let result = objective.classes.get(got).filter(|_| !met).map(|name| said(", got {0}", &[name])).unwrap_or_default();
            Some(view! {
                <li class=if met { "good" } else { "off" }>
                    {if met { "✓ " } else { "✗ " }}{objective.name.clone()}{t(": ")}{wish.clone()}{result}
                </li>
            })
        })
        .collect_view();
    view! {
        <article class="brief">
            <p class="question">{sample.question.clone()}</p>
            <ul class="plain verdicts">{wishes}</ul>
            <p class="answer">{if sample.answer.is_empty() { t("(empty answer)").to_string() } else { sample.answer.clone() }}</p>
            <p class="hint num">{said("reward {0}", &[&format::signed(sample.reward, 2)])}</p>
        </article>
    }
}

/// Small curves that belong together.
#[component]
fn Sparks(run: Run) -> impl IntoView {
    let any = run.on(Topic::Policy, |s| !s.policy().is_empty());
    let curve = move |of: fn(&PolicyStep) -> f64| {
        run.on(Topic::Policy, move |s| s.policy().iter().map(|p| (p.step as f64, of(p))).collect::<Vec<_>>())
    };
    view! {
        <div class="sparks" class:gone=move || !any.get()>
            <Spark title=t("Reward") unit="" points=curve(|p| p.reward)/>
            <Spark title=t("KL from its start") unit=t("nats per answer") points=curve(|p| p.kl)/>
            <Spark title=t("Entropy") unit=t("nats per token") points=curve(|p| p.entropy)/>
            <Spark title=t("Length") unit=t("tokens") points=curve(|p| p.length)/>
            <Spark title=t("Groups all alike") unit=t("share") points=curve(|p| p.zero_std_groups)/>
        </div>
    }
}

/// How long nothing has been heard of a run that goes on; nothing else is known of it then.
#[component]
pub fn Age(run: Run) -> impl IntoView {
    let (heard, now) = (RwSignal::new(js_sys::Date::now()), RwSignal::new(js_sys::Date::now()));
    let last = run.memo(RunState::last_seq);
    let going = run.memo(|s| s.info().is_some_and(|i| i.status == RunStatus::Running));
    effect(move || {
        let _ = last.get();
        heard.set(js_sys::Date::now());
    });
    every(Duration::from_secs(1), move || now.set(js_sys::Date::now()));
    let age = memo(move || ((now.get() - heard.get()) / 1000.0).max(0.0).floor());
    view! {
        <span id="age" class="pill" class:late=move || { age.get() >= 30.0 } class:gone=move || !going.get()>
            {move || match age.get() {
                age if age < 3.0 => t("just heard from it").to_string(),
                age if age < 30.0 => said("heard {0} ago", &[&format::duration(age)]),
                age => said("nothing heard for {0}: stalled?", &[&format::duration(age)]),
            }}
        </span>
    }
}
