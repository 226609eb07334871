//! A study: how far it is, its runs, and what it found.

use crate::api;
use crate::derived;
use crate::parts::comparison::comparison;
use crate::parts::format;
use crate::parts::front::front;
use crate::parts::region::region;
use crate::router::Address;
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::study::{StudyResults, StudyRunState, StudyRunStatus, StudyState};
use std::time::Duration;

/// Time between two looks at a study that is worked on.
const POLL: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Data {
    id: String,
    state: Option<StudyState>,
    /// Why the last look came to nothing; empty when it did not.
    failure: String,
    /// Why the last button came to nothing.
    refused: String,
    results: Option<StudyResults>,
    /// Why there are no results yet, though a run is finished.
    missing: String,
    /// Whether an answer with results is on its way.
    asking: bool,
    /// Whether the first run was seen to be finished just now. Its results are written a moment later.
    fresh: bool,
}

/// What the page knows of one study. The data is outside of the reactive system.
#[derive(Clone, Copy)]
pub struct Study {
    data: StoredValue<Data>,
    /// Grows when anything but the results changes.
    moved: RwSignal<u64>,
    /// Grows when the results change.
    found: RwSignal<u64>,
    busy: RwSignal<bool>,
}

impl Study {
    fn new(id: String) -> Self {
        let data = Data { id, ..Default::default() };
        Self { data: StoredValue::new(data), moved: RwSignal::new(0), found: RwSignal::new(0), busy: RwSignal::new(false) }
    }

    fn id(self) -> String {
        self.data.try_with_value(|d| d.id.clone()).unwrap_or_default()
    }

    /// Reads how the study stands, and again when that has changed.
    fn stands<R>(self, f: impl FnOnce(&Data) -> R) -> R {
        self.moved.track();
        self.data.with_value(f)
    }

    /// Reads the results, and again when there are others.
    pub fn results<R>(self, f: impl FnOnce(Option<&StudyResults>) -> R) -> R {
        self.found.track();
        self.data.with_value(|d| f(d.results.as_ref()))
    }

    fn load(self) {
        spawn_local(async move {
            let answer = api::study(&self.id()).await;
            let changed = self.data.try_update_value(|d| match answer {
                Ok(state) => d.learn(state),
                Err(failure) => std::mem::replace(&mut d.failure, failure.message.clone()) != failure.message,
            });
            self.after(changed);
        });
    }

    /// Looks again if somebody works on it.
    fn tick(self) {
        if self.data.try_with_value(|d| d.state.as_ref().is_some_and(|s| s.active)) == Some(true) {
            self.load();
        }
    }

    fn ask(self, action: &'static str) {
        if self.busy.get_untracked() {
            return;
        }
        self.busy.set(true);
        spawn_local(async move {
            let answer = api::act_on_study(&self.id(), action).await;
            let _ = self.busy.try_set(false);
            let changed = self.data.try_update_value(|d| {
                d.refused = answer.as_ref().err().map(|f| f.message.clone()).unwrap_or_default();
                if let Ok(state) = answer {
                    d.learn(state);
                }
                true
            });
            self.after(changed);
        });
    }

    /// Nothing is drawn again when nothing changed; nothing is left to do when the page is another one by now.
    fn after(self, changed: Option<bool>) {
        if changed == Some(true) {
            let _ = self.moved.try_update(|n| *n += 1);
        }
        if changed.is_some() {
            self.fetch();
        }
    }

    /// Asks for the results if there may be others.
    fn fetch(self) {
        let wanted = self.data.try_update_value(|d| {
            let wanted = d.outdated() && !d.asking;
            d.asking |= wanted;
            wanted
        });
        if wanted != Some(true) {
            return;
        }
        spawn_local(async move {
            let answer = api::study_results(&self.id()).await;
            let heard = self.data.try_update_value(|d| {
                d.asking = false;
                match answer {
                    Ok(results) => {
                        d.missing.clear();
                        d.results = Some(results);
                    }
                    Err(failure) => d.missing = failure.message,
                }
            });
            if heard.is_some() {
                let _ = self.found.try_update(|n| *n += 1);
            }
        });
    }
}

