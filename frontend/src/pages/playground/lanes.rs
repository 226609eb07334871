//! The columns: who answers in each, and what is heard of it.

use super::answer::{Heard, shown};
use super::blind::Blind;
use super::column::{Column, HOW, called, is_offered};
use super::{Bench, MOST_COLUMNS};
use crate::api;
use crate::parts::format;
use crate::parts::memo::memo;
use crate::parts::tokens::tokens;
use crate::source::{Link, is_tab};
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_shared::inference::{GenerateEvent, GenerateRequest, Source};
use moslim_shared::order::sorted;
use std::collections::HashMap;

/// A column and what is heard in it.
#[derive(Clone, Copy)]
pub struct Lane {
    pub key: usize,
    pub column: RwSignal<Column>,
    pub heard: RwSignal<Heard>,
    pub busy: RwSignal<bool>,
    link: StoredValue<Option<Box<dyn Link>>, LocalStorage>,
}

impl Lane {
    pub fn new(key: usize, column: Column) -> Self {
        let (heard, busy) = (RwSignal::new(Heard::default()), RwSignal::new(false));
        Self { key, column: RwSignal::new(column), heard, busy, link: StoredValue::new_local(None) }
    }

    /// Asks; what was heard before is gone.
    pub fn ask(self, bench: Bench, request: GenerateRequest) {
        self.heard.set(Heard { question: request.prompt.clone(), ..Heard::default() });
        self.busy.set(true);
        let own = self.column.get_untracked();
        let request = GenerateRequest { source: own.source, best_of: own.best_of, ..request };
        let after = clock();
        let heard = move |event: GenerateEvent| {
            bench.count(&event);
            let _ = self.heard.try_update(|h| h.hear(event, 0, after()));
        };
        let ended = move |how: Result<(), api::Failure>| {
            let _ = self.busy.try_set(false);
            if let Err(failure) = how {
                let _ = self.heard.try_update(|h| h.failed = Some(failure.message));
            }
        };
        let link = api::generate(&own.run, &request, heard, ended);
        self.link.set_value(Some(link));
    }

    /// Forgets what was heard.
    pub fn clear(self) {
        self.stop();
        self.heard.set(Heard::default());
    }

    /// Wants no more of its answer.
    pub fn stop(self) {
        let _ = self.link.try_set_value(None);
        let _ = self.busy.try_set(false);
    }
}

/// Seconds from now on.
pub fn clock() -> impl Fn() -> f64 {
    let began = js_sys::Date::now();
    move || (js_sys::Date::now() - began) / 1000.0
}

/// The columns.
#[component]
pub fn Lanes(bench: Bench) -> impl IntoView {
    let order = move || {
        let lanes = bench.lanes.get();
        bench.blind.with(|blind| blind.order(lanes))
    };
    let full = memo(move || bench.lanes.with(Vec::len) >= MOST_COLUMNS || bench.blind.with(Blind::is_on));
    let names = memo(move || {
        let runs = bench.runs.get().unwrap_or_default().into_iter().chain(bench.training.get());
        runs.map(|run| (run.id.clone(), run.title)).collect::<HashMap<_, _>>()
    });
    view! {
        <section class="lanes" aria-label=t("Answers")>
            <For each=order key=|lane| lane.key let:lane>
                <LaneView bench=bench lane=lane names=names/>
            </For>
            <button
                type="button"
                class="button quiet add-lane"
                class:gone=move || full.get()
                on:click=move |_| {
                    let last = bench.lanes.with_untracked(|lanes| lanes.last().map(|lane| lane.column.get_untracked()));
                    let newest = bench.runs.with_untracked(|runs| runs.as_ref()?.first().map(|run| Column::of(&run.id)));
                    if let Some(column) = last.map(|c| c.with_how("policy-best")).or(newest) {
                        bench.add(column);
                    }
                }
            >
                {t("Add a column")}
            </button>
        </section>
    }
}

