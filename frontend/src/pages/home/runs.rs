//! The list of runs.

use crate::api::{self, Failure};
use crate::pages::carry::OpenRun;
use crate::parts::address;
use crate::parts::format;
use crate::parts::pick::Pick;
use crate::source::at;
use crate::stream::follow_list;
use crate::words::{said, t};
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_query_map;
use moslim_shared::listing::{Filter, HELP, ListQuery, MOST_ROWS, RunRow, RunsPage};

/// Rows at first, and how many more are asked for at a time.
const ROWS: usize = 50;

/// Nothing before the first answer.
type Known = Option<Result<RunsPage, Failure>>;

/// What was done to runs, and can be undone.
#[derive(Debug, Clone, PartialEq)]
struct Done {
    what: Change,
    runs: Vec<RunRow>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Archived,
    Restored,
    Deleted,
}

/// What the list shows, and of which runs something is wanted.
#[derive(Clone, Copy)]
struct List {
    known: RwSignal<Known>,
    ticked: RwSignal<Vec<RunRow>>,
    wanted: RwSignal<String>,
    sort: RwSignal<String>,
    rows: RwSignal<usize>,
    done: RwSignal<Option<Done>>,
    failed: RwSignal<String>,
}

impl List {
    fn load(self) {
        let filter = self.wanted.get_untracked();
        if Filter::parse(&filter).is_err() {
            return;
        }
        let (sort, limit) = (self.sort.get_untracked(), Some(self.rows.get_untracked()));
        let query = ListQuery { filter, sort, limit, ..ListQuery::default() };
        spawn_local(async move {
            let answer = Some(api::runs(&query).await);
            // Something else may be asked for by now.
            let asked = [(self.wanted, &query.filter), (self.sort, &query.sort)];
            if asked.into_iter().any(|(now, then)| now.try_get_untracked().as_ref() != Some(then)) {
                return;
            }
            // Nothing is drawn again when nothing changed.
            let _ = self.known.try_maybe_update(|now| {
                let changed = *now != answer;
                *now = answer;
                (changed, ())
            });
        });
    }

    /// Does something to runs; what worked can be undone.
    fn change(self, what: Change, runs: Vec<RunRow>) {
        self.failed.set(String::new());
        spawn_local(async move {
            let mut changed = Vec::new();
            for run in runs {
                match apply(what, &run).await {
                    Ok(()) => changed.push(run),
                    Err(failure) => {
                        let _ = self.failed.try_set(failure.message);
                        break;
                    }
                }
            }
            let _ = self.ticked.try_update(|all| all.retain(|run| !changed.iter().any(|c| c.id == run.id)));
            let _ = self.done.try_set((!changed.is_empty()).then_some(Done { what, runs: changed }));
            self.load();
        });
    }

    fn undo(self) {
        let Some(Done { what, runs }) = self.done.get_untracked() else { return };
        self.done.set(None);
        spawn_local(async move {
            for run in &runs {
                let undone = match what {
                    Change::Deleted => api::act(&run.id, "restore").await,
                    Change::Archived => apply(Change::Restored, run).await,
                    Change::Restored => apply(Change::Archived, run).await,
                };
                if let Err(failure) = undone {
                    let _ = self.failed.try_set(failure.message);
                }
            }
            self.load();
        });
    }
}

async fn apply(what: Change, run: &RunRow) -> Result<(), Failure> {
    let mut about = run.about.clone();
    about.archived = what == Change::Archived;
    match what {
        Change::Deleted => api::delete(&run.id).await,
        _ => api::describe(&run.id, &about).await,
    }
}

/// Orders of the list, as addresses and people call them; the first is the usual one.
fn sorts() -> [(&'static str, &'static str); 4] {
    [("newest", t("Newest first")), ("oldest", t("Oldest first")), ("name", t("By name")), ("hit", t("Best hit rate first"))]
}

