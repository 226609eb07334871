//! The form that starts a study.

use crate::api::{self, Failure};
use crate::parts::every::until_answered;
use crate::parts::format;
use crate::parts::memo::memo;
use crate::parts::pick::Pick;
use crate::words::{said, t, translated};
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_navigate;
use moslim_shared::config::cost;
use moslim_shared::event::RunInfo;
use moslim_shared::presets;
use moslim_shared::study::{Host, StudyPreset, StudyRequest};

/// What the field of the seeds holds at first.
const SEEDS: &str = "1, 2, 3";
/// Larger seeds could not be shown exactly; a run refuses them.
const LARGEST_SEED: u64 = 1 << 53;

/// Value of a choice of where, and what it is called.
fn place(host: Host) -> (&'static str, &'static str) {
    match host {
        Host::Here => ("here", t("the server's machine")),
        Host::Slurm => ("slurm", t("the cluster, as a job array")),
        Host::Ray => ("ray", t("the Ray cluster, a job each")),
    }
}

/// Nothing before the first answer.
pub type Offer = Option<Result<Vec<StudyPreset>, Failure>>;

/// What is studied, on which runs, with which seeds.
#[component]
pub fn StudyForm(offered: RwSignal<Offer>) -> impl IntoView {
    let preset = RwSignal::new(String::new());
    let base = RwSignal::new("quick".to_string());
    let seeds = RwSignal::new(SEEDS.to_string());
    let host = RwSignal::new(place(Host::Here).0.to_string());
    let hosts: RwSignal<Vec<Host>> = RwSignal::new(Vec::new());
    // Before there is an answer there is no choice: the machine of the server.
    until_answered(|| Box::pin(api::study_hosts()), move |known| drop(hosts.try_set(known)));
    let measured: RwSignal<Option<Vec<RunInfo>>> = RwSignal::new(None);
    until_answered(|| Box::pin(api::measured()), move |runs| drop(measured.try_set(Some(runs))));
    let starting = RwSignal::new(false);
    let refused = RwSignal::new(String::new());
    load(offered, preset);
    let problem = memo(move || seeds.with(|text| read_seeds(text).err().unwrap_or_default()));
    let blocked = move || starting.get() || !problem.with(String::is_empty) || preset.with(String::is_empty);
    let bases: Vec<(String, String)> = presets::all()
        .into_iter()
        .map(|p| (p.id, format!("{}{}{}", translated(&p.title), t(": "), translated(&p.description))))
        .collect();
    let navigate = use_navigate();
    let start = move |_| {
        let Ok(seeds) = seeds.with_untracked(|text| read_seeds(text)) else { return };
        let request = StudyRequest {
            preset: preset.get_untracked(),
            base: base.get_untracked(),
            seeds,
            on: [Host::Slurm, Host::Ray].into_iter().find(|on| host.with_untracked(|h| h == place(*on).0)).unwrap_or_default(),
        };
        if request.preset.is_empty() || starting.get_untracked() {
            return;
        }
        starting.set(true);
        refused.set(String::new());
        let navigate = navigate.clone();
        spawn_local(async move {
            let answer = api::start_study(&request).await;
            let _ = starting.try_set(false);
            match answer {
                Ok(state) => navigate(&format!("/studies/{}", state.id), Default::default()),
                Err(failure) => {
                    let _ = refused.try_set(told(&failure));
                }
            }
        });
    };
    view! {
        <section class="section" aria-labelledby="new-title">
            <h2 id="new-title">{t("A new study")}</h2>
            <div class="grid three presets" role="group" aria-label=t("What is studied")>
                {move || offered.with(|known| offer(known, offered, preset))}
            </div>
            <div class="card form-section study-form">
                <div class="fields">
                    <Pick id="study-base" label=t("Preset of the runs") options=bases chosen=base choose=move |id| base.set(id)/>
                    {move || {
                        let options: Vec<(String, String)> =
                            hosts.get().into_iter().map(place).map(|(id, name)| (id.into(), name.into())).collect();
                        (options.len() > 1).then(|| view! {
                            <Pick id="study-host" label=t("Trained on") options=options chosen=host choose=move |id| host.set(id)/>
                        })
                    }}
                    <div class="field" class:invalid=move || !problem.with(String::is_empty)>
                        <label for="study-seeds">{t("Seeds")}</label>
                        <input
                            type="text"
                            id="study-seeds"
                            class="num"
                            autocomplete="off"
                            spellcheck="false"
                            aria-describedby="study-seeds-note"
                            value=SEEDS
                            on:input=move |ev| seeds.set(event_target_value(&ev))
                        />
                        <p class="hint" id="study-seeds-note">{t("Every setting is trained once with each. Three show whether a difference can be luck.")}</p>
                        <p class="problem" role="status">{move || problem.get()}</p>
                    </div>
                </div>
                <p class="hint num" id="study-size">{move || {
                    let settings = offered.with(|known| settings(known, &preset.read()))?;
                    let seeds = seeds.with(|text| read_seeds(text).ok())?.len();
                    measured.with(|known| Some(size(settings, seeds, seconds(&base.read(), known.as_deref()?))))
                }}</p>
                <p class="actions">
                    <button
                        id="start-study"
                        class="button primary"
                        type="button"
                        disabled=blocked
                        on:click=start
                    >
                        {t("Start the study")}
                    </button>
                </p>
                <Show when=move || !refused.with(String::is_empty)>
                    <div class="banner error" role="alert"><p>{move || refused.get()}</p></div>
                </Show>
            </div>
        </section>
    }
}