impl Data {
    /// Takes a new state; whether anything changed.
    fn learn(&mut self, state: StudyState) -> bool {
        let changed = !self.failure.is_empty() || self.state.as_ref() != Some(&state);
        let none = self.state.as_ref().is_some_and(|s| s.count(StudyRunStatus::Finished) == 0);
        self.fresh = state.active && none && state.count(StudyRunStatus::Finished) > 0;
        self.failure.clear();
        self.state = Some(state);
        changed
    }

    /// Whether a run is finished that the results do not contain.
    fn outdated(&self) -> bool {
        let finished = self.state.as_ref().map_or(0, |s| s.count(StudyRunStatus::Finished));
        !self.fresh && finished > 0 && finished != self.results.as_ref().map_or(0, |r| r.runs.len())
    }
}

/// How a study stands, in one word for people and for style classes.
pub fn standing(state: &StudyState) -> &'static str {
    let left = state.runs.iter().any(|r| matches!(r.status, StudyRunStatus::Waiting | StudyRunStatus::Running));
    if state.active {
        "running"
    } else if left {
        "stopped"
    } else if state.count(StudyRunStatus::Failed) > 0 {
        "failed"
    } else {
        "finished"
    }
}

/// How far a study is, in one line.
fn progress(state: &StudyState) -> String {
    let mut text = format!("{} of {} runs finished", state.count(StudyRunStatus::Finished), state.runs.len());
    for (status, word) in [(StudyRunStatus::Running, "running"), (StudyRunStatus::Failed, "failed")] {
        let count = state.count(status);
        if count > 0 {
            text += &format!(", {count} {word}");
        }
    }
    if let (true, Some(seconds)) = (state.active, state.seconds_left) {
        text += &format!(", about {} left", format::duration(seconds));
    }
    text
}

/// The page of a study.
pub fn study(address: Address, id: String) -> AnyView {
    let study = Study::new(id.clone());
    study.load();
    // The table is not made anew with every step of a run.
    let known = derived::flag(move || study.stands(|d| d.state.is_some()));
    if let Ok(handle) = set_interval_with_handle(move || study.tick(), POLL) {
        on_cleanup(move || handle.clear());
    }
    view! {
        <article class="study-page" data-study=id>
            {region(move || study.stands(|d| head(study, d)))}
            {region(move || study.stands(trouble))}
            {region(move || {
                let _ = known.get();
                study.found.track();
                study.data.with_value(|d| results(study, d))
            })}
            {front(study, address)}
            {region(move || study.stands(|d| d.state.as_ref().map_or_else(|| ().into_any(), runs)))}
        </article>
    }
    .into_any()
}

/// What it is, how far it is, and what can be done with it.
fn head(study: Study, data: &Data) -> AnyView {
    let Some(state) = &data.state else {
        if data.failure.is_empty() {
            return view! { <p class="card empty" role="status">"Loading the study…"</p> }.into_any();
        }
        return view! {
            <div class="card banner error" role="alert">
                <p>{data.failure.clone()}</p>
                <button class="button" type="button" on:click=move |_| study.load()>"Try again"</button>
            </div>
        }
        .into_any();
    };
    let word = standing(state);
    let button = match word {
        "running" => Some(action(study, "cancel", "Cancel", "button danger")),
        "finished" => None,
        _ => Some(action(study, "resume", "Resume", "button primary")),
    };
    let buttons: Vec<AnyView> = button.into_iter().collect();
    let done = state.count(StudyRunStatus::Finished);
    view! {
        <header class="run-head">
            <div class="run-title">
                <h1 id="study-name">{state.name.clone()}</h1>
                <p class="muted">{state.question.clone()}</p>
                <p class="chips">
                    <span id="study-status" class=format!("status {word}") data-status=word>{word}</span>
                    <code class="hint">{state.id.clone()}</code>
                </p>
            </div>
            <div class="actions">{buttons}</div>
            <div class="study-progress">
                <progress max=state.runs.len().max(1).to_string() value=done.to_string() aria-label="Finished runs"></progress>
                <p class="hint num" id="study-progress">{progress(state)}</p>
            </div>
        </header>
    }
    .into_any()
}

fn action(study: Study, name: &'static str, text: &'static str, class: &'static str) -> AnyView {
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
    .into_any()
}

/// What went wrong since the study was first seen.
fn trouble(data: &Data) -> AnyView {
    let text = if data.refused.is_empty() { &data.failure } else { &data.refused };
    if text.is_empty() || data.state.is_none() {
        return ().into_any();
    }
    view! { <div class="card banner error" role="alert"><p>{text.clone()}</p></div> }.into_any()
}

