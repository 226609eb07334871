//! Runs beside each other: what differs between them, who obeys better and where, and how they came to that.
//!
//! What is computed of several runs is in `reading`, without a browser; here it is shown.

mod fronts;
mod reading;

use crate::api;
use crate::pages::way::{Way, fronts_at, growth};
use crate::parts::address;
use crate::parts::chart::{Chart, Linked};
use crate::parts::format;
use crate::parts::front::OwnFront;
use crate::parts::matrix::between;
use crate::parts::tour::{Stop, Tour};
use crate::source::at;
use crate::state::RunState;
use crate::stream::{Connection, Run, Stream};
use crate::words::t;
use fronts::fronts;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_query_map;
use moslim_charts::{Ink, SHARE};
use moslim_shared::event::RunInfo;
use moslim_shared::listing::{ListQuery, MOST_ROWS, RunRow};
use reading::{Figure, best, difference, differing, figures, grouped, named, said};

/// Runs that are compared at most.
pub const MOST: usize = 8;

/// What a newcomer is shown.
fn tour() -> [Stop; 5] {
    [
        (
            ".chosen",
            t(
                "Choose the runs here, or tick them in the list of runs. Several seeds of one setting become a median and a range.",
            ),
        ),
        (
            "#better-title",
            t(
                "Who obeys better, objective by objective. The best of a row is bold; a difference of a few points can be chance, which more seeds would tell.",
            ),
        ),
        ("#apart-title", t("Where the second run gives a class more often than the first, and where less.")),
        (
            "#fronts-title",
            t(
                "What each can deliver of two objectives at once, and of all. Sliders leave only those trade-offs that reach what you need.",
            ),
        ),
        (
            "#settings-title",
            t("What was set differently. If this lists more than what you meant to compare, the comparison says less."),
        ),
    ]
}

/// A run that is compared, as it is told live.
#[derive(Clone, Copy)]
struct Entry {
    id: StoredValue<String>,
    run: Run,
    stream: StoredValue<Option<Stream>, LocalStorage>,
}

/// The page; the runs are those of its address.
#[component]
pub fn Compare() -> impl IntoView {
    provide_context(Linked::new());
    let known = RwSignal::new(Vec::<RunRow>::new());
    let entries = RwSignal::new(Vec::<Entry>::new());
    let together = RwSignal::new(false);
    let add = move |id: String| {
        if entries.with_untracked(|all| all.len() >= MOST || all.iter().any(|e| e.id.with_value(|own| *own == id))) {
            return;
        }
        let run = Run::new();
        let stream = Stream::open(id.clone(), run, RwSignal::new(Connection::Connecting));
        let entry = Entry { id: StoredValue::new(id), run, stream: StoredValue::new_local(Some(stream)) };
        entries.update(|all| all.push(entry));
    };
    let stop = |entry: &Entry| {
        let _ = entry.stream.try_update_value(|s| {
            if let Some(stream) = s.take() {
                stream.stop();
            }
        });
    };
    let wished = use_query_map().with_untracked(|q| q.get("runs")).unwrap_or_default();
    wished.split(',').filter(|id| !id.is_empty()).for_each(|id| add(id.to_string()));
    spawn_local(async move {
        let query = ListQuery { limit: Some(MOST_ROWS), ..Default::default() };
        if let Ok(page) = api::runs(&query).await {
            let _ = known.try_set(page.rows);
        }
    });
    on_cleanup(move || {
        let _ = entries.try_with_untracked(|all| all.iter().for_each(stop));
    });
    Effect::new(move |_| {
        let ids: Vec<String> = entries.with(|all| all.iter().map(|e| e.id.get_value()).collect());
        address::replace(&(at("/compare") + if ids.is_empty() { "" } else { "?runs=" } + &ids.join(",")));
    });
    let remove = move |id: String| {
        entries.update(|all| {
            all.iter().filter(|e| e.id.with_value(|own| *own == id)).for_each(stop);
            all.retain(|e| e.id.with_value(|own| *own != id));
        });
    };
    view! {
        <div class="section-head">
            <h1>{t("Compare runs")}</h1>
            <Tour stops=tour()/>
        </div>
        <p class="muted">{t("What differs between them, which obeys better and where, and how they came to that.")}</p>
        <div class="card chosen">
            <ul class="plain chips" aria-label=t("Runs that are compared")>
                {move || {
                    entries.get().into_iter().enumerate().map(|(n, entry)| chosen(n, entry, remove)).collect_view()
                }}
            </ul>
            <div class="adder">
                <label for="add-run">{t("Add a run")}</label>
                <select id="add-run" on:change=move |ev| {
                    let id = event_target_value(&ev);
                    if !id.is_empty() {
                        add(id);
                    }
                }>
                    <option value="">{t("Choose…")}</option>
                    {move || known.get().into_iter().map(|run| view! {
                        <option value=run.id.clone()>{format!("{} ({}, {})", run.title, format::status_told(run.status), run.id)}</option>
                    }).collect_view()}
                </select>
                <label class="check">
                    <input type="checkbox" prop:checked=move || together.get() on:change=move |ev| together.set(event_target_checked(&ev))/>
                    {t("Seeds of the same settings as one: median and range")}
                </label>
                <a
                    class="button quiet small"
                    class:gone=move || entries.with(Vec::is_empty)
                    href=move || {
                        let ids: Vec<String> = entries.with(|all| all.iter().take(4).map(|e| e.id.get_value()).collect());
                        at(&format!("/playground?in={}", ids.join(",")))
                    }
                >
                    {t("Ask them the same")}
                </a>
            </div>
        </div>
        <Show
            when=move || entries.with(|all| all.len() > 1)
            fallback=|| view! { <p class="card empty">{t("Two runs or more are needed: tick them in the list of runs, or add them here.")}</p> }
        >
            <Results entries=entries/>
            <TradeOffs entries=entries together=together/>
            <OnTheWay entries=entries/>
            <Curves entries=entries together=together/>
            <Settings entries=entries/>
        </Show>
    }
}

