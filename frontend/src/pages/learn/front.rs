//! Station 5: what can be had together.

use crate::parts::format;
use crate::parts::memo::memo;
use crate::parts::seen::{Alone, to_and_fro};
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_shared::order::sorted;
use moslim_shared::pareto::front;
use std::time::Duration;

/// Time between two weights of the playing by itself, and how many there are above the smallest one.
const BEAT: Duration = Duration::from_millis(120);
const WEIGHTS: usize = 50;

/// Answers, and how many of four points each gives.
const ANSWERS: [(&str, usize); 7] = [
    ("Good question!", 0),
    ("Use a box.", 1),
    ("Wrap your bread in a clean cloth and put it in a box.", 2),
    ("Wrap it in cloth, keep it in a box, and freeze what is left over.", 3),
    ("Wrap it, box it, freeze slices of the rest, and never use the fridge or heat.", 4),
    ("Bread is a fine thing, and people have baked it for thousands of years.", 0),
    ("My aunt used a blue clay box for hers, for many a year.", 1),
];

#[cfg(test)]
pub fn texts() -> impl Iterator<Item = &'static str> {
    ANSWERS.iter().map(|a| a.0)
}

/// Points of the drawing: an answer's share of the points, and how short it is, 0 at 25 words and 1 at none.
fn points() -> Vec<Vec<f64>> {
    let of = |(text, given): &(&str, usize)| vec![*given as f64 / 4.0, 1.0 - text.split_whitespace().count() as f64 / 25.0];
    ANSWERS.iter().map(of).collect()
}

/// The answer with the greatest weighted sum.
fn chosen(points: &[Vec<f64>], weight: f64) -> usize {
    let value = |p: &[f64]| weight * p[0] + (1.0 - weight) * p[1];
    (0..points.len()).fold(0, |best, n| if value(&points[n]) > value(&points[best]) { n } else { best })
}

/// Answers of the front that no weight chooses.
fn never(points: &[Vec<f64>]) -> Vec<usize> {
    let reached: Vec<usize> = (0..=1000).map(|n| chosen(points, f64::from(n) / 1000.0)).collect();
    front(points).into_iter().filter(|n| !reached.contains(n)).collect()
}

#[component]
pub fn FrontStage(alone: Alone, controls: bool) -> impl IntoView {
    let weight = RwSignal::new(0.5);
    alone.every(BEAT, move |beat| weight.set(to_and_fro(beat + WEIGHTS / 2, WEIGHTS) as f64 / WEIGHTS as f64));
    let all = points();
    let (own, hollow) = (front(&all), never(&all));
    let best = {
        let all = all.clone();
        memo(move || chosen(&all, weight.get()))
    };
    let place = |p: &[f64]| (30.0 + p[0] * 250.0, 230.0 - p[1] * 200.0);
    // The front as steps: between two of its points nothing can be had.
    let order = sorted(own.clone(), |a, b| all[*a][0].total_cmp(&all[*b][0]));
    let mut path = String::new();
    for (n, &i) in order.iter().enumerate() {
        let (x, y) = place(&all[i]);
        path += &if n == 0 { format!("M30 {y:.0}L{x:.0} {y:.0}") } else { format!("V{y:.0}H{x:.0}") };
    }
    path += "V230";
    let dots = all
        .iter()
        .enumerate()
        .map(|(n, p)| {
            let (x, y) = place(p);
            let kind = if hollow.contains(&n) {
                "dot hollow"
            } else if own.contains(&n) {
                "dot front"
            } else {
                "dot"
            };
            view! {
                <circle class=kind class:best=move || best.get() == n cx=x.to_string() cy=y.to_string() r="7">
                    <title>{t(ANSWERS[n].0)}</title>
                </circle>
            }
        })
        .collect_view();
    let count = hollow.len();
    view! {
        <div class="card stage-card" id="front-stage">
            <svg class="front-picture" viewBox="0 0 310 260" role="img" aria-label=t("Answers by help and shortness, with the Pareto front")>
                <path class="ground" d="M30 26V230H290"></path>
                <path class="front-line" d=path></path>
                {dots}
                <text x="160" y="252">{t("helps more →")}</text>
                <text x="8" y="16">{t("↑ shorter")}</text>
            </svg>
            <label class="wish-row">
                <span>{t("Weight of help")}</span>
                {controls.then(|| view! {
                    <input
                        id="front-weight" type="range" min="0" max="1" step="0.02"
                        prop:value=move || weight.get().to_string()
                        on:input=move |ev| if let Ok(v) = event_target_value(&ev).parse() { weight.set(v) }
                    />
                })}
                <output>{move || format::percent(weight.get())}</output>
            </label>
            <p aria-live=move || if alone.plays() { "off" } else { "polite" }>{t("The best weighted sum:")}" "<b id="front-best">{move || t(ANSWERS[best.get()].0)}</b></p>
            <p class="hint">{said("Full dots are the front; {0} of them, marked with a ring, are never the best for any weight.", &[&count.to_string()])}</p>
        </div>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_has_a_hollow_that_no_weight_reaches() {
        let all = points();
        assert_eq!(never(&all), [2, 3]);
        assert_eq!((chosen(&all, 1.0), chosen(&all, 0.2), chosen(&all, 0.0)), (4, 1, 0));
        assert_eq!(front(&all), [0, 1, 2, 3, 4]);
    }
}
