//! The trade-offs that a study found, in two objectives that the reader chooses.

use crate::pages::study::comparison::{has_front, significant};
use crate::pages::study::handle::Study;
use crate::parts::canvas::{resized, surface};
use crate::parts::pick::Pick;
use crate::parts::theme::Theme;
use crate::state::study::setting;
use leptos::html;
use leptos::prelude::*;
use leptos_router::NavigateOptions;
use leptos_router::hooks::query_signal_with_options;
use moslim_charts::front::{self as drawing, FrontPlot};
use moslim_shared::study::StudyResults;
use plotters::prelude::IntoDrawingArea;

/// The section with the chart. The objectives on its axes are part of the address, as `x` and `y`.
#[component]
pub fn Front(study: Study) -> impl IntoView {
    let canvas = NodeRef::<html::Canvas>::new();
    let theme = expect_context::<Theme>().revision;
    let resized = resized(canvas);
    // The browser's button leads to the page before, and not through every choice that was made on this one.
    let options = || NavigateOptions { replace: true, scroll: false, ..Default::default() };
    let (asked_x, ask_x) = query_signal_with_options::<String>("x", options());
    let (asked_y, ask_y) = query_signal_with_options::<String>("y", options());
    let names = study.found(|r| r.objectives.clone());
    let axis = move |asked: Memo<Option<String>>, position: usize| {
        Memo::new(move |_| names.with(|names| chosen(names, &asked.get().unwrap_or_default(), position)))
    };
    let (x, y) = (axis(asked_x, 0), axis(asked_y, 1));
    // Both are named, so that the address says what is shown.
    let note = move |x: String, y: String| {
        ask_x.set(Some(x));
        ask_y.set(Some(y));
    };
    let across = Callback::new(move |new: String| note(new, y.get_untracked()));
    let up = Callback::new(move |new: String| note(x.get_untracked(), new));
    let results = study.memo(|d| d.results.clone());
    let plot = Memo::new(move |_| {
        let (x, y) = (x.get(), y.get());
        results.with(|r| r.as_ref().map(|r| plot(r, &x, &y)))
    });
    Effect::new(move |_| {
        theme.track();
        resized.track();
        let Some(element) = canvas.get() else { return };
        plot.with(|plot| {
            if let (Some(plot), Some((backend, palette))) = (plot, surface(&element)) {
                // A canvas takes everything that is drawn on it.
                let _ = drawing::draw(&backend.into_drawing_area(), plot, &palette);
            }
        });
    });
    let shown = study.found(has_front);
    let spoken = move || {
        let (x, y) = (x.get(), y.get());
        results.with(|r| r.as_ref().map(|r| sentence(r, &x, &y)))
    };
    view! {
        <section id="front" class="section" aria-labelledby="front-title" class:gone=move || !shown.get()>
            <h2 id="front-title">"Trade-offs"</h2>
            <p class="muted">
                "Every point is what one setting delivers when one trade-off is asked for (or one weight vector trained): the mean utility on held-out questions, averaged over the seeds. 0 is the worst class of an objective and 1 the best. Pale points are dominated: another one of the same setting is at least as good on both axes."
            </p>
            <figure class="card chart">
                <div class="fields">
                    // The lists are made anew with other objectives only; otherwise an open one would close when a run is
                    // finished.
                    {move || {
                        let options: Vec<(String, String)> = names.get().into_iter().map(|name| (name.clone(), name)).collect();
                        view! {
                            <Pick id="front-x" label="Across" options=options.clone() chosen=x choose=across/>
                            <Pick id="front-y" label="Up" options=options chosen=y choose=up/>
                        }
                    }}
                </div>
                <ul class="legend">{move || results.with(|r| r.as_ref().map(legend))}</ul>
                <div class="plot front-plot">
                    <canvas node_ref=canvas role="img" tabindex="0" aria-label=spoken></canvas>
                </div>
                {move || results.with(|r| r.as_ref().map(reference))}
            </figure>
        </section>
    }
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

fn legend(results: &StudyResults) -> impl IntoView + use<> {
    let entries = results.groups.iter().enumerate().map(|(n, group)| {
        view! {
            <li>
                <span class="marker" aria-hidden="true" style:color=drawing::ink(n).css()>{drawing::sign(n)}</span>
                {setting(&group.labels)}
            </li>
        }
    });
    entries.collect_view()
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
fn reference(results: &StudyResults) -> impl IntoView + use<> {
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
    view! { <p class="hint">{text}</p> }
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
