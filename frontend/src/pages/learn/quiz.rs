//! A question that can be got wrong, and why.

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
                    {mark}{*text}
                </button>
            }
        })
        .collect_view();
    view! {
        <div class="quiz" role="group" aria-label="Question">
            <p class="label">{question.text}</p>
            <div class="choices">{choices}</div>
            <p class="hint" role="status">
                {move || chosen.get().map(|own| {
                    let verdict = if own == question.right { "Right. " } else { "Not quite. " };
                    format!("{verdict}{}", question.why)
                })}
            </p>
        </div>
    }
}
