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

/// What a worker's end means whose last word is JavaScript's. A panic says what it is before it ends the worker; what ends it without
/// is an allocation that the browser has refused.
fn why_broken(message: &str) -> String {
    let refused = ["unreachable", "out of memory", "Out of memory"].iter().any(|word| message.contains(word));
    if refused { format!("the browser gives this tab no more memory ({message})") } else { message.into() }
}

/// Says what a panic is to whoever started this worker; each of the three has one message for that, of the same shape.
fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        console_error_panic_hook::hook(panic);
        let failed = serde_json::json!({ "failed": { "message": format!("internal error: {panic}") } });
        let _ = scope().post_message(&failed.to_string().into());
    }));
}

fn main() {
    tell_panics();
    match scope().name().as_str() {
        TRAINER => trainer::listen(),
        ASSISTANT => assistant::listen(),
        _ => wasm_bindgen_futures::spawn_local(desk::open()),
    }
}
