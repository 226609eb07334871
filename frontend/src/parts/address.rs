//! The page's address, which follows what is chosen on it, so that it can be passed on.

use leptos::prelude::window;
use wasm_bindgen::JsValue;

/// Shows another address of the same page; nobody goes anywhere, and nothing is added to the history.
pub fn replace(address: &str) {
    if let Ok(history) = window().history() {
        let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(address));
    }
}
