//! An imported task: where it is from, how its labels are spread, how far raters agree, its rows, and changes of its classes.

use super::classes::balance;
use super::doubts::Doubts;
use super::import::dropped;
use super::rows::listed;
use crate::api::{self, Failure};
use crate::parts::format;
use crate::parts::memo::effect;
use crate::parts::settling::settling;
use crate::parts::table::Table;
use crate::parts::title::titled;
use crate::source::at;
use crate::words::{said, t};
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_params_map;
use moslim_shared::objective::Objective;
use moslim_shared::order::sorted;
use moslim_shared::ratings::{Lengths, RatingsTask, ShownRow, TaskStatistics, Together};
use serde_json::{Value, json};

/// Pairs of objectives that are shown at once: those that go together most.
const SIDE_BY_SIDE: usize = 3;
/// Rows of one page.
const ROWS: usize = 20;

type Known<T> = RwSignal<Option<Result<T, Failure>>>;

/// The page.
#[component]
pub fn TaskPage() -> impl IntoView {
    let params = use_params_map();
    let name = params.with_untracked(|p| p.get("name").unwrap_or_default());
    let task: Known<RatingsTask> = RwSignal::new(None);
    let stats: Known<TaskStatistics> = RwSignal::new(None);
    load(&name, task, stats);
    let settling = settling(move || stats.with(Option::is_some) || task.with(|t| matches!(t, Some(Err(_)))));
    let (shown, title) = (name.clone(), name.clone());
    titled(move || title.clone());
    view! {
        <div class="task-page" class:settling=move || settling.get()>
            <p><a href=at("/data")>{t("All data")}</a></p>
            <h1>{name.clone()}</h1>
            {move || task.with(|known| match known {
                None => view! { <p class="card empty" role="status">{t("Loading the task…")}</p> }.into_any(),
                Some(Err(failure)) => {
                    let name = shown.clone();
                    view! {
                        <div class="card banner error" role="alert">
                            <p>{failure.message.clone()}</p>
                            <button class="button" type="button" on:click=move |_| load(&name, task, stats)>{t("Try again")}</button>
                        </div>
                    }
                    .into_any()
                }
                Some(Ok(known)) => about(known, (task, stats)).into_any(),
            })}
        </div>
    }
}

fn load(name: &str, task: Known<RatingsTask>, stats: Known<TaskStatistics>) {
    let name = name.to_string();
    spawn_local(async move {
        let answer = api::imported(&name).await;
        let found = answer.is_ok();
        let _ = task.try_set(Some(answer));
        if found {
            let answer = api::task_statistics(&name).await;
            let _ = stats.try_set(Some(answer));
        }
    });
}

fn about(task: &RatingsTask, all: (Known<RatingsTask>, Known<TaskStatistics>)) -> AnyView {
    let report = &task.report;
    let objectives: Vec<Objective> = task.shaped().unwrap_or_default().into_iter().map(|s| s.objective).collect();
    let files: Vec<String> =
        report.files.iter().map(|f| said("{0} ({1} records)", &[&f.name, &format::count(f.records)])).collect();
    let [train, validation, test] = report.splits.map(format::count);
    let facts = vec![
        vec![t("What it is").to_string(), task.title.clone()],
        vec![t("Licence").into(), if task.licence.is_empty() { t("not said").into() } else { task.licence.clone() }],
        vec![t("Answers").into(), said("{0} to {1} questions", &[&format::count(report.rows), &format::count(report.prompts)])],
        vec![t("Split by question").into(), said("{0} to train on, {1} to validate, {2} to test", &[&train, &validation, &test])],
        vec![t("From").into(), files.join(", ")],
        vec![t("Duplicates left out").into(), format::count(report.duplicates)],
        vec![t("Rows' SHA-256").into(), task.hash.chars().take(16).collect()],
    ];
    let stats = all.1;
    let shown = objectives.clone();
    let train_it = at(&format!("/configure?preset=ratings&task={}", task.name));
    view! {
        <p class="actions"><a id="train-on" class="button primary" href=train_it>{t("Train on it")}</a></p>
        <Table class="values origins" caption=t("Where it is from") rows=facts/>
        {dropped(&report.dropped)}
        {move || stats.with(|known| match known {
            None => view! { <p class="card empty" role="status">{t("Counting the rows…")}</p> }.into_any(),
            Some(Err(failure)) => view! { <div class="card banner error" role="alert"><p>{failure.message.clone()}</p></div> }.into_any(),
            Some(Ok(s)) => counted(s, &shown).into_any(),
        })}
        <section id="rows" class="section" aria-labelledby="rows-title">
            <h2 id="rows-title">{t("Rows")}</h2>
            <Rows task=task.clone()/>
        </section>
        <section id="doubted" class="section" aria-labelledby="doubted-title">
            <h2 id="doubted-title">{t("Labels that a reward model doubts")}</h2>
            <Doubts task=task.name.clone()/>
        </section>
        <section id="changes" class="section" aria-labelledby="changes-title">
            <h2 id="changes-title">{t("Classes")}</h2>
            <Changes task=task.clone() objectives=objectives all=all/>
        </section>
    }
    .into_any()
}

