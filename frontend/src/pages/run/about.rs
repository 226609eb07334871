//! What a person says of a run: its name, tags and a note.

use crate::api;
use crate::parts::memo::effect;
use crate::stream::Run;
use crate::words::t;
use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::event::About;

/// A form for what a person says of the run; nothing before the run is known. `kept`: what happens when it was kept.
#[component]
pub fn Said(run: Run, id: String, kept: impl Fn() + Copy + 'static) -> impl IntoView {
    let known = run.memo(|s| s.info().map(|i| i.about.clone()));
    let (name, tags, note) = (RwSignal::new(String::new()), RwSignal::new(String::new()), RwSignal::new(String::new()));
    let answer = RwSignal::new(String::new());
    // What others say of it meanwhile shows too, until somebody writes here.
    let written = RwSignal::new([false; 3]);
    effect(move || {
        let Some(about) = known.get() else { return };
        let all = [(name, about.name), (tags, about.tags.join(", ")), (note, about.note)];
        for ((field, text), _) in all.into_iter().zip(written.get_untracked()).filter(|(_, written)| !written) {
            field.set(text);
        }
    });
    let keep = move |event: SubmitEvent| {
        event.prevent_default();
        let Some(before) = known.get_untracked() else { return };
        let tags = tags.get_untracked().split(',').map(str::trim).filter(|t| !t.is_empty()).map(String::from).collect();
        let (name, note) = (name.get_untracked().trim().to_string(), note.get_untracked().trim().to_string());
        let (about, id) = (About { name, note, tags, ..before }, id.clone());
        let wrong: Vec<String> = about.problems().iter().map(|p| format!("{}: {}.", p.field, p.message)).collect();
        if !wrong.is_empty() {
            return answer.set(wrong.join(" "));
        }
        answer.set(t("Keeping it…").into());
        spawn_local(async move {
            let said = match api::describe(&id, &about).await {
                Ok(()) => {
                    let _ = written.try_set([false; 3]);
                    kept();
                    t("Kept.").to_string()
                }
                Err(failure) => failure.message,
            };
            let _ = answer.try_set(said);
        });
    };
    let change = move |n: usize, signal: RwSignal<String>| {
        move |event| {
            written.update(|written| written[n] = true);
            signal.set(event_target_value(&event));
        }
    };
    view! {
        <form class="card form" id="about" on:submit=keep class:gone=move || known.with(Option::is_none)>
            <div class="field wide">
                <label for="about-name">{t("Name")}</label>
                <input id="about-name" type="text" autocomplete="off" prop:value=move || name.get() on:input=change(0, name)/>
            </div>
            <div class="field wide">
                <label for="about-tags">{t("Tags, with commas between")}</label>
                <input id="about-tags" type="text" autocomplete="off" prop:value=move || tags.get() on:input=change(1, tags)/>
            </div>
            <div class="field wide">
                <label for="about-note">{t("Note")}</label>
                <textarea id="about-note" rows="3" prop:value=move || note.get() on:input=change(2, note)></textarea>
            </div>
            <p class="actions">
                <button class="button" type="submit">{t("Keep")}</button>
                <span class="note" role="status">{move || answer.get()}</span>
            </p>
        </form>
    }
}
