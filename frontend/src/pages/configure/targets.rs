//! Editors of what prompts may ask for: objectives, and pairs of targets kept out of training.

use crate::pages::configure::form::Form;
use crate::parts::memo::memo;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::Ink;
use moslim_shared::config::Target;
use moslim_shared::objective::Objective;
use serde_json::{Value, json};

const OBJECTIVES: &str = "targets.objectives";
const HELD_OUT: &str = "targets.held_out";

/// Objectives that prompts may ask for; none named means all.
fn chosen(form: Form) -> Vec<String> {
    form.get(OBJECTIVES)
}

fn pairs(form: Form) -> Vec<[Target; 2]> {
    form.get(HELD_OUT)
}

fn put_pairs(form: Form, pairs: &[[Target; 2]]) {
    form.put(HELD_OUT, json!(pairs));
}

/// One box per objective, with its classes.
pub fn objectives(form: Form) -> AnyView {
    let known = form.known();
    let message = form.message(OBJECTIVES);
    view! {
        <section class="card form-section" id="field-targets-objectives" aria-label=t("Objectives")>
            <h2>{t("Objectives")}</h2>
            <p class="hint">{t("What prompts may ask for. The reward model grades all of them in any case.")}</p>
            <div class="fields">
                {move || {
                    let _ = known.get();
                    let list = untrack(|| form.objectives());
                    list.into_iter().enumerate().map(|(i, o)| choice(form, i, o)).collect::<Vec<_>>().into_any()
                }}
            </div>
            <p class="problem" role="status">{move || message.get()}</p>
        </section>
    }
    .into_any()
}

fn choice(form: Form, index: usize, objective: Objective) -> AnyView {
    let id = objective.id.clone();
    let on = memo(move || {
        let chosen = chosen(form);
        chosen.is_empty() || chosen.contains(&id)
    });
    // The last one cannot be taken away: no name at all means every objective.
    let last = memo(move || on.get() && chosen(form).len() == 1);
    let id = objective.id.clone();
    let classes: Vec<AnyView> = objective
        .classes
        .iter()
        .enumerate()
        .map(|(c, label)| view! { <span class="chip"><b>{c.to_string()}</b>" "{label.clone()}</span> }.into_any())
        .collect();
    view! {
        <div class="field wide">
            <label class="check">
                <input
                    type="checkbox"
                    id=format!("objective-{}", objective.id)
                    prop:checked=move || on.get()
                    disabled=move || last.get()
                    on:change=move |ev| toggle(form, &id, event_target_checked(&ev))
                />
                <span class="swatch bold" style:background=Ink::Objective(index).css()></span>
                <b>{objective.name.clone()}</b>
            </label>
            <p class="hint">{objective.description.clone()}</p>
            <p class="chips">{classes}</p>
        </div>
    }
    .into_any()
}

fn toggle(form: Form, id: &str, on: bool) {
    let chosen = untrack(|| chosen(form));
    let all: Vec<String> = untrack(|| form.objectives()).into_iter().map(|o| o.id).collect();
    let next: Vec<String> =
        all.iter().filter(|o| if o.as_str() == id { on } else { chosen.is_empty() || chosen.contains(o) }).cloned().collect();
    if next.is_empty() {
        return;
    }
    let named = if next.len() == all.len() { Vec::new() } else { next };
    form.put(OBJECTIVES, Value::from(named));
}

/// Pairs of targets as chips that can be removed, and a way to add one.
pub fn held_out(form: Form) -> AnyView {
    let left = RwSignal::new(String::new());
    let right = RwSignal::new(String::new());
    let message = form.message(HELD_OUT);
    // The chips are made anew when the pairs are other ones, and not whenever the form changes.
    let named = memo(move || pairs(form).iter().map(name).collect());
    let ready = memo(move || match (parse(&left.get()), parse(&right.get())) {
        (Some(a), Some(b)) => a.objective != b.objective,
        _ => false,
    });
    view! {
        <div class="field wide" id="field-targets-held_out">
            <p class="label">{t("Pairs kept out of training")}</p>
            <p class="hint">{t("Never asked for together while training; evaluation measures them apart, to see whether control carries over.")}</p>
            <p class="chips">
                {move || {
                    let _ = named.get();
                    let list = untrack(|| pairs(form));
                    list.iter().enumerate().map(|(n, pair)| chip(form, n, pair)).collect::<Vec<_>>().into_any()
                }}
            </p>
            <p class="hint" class:gone=move || !named.with(String::is_empty)>{t("None: every combination is trained.")}</p>
            <div class="adder">
                {picker(form, t("First target"), left)}
                <span>{t("with")}</span>
                {picker(form, t("Second target"), right)}
                <button
                    type="button"
                    id="add-held-out"
                    class="button small"
                    disabled=move || !ready.get()
                    on:click=move |_| {
                        let found = (parse(&left.get_untracked()), parse(&right.get_untracked()));
                        if let (Some(a), Some(b)) = found {
                            let mut list = untrack(|| pairs(form));
                            list.push([a, b]);
                            put_pairs(form, &list);
                        }
                    }
                >
                    {t("Add")}
                </button>
            </div>
            <p class="problem" role="status">{move || message.get()}</p>
        </div>
    }
    .into_any()
}

fn name(pair: &[Target; 2]) -> String {
    let [a, b] = pair;
    said("{0}={1} with {2}={3}", &[&a.objective, &a.class.to_string(), &b.objective, &b.class.to_string()])
}

fn chip(form: Form, index: usize, pair: &[Target; 2]) -> AnyView {
    let text = name(pair);
    let label = said("Remove {0}", &[&text]);
    view! {
        <span class="chip">
            <code>{text}</code>
            <button
                type="button"
                class="remove"
                aria-label=label
                on:click=move |_| {
                    let mut list = untrack(|| pairs(form));
                    if index < list.len() {
                        list.remove(index);
                        put_pairs(form, &list);
                    }
                }
            >
                "×"
            </button>
        </span>
    }
    .into_any()
}

/// Reads `honesty=2`.
fn parse(text: &str) -> Option<Target> {
    let (objective, class) = text.split_once('=')?;
    Some(Target { objective: objective.to_string(), class: class.parse().ok()? })
}

fn picker(form: Form, label: &'static str, chosen: RwSignal<String>) -> AnyView {
    let known = form.known();
    view! {
        <select aria-label=label on:change=move |ev| chosen.set(event_target_value(&ev))>
            <option value="">{label}</option>
            {move || {
                let _ = known.get();
                untrack(|| form.objectives())
                    .into_iter()
                    .map(|o| {
                        let options: Vec<AnyView> = o
                            .classes
                            .iter()
                            .enumerate()
                            .map(|(c, label)| {
                                view! { <option value=format!("{}={c}", o.id)>{format!("{}: {c} {label}", o.name)}</option> }
                                    .into_any()
                            })
                            .collect();
                        options.into_any()
                    })
                    .collect::<Vec<_>>()
                    .into_any()
            }}
        </select>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_from_an_option() {
        assert_eq!(parse("honesty=2"), Some(Target { objective: "honesty".into(), class: 2 }));
        assert_eq!(parse("honesty"), None);
        assert_eq!(parse("honesty=x"), None);
    }
}
