//! All studies, and the form that starts one.

use crate::api::{self, Failure};
use crate::derived;
use crate::pages::study::standing;
use crate::parts::format;
use crate::parts::pick::pick;
use crate::parts::region::region;
use crate::router::Address;
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::presets;
use moslim_shared::study::{StudyPreset, StudyRequest, StudyRunStatus, StudyState};
use std::time::Duration;

/// Time between two looks at the list.
const REFRESH: Duration = Duration::from_secs(4);
/// What the field of the seeds holds at first.
const SEEDS: &str = "1, 2, 3";
/// Larger seeds could not be shown exactly; a run refuses them.
const LARGEST_SEED: u64 = 1 << 53;

/// Nothing before the first answer.
type Loaded<T> = Option<Result<Vec<T>, Failure>>;

#[derive(Default)]
struct Data {
    presets: Loaded<StudyPreset>,
    studies: Loaded<StudyState>,
}

/// What the page knows and what the form holds. The data is outside of the reactive system.
#[derive(Clone, Copy)]
struct Studies {
    data: StoredValue<Data>,
    /// Grows when other presets are known.
    offered: RwSignal<u64>,
    /// Grows when other studies are known, or they stand differently.
    listed: RwSignal<u64>,
    preset: RwSignal<String>,
    base: RwSignal<String>,
    seeds: RwSignal<String>,
    starting: RwSignal<bool>,
    /// Why the last study was not started; empty when it was.
    refused: RwSignal<String>,
}

impl Studies {
    fn new() -> Self {
        Self {
            data: StoredValue::new(Data::default()),
            offered: RwSignal::new(0),
            listed: RwSignal::new(0),
            preset: RwSignal::new(String::new()),
            base: RwSignal::new("quick".into()),
            seeds: RwSignal::new(SEEDS.into()),
            starting: RwSignal::new(false),
            refused: RwSignal::new(String::new()),
        }
    }

    fn offer(self) {
        spawn_local(async move {
            let answer = api::study_presets().await;
            let first = answer.as_ref().ok().and_then(|presets| presets.first()).map(|p| p.id.clone());
            if self.data.try_update_value(|d| d.presets = Some(answer)).is_some() {
                let _ = self.preset.try_update(|p| *p = first.unwrap_or_default());
                let _ = self.offered.try_update(|n| *n += 1);
            }
        });
    }

    fn list(self) {
        spawn_local(async move {
            let answer = api::studies().await;
            let next = Some(answer);
            let changed = self.data.try_update_value(|d| {
                let changed = d.studies != next;
                d.studies = next;
                changed
            });
            // Nothing is drawn again when nothing changed.
            if changed == Some(true) {
                let _ = self.listed.try_update(|n| *n += 1);
            }
        });
    }

    fn start(self, address: Address) {
        let (preset, seeds) = (self.preset.get_untracked(), self.seeds.with_untracked(|text| read_seeds(text)));
        let Ok(seeds) = seeds else { return };
        if preset.is_empty() || self.starting.get_untracked() {
            return;
        }
        self.starting.set(true);
        self.refused.set(String::new());
        let request = StudyRequest { preset, base: self.base.get_untracked(), seeds };
        spawn_local(async move {
            let answer = api::start_study(&request).await;
            let _ = self.starting.try_set(false);
            match answer {
                Ok(state) => address.go(&format!("/studies/{}", state.id)),
                Err(failure) => {
                    let _ = self.refused.try_set(told(&failure));
                }
            }
        });
    }
}

/// Reads seeds that are separated by commas or spaces.
///
/// # Errors
/// What is wrong with the first one that cannot be taken.
fn read_seeds(text: &str) -> Result<Vec<u64>, String> {
    let mut seeds: Vec<u64> = Vec::new();
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        let seed = word.parse::<u64>().ok().filter(|seed| *seed <= LARGEST_SEED);
        let Some(seed) = seed else {
            return Err(format!("\"{word}\" is no seed; seeds are whole numbers from 0 to 2^53, such as {SEEDS}"));
        };
        if seeds.contains(&seed) {
            return Err(format!("{seed} is named twice; a second run with it would be the same"));
        }
        seeds.push(seed);
    }
    if seeds.is_empty() { Err(format!("name at least one seed, such as {SEEDS}")) } else { Ok(seeds) }
}

