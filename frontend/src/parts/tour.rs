//! A guided tour of a page: a few places in turn, each with a sentence or two.

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
pub fn Tour(stops: &'static [Stop]) -> impl IntoView {
    let at = RwSignal::new(None::<usize>);
    let next = NodeRef::<html::Button>::new();
    Effect::new(move |_| {
        leave();
        let Some((place, _)) = at.get().and_then(|n| stops.get(n)) else { return };
        if let Ok(Some(element)) = document().query_selector(place) {
            let _ = element.class_list().add_1(MARK);
            element.scroll_into_view();
        }
        if let Some(button) = next.get() {
            let _ = button.focus();
        }
    });
    on_cleanup(leave);
    let last = stops.len() - 1;
    let go = move |by: isize| at.update(|n| *n = n.and_then(|n| n.checked_add_signed(by)).filter(|n| *n <= last));
    view! {
        <button id="tour" type="button" class="button quiet small" on:click=move |_| at.set(Some(0))>"Show me around"</button>
        <Show when=move || at.get().is_some()>
            <div
                class="tour card"
                role="dialog"
                aria-label="Guided tour"
                on:keydown=move |ev| {
                    if ev.key() == "Escape" {
                        at.set(None);
                    }
                }
            >
                <p aria-live="polite">{move || at.get().and_then(|n| stops.get(n)).map(|(_, text)| *text)}</p>
                <p class="actions">
                    <span class="hint num">{move || format!("{} of {}", at.get().unwrap_or_default() + 1, stops.len())}</span>
                    <button type="button" class="button quiet small" on:click=move |_| at.set(None)>"Leave"</button>
                    <button
                        type="button"
                        class="button small"
                        class:gone=move || at.get() == Some(0)
                        on:click=move |_| go(-1)
                    >
                        "Back"
                    </button>
                    <button type="button" class="button primary small" node_ref=next on:click=move |_| go(1)>
                        {move || if at.get() == Some(last) { "Done" } else { "Next" }}
                    </button>
                </p>
            </div>
        </Show>
    }
}
