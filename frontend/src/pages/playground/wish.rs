//! What is asked for: a slider for every objective.

use super::Bench;
use crate::parts::memo::memo;
use crate::words::t;
use leptos::prelude::*;
use moslim_charts::Ink;
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;

/// A slider for every objective of the task, and the question.
#[component]
pub fn Wish(bench: Bench) -> impl IntoView {
    view! {
        <fieldset class="wish">
            <legend class="label">{t("What the prompt asks for")}</legend>
            {move || {
                let objectives = bench.objectives.get();
                objectives.into_iter().enumerate().map(|(i, o)| slider(bench, i, o)).collect_view()
            }}
        </fieldset>
    }
}

/// The slider's place 0 asks for nothing, place c + 1 for class c.
fn slider(bench: Bench, i: usize, objective: Objective) -> impl IntoView {
    let id = format!("ask-{}", objective.id);
    let classes = objective.classes.clone();
    let chosen = memo(move || bench.wish.with(|wish| wish.0.get(i).copied().flatten()));
    let said = {
        let classes = classes.clone();
        move || chosen.get().and_then(|c| classes.get(c).cloned()).unwrap_or_else(|| t("not asked for").into())
    };
    let (text, title) = (said.clone(), said.clone());
    let count = classes.len();
    view! {
        <div class="wish-row" class:masked=move || chosen.get().is_none()>
            <label for=id.clone()>
                <span class="swatch bold" style:background=Ink::Objective(i).css()></span>
                {objective.name.clone()}
            </label>
            <input
                type="range"
                id=id
                min="0"
                max=count.to_string()
                step="1"
                title=objective.description.clone()
                prop:value=move || chosen.get().map_or(0, |c| c + 1).to_string()
                aria-valuetext=title
                on:input=move |ev| {
                    let place: usize = event_target_value(&ev).parse().unwrap_or(0);
                    bench.wish.update(|wish| {
                        if let Some(own) = wish.0.get_mut(i) {
                            *own = place.checked_sub(1);
                        }
                    });
                }
            />
            <output>{text}</output>
        </div>
    }
}

/// Wishes worth trying: everything at its best, and everything at its worst.
pub fn extremes(objectives: &[Objective]) -> [Preference; 2] {
    let best = |o: &Objective| Some(o.best_class());
    let worst = |o: &Objective| Some(if o.higher_is_better { 0 } else { o.class_count() - 1 });
    [Preference(objectives.iter().map(best).collect()), Preference(objectives.iter().map(worst).collect())]
}