fn counted(s: &TaskStatistics, objectives: &[Objective]) -> AnyView {
    let number = |value: Option<f64>| value.map_or("-".to_string(), |v| format::number(v, 2));
    let agreement: Vec<Vec<String>> = s
        .agreement
        .iter()
        .map(|a| vec![a.id.clone(), format::count(a.rows), a.raters.to_string(), number(a.alpha), number(a.kappa)])
        .collect();
    let heads =
        [t("objective"), t("rows"), t("raters"), t("Krippendorff's alpha"), t("quadratic kappa")].map(String::from).to_vec();
    let lengths = |name: &str, l: &Lengths| {
        [name.to_string()].into_iter().chain(l.quantiles.iter().map(usize::to_string)).collect::<Vec<String>>()
    };
    let length_heads = ["", t("shortest"), "25 %", t("half"), "75 %", "95 %", t("longest")].map(String::from).to_vec();
    let near = s.nearest.iter().map(|n| {
        vec![
            format::percent(n.similarity),
            format!("{}: {}", n.splits[0], n.prompts[0]),
            format!("{}: {}", n.splits[1], n.prompts[1]),
        ]
    });
    let leaks = match s.near_duplicates {
        0 => t("No question of one split is nearly the same as one of another.").to_string(),
        n => said(
            "{0} pairs of questions in different splits are nearly the same: what is measured on such is partly remembered.",
            &[&n.to_string()],
        ),
    };
    let pairs: Vec<&Together> = s.together.iter().collect();
    let pairs = sorted(pairs, |a, b| b.spearman.abs().total_cmp(&a.spearman.abs()));
    let (first, more) = pairs.split_at(pairs.len().min(SIDE_BY_SIDE));
    let count = more.len();
    let together = first.iter().map(|both| pair(both, objectives)).collect_view();
    let others = more.iter().map(|both| pair(both, objectives)).collect_view();
    view! {
        <section id="balance" class="section" aria-labelledby="balance-title">
            <h2 id="balance-title">{t("How often each class was given")}</h2>
            {balance(objectives, &s.labels)}
        </section>
        {(!agreement.is_empty()).then(|| view! {
            <section id="agreement" class="section" aria-labelledby="agreement-title">
                <h2 id="agreement-title">{t("How far raters agree")}</h2>
                <p class="muted">{t("1 is full agreement, 0 what chance would give. No reward model can be expected to agree with raters much better than they do with each other.")}</p>
                <Table class="values" caption=t("Agreement on rows that several raters labelled") heads=heads.clone() rows=agreement.clone()/>
            </section>
        })}
        {(!s.together.is_empty()).then(|| view! {
            <section id="together" class="section" aria-labelledby="together-title">
                <h2 id="together-title">{t("Labels side by side")}</h2>
                <p class="muted">{t("Where two objectives rise together, few rows show one without the other, and a policy can hardly be steered in one alone.")}</p>
                <div class="grid three">{together}</div>
                {(count > 0).then(|| view! {
                    <details class="more-pairs">
                        <summary>{said("{0} more pairs", &[&count.to_string()])}</summary>
                        <div class="grid three">{others}</div>
                    </details>
                })}
            </section>
        })}
        <section id="lengths" class="section" aria-labelledby="lengths-title">
            <h2 id="lengths-title">{t("Lengths and leaks")}</h2>
            <Table
                class="values"
                caption=said("Lengths in {0}", &[&s.unit])
                heads=length_heads
                rows=vec![lengths(t("question"), &s.prompt_lengths), lengths(t("question and answer"), &s.row_lengths)]
            />
            <p>{leaks}</p>
            {(!s.nearest.is_empty()).then(|| {
                let heads = [t("alike"), t("one"), t("the other")].map(String::from).to_vec();
                view! { <Table class="values wide texts" caption=t("The nearest") heads=heads rows=near.collect()/> }
            })}
        </section>
    }
    .into_any()
}

