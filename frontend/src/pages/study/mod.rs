//! A study: how far it is, its runs, and what it found.
//!
//! Its sections belong here. How figures of several runs are put together does not: `moslim-shared` knows that.

mod comparison;
mod front;
mod handle;

use crate::pages::compare::MOST;
use crate::pages::study::comparison::comparison;
use crate::pages::study::front::Front;
use crate::pages::study::handle::Study;
use crate::parts::every::every;
use crate::parts::format;
use crate::parts::memo::memo;
use crate::parts::settling::settling;
use crate::parts::title::titled;
use crate::source::at;
use crate::state::study::{StudyData, setting, standing};
use crate::words::{said, t};
use leptos::prelude::*;
use leptos_router::hooks::use_params_map;
use moslim_shared::study::{StudyRunState, StudyRunStatus, StudyState};
use std::time::Duration;

/// Time between two looks at a study that is worked on.
const POLL: Duration = Duration::from_secs(2);

/// The page of the study that the address names; made anew for another one.
#[component]
pub fn StudyPage() -> impl IntoView {
    let params = use_params_map();
    let id = memo(move || params.with(|p| p.get("id")));
    view! {
        <For each=move || id.get() key=String::clone let:id>
            <Whole id=id/>
        </For>
    }
}

#[component]
fn Whole(id: String) -> impl IntoView {
    let study = Study::new(id.clone());
    study.load();
    every(POLL, move || study.tick());
    let state = study.memo(|d| d.state.clone());
    let known = memo(move || state.with(Option::is_some));
    let told = study.memo(StudyData::is_told);
    let settling = settling(move || told.get());
    titled(move || state.with(|s| s.as_ref().map(|s| s.name.clone()).unwrap_or_default()));
    view! {
        <article class="study-page" class:settling=move || settling.get() data-study=id>
            <Head study=study state=state/>
            <Trouble study=study/>
            <Show when=move || known.get()><Results study=study/></Show>
            <Front study=study/>
            {move || state.with(|s| s.as_ref().map(runs))}
        </article>
    }
}

/// What it is, how far it is, and what can be done with it.
#[component]
fn Head(study: Study, state: Memo<Option<StudyState>>) -> impl IntoView {
    let failure = study.memo(|d| d.failure.clone());
    move || match state.get() {
        Some(state) => head(study, &state).into_any(),
        None if failure.with(String::is_empty) => {
            view! { <p class="card empty" role="status">{t("Loading the study…")}</p> }.into_any()
        }
        None => view! {
            <h1>{t("Study")}</h1>
            <div class="card banner error" role="alert">
                <p>{failure.get()}</p>
                <button class="button" type="button" on:click=move |_| study.load()>{t("Try again")}</button>
            </div>
        }
        .into_any(),
    }
}

fn head(study: Study, state: &StudyState) -> impl IntoView + use<> {
    let word = standing(state);
    let button = match word {
        "running" => Some(action(study, "cancel", t("Cancel"), "button danger")),
        "finished" => None,
        _ => Some(action(study, "resume", t("Resume"), "button primary")),
    };
    let done = state.count(StudyRunStatus::Finished);
    view! {
        <header class="run-head">
            <div class="run-title">
                <h1 id="study-name">{state.name.clone()}</h1>
                <p class="muted">{state.question.clone()}</p>
                <p class="chips">
                    <span id="study-status" class=format!("status {word}") data-status=word>{told(word)}</span>
                    <code class="hint">{state.id.clone()}</code>
                </p>
            </div>
            <div class="actions">{beside(state)}{button}</div>
            <div class="study-progress">
                <progress max=state.runs.len().max(1).to_string() value=done.to_string() aria-label=t("Finished runs")></progress>
                <p class="hint num" id="study-progress">{progress(state)}</p>
            </div>
        </header>
    }
}

/// The way to its finished runs beside each other, as many as are compared at once.
fn beside(state: &StudyState) -> Option<impl IntoView + use<>> {
    let finished = state.runs.iter().filter(|r| r.status == StudyRunStatus::Finished);
    let ids: Vec<&str> = finished.take(MOST).map(|r| r.run.as_str()).collect();
    let link = at(&format!("/compare?runs={}", ids.join(",")));
    (ids.len() > 1).then(|| view! { <a class="button" id="study-compare" href=link>{t("Compare its runs")}</a> })
}

fn action(study: Study, name: &'static str, text: &'static str, class: &'static str) -> impl IntoView + use<> {
    view! {
        <button
            id=name
            type="button"
            class=class
            disabled=move || study.busy.get()
            on:click=move |_| study.ask(name)
        >
            {text}
        </button>
    }
}

