//! Stations 4 and 6: the tiny policy at work.

use crate::parts::every::every;
use crate::parts::format;
use crate::parts::matrix::matrix;
use crate::parts::memo::memo;
use crate::parts::seen::Alone;
use crate::parts::spark::Spark;
use crate::state::toy::{ANSWERS, Figures, Optimizer, QUESTION, Settings, Toy, every_class, objectives};
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_shared::preference::Preference;
use std::time::Duration;

/// Time between two steps that are played.
const BEAT: Duration = Duration::from_millis(80);
/// Steps after which playing ends.
const MOST_STEPS: usize = 400;

/// A toy that is stepped, played and begun anew.
#[derive(Clone, Copy)]
pub struct Play {
    pub toy: RwSignal<Toy>,
    /// Whether somebody plays it.
    pub playing: RwSignal<bool>,
    /// Whether it plays by itself.
    alone: Alone,
    /// What was drawn last for the first prompt.
    pub drawn: RwSignal<Vec<usize>>,
}

impl Play {
    pub fn new(toy: Toy, alone: Alone) -> Self {
        let play = Self { toy: RwSignal::new(toy), playing: RwSignal::new(false), alone, drawn: RwSignal::new(Vec::new()) };
        every(BEAT, move || {
            if untrack(|| play.moves()) {
                play.step();
                if play.toy.with_untracked(|t| t.history.len() > MOST_STEPS) {
                    play.playing.set(false);
                    play.alone.end();
                }
            }
        });
        play
    }

    fn moves(self) -> bool {
        self.playing.get() || self.alone.plays()
    }

    pub fn step(self) {
        let mut drawn = Vec::new();
        self.toy.update(|toy| drawn = toy.step());
        self.drawn.set(drawn);
    }

    /// Begins anew with other settings.
    pub fn begin(self, settings: Settings) {
        self.playing.set(false);
        self.drawn.set(Vec::new());
        self.toy.update(|toy| *toy = Toy::new(toy.prompts.clone(), settings));
    }

    /// All that is known of the policy, over the steps.
    pub fn curves(self) -> impl IntoView {
        let play = self;
        view! {
            <div class="sparks two">
                <Spark title=t("Reward") unit="" points=play.curve(|f| f.reward)/>
                <Spark title=t("Classes met") unit=t("share") points=play.curve(|f| f.met)/>
                <Spark title=t("KL from its start") unit=t("nats") points=play.curve(|f| f.kl)/>
                <Spark title=t("Entropy") unit=t("nats") points=play.curve(|f| f.entropy)/>
            </div>
        }
    }

    fn curve(self, of: fn(&Figures) -> f64) -> Memo<Vec<(f64, f64)>> {
        memo(move || self.toy.with(|t| t.history.iter().enumerate().map(|(n, f)| (n as f64, of(f))).collect()))
    }

    /// Step, play, and begin anew.
    pub fn buttons(self) -> impl IntoView {
        view! {
            <p class="actions">
                <button type="button" class="button" data-toy="step" on:click=move |_| self.step()>{t("Step")}</button>
                <button type="button" class="button primary" data-toy="play" on:click=move |_| self.playing.set(!untrack(|| self.moves()))>
                    {move || if self.moves() { t("Pause") } else { t("Play") }}
                </button>
                <button type="button" class="button quiet" on:click=move |_| self.begin(self.toy.with_untracked(|t| t.settings))>{t("Begin anew")}</button>
                <span class="hint num">{move || self.toy.with(|toy| said("step {0}", &[&(toy.history.len() - 1).to_string()]))}</span>
            </p>
        }
    }
}

