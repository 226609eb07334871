//! Rows of a task as people read them: question, answer, and what each rater said.

use crate::words::{said, t};
use leptos::prelude::*;
use moslim_shared::ratings::{RatingsTask, ShownLabel, ShownRow};

/// Letters of an answer that are shown before it is opened.
const SHORT: usize = 320;

/// A list of rows of a task.
pub fn listed(rows: &[ShownRow], task: &RatingsTask) -> AnyView {
    view! { <ol class="rated">{rows.iter().map(|r| row(r, task)).collect_view()}</ol> }.into_any()
}

/// What a rater said, by the name of its class where it is one of the file's.
fn voted(objective: &str, score: f64, task: &RatingsTask) -> String {
    let imported = task.objectives.iter().map(|o| &o.objective).find(|o| o.id == objective);
    let whole = (score >= 0.0 && score.fract() == 0.0).then_some(score as usize);
    let name = imported.zip(whole).and_then(|(o, class)| o.classes.get(class));
    name.cloned().unwrap_or_else(|| score.to_string())
}

/// A text, of which the beginning is shown where it is long.
pub fn folded(text: &str) -> AnyView {
    if text.chars().count() <= SHORT {
        return view! { <p class="said">{text.to_string()}</p> }.into_any();
    }
    let start: String = text.chars().take(SHORT).collect();
    view! {
        <details class="said">
            <summary>{start}"…"</summary>
            <p>{text.to_string()}</p>
        </details>
    }
    .into_any()
}

fn row(row: &ShownRow, task: &RatingsTask) -> AnyView {
    let labels = row.labels.iter().map(|l| label(l, task)).collect_view();
    view! {
        <li class="card rated-row" data-row=row.row.to_string()>
            <p class="hint">{said("row {0}, {1}", &[&row.row.to_string(), &row.split])}</p>
            <div class="asked-text">{folded(&row.prompt)}</div>
            <div class="answer-text">{folded(&row.response)}</div>
            <p class="labels">{labels}</p>
        </li>
    }
    .into_any()
}

fn label(label: &ShownLabel, task: &RatingsTask) -> AnyView {
    let class = label.name.clone().unwrap_or_else(|| t("no label").into());
    let scores: Vec<String> = label.ratings.iter().map(|r| voted(&label.objective, r.score, task)).collect();
    let differ = label.ratings.windows(2).any(|w| w[0].score.total_cmp(&w[1].score).is_ne());
    let place = |r: &moslim_shared::ratings::ShownRating| {
        let rater = if r.rater.is_empty() { t("a rater") } else { &r.rater };
        let vote = voted(&label.objective, r.score, task);
        said("{0}: {1} ({2}, record {3})", &[rater, &vote, &r.file, &r.record.to_string()])
    };
    let title = label.ratings.iter().map(place).collect::<Vec<_>>().join("\n");
    let votes = (scores.len() > 1).then(|| view! { <small>{said(" from {0}", &[&scores.join(", ")])}</small> });
    view! {
        <span class="label-chip" class:masked=label.class.is_none() class:differ=differ title=title>
            {format!("{}: ", label.objective)}<b>{class}</b>{votes}
        </span>
    }
    .into_any()
}
