//! The lab in a browser tab. This module is started up to three times, each time as a Web Worker: as the *desk*, which keeps the files
//! and answers what the page asks, as the server does elsewhere; and, by the desk, as the *trainer*, which computes a run and says what is
//! to be kept, and as the *assistant*, which asks finished runs. The desk answers while the others compute; a run is stopped by ending
//! the trainer, an answer by ending the assistant.

mod asking;
mod assistant;
mod desk;
mod keep;
mod known;
mod messages;
mod trainer;

use wasm_bindgen::JsCast;
use web_sys::DedicatedWorkerGlobalScope;

/// Names of the workers that the desk starts.
const TRAINER: &str = "trainer";
const ASSISTANT: &str = "assistant";

/// The worker that this is.
fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}

fn main() {
    console_error_panic_hook::set_once();
    match scope().name().as_str() {
        TRAINER => trainer::listen(),
        ASSISTANT => assistant::listen(),
        _ => wasm_bindgen_futures::spawn_local(desk::open()),
    }
}
