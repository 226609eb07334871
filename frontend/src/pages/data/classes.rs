//! How often each class was given: one bar for each objective.

use crate::parts::format;
use crate::words;
use leptos::prelude::*;
use moslim_charts::INKS;
use moslim_shared::objective::Objective;
use moslim_shared::ratings::LabelCounts;

/// The shade of class `c` of `n`, from faint to full.
pub fn shade(index: usize, c: usize, n: usize) -> String {
    // Faint enough for a number on it in both themes.
    let share = 12 + 43 * c / n.saturating_sub(1).max(1);
    format!("color-mix(in srgb, var(--obj-{}) {share}%, var(--surface))", index % INKS)
}

/// A bar for each objective, cut into its classes; what has no label is left empty.
pub fn balance(objectives: &[Objective], labels: &[LabelCounts]) -> AnyView {
    let rows = objectives.iter().zip(labels).enumerate().map(|(index, (objective, counts))| {
        let labelled: u64 = counts.classes.iter().sum();
        let all = (labelled + counts.missing).max(1) as f64;
        let n = counts.classes.len();
        let parts = counts.classes.iter().enumerate().filter(|(_, count)| **count > 0).map(|(c, count)| {
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
        });
        let said: Vec<String> = objective.classes.iter().zip(&counts.classes).map(|(name, n)| format!("{name}: {n}")).collect();
        let missing = match counts.missing {
            0 => String::new(),
            n => words::said(", without a label: {0}", &[&n.to_string()]),
        };
        let said = format!("{}{missing}", said.join(", "));
        let label = format!("{}: {said}", objective.name);
        view! {
            <div class="balance" data-objective=objective.id.clone()>
                <b>{objective.name.clone()}</b>
                <span class="stack" role="img" aria-label=label>{parts.collect_view()}</span>
                <span class="hint">{said}</span>
            </div>
        }
    });
    view! { <div class="balances">{rows.collect_view()}</div> }.into_any()
}
