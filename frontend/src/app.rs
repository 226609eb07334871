//! The shell: top bar, theme, routes.

use crate::pages::configure::Configure;
use crate::pages::home::Home;
use crate::pages::live::Live;
use crate::pages::not_found::NotFound;
use leptos::prelude::*;
use leptos_router::components::{A, FlatRoutes, Route, Router};
use leptos_router::path;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;

const STORAGE_KEY: &str = "moslim-theme";

/// What the reader chose for the colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThemeChoice {
    /// As the system says.
    Auto,
    Light,
    Dark,
}

impl ThemeChoice {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Auto => Self::Light,
            Self::Light => Self::Dark,
            Self::Dark => Self::Auto,
        }
    }
}

/// The theme; charts track `revision`, because a canvas does not follow style sheets by itself.
#[derive(Clone, Copy)]
pub struct Theme {
    choice: RwSignal<ThemeChoice>,
    /// Grows whenever colours may have changed.
    pub revision: RwSignal<u64>,
}

impl Theme {
    fn new() -> Self {
        let choice = match stored().as_deref() {
            Some("light") => ThemeChoice::Light,
            Some("dark") => ThemeChoice::Dark,
            _ => ThemeChoice::Auto,
        };
        let theme = Self { choice: RwSignal::new(choice), revision: RwSignal::new(0) };
        theme.follow_system();
        theme
    }

    fn follow_system(self) {
        let Ok(Some(query)) = window().match_media("(prefers-color-scheme: dark)") else { return };
        let changed = Closure::<dyn FnMut()>::new(move || {
            self.revision.try_update(|r| *r += 1);
        });
        let _ = query.add_event_listener_with_callback("change", changed.as_ref().unchecked_ref());
        // The shell lives as long as the page does.
        changed.forget();
    }

    fn turn(self) {
        let choice = self.choice.get_untracked().next();
        if let Some(root) = document().document_element() {
            let _ = match choice {
                ThemeChoice::Auto => root.remove_attribute("data-theme"),
                other => root.set_attribute("data-theme", other.name()),
            };
        }
        if let Ok(Some(storage)) = window().local_storage() {
            let _ = storage.set_item(STORAGE_KEY, choice.name());
        }
        self.choice.set(choice);
        self.revision.update(|r| *r += 1);
    }
}

fn stored() -> Option<String> {
    window().local_storage().ok().flatten()?.get_item(STORAGE_KEY).ok().flatten()
}

/// The application.
#[component]
pub fn App() -> impl IntoView {
    if let Some(boot) = document().get_element_by_id("boot") {
        boot.remove();
    }
    let theme = Theme::new();
    provide_context(theme);
    view! {
        <Router>
            <a class="skip" href="#main">"Skip to the content"</a>
            <header class="bar">
                <div class="bar-inner">
                    <a class="brand" href="/">
                        <img src="/icon.svg" alt="" width="28" height="28"/>
                        <span>"MOSLIM Lab"</span>
                    </a>
                    <nav class="nav" aria-label="Pages">
                        <A href="/" exact=true>"Home"</A>
                        <A href="/configure">"Configure"</A>
                    </nav>
                    <button
                        id="theme"
                        class="button quiet small"
                        type="button"
                        title="Change the theme: auto, light, dark"
                        on:click=move |_| theme.turn()
                    >
                        {move || format!("Theme: {}", theme.choice.get().name())}
                    </button>
                </div>
            </header>
            <main id="main" class="page" tabindex="-1">
                <FlatRoutes fallback=NotFound>
                    <Route path=path!("/") view=Home/>
                    <Route path=path!("/configure") view=Configure/>
                    <Route path=path!("/runs/:id") view=Live/>
                </FlatRoutes>
            </main>
            <footer class="foot">
                <p>
                    "One reward model, graded classes, preferences in the prompt: MOSLIM, arXiv 2505.20336. "
                    "Everything here is computed on this machine; nothing is fetched from elsewhere."
                </p>
            </footer>
        </Router>
    }
}
