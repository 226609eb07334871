//! How often each class was given: one bar for each objective.

use crate::parts::stack::stack;
use leptos::prelude::*;
use moslim_shared::objective::Objective;
use moslim_shared::ratings::LabelCounts;

/// A bar for each objective, cut into its classes; what has no label is left empty.
pub fn balance(objectives: &[Objective], labels: &[LabelCounts]) -> AnyView {
    let rows = objectives.iter().zip(labels).enumerate().map(|(index, (objective, counts))| {
        let bar = stack(objective, index, &counts.classes, counts.missing);
        view! {
            <div class="balance" data-objective=objective.id.clone()>
                <b>{objective.name.clone()}</b>
                {bar}
            </div>
        }
    });
    view! { <div class="balances">{rows.collect_view()}</div> }.into_any()
}
