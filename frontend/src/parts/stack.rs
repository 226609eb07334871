//! How often each class of an objective was given: one bar, cut into its classes.

use crate::parts::format;
use crate::words;
use leptos::prelude::*;
use moslim_shared::objective::Objective;

/// The shade of class `c` of `n`, from faint to full.
fn shade(index: usize, c: usize, n: usize) -> String {
    // Faint enough for a number on it in both themes.
    format::tint(index, (12 + 43 * c / n.saturating_sub(1).max(1)) as f64)
}

/// The bar and, below it, its counts in words. `counts` are rows of every class, `missing` rows without a label, which are left
/// empty. `index`: position of the objective.
pub fn stack(objective: &Objective, index: usize, counts: &[u64], missing: u64) -> impl IntoView + use<> {
    let labelled: u64 = counts.iter().sum();
    let all = (labelled + missing).max(1) as f64;
    let n = counts.len();
    let parts = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(c, count)| {
            let name = objective.classes.get(c).cloned().unwrap_or_default();
            let share = *count as f64 / all;
            let title = format!("{c} {name}: {count} ({})", format::percent(share));
            // Its name where that is short, as marks are.
            let shown = (share > 0.06).then(|| if name.chars().count() <= 3 { name.clone() } else { c.to_string() });
            view! {
                <span
                    class="part"
                    title=title
                    style:width=format!("{:.2}%", 100.0 * share)
                    style:background=shade(index, c, n)
                >
                    {shown}
                </span>
            }
        })
        .collect_view();
    let said: Vec<String> = objective.classes.iter().zip(counts).map(|(name, n)| format!("{name}: {n}")).collect();
    let missing = match missing {
        0 => String::new(),
        n => words::said(", without a label: {0}", &[&n.to_string()]),
    };
    let said = format!("{}{missing}", said.join(", "));
    let label = format!("{}: {said}", objective.name);
    view! {
        <span class="stack" role="img" aria-label=label>{parts}</span>
        <span class="hint">{said}</span>
    }
}