/// A failure in one text.
fn told(failure: &Failure) -> String {
    let mut text = failure.message.clone();
    // The message of a single problem is the problem.
    if failure.problems.len() > 1 {
        for problem in &failure.problems {
            text += &format!("; {}: {}", problem.field, problem.message);
        }
    }
    text
}

/// The page.
pub fn studies(address: Address) -> AnyView {
    let studies = Studies::new();
    studies.offer();
    studies.list();
    if let Ok(handle) = set_interval_with_handle(move || studies.list(), REFRESH) {
        on_cleanup(move || handle.clear());
    }
    view! {
        <div class="studies-page">
            <h1>"Studies"</h1>
            <p class="muted">
                "A study trains the same thing in several ways, and each way with several seeds. One run alone can be lucky; when every seed of one way is better than every seed of another, it is hardly luck. The runs share the stages that they have in common, and are compared in one table and one picture."
            </p>
            {form(studies, address)}
            <section id="studies" class="section" aria-labelledby="studies-title">
                <h2 id="studies-title">"All studies"</h2>
                {region(move || {
                    studies.listed.track();
                    studies.data.with_value(|d| list(studies, &d.studies))
                })}
            </section>
        </div>
    }
    .into_any()
}

fn form(studies: Studies, address: Address) -> AnyView {
    let problem = derived::text(move || studies.seeds.with(|text| read_seeds(text).err().unwrap_or_default()));
    let blocked =
        derived::flag(move || studies.starting.get() || !problem.with(String::is_empty) || studies.preset.with(String::is_empty));
    let base = derived::text(move || studies.base.get());
    let bases: Vec<(String, String)> =
        presets::all().into_iter().map(|p| (p.id, format!("{}: {}", p.title, p.description))).collect();
    view! {
        <section class="section" aria-labelledby="new-title">
            <h2 id="new-title">"A new study"</h2>
            <div class="grid three presets" role="group" aria-label="What is studied">
                {region(move || {
                    studies.offered.track();
                    studies.data.with_value(|d| offer(studies, &d.presets))
                })}
            </div>
            <div class="card form-section study-form">
                <div class="fields">
                    {pick("study-base", "Preset of the runs", bases, base, Box::new(move |id: String| studies.base.set(id)))}
                    <div class="field" class:invalid=move || !problem.with(String::is_empty)>
                        <label for="study-seeds">"Seeds"</label>
                        <input
                            type="text"
                            id="study-seeds"
                            class="num"
                            autocomplete="off"
                            spellcheck="false"
                            aria-describedby="study-seeds-note"
                            value=SEEDS
                            on:input=move |ev| studies.seeds.set(event_target_value(&ev))
                        />
                        <p class="hint" id="study-seeds-note">"Every setting is trained once with each. Three show whether a difference can be luck."</p>
                        <p class="problem" role="status">{move || problem.get()}</p>
                    </div>
                </div>
                <p class="actions">
                    <button
                        id="start-study"
                        class="button primary"
                        type="button"
                        disabled=move || blocked.get()
                        on:click=move |_| studies.start(address)
                    >
                        "Start the study"
                    </button>
                </p>
                {region(move || refusal(studies.refused.get()))}
            </div>
        </section>
    }
    .into_any()
}

fn refusal(text: String) -> AnyView {
    if text.is_empty() {
        return ().into_any();
    }
    view! { <div class="banner error" role="alert"><p>{text}</p></div> }.into_any()
}

/// What can be studied, as cards.
fn offer(studies: Studies, presets: &Loaded<StudyPreset>) -> AnyView {
    match presets {
        None => view! { <p class="hint" role="status">"Loading what can be studied…"</p> }.into_any(),
        Some(Err(failure)) => broken(failure, Box::new(move || studies.offer())),
        Some(Ok(presets)) => presets.iter().map(|p| card(studies, p)).collect::<Vec<AnyView>>().into_any(),
    }
}