fn chosen(n: usize, entry: Entry, remove: impl Fn(String) + Copy + Send + 'static) -> impl IntoView {
    let id = entry.id.get_value();
    let (own, link) = (id.clone(), at(&format!("/runs/{id}")));
    let name = entry.run.memo(|s| s.info().map(RunInfo::title));
    let status = entry.run.memo(|s| s.error.clone().or_else(|| s.info().map(|i| format::status_told(i.status).to_string())));
    view! {
        <li class="chip">
            <span class="glyph" style:color=Ink::Objective(n).css()>{Ink::Objective(n).glyph()}</span>
            <a href=link>{move || name.get().unwrap_or_else(|| id.clone())}</a>
            <span class="hint">{move || status.get()}</span>
            <button type="button" class="remove" aria-label=t("Leave it out") on:click=move |_| remove(own.clone())>"×"</button>
        </li>
    }
}

/// Something of all runs that is made anew when one of them changes.
fn of_all<T: PartialEq + Send + Sync + 'static>(
    entries: RwSignal<Vec<Entry>>,
    f: impl Fn(&[&RunState]) -> T + Send + Sync + 'static,
) -> Memo<T> {
    Memo::new(move |_| {
        let all = entries.get();
        Run::all(&all.iter().map(|e| e.run).collect::<Vec<_>>(), &f)
    })
}

#[component]
fn Results(entries: RwSignal<Vec<Entry>>) -> impl IntoView {
    let verdict = of_all(entries, said);
    let rows = of_all(entries, figures);
    let names = of_all(entries, titles);
    let apart = of_all(entries, difference);
    view! {
        <section class="section" aria-labelledby="better-title">
            <h2 id="better-title">{t("Which obeys better, and where?")}</h2>
            <p class="muted" id="compare-verdict">{move || verdict.get()}</p>
            <div class="card scroll" tabindex="0" role="region" aria-label=t("Figures of the runs")>
                {move || table("", &names.get(), &rows.get())}
            </div>
        </section>
        <section class="section" aria-labelledby="apart-title">
            <h2 id="apart-title">{t("Second less first: asked × achieved")}</h2>
            <p class="muted">{t("Where the second run gives a class more often than the first, and where less: shares, second less first. A better policy gains on the diagonal.")}</p>
            <div class="grid two">
                {move || {
                    apart.get().into_iter().map(|(name, classes, values)| view! {
                        <article class="card"><h3>{name}</h3>{between(t("asked ↓ achieved →"), &classes, &values)}</article>
                    }).collect_view()
                }}
            </div>
        </section>
    }
}

/// What the runs reach between their objectives; of seeds of the same settings, what all, half and any of them reach.
#[component]
fn TradeOffs(entries: RwSignal<Vec<Entry>>, together: RwSignal<bool>) -> impl IntoView {
    let found = of_all(entries, move |runs| fronts(runs, together.get()));
    view! {
        <section
            id="fronts"
            class="section"
            aria-labelledby="fronts-title"
            class:gone=move || found.with(|f| f.groups.is_empty())
        >
            <h2 id="fronts-title">{t("Trade-offs")}</h2>
            <p class="muted">
                {t("Every point is what a run delivers for one trade-off that it offers: mean utility on held-out questions, 0 the worst class of an objective and 1 the best. Of seeds together, the edge of what all of them, half of them and any of them reach.")}
            </p>
            <OwnFront id="fronts" fronts=found/>
        </section>
    }
}

