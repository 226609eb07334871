//! The list of runs.

use crate::api::{self, Failure};
use crate::pages::carry::OpenRun;
use crate::pages::home::filter::{Filter, HELP};
use crate::parts::every::every;
use crate::parts::format;
use crate::source::at;
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::event::RunInfo;
use std::time::Duration;

/// Time between two looks at the list.
const REFRESH: Duration = Duration::from_secs(4);

/// Runs on the page at most.
const MOST_SHOWN: usize = 200;

/// Nothing before the first answer.
type Known = Option<Result<Vec<RunInfo>, Failure>>;

/// All runs, newest as the server orders them, kept fresh.
#[component]
pub fn Runs() -> impl IntoView {
    let known = RwSignal::new(None);
    let ticked = RwSignal::new(Vec::<String>::new());
    let wanted = RwSignal::new(String::new());
    load(known);
    every(REFRESH, move || load(known));
    view! {
        <section id="runs" class="section" aria-labelledby="runs-title">
            <h2 id="runs-title">"Runs"</h2>
            <div class="field filter" class:gone=move || known.with(|k| !matches!(k, Some(Ok(runs)) if runs.len() > 1))>
                <label for="filter">"Filter"</label>
                <input
                    id="filter"
                    type="text"
                    placeholder="method:moslim hit>0.6"
                    title=HELP
                    prop:value=move || wanted.get()
                    on:input=move |ev| wanted.set(event_target_value(&ev))
                />
                <p class="problem" role="status">{move || wanted.with(|text| Filter::parse(text).err())}</p>
            </div>
            {move || {
                let filter = wanted.with(|text| Filter::parse(text).unwrap_or_default());
                known.with(|k| list(k, &filter, known, ticked))
            }}
            <p class="actions" class:gone=move || ticked.with(Vec::is_empty)>
                <a
                    id="compare"
                    class="button"
                    href=move || at(&format!("/compare?runs={}", ticked.with(|all| all.join(","))))
                >
                    {move || match ticked.with(Vec::len) {
                        1 => "Compare it with others".to_string(),
                        n => format!("Compare these {n}"),
                    }}
                </a>
            </p>
            <OpenRun/>
        </section>
    }
}

fn load(known: RwSignal<Known>) {
    spawn_local(async move {
        let answer = Some(api::runs().await);
        // Nothing is drawn again when nothing changed.
        let _ = known.try_maybe_update(|now| {
            let changed = *now != answer;
            *now = answer;
            (changed, ())
        });
    });
}

fn list(state: &Known, filter: &Filter, known: RwSignal<Known>, ticked: RwSignal<Vec<String>>) -> AnyView {
    match state {
        None => view! { <p class="card empty" role="status">"Loading the list…"</p> }.into_any(),
        Some(Err(failure)) => view! {
            <div class="card banner error" role="alert">
                <p>{failure.message.clone()}</p>
                <button class="button" type="button" on:click=move |_| load(known)>"Try again"</button>
            </div>
        }
        .into_any(),
        Some(Ok(runs)) if runs.is_empty() => view! {
            <p class="card empty" role="status">"No run yet. Start the demo above: it appears here, and stays when the page is closed."</p>
        }
        .into_any(),
        Some(Ok(runs)) => {
            let taken: Vec<&RunInfo> = runs.iter().filter(|run| filter.takes(run)).collect();
            if taken.is_empty() {
                return view! { <p class="card empty" role="status">"No run is like that."</p> }.into_any();
            }
            let more = (taken.len() > MOST_SHOWN).then(|| format!("The newest {MOST_SHOWN} of {}; a filter finds the others.", taken.len()));
            let rows = taken.into_iter().take(MOST_SHOWN).map(|run| row(run, ticked)).collect_view();
            view! { <ul class="runs">{rows}</ul><p class="hint">{more}</p> }.into_any()
        }
    }
}

fn row(run: &RunInfo, ticked: RwSignal<Vec<String>>) -> impl IntoView + use<> {
    let (own, id) = (run.id.clone(), run.id.clone());
    let name = run.title();
    let hits = run.summary.as_ref().map_or("–".to_string(), |s| format::percent(s.control.policy.mean_hit_rate()));
    let status = format::status(run.status);
    view! {
        <li class="run-row">
            <input
                type="checkbox"
                aria-label=format!("Compare {name}")
                prop:checked=move || ticked.with(|all| all.contains(&own))
                on:change=move |ev| ticked.update(|all| {
                    all.retain(|other| *other != id);
                    if event_target_checked(&ev) {
                        all.push(id.clone());
                    }
                })
            />
            <a class="run" href=at(&format!("/runs/{}", run.id)) data-run=run.id.clone()>
                <span class="run-name"><b>{name.clone()}</b><span class="hint">{run.preset.clone()}</span></span>
                <span class=format!("status {status}")>{status}</span>
                <span class="run-figure"><span class="hint">"seed"</span>{run.seed.to_string()}</span>
                <span class="run-figure"><span class="hint">"mean hit rate"</span>{hits}</span>
                <span class="run-figure"><span class="hint">"started"</span>{format::ago(run.created, js_sys::Date::now())}</span>
            </a>
        </li>
    }
}
