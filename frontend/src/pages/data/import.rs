//! A file that becomes a task: chosen, looked at, mapped, tried on its first records, imported.

use super::classes::balance;
use super::rows::listed;
use crate::api::{self, Failure};
use crate::parts::format;
use crate::parts::table::Table;
use crate::words::{said, t};
use js_sys::Uint8Array;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_navigate;
use moslim_shared::bringing::{Preview, Upload};
use moslim_shared::ratings::Dropped;
use serde_json::json;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Event, HtmlInputElement};

/// Rows of a preview that are shown.
const SHOWN: usize = 10;

/// A task's name made of a file's.
pub fn task_name(file: &str) -> String {
    let stem = file.split('.').next().unwrap_or_default().to_lowercase();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches('-').to_string();
    if name.is_empty() { "ratings".into() } else { name }
}

/// The form.
#[component]
pub fn ImportForm() -> impl IntoView {
    let upload = RwSignal::new(None::<Upload>);
    let mapping = RwSignal::new(String::new());
    let name = RwSignal::new(String::new());
    let replace = RwSignal::new(false);
    let busy = RwSignal::new("");
    let refused = RwSignal::new(None::<Failure>);
    let preview = RwSignal::new(None::<Preview>);
    let chosen = move |event: Event| {
        let Some(input) = event.target().and_then(|t| t.dyn_into::<HtmlInputElement>().ok()) else { return };
        let Some(file) = input.files().and_then(|files| files.get(0)) else { return };
        let called = file.name();
        busy.set(t("Sending the file…"));
        refused.set(None);
        preview.set(None);
        upload.set(None);
        spawn_local(async move {
            let read = JsFuture::from(file.array_buffer()).await;
            // The same file can be chosen again.
            input.set_value("");
            let answer = match read {
                Ok(buffer) => api::upload(&called, Uint8Array::new(&buffer)).await,
                Err(_) => Err(Failure::new(t("The file cannot be read."))),
            };
            let _ = busy.try_set("");
            match answer {
                Ok(seen) => {
                    let _ = mapping.try_set(seen.mapping.clone());
                    let _ = name.try_set(task_name(&seen.name));
                    let _ = upload.try_set(Some(seen));
                }
                Err(failure) => drop(refused.try_set(Some(failure))),
            }
        });
    };
    let request = move || {
        json!({
            "upload": upload.with_untracked(|u| u.as_ref().map(|u| u.id.clone())),
            "name": name.get_untracked(),
            "mapping": mapping.get_untracked(),
            "replace": replace.get_untracked(),
        })
    };
    let try_it = move |_| {
        busy.set(t("Reading the first records…"));
        refused.set(None);
        spawn_local(async move {
            let answer = api::preview(&request()).await;
            let _ = busy.try_set("");
            match answer {
                Ok(seen) => drop(preview.try_set(Some(seen))),
                Err(failure) => {
                    let _ = preview.try_set(None);
                    let _ = refused.try_set(Some(failure));
                }
            }
        });
    };
    let navigate = use_navigate();
    let make = move |_| {
        busy.set(t("Importing…"));
        refused.set(None);
        let navigate = navigate.clone();
        spawn_local(async move {
            let answer = api::import(&request()).await;
            let _ = busy.try_set("");
            match answer {
                Ok(task) => navigate(&format!("/data/{}", task.name), Default::default()),
                Err(failure) => drop(refused.try_set(Some(failure))),
            }
        });
    };
    view! {
        <section id="import" class="section" aria-labelledby="import-title">
            <h2 id="import-title">{t("Bring your own ratings")}</h2>
            <p class="muted">
                {t("One row, or one record, for each rated answer: JSON Lines, JSON, CSV, TSV or Parquet, plain or compressed (gzip, zstd), up to 256 MiB. The file goes to this lab and nowhere else.")}
            </p>
            <p class="actions">
                <label class="button primary" for="ratings-file">{t("Choose a file")}</label>
                <input
                    id="ratings-file"
                    class="visually-hidden"
                    type="file"
                    accept=".jsonl,.json,.csv,.tsv,.parquet,.gz,.zst"
                    on:change=chosen
                />
                <span class="note" role="status">{move || busy.get()}</span>
            </p>
            {move || refused.with(|f| f.as_ref().map(|f| view! { <div id="import-refused" class="card banner error" role="alert"><p class="pre">{f.message.clone()}</p></div> }))}
            {move || {
                let make = make.clone();
                upload.with(|u| u.as_ref().map(|u| view! {
                    <div class="card form-section">
                        <h3>{said("What is in {0}", &[&u.name])}</h3>
                        {columns(u)}
                        <div class="fields">
                            <div class="field">
                                <label for="task-name">{t("Name of the task")}</label>
                                <input
                                    id="task-name"
                                    type="text"
                                    autocomplete="off"
                                    spellcheck="false"
                                    prop:value=move || name.get()
                                    on:input=move |ev| name.set(event_target_value(&ev))
                                />
                            </div>
                            <div class="field">
                                <label for="known-mapping">{t("Begin with the mapping of")}</label>
                                {known(u, mapping)}
                            </div>
                        </div>
                        <div class="field wide">
                            <label for="mapping">{t("Mapping: which column is what")}</label>
                            <textarea
                                id="mapping"
                                class="code"
                                rows="18"
                                spellcheck="false"
                                prop:value=move || mapping.get()
                                on:input=move |ev| mapping.set(event_target_value(&ev))
                            ></textarea>
                            <p class="hint">{t("Lines that begin with # are not read. Paths lead into records: scores.helpful, choices[0].text, raters.*.score.")}</p>
                        </div>
                        <p class="actions">
                            <button id="try-import" class="button" type="button" disabled=move || !busy.with(|b| b.is_empty()) on:click=try_it>
                                {t("Try it on the first hundred records")}
                            </button>
                            <button id="do-import" class="button primary" type="button" disabled=move || !busy.with(|b| b.is_empty()) on:click=make>
                                {t("Import the file")}
                            </button>
                            <label class="check">
                                <input type="checkbox" id="replace-task" on:change=move |ev| replace.set(event_target_checked(&ev))/>
                                {t("Replace a task of this name")}
                            </label>
                        </p>
                    </div>
                }))
            }}
            {move || preview.with(|p| p.as_ref().map(previewed))}
        </section>
    }
}