fn card(studies: Studies, preset: &StudyPreset) -> AnyView {
    let id = preset.id.clone();
    let own = id.clone();
    view! {
        <button
            type="button"
            class="card preset"
            data-study-preset=preset.id.clone()
            aria-pressed=move || studies.preset.with(|chosen| *chosen == own).to_string()
            on:click=move |_| studies.preset.set(id.clone())
        >
            <b>{preset.id.clone()}</b>
            <span class="muted">{preset.question.clone()}</span>
        </button>
    }
    .into_any()
}

fn broken(failure: &Failure, again: Box<dyn Fn() + Send + Sync>) -> AnyView {
    view! {
        <div class="card banner error" role="alert">
            <p>{failure.message.clone()}</p>
            <button class="button" type="button" on:click=move |_| again()>"Try again"</button>
        </div>
    }
    .into_any()
}

fn list(studies: Studies, known: &Loaded<StudyState>) -> AnyView {
    match known {
        None => view! { <p class="card empty" role="status">"Loading the list…"</p> }.into_any(),
        Some(Err(failure)) => broken(failure, Box::new(move || studies.list())),
        Some(Ok(known)) if known.is_empty() => view! {
            <p class="card empty" role="status">
                "No study yet. Start one above, or with moslim-lab study on the command line: both appear here, and stay when the page is closed."
            </p>
        }
        .into_any(),
        Some(Ok(known)) => {
            let rows: Vec<AnyView> = known.iter().map(row).collect();
            view! { <ul class="runs">{rows}</ul> }.into_any()
        }
    }
}

fn row(state: &StudyState) -> AnyView {
    let word = standing(state);
    let finished = format!("{} of {}", state.count(StudyRunStatus::Finished), state.runs.len());
    view! {
        <li>
            <a class="run study" href=format!("/studies/{}", state.id) data-study=state.id.clone()>
                <span class="run-name"><b>{state.name.clone()}</b><span class="hint">{state.question.clone()}</span></span>
                <span class=format!("status {word}")>{word}</span>
                <span class="run-figure"><span class="hint">"runs"</span>{finished}</span>
                <span class="run-figure"><span class="hint">"failed"</span>{state.count(StudyRunStatus::Failed).to_string()}</span>
                <span class="run-figure"><span class="hint">"started"</span>{format::ago(state.created, js_sys::Date::now())}</span>
            </a>
        </li>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::config::Problem;

    #[test]
    fn seeds_are_read_or_the_wrong_one_is_named() {
        assert_eq!(read_seeds(SEEDS), Ok(vec![1, 2, 3]));
        assert_eq!(read_seeds("7"), Ok(vec![7]));
        assert_eq!(read_seeds(" 3,1 2, "), Ok(vec![3, 1, 2]));
        assert_eq!(read_seeds("9007199254740992"), Ok(vec![LARGEST_SEED]));
        let refuse = |text: &str, part: &str| {
            let message = read_seeds(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        };
        refuse("", "at least one");
        refuse(" , ", "at least one");
        refuse("1, two", "\"two\"");
        refuse("1, -2", "\"-2\"");
        refuse("1.5", "\"1.5\"");
        refuse("9007199254740993", "\"9007199254740993\"");
        refuse("4, 5, 4", "4 is named twice");
    }

    #[test]
    fn problems_are_told_when_the_message_does_not_name_them() {
        let problem = |field: &str| Problem { field: field.into(), message: "is wrong".into() };
        let mut failure = Failure { message: "a: is wrong".into(), problems: vec![problem("a")] };
        assert_eq!(told(&failure), "a: is wrong");
        failure = Failure { message: "there are 2 problems".into(), problems: vec![problem("a"), problem("b")] };
        assert_eq!(told(&failure), "there are 2 problems; a: is wrong; b: is wrong");
    }
}
