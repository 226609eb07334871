//! The trade-offs that a study found, in two objectives that the reader chooses.

use crate::app::Theme;
use crate::derived;
use crate::pages::study::{Study, setting};
use crate::parts::canvas::{observe, surface};
use crate::parts::comparison::{has_front, significant};
use crate::parts::pick::pick;
use crate::parts::region::region;
use crate::router::Address;
use leptos::html;
use leptos::prelude::*;
use moslim_charts::front::{self as drawing, FrontPlot};
use moslim_shared::study::StudyResults;
use plotters::prelude::IntoDrawingArea;

/// The section with the chart. The objectives on its axes are part of the address, as `x` and `y`.
pub fn front(study: Study, address: Address) -> AnyView {
    let canvas = NodeRef::<html::Canvas>::new();
    let theme = expect_context::<Theme>().revision;
    let resized = RwSignal::new(0u64);
    observe(canvas, resized);
    let axis = move |name: &'static str, position: usize| {
        derived::text(move || {
            let asked = address.asked(name).unwrap_or_default();
            study.results(|r| r.map(|r| chosen(&r.objectives, &asked, position)).unwrap_or_default())
        })
    };
    let (x, y) = (axis("x", 0), axis("y", 1));
    derived::effect(move || {
        theme.track();
        resized.track();
        let (x, y) = (x.get(), y.get());
        let plot = study.results(|r| r.map(|r| plot(r, &x, &y)));
        let Some(element) = canvas.get() else { return };
        if let (Some(plot), Some((backend, palette))) = (plot, surface(&element)) {
            // A canvas takes everything that is drawn on it.
            let _ = drawing::draw(&backend.into_drawing_area(), &plot, &palette);
        }
    });
    let shown = derived::flag(move || study.results(|r| r.is_some_and(has_front)));
    // The lists are made anew with other objectives only; otherwise an open one would close when a run is finished.
    let names = derived::text(move || study.results(|r| r.map(|r| r.objectives.join(",")).unwrap_or_default()));
    view! {
        <section id="front" class="section" aria-labelledby="front-title" class:gone=move || !shown.get()>
            <h2 id="front-title">"Trade-offs"</h2>
            <p class="muted">
                "Every point is what one setting delivers when one trade-off is asked for (or one weight vector trained): the mean utility on held-out questions, averaged over the seeds. 0 is the worst class of an objective and 1 the best. Pale points are dominated: another one of the same setting is at least as good on both axes."
            </p>
            <figure class="card chart">
                <div class="fields">
                    {region(move || axes(&names.get(), x, y, address))}
                </div>
                <ul class="legend">{region(move || study.results(|r| r.map_or_else(|| ().into_any(), legend)))}</ul>
                <div class="plot front-plot">
                    <canvas
                        node_ref=canvas
                        role="img"
                        tabindex="0"
                        aria-label=move || {
                            let (x, y) = (x.get(), y.get());
                            study.results(|r| r.map(|r| sentence(r, &x, &y)).unwrap_or_default())
                        }
                    ></canvas>
                </div>
                {region(move || study.results(|r| r.map_or_else(|| ().into_any(), reference)))}
            </figure>
        </section>
    }
    .into_any()
}

/// The two choices. `names`: of the objectives, separated by commas.
fn axes(names: &str, x: Memo<String>, y: Memo<String>, address: Address) -> AnyView {
    let options: Vec<(String, String)> = names.split(',').map(|name| (name.to_string(), name.to_string())).collect();
    let note = move |x: &str, y: &str| address.note(&[("x", x), ("y", y)]);
    let across = Box::new(move |new: String| note(&new, &y.get_untracked()));
    let up = Box::new(move |new: String| note(&x.get_untracked(), &new));
    vec![pick("front-x", "Across", options.clone(), x, across), pick("front-y", "Up", options, y, up)].into_any()
}

/// The objective that was asked for if there is one of this name, otherwise the one at `position`, or the last.
fn chosen(objectives: &[String], asked: &str, position: usize) -> String {
    let found = objectives.iter().find(|o| o.as_str() == asked);
    found.or_else(|| objectives.get(position)).or_else(|| objectives.last()).cloned().unwrap_or_default()
}

