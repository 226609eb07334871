//! What is done again and again while a page is shown.

use leptos::prelude::*;
use std::time::Duration;

/// Calls `f` whenever `pause` has passed, until the page that asked for it is left.
pub fn every(pause: Duration, f: impl Fn() + 'static) {
    if let Ok(handle) = set_interval_with_handle(f, pause) {
        on_cleanup(move || handle.clear());
    }
}
