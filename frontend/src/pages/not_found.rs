//! The page that is not there.

use crate::source::at;
use crate::words::t;
use leptos::prelude::*;

/// Says so, and where to go.
#[component]
pub fn NotFound() -> impl IntoView {
    view! {
        <section class="card narrow" id="not-found">
            <h1>{t("There is no page at this address")}</h1>
            <p class="muted">{t("A run's address is /runs/ and its id. All runs are listed on the first page.")}</p>
            <p><a class="button" href=at("/")>{t("Go to the first page")}</a></p>
        </section>
    }
}
