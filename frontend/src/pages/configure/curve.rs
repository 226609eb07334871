//! What the chosen mapping pays: a curve for each class that can be asked for.

use super::form::Form;
use crate::parts::format;
use crate::parts::memo::memo;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::Ink;
use moslim_shared::mapping::MappingFunction;

/// Classes of the example.
const CLASSES: usize = 5;
/// How sure the example's reward model is: the deviation of its class distributions, in classes.
const SPREAD: f64 = 0.6;
/// Points of a curve between two classes.
const BETWEEN: usize = 8;
/// Size of the drawing, and what is left free around the curves, in its own units.
const SIZE: (f64, f64) = (320.0, 150.0);
const MARGIN: f64 = 14.0;

/// The curves, with a slider for the class that is asked for.
pub fn curve(form: Form) -> AnyView {
    let asked = RwSignal::new(CLASSES - 1);
    let function = memo(move || form.read(|d| d.parsed.as_ref().map(|c| c.mapping.function).unwrap_or_default()));
    let lines = memo(move || (0..CLASSES).map(|class| paid(function.get(), class)).collect::<Vec<_>>());
    let path = move |class: usize| lines.with(|all| drawn(all, class));
    let faint = move || (0..CLASSES).map(|class| view! { <path d=path(class)/> }).collect_view();
    view! {
        <figure class="curve" id="mapping-curve">
            <label class="slider">
                <span>{t("Asked for class")}</span>
                <input
                    type="range" min="0" max=(CLASSES - 1).to_string() step="1" prop:value=move || asked.get().to_string()
                    on:input=move |ev| if let Ok(class) = event_target_value(&ev).parse() { asked.set(class) }
                />
                <output class="num">{move || asked.get()}</output>
            </label>
            <svg viewBox=format!("0 0 {} {}", SIZE.0, SIZE.1) role="img" aria-labelledby="mapping-said">
                <g fill="none" stroke="var(--muted)" stroke-opacity="0.35">{faint}</g>
                <path d=move || path(asked.get()) fill="none" stroke=Ink::Objective(0).css() stroke-width="2.5"/>
                {(0..CLASSES).map(|class| {
                    view! { <text x=across(class as f64).to_string() y=(SIZE.1 - 1.0).to_string() text-anchor="middle">{class}</text> }
                }).collect_view()}
            </svg>
            <figcaption class="hint" id="mapping-said">
                {move || lines.with(|all| sentence(&all[asked.get()], asked.get()))}
            </figcaption>
        </figure>
    }
    .into_any()
}

/// The class distribution of an answer that shows class `x`, which may lie between two.
fn distribution(x: f64) -> Vec<f64> {
    let weights: Vec<f64> = (0..CLASSES).map(|c| (-((c as f64 - x) / SPREAD).powi(2) / 2.0).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// What `function` makes of answers from the lowest class to the highest where `asked` is asked for.
fn paid(function: MappingFunction, asked: usize) -> Vec<f64> {
    let steps = (CLASSES - 1) * BETWEEN;
    (0..=steps).map(|n| function.value(&distribution(n as f64 / BETWEEN as f64), asked)).collect()
}

/// Where a class stands, from left to right.
fn across(class: f64) -> f64 {
    MARGIN + (SIZE.0 - 2.0 * MARGIN) * class / (CLASSES - 1) as f64
}

/// The curve of `class`, on the scale of all of them.
fn drawn(all: &[Vec<f64>], class: usize) -> String {
    let values = || all.iter().flatten().copied();
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
    let up = |v: f64| SIZE.1 - MARGIN - (SIZE.1 - 2.0 * MARGIN) * (v - low) / (high - low).max(1e-9);
    let at = |(n, v): (usize, &f64)| format!("{:.1} {:.1}", across(n as f64 / BETWEEN as f64), up(*v));
    format!("M{}", all[class].iter().enumerate().map(at).collect::<Vec<_>>().join(" L"))
}

/// What an answer that hits, its neighbour and the farthest earn.
fn sentence(paid: &[f64], asked: usize) -> String {
    let near = if asked == 0 { 1 } else { asked - 1 };
    let far = if asked >= CLASSES / 2 { 0 } else { CLASSES - 1 };
    let earned = |class: usize| format::number(paid[class * BETWEEN], 2);
    said(
        "Across: the class that an answer shows. Up: what it earns, before mean and deviation. Asked for class {0}, an answer of that class earns \
         {1}, one of class {2} earns {3}, one of class {4} earns {5}.",
        &[&asked.to_string(), &earned(asked), &near.to_string(), &earned(near), &far.to_string(), &earned(far)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_mapping_pays_far_classes_alike_and_the_ordinal_one_does_not() {
        let earned = |function, class: usize| paid(function, 4)[class * BETWEEN];
        let gap = |function| earned(function, 2) - earned(function, 0);
        assert!(gap(MappingFunction::Moslim) < 0.01 && gap(MappingFunction::RankedProbability) > 0.2);
        for function in [MappingFunction::Moslim, MappingFunction::Expected, MappingFunction::RankedProbability] {
            let best = paid(function, 2).iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            assert_eq!(best, 2 * BETWEEN, "{function:?}");
        }
    }

    #[test]
    fn a_curve_lies_within_the_drawing_and_the_sentence_names_other_classes() {
        let all: Vec<Vec<f64>> = (0..CLASSES).map(|c| paid(MappingFunction::Moslim, c)).collect();
        let path = drawn(&all, 4);
        assert!(path.starts_with("M14.0 ") && path.contains("L306.0 ") && !path.contains('-'), "{path}");
        assert!(sentence(&all[0], 0).contains("one of class 1 earns") && sentence(&all[0], 0).contains("one of class 4 earns"));
        assert!(sentence(&all[4], 4).contains("one of class 3 earns") && sentence(&all[4], 4).contains("one of class 0 earns"));
    }
}
