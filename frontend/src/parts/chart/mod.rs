//! A chart on the page: title, hint, legend with values, canvas, and its twin, a table of everything that is drawn.
//!
//! A canvas is drawn when its data, its window, size or theme change; what follows the pointer lies above it and draws nothing. Charts of
//! a page that share a [`Linked`] share the place that is looked at.

mod export;
mod legend;
mod reading;
mod table;

use crate::parts::canvas::{resized, soon, surface};
use crate::parts::format;
use crate::parts::memo::{effect, memo};
use crate::parts::seen::seen;
use crate::parts::theme::Theme;
use crate::words::{said, t};
use export::Save;
use legend::Legend;
use leptos::ev::{KeyboardEvent, PointerEvent, WheelEvent};
use leptos::html;
use leptos::prelude::*;
use moslim_charts::view::nearest;
use moslim_charts::{Geometry, Plot, View, band, line, ramp};
use plotters::prelude::IntoDrawingArea;
use reading::{places, sentence};
use table::Table;
use web_sys::HtmlCanvasElement;

/// What charts of a page share.
#[derive(Clone, Copy)]
pub struct Linked {
    /// The step that is looked at.
    pub at: RwSignal<Option<f64>>,
    /// How much averaged lines keep of the past.
    pub smoothing: RwSignal<f64>,
}

impl Linked {
    /// Nothing is looked at, and lines are averaged a little.
    pub fn new() -> Self {
        Self { at: RwSignal::new(None), smoothing: RwSignal::new(0.8) }
    }
}

impl Default for Linked {
    fn default() -> Self {
        Self::new()
    }
}

/// What of one chart is shown.
#[derive(Clone, Copy)]
struct Shown {
    plot: Memo<Plot>,
    linked: Linked,
    window: RwSignal<Option<(f64, f64)>>,
    hidden: RwSignal<Vec<usize>>,
    log: RwSignal<bool>,
    log_x: RwSignal<bool>,
    table: RwSignal<bool>,
    geometry: RwSignal<Option<Geometry>>,
    /// Where a brush began and where it is, CSS pixels.
    brush: RwSignal<Option<(f64, f64)>>,
}

impl Shown {
    /// Whether x is steps, which other charts share.
    fn over_steps(self) -> bool {
        self.plot.with_untracked(|plot| !matches!(plot, Plot::Lines(p) if p.over == moslim_charts::Over::Kl))
    }

    fn view(self) -> View {
        View {
            window: self.window.get(),
            smoothing: if self.over_steps() { self.linked.smoothing.get() } else { 0.0 },
            hidden: self.hidden.get(),
            log: self.log.get(),
            log_x: self.log_x.get(),
        }
    }

    /// Looks at the place of the data nearest to a CSS pixel. What is no step is looked at nowhere.
    fn look(self, pixel: f64) {
        if !self.over_steps() {
            return;
        }
        let Some(geometry) = self.geometry.get_untracked() else { return };
        let x = geometry.x_at(pixel * ratio());
        let near = self.plot.with_untracked(|plot| nearest_place(plot, x));
        self.linked.at.set(near);
    }

    /// Looks `by` places further on; from the last one where nothing is looked at yet.
    fn step(self, by: isize) {
        if !self.over_steps() {
            return;
        }
        let all = self.plot.with_untracked(places);
        if all.is_empty() {
            return;
        }
        let now = self.linked.at.get_untracked();
        let place = now.map(|x| all.partition_point(|&p| p < x).min(all.len() - 1));
        let next = place.unwrap_or(all.len() - 1).saturating_add_signed(by).min(all.len() - 1);
        self.linked.at.set(Some(all[next]));
    }

    /// Shows a range `factor` times as wide around what is looked at.
    fn zoom(self, factor: f64, around: Option<f64>) {
        // A window between two rows shows nothing; from there only everything can be shown.
        let Some((all, geometry)) = self.plot.with_untracked(Plot::extent).zip(self.geometry.get_untracked()) else {
            return self.window.set(None);
        };
        let middle =
            around.or(self.linked.at.get_untracked()).unwrap_or_else(|| geometry.x_at((geometry.left + geometry.right) / 2.0));
        let middle = middle.clamp(geometry.x.0, geometry.x.1);
        self.window.set(View::zoomed(geometry.x, all, middle, factor, geometry.log_x));
    }

