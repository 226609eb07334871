//! What groups of runs reach between their objectives: two of them that the reader chooses as a plane, and all of them as parallel axes.

use crate::parts::canvas::{resized, surface};
use crate::parts::format;
use crate::parts::memo::{effect, memo};
use crate::parts::pick::Pick;
use crate::parts::sheet::{Save, Sheet, quoted};
use crate::parts::table::Table;
use crate::parts::theme::Theme;
use crate::parts::title::origin;
use crate::words::{said, t};
use leptos::html;
use leptos::prelude::*;
use moslim_charts::front::{self as drawing, FrontPlot};
use moslim_charts::{Ink, Palette};
use moslim_shared::pareto::attained;
use plotters::prelude::IntoDrawingArea;
use serde_json::json;

/// Trade-offs of one legend entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub name: String,
    pub ink: Ink,
    /// `runs[run][trade-off][objective]`: utilities, 0 the worst class and 1 the best.
    pub runs: Vec<Vec<Vec<f64>>>,
    /// Of several runs: how many of them must reach what is drawn.
    pub by: usize,
    /// Whether these are the runs of the group before, reached by fewer: they count once.
    pub again: bool,
}

/// What is drawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fronts {
    /// Names of the coordinates.
    pub objectives: Vec<String>,
    /// Reference point of the hypervolume.
    pub reference: Vec<f64>,
    pub groups: Vec<Group>,
}

impl Fronts {
    /// Those trade-offs alone that reach at least `least` in every objective.
    fn reaching(&self, least: &[f64]) -> Self {
        let reaches = |point: &&Vec<f64>| point.iter().zip(least).all(|(value, least)| *least == 0.0 || value >= least);
        let mut kept = self.clone();
        for run in kept.groups.iter_mut().flat_map(|g| &mut g.runs) {
            *run = run.iter().filter(reaches).cloned().collect();
        }
        kept
    }

    /// Trade-offs of all groups.
    fn count(&self) -> usize {
        self.groups.iter().filter(|g| !g.again).flat_map(|g| &g.runs).map(Vec::len).sum()
    }
}

/// The figure with axes of its own, which no address keeps.
#[component]
pub fn OwnFront(id: &'static str, fronts: Memo<Fronts>) -> impl IntoView {
    let axes = RwSignal::new((String::new(), String::new()));
    view! {
        <FrontFigure
            id=id
            fronts=fronts
            x=Signal::derive(move || axes.get().0)
            y=Signal::derive(move || axes.get().1)
            choose=Callback::new(move |new| axes.set(new))
        />
    }
}

/// The figure. `id`: what the identities of its parts begin with; `choose` is told of other axes.
#[component]
pub fn FrontFigure(
    id: &'static str,
    fronts: Memo<Fronts>,
    #[prop(into)] x: Signal<String>,
    #[prop(into)] y: Signal<String>,
    #[prop(into)] choose: Callback<(String, String)>,
) -> impl IntoView {
    let canvas = NodeRef::<html::Canvas>::new();
    let theme = expect_context::<Theme>().revision;
    let resized = resized(canvas);
    let names = memo(move || fronts.with(|f| f.objectives.clone()));
    let least = RwSignal::new(Vec::<f64>::new());
    effect(move || least.set(vec![0.0; names.get().len()]));
    let kept = memo(move || least.with(|least| fronts.with(|f| f.reaching(least))));
    // Places on the axes, whatever they are called by now.
    let x = memo(move || names.with(|names| chosen(names, &x.get(), 0)));
    let y = memo(move || names.with(|names| chosen(names, &y.get(), 1)));
    let plot = memo(move || kept.with(|kept| plot(kept, &x.get(), &y.get())));
    effect(move || {
        theme.track();
        resized.track();
        let Some(element) = canvas.get() else { return };
        plot.with(|plot| {
            if let Some((backend, palette)) = surface(&element) {
                // A canvas takes everything that is drawn on it.
                let _ = drawing::draw(&backend.into_drawing_area(), plot, &palette);
            }
        });
    });
    let made = move |kind: &'static str| {
        kept.with_untracked(|kept| match kind {
            "CSV" => csv(kept),
            "JSON" => data(kept, &origin()),
            _ => plot.with_untracked(|plane| svg(kept, plane, &origin())),
        })
    };
    let across = Callback::new(move |new: String| choose.run((new, y.get_untracked())));
    let up = Callback::new(move |new: String| choose.run((x.get_untracked(), new)));
    view! {
        <figure class="card chart">
            <div class="fields">
                // The lists are made anew with other objectives only; otherwise an open one would close when a run is finished.
                {move || {
                    let options: Vec<(String, String)> = names.get().into_iter().map(|name| (name.clone(), name)).collect();
                    view! {
                        <Pick id=format!("{id}-x") label=t("Across") options=options.clone() chosen=x choose=across/>
                        <Pick id=format!("{id}-y") label=t("Up") options=options chosen=y choose=up/>
                    }
                }}
            </div>
            <ul class="legend">{move || fronts.with(legend)}</ul>
            <div class="grid two">
            <div class="plot front-plot">
                <canvas node_ref=canvas role="img" tabindex="0" aria-label=move || kept.with(|f| sentence(f, &x.get(), &y.get()))></canvas>
            </div>
            <div>
                <h3>{t("All objectives at once")}</h3>
                {move || kept.with(parallel)}
                <p class="label">{t("At least so much of each")}</p>
                {move || names.get().into_iter().enumerate().map(|(n, name)| slider(n, name, least)).collect_view()}
                <p class="hint" id=format!("{id}-kept")>
                    {move || said(
                        "{0} of {1} trade-offs reach at least what the sliders say; the others leave both pictures.",
                        &[&kept.with(Fronts::count).to_string(), &fronts.with(Fronts::count).to_string()],
                    )}
                </p>
            </div>
            </div>
            <p class="tools"><Save name=format!("{id}-front") make=Callback::new(made)/></p>
            <details>
                <summary>{t("The trade-offs as a table")}</summary>
                {move || kept.with(listed)}
            </details>
        </figure>
    }
}

