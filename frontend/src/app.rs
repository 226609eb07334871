//! The shell: top bar, theme, and which page is at which address.
//!
//! What is on every page belongs here, and nothing else.

use crate::pages::compare::Compare;
use crate::pages::configure::Configure;
use crate::pages::data::{Data, TaskPage};
use crate::pages::home::Home;
use crate::pages::learn::Learn;
use crate::pages::models::Models;
use crate::pages::not_found::NotFound;
use crate::pages::playground::Playground;
use crate::pages::run::RunPage;
use crate::pages::studies::Studies;
use crate::pages::study::StudyPage;
use crate::parts::theme::Theme;
use crate::source::{at, base, is_tab, notice};
use leptos::prelude::*;
use leptos_router::components::{A, Route, Router, Routes};
use leptos_router::path;

/// The application.
#[component]
pub fn App() -> impl IntoView {
    let theme = Theme::new();
    provide_context(theme);
    view! {
        <Router base=base()>
            <a class="skip" href="#main" rel="external">"Skip to the content"</a>
            <header class="bar">
                <div class="bar-inner">
                    <a class="brand" href=at("/")>
                        <img src=at("/icon.svg") alt="" width="28" height="28"/>
                        <span>"MOSLIM Lab"</span>
                    </a>
                    <nav class="nav" aria-label="Pages">
                        <A href=at("/") exact=true>"Home"</A>
                        <A href=at("/learn") exact=true>"Learn"</A>
                        <A href=at("/configure") exact=true>"Configure"</A>
                        <A href=at("/playground") exact=true>"Playground"</A>
                        <A href=at("/compare") exact=true>"Compare"</A>
                        {(!is_tab()).then(|| view! {
                            <A href=at("/studies") exact=true>"Studies"</A>
                            <A href=at("/data")>"Data"</A>
                            <A href=at("/models") exact=true>"Models"</A>
                        })}
                    </nav>
                    <button
                        id="theme"
                        class="button quiet small"
                        type="button"
                        title="Change the theme: auto, light, dark, high contrast"
                        on:click=move |_| theme.turn()
                    >
                        {move || format!("Theme: {}", theme.name())}
                    </button>
                </div>
            </header>
            <div role="status">
                {
                    let notice = notice();
                    move || Some(notice.get()).filter(|n| !n.is_empty()).map(|n| view! { <p id="notice" class="banner warning">{n}</p> })
                }
            </div>
            <main id="main" class="page" tabindex="-1">
                <Routes fallback=NotFound>
                    <Route path=path!("/") view=Home/>
                    <Route path=path!("/configure") view=Configure/>
                    <Route path=path!("/learn") view=Learn/>
                    <Route path=path!("/playground") view=Playground/>
                    <Route path=path!("/compare") view=Compare/>
                    <Route path=path!("/runs/:id") view=RunPage/>
                    <Route path=path!("/data") view=Data/>
                    <Route path=path!("/data/:name") view=TaskPage/>
                    <Route path=path!("/models") view=Models/>
                    <Route path=path!("/studies") view=Studies/>
                    <Route path=path!("/studies/:id") view=StudyPage/>
                </Routes>
            </main>
            <footer class="foot">
                <p>
                    "One reward model, graded classes, preferences in the prompt: MOSLIM, arXiv 2505.20336. "
                    "Everything here is computed on this machine; nothing is fetched from elsewhere."
                </p>
                {is_tab().then(|| view! {
                    <p>
                        {concat!("Version ", env!("CARGO_PKG_VERSION"), ", under the ")}
                        <a href=at("/LICENSE-MIT.txt") rel="external">"MIT"</a>" or "
                        <a href=at("/LICENSE-APACHE.txt") rel="external">"Apache 2.0"</a>
                        " licence. It trains in this tab: what it learns stays in this browser, and no server is asked for anything."
                    </p>
                })}
            </footer>
        </Router>
    }
}