/// What went wrong since the study was first seen.
#[component]
fn Trouble(study: Study) -> impl IntoView {
    let text = study.memo(|d| {
        let text = if d.refused.is_empty() { &d.failure } else { &d.refused };
        if d.state.is_none() { String::new() } else { text.clone() }
    });
    view! {
        <Show when=move || !text.with(String::is_empty)>
            <div class="card banner error" role="alert"><p>{move || text.get()}</p></div>
        </Show>
    }
}

/// The comparison, or why there is none yet.
#[component]
fn Results(study: Study) -> impl IntoView {
    let id = study.memo(|d| d.state.as_ref().map(|s| s.id.clone()).unwrap_or_default());
    let results = study.memo(|d| d.results.clone());
    let missing = study.memo(|d| d.missing.clone());
    view! {
        <section id="results" class="section" aria-labelledby="results-title">
            <h2 id="results-title">{t("Comparison")}</h2>
            <p class="muted">
                {t("One row for every setting: the mean over its seeds, and below it its 95 % interval, by bootstrap over seeds and topics. The best mean of a column is bold where more is better. Where intervals overlap, the difference may be luck.")}
            </p>
            {move || match results.get() {
                Some(results) => comparison(&id.get(), &results).into_any(),
                None if missing.with(String::is_empty) => view! {
                    <p class="card empty">
                        {t("The comparison appears when the first run is finished. With every further seed a mean gets its range.")}
                    </p>
                }
                .into_any(),
                None => view! {
                    <div class="card banner error" role="alert">
                        <p>{missing.get()}</p>
                        <button class="button" type="button" on:click=move |_| study.fetch()>{t("Try again")}</button>
                    </div>
                }
                .into_any(),
            }}
        </section>
    }
}

fn runs(state: &StudyState) -> impl IntoView + use<> {
    let rows = state.runs.iter().map(run).collect_view();
    view! {
        <section id="runs" class="section" aria-labelledby="runs-title">
            <h2 id="runs-title">{t("Runs")}</h2>
            <div class="card scroll study-runs" tabindex="0" role="group" aria-labelledby="runs-title">
                <table class="values">
                    <thead>
                        <tr>
                            <th scope="col">{t("Setting")}</th>
                            <th scope="col">{t("Seed")}</th>
                            <th scope="col">{t("Status")}</th>
                            <th scope="col" class="text">{t("Run")}</th>
                        </tr>
                    </thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        </section>
    }
}

fn run(run: &StudyRunState) -> impl IntoView + use<> {
    let status = match run.status {
        StudyRunStatus::Waiting => "waiting",
        StudyRunStatus::Running => "running",
        StudyRunStatus::Finished => "finished",
        StudyRunStatus::Failed => "failed",
    };
    // The id is not a link: the server does not know the runs of a study that was started by the command line.
    view! {
        <tr data-run=run.run.clone()>
            <th scope="row">{setting(&run.labels)}</th>
            <td>{run.seed.to_string()}</td>
            <td><span class=format!("status {status}")>{told(status)}</span></td>
            <td class="text"><code>{run.run.clone()}</code><span class="hint">{run.message.clone()}</span></td>
        </tr>
    }
}

/// How a study stands, or a run of one, in the reader's language.
pub fn told(word: &'static str) -> &'static str {
    match word {
        "waiting" => t("waiting"),
        "running" => t("running"),
        "finished" => t("finished"),
        "stopped" => t("stopped"),
        "failed" => t("failed"),
        other => other,
    }
}

/// How far a study is, in one line.
fn progress(state: &StudyState) -> String {
    let count = |status| state.count(status).to_string();
    let all = state.runs.len().to_string();
    let mut text = said("{0} of {1} runs finished", &[&count(StudyRunStatus::Finished), &all]);
    if state.count(StudyRunStatus::Running) > 0 {
        text += &said(", {0} running", &[&count(StudyRunStatus::Running)]);
    }
    if state.count(StudyRunStatus::Failed) > 0 {
        text += &said(", {0} failed", &[&count(StudyRunStatus::Failed)]);
    }
    if let (true, Some(seconds)) = (state.active, state.seconds_left) {
        text += &said(", about {0} left", &[&format::duration(seconds)]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::study::tests::state;
    use moslim_shared::study::StudyRunStatus::{Failed, Finished, Running, Waiting};

    #[test]
    fn progress_names_what_there_is() {
        let mut study = state(true, &[Finished, Finished, Running, Failed, Waiting]);
        assert_eq!(progress(&study), "2 of 5 runs finished, 1 running, 1 failed");
        study.seconds_left = Some(185.0);
        assert_eq!(progress(&study), "2 of 5 runs finished, 1 running, 1 failed, about 3 min 05 s left");
        study.active = false;
        assert!(!progress(&study).contains("left"));
        assert_eq!(progress(&state(true, &[Waiting])), "0 of 1 runs finished");
    }
}
