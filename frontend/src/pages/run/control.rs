//! Does the policy obey? Asked against achieved per objective, before and after.

use crate::parts::format;
use crate::parts::matrix::{between, matrix};
use crate::parts::table::{Table, before_after};
use crate::state::{MATRIX_WINDOW, RunState, Topic};
use crate::stream::Run;
use crate::words::{said, t, translated};
use leptos::prelude::*;
use moslim_shared::objective::Objective;
use moslim_shared::summary::{Answerer, ControlHead, ControlReport, Grader, PartReport};

/// The section with all control matrices.
#[component]
pub fn Control(run: Run) -> impl IntoView {
    let gold = RwSignal::new(true);
    let revision = run.revision(Topic::Control);
    let final_ones = run.memo(|s| !s.controls.is_empty());
    view! {
        <section id="control" class="section" aria-labelledby="control-title">
            <div class="section-head">
                <div>
                    <h2 id="control-title">{t("Does it do what the tags ask?")}</h2>
                    <p class="muted">
                        {t("Each row is a class that the prompt asked for, each column what the answers were. \
                            A policy that obeys fills the diagonal; one that ignores its tags has equal rows.")}
                    </p>
                    {move || {
                        let _ = revision.get();
                        run.read(judge)
                    }}
                </div>
                <div class="segments" role="group" aria-label=t("Grader") class:gone=move || !final_ones.get()>
                    <button
                        type="button"
                        id="grader-gold"
                        aria-pressed=move || gold.get().to_string()
                        on:click=move |_| gold.set(true)
                    >
                        {move || {
                            let _ = revision.get();
                            run.read(|s| match s.grader() {
                                Grader::HeldOutRewardModel => t("Held-out reward model"),
                                _ => t("Gold grader"),
                            })
                        }}
                    </button>
                    <button
                        type="button"
                        id="grader-reward-model"
                        aria-pressed=move || (!gold.get()).to_string()
                        on:click=move |_| gold.set(false)
                    >
                        {t("Reward model")}
                    </button>
                </div>
            </div>
            {move || {
                let _ = revision.get();
                run.read(|s| panels(s, if gold.get() { s.grader() } else { Grader::RewardModel }))
            }}
        </section>
    }
}

fn panels(state: &RunState, grader: Grader) -> AnyView {
    let nothing = state.controls.is_empty() && state.policy().is_empty();
    if nothing || state.objectives.is_empty() {
        return view! {
            <p class="card empty">
                {t("The matrices fill when policy optimisation begins, and are measured on held-out questions at the end.")}
            </p>
        }
        .into_any();
    }
    let steered = state.config.as_ref().map(|c| c.steered(&state.objectives)).unwrap_or_default();
    let mut cards: Vec<AnyView> = state
        .objectives
        .iter()
        .enumerate()
        .filter(|(i, _)| steered.is_empty() || steered.contains(i))
        .map(|(i, o)| card(state, o, i, grader).into_any())
        .collect();
    if let (Some(before), Some(after)) = (state.control(Answerer::Sft, grader), state.control(Answerer::Policy, grader)) {
        // Runs of earlier versions did not measure these.
        if !after.hit_rate_by_active.is_empty() {
            cards.push(together(before, after).into_any());
            cards.push(cross_talk(&state.objectives, after).into_any());
        }
        cards.extend(parts(after).map(IntoAny::into_any));
    }
    view! { <div class="grid two">{cards}</div> }.into_any()
}

