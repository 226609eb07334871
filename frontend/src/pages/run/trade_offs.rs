//! What a method reaches over its trade-offs between the objectives.

use crate::parts::format;
use crate::parts::table::Table;
use crate::state::RunState;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_shared::objective::index_of;
use moslim_shared::pareto;
use moslim_shared::preference::Preference;
use moslim_shared::summary::{ChosenFront, FrontPart, FrontPoint, FrontReport};

/// The points, as tables, and their hypervolume.
pub fn trade_offs(state: &RunState) -> Option<impl IntoView + use<>> {
    let report = state.trade_offs()?;
    let chosen = report.chosen.as_ref().map(|chosen| {
        view! {
            <p class="hint">
                {t("Below, every trade-off gets the best of the whole menu: the offer whose answers to training questions had the highest \
                    weighted utility, as the reward model sees them.")}
            </p>
            {points(state, report, &chosen.points, t("One row for every trade-off, with the best offer for it"))}
            <p class="hint">{served(chosen)}</p>
        }
    });
    Some(view! {
        <div class="card" id="trade-offs">
            <h3>{t("Trade-offs")}</h3>
            <p class="hint">
                {t("Mean utility of each objective, from 0 (worst class) to 1 (best), as the grader sees answers to held-out questions. \
                    Weights are in the order of the columns.")}
            </p>
            <p class="hint">{menu(report)}</p>
            {points(state, report, &report.points, t("One row for every offer that is kept"))}
            <p class="hint">{volume(report)}</p>
            {parts(report)}
            {chosen}
        </div>
    })
}

/// The table of `list`, which are points of `report`.
fn points(state: &RunState, report: &FrontReport, list: &[FrontPoint], caption: &'static str) -> impl IntoView + use<> {
    let mut heads = Vec::new();
    if weighed(list) {
        heads.push(t("Weights").to_string());
    }
    if asks(list) {
        heads.push(t("Asked for").to_string());
    }
    heads.extend(report.objectives.iter().map(|id| name(state, id)));
    heads.extend([t("Fluent").to_string(), t("On the front").to_string()]);
    let rows = rows(state, report, list);
    view! { <Table class="values wide" caption=caption heads=heads rows=rows/> }
}

/// Name for people of an objective.
pub fn name(state: &RunState, id: &str) -> String {
    index_of(&state.objectives, id).map_or(id.to_string(), |i| state.objectives[i].name.clone())
}

fn rows(state: &RunState, report: &FrontReport, list: &[FrontPoint]) -> Vec<Vec<String>> {
    let utilities: Vec<Vec<f64>> = list.iter().map(|p| p.utility.clone()).collect();
    let (best, asks) = (pareto::front(&utilities), asks(list));
    // Weights are of all objectives, utilities of those that are steered.
    let steered: Vec<usize> = report.objectives.iter().filter_map(|id| index_of(&state.objectives, id)).collect();
    list.iter()
        .enumerate()
        .map(|(n, point)| {
            let mut row = Vec::new();
            if weighed(list) {
                let weights = steered.iter().filter_map(|&i| point.weights.get(i)).map(|w| format::number(*w, 2));
                row.push(weights.collect::<Vec<_>>().join(" / "));
            }
            if asks {
                // One that its prompt gave weights asked for no class.
                row.push(point.asked.as_ref().map_or(String::new(), |asked| classes(state, asked)));
            }
            row.extend(point.utility.iter().map(|u| format::number(*u, 2)));
            row.push(format::percent(point.fluency));
            row.push(if best.contains(&n) { t("yes") } else { t("dominated") }.to_string());
            row
        })
        .collect()
}

/// Whether points have weights of their own; a prompt that is kept for many users has none.
fn weighed(list: &[FrontPoint]) -> bool {
    list.iter().any(|p| !p.weights.is_empty())
}

/// Whether prompts of some points asked for classes.
fn asks(list: &[FrontPoint]) -> bool {
    list.iter().any(|p| p.asked.is_some())
}

/// The classes of a preference, in words.
fn classes(state: &RunState, asked: &Preference) -> String {
    let named = asked.asked().filter_map(|(i, c)| state.objectives.get(i)?.classes.get(c).cloned());
    let text = named.collect::<Vec<_>>().join(", ");
    if text.is_empty() { t("nothing").into() } else { text }
}

