//! A chart on the page: title, hint, legend, canvas, and a table of the last values.

use crate::app::Theme;
use crate::derived;
use crate::parts::canvas::{observe, surface};
use crate::parts::format;
use crate::state::{RunState, Topic};
use crate::stream::Run;
use leptos::html;
use leptos::prelude::*;
use moslim_charts::{LinePlot, Over, Plot, band, line, ramp};
use plotters::prelude::IntoDrawingArea;
use web_sys::HtmlCanvasElement;

/// Makes a chart's data from the state of a run.
pub type PlotFn = Box<dyn Fn(&RunState) -> Plot + Send + Sync>;

/// A chart's data. It is outside of the reactive system; `revision` grows when it changes.
#[derive(Clone, Copy)]
struct Data {
    plot: StoredValue<Plot>,
    revision: Memo<u64>,
}

impl Data {
    fn new(run: Run, topic: Topic, make: PlotFn) -> Self {
        let plot = StoredValue::new(Plot::Lines(LinePlot::default()));
        let moved = run.on(topic);
        let revision = derived::changes(move || {
            let _ = moved.get();
            let new = run.read(&make);
            let changed = plot.try_update_value(|old| {
                let changed = *old != new;
                *old = new;
                changed
            });
            changed == Some(true)
        });
        Self { plot, revision }
    }

    /// Reads the data, and again when it has changed.
    fn with<R>(self, f: impl FnOnce(&Plot) -> R) -> R {
        let _ = self.revision.get();
        self.plot.with_value(f)
    }
}

/// An entry of a legend.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    label: String,
    color: String,
    bold: bool,
}

/// A chart card of `run`. The canvas is drawn anew when `topic` moves and the data changes, or size or theme do. `texts` are
/// the hint, and what is said while there is no data.
pub fn chart(run: Run, topic: Topic, id: String, title: String, texts: (&'static str, &'static str), plot: PlotFn) -> AnyView {
    let (hint, empty) = texts;
    let canvas = NodeRef::<html::Canvas>::new();
    let theme = expect_context::<Theme>().revision;
    let resized = RwSignal::new(0u64);
    let table = RwSignal::new(false);
    observe(canvas, resized);

    let data = Data::new(run, topic, plot);
    derived::effect(move || {
        theme.track();
        resized.track();
        if let Some(element) = canvas.get() {
            data.with(|plot| draw(&element, plot));
        }
    });
    let legend = derived::text(move || data.with(|plot| entries(plot).into_iter().map(|e| e.label + &e.color).collect()));
    let has_data = derived::flag(move || data.with(|plot| !plot.is_empty()));
    let heading = title.clone();

    view! {
        <figure class="card chart" id=id>
            <figcaption>
                <h3>{title}</h3>
                <p class="hint">{hint}</p>
            </figcaption>
            <ul class="legend">
                {move || {
                    let _ = legend.get();
                    data.plot.with_value(|plot| entries(plot).into_iter().map(legend_entry).collect::<Vec<_>>().into_any())
                }}
            </ul>
            <div class="plot">
                <canvas
                    node_ref=canvas
                    role="img"
                    tabindex="0"
                    aria-label=move || data.with(|plot| sentence(&heading, plot))
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
                {move || {
                    let text = if table.get() { "Hide the last values" } else { "Show the last values as a table" };
                    text.to_string()
                }}
            </button>
            {move || if table.get() { data.with(last_values) } else { ().into_any() }}
        </figure>
    }
    .into_any()
}

fn legend_entry(entry: Entry) -> AnyView {
    view! {
        <li>
            <span class="swatch" class:bold=entry.bold style:background=entry.color></span>
            {entry.label}
        </li>
    }
    .into_any()
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
    format!("color-mix(in srgb, var(--obj-{}) {share:.1}%, var(--surface))", objective % moslim_charts::INKS)
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

fn last_values(plot: &Plot) -> AnyView {
    let rows: Vec<AnyView> = last(plot)
        .into_iter()
        .map(|(label, value)| view! { <tr><th scope="row">{label}</th><td>{value}</td></tr> }.into_any())
        .collect();
    view! {
        <table class="values">
            <caption>{place(plot)}</caption>
            <tbody>{rows}</tbody>
        </table>
    }
    .into_any()
}