/// Every trade-off that is shown: its group, and what it reaches of each objective.
fn rows(fronts: &Fronts) -> Vec<(&str, &Vec<f64>)> {
    let own = fronts.groups.iter().filter(|g| !g.again);
    own.flat_map(|g| g.runs.iter().flatten().map(|point| (g.name.as_str(), point))).collect()
}

fn listed(fronts: &Fronts) -> impl IntoView + use<> {
    let heads = std::iter::once(t("Of")).map(String::from).chain(fronts.objectives.clone()).collect();
    let cells = |(name, point): &(&str, &Vec<f64>)| {
        std::iter::once(name.to_string()).chain(point.iter().map(|v| format::number(*v, 3))).collect::<Vec<String>>()
    };
    let rows = rows(fronts).iter().map(cells).collect();
    view! { <Table class="values" caption=t("Mean utility of each objective, 0 the worst class and 1 the best") heads=heads rows=rows/> }
}

/// All trade-offs, a line each.
fn csv(fronts: &Fronts) -> String {
    let line = |name: &str, cells: Vec<String>| std::iter::once(quoted(name)).chain(cells).collect::<Vec<_>>().join(",") + "\n";
    let heads = line("of", fronts.objectives.iter().map(|o| quoted(o)).collect());
    heads + &rows(fronts).iter().map(|(name, p)| line(name, p.iter().map(f64::to_string).collect())).collect::<String>()
}

/// All trade-offs with what they are.
fn data(fronts: &Fronts, source: &str) -> String {
    let rows: Vec<_> = rows(fronts).iter().map(|(name, point)| json!({ "of": name, "utilities": point })).collect();
    let document = json!({ "source": source, "objectives": fronts.objectives, "reference": fronts.reference, "rows": rows });
    format!("{document:#}\n")
}

/// The plane on paper.
fn svg(fronts: &Fronts, plane: &FrontPlot, source: &str) -> String {
    let palette = Palette::paper();
    let entries = fronts.groups.iter().enumerate().map(|(n, g)| (g.name.clone(), palette.ink(g.ink), drawing::sign(n))).collect();
    let sheet = Sheet { title: t("What can be had together"), source, entries, ..Default::default() };
    sheet.svg(|area, palette| {
        // A drawing in memory takes everything; the axes carry their own names.
        let _ = drawing::draw(area, plane, palette);
    })
}

/// Says the least of an objective that a trade-off must reach.
fn slider(n: usize, name: String, least: RwSignal<Vec<f64>>) -> impl IntoView {
    let value = move || least.with(|l| l.get(n).copied().unwrap_or_default());
    let set = move |text: String| {
        least.update(|l| {
            if let (Some(own), Ok(new)) = (l.get_mut(n), text.parse()) {
                *own = new;
            }
        });
    };
    view! {
        <label class="slider">
            <span>{name}</span>
            <input type="range" min="0" max="1" step="0.02" value="0" on:input=move |ev| set(event_target_value(&ev))/>
            <output class="num">{move || format::number(value(), 2)}</output>
        </label>
    }
}

