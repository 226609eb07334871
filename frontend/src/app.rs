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
use crate::parts::title::Title;
use crate::source::{at, base, is_tab, notice};
use crate::words::{self, said, t};
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
            <Title known=page_name/>
            <a class="skip" href="#main" rel="external">{t("Skip to the content")}</a>
            <header class="bar">
                <div class="bar-inner">
                    <a class="brand" href=at("/")>
                        <img src=at("/icon.svg") alt="" width="28" height="28"/>
                        <span>"MOSLIM Lab"</span>
                    </a>
                    <nav class="nav" aria-label=t("Pages")>
                        <A href=at("/") exact=true>{t("Home")}</A>
                        <A href=at("/learn") exact=true>{t("Learn")}</A>
                        <A href=at("/configure") exact=true>{t("Configure")}</A>
                        <A href=at("/playground") exact=true>{t("Playground")}</A>
                        <A href=at("/compare") exact=true>{t("Compare")}</A>
                        {(!is_tab()).then(|| view! {
                            <A href=at("/studies") exact=true>{t("Studies")}</A>
                            <A href=at("/data")>{t("Data")}</A>
                            <A href=at("/models") exact=true>{t("Models")}</A>
                        })}
                    </nav>
                    <button
                        id="language"
                        class="button quiet small"
                        type="button"
                        lang=if words::is_chinese() { "en" } else { "zh-CN" }
                        title=if words::is_chinese() { "Everything in English" } else { "切换到中文" }
                        on:click=move |_| words::turn()
                    >
                        {if words::is_chinese() { "English" } else { "中文" }}
                    </button>
                    <button
                        id="theme"
                        class="button quiet small"
                        type="button"
                        title=t("Change the theme: auto, light, dark, high contrast")
                        on:click=move |_| theme.turn()
                    >
                        {move || said("Theme: {0}", &[theme.name()])}
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
                    {t("One reward model, graded classes, preferences in the prompt: MOSLIM, arXiv 2505.20336.")}
                    " "
                    {t("Everything here is computed on this machine; nothing is fetched from elsewhere.")}
                </p>
                {is_tab().then(|| view! {
                    <p>
                        {said("Version {0}, under the ", &[env!("CARGO_PKG_VERSION")])}
                        <a href=at("/LICENSE-MIT.txt") rel="external">"MIT"</a>{t(" or ")}
                        <a href=at("/LICENSE-APACHE.txt") rel="external">"Apache 2.0"</a>
                        {t(" licence. It trains in this tab: what it learns stays in this browser, and no server is asked for anything.")}
                    </p>
                })}
            </footer>
        </Router>
    }
}

/// What the page at a path is called, where it has no name of its own.
fn page_name(path: &str) -> String {
    let name = match path.strip_prefix(&base()).unwrap_or(path).split('/').nth(1) {
        Some("learn") => t("Learn"),
        Some("configure") => t("Configure"),
        Some("playground") => t("Playground"),
        Some("compare") => t("Compare"),
        Some("studies") => t("Studies"),
        Some("data") => t("Data"),
        Some("models") => t("Models"),
        Some("runs") => t("Run"),
        _ => "",
    };
    name.into()
}