/// Rows by the classes of two objectives.
fn pair(both: &Together, objectives: &[Objective]) -> AnyView {
    let name = |id: &str| objectives.iter().find(|o| o.id == id).map_or(id.to_string(), |o| o.name.clone());
    let most = both.counts.iter().flatten().copied().max().unwrap_or(0).max(1) as f64;
    let columns = both.counts.first().map_or(0, Vec::len);
    let heads = (0..columns).map(|c| view! { <th scope="col">{c}</th> }).collect_view();
    let rows = both.counts.iter().enumerate().map(|(c, counts)| {
        let cells = counts.iter().map(|n| {
            let share = *n as f64 / most;
            let ink = format::tint(0, 50.0 * share);
            view! { <td style:background=ink>{format::count(*n)}</td> }
        });
        view! { <tr><th scope="row">{c}</th>{cells.collect_view()}</tr> }
    });
    let [a, b] = [name(&both.ids[0]), name(&both.ids[1])];
    view! {
        <div class="card scroll" tabindex="0">
            <table class="pair">
                <caption>{said("{0} down, {1} across; rank correlation {2}", &[&a, &b, &format::signed(both.spearman, 2)])}</caption>
                <thead><tr><td></td>{heads}</tr></thead>
                <tbody>{rows.collect_view()}</tbody>
            </table>
        </div>
    }
    .into_any()
}

/// Rows, page by page.
#[component]
fn Rows(task: RatingsTask) -> impl IntoView {
    let name = task.name.clone();
    let kept = StoredValue::new(task);
    let from = RwSignal::new(0usize);
    let split = RwSignal::new(String::new());
    let disagreed = RwSignal::new(false);
    let rows: Known<Vec<ShownRow>> = RwSignal::new(None);
    effect(move || {
        let (task, at, split, differ) = (name.clone(), from.get(), split.get(), disagreed.get());
        spawn_local(async move {
            let answer = api::task_rows(&task, at, ROWS, &split, differ).await;
            let _ = rows.try_set(Some(answer));
        });
    });
    let full = move || rows.with(|r| matches!(r, Some(Ok(r)) if r.len() == ROWS));
    view! {
        <p class="actions">
            <label for="rows-split">{t("Of")}</label>
            <select id="rows-split" on:change=move |ev| { from.set(0); split.set(event_target_value(&ev)); }>
                <option value="">{t("all splits")}</option>
                <option value="train">{t("training")}</option>
                <option value="validation">{t("validation")}</option>
                <option value="test">{t("test")}</option>
            </select>
            <label class="check">
                <input type="checkbox" id="rows-disagreed" on:change=move |ev| { from.set(0); disagreed.set(event_target_checked(&ev)); }/>
                {t("only where raters differ")}
            </label>
        </p>
        {move || rows.with(|known| match known {
            None => view! { <p class="card empty" role="status">{t("Loading rows…")}</p> }.into_any(),
            Some(Err(failure)) => view! { <div class="card banner error" role="alert"><p>{failure.message.clone()}</p></div> }.into_any(),
            Some(Ok(r)) if r.is_empty() => view! { <p class="card empty" role="status">{t("No such row.")}</p> }.into_any(),
            Some(Ok(r)) => kept.with_value(|task| listed(r, task)).into_any(),
        })}
        <p class="actions">
            <button id="rows-back" class="button" type="button" disabled=move || from.get() == 0 on:click=move |_| from.update(|f| *f = f.saturating_sub(ROWS))>
                {t("Before")}
            </button>
            <button id="rows-on" class="button" type="button" disabled=move || !full() on:click=move |_| from.update(|f| *f += ROWS)>
                // The space makes it another text than that of the tour.
                {t("Next ").trim_end()}
            </button>
            <span class="hint">{move || {
                let shown = rows.with(|r| r.as_ref().and_then(|r| r.as_ref().ok()).map_or(0, Vec::len));
                said("{0} to {1}", &[&(from.get() + 1).to_string(), &(from.get() + shown).to_string()])
            }}</span>
        </p>
    }
}

