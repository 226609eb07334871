//! What a reward model says of one answer: a column for every class of an objective.

use crate::parts::format;
use crate::words;
use leptos::prelude::*;
use moslim_charts::INKS;
use moslim_shared::objective::Objective;

/// One row of columns: the probability of each class; the class asked for is marked with a diamond, the one that the rules give with a
/// tick. `index`: position of the objective.
pub fn class_bars(
    objective: &Objective,
    index: usize,
    shares: &[f64],
    asked: Option<usize>,
    gold: Option<usize>,
) -> impl IntoView + use<> {
    let classes = &objective.classes;
    let columns = shares
        .iter()
        .enumerate()
        .map(|(c, share)| {
            let label = classes.get(c).cloned().unwrap_or_default();
            let title = format!("{c} {label}: {}", format::percent(*share));
            let height = format!("{:.1}%", share.clamp(0.0, 1.0) * 100.0);
            let (wished, graded) = (asked == Some(c), gold == Some(c));
            let mark = format!("{}{c}{}", if wished { "◆" } else { "" }, if graded { "✓" } else { "" });
            view! {
                <span class="column" class:asked=wished title=title data-share=share.to_string()>
                    <span class="tube">
                        <span class="fill" style:height=height style:background=format!("var(--obj-{})", index % INKS)></span>
                    </span>
                    <span class="tick">{mark}</span>
                </span>
            }
        })
        .collect_view();
    let named = |class: Option<usize>| class.and_then(|c| classes.get(c)).cloned();
    let said = shares.iter().enumerate().map(|(c, p)| format!("{c}: {}", format::percent(*p))).collect::<Vec<_>>().join(", ");
    let wish = named(asked).map(|name| words::said(", asked for {0}", &[&name])).unwrap_or_default();
    let graded = named(gold).map(|name| words::said(", by the rules {0}", &[&name])).unwrap_or_default();
    view! {
        <div class="bar-row" class:masked=asked.is_none() role="img" aria-label=format!("{}: {said}{wish}{graded}", objective.name)>
            <span class="bar-name">{objective.name.clone()}</span>
            <span class="columns">{columns}</span>
        </div>
    }
}
