//! The page's address, which follows what is chosen on it, so that it can be passed on.

use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use wasm_bindgen::JsValue;

/// Shows another address of the same page; nobody goes anywhere, and nothing is added to the history.
pub fn replace(address: &str) {
    if let Ok(history) = window().history() {
        let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(address));
    }
}

/// Says in the address what is chosen under a name, and leaves the rest as it is; nothing is said of what is empty.
pub fn set(name: &str, value: &str) {
    let location = window().location();
    let [path, search, hash] = [location.pathname(), location.search(), location.hash()].map(Result::unwrap_or_default);
    let encoded = String::from(js_sys::encode_uri_component(value));
    replace(&(path + &with(&search, name, &encoded) + &hash));
}

/// Says in the address which of some options is chosen; nothing where it is the first, as usual.
pub fn choose(name: &str, options: &[(&str, &str)], value: &str) {
    set(name, if value == options[0].0 { "" } else { value });
}

/// The option that the address had under a name when the page was opened; the first where it names none. Belongs into a component.
pub fn chosen(name: &str, options: &[(&str, &str)]) -> String {
    let asked = use_query_map().with_untracked(|q| q.get(name)).unwrap_or_default();
    if options.iter().any(|(value, _)| *value == asked) { asked } else { options[0].0.to_string() }
}

/// The query of an address with another value under a name.
fn with(search: &str, name: &str, value: &str) -> String {
    let own = format!("{name}=");
    let others = search.trim_start_matches('?').split('&').filter(|part| !part.is_empty() && !part.starts_with(&own));
    let mut parts: Vec<String> = others.map(String::from).collect();
    if !value.is_empty() {
        parts.push(own + value);
    }
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::with;

    #[test]
    fn what_else_the_address_says_stays() {
        assert_eq!(with("", "sort", "name"), "?sort=name");
        assert_eq!(with("?preset=quick&sort=name&lang=zh", "sort", "hit"), "?preset=quick&lang=zh&sort=hit");
        assert_eq!(with("?sorted=1&sort=name", "sort", ""), "?sorted=1");
        assert_eq!(with("?sort=name", "sort", ""), "");
    }
}
