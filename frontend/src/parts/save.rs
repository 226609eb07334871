//! Files that a person saves.

use js_sys::{Array, Uint8Array};
use leptos::prelude::document;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Blob, HtmlAnchorElement, Url};

/// Gives the person a file.
///
/// # Errors
/// When the browser saves none.
pub fn save(name: &str, bytes: &Uint8Array) -> Result<(), JsValue> {
    let url = Url::create_object_url_with_blob(&Blob::new_with_u8_array_sequence(&Array::of1(bytes))?)?;
    let link: HtmlAnchorElement = document().create_element("a")?.unchecked_into();
    link.set_href(&url);
    link.set_download(name);
    link.click();
    Url::revoke_object_url(&url)
}

/// [`save`] of a text.
///
/// # Errors
/// As [`save`].
pub fn save_text(name: &str, text: &str) -> Result<(), JsValue> {
    save(name, &Uint8Array::from(text.as_bytes()))
}