/// Size of the picture with parallel axes, and what lies around the axes.
const WIDE: f64 = 640.0;
const TALL: f64 = 240.0;
const EDGE: f64 = 56.0;
const DASHES: [&str; 4] = ["", "7 4", "2 3", "9 3 2 3"];

/// A line across all axes for every trade-off.
fn parallel(fronts: &Fronts) -> impl IntoView + use<> {
    let axes = fronts.objectives.len();
    let at = move |n: usize, value: f64| {
        let step = (WIDE - 2.0 * EDGE) / (axes.max(2) - 1) as f64;
        (EDGE + n as f64 * step, TALL - 24.0 - value.clamp(0.0, 1.0) * (TALL - 60.0))
    };
    let lines = fronts.groups.iter().enumerate().filter(|(_, group)| !group.again).flat_map(|(g, group)| {
        group.runs.iter().flatten().map(move |point| {
            let corners: Vec<String> =
                point.iter().enumerate().map(|(n, v)| at(n, *v)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            view! { <polyline points=corners.join(" ") style:stroke=group.ink.css() stroke-dasharray=DASHES[g % DASHES.len()]/> }
        })
    });
    let lines = lines.collect_view();
    let frames = fronts
        .objectives
        .iter()
        .enumerate()
        .map(|(n, name)| {
            let ((x, low), (_, high)) = (at(n, 0.0), at(n, 1.0));
            view! {
                <line x1=x x2=x y1=low y2=high/>
                <text x=x y=high - 12.0>{name.clone()}</text>
                <text x=x y=low + 16.0>"0"</text>
                <text x=x - 10.0 y=high + 5.0>"1"</text>
            }
        })
        .collect_view();
    let told = said(
        "{0} trade-offs over {1}: a line each, from 0, the worst class, to 1.",
        &[&fronts.count().to_string(), &fronts.objectives.join(", ")],
    );
    view! {
        <svg class="parallel" viewBox=format!("0 0 {WIDE} {TALL}") role="img" aria-label=told>{lines}{frames}</svg>
    }
}

/// The objective that was asked for if there is one of this name, otherwise the one at `position`, or the last.
fn chosen(objectives: &[String], asked: &str, position: usize) -> String {
    let found = objectives.iter().find(|o| o.as_str() == asked);
    found.or_else(|| objectives.get(position)).or_else(|| objectives.last()).cloned().unwrap_or_default()
}

/// The coordinates of all groups in the objectives `x` and `y`.
fn plot(fronts: &Fronts, x: &str, y: &str) -> FrontPlot {
    let place = |name: &str| fronts.objectives.iter().position(|o| o == name);
    let (Some(i), Some(j)) = (place(x), place(y)) else { return FrontPlot::default() };
    let at = |values: &Vec<f64>| {
        let point = (*values.get(i)?, *values.get(j)?);
        (point.0.is_finite() && point.1.is_finite()).then_some(point)
    };
    let points = |group: &Group| {
        let runs: Vec<Vec<(f64, f64)>> = group.runs.iter().map(|run| run.iter().filter_map(at).collect()).collect();
        match <[_; 1]>::try_from(runs) {
            Ok([only]) => (group.ink, only),
            Err(runs) => (group.ink, attained(&runs, group.by)),
        }
    };
    FrontPlot {
        x: x.to_string(),
        y: y.to_string(),
        floor: at(&fronts.reference).unwrap_or_default(),
        groups: fronts.groups.iter().map(points).collect(),
    }
}

fn legend(fronts: &Fronts) -> impl IntoView + use<> {
    let entries = fronts.groups.iter().enumerate().map(|(n, group)| {
        view! {
            <li>
                <span class="marker" aria-hidden="true" style:color=group.ink.css()>{drawing::sign(n)}</span>
                {group.name.clone()}
            </li>
        }
    });
    entries.collect_view()
}

/// The chart in words: how many points of every group no other one dominates.
fn sentence(fronts: &Fronts, x: &str, y: &str) -> String {
    let plot = plot(fronts, x, y);
    let groups = fronts.groups.iter().zip(&plot.groups).map(|(group, (_, points))| {
        let (front, all) = (drawing::front(points).len().to_string(), points.len().to_string());
        said("{0}: {1} of {2} points are not dominated", &[&group.name, &front, &all])
    });
    said("{0} across, {1} up. {2}.", &[x, y, &groups.collect::<Vec<_>>().join("; ")])
}

/// Where the hypervolume begins, and what it says.
pub fn reference(fronts: &Fronts) -> impl IntoView + use<> {
    let place: Vec<String> =
        fronts.objectives.iter().zip(&fronts.reference).map(|(name, value)| format!("{name} {value}")).collect();
    let text = said(
        "The hypervolume in the table is the volume between the reference point ({0}) and everything that a run's points dominate, in all objectives at once and not only in these two: the larger it is, the more of what can be asked for is delivered.",
        &[&place.join(", ")],
    );
    view! { <p class="hint">{text}</p> }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fronts() -> Fronts {
        let group = |name: &str, runs: &[&[[f64; 3]]], by: usize| Group {
            name: name.into(),
            ink: Ink::Objective(by),
            runs: runs.iter().map(|run| run.iter().map(|p| p.to_vec()).collect()).collect(),
            by,
            again: false,
        };
        Fronts {
            objectives: ["a", "b", "c"].map(String::from).to_vec(),
            reference: vec![0.0, 0.25, 0.0],
            groups: vec![
                group("one", &[&[[0.5, 0.9, 0.25], [0.75, 0.9, 0.5], [0.2, f64::NAN, 1.0]]], 1),
                group("two", &[&[[1.0, 0.0, 0.0]], &[[0.5, 0.0, 0.5]]], 2),
            ],
        }
    }

    #[test]
    fn the_address_chooses_the_axes_and_has_defaults() {
        let objectives = fronts().objectives;
        assert_eq!(chosen(&objectives, "c", 0), "c");
        assert_eq!(chosen(&objectives, "unknown", 1), "b");
        assert_eq!(chosen(&objectives[..1], "", 1), "a");
        assert_eq!(chosen(&[], "a", 0), "");
    }

    #[test]
    fn groups_are_seen_in_two_objectives_and_several_runs_as_what_they_all_reach() {
        let plot = plot(&fronts(), "c", "b");
        assert_eq!((plot.x.as_str(), plot.y.as_str(), plot.floor), ("c", "b", (0.0, 0.25)));
        let [one, two] = [1, 2].map(Ink::Objective);
        assert_eq!(plot.groups, [(one, vec![(0.25, 0.9), (0.5, 0.9)]), (two, vec![(0.0, 0.0)])]);
        assert_eq!(super::plot(&fronts(), "c", "nothing"), FrontPlot::default());
    }

    #[test]
    fn a_file_has_every_trade_off_that_is_shown() {
        let mut fronts = fronts();
        fronts.groups[0].runs[0].pop();
        // Reached by fewer: the same runs.
        fronts.groups.push(Group { again: true, ..fronts.groups[1].clone() });
        assert_eq!(csv(&fronts), "of,a,b,c\none,0.5,0.9,0.25\none,0.75,0.9,0.5\ntwo,1,0,0\ntwo,0.5,0,0.5\n");
        let document: serde_json::Value = serde_json::from_str(&data(&fronts, "/compare")).unwrap();
        assert_eq!(
            (&document["rows"][2], &document["source"]),
            (&json!({ "of": "two", "utilities": [1.0, 0.0, 0.0] }), &json!("/compare"))
        );
        let drawing = svg(&fronts, &plot(&fronts, "a", "c"), "/compare");
        for part in [">●</tspan> one", "/compare", "\na\n", "\nc\n"] {
            assert!(drawing.contains(part), "{part} is not in {drawing}");
        }
    }

    #[test]
    fn a_least_of_every_objective_leaves_out_what_does_not_reach_it() {
        let kept = fronts().reaching(&[0.5, 0.0, 0.5]);
        assert_eq!(kept.groups[0].runs, [[[0.75, 0.9, 0.5]]]);
        assert_eq!((kept.count(), fronts().count()), (2, 5));
        let mut twice = fronts();
        twice.groups.push(Group { by: 1, again: true, ..twice.groups[1].clone() });
        assert_eq!(twice.count(), 5, "the same runs count once");
        assert_eq!(fronts().reaching(&[0.0; 3]).count(), 5, "what is not known reaches nothing, but nothing is asked");
        assert_eq!(fronts().reaching(&[0.0, 0.1, 0.0]).count(), 2);
    }

    #[test]
    fn the_chart_is_told_in_words() {
        let text = sentence(&fronts(), "a", "c");
        assert_eq!(text, "a across, c up. one: 2 of 3 points are not dominated; two: 1 of 1 points are not dominated.");
    }
}
