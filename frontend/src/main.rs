//! The lab's page: a client-side rendered Leptos application, in one module.
//!
//! Arrows: `app` knows the pages, a page knows the parts, the parts know neither; `stream` and `api` talk to the server,
//! `state` is what the page makes of what it hears, `words` says it in the reader's language.

mod api;
mod app;
mod json;
mod pages;
mod parts;
mod source;
mod state;
mod stream;
mod words;

use leptos::prelude::{document, window};

fn main() {
    console_error_panic_hook::set_once();
    // What stood there while this module was loading.
    if let Some(boot) = document().get_element_by_id("boot") {
        boot.remove();
    }
    if words::wanted() {
        wasm_bindgen_futures::spawn_local(async {
            words::load(&source::at("/zh.json")).await;
            mount();
        });
    } else {
        mount();
    }
}

fn mount() {
    leptos::mount::mount_to_body(app::App);
    // For the browser's tools, and for the test that says how long this may take.
    if let Some(performance) = window().performance() {
        let _ = performance.mark("interactive");
    }
}