#[component]
fn LaneView(bench: Bench, lane: Lane, names: Memo<HashMap<String, String>>) -> impl IntoView {
    let own = format!("lane-{}", lane.key);
    let blind = memo(move || bench.blind.with(|blind| blind.hides()));
    let letter = move || {
        let shown = bench.blind.with(|blind| blind.order(bench.lanes.get()));
        if shown.first().is_some_and(|first| first.key == lane.key) { t("Answer A") } else { t("Answer B") }
    };
    let select =
        |id: String, label: &'static str, options: Vec<(String, String)>, chosen: Memo<String>, choose: Box<dyn Fn(String)>| {
            let options = options
                .into_iter()
                .map(|(value, text)| {
                    let own = value.clone();
                    view! { <option value=value prop:selected=move || chosen.with(|c| *c == own)>{text}</option> }
                })
                .collect_view();
            view! { <select id=id aria-label=label on:change=move |ev| choose(event_target_value(&ev))>{options}</select> }
        };
    let run = memo(move || lane.column.with(|c| c.run.clone()));
    let how = memo(move || lane.column.with(|c| c.how().to_string()));
    let runs = move || {
        let all = names.get().into_iter().map(|(id, title)| (id.clone(), format!("{title} ({id})")));
        let mut all: Vec<(String, String)> = sorted(all.collect(), |a: &(String, String), b| b.0.cmp(&a.0));
        if !all.iter().any(|(id, _)| run.with(|run| run == id)) {
            all.push((run.get(), said("{0} (not here)", &[&run.get()])));
        }
        all
    };
    let offered = memo(move || {
        let known = bench.known(&run.get());
        // Who is chosen stands there in any case. A tab hands over no checkpoints.
        let has = |source| is_offered(source, known.as_ref()) && (source != Source::Newest || !is_tab());
        HOW.iter().filter(|own| has(own.1) || how.with(|how| how == own.0)).map(|own| own.0).collect::<Vec<_>>()
    });
    let (run_id, how_id) = (format!("{own}-run"), format!("{own}-how"));
    view! {
        <article class="card lane" id=own data-column=move || lane.column.with(Column::to_string) data-busy=move || lane.busy.get().to_string()>
            <header class:gone=move || blind.get()>
                {move || select(run_id.clone(), t("Run"), runs(), run, Box::new(move |run| lane.column.update(|c| c.run = run)))}
                <div class="lane-how">
                    {move || select(
                        how_id.clone(),
                        t("Which model of it"),
                        offered.get().into_iter().map(|how| (how.to_string(), called(how).to_string())).collect(),
                        how,
                        Box::new(move |how| lane.column.update(|c| *c = c.with_how(&how))),
                    )}
                    <button
                        type="button"
                        class="button quiet small"
                        aria-label=t("Remove this column")
                        disabled=move || bench.lanes.with(Vec::len) < 2
                        on:click=move |_| {
                            lane.stop();
                            bench.lanes.update(|lanes| lanes.retain(|l| l.key != lane.key));
                        }
                    >
                        "×"
                    </button>
                </div>
            </header>
            <h2 class="lane-letter" class:gone=move || !blind.get()>{letter}</h2>
            {move || {
                let (heard, busy) = (lane.heard.get(), lane.busy.get());
                let asked_nothing = heard == Heard::default() && !busy;
                if asked_nothing {
                    return view! { <p class="empty">{t("Nothing asked yet.")}</p> }.into_any();
                }
                if blind.get() {
                    let failed = heard.failed.map(|message| view! { <p class="problem" role="alert">{message}</p> });
                    return view! { <p class="answer">{heard.text}</p>{failed} }.into_any();
                }
                let (count, room) = (heard.prompt.pieces.len().to_string(), heard.prompt.context.to_string());
                let summary = said("The prompt as the model reads it, {0} of {1} tokens", &[&count, &room]);
                view! {
                    {bench.objectives.with(|objectives| shown(&heard, objectives, busy))}
                    {tokens(summary, &heard.prompt)}
                }
                .into_any()
            }}
            <p class="hint">{move || (!blind.get()).then(|| running(bench, lane))}</p>
        </article>
    }
}

/// That something else computes too.
fn running(bench: Bench, lane: Lane) -> Option<String> {
    let busy = bench.lanes.with(|lanes| lanes.iter().filter(|l| l.busy.get() && l.key < lane.key).count());
    let waits = lane.busy.get() && lane.heard.with(|h| h.prompt.pieces.is_empty());
    waits.then(|| match busy {
        0 => t("Loading the model…").to_string(),
        1 => t("Waits for the column before.").to_string(),
        n => said("Waits for {0} columns.", &[&format::count(n as u64)]),
    })
}
