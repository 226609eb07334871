//! A choice among a few.

use leptos::prelude::*;

/// A labelled list to choose from. `options`: value and text; `chosen` says which one is shown, and `choose` is told of another.
pub fn pick(
    id: &'static str,
    label: &'static str,
    options: Vec<(String, String)>,
    chosen: Memo<String>,
    choose: Box<dyn Fn(String) + Send + Sync>,
) -> AnyView {
    let options: Vec<AnyView> = options
        .into_iter()
        .map(|(value, text)| {
            let own = value.clone();
            view! { <option value=value prop:selected=move || chosen.with(|c| *c == own)>{text}</option> }.into_any()
        })
        .collect();
    view! {
        <div class="field">
            <label for=id>{label}</label>
            <select id=id on:change=move |ev| choose(event_target_value(&ev))>
                {options}
            </select>
        </div>
    }
    .into_any()
}