fn volume(report: &FrontReport) -> String {
    let reference: Vec<String> = report.reference.iter().map(|r| format::number(*r, 0)).collect();
    let utility = report.expected_utility.map_or(String::new(), |u| {
        said(" Expected utility {0}: the mean over the trade-offs of the weighted utility.", &[&format::number(u, 3)])
    });
    said(
        "Hypervolume {0} (95 % interval {1} to {2}): what the points dominate above the reference point ({3}), \
         the worst class of every objective.{4}",
        &[
            &format::number(report.hypervolume, 3),
            &format::number(report.interval[0], 3),
            &format::number(report.interval[1], 3),
            &reference.join(", "),
            &utility,
        ],
    )
}

/// The figures of the same offers on parts of the questions that differ in what training knew of them; nothing where they are of
/// one piece.
fn parts(report: &FrontReport) -> Option<impl IntoView + use<>> {
    let heads = ["", t("questions"), t("hypervolume"), t("expected utility")].map(String::from).to_vec();
    let row = |p: &FrontPart| {
        let [volume, utility] = [p.hypervolume, p.expected_utility].map(|x| format::number(x, 3));
        vec![p.part.clone(), format::count(p.n as u64), volume, utility]
    };
    let rows: Vec<Vec<String>> = report.parts.iter().map(row).collect();
    let caption = t("The offers that are kept, by part of the questions");
    (!rows.is_empty()).then(|| view! { <Table class="values" caption=caption heads=heads rows=rows/> })
}

/// Where the points come from.
fn menu(report: &FrontReport) -> String {
    match &report.menu {
        Some(menu) => said(
            "Of {0} offers, each tried on {1} training questions with the reward model, those that together reach furthest; every \
             trade-off is served by the best of them.",
            &[&menu.offers.to_string(), &menu.questions.to_string()],
        ),
        None => t("What was asked for is what a fixed map makes of each trade-off's weights.").into(),
    }
}

/// What the best offers reach.
fn served(chosen: &ChosenFront) -> String {
    let [utility, volume] = [chosen.expected_utility, chosen.hypervolume].map(|x| format::number(x, 3));
    said("Expected utility {0}, hypervolume {1}.", &[&utility, &volume])
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::objective::Objective;

    #[test]
    fn rows_show_the_weights_of_what_is_steered_and_who_is_dominated() {
        let mut state = RunState::default();
        state.objectives = ["a", "b", "c"].map(|id| Objective::new(id, id, "", &["0", "1"])).to_vec();
        let point = |weights: [f64; 3], utility: [f64; 2]| FrontPoint {
            weights: weights.to_vec(),
            asked: None,
            utility: utility.to_vec(),
            fluency: 0.5,
        };
        let mut report = FrontReport {
            objectives: vec!["a".into(), "c".into()],
            points: vec![point([1.0, 0.0, 0.0], [0.9, 0.2]), point([0.5, 0.0, 0.5], [0.5, 0.1])],
            reference: vec![0.0, 0.0],
            hypervolume: 0.25,
            interval: [0.125, 0.5],
            ..Default::default()
        };
        assert_eq!(
            rows(&state, &report, &report.points),
            [["1.00 / 0.00", "0.90", "0.20", "50 %", "yes"], ["0.50 / 0.50", "0.50", "0.10", "50 %", "dominated"]]
        );
        assert!(volume(&report).starts_with("Hypervolume 0.250 (95 % interval 0.125 to 0.500)"), "{}", volume(&report));
        assert!(!volume(&report).contains("Expected"), "a run from before it was measured");
        report.expected_utility = Some(0.6);
        assert!(volume(&report).contains("Expected utility 0.600"), "{}", volume(&report));
        report.points[0].asked = Some(Preference(vec![Some(1), None, Some(0)]));
        report.points[1].asked = Some(Preference::none(3));
        let asked: Vec<String> = rows(&state, &report, &report.points).into_iter().map(|row| row[1].clone()).collect();
        assert_eq!(asked, ["1, 0", "nothing"]);
        // A prompt with classes, and one with weights: each cell stands in its own column.
        (report.points[0].weights, report.points[1].asked) = (Vec::new(), None);
        let mixed: Vec<Vec<String>> = rows(&state, &report, &report.points).into_iter().map(|row| row[..3].to_vec()).collect();
        assert_eq!(mixed, [["", "1, 0", "0.90"], ["0.50 / 0.50", "", "0.50"]]);
    }
}
