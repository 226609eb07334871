//! How the reward model grades, drawn: what it takes for what, whether it is right as often as it is sure, and how often each
//! class was given.

use crate::parts::format;
use crate::parts::matrix::{confusion, row_shares};
use crate::parts::reliability::{bin_rows, means, reliability};
use crate::parts::stack::stack;
use crate::parts::table::Table;
use crate::state::RunState;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::Ink;
use moslim_shared::objective::{Objective, index_of};
use moslim_shared::summary::{RewardHeadReport, RewardModelReport};

/// A card for every head; nothing where the run does not know what it grades.
pub fn grades(state: &RunState, report: &RewardModelReport) -> Option<impl IntoView + use<>> {
    let card = |head: &RewardHeadReport| {
        let index = index_of(&state.objectives, &head.objective)?;
        (!head.confusion.is_empty()).then(|| card(&state.objectives[index], index, head).into_any())
    };
    let cards: Vec<AnyView> = report.heads.iter().filter_map(card).collect();
    (!cards.is_empty()).then(|| {
        view! {
            <div id="grades" class="grades">
                <p class="muted">
                    {t("Below, for each objective: which class the reward model takes for which, whether it is right as often as \
                        it is sure, and how often each class was given. All of it is counted on test rows that it never saw.")}
                </p>
                <div class="grid two">{cards}</div>
            </div>
        }
    })
}

fn card(objective: &Objective, index: usize, head: &RewardHeadReport) -> impl IntoView + use<> {
    let guess = said(
        "Always guessing the most frequent class would be right in {0} of these {1} rows; the reward model is right in {2}.",
        &[&format::percent(head.majority), &format::count(head.n as u64), &format::percent(head.accuracy)],
    );
    view! {
        <article class="card" data-grades=objective.id.clone()>
            <h3>
                <span class="swatch bold" style:background=Ink::Objective(index).css()></span>
                {objective.name.clone()}
            </h3>
            <div class="sides">
                <div class="side">
                    <h4>{t("Which class does it take for which?")}</h4>
                    <p class="hint">
                        {t("Each row is a class as labelled, each column the class that the reward model gives. A cell counts \
                            answers; the stronger its colour, the larger its share of the row. Where it grades well, the \
                            diagonal is full.")}
                    </p>
                    {confusion(objective, index, &head.confusion)}
                </div>
                {honesty(objective, index, head)}
            </div>
            <div class="side">
                <h4>{t("How often each class was given")}</h4>
                {stack(objective, index, &labels(head), 0)}
                <p class="hint">{guess}</p>
            </div>
            {figures(objective, head)}
        </article>
    }
}

/// Whether it is right as often as it is sure; nothing for runs of versions that did not say.
fn honesty(objective: &Objective, index: usize, head: &RewardHeadReport) -> Option<impl IntoView + use<>> {
    let (sure, right) = means(&head.reliability)?;
    let note = said(
        "Its mean confidence is {0}, and it is right in {1} of the rows. Expected calibration error, the mean distance from the \
         dashed line: {2}; before calibration {3}.",
        &[
            &format::percent(sure),
            &format::percent(right),
            &format::number(head.ece, 3),
            &format::number(head.ece_uncalibrated, 3),
        ],
    );
    Some(view! {
        <div class="side">
            <h4>{t("Is it right as often as it is sure?")}</h4>
            <p class="hint">
                {t("Where the reward model is sure of a class, is it right as often as it says? Each dot is a group of test rows \
                    of which it is about equally sure; a larger dot has more rows, and chance moves the small ones. On the \
                    dashed line it is honest, below it too sure of itself, above it too careful.")}
            </p>
            {reliability(index, &objective.name, &head.reliability)}
            <p class="hint">{note}</p>
        </div>
    })
}

/// What is drawn, as tables.
fn figures(objective: &Objective, head: &RewardHeadReport) -> impl IntoView + use<> {
    let heads = ["", t("labelled"), t("share of the labels"), t("graded so"), t("right where labelled so")];
    let heads = heads.map(String::from).to_vec();
    let classes = class_rows(&objective.classes, head);
    let bins = bin_rows(&head.reliability);
    let groups = (!bins.is_empty()).then(|| {
        let heads = [t("confidence"), t("rows"), t("mean confidence"), t("accuracy")].map(String::from).to_vec();
        view! { <Table class="values" caption=t("Groups of rows by how sure it is") heads=heads rows=bins/> }
    });
    view! {
        <details class="read">
            <summary>{t("The same in figures")}</summary>
            <Table class="values" caption=t("Labels and grades, class by class") heads=heads rows=classes/>
            {groups}
        </details>
    }
}

/// Labels per class. Runs of earlier versions did not count them apart.
fn labels(head: &RewardHeadReport) -> Vec<u64> {
    match head.histogram.is_empty() {
        true => head.confusion.iter().map(|row| row.iter().sum()).collect(),
        false => head.histogram.clone(),
    }
}

/// For every class: rows with this label, their share, rows that were graded so, and the share of the labelled that were.
fn class_rows(classes: &[String], head: &RewardHeadReport) -> Vec<Vec<String>> {
    let given = labels(head);
    let all = given.iter().sum::<u64>().max(1) as f64;
    let shares = row_shares(&head.confusion);
    let row = |(c, count): (usize, &u64)| {
        let name = classes.get(c).cloned().unwrap_or_default();
        let graded: u64 = head.confusion.iter().filter_map(|row| row.get(c)).sum();
        let right = shares.get(c).and_then(|row| row.get(c)).filter(|_| *count > 0);
        vec![
            format!("{c} {name}"),
            format::count(*count),
            format::percent(*count as f64 / all),
            format::count(graded),
            right.map_or("–".to_string(), |share| format::percent(*share)),
        ]
    };
    given.iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_counted_by_label_and_by_grade_apart() {
        let classes = ["low", "mid", "high"].map(String::from);
        let confusion = vec![vec![3, 1, 0], vec![0, 0, 0], vec![2, 4, 2]];
        let old = RewardHeadReport { confusion, ..Default::default() };
        assert_eq!(labels(&old), [4, 0, 8], "rows of the matrix, and not its columns");
        let rows = class_rows(&classes, &old);
        // Of four labelled low three are right, though five were graded so.
        let expected =
            [["0 low", "4", "33 %", "5", "75 %"], ["1 mid", "0", "0 %", "5", "–"], ["2 high", "8", "67 %", "2", "25 %"]];
        assert_eq!(rows, expected);
        let new = RewardHeadReport { histogram: vec![4, 0, 8], ..old };
        assert_eq!(class_rows(&classes, &new), expected);
    }
}