    fn key(self, event: &KeyboardEvent) {
        if event.ctrl_key() || event.meta_key() || event.alt_key() {
            return;
        }
        let far = if event.shift_key() { 10 } else { 1 };
        match event.key().as_str() {
            "ArrowRight" => self.step(far),
            "ArrowLeft" => self.step(-far),
            "Home" => self.step(isize::MIN / 2),
            "End" => self.step(isize::MAX / 2),
            "+" | "=" => self.zoom(0.5, None),
            "-" => self.zoom(2.0, None),
            "0" => self.window.set(None),
            "l" => self.log.update(|log| *log = !*log),
            "x" => self.log_x.update(|log| *log = !*log),
            "t" => self.table.update(|table| *table = !*table),
            "s" => self.linked.smoothing.update(|s| {
                *s = if *s > 0.85 {
                    0.0
                } else if *s > 0.0 {
                    0.95
                } else {
                    0.8
                }
            }),
            "Escape" => {
                self.linked.at.set(None);
                self.brush.set(None);
            }
            _ => return,
        }
        event.prevent_default();
    }

    /// The end of a brush: what it covers is shown.
    fn brushed(self) {
        let Some((from, to)) = self.brush.get_untracked() else { return };
        self.brush.set(None);
        let Some(geometry) = self.geometry.get_untracked() else { return };
        if (to - from).abs() > 6.0 {
            let (a, b) = (geometry.x_at(from.min(to) * ratio()), geometry.x_at(from.max(to) * ratio()));
            if b > a {
                self.window.set(Some((a, b)));
            }
        }
    }
}

fn ratio() -> f64 {
    window().device_pixel_ratio().clamp(1.0, 4.0)
}

fn nearest_place(plot: &Plot, x: f64) -> Option<f64> {
    let near = |a: &f64, b: &f64| (a - x).abs().total_cmp(&(b - x).abs());
    match plot {
        Plot::Lines(p) => p.series.iter().filter_map(|s| nearest(&s.points, x)).map(|p| p.0).min_by(near),
        Plot::Bands(p) => p.rows.iter().map(|r| r.0).min_by(near),
    }
}

