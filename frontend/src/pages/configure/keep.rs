//! What is kept of the form: a draft in this browser, a file, and the command that trains the same.

use super::form::Form;
use crate::api;
use crate::json::read;
use crate::parts::memo::effect;
use crate::parts::save::save_text;
use crate::source::is_tab;
use crate::words::{self, t};
use js_sys::{Function, Promise, Reflect};
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::config::RunConfig;
use moslim_shared::presets;
use serde::Deserialize;
use serde_json::json;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Event, HtmlInputElement, Storage};

/// Under this the browser keeps the draft.
const DRAFT: &str = "moslim-draft";

/// Where drafts are: a tab has its own, and the last of all tabs is what the next one begins with.
fn drafts() -> impl Iterator<Item = Storage> {
    [window().session_storage(), window().local_storage()].into_iter().filter_map(|storage| storage.ok()?)
}

/// What somebody had begun to change: the preset that it began from, and the configuration.
fn kept() -> Option<(String, RunConfig)> {
    let text = drafts().find_map(|storage| storage.get_item(DRAFT).ok()?)?;
    let (preset, config) = text.split_once('\n')?;
    Some((preset.to_string(), read(config).ok()?))
}

fn keep(draft: Option<String>) {
    for storage in drafts() {
        let _ = match &draft {
            Some(text) => storage.set_item(DRAFT, text),
            None => storage.remove_item(DRAFT),
        };
    }
}

/// Keeps what is changed from here on, and takes up what was left, unless the address says what is wanted.
pub fn follow(form: Form, wanted: bool) -> RwSignal<bool> {
    let taken = RwSignal::new(false);
    if !wanted
        && let Some((preset, config)) = kept()
        && let Some(preset) = presets::find(&preset)
    {
        form.load(preset.config);
        form.take(config);
        taken.set(true);
    }
    // A draft of another visit goes when this one has one of its own, or is told to forget it.
    let own = StoredValue::new(taken.get_untracked());
    effect(move || {
        let draft = form.read(|d| {
            let changed = !d.changes().is_empty();
            d.parsed.as_ref().filter(|_| changed).map(|config| format!("{}\n{}", d.base.preset, json!(config)))
        });
        if draft.is_some() || own.get_value() {
            own.set_value(true);
            keep(draft);
        }
    });
    taken
}

/// Says that a draft was taken up, and forgets it if that is wished.
pub fn draft_note(form: Form, taken: RwSignal<bool>) -> AnyView {
    let forget = move |_| {
        let base = form.read(|d| d.base.clone());
        form.load(base);
        taken.set(false);
    };
    view! {
        <p id="draft" class="card banner" role="status" class:gone=move || !taken.get()>
            <span>{t("What you changed when you were last here is filled in again.")}</span>
            <button id="forget-draft" class="button small" type="button" on:click=forget>{t("Begin anew")}</button>
        </p>
    }
    .into_any()
}

/// The command that trains what the form holds.
fn command(form: Form) -> String {
    let end = if is_tab() { "json" } else { "toml" };
    form.read(|d| match (&d.parsed, d.changes().as_slice()) {
        (Some(_), []) => format!("moslim-lab train --preset {}", d.base.preset),
        _ => format!("moslim-lab train --config run.{end}"),
    })
}

/// Puts a text on the clipboard; `None` where the browser does not let a page.
async fn copy(text: &str) -> Option<()> {
    let navigator = Reflect::get(&window(), &"navigator".into()).ok()?;
    let clipboard = Reflect::get(&navigator, &"clipboard".into()).ok()?;
    let write: Function = Reflect::get(&clipboard, &"writeText".into()).ok()?.dyn_into().ok()?;
    let written: Promise = write.call1(&clipboard, &text.into()).ok()?.dyn_into().ok()?;
    JsFuture::from(written).await.ok().map(drop)
}

/// The configuration as a file, out and in, and the command.
pub fn files(form: Form) -> AnyView {
    let said = RwSignal::new(String::new());
    let failed = move |message: String| drop(said.try_set(message));
    let save = move |_| {
        let Some(config) = form.parsed() else { return };
        spawn_local(async move {
            let (name, text) = match is_tab() {
                true => ("run.json", serde_json::to_string_pretty(&json!(config)).map_err(|e| e.to_string())),
                false => ("run.toml", api::as_toml(&config).await.map_err(|failure| failure.message)),
            };
            match text.map(|text| save_text(name, &text)) {
                Ok(Ok(())) => failed(String::new()),
                Ok(Err(_)) => failed(t("This browser saves no files.").into()),
                Err(message) => failed(message),
            }
        });
    };
    let chosen = move |event: Event| {
        let Some(input) = event.target().and_then(|t| t.dyn_into::<HtmlInputElement>().ok()) else { return };
        let Some(file) = input.files().and_then(|files| files.get(0)) else { return };
        spawn_local(async move {
            let text = JsFuture::from(file.text()).await.ok().and_then(|text| text.as_string());
            // The same file can be chosen again.
            input.set_value("");
            let Some(text) = text else { return failed(t("The file cannot be read.").into()) };
            let read = match (text.trim_start().starts_with('{'), is_tab()) {
                (true, _) => read(&text).map_err(|e| words::said("This is no configuration: {0}", &[&e.to_string()])),
                (false, true) => Err(t("A tab reads configurations as JSON.").to_string()),
                (false, false) => match api::of_toml(&text).await {
                    Ok(value) => RunConfig::deserialize(&value).map_err(|e| e.to_string()),
                    Err(failure) => Err(failure.message),
                },
            };
            match read {
                Ok(config) => {
                    form.take(config);
                    failed(String::new());
                }
                Err(message) => failed(message),
            }
        });
    };
    // What was copied last.
    let copied = RwSignal::new(String::new());
    let copy_it = move |_| {
        let text = command(form);
        spawn_local(async move {
            if copy(&text).await.is_some() {
                let _ = copied.try_set(text);
            }
        });
    };
    view! {
        <div class="card" id="files">
            <h2>{t("As a file")}</h2>
            <p class="actions">
                <button id="save-config" class="button small" type="button" on:click=save>{t("Save")}</button>
                <label class="button small" for="open-config">{t("Open")}</label>
                <input id="open-config" class="visually-hidden" type="file" accept=".toml,.json" on:change=chosen/>
            </p>
            <p class="problem" role="alert">{move || said.get()}</p>
            <p class="hint">{t("The same on the command line:")}</p>
            <p class="actions">
                <code id="command" class="pre" tabindex="0">{move || command(form)}</code>
                <button id="copy-command" class="button small" type="button" on:click=copy_it>
                    {move || if copied.get() == command(form) { t("Copied") } else { t("Copy") }}
                </button>
            </p>
        </div>
    }
    .into_any()
}
