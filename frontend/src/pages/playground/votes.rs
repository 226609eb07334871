//! Votes between two columns whose names are hidden, kept in this browser until they are saved as a file that can be imported.

use super::Bench;
use super::blind::Blind;
use super::lanes::Lane;
use crate::json::{read, written};
use crate::parts::memo::memo;
use crate::parts::save::save_text;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_shared::vote::{MAPPING, Side, Vote};

/// Where votes are kept in this browser.
const KEPT: &str = "moslim-lab-votes";

fn storage() -> Option<web_sys::Storage> {
    window().local_storage().ok().flatten()
}

fn kept() -> Vec<Vote> {
    let text = storage().and_then(|s| s.get_item(KEPT).ok().flatten());
    text.and_then(|text| read(&text).ok()).unwrap_or_default()
}

/// The corner where votes are given and saved.
#[component]
pub fn Votes(bench: Bench) -> impl IntoView {
    let votes = RwSignal::new(kept());
    let rater = RwSignal::new(String::new());
    let keep = move |all: Vec<Vote>| {
        let text = written(&all);
        let done = storage().is_some_and(|s| s.set_item(KEPT, &text).is_ok());
        if !done {
            bench.failed.set(t("This browser keeps no votes; save them before you leave the page.").into());
        }
        votes.set(all);
    };
    let shown = move || bench.blind.with(|blind| blind.order(bench.lanes.get()));
    let whole = memo(move || {
        let lanes = shown();
        lanes.len() == 2 && lanes.iter().all(|lane| lane.heard.with(|h| h.whole.is_some()))
    });
    let vote = move |preferred: Option<Side>| {
        let lanes = bench.blind.with_untracked(|blind| blind.order(bench.lanes.get_untracked()));
        let [a, b] = lanes.as_slice() else { return };
        let text = |lane: &Lane| lane.heard.with_untracked(|h| h.text.clone());
        let run = |lane: &Lane| lane.column.with_untracked(ToString::to_string);
        let target = bench.objectives.with_untracked(|o| a.heard.with_untracked(|h| h.preference.print(o)));
        let name = rater.get_untracked().trim().to_string();
        let vote = Vote {
            prompt: a.heard.with_untracked(|h| h.question.clone()),
            response_a: text(a),
            response_b: text(b),
            preferred,
            run_a: run(a),
            run_b: run(b),
            target,
            rater: if name.is_empty() { "playground".into() } else { name },
        };
        let mut all = votes.get_untracked();
        all.push(vote);
        keep(all);
        bench.blind.update(|blind| *blind = Blind::Told { swapped: blind.swapped() });
    };
    let save = move |_| {
        let lines: Vec<String> = votes.with_untracked(|all| all.iter().map(written).collect());
        let saved = save_text("votes.jsonl", &(lines.join("\n") + "\n")).and_then(|()| save_text("votes.toml", MAPPING));
        if saved.is_err() {
            bench.failed.set(t("This browser saves no files.").into());
        }
    };
    view! {
        <section class="card votes" aria-labelledby="votes-title">
            <div class="section-head">
                <div>
                    <h2 id="votes-title">{t("Which answer is better?")}</h2>
                    <p class="muted">
                        {t("Hide the names, ask, and vote between the first two columns. Votes are ratings: save them, and import them as a task with ")}
                        <code>"moslim-lab import votes.jsonl --mapping votes.toml"</code>{t(".")}
                    </p>
                </div>
                <button
                    id="blind"
                    type="button"
                    class="button quiet"
                    aria-pressed=move || bench.blind.with(Blind::is_on).to_string()
                    disabled=move || bench.lanes.with(Vec::len) < 2
                    on:click=move |_| bench.blind.update(|blind| {
                        if blind.is_on() {
                            *blind = Blind::Off;
                        } else {
                            *blind = Blind::Hidden { swapped: js_sys::Math::random() < 0.5 };
                            // What was seen with its name is not voted on.
                            bench.lanes.with_untracked(|lanes| lanes.iter().for_each(|lane| lane.clear()));
                        }
                    })
                >
                    {move || if bench.blind.with(Blind::is_on) { t("Show the names") } else { t("Hide the names") }}
                </button>
            </div>
            <div class="actions" class:gone=move || !bench.blind.with(Blind::is_on)>
                <div class="field small">
                    <label for="rater">{t("Your name, if you like")}</label>
                    <input id="rater" type="text" prop:value=move || rater.get() on:input=move |ev| rater.set(event_target_value(&ev))/>
                </div>
                // The space makes it another text than the answer of the quiz.
                {[
                    ("vote-a", t("A is better"), Some(Side::A)),
                    ("vote-b", t("B is better"), Some(Side::B)),
                    ("vote-neither", t("Neither ").trim_end(), None),
                ]
                    .into_iter()
                    .map(|(id, text, side)| view! {
                        <button
                            id=id
                            type="button"
                            class="button"
                            disabled=move || !whole.get() || !bench.blind.with(Blind::hides)
                            on:click=move |_| vote(side)
                        >
                            {text}
                        </button>
                    })
                    .collect_view()}
            </div>
            <p class="hint" role="status">{move || standing(&votes.get(), bench.blind.get())}</p>
            <div class="actions" class:gone=move || votes.with(Vec::is_empty)>
                <button type="button" class="button small" on:click=save>{t("Save the votes")}</button>
                <button type="button" class="button small danger" on:click=move |_| keep(Vec::new())>{t("Forget them")}</button>
            </div>
        </section>
    }
}

fn standing(votes: &[Vote], blind: Blind) -> String {
    let count = match votes.len() {
        0 => String::new(),
        1 => t("1 vote is kept in this browser. ").into(),
        n => said("{0} votes are kept in this browser. ", &[&n.to_string()]),
    };
    let last = votes.last().filter(|_| matches!(blind, Blind::Told { .. }));
    let told = last.map(|v| said("A was {0}, B was {1}. Ask again for the next vote.", &[&v.run_a, &v.run_b]));
    count + &told.unwrap_or_default()
}