/// The answers and how probable each is for the first prompt; `paid`: beside each what it is paid.
pub fn bars(play: Play) -> impl IntoView {
    let rows = ANSWERS
        .iter()
        .enumerate()
        .map(|(a, answer)| {
            let share = memo(move || play.toy.with(|t| t.policy(0)[a]));
            let paid = memo(move || play.toy.with(|t| t.rewards[0][a]));
            let drawn = memo(move || play.drawn.with(|d| d.iter().filter(|x| **x == a).count()));
            view! {
                <tr>
                    <th scope="row">{t(answer.text)}</th>
                    <td class="fall"><span class="fall-bar" style:width=move || format!("{:.1}%", share.get() * 100.0)></span></td>
                    <td class="num">{move || format::percent(share.get())}</td>
                    <td class="num">{move || format::signed(paid.get(), 2)}</td>
                    <td class="num">{move || match drawn.get() { 0 => String::new(), n => "●".repeat(n) }}</td>
                </tr>
            }
        })
        .collect_view();
    view! {
        <div class="scroll" tabindex="0">
            <table class="values choices-table">
                <caption>{t(QUESTION)}</caption>
                <thead>
                    <tr><th scope="col">{t("answer")}</th><td></td><th scope="col">{t("probability")}</th><th scope="col">{t("paid")}</th><th scope="col">{t("drawn")}</th></tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
}

/// Station 4: two wishes that cannot both be had.
#[component]
pub fn Bench(seed: u64, alone: Alone, controls: bool) -> impl IntoView {
    let wish = Preference(vec![Some(2), Some(0)]);
    let play = Play::new(Toy::new(vec![wish], Settings { seed, ..Settings::default() }), alone);
    let change = move |f: &dyn Fn(&mut Settings)| {
        let mut settings = play.toy.with_untracked(|t| t.settings);
        f(&mut settings);
        play.begin(settings);
    };
    let optimizers = Optimizer::ALL
        .into_iter()
        .map(|o| {
            view! {
                <button
                    type="button"
                    aria-pressed=move || play.toy.with(|t| t.settings.optimizer == o).to_string()
                    on:click=move |_| change(&|s| s.optimizer = o)
                >
                    {o.title()}
                </button>
            }
        })
        .collect_view();
    let slider = move |label: &'static str, range: [&'static str; 3], get: fn(&Settings) -> f64, set: fn(&mut Settings, f64)| {
        view! {
            <label class="wish-row">
                <span>{label}</span>
                <input
                    type="range" min=range[0] max=range[1] step=range[2]
                    prop:value=move || play.toy.with(|t| get(&t.settings)).to_string()
                    on:change=move |ev| if let Ok(v) = event_target_value(&ev).parse() { change(&|s| set(s, v)) }
                />
                <output class="num">{move || format::number(play.toy.with(|t| get(&t.settings)), 2)}</output>
            </label>
        }
    };
    view! {
        <div class="card stage-card" id="toy">
            <p class="label">{t("Asked for: full help, short")}</p>
            {play.buttons()}
            {bars(play)}
            {play.curves()}
            {controls.then(|| view! {
                <div class="segments" role="group" aria-label=t("Optimiser")>{optimizers}</div>
                {slider(t("Answers a step"), ["1", "16", "1"], |s| s.samples as f64, |s, v| s.samples = v as usize)}
                {slider(t("Learning rate"), ["0.05", "2", "0.05"], |s| s.learning_rate, |s, v| s.learning_rate = v)}
                {slider(t("KL coefficient"), ["0", "2", "0.05"], |s| s.beta, |s, v| s.beta = v)}
            })}
        </div>
    }
}

/// Station 6: one policy, every class asked for.
#[component]
pub fn Steering(seed: u64, alone: Alone) -> impl IntoView {
    let play = Play::new(Toy::new(every_class(), Settings { seed, samples: 8, ..Settings::default() }), alone);
    let all = objectives();
    view! {
        <div class="card stage-card" id="steering">
            {play.buttons()}
            <div class="grid two">
                {move || {
                    play.toy.with(|toy| {
                        all.iter().enumerate().map(|(i, o)| view! {
                            <div><h3>{o.name.clone()}</h3>{matrix(o, i * 3, "toy", &toy.matrix(i))}</div>
                        }).collect_view()
                    })
                }}
            </div>
            <div class="sparks two">
                <Spark title=t("Classes met") unit=t("share") points=play.curve(|f| f.met)/>
                <Spark title=t("Reward") unit="" points=play.curve(|f| f.reward)/>
            </div>
        </div>
    }
}