/// A chart card.
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
    let (resized, seen) = (resized(canvas), seen(canvas, "200px"));
    let shown = Shown {
        plot,
        linked: use_context::<Linked>().unwrap_or_default(),
        window: RwSignal::new(None),
        hidden: RwSignal::new(Vec::new()),
        log: RwSignal::new(false),
        log_x: RwSignal::new(false),
        table: RwSignal::new(false),
        geometry: RwSignal::new(None),
        brush: RwSignal::new(None),
    };
    let waits = StoredValue::new(false);
    let picture = move || {
        let Some(element) = canvas.try_get_untracked().flatten() else { return };
        waits.set_value(false);
        let view = untrack(|| shown.view());
        let geometry = plot.with_untracked(|plot| draw(&element, plot, &view));
        if shown.geometry.get_untracked() != geometry {
            shown.geometry.set(geometry);
        }
    };
    effect(move || {
        theme.track();
        resized.track();
        if !seen.get() {
            return;
        }
        // What the picture is of, which is asked for when it is drawn.
        let _ = shown.view();
        plot.with(|_| ());
        if canvas.get().is_some() && !waits.get_value() {
            waits.set_value(true);
            soon(picture);
        }
    });
    // Places of lines that are hidden are those of today's lines.
    let lines = memo(move || plot.with(reading::names));
    Effect::new(move |before: Option<Vec<String>>| {
        let now = lines.get();
        if before.is_some_and(|before| before != now) {
            shown.hidden.set(Vec::new());
        }
        now
    });
    let has_data = memo(move || plot.with(|plot| !plot.is_empty()));
    let bare = move || !has_data.get();
    let (heading, own) = (title.clone(), id.clone());
    let unit = memo(move || plot.with(reading::unit));
    let x_title = memo(move || plot.with(reading::across));
    let offset = |ev: &PointerEvent| f64::from(ev.offset_x());
    let moved = move |ev: PointerEvent| {
        shown.look(offset(&ev));
        // A button that was let go elsewhere was let go.
        if ev.buttons() == 0 {
            return shown.brush.set(None);
        }
        shown.brush.update(|brush| {
            if let Some(brush) = brush {
                brush.1 = offset(&ev)
            }
        });
    };
    let wheel = move |ev: WheelEvent| {
        // The page scrolls under a chart that nobody has turned to.
        let focused =
            document().active_element().is_some_and(|e| Some(e) == ev.target().map(wasm_bindgen::JsCast::unchecked_into));
        let Some(geometry) = shown.geometry.get_untracked().filter(|_| focused || ev.ctrl_key()) else { return };
        ev.prevent_default();
        let x = geometry.x_at(f64::from(ev.offset_x()) * ratio());
        shown.zoom(if ev.delta_y() > 0.0 { 1.25 } else { 0.8 }, Some(x));
    };
    let hair = move || {
        let (at, geometry) = (shown.linked.at.get()?, shown.geometry.get()?);
        (shown.over_steps() && (geometry.x.0..=geometry.x.1).contains(&at))
            .then(|| format!("{:.1}px", geometry.pixel(at) / ratio()))
    };
    let covered = move || {
        let (from, to) = shown.brush.get()?;
        Some((format!("{:.1}px", from.min(to)), format!("{:.1}px", (from - to).abs())))
    };
    // Only lines have axes that can be logarithmic.
    let lined = memo(move || plot.with(|plot| matches!(plot, Plot::Lines(_))));
    let axis = move |name: &'static str, log: RwSignal<bool>| {
        view! {
            <button
                class="link"
                type="button"
                class:gone=move || !lined.get()
                aria-pressed=move || log.get().to_string()
                on:click=move |_| log.update(|log| *log = !*log)
            >
                {name}
            </button>
        }
    };

    view! {
        <figure class="card chart" id=own>
            <figcaption>
                <h3>{title.clone()}</h3>
                <p class="hint">{hint}</p>
            </figcaption>
            <Legend shown=shown/>
            <p class="axis hint" class:gone=bare>{move || unit.get()}</p>
            <div class="plot">
                <canvas
                    node_ref=canvas
                    role="img"
                    tabindex="0"
                    aria-label=move || plot.with(|plot| sentence(&heading, plot))
                    aria-description=t("Arrow keys look at a step, plus and minus zoom, 0 shows everything, t opens the table, l and x change the axes, s smoothing.")
                    class:gone=bare
                    on:pointermove=moved
                    on:pointerleave=move |_| shown.linked.at.set(None)
                    on:pointerdown=move |ev| if ev.button() == 0 && shown.over_steps() && shown.geometry.with_untracked(Option::is_some) {
                        shown.brush.set(Some((offset(&ev), offset(&ev))));
                    }
                    on:pointerup=move |_| shown.brushed()
                    on:pointercancel=move |_| shown.brush.set(None)
                    on:dblclick=move |_| shown.window.set(None)
                    on:wheel=wheel
                    on:keydown=move |ev| shown.key(&ev)
                ></canvas>
                {move || hair().map(|left| view! { <span class="hair" style:left=left></span> })}
                {move || covered().map(|(left, width)| view! { <span class="brush" style:left=left style:width=width></span> })}
                <p class="empty" class:gone=move || has_data.get()>{empty}</p>
            </div>
            <p class="axis x hint" class:gone=bare>{move || x_title.get()}</p>
            <p class="tools" class:gone=bare>
                <button
                    class="link"
                    type="button"
                    aria-pressed=move || shown.table.get().to_string()
                    on:click=move |_| shown.table.update(|t| *t = !*t)
                >
                    {move || if shown.table.get() { t("Hide the table") } else { t("Table") }}
                </button>
                <button
                    class="link"
                    type="button"
                    class:gone=move || shown.window.with(Option::is_none)
                    on:click=move |_| shown.window.set(None)
                >
                    {t("Show everything")}
                </button>
                {axis(t("Log y"), shown.log)}
                {axis(t("Log x"), shown.log_x)}
                <Save shown=shown title=title id=id/>
            </p>
            {move || shown.table.get().then(|| view! { <Table shown=shown/> })}
        </figure>
    }
}

/// Draws into the canvas in device pixels, and says where the data are.
fn draw(canvas: &HtmlCanvasElement, plot: &Plot, view: &View) -> Option<Geometry> {
    let (backend, palette) = surface(canvas)?;
    let area = backend.into_drawing_area();
    // A canvas takes everything that is drawn on it.
    match plot {
        Plot::Lines(lines) => line::draw(&area, lines, view, &palette).ok().flatten(),
        Plot::Bands(bands) => band::draw(&area, bands, view, &palette).ok().flatten(),
    }
}

/// The style sheet's colour of a class; the same mixture as on the canvas.
pub fn class_color(objective: usize, class: usize, classes: usize) -> String {
    format::tint(objective, ramp(class, classes) * 100.0)
}

/// A place on the x axis, for people.
fn place_name(plot: &Plot, x: f64) -> String {
    match plot {
        Plot::Lines(p) if p.over == moslim_charts::Over::Kl => format!("KL {}", format::number(x, 2)),
        _ => said("step {0}", &[&format!("{x:.0}")]),
    }
}
