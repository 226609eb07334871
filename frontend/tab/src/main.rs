//! The lab in a browser tab. This module is started twice, each time as a Web Worker: as the *desk*, which keeps the files and answers
//! what the page asks, as the server does elsewhere; and, by the desk, as the *trainer*, which computes a run and says what is to be
//! kept. The desk answers while the trainer computes; a run is stopped by ending the trainer.

mod desk;
mod keep;
mod messages;
mod trainer;

use wasm_bindgen::JsCast;
use web_sys::DedicatedWorkerGlobalScope;

/// Name of the worker that trains.
const TRAINER: &str = "trainer";

/// The worker that this is.
fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}

fn main() {
    console_error_panic_hook::set_once();
    if scope().name() == TRAINER {
        trainer::listen();
    } else {
        wasm_bindgen_futures::spawn_local(desk::open());
    }
}
