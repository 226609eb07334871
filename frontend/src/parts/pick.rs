//! A choice among a few.

use leptos::prelude::*;

/// A labelled list to choose from.
#[component]
pub fn Pick(
    #[prop(into)] id: String,
    label: &'static str,
    /// Value and text of each.
    options: Vec<(String, String)>,
    /// The value that is shown.
    #[prop(into)]
    chosen: Signal<String>,
    /// Is told of another.
    #[prop(into)]
    choose: Callback<String>,
) -> impl IntoView {
    let options = options
        .into_iter()
        .map(|(value, text)| {
            let own = value.clone();
            view! { <option value=value prop:selected=move || chosen.with(|c| *c == own)>{text}</option> }
        })
        .collect_view();
    view! {
        <div class="field">
            <label for=id.clone()>{label}</label>
            <select id=id on:change=move |ev| choose.run(event_target_value(&ev))>
                {options}
            </select>
        </div>
    }
}