fn card(state: &RunState, objective: &Objective, index: usize, grader: Grader) -> impl IntoView + use<> {
    let (before, after) = (head(state, objective, Answerer::Sft, grader), head(state, objective, Answerer::Policy, grader));
    let source = said("held-out questions, graded by the {0}", &[t(grader.title())]);
    let left = match before {
        Some(h) => side(t("Before: SFT only").into(), source.clone(), matrix(objective, index, "sft", &h.matrix)),
        None => {
            side(t("Before: SFT only").into(), t("measured at the end of the run").into(), placeholder(t("not measured yet")))
        }
    };
    // Only where prompts ask for classes do rollouts say whether they got them.
    let rollouts = if state.asks() { state.rollout_matrix(index) } else { None };
    let right = match (after, rollouts) {
        (Some(h), _) => side(
            said("After: with {0}", &[state.method().title()]),
            source.clone(),
            matrix(objective, index, "policy", &h.matrix),
        ),
        (None, Some(live)) => side(
            t("Now, while it learns").into(),
            said("on rollouts, graded by the reward model, last {0} steps", &[&MATRIX_WINDOW.to_string()]),
            matrix(objective, index, "rollouts", &live),
        ),
        (None, None) if state.asks() => {
            side(t("Now, while it learns").into(), t("on rollouts").into(), placeholder(t("no rollout yet")))
        }
        (None, None) => side(t("After").into(), t("measured at the end of the run").into(), placeholder(t("not measured yet"))),
    };
    view! {
        <article class="card" data-control=objective.id.clone()>
            <h3>
                <span class="swatch bold" style:background=moslim_charts::Ink::Objective(index).css()></span>
                {objective.name.clone()}
            </h3>
            <p class="hint">{objective.description.clone()}</p>
            <div class="sides">{left}{right}</div>
            {figures(before, after)}
        </article>
    }
}

fn head<'a>(state: &'a RunState, objective: &Objective, policy: Answerer, grader: Grader) -> Option<&'a ControlHead> {
    state.control(policy, grader)?.heads.iter().find(|h| h.objective == objective.id)
}

fn side(title: String, source: String, body: impl IntoView) -> AnyView {
    view! {
        <div class="side">
            <h4>{title}</h4>
            <p class="hint">{source}</p>
            {body}
        </div>
    }
    .into_any()
}

fn placeholder(text: &'static str) -> impl IntoView + use<> {
    view! { <p class="empty">{text}</p> }
}

fn figures(before: Option<&ControlHead>, after: Option<&ControlHead>) -> Option<impl IntoView + use<>> {
    let any = after.or(before)?;
    let show = |f: fn(&ControlHead) -> String| {
        let old = before.map_or("–".to_string(), f);
        let new = after.map_or("–".to_string(), f);
        (old, new)
    };
    let rows = [
        ("hit_rate", t("Exact hits"), show(|h| format::percent(h.hit_rate))),
        ("within_one", t("At most one class away"), show(|h| format::percent(h.within_one))),
        ("spearman", t("Rank correlation (Spearman)"), show(|h| format::number(h.spearman, 2))),
        ("words", t("Words, lowest to highest class"), show(|h| h.words_told().unwrap_or_else(|| "–".into()))),
    ];
    let rows = rows
        .into_iter()
        .map(|(id, label, (old, new))| {
            view! {
                <tr data-metric=id>
                    <th scope="row">{label}</th>
                    <td data-who="sft">{old}</td>
                    <td data-who="policy"><b>{new}</b></td>
                </tr>
            }
        })
        .collect_view();
    Some(view! {
        <table class="values">
            <caption>
                {said("{0} answers graded; blind guessing hits {1}", &[&format::count(any.n as u64), &format::percent(any.chance)])}
            </caption>
            <thead><tr><th scope="col">{t("Control")}</th><th scope="col">{t("before")}</th><th scope="col">{t("after")}</th></tr></thead>
            <tbody>{rows}</tbody>
        </table>
    })
}

