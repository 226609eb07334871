//! One objective, asked for at every class, several answers each: a grid whose colours say what came of it.

use super::answer::{Heard, shown};
use super::lanes::clock;
use super::{Bench, column::Column};
use crate::api;
use crate::parts::format;
use crate::parts::save::save_text;
use crate::source::Link;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::ramp;
use moslim_shared::inference::GenerateRequest;
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use serde_json::json;

/// Answers to every class.
const ANSWERS: usize = 6;

/// A sweep, done or being done.
#[derive(Clone, Default)]
struct Grid {
    objective: usize,
    /// What is swept, and all objectives, as they were when it began.
    objectives: Vec<Objective>,
    /// What is asked, but for the class.
    request: GenerateRequest,
    wish: Preference,
    who: String,
    /// `[class][answer]`.
    cells: Vec<Vec<Heard>>,
    busy: bool,
}

impl Grid {
    /// Share of answers that have the class asked for, of those that are known.
    fn hits(&self) -> Option<f64> {
        let known: Vec<bool> = self
            .cells
            .iter()
            .enumerate()
            .flat_map(|(class, row)| row.iter().filter_map(move |h| h.class(self.objective).map(|got| got == class)))
            .collect();
        (!known.is_empty()).then(|| known.iter().filter(|hit| **hit).count() as f64 / known.len() as f64)
    }
}

/// The corner for sweeps.
#[component]
pub fn Sweep(bench: Bench) -> impl IntoView {
    let grid = RwSignal::new(None::<Grid>);
    let opened = RwSignal::new(None::<(usize, usize)>);
    let link = StoredValue::new_local(None::<Box<dyn Link>>);
    let chosen = RwSignal::new(0_usize);
    let start = move |_| {
        let objectives = bench.objectives.get_untracked();
        let i = chosen.get_untracked().min(objectives.len().saturating_sub(1));
        let Some((objective, lane)) = objectives.get(i).zip(bench.lanes.with_untracked(|lanes| lanes.first().copied())) else {
            return;
        };
        let column = lane.column.get_untracked();
        opened.set(None);
        let cells = vec![vec![Heard::default(); ANSWERS]; objective.class_count()];
        grid.set(Some(Grid {
            objective: i,
            objectives: objectives.clone(),
            request: bench.request(),
            wish: bench.wish.get_untracked(),
            who: column.to_string(),
            cells,
            busy: true,
        }));
        bench.look();
        go_on(bench, column, grid, link, 0);
    };
    view! {
        <section class="card sweep" aria-labelledby="sweep-title">
            <div class="section-head">
                <div>
                    <h2 id="sweep-title">{t("Turn one slider all the way")}</h2>
                    <p class="muted">
                        {t("The first column answers the question at every class of one objective, the other sliders as they are. Each cell is an answer; its colour is the class it has.")}
                    </p>
                </div>
                <div class="actions">
                    <select id="sweep-objective" aria-label=t("Objective") on:change=move |ev| {
                        chosen.set(event_target_value(&ev).parse().unwrap_or(0));
                    }>
                        {move || bench.objectives.get().into_iter().enumerate().map(|(i, o)| view! {
                            <option value=i.to_string() prop:selected=move || chosen.get() == i>{o.name}</option>
                        }).collect_view()}
                    </select>
                    <button
                        id="sweep"
                        type="button"
                        class="button"
                        disabled=move || grid.with(|g| g.as_ref().is_some_and(|g| g.busy))
                        on:click=start
                    >
                        {t("Sweep")}
                    </button>
                    <button
                        type="button"
                        class="button danger"
                        class:gone=move || !grid.with(|g| g.as_ref().is_some_and(|g| g.busy))
                        on:click=move |_| {
                            link.set_value(None);
                            rest(grid);
                        }
                    >
                        {t("Stop")}
                    </button>
                </div>
            </div>
            {move || grid.with(|g| g.as_ref().map(|g| table(g, opened)))}
            {move || {
                let (class, n) = opened.get()?;
                let grid = grid.get()?;
                let heard = grid.cells.get(class)?.get(n)?;
                Some(view! { <div class="opened" aria-live="polite">{shown(heard, &grid.objectives, false)}</div> })
            }}
            <div class="actions" class:gone=move || grid.with(|g| g.as_ref().is_none_or(|g| g.busy))>
                <button type="button" class="button small" on:click=move |_| save(bench, grid)>{t("Save as JSON")}</button>
            </div>
        </section>
    }
}

/// Nothing more comes.
fn rest(grid: RwSignal<Option<Grid>>) {
    let _ = grid.try_update(|g| {
        if let Some(g) = g {
            g.busy = false;
        }
    });
}