/// How their fronts grew.
#[component]
fn OnTheWay(entries: RwSignal<Vec<Entry>>) -> impl IntoView {
    let share = RwSignal::new(1.0);
    let with_names = |runs: &[&RunState]| -> Vec<String> { (0..runs.len()).map(|n| named(runs, &[n])).collect() };
    let fronts = of_all(entries, move |runs| fronts_at(&pairs(with_names(runs), runs), share.get()));
    let plot = of_all(entries, move |runs| growth(&pairs(with_names(runs), runs)));
    view! { <Way share=share fronts=fronts plot=plot/> }
}

fn pairs<'a>(names: Vec<String>, runs: &[&'a RunState]) -> Vec<(String, &'a RunState)> {
    names.into_iter().zip(runs.iter().copied()).collect()
}

#[component]
fn Settings(entries: RwSignal<Vec<Entry>>) -> impl IntoView {
    let settings = of_all(entries, differing);
    let names = of_all(entries, titles);
    view! {
        <section class="section" aria-labelledby="settings-title">
            <h2 id="settings-title">{t("Settings that differ")}</h2>
            <div class="card scroll" tabindex="0" role="region" aria-label=t("Settings that differ")>
                {move || {
                    let rows = settings.get();
                    if rows.is_empty() {
                        view! { <p class="empty">{t("They have the same settings.")}</p> }.into_any()
                    } else {
                        table(t("setting"), &names.get(), &rows).into_any()
                    }
                }}
            </div>
        </section>
    }
}

fn titles(runs: &[&RunState]) -> Vec<String> {
    runs.iter().map(|r| r.info().map(RunInfo::title).unwrap_or_default()).collect()
}

/// A row for every figure, a column for every run; the best of a row is bold.
fn table(head: &'static str, names: &[String], rows: &[Figure]) -> impl IntoView + use<> {
    let heads = names
        .iter()
        .enumerate()
        .map(|(n, name)| view! {
            <th scope="col"><span class="glyph" style:color=Ink::Objective(n).css()>{Ink::Objective(n).glyph()}</span>" "{name.clone()}</th>
        })
        .collect_view();
    let body = rows
        .iter()
        .map(|row| {
            let first = best(row);
            let cells = row
                .cells
                .iter()
                .enumerate()
                .map(|(n, text)| {
                    if first == Some(n) {
                        view! { <td><b>{text.clone()}</b></td> }.into_any()
                    } else {
                        view! { <td>{text.clone()}</td> }.into_any()
                    }
                })
                .collect_view();
            view! { <tr><th scope="row">{row.name.clone()}</th>{cells}</tr> }
        })
        .collect_view();
    view! {
        <table class="values comparison">
            <thead><tr><th scope="col">{head}</th>{heads}</tr></thead>
            <tbody>{body}</tbody>
        </table>
    }
}

#[component]
fn Curves(entries: RwSignal<Vec<Entry>>, together: RwSignal<bool>) -> impl IntoView {
    let plot = move |unit: &'static str, of: fn(&moslim_shared::event::PolicyStep) -> Option<f64>| {
        of_all(entries, move |runs| grouped(runs, together.get(), unit, of))
    };
    let obedience = |p: &moslim_shared::event::PolicyStep| {
        let known: Vec<f64> = p.on_target.iter().copied().filter(|v| v.is_finite()).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    let empty = t("None of these runs has begun to optimise a policy.");
    view! {
        <section class="section" aria-labelledby="curves-title">
            <h2 id="curves-title">{t("How they came to that")}</h2>
            <div class="grid two">
                <Chart
                    id="chart-obedience"
                    title=t("How likely is the class asked for?")
                    hint=t("Mean over the objectives, as the run's own reward model sees it.")
                    empty=empty
                    plot=plot(SHARE, obedience)
                />
                <Chart
                    id="chart-reward"
                    title=t("Reward as optimised")
                    hint=t("Of different mappings or reward models these are different units.")
                    empty=empty
                    plot=plot(t("reward"), |p| Some(p.reward))
                />
                <Chart
                    id="chart-kl"
                    title=t("How far from its start?")
                    hint=t("KL divergence, nats per answer.")
                    empty=empty
                    plot=plot(t("nats per answer"), |p| Some(p.kl))
                />
                <Chart
                    id="chart-entropy"
                    title=t("Does it still try different things?")
                    hint=t("Mean entropy of the next token, nats.")
                    empty=empty
                    plot=plot(t("nats per token"), |p| Some(p.entropy))
                />
            </div>
        </section>
    }
}
