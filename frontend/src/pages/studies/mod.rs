//! All studies, and the form that starts one. What one study found is on a page of its own.

mod form;

use crate::api::{self, Failure};
use crate::pages::studies::form::StudyForm;
use crate::pages::study::told;
use crate::parts::every::every;
use crate::parts::format;
use crate::parts::settling::settling;
use crate::source::at;
use crate::state::study::standing;
use crate::words::{said, t, translated};
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::study::{StudyRunStatus, StudyState};
use std::time::Duration;

/// Time between two looks at the list.
const REFRESH: Duration = Duration::from_secs(4);

/// Nothing before the first answer.
type Known = Option<Result<Vec<StudyState>, Failure>>;

/// The page.
#[component]
pub fn Studies() -> impl IntoView {
    let studies = RwSignal::new(None);
    let offered = RwSignal::new(None);
    let settling = settling(move || offered.with(Option::is_some) && studies.with(Option::is_some));
    load(studies);
    every(REFRESH, move || load(studies));
    view! {
        <div class="studies-page" class:settling=move || settling.get()>
            <h1>{t("Studies")}</h1>
            <p class="muted">
                {t("A study trains the same thing in several ways, and each way with several seeds. One run alone can be lucky; when every seed of one way is better than every seed of another, it is hardly luck. The runs share the stages that they have in common, and are compared in one table and one picture.")}
            </p>
            <StudyForm offered=offered/>
            <section id="studies" class="section" aria-labelledby="studies-title">
                <h2 id="studies-title">{t("All studies")}</h2>
                {move || studies.with(|known| list(known, studies))}
            </section>
        </div>
    }
}

fn load(studies: RwSignal<Known>) {
    spawn_local(async move {
        let answer = Some(api::studies().await);
        // Nothing is drawn again when nothing changed.
        let _ = studies.try_maybe_update(|now| {
            let changed = *now != answer;
            *now = answer;
            (changed, ())
        });
    });
}

fn list(known: &Known, studies: RwSignal<Known>) -> AnyView {
    match known {
        None => view! { <p class="card empty" role="status">{t("Loading the list…")}</p> }.into_any(),
        Some(Err(failure)) => view! {
            <div class="card banner error" role="alert">
                <p>{failure.message.clone()}</p>
                <button class="button" type="button" on:click=move |_| load(studies)>{t("Try again")}</button>
            </div>
        }
        .into_any(),
        Some(Ok(known)) if known.is_empty() => view! {
            <p class="card empty" role="status">
                {t("No study yet. Start one above, or with moslim-lab study on the command line: both appear here, and stay when the page is closed.")}
            </p>
        }
        .into_any(),
        Some(Ok(known)) => {
            let rows = known.iter().map(row).collect_view();
            view! { <ul class="runs">{rows}</ul> }.into_any()
        }
    }
}

fn row(state: &StudyState) -> impl IntoView + use<> {
    let word = standing(state);
    let finished = said("{0} of {1}", &[&state.count(StudyRunStatus::Finished).to_string(), &state.runs.len().to_string()]);
    view! {
        <li>
            <a class="run study" href=at(&format!("/studies/{}", state.id)) data-study=state.id.clone()>
                <span class="run-name"><b>{state.name.clone()}</b><span class="hint">{translated(&state.question)}</span></span>
                <span class=format!("status {word}")>{told(word)}</span>
                <span class="run-figure"><span class="hint">{t("runs")}</span>{finished}</span>
                <span class="run-figure"><span class="hint">{t("failed")}</span>{state.count(StudyRunStatus::Failed).to_string()}</span>
                <span class="run-figure"><span class="hint">{t("started")}</span>{format::ago(state.created, js_sys::Date::now())}</span>
            </a>
        </li>
    }
}
