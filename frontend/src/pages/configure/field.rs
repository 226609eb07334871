//! One setting on the form: label, input, help, and what is wrong with it.

use crate::pages::configure::fields::{allowed, element_id, remark};
use crate::pages::configure::form::Form;
use crate::parts::memo::memo;
use crate::words::t;
use leptos::prelude::*;
use moslim_shared::config::settings::{Kind, Setting};

/// The row of a setting. One that the configuration has no use for is faded and says so: it keeps its value, and counts again
/// when another choice is made.
pub fn field(form: Form, field: &'static Setting) -> AnyView {
    let id = element_id(field.path);
    let shown = form.shows(field);
    let allowed = Some(allowed(field)).filter(|a| !a.is_empty()).map(|a| format!("({a})"));
    let note = format!("{id}-note");
    let message = form.message(field.path);
    let more = form.about(move |config| remark(field, config));
    let unused = form.about(move |config| field.unused_by(config).unwrap_or_default().to_string());
    let faded = memo(move || !unused.with(String::is_empty));
    let typed = matches!(field.kind, Kind::Integer { .. } | Kind::Number { .. } | Kind::Optional { .. });
    let mode = if typed { "decimal" } else { "text" };
    let options = field.options();
    let input = match field.kind {
        Kind::Toggle => view! {
            <input
                type="checkbox"
                id=id.clone()
                aria-describedby=note.clone()
                prop:checked=move || form.shown(field) == "true"
                on:change=move |ev| form.edit(field, if event_target_checked(&ev) { "true" } else { "false" })
            />
        }
        .into_any(),
        _ if options.is_empty() => view! {
            <input
                type="text"
                id=id.clone()
                class="num"
                autocomplete="off"
                spellcheck="false"
                inputmode=mode
                aria-describedby=note.clone()
                aria-invalid=move || (!message.with(String::is_empty)).to_string()
                prop:value=move || form.shown(field)
                on:input=move |ev| form.edit(field, &event_target_value(&ev))
            />
        }
        .into_any(),
        _ => {
            let options: Vec<AnyView> = options
                .into_iter()
                .map(|(value, label)| {
                    let own = value.clone();
                    view! { <option value=value prop:selected=move || form.shown(field) == own>{t(label)}</option> }.into_any()
                })
                .collect();
            view! {
                <select id=id.clone() aria-describedby=note.clone() on:change=move |ev| form.edit(field, &event_target_value(&ev))>
                    {options}
                </select>
            }
            .into_any()
        }
    };
    view! {
        <div class="field" class:invalid=move || !message.with(String::is_empty) class:unused=move || faded.get() class:gone=move || !shown.get()>
            <label for=id>{t(field.title)}</label>
            {input}
            <p class="hint" id=note>{t(field.help)}" "<span class="allowed">{allowed}</span>" "<b>{move || more.get()}</b></p>
            <p class="problem" role="status">{move || message.get()}</p>
        </div>
    }
    .into_any()
}
