//! Matrices as heat-maps: asked against achieved and labels against grades for one objective, and numbers between objectives.

use crate::parts::format;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::Ink;
use moslim_shared::metrics::diagonal;
use moslim_shared::objective::Objective;

/// Share of the hue in a cell of value 1; more would make its number hard to read.
pub const HEAT: f64 = 50.0;

/// A heat-map as a table; every row is a class asked for. `who` is `sft`, `policy` or `rollouts`.
pub fn matrix(objective: &Objective, index: usize, who: &'static str, values: &[Vec<f64>]) -> impl IntoView + use<> {
    let rows = values.iter().enumerate().map(|(asked, row)| {
        let nothing = row.iter().all(|v| *v == 0.0);
        let cells = row.iter().enumerate();
        cells.map(|(achieved, value)| cell(index, asked, achieved, *value, nothing).into_any()).collect::<Vec<AnyView>>()
    });
    framed(objective, who, t("asked ↓ achieved →"), rows.collect())
}

/// A confusion matrix as a table: `counts[label][predicted]`, shaded by their share of the row.
pub fn confusion(objective: &Objective, index: usize, counts: &[Vec<u64>]) -> impl IntoView + use<> {
    let shares = row_shares(counts);
    let rows = counts.iter().zip(&shares).enumerate().map(|(label, (row, shares))| {
        let cells = row.iter().zip(shares).enumerate();
        let cell = |(predicted, (count, share)): (usize, (&u64, &f64))| {
            counted(objective, index, [label, predicted], *count, *share).into_any()
        };
        cells.map(cell).collect::<Vec<AnyView>>()
    });
    framed(objective, "reward_model", t("labelled ↓ graded →"), rows.collect())
}

/// Counts as shares of their row; zeros where a row has none.
pub fn row_shares(counts: &[Vec<u64>]) -> Vec<Vec<f64>> {
    let shares = |row: &Vec<u64>| {
        let all = row.iter().sum::<u64>().max(1) as f64;
        row.iter().map(|count| *count as f64 / all).collect::<Vec<f64>>()
    };
    counts.iter().map(shares).collect()
}

