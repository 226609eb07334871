//! A guided tour of a page: a few places in turn, each with a sentence or two.

use crate::parts::memo::effect;
use crate::words::{said, t};
use leptos::html;
use leptos::prelude::*;

/// Where something is, as a CSS selector, and what to know about it.
pub type Stop = (&'static str, &'static str);

/// Marks the place that the tour is at.
const MARK: &str = "toured";

fn leave() {
    if let Ok(Some(last)) = document().query_selector(&format!(".{MARK}")) {
        let _ = last.class_list().remove_1(MARK);
    }
}

/// The button that begins the tour, and what it says on the way. Escape ends it.
#[component]
pub fn Tour(#[prop(into)] stops: Vec<Stop>) -> impl IntoView {
    let count = stops.len();
    let stops = StoredValue::new(stops);
    let at = RwSignal::new(None::<usize>);
    let next = NodeRef::<html::Button>::new();
    let stop = move || at.get().and_then(|n| stops.with_value(|stops| stops.get(n).copied()));
    effect(move || {
        leave();
        let Some((place, _)) = stop() else { return };
        if let Ok(Some(element)) = document().query_selector(place) {
            let _ = element.class_list().add_1(MARK);
            element.scroll_into_view();
        }
        if let Some(button) = next.get() {
            let _ = button.focus();
        }
    });
    on_cleanup(leave);
    let last = count - 1;
    let go = move |by: isize| at.update(|n| *n = n.and_then(|n| n.checked_add_signed(by)).filter(|n| *n <= last));
    view! {
        <button id="tour" type="button" class="button quiet small" on:click=move |_| at.set(Some(0))>{t("Show me around")}</button>
        <Show when=move || at.get().is_some()>
            <div
                class="tour card"
                role="dialog"
                aria-label=t("Guided tour")
                on:keydown=move |ev| {
                    if ev.key() == "Escape" {
                        at.set(None);
                    }
                }
            >
                <p aria-live="polite">{move || stop().map(|(_, text)| text)}</p>
                <p class="actions">
                    <span class="hint num">{move || said("{0} of {1}", &[&(at.get().unwrap_or_default() + 1).to_string(), &count.to_string()])}</span>
                    <button type="button" class="button quiet small" on:click=move |_| at.set(None)>{t("Leave")}</button>
                    <button
                        type="button"
                        class="button small"
                        class:gone=move || at.get() == Some(0)
                        on:click=move |_| go(-1)
                    >
                        {t("Back")}
                    </button>
                    <button type="button" class="button primary small" node_ref=next on:click=move |_| go(1)>
                        {move || if at.get() == Some(last) { t("Done") } else { t("Next") }}
                    </button>
                </p>
            </div>
        </Show>
    }
}
