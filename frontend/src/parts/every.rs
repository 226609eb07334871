//! What is done again and again while a page is shown.

use crate::source::Failure;
use leptos::prelude::*;
use leptos::task::spawn_local;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// Calls `f` whenever `pause` has passed, until the page that asked for it is left.
pub fn every(pause: Duration, f: impl Fn() + 'static) {
    if let Ok(handle) = set_interval_with_handle(f, pause) {
        on_cleanup(move || handle.clear());
    }
}

/// Time between two questions to a server that does not answer.
const AGAIN: Duration = Duration::from_secs(3);

/// What is asked, and will be answered.
pub type Asked<T> = Pin<Box<dyn Future<Output = Result<T, Failure>>>>;

/// Asks until it is answered, for pages that cannot do without it: at once, and again every few seconds.
pub fn until_answered<T: 'static>(ask: impl Fn() -> Asked<T> + 'static, take: impl Fn(T) + 'static) {
    // Nothing is asked any more while an answer is on its way, nor when one has come.
    let (waits, take) = (Rc::new(Cell::new(false)), Rc::new(take));
    let once = move || {
        if waits.replace(true) {
            return;
        }
        let (waits, take, answer) = (waits.clone(), take.clone(), ask());
        spawn_local(async move {
            match answer.await {
                Ok(answer) => take(answer),
                Err(_) => waits.set(false),
            }
        });
    };
    once();
    every(AGAIN, once);
}
