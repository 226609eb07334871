//! A question that can be got wrong, and why.

use crate::words::t;
use leptos::prelude::*;

/// A question.
pub struct Question {
    pub text: &'static str,
    pub choices: &'static [&'static str],
    /// Position of the right one.
    pub right: usize,
    pub why: &'static str,
}

/// A question with its choices; the answer is told when one is chosen.
#[component]
pub fn Quiz(question: &'static Question) -> impl IntoView {
    let chosen = RwSignal::new(None::<usize>);
    let choices = question
        .choices
        .iter()
        .enumerate()
        .map(|(n, text)| {
            let mark = move || match chosen.get() {
                Some(own) if own == n && n == question.right => "✓ ",
                Some(own) if own == n => "✗ ",
                _ => "",
            };
            view! {
                <button type="button" class="button small" aria-pressed=move || (chosen.get() == Some(n)).to_string() on:click=move |_| chosen.set(Some(n))>
                    {mark}{t(text)}
                </button>
            }
        })
        .collect_view();
    view! {
        <div class="quiz" role="group" aria-label=t("Question")>
            <p class="label">{t(question.text)}</p>
            <div class="choices">{choices}</div>
            <p class="hint" role="status">
                {move || chosen.get().map(|own| {
                    let verdict = if own == question.right { t("Right.") } else { t("Not quite.") };
                    format!("{verdict} {}", t(question.why))
                })}
            </p>
        </div>
    }
}
