//! The idea in one moving picture: a recorded run whose matrices turn diagonal while its answers change. `cargo lab moving` makes it of a
//! run's journal.

use crate::json::read;
use crate::parts::every::every;
use crate::parts::matrix::mini;
use crate::parts::memo::memo;
use crate::parts::theme::still;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_shared::moving::{Frame, Moving};
use std::time::Duration;

const FILE: &str = include_str!("moving.json");
/// Time that a frame is shown, and how many times as long the last one is.
const BEAT: Duration = Duration::from_millis(900);
const LAST: usize = 4;

/// The picture; it can be stopped, and stands still for those who want that.
#[component]
pub fn MovingPicture() -> impl IntoView {
    let moving = StoredValue::new(read::<Moving>(FILE).unwrap_or_default());
    let count = moving.with_value(|m| m.frames.len());
    let last = count.saturating_sub(1);
    let place = RwSignal::new(if still() { last } else { 0 });
    let playing = RwSignal::new(!still());
    every(BEAT, move || {
        if playing.get_untracked() {
            place.update(|p| *p = if *p >= last + LAST { 0 } else { *p + 1 });
        }
    });
    let at = memo(move || place.get().min(last));
    let matrices = move || {
        moving.with_value(|m| {
            let frame = m.frames.get(at.get());
            let one = |(i, (name, classes)): (usize, &(String, Vec<String>))| {
                let shares = frame.and_then(|f| f.matrices.get(i));
                let values = shares.map(|m| m.iter().map(|r| r.iter().map(|&p| f64::from(p) / 100.0).collect()).collect());
                mini(i, name, classes, values.as_ref(), None)
            };
            m.objectives.iter().enumerate().map(one).collect_view()
        })
    };
    let answer = move || moving.with_value(|m| m.frames.get(at.get()).map(|frame| brief(m, frame)));
    let step = move || {
        moving.with_value(|m| {
            let step = m.frames.get(at.get()).map_or(0, |f| f.step);
            let end = m.frames.last().map_or(0, |f| f.step);
            if step == end {
                t("measured on held-out questions").to_string()
            } else {
                said("step {0} of {1}", &[&step.to_string(), &end.to_string()])
            }
        })
    };
    view! {
        <section class="card moving" aria-labelledby="moving-title">
            <h2 id="moving-title">{t("A run, recorded")}</h2>
            <p class="hint">
                {t("Rows are what prompts ask for, columns what the answers are, in percent. Obedience is a full diagonal.")}
            </p>
            <div class="minis">{matrices}</div>
            <div class="said">{answer}</div>
            <div class="scrub">
                <input
                    type="range"
                    aria-label=t("Step of the recorded run")
                    aria-valuetext=step
                    min="0"
                    max=last.to_string()
                    prop:value=move || at.get().to_string()
                    on:input=move |ev| {
                        playing.set(false);
                        if let Ok(n) = event_target_value(&ev).parse() {
                            place.set(n);
                        }
                    }
                />
                <span class="hint num">{step}</span>
                <button type="button" class="button quiet small" id="moving-play" on:click=move |_| playing.update(|p| *p = !*p)>
                    {move || if playing.get() { t("Pause") } else { t("Play") }}
                </button>
            </div>
        </section>
    }
}

/// What was asked, wished for and answered.
fn brief(moving: &Moving, frame: &Frame) -> impl IntoView + use<> {
    let wishes = frame
        .wishes
        .iter()
        .filter_map(|&(i, asked, got)| {
            let (name, classes) = moving.objectives.get(i)?;
            let (wish, result, met) = (classes.get(asked)?, classes.get(got)?, asked == got);
            let result = if met { String::new() } else { said(", got {0}", &[result]) };
            let (class, mark) = if met { ("good", "✓ ") } else { ("off", "✗ ") };
            Some(view! { <li class=class>{format!("{mark}{name}{}{wish}{result}", t(": "))}</li> })
        })
        .collect_view();
    view! {
        <article class="brief">
            <p class="question">{frame.question.clone()}</p>
            <ul class="plain verdicts">{wishes}</ul>
            <p class="answer">{frame.answer.clone()}</p>
        </article>
    }
}
