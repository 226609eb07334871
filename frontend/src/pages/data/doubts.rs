//! Labels that a run's reward model finds unlikely: where to look for mistakes first.

use super::rows::folded;
use crate::api::{self, Failure};
use crate::parts::format;
use crate::parts::tokens::tokens;
use crate::words::{said, t};
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::listing::{ListQuery, RunRow};
use moslim_shared::ratings::UnlikelyLabel;
use serde_json::json;

/// Labels that are asked for.
const SHOWN: usize = 20;

/// Asks a finished run, and lists what it says.
#[component]
pub fn Doubts(task: String) -> impl IntoView {
    let runs = RwSignal::new(Vec::<RunRow>::new());
    let run = RwSignal::new(String::new());
    let asked = RwSignal::new(false);
    let found: RwSignal<Option<Result<Vec<UnlikelyLabel>, Failure>>> = RwSignal::new(None);
    spawn_local(async move {
        let query = ListQuery { filter: "status:finished".into(), limit: Some(100), ..Default::default() };
        let rows = api::runs(&query).await.map(|page| page.rows).unwrap_or_default();
        let _ = run.try_set(rows.first().map(|r| r.id.clone()).unwrap_or_default());
        let _ = runs.try_set(rows);
    });
    let ask = move |_| {
        let (task, request) = (task.clone(), json!({ "run": run.get_untracked(), "n": SHOWN }));
        asked.set(true);
        spawn_local(async move {
            let answer = api::noise(&task, &request).await;
            let _ = found.try_set(Some(answer));
            let _ = asked.try_set(false);
        });
    };
    view! {
        <p class="muted">
            {t("A reward model that has learned from many rows doubts single ones. It need not be right: but where its probability of a label is lowest, mistakes of raters and of files are found first.")}
        </p>
        <Show
            when=move || !runs.with(Vec::is_empty)
            fallback=|| view! { <p class="card empty" role="status">{t("It needs a finished run on this task. Train one, and come back.")}</p> }
        >
            <p class="actions">
                <label for="doubting-run">{t("Reward model of")}</label>
                <select id="doubting-run" on:change=move |ev| run.set(event_target_value(&ev))>
                    {move || runs.with(|r| r.iter().map(|r| view! { <option value=r.id.clone()>{r.title.clone()}</option> }).collect_view())}
                </select>
                <button id="doubt" class="button" type="button" disabled=move || asked.get() on:click=ask.clone()>
                    {move || if asked.get() { t("Grading every row…") } else { t("Find labels that it doubts") }}
                </button>
            </p>
        </Show>
        <div id="doubts" role="status">
            {move || found.with(|f| match f {
                None => ().into_any(),
                Some(Err(failure)) => view! { <div class="card banner error" role="alert"><p>{failure.message.clone()}</p></div> }.into_any(),
                Some(Ok(labels)) => view! { <ol class="rated">{labels.iter().map(doubt).collect_view()}</ol> }.into_any(),
            })}
        </div>
    }
}

fn doubt(label: &UnlikelyLabel) -> AnyView {
    let text = said(
        "row {0}, {1}: {2} is {3}, which the reward model gives {4}; it expects class {5}",
        &[
            &label.row.to_string(),
            &label.split,
            &label.objective,
            &label.name,
            &format::percent(label.probability),
            &format::number(label.expected, 1),
        ],
    );
    let (count, room) = (label.read.pieces.len().to_string(), label.read.context.to_string());
    let summary = said("As the reward model reads it, {0} of {1} tokens", &[&count, &room]);
    view! {
        <li class="card rated-row">
            <p><b>{text}</b></p>
            <div class="asked-text">{folded(&label.prompt)}</div>
            <div class="answer-text">{folded(&label.response)}</div>
            {tokens(summary, &label.read)}
        </li>
    }
    .into_any()
}