/// The coordinates of all groups in the objectives `x` and `y`.
fn plot(results: &StudyResults, x: &str, y: &str) -> FrontPlot {
    let place = |name: &str| results.objectives.iter().position(|o| o == name);
    let (Some(i), Some(j)) = (place(x), place(y)) else { return FrontPlot::default() };
    let at = |values: &[f64]| {
        let point = (*values.get(i)?, *values.get(j)?);
        (point.0.is_finite() && point.1.is_finite()).then_some(point)
    };
    FrontPlot {
        x: x.to_string(),
        y: y.to_string(),
        floor: at(&results.reference).unwrap_or_default(),
        groups: results.groups.iter().map(|g| g.front.iter().filter_map(|p| at(p)).collect()).collect(),
    }
}

fn legend(results: &StudyResults) -> AnyView {
    let entries = results.groups.iter().enumerate().map(|(n, group)| {
        view! {
            <li>
                <span class="marker" aria-hidden="true" style:color=drawing::ink(n).css()>{drawing::sign(n)}</span>
                {setting(&group.labels)}
            </li>
        }
        .into_any()
    });
    entries.collect::<Vec<AnyView>>().into_any()
}

/// The chart in words: how many points of every group no other one dominates.
fn sentence(results: &StudyResults, x: &str, y: &str) -> String {
    let plot = plot(results, x, y);
    let groups: Vec<String> = results
        .groups
        .iter()
        .zip(&plot.groups)
        .map(|(group, points)| {
            let best = drawing::front(points).len();
            format!("{}: {best} of {} points are not dominated", setting(&group.labels), points.len())
        })
        .collect();
    format!("{x} across, {y} up. {}.", groups.join("; "))
}

/// Where the hypervolume begins, and what it says.
fn reference(results: &StudyResults) -> AnyView {
    let place: Vec<String> = results
        .objectives
        .iter()
        .zip(&results.reference)
        .map(|(name, value)| format!("{name} {}", significant(*value)))
        .collect();
    let text = format!(
        "The hypervolume in the table is the volume between the reference point ({}) and everything that a run's points dominate, in all objectives at once and not only in these two: the larger it is, the more of what can be asked for is delivered.",
        place.join(", ")
    );
    view! { <p class="hint">{text}</p> }.into_any()
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::study::StudyGroup;

    fn results() -> StudyResults {
        let group = |label: &str, front: &[[f64; 3]]| StudyGroup {
            labels: vec![label.into()],
            front: front.iter().map(|p| p.to_vec()).collect(),
            ..Default::default()
        };
        StudyResults {
            objectives: ["a", "b", "c"].map(String::from).to_vec(),
            reference: vec![0.0, 0.25, 0.0],
            groups: vec![
                group("one", &[[0.5, 0.9, 0.25], [0.75, 0.9, 0.5], [0.2, f64::NAN, 1.0]]),
                group("two", &[[1.0, 0.0, 0.0]]),
            ],
            ..Default::default()
        }
    }

    #[test]
    fn the_address_chooses_the_axes_and_has_defaults() {
        let objectives = results().objectives;
        assert_eq!(chosen(&objectives, "c", 0), "c");
        assert_eq!(chosen(&objectives, "unknown", 1), "b");
        assert_eq!(chosen(&objectives[..1], "", 1), "a");
        assert_eq!(chosen(&[], "a", 0), "");
    }

    #[test]
    fn groups_are_seen_in_two_objectives() {
        let plot = plot(&results(), "c", "b");
        assert_eq!((plot.x.as_str(), plot.y.as_str(), plot.floor), ("c", "b", (0.0, 0.25)));
        assert_eq!(plot.groups, [vec![(0.25, 0.9), (0.5, 0.9)], vec![(0.0, 0.0)]]);
        assert_eq!(super::plot(&results(), "c", "nothing"), FrontPlot::default());
    }

    #[test]
    fn the_chart_is_told_in_words() {
        let text = sentence(&results(), "a", "c");
        assert_eq!(text, "a across, c up. one: 2 of 3 points are not dominated; two: 1 of 1 points are not dominated.");
    }
}
