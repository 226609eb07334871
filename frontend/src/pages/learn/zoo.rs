//! Station 7: ways to fail.

use super::policy::{Play, bars};
use crate::parts::seen::Alone;
use crate::state::toy::{Settings, Toy};
use crate::words::t;
use leptos::prelude::*;
use moslim_shared::preference::Preference;

/// A failure: its name, how it is made, what to look at, and what it is.
struct Failure {
    name: &'static str,
    settings: Settings,
    look: &'static str,
    told: &'static str,
}

const FAILURES: [Failure; 4] = [
    Failure {
        name: "The flatterer",
        settings: Settings { flawed: true, beta: 0.0, samples: 8, learning_rate: 0.8, ..Settings::PLAIN },
        look: "The reward rises. What about the classes met, which the rules count?",
        told: "Reward hacking: the reward model takes \"Many people love bread!\" for full help, and finds real help only so-so. The policy finds that out, and is paid for it.",
    },
    Failure {
        name: "The broken record",
        settings: Settings { beta: 0.0, learning_rate: 2.0, ..Settings::PLAIN },
        look: "What happens to the entropy, and to answers that would do as well?",
        told: "Collapse: without a KL penalty, at a high learning rate, one answer takes all, though others are as good.",
    },
    Failure {
        name: "The lonely sample",
        settings: Settings { samples: 1, ..Settings::PLAIN },
        look: "It draws, it is paid. Why does nothing change?",
        told: "A group of one: an answer is compared with the others of its group, and there are none. Every advantage is zero.",
    },
    Failure {
        name: "The short leash",
        settings: Settings { beta: 4.0, ..Settings::PLAIN },
        look: "The KL divergence hardly moves. What does that cost?",
        told: "A KL coefficient that is too large: every step away from the start costs more than it earns.",
    },
];

#[cfg(test)]
pub fn texts() -> impl Iterator<Item = &'static str> {
    FAILURES.iter().flat_map(|f| [f.name, f.look, f.told])
}

#[component]
pub fn Zoo(seed: u64, alone: Alone, controls: bool) -> impl IntoView {
    let chosen = RwSignal::new(0_usize);
    let told = RwSignal::new(false);
    let with = move |n: usize| Settings { seed, ..FAILURES[n].settings };
    let play = Play::new(Toy::new(vec![Preference::single(2, 0, 2)], with(0)), alone);
    let choices = FAILURES
        .iter()
        .enumerate()
        .map(|(n, failure)| {
            view! {
                <button
                    type="button"
                    aria-pressed=move || (chosen.get() == n).to_string()
                    on:click=move |_| {
                        chosen.set(n);
                        told.set(false);
                        play.begin(with(n));
                    }
                >
                    {t(failure.name)}
                </button>
            }
        })
        .collect_view();
    view! {
        <div class="card stage-card" id="zoo">
            {controls.then(|| view! { <div class="segments" role="group" aria-label=t("Failures")>{choices}</div> })}
            <p>{t("Asked for: full help.")}" "{move || t(FAILURES[chosen.get()].look)}</p>
            {play.buttons()}
            {play.curves()}
            {bars(play)}
            <p class="actions"><button type="button" class="button" on:click=move |_| told.set(true)>{t("What is wrong?")}</button></p>
            <p aria-live="polite">{move || told.get().then(|| t(FAILURES[chosen.get()].told))}</p>
        </div>
    }
}
