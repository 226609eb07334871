//! The page that is not there.

use leptos::prelude::*;

/// Says so, and where to go.
pub fn not_found() -> AnyView {
    view! {
        <section class="card narrow">
            <h1>"There is no page at this address"</h1>
            <p class="muted">"A run's address is /runs/ and its id. All runs are listed on the first page."</p>
            <p><a class="button" href="/">"Go to the first page"</a></p>
        </section>
    }
    .into_any()
}
