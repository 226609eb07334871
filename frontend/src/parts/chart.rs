//! A chart on the page: title, hint, legend, canvas, and a table of the last values.

use crate::parts::canvas::{resized, surface};
use crate::parts::format;
use crate::parts::theme::Theme;
use leptos::html;
use leptos::prelude::*;
use moslim_charts::{INKS, LinePlot, Over, Plot, band, line, ramp};
use plotters::prelude::IntoDrawingArea;
use web_sys::HtmlCanvasElement;

/// An entry of a legend.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    label: String,
    color: String,
    bold: bool,
}

/// A chart card. The canvas is drawn anew when the data changes, or size or theme do.
#[component]
pub fn Chart(
    #[prop(into)] id: String,
    #[prop(into)] title: String,
    /// What is shown, in a sentence or two.
    hint: &'static str,
    /// What is said while there is no data.
    #[prop(default = "")]
    empty: &'static str,
    plot: Memo<Plot>,
) -> impl IntoView {
    let canvas = NodeRef::<html::Canvas>::new();
    let theme = expect_context::<Theme>().revision;
    let resized = resized(canvas);
    Effect::new(move |_| {
        theme.track();
        resized.track();
        if let Some(element) = canvas.get() {
            plot.with(|plot| draw(&element, plot));
        }
    });
    let table = RwSignal::new(false);
    let legend = Memo::new(move |_| plot.with(entries));
    let has_data = Memo::new(move |_| plot.with(|plot| !plot.is_empty()));
    let heading = title.clone();

    view! {
        <figure class="card chart" id=id>
            <figcaption>
                <h3>{title}</h3>
                <p class="hint">{hint}</p>
            </figcaption>
            <ul class="legend">
                {move || legend.get().into_iter().map(legend_entry).collect_view()}
            </ul>
            <div class="plot">
                <canvas
                    node_ref=canvas
                    role="img"
                    tabindex="0"
                    aria-label=move || plot.with(|plot| sentence(&heading, plot))
                    class:gone=move || !has_data.get()
                ></canvas>
                <p class="empty" class:gone=move || has_data.get()>{empty}</p>
            </div>
            <button
                class="link"
                type="button"
                class:gone=move || !has_data.get()
                aria-pressed=move || table.get().to_string()
                on:click=move |_| table.update(|t| *t = !*t)
            >
                {move || if table.get() { "Hide the last values" } else { "Show the last values as a table" }}
            </button>
            {move || table.get().then(|| plot.with(last_values))}
        </figure>
    }
}

fn legend_entry(entry: Entry) -> impl IntoView {
    view! {
        <li>
            <span class="swatch" class:bold=entry.bold style:background=entry.color></span>
            {entry.label}
        </li>
    }
}

/// Draws into the canvas in device pixels.
fn draw(canvas: &HtmlCanvasElement, plot: &Plot) {
    let Some((backend, palette)) = surface(canvas) else { return };
    let area = backend.into_drawing_area();
    // A canvas takes everything that is drawn on it.
    let _ = match plot {
        Plot::Lines(lines) => line::draw(&area, lines, &palette),
        Plot::Bands(bands) => band::draw(&area, bands, &palette),
    };
}

fn entries(plot: &Plot) -> Vec<Entry> {
    match plot {
        Plot::Lines(p) => p
            .series
            .iter()
            .filter(|s| !s.points.is_empty())
            .map(|s| Entry { label: s.label.clone(), color: s.ink.css(), bold: s.bold })
            .collect(),
        Plot::Bands(p) if p.rows.is_empty() => Vec::new(),
        Plot::Bands(p) => p
            .classes
            .iter()
            .enumerate()
            .map(|(c, label)| Entry { label: label.clone(), color: class_color(p.objective, c, p.classes.len()), bold: false })
            .collect(),
    }
}

/// The style sheet's colour of a class; the same mixture as on the canvas.
pub fn class_color(objective: usize, class: usize, classes: usize) -> String {
    let share = ramp(class, classes) * 100.0;
    format!("color-mix(in srgb, var(--obj-{}) {share:.1}%, var(--surface))", objective % INKS)
}

/// Label and last value of every line or class.
fn last(plot: &Plot) -> Vec<(String, String)> {
    match plot {
        Plot::Lines(p) => p
            .series
            .iter()
            .filter_map(|s| {
                let value = s.points.last()?.1;
                let text = if p.percent { format::percent(value) } else { format::number(value, 3) };
                Some((s.label.clone(), text))
            })
            .collect(),
        Plot::Bands(p) => match p.rows.last() {
            Some((_, shares)) => {
                p.classes.iter().zip(shares).map(|(label, share)| (label.clone(), format::percent(*share))).collect()
            }
            None => Vec::new(),
        },
    }
}

/// Where the last values were measured.
fn place(plot: &Plot) -> String {
    let last = |p: &LinePlot| p.series.iter().filter_map(|s| s.points.last()).map(|p| p.0).fold(0.0, f64::max);
    match plot {
        Plot::Lines(p) if p.over == Over::Kl => format!("At a KL of {} nats", format::number(last(p), 2)),
        Plot::Lines(p) => format!("At step {:.0}", last(p)),
        Plot::Bands(p) => format!("At step {:.0}", p.rows.last().map_or(0.0, |r| r.0)),
    }
}

/// The chart in one sentence.
fn sentence(title: &str, plot: &Plot) -> String {
    if plot.is_empty() {
        return format!("{title} No data yet.");
    }
    let values: Vec<String> = last(plot).into_iter().map(|(label, value)| format!("{label} {value}")).collect();
    format!("{title} {}: {}.", place(plot), values.join(", "))
}

fn last_values(plot: &Plot) -> impl IntoView + use<> {
    let rows = last(plot)
        .into_iter()
        .map(|(label, value)| view! { <tr><th scope="row">{label}</th><td>{value}</td></tr> })
        .collect_view();
    view! {
        <table class="values">
            <caption>{place(plot)}</caption>
            <tbody>{rows}</tbody>
        </table>
    }
}
