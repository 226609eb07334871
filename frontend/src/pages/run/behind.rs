//! The answers behind a cell of the matrices: which were asked for one class, and came out as another.

use super::sample::{card, update};
use crate::parts::memo::memo;
use crate::parts::pick::Pick;
use crate::state::{RunState, Topic};
use crate::stream::Run;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_shared::distribution::argmax;
use moslim_shared::event::Sample;
use moslim_shared::objective::Objective;

/// Most answers that are shown.
const MOST: usize = 12;

/// A cell: an objective, the class that was asked for, and the one that the reward model found most probable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub objective: usize,
    pub asked: usize,
    pub got: usize,
}

/// The cell whose answers are looked at, for the whole page of a run.
#[derive(Clone, Copy)]
pub struct Behind(RwSignal<Option<Cell>>);

impl Behind {
    pub fn new() -> Self {
        Self(RwSignal::new(None))
    }

    /// Shows the answers of `cell`, and goes to them.
    pub fn open(self, cell: Cell) {
        self.0.set(Some(cell));
        if let Some(place) = document().get_element_by_id("behind") {
            place.scroll_into_view();
        }
    }
}

/// Those of the answers that are kept which belong to a cell, newest first, each with its step.
fn of(past: &[(usize, Vec<Sample>)], cell: Cell) -> Vec<(usize, &Sample)> {
    let belongs = |s: &Sample| {
        s.preference.0.get(cell.objective).copied().flatten() == Some(cell.asked)
            && s.distributions.get(cell.objective).is_some_and(|p| argmax(p) == cell.got)
    };
    let all = past.iter().rev().flat_map(|(step, samples)| samples.iter().map(|s| (*step, s)));
    all.filter(|(_, s)| belongs(s)).collect()
}

/// A choice of a cell, and its answers.
#[component]
pub fn Answers(run: Run) -> impl IntoView {
    let Behind(chosen) = expect_context::<Behind>();
    let objectives = run.memo(|s| if s.asks() { s.objectives.clone() } else { Vec::new() });
    let revision = run.revision(Topic::Samples);
    let objective = memo(move || chosen.get().map(|c| c.objective));
    let whole = move |name: String| {
        chosen.set(name.parse().ok().map(|objective| Cell { objective, asked: 0, got: 0 }));
    };
    view! {
        <section id="behind" class="section" aria-labelledby="behind-title" class:gone=move || objectives.with(Vec::is_empty)>
            <h3 id="behind-title">{t("Which answers are these?")}</h3>
            <p class="muted">
                {t("Click a number in the matrices above, or choose here: the answers that were asked for one class and came out as another, newest first.")}
            </p>
            <div class="fields">
                {move || {
                    let names = objectives.get();
                    let mut options = vec![(String::new(), t("Choose…").to_string())];
                    options.extend(names.iter().enumerate().map(|(i, o)| (i.to_string(), o.name.clone())));
                    let own = Signal::derive(move || objective.get().map(|i| i.to_string()).unwrap_or_default());
                    view! {
                        <Pick id="behind-objective" label=t("Objective") options=options chosen=own choose=whole/>
                        {objective.get().and_then(|i| names.get(i).cloned()).map(|o| classes(chosen, &o))}
                    }
                }}
            </div>
            {move || {
                let _ = revision.get();
                chosen.get().map(|cell| run.read(|s| found(s, cell)))
            }}
        </section>
    }
}

/// Which class was asked for, and which came.
fn classes(chosen: RwSignal<Option<Cell>>, objective: &Objective) -> impl IntoView + use<> {
    let options: Vec<(String, String)> =
        objective.classes.iter().enumerate().map(|(c, label)| (c.to_string(), format!("{c} {label}"))).collect();
    let put = move |f: fn(&mut Cell, usize)| {
        move |class: String| {
            chosen.update(|cell| {
                if let (Some(cell), Ok(class)) = (cell, class.parse()) {
                    f(cell, class);
                }
            });
        }
    };
    let read = move |f: fn(Cell) -> usize| Signal::derive(move || chosen.get().map(|c| f(c).to_string()).unwrap_or_default());
    view! {
        <Pick
            id="behind-asked" label=t("Asked for") options=options.clone() chosen=read(|c| c.asked)
            choose=put(|cell, class| cell.asked = class)
        />
        <Pick id="behind-got" label=t("Came out as") options=options chosen=read(|c| c.got) choose=put(|cell, class| cell.got = class)/>
    }
}

fn found(state: &RunState, cell: Cell) -> AnyView {
    let found = of(&state.past, cell);
    let kept: usize = state.past.iter().map(|(_, samples)| samples.len()).sum();
    let count = said(
        "{0} of the {1} answers of training that this page has kept. The matrices count every answer; of each step a few are kept.",
        &[&found.len().to_string(), &kept.to_string()],
    );
    let cards = found.iter().take(MOST).map(|(step, s)| card(s, &state.objectives, *step, update(state, *step))).collect_view();
    view! {
        <p class="hint num" role="status">{count}</p>
        <div class="grid two">{cards}</div>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::preference::Preference;

    #[test]
    fn a_cell_has_the_answers_that_were_asked_for_it_and_came_out_so() {
        let sample = |answer: &str, asked: [Option<usize>; 2], p: [[f64; 2]; 2]| Sample {
            preference: Preference(asked.to_vec()),
            answer: answer.into(),
            distributions: p.iter().map(|p| p.to_vec()).collect(),
            ..Default::default()
        };
        let (low, high) = ([0.8, 0.2], [0.3, 0.7]);
        let past = vec![
            (1, vec![sample("old", [None, Some(0)], [low, high]), sample("other class", [None, Some(1)], [low, high])]),
            (
                5,
                vec![
                    sample("new", [Some(1), Some(0)], [low, high]),
                    sample("came as asked", [None, Some(0)], [high, low]),
                    sample("not asked", [Some(0), None], [low, high]),
                ],
            ),
        ];
        let named = |cell| of(&past, cell).into_iter().map(|(step, s)| (step, s.answer.as_str())).collect::<Vec<_>>();
        assert_eq!(named(Cell { objective: 1, asked: 0, got: 1 }), [(5, "new"), (1, "old")]);
        assert_eq!(named(Cell { objective: 0, asked: 1, got: 0 }), [(5, "new")]);
        assert!(named(Cell { objective: 2, asked: 0, got: 0 }).is_empty());
    }
}
