//! The shell: top bar, theme, and which page is at which address.
//!
//! What is on every page belongs here, and nothing else.

use crate::pages::configure::Configure;
use crate::pages::home::Home;
use crate::pages::not_found::NotFound;
use crate::pages::run::RunPage;
use crate::pages::studies::Studies;
use crate::pages::study::StudyPage;
use crate::parts::theme::Theme;
use leptos::prelude::*;
use leptos_router::components::{A, Route, Router, Routes};
use leptos_router::path;

/// The application.
#[component]
pub fn App() -> impl IntoView {
    let theme = Theme::new();
    provide_context(theme);
    view! {
        <Router>
            <a class="skip" href="#main" rel="external">"Skip to the content"</a>
            <header class="bar">
                <div class="bar-inner">
                    <a class="brand" href="/">
                        <img src="/icon.svg" alt="" width="28" height="28"/>
                        <span>"MOSLIM Lab"</span>
                    </a>
                    <nav class="nav" aria-label="Pages">
                        <A href="/" exact=true>"Home"</A>
                        <A href="/configure" exact=true>"Configure"</A>
                        <A href="/studies" exact=true>"Studies"</A>
                    </nav>
                    <button
                        id="theme"
                        class="button quiet small"
                        type="button"
                        title="Change the theme: auto, light, dark"
                        on:click=move |_| theme.turn()
                    >
                        {move || format!("Theme: {}", theme.name())}
                    </button>
                </div>
            </header>
            <main id="main" class="page" tabindex="-1">
                <Routes fallback=NotFound>
                    <Route path=path!("/") view=Home/>
                    <Route path=path!("/configure") view=Configure/>
                    <Route path=path!("/runs/:id") view=RunPage/>
                    <Route path=path!("/studies") view=Studies/>
                    <Route path=path!("/studies/:id") view=StudyPage/>
                </Routes>
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
