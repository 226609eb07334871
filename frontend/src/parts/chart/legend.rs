//! The legend: what each line is, its value at the place that is looked at, and a button that hides it.

use super::reading::{names, said, value};
use super::{Shown, class_color, place_name};
use crate::parts::memo::memo;
use crate::words::t;
use leptos::prelude::*;
use moslim_charts::{Ink, Plot};

/// The legend of a chart.
#[component]
pub(super) fn Legend(shown: Shown) -> impl IntoView {
    // Entries change seldom, values with every look.
    let entries = memo(move || {
        shown.plot.with(|plot| {
            let known = |n: usize| value(plot, n, None).is_some();
            names(plot)
                .into_iter()
                .enumerate()
                .filter(|(n, _)| known(*n))
                .map(|(n, name)| (n, name, ink(plot, n)))
                .collect::<Vec<_>>()
        })
    });
    view! {
        <ul class="legend">
            {move || entries.get().into_iter().map(|entry| view! { <li>{button(shown, entry)}</li> }).collect_view()}
            <li class="hint num">{move || {
                let at = shown.linked.at.get().filter(|_| shown.over_steps())?;
                shown.plot.with(|plot| (!plot.is_empty()).then(|| place_name(plot, at)))
            }}</li>
        </ul>
    }
}

/// Colour and marker of an entry.
fn ink(plot: &Plot, n: usize) -> (String, Option<Ink>) {
    match plot {
        Plot::Lines(p) => (p.series[n].ink.css(), Some(p.series[n].ink)),
        Plot::Bands(p) => (class_color(p.objective, p.key(n), p.classes.len()), None),
    }
}

fn button(shown: Shown, (n, name, (color, ink)): (usize, String, (String, Option<Ink>))) -> impl IntoView {
    let text = move || {
        let at = shown.linked.at.get();
        shown.plot.with(|plot| value(plot, n, at).map(|v| said(plot, v))).unwrap_or_default()
    };
    let hidden = memo(move || shown.hidden.with(|hidden| hidden.contains(&n)));
    // Bands make one whole, of which nothing can be left out.
    let lines = ink.is_some();
    let toggle = move |alone: bool| {
        let all = shown.plot.with_untracked(|plot| names(plot).len());
        shown.hidden.update(|hidden| {
            if alone {
                let others: Vec<usize> = (0..all).filter(|other| *other != n).collect();
                *hidden = if *hidden == others { Vec::new() } else { others };
            } else if !hidden.contains(&n) {
                hidden.push(n);
            } else {
                hidden.retain(|other| *other != n);
            }
        });
    };
    let mark = match ink {
        Some(ink) => view! { <span class="glyph" style:color=color>{ink.glyph()}</span> }.into_any(),
        None => view! { <span class="swatch" style:background=color></span> }.into_any(),
    };
    view! {
        <button
            type="button"
            class="entry"
            class:off=move || hidden.get()
            disabled=!lines
            aria-pressed=move || (!hidden.get()).to_string()
            title=if lines { t("Click to hide, with Shift to show it alone") } else { "" }
            on:click=move |ev| toggle(ev.shift_key())
        >
            {mark}
            <span>{name}</span>
            <b class="num">{text}</b>
        </button>
    }
}