/// How many settings the study `id` compares.
fn settings(known: &Offer, id: &str) -> Option<usize> {
    known.as_ref()?.as_ref().ok()?.iter().find(|p| p.id == id).map(|p| p.settings)
}

/// Seconds of a run of the preset `base`, at the speed of finished ones.
fn seconds(base: &str, measured: &[RunInfo]) -> Option<f64> {
    let config = presets::find(base)?.config;
    let known = measured.iter().filter_map(|run| Some((&run.config, &run.summary.as_ref()?.seconds)));
    cost::seconds(&config, config.targets.objectives.len().max(1), known)
}

/// How many runs a study is, and how long they take one after another where one takes `each` seconds.
fn size(settings: usize, seeds: usize, each: Option<f64>) -> String {
    let runs = settings * seeds;
    let [settings, seeds, all] = [settings, seeds, runs].map(|n| n.to_string());
    let count = said("{0} settings, each with {1} seeds: {2} runs.", &[&settings, &seeds, &all]);
    let time = match each {
        Some(each) => said(
            " One after another they take about {0}, judging by the runs that are finished here; less where stages are shared, and where \
             several train at once.",
            &[&format::duration(each * runs as f64)],
        ),
        None => t(" How long they take is not known before a run like them is finished here.").to_string(),
    };
    count + &time
}

fn load(offered: RwSignal<Offer>, preset: RwSignal<String>) {
    spawn_local(async move {
        let answer = api::study_presets().await;
        let first = answer.as_ref().ok().and_then(|presets| presets.first()).map(|p| p.id.clone());
        let _ = preset.try_set(first.unwrap_or_default());
        let _ = offered.try_set(Some(answer));
    });
}

/// What can be studied, as cards.
fn offer(known: &Offer, offered: RwSignal<Offer>, chosen: RwSignal<String>) -> AnyView {
    match known {
        None => view! { <p class="hint" role="status">{t("Loading what can be studied…")}</p> }.into_any(),
        Some(Err(failure)) => view! {
            <div class="card banner error" role="alert">
                <p>{failure.message.clone()}</p>
                <button class="button" type="button" on:click=move |_| load(offered, chosen)>{t("Try again")}</button>
            </div>
        }
        .into_any(),
        Some(Ok(presets)) => presets.iter().map(|p| card(p, chosen)).collect_view().into_any(),
    }
}

fn card(preset: &StudyPreset, chosen: RwSignal<String>) -> impl IntoView + use<> {
    let id = preset.id.clone();
    let own = id.clone();
    view! {
        <button
            type="button"
            class="card preset"
            data-study-preset=preset.id.clone()
            aria-pressed=move || chosen.with(|chosen| *chosen == own).to_string()
            on:click=move |_| chosen.set(id.clone())
        >
            <b>{preset.id.clone()}</b>
            <span class="muted">{translated(&preset.question)}</span>
        </button>
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
            return Err(said("\"{0}\" is no seed; seeds are whole numbers from 0 to 2^53, such as {1}", &[word, SEEDS]));
        };
        if seeds.contains(&seed) {
            return Err(said("{0} is named twice; a second run with it would be the same", &[&seed.to_string()]));
        }
        seeds.push(seed);
    }
    if seeds.is_empty() { Err(said("name at least one seed, such as {0}", &[SEEDS])) } else { Ok(seeds) }
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
    fn a_study_says_how_many_runs_it_is_and_how_long_they_take() {
        let known: Offer = Some(Ok(vec![StudyPreset { id: "stages".into(), question: String::new(), settings: 6 }]));
        assert_eq!((settings(&known, "stages"), settings(&known, "labels"), settings(&None, "stages")), (Some(6), None, None));
        assert!(size(6, 3, None).starts_with("6 settings, each with 3 seeds: 18 runs. How long"));
        // A run of half a minute.
        let text = size(6, 3, Some(30.0));
        assert!(text.starts_with("6 settings, each with 3 seeds: 18 runs. One after another they take about 9 min"), "{text}");
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
