//! An answer that a person writes, scored as those of models are.

use super::Bench;
use super::answer::{Heard, shown};
use crate::api;
use crate::words::t;
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::inference::{Pair, ScoreRequest};

/// The corner for one's own answer.
#[component]
pub fn Own(bench: Bench) -> impl IntoView {
    let text = RwSignal::new(String::new());
    let heard = RwSignal::new(None::<Heard>);
    let busy = RwSignal::new(false);
    let score = move |_| {
        let Some(lane) = bench.lanes.with_untracked(|lanes| lanes.first().copied()) else { return };
        let run = lane.column.with_untracked(|c| c.run.clone());
        let asked = bench.request();
        let pair = Pair { prompt: asked.prompt, response: text.get_untracked() };
        let preference = bench.wish.get_untracked();
        busy.set(true);
        spawn_local(async move {
            let request = ScoreRequest { pairs: vec![pair.clone()], target: asked.target };
            let mut now = Heard { preference, text: pair.response, ..Default::default() };
            match api::score(&run, &request).await {
                Ok(scores) => now.scored = scores.into_iter().next(),
                Err(failure) => now.failed = Some(failure.message),
            }
            let _ = busy.try_set(false);
            let _ = heard.try_set(Some(now));
        });
    };
    view! {
        <section class="card own" aria-labelledby="own-title">
            <h2 id="own-title">{t("What would yours be worth?")}</h2>
            <p class="muted">
                {t("Write an answer to the question yourself. The first column's reward model grades it, and the reward says how well it does what the sliders ask.")}
            </p>
            <textarea
                id="own-answer"
                rows="2"
                aria-label=t("Your answer")
                prop:value=move || text.get()
                on:input=move |ev| text.set(event_target_value(&ev))
            ></textarea>
            <p class="actions">
                <button id="score-own" type="button" class="button" disabled=move || busy.get() on:click=score>{t("Score it")}</button>
            </p>
            {move || heard.get().map(|heard| bench.objectives.with(|o| shown(&heard, o, false)))}
        </section>
    }
}