/// The comparison, or why there is none yet. What is shown instead of each other is of different elements: a view that
/// follows one of the same element keeps the attributes that it has no value for.
fn results(study: Study, data: &Data) -> AnyView {
    let Some(state) = &data.state else { return ().into_any() };
    let shown = match &data.results {
        Some(results) => comparison(&state.id, results),
        None if data.missing.is_empty() => view! {
            <p class="card empty">
                "The comparison appears when the first run is finished. With every further seed a mean gets its range."
            </p>
        }
        .into_any(),
        None => view! {
            <div class="card banner error" role="alert">
                <p>{data.missing.clone()}</p>
                <button class="button" type="button" on:click=move |_| study.fetch()>"Try again"</button>
            </div>
        }
        .into_any(),
    };
    view! {
        <section id="results" class="section" aria-labelledby="results-title">
            <h2 id="results-title">"Comparison"</h2>
            <p class="muted">
                "One row for every setting: the mean over its seeds, and below it the lowest and the highest. The best mean of a column is bold where more is better. Where ranges overlap, the difference may be luck."
            </p>
            {shown}
        </section>
    }
    .into_any()
}

fn runs(state: &StudyState) -> AnyView {
    let rows: Vec<AnyView> = state.runs.iter().map(run).collect();
    view! {
        <section id="runs" class="section" aria-labelledby="runs-title">
            <h2 id="runs-title">"Runs"</h2>
            <div class="card scroll study-runs" tabindex="0" role="region" aria-labelledby="runs-title">
                <table class="values">
                    <thead>
                        <tr>
                            <th scope="col">"Setting"</th>
                            <th scope="col">"Seed"</th>
                            <th scope="col">"Status"</th>
                            <th scope="col" class="text">"Run"</th>
                        </tr>
                    </thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        </section>
    }
    .into_any()
}

fn run(run: &StudyRunState) -> AnyView {
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
            <td><span class=format!("status {status}")>{status}</span></td>
            <td class="text"><code>{run.run.clone()}</code><span class="hint">{run.message.clone()}</span></td>
        </tr>
    }
    .into_any()
}

/// Name of a setting: its label on every axis.
pub fn setting(labels: &[String]) -> String {
    if labels.is_empty() { "base".into() } else { labels.join(" · ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::study::StudyRunStatus::{Failed, Finished, Running, Waiting};

    fn state(active: bool, statuses: &[StudyRunStatus]) -> StudyState {
        let run = |status: &StudyRunStatus| StudyRunState {
            run: "r".into(),
            labels: vec!["a".into()],
            seed: 1,
            status: *status,
            message: String::new(),
        };
        StudyState {
            id: "s".into(),
            name: "methods".into(),
            question: String::new(),
            created: 0,
            active,
            runs: statuses.iter().map(run).collect(),
            seconds_left: None,
        }
    }

    #[test]
    fn a_study_stands_as_its_runs_do() {
        assert_eq!(standing(&state(true, &[Waiting])), "running");
        assert_eq!(standing(&state(false, &[Finished, Waiting])), "stopped");
        assert_eq!(standing(&state(false, &[Failed, Running])), "stopped");
        assert_eq!(standing(&state(false, &[Finished, Failed])), "failed");
        assert_eq!(standing(&state(false, &[Finished])), "finished");
    }

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

    #[test]
    fn results_are_asked_for_when_a_run_is_not_in_them() {
        let mut data = Data::default();
        assert!(!data.outdated());
        assert!(data.learn(state(true, &[Running])));
        assert!(!data.learn(state(true, &[Running])) && !data.outdated());
        assert!(data.learn(state(true, &[Finished])) && !data.outdated(), "they are being written");
        assert!(!data.learn(state(true, &[Finished])) && data.outdated());
        data.results = Some(StudyResults { runs: vec![Default::default()], ..Default::default() });
        assert!(!data.outdated());
        data.failure = "The server did not answer.".into();
        assert!(data.learn(state(true, &[Finished])) && data.failure.is_empty());
        let mut opened_later = Data::default();
        assert!(opened_later.learn(state(false, &[Finished])) && opened_later.outdated());
    }
}