fn columns(upload: &Upload) -> AnyView {
    let rows = upload.columns.iter().map(|c| {
        let values = c.values.as_ref().map(|v| v.join(", ")).unwrap_or_default();
        vec![c.path.clone(), c.kind.clone(), c.example.clone(), values]
    });
    let heads = [t("column"), t("kind"), t("for example"), t("values")].map(String::from).to_vec();
    view! { <Table class="values wide columns-seen" caption=t("Columns, or paths into the records") heads=heads rows=rows.collect()/> }
    .into_any()
}

/// The mappings that can be begun with.
fn known(upload: &Upload, mapping: RwSignal<String>) -> AnyView {
    let (own, all) = (upload.mapping.clone(), upload.known.clone());
    let options = all.iter().map(|k| view! { <option value=k.name.clone()>{k.name.clone()}</option> }).collect_view();
    let choose = move |ev: Event| {
        let wanted = event_target_value(&ev);
        let text = all.iter().find(|k| k.name == wanted).map_or_else(|| own.clone(), |k| k.text.clone());
        mapping.set(text);
    };
    view! {
        <select id="known-mapping" on:change=choose>
            <option value="">{t("this file, guessed from its columns")}</option>
            {options}
        </select>
    }
    .into_any()
}

/// What the first records would be.
fn previewed(seen: &Preview) -> AnyView {
    let report = &seen.task.report;
    let objectives: Vec<_> = seen.task.shaped().unwrap_or_default().into_iter().map(|s| s.objective).collect();
    let duplicates = match report.duplicates {
        0 => String::new(),
        n => said(", {0} duplicates left out", &[&format::count(n)]),
    };
    let read = said(
        "{0} records read, {1} answers to {2} questions{3}",
        &[&report.records.to_string(), &report.rows.to_string(), &report.prompts.to_string(), &duplicates],
    );
    view! {
        <section id="preview" class="section" aria-labelledby="preview-title">
            <h3 id="preview-title">{t("The first records, as they would be")}</h3>
            <p>{read}</p>
            {dropped(&report.dropped)}
            {balance(&objectives, &report.labels)}
            {listed(&seen.rows[..seen.rows.len().min(SHOWN)], &seen.task)}
        </section>
    }
    .into_any()
}

/// What was left out, with the reason and the first places.
pub fn dropped(all: &[Dropped]) -> impl IntoView + use<> {
    let rows = all.iter().map(|d| {
        view! {
            <li>
                <b>{said("{0} left out: {1}", &[&d.count.to_string(), &d.reason])}</b>
                <span class="hint">{d.examples.first().cloned().unwrap_or_default()}</span>
            </li>
        }
    });
    (!all.is_empty()).then(|| view! { <ul class="left-out">{rows.collect_view()}</ul> })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_called_after_its_file() {
        assert_eq!(task_name("My Ratings (2).csv.gz"), "my-ratings--2");
        assert_eq!(task_name("é.csv"), "ratings");
    }
}