/// Asks for one class, and then for the next.
fn go_on(
    bench: Bench,
    column: Column,
    grid: RwSignal<Option<Grid>>,
    link: StoredValue<Option<Box<dyn Link>>, LocalStorage>,
    class: usize,
) {
    let wanted = grid.try_with_untracked(|g| g.as_ref().is_some_and(|g| g.busy && class < g.cells.len())).unwrap_or(false);
    if !wanted {
        rest(grid);
        return;
    }
    let Some(begun) = grid.get_untracked() else { return };
    let mut wish = begun.wish;
    if let Some(own) = wish.0.get_mut(begun.objective) {
        *own = Some(class);
    }
    let target = wish.print(&begun.objectives);
    let request = GenerateRequest { target, source: column.source, best_of: column.best_of, n: ANSWERS, ..begun.request };
    let after = clock();
    let heard = move |event: moslim_shared::inference::GenerateEvent| {
        bench.count(&event);
        let _ = grid.try_update(|g| {
            let row = g.as_mut().and_then(|g| g.cells.get_mut(class));
            row.into_iter().flatten().enumerate().for_each(|(n, cell)| cell.hear(event.clone(), n, after()));
        });
    };
    let run = column.run.clone();
    let ended = move |how: Result<(), api::Failure>| match how {
        Ok(()) => go_on(bench, column.clone(), grid, link, class + 1),
        Err(failure) => {
            rest(grid);
            let _ = bench.failed.try_set(failure.message);
        }
    };
    link.set_value(Some(api::generate(&run, &request, heard, ended)));
}

fn table(grid: &Grid, opened: RwSignal<Option<(usize, usize)>>) -> impl IntoView + use<> {
    let i = grid.objective;
    let objective = grid.objectives.get(i).cloned();
    let (name, classes) = objective.map(|o| (o.name, o.classes)).unwrap_or_default();
    let rows = grid
        .cells
        .iter()
        .enumerate()
        .map(|(class, row)| {
            let cells = row.iter().enumerate().map(|(n, heard)| cell(heard, i, (class, n), &classes, opened)).collect_view();
            let asked = classes.get(class).cloned().unwrap_or_default();
            view! { <tr><th scope="row">{asked}</th>{cells}</tr> }
        })
        .collect_view();
    let heads = (1..=ANSWERS).map(|n| view! { <th scope="col">{said("answer {0}", &[&n.to_string()])}</th> }).collect_view();
    let hits = grid.hits().map(|share| {
        said("Of these answers {0} have the class asked for. Select a cell to read one.", &[&format::percent(share)])
    });
    view! {
        <div class="scroll" tabindex="0" role="region" aria-label=t("Answers at every class")>
            <table class="matrix" id="sweep-grid">
                <thead><tr><th scope="col" class="corner">{said("{0} asked for", &[&name])}</th>{heads}</tr></thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
        <p class="hint">{hits}</p>
    }
}

fn cell(
    heard: &Heard,
    objective: usize,
    at: (usize, usize),
    classes: &[String],
    opened: RwSignal<Option<(usize, usize)>>,
) -> impl IntoView + use<> {
    let got = heard.class(objective);
    let label = got.and_then(|c| classes.get(c)).cloned();
    let heat = got.map(|c| format::tint(objective, ramp(c, classes.len()) * 55.0));
    let text = label.clone().unwrap_or_else(|| if heard.failed.is_some() { t("failed").into() } else { "…".into() });
    view! {
        <td class:diagonal={got == Some(at.0)} style:background=heat.unwrap_or_default()>
            <button
                type="button"
                class="cell"
                disabled=heard.whole.is_none()
                title=heard.text.clone()
                aria-pressed=move || (opened.get() == Some(at)).to_string()
                on:click=move |_| opened.set(Some(at))
            >
                {text}
            </button>
        </td>
    }
}

/// Everything that the grid shows.
fn save(bench: Bench, grid: RwSignal<Option<Grid>>) {
    let Some(grid) = grid.get_untracked() else { return };
    let Some(objective) = grid.objectives.get(grid.objective) else { return };
    let rows: Vec<_> = grid
        .cells
        .iter()
        .enumerate()
        .flat_map(|(class, row)| {
            row.iter().map(move |h| {
                json!({
                    "asked": objective.classes[class], "got": h.class(grid.objective).map(|c| &objective.classes[c]),
                    "prompt": h.prompt.pieces.concat(), "response": h.text, "scores": h.scored,
                })
            })
        })
        .collect();
    let document = json!({
        "column": grid.who, "question": grid.request.prompt, "objective": objective.id, "answers": rows,
    });
    if save_text("sweep.json", &format!("{document:#}\n")).is_err() {
        bench.failed.set(t("This browser saves no files.").into());
    }
}
