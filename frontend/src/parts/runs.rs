//! The list of runs.

use crate::api::{self, Failure};
use crate::parts::format;
use crate::parts::region::region;
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::event::RunInfo;
use std::time::Duration;

/// Time between two looks at the list.
const REFRESH: Duration = Duration::from_secs(4);

type Loaded = Option<Result<Vec<RunInfo>, Failure>>;

/// What is known of the runs.
#[derive(Clone, Copy)]
struct Known {
    loaded: StoredValue<Loaded>,
    /// Grows when it changes.
    revision: RwSignal<u64>,
}

/// All runs, newest as the server orders them, kept fresh.
pub fn runs() -> AnyView {
    let known = Known { loaded: StoredValue::new(None), revision: RwSignal::new(0) };
    load(known);
    if let Ok(handle) = set_interval_with_handle(move || load(known), REFRESH) {
        on_cleanup(move || handle.clear());
    }
    view! {
        <section id="runs" class="section" aria-labelledby="runs-title">
            <h2 id="runs-title">"Runs"</h2>
            {region(move || {
                known.revision.track();
                known.loaded.with_value(|state| list(state, known))
            })}
        </section>
    }
    .into_any()
}

fn load(known: Known) {
    spawn_local(async move {
        let answer = api::runs().await;
        let next = Some(answer);
        let changed = known.loaded.try_update_value(|now| {
            let changed = *now != next;
            *now = next;
            changed
        });
        // Nothing is drawn again when nothing changed.
        if changed == Some(true) {
            let _ = known.revision.try_update(|n| *n += 1);
        }
    });
}

fn list(state: &Loaded, known: Known) -> AnyView {
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
            let rows: Vec<AnyView> = runs.iter().map(row).collect();
            view! { <ul class="runs">{rows}</ul> }.into_any()
        }
    }
}

fn row(run: &RunInfo) -> AnyView {
    let name = if run.name.is_empty() { format!("Run {}", run.id) } else { run.name.clone() };
    let hits = run.summary.as_ref().map_or("–".to_string(), |s| format::percent(s.control.policy.mean_hit_rate()));
    let status = format::status(run.status);
    view! {
        <li>
            <a class="run" href=format!("/runs/{}", run.id) data-run=run.id.clone()>
                <span class="run-name"><b>{name}</b><span class="hint">{run.preset.clone()}</span></span>
                <span class=format!("status {status}")>{status}</span>
                <span class="run-figure"><span class="hint">"seed"</span>{run.seed.to_string()}</span>
                <span class="run-figure"><span class="hint">"mean hit rate"</span>{hits}</span>
                <span class="run-figure"><span class="hint">"started"</span>{format::ago(run.created, js_sys::Date::now())}</span>
            </a>
        </li>
    }
    .into_any()
}
