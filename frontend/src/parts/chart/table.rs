//! The table behind a chart: all of its data.

use super::Shown;
use super::reading::{names, rows, x_title};
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::Plot;

/// Rows on the page at most; the file that is saved has all.
const MOST_ROWS: usize = 5_000;

/// The data of a chart, those of the window where there is one.
#[component]
pub(super) fn Table(shown: Shown) -> impl IntoView {
    view! {
        <div class="scroll data" tabindex="0" role="region" aria-label=t("Data of the chart")>
            {move || {
                let window = shown.window.get();
                shown.plot.with(|plot| table(plot, window))
            }}
        </div>
    }
}

fn table(plot: &Plot, window: Option<(f64, f64)>) -> impl IntoView + use<> {
    let mut all = rows(plot);
    if let Some((from, to)) = window {
        all.retain(|(x, _)| (from..=to).contains(x));
    }
    let count = all.len();
    let x = x_title(plot);
    let heads = names(plot).into_iter().map(|name| view! { <th scope="col">{name}</th> }).collect_view();
    let body = all
        .into_iter()
        .take(MOST_ROWS)
        .map(|(x, cells)| {
            let cells = cells.into_iter().map(|v| view! { <td>{v.map(|v| v.to_string())}</td> }).collect_view();
            view! { <tr><th scope="row">{x.to_string()}</th>{cells}</tr> }
        })
        .collect_view();
    let more = (count > MOST_ROWS)
        .then(|| said("The first {0} of {1} rows; save as CSV for all.", &[&MOST_ROWS.to_string(), &count.to_string()]));
    view! {
        <table class="values">
            <caption>{more}</caption>
            <thead><tr><th scope="col">{x}</th>{heads}</tr></thead>
            <tbody>{body}</tbody>
        </table>
    }
}
