//! People's ratings: the tasks that were imported, and the import of a file.
//!
//! How a task's rows and counts are shown belongs here; what an import does with a file does not: the server knows that.

mod classes;
mod doubts;
mod import;
mod rows;
mod task;

pub use task::TaskPage;

use crate::api::{self, Failure};
use crate::parts::format;
use crate::parts::settling::settling;
use crate::source::at;
use crate::words::t;
use import::ImportForm;
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::ratings::RatingsTask;

/// Nothing before the first answer.
type Known = Option<Result<Vec<RatingsTask>, Failure>>;

/// The page.
#[component]
pub fn Data() -> impl IntoView {
    let tasks = RwSignal::new(None);
    let settling = settling(move || tasks.with(Option::is_some));
    load(tasks);
    view! {
        <div class="data-page" class:settling=move || settling.get()>
            <h1>{t("Data")}</h1>
            <p class="muted">
                {t("MOSLIM learns from graded labels: answers that people have placed in classes, one objective at a time. The built-in world needs none of this. Here are the ratings that you brought, as tasks that every method, study and page works on.")}
            </p>
            <section id="tasks" class="section" aria-labelledby="tasks-title">
                <h2 id="tasks-title">{t("Imported tasks")}</h2>
                {move || tasks.with(|known| list(known, tasks))}
            </section>
            <ImportForm/>
        </div>
    }
}

fn load(tasks: RwSignal<Known>) {
    spawn_local(async move {
        let answer = api::tasks().await;
        let _ = tasks.try_set(Some(answer));
    });
}

fn list(known: &Known, tasks: RwSignal<Known>) -> AnyView {
    match known {
        None => view! { <p class="card empty" role="status">{t("Loading the list…")}</p> }.into_any(),
        Some(Err(failure)) => view! {
            <div class="card banner error" role="alert">
                <p>{failure.message.clone()}</p>
                <button class="button" type="button" on:click=move |_| load(tasks)>{t("Try again")}</button>
            </div>
        }
        .into_any(),
        Some(Ok(known)) if known.is_empty() => view! {
            <p class="card empty" role="status">{t("None yet. Choose a file below, or use moslim-lab import on the command line, which also fetches public data sets.")}</p>
        }
        .into_any(),
        Some(Ok(known)) => view! { <ul class="runs">{known.iter().map(row).collect_view()}</ul> }.into_any(),
    }
}

fn row(task: &RatingsTask) -> AnyView {
    let objectives: Vec<String> = task.shaped().unwrap_or_default().iter().map(|s| s.objective.name.clone()).collect();
    view! {
        <li>
            <a class="run task" href=at(&format!("/data/{}", task.name)) data-task=task.name.clone()>
                <span class="run-name"><b>{task.name.clone()}</b><span class="hint">{task.title.clone()}</span></span>
                <span class="run-figure"><span class="hint">{t("answers")}</span>{format::count(task.report.rows)}</span>
                <span class="run-figure"><span class="hint">{t("questions")}</span>{format::count(task.report.prompts)}</span>
                <span class="run-figure wide"><span class="hint">{t("objectives")}</span>{objectives.join(", ")}</span>
            </a>
        </li>
    }
    .into_any()
}
