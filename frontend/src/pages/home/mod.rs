//! The first page: what this is, a button that starts it, the idea in five steps, an example to play with, all runs.
//!
//! What a visitor sees before there is a run belongs here; what a run shows does not.

mod moving;
mod runs;

use crate::api;
use crate::pages::carry::Example;
use crate::pages::home::moving::MovingPicture;
use crate::pages::home::runs::Runs;
use crate::parts::mapping::MappingByHand;
use crate::parts::memo::memo;
use crate::source::{at, is_tab};
use crate::words::{said, t, translated};
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::{use_navigate, use_query_map};
use moslim_shared::config::RunConfig;
use moslim_shared::presets;

/// The stages in a few words: name, what happens, what it needs and gives.
fn stages() -> [(&'static str, &'static str, &'static str); 5] {
    [
        ("SFT", t("A tiny policy learns to answer questions. It is told nothing about preferences."), t("questions → answers")),
        (
            t("Reward model"),
            t("One model with one head per objective learns to grade answers into ordered classes."),
            t("answer → class probabilities"),
        ),
        (
            t("Calibration"),
            t("Its confidence is made honest, and the mean and spread of its grades are frozen."),
            t("temperatures, statistics"),
        ),
        (
            t("Policy optimisation"),
            t(
                "Prompts carry tags such as <verbosity=0>. Grades and tags map to one reward; RLOO, or another optimiser, does the rest.",
            ),
            t("tags + grades → reward"),
        ),
        (
            t("Evaluation"),
            t("Held-out questions, every class asked for: does the answer have the class that was asked for?"),
            t("asked × achieved"),
        ),
    ]
}

/// The preset of the demo: what trains in a tab has one thread.
fn demo_preset() -> &'static str {
    if is_tab() { "tab" } else { "quick" }
}

/// The page.
#[component]
pub fn Home() -> impl IntoView {
    let (query, navigate) = (use_query_map(), use_navigate());
    let wished = memo(move || query.with(|q| q.get("preset")).unwrap_or_else(|| demo_preset().to_string()));
    let starting = RwSignal::new(false);
    let failure = RwSignal::new(String::new());
    let start = move |_| {
        let Some(preset) = presets::find(&wished.get_untracked()).or_else(|| presets::find(demo_preset())) else { return };
        if starting.get_untracked() {
            return;
        }
        starting.set(true);
        failure.set(String::new());
        // A link may name one, so that people who compare what they see have the same run.
        let seed = query.with_untracked(|q| q.get("seed")).and_then(|s| s.parse().ok()).unwrap_or(preset.config.seed);
        let navigate = navigate.clone();
        spawn_local(async move {
            let answer = api::start(&RunConfig { seed, ..preset.config }).await;
            let _ = starting.try_set(false);
            match answer {
                Ok(id) => navigate(&format!("/runs/{id}"), Default::default()),
                Err(error) => {
                    let _ = failure.try_set(error.message);
                }
            }
        });
    };
    let steps = stages()
        .into_iter()
        .enumerate()
        .map(|(i, (name, text, flow))| {
            view! {
                <li class="step">
                    <span class="stage-number">{(i + 1).to_string()}</span>
                    <h3>{name}</h3>
                    <p>{text}</p>
                    <p class="flow">{flow}</p>
                </li>
            }
        })
        .collect_view();

    view! {
        <div class="first">
        <section class="hero" aria-labelledby="hero-title">
            <h1 id="hero-title">{t("Teach a language model to obey preference tags, and watch it learn.")}</h1>
            <p class="lead">
                {t("One reward model grades answers per objective; the prompt says which grades are wanted; one policy learns to deliver them. \
                    It all happens on this machine, live, in minutes.")}
            </p>
            <p class="actions">
                <button
                    id="start-demo"
                    class="button primary"
                    type="button"
                    disabled=move || starting.get()
                    on:click=start
                >
                    {move || if starting.get() { t("Starting…") } else { t("Start the demo") }}
                </button>
                <Example label=t("Look at one that is trained")/>
                <a class="button" href=at("/learn")>{t("Learn how it works")}</a>
                <a class="button" href=at("/configure")>{t("Configure a run")}</a>
            </p>
            <p class="hint" id="demo-preset">
                {move || {
                    let preset = presets::find(&wished.get()).or_else(|| presets::find(demo_preset()));
                    preset.map(|p| said("Preset {0}: {1}", &[&p.id, &translated(&p.description)])).unwrap_or_default()
                }}
            </p>
            <p class="note" class:gone=move || presets::find(&wished.get()).is_some()>
                {move || said("There is no preset called \"{0}\"; the button starts {1}.", &[&wished.get(), demo_preset()])}
            </p>
            <div class="card banner error" role="alert" class:gone=move || failure.with(String::is_empty)>
                <p>{move || failure.get()}</p>
            </div>
        </section>
        <MovingPicture/>
        </div>
        <section class="section" aria-labelledby="idea-title">
            <h2 id="idea-title">{t("Five stages")}</h2>
            <ol class="steps">{steps}</ol>
        </section>
        <MappingByHand/>
        <Runs/>
    }
}