/// Merging and naming of classes, without a new import.
#[component]
fn Changes(task: RatingsTask, objectives: Vec<Objective>, all: (Known<RatingsTask>, Known<TaskStatistics>)) -> impl IntoView {
    let objective = RwSignal::new(objectives.first().map(|o| o.id.clone()).unwrap_or_default());
    let (from, to, called) = (RwSignal::new(0usize), RwSignal::new(1usize), RwSignal::new(String::new()));
    let refused = RwSignal::new(String::new());
    let name = task.name.clone();
    let send = Callback::new(move |request: Value| {
        let name = name.clone();
        spawn_local(async move {
            match api::change_task(&name, &request).await {
                Ok(_) => load(&name, all.0, all.1),
                Err(failure) => drop(refused.try_set(failure.message)),
            }
        });
    });
    let merge = move |_| {
        let change = json!({
            "kind": "merge",
            "objective": objective.get_untracked(),
            "from": from.get_untracked(),
            "to": to.get_untracked(),
            "name": called.get_untracked(),
        });
        send.run(json!({ "changes": [change] }));
    };
    let rows: Vec<Vec<String>> = objectives.iter().map(|o| vec![o.name.clone(), o.classes.join(" < ")]).collect();
    let options = objectives.iter().map(|o| view! { <option value=o.id.clone()>{o.name.clone()}</option> }).collect_view();
    let changed = task.changes.len();
    let known = StoredValue::new(objectives);
    let classes = move || {
        objective
            .with(|id| known.with_value(|all| all.iter().find(|o| o.id == *id).map(|o| o.classes.clone()).unwrap_or_default()))
    };
    let class = move |id: &'static str, label: &'static str, value: RwSignal<usize>| {
        view! {
            <div class="field">
                <label for=id>{label}</label>
                <select id=id on:change=move |ev| value.set(event_target_value(&ev).parse().unwrap_or(0))>
                    {move || classes().into_iter().enumerate().map(|(c, name)| view! {
                        <option value=c.to_string() prop:selected=move || value.get() == c>{name}</option>
                    }).collect_view()}
                </select>
            </div>
        }
    };
    view! {
        <p class="muted">{t("Classes that hardly anybody was given teach little: merge them with their neighbours. The file need not be imported again, and every change can be undone.")}</p>
        <Table class="values texts" caption=t("Classes, from the lowest") rows=rows/>
        <div class="actions change-form">
            <div class="field">
                <label for="change-objective">{t("Merge classes of")}</label>
                <select id="change-objective" on:change=move |ev| objective.set(event_target_value(&ev))>{options}</select>
            </div>
            {class("change-from", t("from"), from)}
            {class("change-to", t("to"), to)}
            <div class="field">
                <label for="change-name">{t("into one called")}</label>
                <input id="change-name" type="text" autocomplete="off" on:input=move |ev| called.set(event_target_value(&ev))/>
            </div>
            <button id="merge" class="button" type="button" disabled=move || called.with(|c| c.trim().is_empty()) on:click=merge>{t("Merge")}</button>
            {(changed > 0).then(|| view! {
                <button
                    id="undo-changes"
                    class="button quiet"
                    type="button"
                    on:click=move |_| send.run(json!({ "undo_all": true }))
                >
                    {said("Undo {0} changes", &[&changed.to_string()])}
                </button>
            })}
        </div>
        <p class="problem" role="alert">{move || refused.get()}</p>
    }
}
