//! The trade-offs that a study found, in two objectives that the reader chooses.

use crate::pages::study::comparison::has_front;
use crate::pages::study::handle::Study;
use crate::parts::front::{FrontFigure, Fronts, Group, reference};
use crate::state::study::setting;
use crate::words::t;
use leptos::prelude::*;
use leptos_router::NavigateOptions;
use leptos_router::hooks::query_signal_with_options;
use moslim_charts::front::ink;
use moslim_shared::study::StudyResults;

/// The section with the chart. The objectives on its axes are part of the address, as `x` and `y`.
#[component]
pub fn Front(study: Study) -> impl IntoView {
    // The browser's button leads to the page before, and not through every choice that was made on this one.
    let options = || NavigateOptions { replace: true, scroll: false, ..Default::default() };
    let (x, ask_x) = query_signal_with_options::<String>("x", options());
    let (y, ask_y) = query_signal_with_options::<String>("y", options());
    // Both are named, so that the address says what is shown.
    let choose = Callback::new(move |(x, y): (String, String)| {
        ask_x.set(Some(x));
        ask_y.set(Some(y));
    });
    let found = study.memo(|d| d.results.as_ref().map(fronts).unwrap_or_default());
    let shown = study.found(has_front);
    view! {
        <section id="front" class="section" aria-labelledby="front-title" class:gone=move || !shown.get()>
            <h2 id="front-title">{t("Trade-offs")}</h2>
            <p class="muted">
                {t("Every point is what one setting delivers when one trade-off is asked for (or one weight vector trained): the mean utility on held-out questions, averaged over the seeds. 0 is the worst class of an objective and 1 the best. Pale points are dominated: another one of the same setting is at least as good on both axes.")}
            </p>
            <FrontFigure
                id="front"
                fronts=found
                x=Signal::derive(move || x.get().unwrap_or_default())
                y=Signal::derive(move || y.get().unwrap_or_default())
                choose=choose
            />
            {move || found.with(reference)}
        </section>
    }
}

fn fronts(results: &StudyResults) -> Fronts {
    let group = |(n, g): (usize, &moslim_shared::study::StudyGroup)| Group {
        name: setting(&g.labels),
        ink: ink(n),
        runs: vec![g.front.clone()],
        by: 1,
        again: false,
    };
    Fronts {
        objectives: results.objectives.clone(),
        reference: results.reference.clone(),
        groups: results.groups.iter().enumerate().map(group).collect(),
    }
}