/// Runs, in the order that is chosen, kept fresh. Filter and order are those of the address.
#[component]
pub fn Runs() -> impl IntoView {
    let list = List {
        known: RwSignal::new(None),
        ticked: RwSignal::new(Vec::new()),
        wanted: RwSignal::new(use_query_map().with_untracked(|q| q.get("filter")).unwrap_or_default()),
        sort: RwSignal::new(address::chosen("sort", &sorts())),
        rows: RwSignal::new(ROWS),
        done: RwSignal::new(None),
        failed: RwSignal::new(String::new()),
    };
    let List { known, ticked, wanted, sort, .. } = list;
    list.load();
    follow_list(move || list.load());
    view! {
        <section id="runs" class="section" aria-labelledby="runs-title">
            <h2 id="runs-title">{t("Runs")}</h2>
            <div
                class="sifter"
                class:gone=move || wanted.with(String::is_empty) && known.with(|k| !matches!(k, Some(Ok(page)) if page.total > 1))
            >
                <div class="field filter">
                    <label for="filter">{t("Filter")}</label>
                    <input
                        id="filter"
                        type="text"
                        placeholder="method:moslim hit>0.6"
                        title=HELP
                        prop:value=move || wanted.get()
                        on:input=move |ev| {
                            let text = event_target_value(&ev);
                            address::set("filter", &text);
                            wanted.set(text);
                            list.rows.set(ROWS);
                            list.load();
                        }
                    />
                    <p class="problem" role="status">{move || wanted.with(|text| Filter::parse(text).err())}</p>
                </div>
                <Pick
                    id="sort"
                    label=t("Order")
                    options=sorts().map(|(value, text)| (value.to_string(), text.to_string())).to_vec()
                    chosen=sort
                    choose=Callback::new(move |new: String| {
                        address::choose("sort", &sorts(), &new);
                        sort.set(new);
                        list.rows.set(ROWS);
                        list.load();
                    })
                />
            </div>
            {move || rows(list)}
            <p class="actions ticked" class:gone=move || ticked.with(Vec::is_empty)>
                <a
                    id="compare"
                    class="button"
                    href=move || {
                        let ids = ticked.with(|all| all.iter().map(|run| run.id.clone()).collect::<Vec<_>>().join(","));
                        at(&format!("/compare?runs={ids}"))
                    }
                >
                    {move || match ticked.with(Vec::len) {
                        1 => t("Compare it with others").to_string(),
                        n => said("Compare these {0}", &[&n.to_string()]),
                    }}
                </a>
                <button
                    id="archive"
                    class="button quiet"
                    type="button"
                    title=t("Leave them out of the list; the filter is:archived shows them")
                    on:click=move |_| {
                        let back = ticked.with_untracked(|all| all.iter().all(|run| run.about.archived));
                        list.change(if back { Change::Restored } else { Change::Archived }, ticked.get_untracked());
                    }
                >
                    {move || if ticked.with(|all| all.iter().all(|run| run.about.archived)) { t("Put back") } else { t("Archive") }}
                </button>
                <button
                    id="delete"
                    class="button quiet"
                    type="button"
                    on:click=move |_| list.change(Change::Deleted, ticked.get_untracked())
                >
                    {t("Delete")}
                </button>
            </p>
            <div role="status">
                {move || list.done.get().map(|Done { what, runs }| {
                    let verb = match what {
                        Change::Archived => t("Archived"),
                        Change::Restored => t("Put back"),
                        Change::Deleted => t("Deleted"),
                    };
                    let which = match runs.as_slice() {
                        [one] => one.title.clone(),
                        many => said("{0} runs", &[&many.len().to_string()]),
                    };
                    view! {
                        <p class="card banner">
                            <span>{said("{0}: {1}.", &[verb, &which])}</span>
                            <button id="undo" class="button small" type="button" on:click=move |_| list.undo()>{t("Undo")}</button>
                        </p>
                    }
                })}
                <p class="problem">{move || list.failed.get()}</p>
            </div>
            <OpenRun/>
        </section>
    }
}

fn rows(list: List) -> AnyView {
    match list.known.get() {
        // An address may have a filter that is not understood; nothing was asked for then.
        None if list.wanted.with(|text| Filter::parse(text).is_err()) => ().into_any(),
        None => view! { <p class="card empty" role="status">{t("Loading the list…")}</p> }.into_any(),
        Some(Err(failure)) => view! {
            <div class="card banner error" role="alert">
                <p>{failure.message}</p>
                <button class="button" type="button" on:click=move |_| list.load()>{t("Try again")}</button>
            </div>
        }
        .into_any(),
        Some(Ok(page)) if page.rows.is_empty() && list.wanted.with(String::is_empty) => view! {
            <p class="card empty" role="status">{t("No run yet. Start the demo above: it appears here, and stays when the page is closed.")}</p>
        }
        .into_any(),
        Some(Ok(page)) if page.rows.is_empty() => {
            view! { <p class="card empty" role="status">{t("No run is like that.")}</p> }.into_any()
        }
        Some(Ok(page)) => {
            let (shown, total) = (page.rows.len(), page.total);
            let rows = page.rows.into_iter().map(|run| row(run, list.ticked)).collect_view();
            let more = (shown < total).then(|| {
                let all = shown >= MOST_ROWS;
                view! {
                    <p class="hint">
                        {said("The first {0} of {1}. ", &[&shown.to_string(), &total.to_string()])}
                        <button
                            id="more-runs"
                            class="button quiet small"
                            type="button"
                            class:gone=all
                            on:click=move |_| {
                                list.rows.update(|n| *n = (*n + 2 * ROWS).min(MOST_ROWS));
                                list.load();
                            }
                        >
                            {t("Show more")}
                        </button>
                        {all.then(|| t("A filter finds the others."))}
                    </p>
                }
            });
            view! { <ul class="runs">{rows}</ul>{more} }.into_any()
        }
    }
}

fn row(run: RunRow, ticked: RwSignal<Vec<RunRow>>) -> impl IntoView {
    let (own, taken) = (run.id.clone(), run.clone());
    let hits = run.hit.map_or("–".to_string(), format::percent);
    let status = format::status(run.status);
    let tags = run.about.tags.iter().map(|tag| view! { <span class="tag">{tag.clone()}</span> }).collect_view();
    view! {
        <li class="run-row">
            <input
                type="checkbox"
                aria-label=said("Choose {0}", &[&run.title])
                prop:checked=move || ticked.with(|all| all.iter().any(|other| other.id == own))
                on:change=move |ev| ticked.update(|all| {
                    all.retain(|other| other.id != taken.id);
                    if event_target_checked(&ev) {
                        all.push(taken.clone());
                    }
                })
            />
            <a class="run" href=at(&format!("/runs/{}", run.id)) data-run=run.id.clone()>
                <span class="run-name"><b>{run.title.clone()}</b><span class="hint">{run.preset.clone()}" "{tags}</span></span>
                <span class=format!("status {status}")>{format::status_told(run.status)}</span>
                <span class="run-figure"><span class="hint">{t("seed")}</span>{run.seed.to_string()}</span>
                <span class="run-figure"><span class="hint">{t("mean hit rate")}</span>{hits}</span>
                <span class="run-figure"><span class="hint">{t("started")}</span>{format::ago(run.created, js_sys::Date::now())}</span>
            </a>
        </li>
    }
}
