//! Does the policy obey? Asked against achieved per objective, before and after.

use crate::parts::format;
use crate::parts::matrix::matrix;
use crate::state::{MATRIX_WINDOW, RunState, Topic};
use crate::stream::Run;
use leptos::prelude::*;
use moslim_shared::objective::Objective;
use moslim_shared::summary::ControlHead;

/// The section with all control matrices.
pub fn control(run: Run) -> AnyView {
    let gold = RwSignal::new(true);
    let revision = run.on(Topic::Control);
    let final_ones = run.flag(|s| !s.controls.is_empty());
    view! {
        <section id="control" class="section" aria-labelledby="control-title">
            <div class="section-head">
                <div>
                    <h2 id="control-title">"Does it do what the tags ask?"</h2>
                    <p class="muted">
                        "Each row is a class that the prompt asked for, each column what the answers were. "
                        "A policy that obeys fills the diagonal; one that ignores its tags has equal rows."
                    </p>
                </div>
                <div class="segments" role="group" aria-label="Judge" class:gone=move || !final_ones.get()>
                    <button
                        type="button"
                        id="judge-gold"
                        aria-pressed=move || gold.get().to_string()
                        on:click=move |_| gold.set(true)
                    >
                        "Gold rules"
                    </button>
                    <button
                        type="button"
                        id="judge-reward-model"
                        aria-pressed=move || (!gold.get()).to_string()
                        on:click=move |_| gold.set(false)
                    >
                        "Reward model"
                    </button>
                </div>
            </div>
            {move || {
                let _ = revision.get();
                let judge = if gold.get() { "gold" } else { "reward_model" };
                run.read(|s| panels(s, judge))
            }}
        </section>
    }
    .into_any()
}

fn panels(state: &RunState, judge: &str) -> AnyView {
    let nothing = state.controls.is_empty() && state.policy.is_empty();
    if nothing || state.objectives.is_empty() {
        return view! {
            <p class="card empty">
                "The matrices fill when policy optimisation begins, and are measured on held-out questions at the end."
            </p>
        }
        .into_any();
    }
    let steered = state.config.as_ref().map(|c| c.steered(&state.objectives)).unwrap_or_default();
    let cards: Vec<AnyView> = state
        .objectives
        .iter()
        .enumerate()
        .filter(|(i, _)| steered.is_empty() || steered.contains(i))
        .map(|(i, o)| card(state, o, i, judge))
        .collect();
    view! { <div class="grid two">{cards}</div> }.into_any()
}

fn card(state: &RunState, objective: &Objective, index: usize, judge: &str) -> AnyView {
    let (before, after) = (head(state, objective, "sft", judge), head(state, objective, "policy", judge));
    let source = if judge == "gold" {
        "held-out questions, judged by gold rules"
    } else {
        "held-out questions, judged by the reward model"
    };
    let left = match before {
        Some(h) => side("Before: SFT only", source.into(), matrix(objective, index, "sft", &h.matrix)),
        None => side("Before: SFT only", "measured at the end of the run".into(), placeholder("not measured yet")),
    };
    let right = match (after, state.rollout_matrix(index)) {
        (Some(h), _) => side("After: with MOSLIM", source.into(), matrix(objective, index, "policy", &h.matrix)),
        (None, Some(live)) => side(
            "Now, while it learns",
            format!("on rollouts, judged by the reward model, last {MATRIX_WINDOW} steps"),
            matrix(objective, index, "rollouts", &live),
        ),
        (None, None) => side("Now, while it learns", "on rollouts".into(), placeholder("no rollout yet")),
    };
    view! {
        <article class="card" data-control=objective.id.clone()>
            <h3>
                <span class="swatch bold" style:background=crate::charts::Ink::Objective(index).css()></span>
                {objective.name.clone()}
            </h3>
            <p class="hint">{objective.description.clone()}</p>
            <div class="sides">{left}{right}</div>
            {figures(before, after)}
        </article>
    }
    .into_any()
}

fn head<'a>(state: &'a RunState, objective: &Objective, policy: &str, judge: &str) -> Option<&'a ControlHead> {
    state.control(policy, judge)?.heads.iter().find(|h| h.objective == objective.id)
}

fn side(title: &'static str, source: String, body: AnyView) -> AnyView {
    view! {
        <div class="side">
            <h4>{title}</h4>
            <p class="hint">{source}</p>
            {body}
        </div>
    }
    .into_any()
}

fn placeholder(text: &'static str) -> AnyView {
    view! { <p class="empty">{text}</p> }.into_any()
}

fn figures(before: Option<&ControlHead>, after: Option<&ControlHead>) -> AnyView {
    let Some(any) = after.or(before) else { return ().into_any() };
    let show = |f: fn(&ControlHead) -> String| {
        let old = before.map_or("–".to_string(), f);
        let new = after.map_or("–".to_string(), f);
        (old, new)
    };
    let rows = [
        ("hit_rate", "Exact hits", show(|h| format::percent(h.hit_rate))),
        ("within_one", "At most one class away", show(|h| format::percent(h.within_one))),
        ("spearman", "Rank correlation (Spearman)", show(|h| format::number(h.spearman, 2))),
    ];
    let rows: Vec<AnyView> = rows
        .into_iter()
        .map(|(id, label, (old, new))| {
            view! {
                <tr data-metric=id>
                    <th scope="row">{label}</th>
                    <td data-who="sft">{old}</td>
                    <td data-who="policy"><b>{new}</b></td>
                </tr>
            }
            .into_any()
        })
        .collect();
    view! {
        <table class="values">
            <caption>
                {format!("{} answers judged; blind guessing hits {}", format::count(any.n as u64), format::percent(any.chance))}
            </caption>
            <thead><tr><th scope="col">"Control"</th><th scope="col">"before"</th><th scope="col">"after"</th></tr></thead>
            <tbody>{rows}</tbody>
        </table>
    }
    .into_any()
}
