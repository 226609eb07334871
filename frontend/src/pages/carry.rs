//! Runs as files: one that is saved, and one that is opened.

use crate::api;
use crate::parts::save::save;
use crate::source::{example, has_example};
use crate::words::t;
use js_sys::Uint8Array;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_navigate;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Event, HtmlInputElement};

/// A button that saves a run as a file.
#[component]
pub fn SaveRun(id: String) -> impl IntoView {
    let said = RwSignal::new(String::new());
    let save = move |_| {
        let id = id.clone();
        spawn_local(async move {
            let saved = match api::run_file(&id).await {
                Ok(bytes) => save(&format!("{id}.moslim-run"), &bytes).map_err(|_| t("This browser saves no files.").to_string()),
                Err(failure) => Err(failure.message),
            };
            let _ = said.try_set(saved.err().unwrap_or_default());
        });
    };
    view! {
        <button id="save-run" class="button" type="button" on:click=save>{t("Save the run as a file")}</button>
        <span class="note" role="alert" class:gone=move || said.with(String::is_empty)>{move || said.get()}</span>
    }
}

/// A button that takes in the trained run that lies beside the page, and leads to what can be done with it; nothing where there is none.
#[component]
pub fn Example(
    label: &'static str,
    /// Where it leads: the playground, or, where it is empty, the run's own page.
    #[prop(optional)]
    to: &'static str,
) -> impl IntoView {
    let said = RwSignal::new("".to_string());
    let navigate = use_navigate();
    let open = move |_| {
        said.set(t("Fetching the run…").into());
        let navigate = navigate.clone();
        spawn_local(async move {
            let opened = match example().await {
                Ok(bytes) => api::open_run_file(bytes).await,
                Err(failure) => Err(failure),
            };
            match opened {
                Ok(id) => navigate(&if to.is_empty() { format!("/runs/{id}") } else { to.to_string() }, Default::default()),
                Err(failure) => drop(said.try_set(failure.message)),
            }
        });
    };
    has_example().then(|| {
        view! {
            <button class="button example" type="button" on:click=open>{label}</button>
            <span class="note" role="status" class:gone=move || said.with(String::is_empty)>{move || said.get()}</span>
        }
    })
}

/// A button that opens a run that was saved, here or by another lab.
#[component]
pub fn OpenRun() -> impl IntoView {
    let said = RwSignal::new(String::new());
    let navigate = use_navigate();
    let chosen = move |event: Event| {
        let Some(input) = event.target().and_then(|t| t.dyn_into::<HtmlInputElement>().ok()) else { return };
        let Some(file) = input.files().and_then(|files| files.get(0)) else { return };
        let navigate = navigate.clone();
        spawn_local(async move {
            let read = JsFuture::from(file.array_buffer()).await;
            // The same file can be chosen again.
            input.set_value("");
            let opened = match read {
                Ok(buffer) => api::open_run_file(Uint8Array::new(&buffer)).await.map_err(|failure| failure.message),
                Err(_) => Err(t("The file cannot be read.").to_string()),
            };
            match opened {
                Ok(id) => navigate(&format!("/runs/{id}"), Default::default()),
                Err(message) => drop(said.try_set(message)),
            }
        });
    };
    view! {
        <p class="actions">
            <label class="button quiet small" for="open-run">{t("Open a run's file")}</label>
            <input id="open-run" class="visually-hidden" type="file" accept=".moslim-run" on:change=chosen/>
            <span class="note" role="alert" class:gone=move || said.with(String::is_empty)>{move || said.get()}</span>
        </p>
    }
}