/// What several tags at once, and long series of answers, do to control.
fn together(before: &ControlReport, after: &ControlReport) -> impl IntoView + use<> {
    let share = |list: &[f64], n: usize| list.get(n).map_or("–".to_string(), |h| format::percent(*h));
    let mut rows: Vec<Vec<String>> = (0..after.hit_rate_by_active.len())
        .map(|n| {
            let tags = if n == 0 { t("1 tag").to_string() } else { said("{0} tags", &[&(n + 1).to_string()]) };
            vec![tags, share(&before.hit_rate_by_active, n), share(&after.hit_rate_by_active, n)]
        })
        .collect();
    let mut add = |name: &str, of: fn(&ControlReport) -> f64| {
        rows.push(vec![name.to_string(), format::percent(of(before)), format::percent(of(after))]);
    };
    add(t("Answers without a double"), |r| r.diversity.unique);
    add(t("Distinct pairs of words"), |r| r.diversity.distinct_2);
    add(t("Answers without a word"), |r| r.empty);
    if let (Some(before), Some(after)) = (before.likelihood, after.likelihood) {
        let nats = |l: f64| said("{0} nats", &[&format!("{l:.2}")]);
        rows.push(vec![t("Log-likelihood of a token under the SFT policy").to_string(), nats(before), nats(after)]);
    }
    // The SFT policy is asked without tags, so there is nothing to word.
    let ways = after.wordings.iter().map(|w| vec![translated(w.wording.title()), format::percent(w.hit_rate)]).collect();
    let asked = after.wordings.first().map_or(0, |w| w.n);
    let caption = t("Share of the tags that are met, by their number; and how varied the answers are");
    view! {
        <article class="card" id="together">
            <h3>{t("Several tags at once")}</h3>
            <Table class="values" caption=caption heads=before_after("") rows=rows/>
            <p class="hint">{wins(after)}</p>
            {(asked > 0).then(|| {
                let caption = said(
                    "Share of the tags that are met on the same {0} prompts with several, by how they are asked",
                    &[&asked.to_string()],
                );
                view! { <Table class="values" caption=caption heads=vec![t("asked").into(), t("met").into()] rows=ways/> }
            })}
        </article>
    }
}

/// The figures on parts of the questions that differ in what training knew of them; nothing where they are of one piece.
fn parts(report: &ControlReport) -> Option<impl IntoView + use<>> {
    let heads = ["", t("prompts"), t("exact hits"), t("all tags met"), t("about the question"), t("fluent")];
    let heads = heads.map(String::from).to_vec();
    let row = |p: &PartReport| {
        let f = &p.figures;
        let shares = [f.hit_rate, f.joint_hit_rate, f.on_topic, f.fluency].map(format::percent);
        [p.part.clone(), format::count(p.n as u64)].into_iter().chain(shares).collect::<Vec<String>>()
    };
    let rows: Vec<Vec<String>> = report.parts.iter().map(row).collect();
    (!rows.is_empty()).then(|| {
        view! {
            <article class="card" id="parts">
                <h3>{t("What training knew of the questions")}</h3>
                <p class="hint">
                    {t("New topics: SFT has read about them, no reward model and no policy optimisation has. New wordings: questions put in \
                        ways that no training knew.")}
                </p>
                <Table class="values" caption=t("The policy's answers, by part of the questions") heads=heads rows=rows/>
            </article>
        }
    })
}

/// The win rate in a sentence; empty where it was not measured.
fn wins(report: &ControlReport) -> String {
    let [low, high] = report.win_rate_interval.map(format::percent);
    if report.win_rate_interval == [0.0, 1.0] || report.win_rate_interval == [0.0, 0.0] {
        return String::new();
    }
    said(
        "With several tags, its answer is nearer to what is asked for than that of the SFT policy in {0} of cases \
         (95 % interval {1} to {2}; a tie counts half).",
        &[&format::percent(report.win_rate), &low, &high],
    )
}

fn cross_talk(objectives: &[Objective], report: &ControlReport) -> impl IntoView + use<> {
    let names: Vec<String> = objectives.iter().map(|o| o.name.clone()).collect();
    view! {
        <article class="card" id="cross-talk">
            <h3>{t("Cross-talk")}</h3>
            <p class="hint">
                {t("How many classes the answer moves in each column when the class asked for in the row rises by one. \
                    Perfect control has 1 on the diagonal; anything beside it is a side effect.")}
            </p>
            {between(t("asked ↓ moves →"), &names, &report.cross_talk)}
        </article>
    }
}

/// How well the reward model grades where no rules can: its agreement with people's labels on held-out rows.
fn judge(state: &RunState) -> Option<impl IntoView + use<>> {
    let text = state.summary.as_ref()?.judge()?;
    Some(view! { <p class="muted" id="judge">{text}</p> })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_win_rate_is_told_with_its_interval_or_not_at_all() {
        let report = ControlReport { win_rate: 0.78, win_rate_interval: [0.72, 0.83], ..Default::default() };
        assert!(wins(&report).contains("in 78 % of cases (95 % interval 72 % to 83 %;"), "{}", wins(&report));
        for nothing in [[0.0, 0.0], [0.0, 1.0]] {
            assert_eq!(wins(&ControlReport { win_rate_interval: nothing, ..Default::default() }), "");
        }
    }
}
