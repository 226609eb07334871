//! Addresses of pages, and links that change the address without loading the page anew.

use leptos::prelude::*;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Element, MouseEvent, UrlSearchParams};

/// What an address leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    Home,
    Configure,
    /// The run of this id.
    Run(String),
    Studies,
    /// The study of this id.
    Study(String),
    Missing,
}

impl Page {
    /// The page at a path.
    pub fn at(path: &str) -> Self {
        match path.trim_matches('/') {
            "" => Self::Home,
            "configure" => Self::Configure,
            "studies" => Self::Studies,
            path => match path.split_once('/') {
                Some((_, id)) if id.is_empty() || id.contains('/') => Self::Missing,
                Some(("runs", id)) => Self::Run(id.to_string()),
                Some(("studies", id)) => Self::Study(id.to_string()),
                _ => Self::Missing,
            },
        }
    }
}

/// The module that a page is in; see the crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Module {
    Lab,
    Workbench,
}

impl Page {
    /// Also known to `boot.js`, which loads the module.
    fn module(&self) -> Module {
        match self {
            Self::Configure | Self::Studies | Self::Study(_) => Module::Workbench,
            Self::Home | Self::Run(_) | Self::Missing => Module::Lab,
        }
    }
}

/// The address that the browser shows.
#[derive(Clone, Copy)]
pub struct Address {
    /// For example `/configure`.
    pub path: RwSignal<String>,
    /// For example `?preset=smoke`; empty when there is none.
    query: RwSignal<String>,
}

impl Address {
    /// The present address. It follows the browser's buttons, and clicks on links that lead to another page.
    pub fn follow() -> Self {
        let (path, query) = here();
        let address = Self { path: RwSignal::new(path), query: RwSignal::new(query) };
        let moved = Closure::<dyn FnMut()>::new(move || address.look());
        let clicked = Closure::<dyn FnMut(MouseEvent)>::new(move |event: MouseEvent| {
            if let Some(href) = destination(&event) {
                event.prevent_default();
                address.go(&href);
            }
        });
        let _ = window().add_event_listener_with_callback("popstate", moved.as_ref().unchecked_ref());
        let _ = window().add_event_listener_with_callback("click", clicked.as_ref().unchecked_ref());
        // The shell lives as long as the page does.
        moved.forget();
        clicked.forget();
        address
    }

    /// Leads to another page, at its top.
    pub fn go(self, href: &str) {
        let (path, query) = here();
        let to = href.split(['?', '#']).next().unwrap_or_default();
        if Page::at(to).module() != Page::at(&path).module() {
            // Its pages are not here.
            let _ = window().location().assign(href);
            return;
        }
        if path + &query != href
            && let Ok(history) = window().history()
        {
            let _ = history.push_state_with_url(&JsValue::NULL, "", Some(href));
        }
        self.look();
        window().scroll_to_with_x_and_y(0.0, 0.0);
    }

    /// What the query says about `name`.
    pub fn asked(self, name: &str) -> Option<String> {
        self.query.with(|query| UrlSearchParams::new_with_str(query).ok()?.get(name))
    }

    /// Says in the query what the page shows, as names and values. It takes the place of the old query, so that the browser's
    /// button leads to the page before, and not through every choice that was made on this one.
    pub fn note(self, values: &[(&str, &str)]) {
        let (path, _) = here();
        let parts: Vec<String> =
            values.iter().map(|(name, value)| format!("{name}={}", String::from(js_sys::encode_uri_component(value)))).collect();
        if let Ok(history) = window().history() {
            let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(&format!("{path}?{}", parts.join("&"))));
        }
        self.look();
    }

    fn look(self) {
        let (path, query) = here();
        if self.query.with_untracked(|old| *old != query) {
            self.query.set(query);
        }
        if self.path.with_untracked(|old| *old != path) {
            self.path.set(path);
        }
    }
}

fn here() -> (String, String) {
    let location = window().location();
    (location.pathname().unwrap_or_default(), location.search().unwrap_or_default())
}

/// Where a click leads, when it is a plain click on a link to a page of this application.
fn destination(event: &MouseEvent) -> Option<String> {
    let modified = event.meta_key() || event.alt_key() || event.ctrl_key() || event.shift_key();
    if event.default_prevented() || event.button() != 0 || modified {
        return None;
    }
    let link = event.target()?.dyn_into::<Element>().ok()?.closest("a[href]").ok()??;
    if link.has_attribute("target") || link.has_attribute("download") || link.has_attribute("rel") {
        return None;
    }
    link.get_attribute("href").filter(|href| href.starts_with('/'))
}

/// A link of the navigation, which is marked while its page is shown.
pub fn link(address: Address, href: &'static str, text: &'static str) -> AnyView {
    view! {
        <a href=href aria-current=move || (Page::at(&address.path.get()) == Page::at(href)).then_some("page")>{text}</a>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_knows_which_module_a_page_is_in() {
        let loader = include_str!("../../static/boot.js");
        assert!(loader.contains("/^\\/(configure|studies)(\\/|$)/"), "boot.js chooses by another rule");
        for (path, module) in [("/configure", Module::Workbench), ("/studies/a", Module::Workbench), ("/runs/a", Module::Lab)] {
            assert_eq!(Page::at(path).module(), module);
        }
    }

    #[test]
    fn paths_lead_to_pages() {
        assert_eq!(Page::at("/"), Page::Home);
        assert_eq!(Page::at("/configure"), Page::Configure);
        assert_eq!(Page::at("/configure/"), Page::Configure);
        assert_eq!(Page::at("/runs/a-1"), Page::Run("a-1".into()));
        assert_eq!(Page::at("/runs/"), Page::Missing);
        assert_eq!(Page::at("/runs/a/b"), Page::Missing);
        assert_eq!(Page::at("/studies"), Page::Studies);
        assert_eq!(Page::at("/studies/"), Page::Studies);
        assert_eq!(Page::at("/studies/a-1"), Page::Study("a-1".into()));
        assert_eq!(Page::at("/studies/a/b"), Page::Missing);
        assert_eq!(Page::at("/nothing"), Page::Missing);
    }
}