/// The table around cells, with the classes of the objective above and beside them.
fn framed(objective: &Objective, who: &'static str, corner: &'static str, rows: Vec<Vec<AnyView>>) -> impl IntoView + use<> {
    let heads = objective
        .classes
        .iter()
        .enumerate()
        .map(|(c, label)| view! { <th scope="col" title=label.clone()>{c.to_string()}</th> })
        .collect_view();
    let rows = rows
        .into_iter()
        .enumerate()
        .map(|(c, cells)| {
            let label = objective.classes.get(c).cloned().unwrap_or_default();
            view! {
                <tr>
                    <th scope="row"><b>{c.to_string()}</b>" "<span>{label}</span></th>
                    {cells}
                </tr>
            }
        })
        .collect_view();
    view! {
        <div class="scroll" tabindex="0">
            <table class="matrix" data-objective=objective.id.clone() data-who=who>
                <thead>
                    <tr>
                        <th scope="col" class="corner">{corner}</th>
                        {heads}
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
}

/// A cell of a confusion matrix; `at` is its label and what was predicted.
fn counted(objective: &Objective, index: usize, at: [usize; 2], count: u64, share: f64) -> impl IntoView + use<> {
    let heat = share * HEAT;
    let color = format::tint(index, heat);
    let [label, predicted] = at.map(|c| objective.classes.get(c).cloned().unwrap_or_default());
    let text = format::count(count);
    let title = said(
        "labelled {0}, graded {1}: {2} answers, {3} of those labelled so",
        &[&label, &predicted, &text, &format::percent(share)],
    );
    view! {
        <td
            class:diagonal={at[0] == at[1]}
            data-label=at[0].to_string()
            data-predicted=at[1].to_string()
            title=title
            style:background=color
        >
            {text}
        </td>
    }
}

fn cell(index: usize, asked: usize, achieved: usize, value: f64, nothing: bool) -> impl IntoView {
    let share = (value.clamp(0.0, 1.0)) * HEAT;
    let color = format::tint(index, share);
    let text = if nothing { "·".to_string() } else { format!("{:.0}", value * 100.0) };
    let spoken = if nothing {
        t("no answer").to_string()
    } else {
        said("asked {0}, achieved {1}: {2}", &[&asked.to_string(), &achieved.to_string(), &format::percent(value)])
    };
    view! {
        <td
            class:diagonal={asked == achieved}
            data-asked=asked.to_string()
            data-achieved=achieved.to_string()
            data-value=format!("{value:.4}")
            title=spoken
            style:background=color
        >
            {text}
        </td>
    }
}

/// A small heat-map as a table; every row is a class asked for. `values`: shares, a row of zeros where nothing was asked for; `open` is told
/// of a cell that is clicked, the class asked for first. Whoever gives it has another way for the keyboard: cells are too many to tab
/// through.
pub fn mini(
    index: usize,
    name: &str,
    classes: &[String],
    values: Option<&Vec<Vec<f64>>>,
    open: Option<Callback<(usize, usize)>>,
) -> impl IntoView + use<> {
    let hit = values.and_then(|m| diagonal(m));
    let count = classes.len();
    let rows = (0..count)
        .map(|asked| {
            let row = values.and_then(|m| m.get(asked)).filter(|row| row.iter().sum::<f64>() > 0.0);
            let cells = (0..count)
                .map(|got| {
                    let value = row.and_then(|row| row.get(got)).copied();
                    let heat = value.unwrap_or(0.0) * HEAT;
                    let color = format::tint(index, heat);
                    let title = match value {
                        Some(v) => said("asked {0}, got {1}: {2}", &[&classes[asked], &classes[got], &format::percent(v)]),
                        None => said("asked {0}: no answer yet", &[&classes[asked]]),
                    };
                    let text = value.map(|v| format!("{:.0}", v * 100.0)).unwrap_or_default();
                    let inside = match open.filter(|_| value.is_some_and(|v| v > 0.0)) {
                        Some(open) => view! {
                            <button type="button" class="cell" tabindex="-1" on:click=move |_| open.run((asked, got))>{text}</button>
                        }
                        .into_any(),
                        None => text.into_any(),
                    };
                    view! { <td class:diagonal={asked == got} style:background=color title=title>{inside}</td> }
                })
                .collect_view();
            view! { <tr><th scope="row" title=classes[asked].clone()>{classes[asked].clone()}</th>{cells}</tr> }
        })
        .collect_view();
    let chance = format::percent(1.0 / count.max(1) as f64);
    view! {
        <table class="mini" data-mini=name.to_lowercase()>
            <caption>
                <span class="swatch bold" style:background=Ink::Objective(index).css()></span>
                <b>{name.to_string()}</b>
                <span class="hint">{hit.map(|h| said("{0} as asked, chance {1}", &[&format::percent(h), &chance]))}</span>
            </caption>
            <tbody>{rows}</tbody>
        </table>
    }
}

/// Numbers between objectives, about -1 to 1: one hue above 0, another below, paler towards it. `of` names the rows.
pub fn between(of: &'static str, names: &[String], values: &[Vec<f64>]) -> impl IntoView + use<> {
    let heads = names.iter().map(|name| view! { <th scope="col">{name.clone()}</th> }).collect_view();
    let rows = names
        .iter()
        .zip(values)
        .map(|(name, row)| {
            let cells = row.iter().map(|value| number(*value)).collect_view();
            view! { <tr><th scope="row"><b>{name.clone()}</b></th>{cells}</tr> }
        })
        .collect_view();
    view! {
        <div class="scroll" tabindex="0">
            <table class="matrix">
                <thead><tr><th scope="col" class="corner">{of}</th>{heads}</tr></thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
}

fn number(value: f64) -> impl IntoView {
    let color = format::tint(usize::from(value < 0.0), value.abs().min(1.0) * HEAT);
    view! { <td style:background=color>{format::number(value, 2)}</td> }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_shared_out_within_their_row() {
        let counts = [vec![3, 1, 0], vec![0, 0, 0], vec![2, 4, 2]];
        assert_eq!(row_shares(&counts), [[0.75, 0.25, 0.0], [0.0; 3], [0.25, 0.5, 0.25]]);
    }
}
