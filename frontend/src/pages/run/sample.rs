//! Fresh answers, with everything that their reward is made of.

use crate::parts::class_bars::class_bars;
use crate::parts::format;
use crate::parts::memo::memo;
use crate::state::{RunState, Topic};
use crate::stream::Run;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::Ink;
use moslim_shared::config::{KlPlacement, PolicyOptimizer};
use moslim_shared::event::Sample;
use moslim_shared::objective::Objective;

/// Most cards on the page.
const SHOWN: usize = 8;

/// The section with the newest samples.
#[component]
pub fn Samples(run: Run) -> impl IntoView {
    let revision = run.revision(Topic::Samples);
    // While held, the revision that is shown stays what it was.
    let held = RwSignal::new(None::<u64>);
    let shown = memo(move || held.get().unwrap_or_else(|| revision.get()));
    let any = run.memo(|s| s.samples.is_some());
    view! {
        <section id="samples" class="section" aria-labelledby="samples-title">
            <div class="section-head">
                <div>
                    <h2 id="samples-title">{t("What does it write?")}</h2>
                    <p class="muted">
                        {t("Fresh answers of the latest iteration. Bars are the reward model's class probabilities; the class asked for is marked ◆.")}
                    </p>
                </div>
                <button
                    type="button"
                    class="button quiet small"
                    class:gone=move || !any.get()
                    aria-pressed=move || held.get().is_some().to_string()
                    on:click=move |_| held.set(if held.get_untracked().is_some() { None } else { Some(revision.get_untracked()) })
                >
                    {move || if held.get().is_some() { t("Follow the newest") } else { t("Hold these") }}
                </button>
            </div>
            {move || {
                let _ = shown.get();
                run.read(cards)
            }}
        </section>
    }
}

fn cards(state: &RunState) -> AnyView {
    let Some((step, samples)) = &state.samples else {
        let text = if state.optimises() {
            t("Answers appear here with the first iteration of policy optimisation.")
        } else {
            t("This method shows no answers while it trains.")
        };
        return view! { <p class="card empty">{text}</p> }.into_any();
    };
    let update = update(state, *step);
    let cards = samples.iter().take(SHOWN).map(|sample| card(sample, &state.objectives, *step, update)).collect_view();
    view! { <div class="grid two" data-step=step.to_string()>{cards}</div> }.into_any()
}

/// Who updates the policy, where the KL penalty is, and its coefficient as far as it is known.
pub type Update = (PolicyOptimizer, KlPlacement, Option<f64>);

/// Those of a run at a step.
pub fn update(state: &RunState, step: usize) -> Update {
    (state.optimizer(), state.kl_placement(), state.kl_coefficient(step))
}

/// One answer, with what its reward is made of.
pub fn card(sample: &Sample, objectives: &[Objective], step: usize, update: Update) -> impl IntoView + use<> {
    let chips = sample
        .preference
        .asked()
        .filter_map(|(i, t)| Some((i, objectives.get(i)?.tag(t))))
        .map(|(i, tag)| {
            view! {
                <span class="chip">
                    <span class="swatch" style:background=Ink::Objective(i).css()></span>
                    <code>{tag}</code>
                </span>
            }
        })
        .collect_view();
    let bars = objectives
        .iter()
        .enumerate()
        .filter_map(|(i, o)| {
            let shares = sample.distributions.get(i)?;
            Some(class_bars(o, i, shares, sample.preference.0.get(i).copied().flatten(), None))
        })
        .collect_view();
    view! {
        <article class="card sample">
            <header>
                <span class="hint num">{said("step {0}", &[&step.to_string()])}</span>
                <span class="chips">{chips}</span>
            </header>
            <p class="question">{sample.question.clone()}</p>
            <p class="answer">{if sample.answer.is_empty() { t("(empty answer)").to_string() } else { sample.answer.clone() }}</p>
            <div class="bars">{bars}</div>
            <p class="arithmetic num">{arithmetic(sample, objectives, update)}</p>
        </article>
    }
}

/// The reward as the optimiser got it, term by term.
fn arithmetic(sample: &Sample, objectives: &[Objective], (optimizer, placement, beta): Update) -> String {
    // A method that weighs objectives asks for none of them, and still adds them up.
    let counts = |i: usize, c: f64| c != 0.0 || sample.preference.0.get(i).is_some_and(Option::is_some);
    let parts: Vec<String> = objectives
        .iter()
        .zip(&sample.contributions)
        .enumerate()
        .filter(|(i, (_, c))| counts(*i, **c))
        .map(|(_, (o, c))| format!("{} {}", o.name, format::signed(*c, 2)))
        .collect();
    let mut text = if parts.is_empty() { t("nothing asked").to_string() } else { parts.join("  ") };
    if sample.penalty != 0.0 {
        text += &said("  cut off {0}", &[&format::signed(sample.penalty, 2)]);
    }
    let (score, kl) = (format::signed(sample.score, 2), format::number(sample.kl, 2));
    text += &said("  =  score {0}.  ", &[&score]);
    text += &match placement {
        KlPlacement::Reward => {
            let beta = beta.map_or("β".to_string(), |b| format!("{b}"));
            said("Score − {0} × KL {1}  =  reward {2}.  ", &[&beta, &kl, &format::signed(sample.reward, 2)])
        }
        _ => said("KL {0}, not part of the reward.  ", &[&kl]),
    };
    text + &verdict(sample.advantage, optimizer)
}

/// What the optimiser makes of a sample.
fn verdict(advantage: f64, optimizer: PolicyOptimizer) -> String {
    let title = optimizer.title();
    if optimizer.kl_placement() != KlPlacement::Implicit {
        return said("{0} advantage {1}.", &[title, &format::signed(advantage, 2)]);
    }
    // Of all answers to a prompt the best and the worst make a pair.
    let role = if advantage > 0.0 {
        t("the preferred answer of its pair")
    } else if advantage < 0.0 {
        t("the rejected answer of its pair")
    } else {
        t("in no pair")
    };
    said("{0}: {1}.", &[title, role])
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::preference::Preference;

    fn told(optimizer: PolicyOptimizer, asked: Option<usize>) -> String {
        let sample = Sample {
            preference: Preference(vec![asked, None]),
            contributions: vec![0.5, 0.0],
            penalty: -1.0,
            score: -0.5,
            kl: 2.0,
            reward: -0.6,
            advantage: 0.25,
            ..Default::default()
        };
        let objectives = [Objective::new("a", "A", "", &["0", "1"]), Objective::new("b", "B", "", &["0", "1"])];
        arithmetic(&sample, &objectives, (optimizer, optimizer.kl_placement(), Some(0.05)))
    }

    #[test]
    fn the_arithmetic_is_that_of_the_optimiser() {
        let rloo = "A +0.50  cut off −1.00  =  score −0.50.  Score − 0.05 × KL 2.00  =  reward −0.60.  RLOO advantage +0.25.";
        assert_eq!(told(PolicyOptimizer::Rloo, Some(1)), rloo);
        assert_eq!(told(PolicyOptimizer::Rloo, None), rloo, "a weighted sum asks for nothing and adds up the same");
        assert!(told(PolicyOptimizer::Grpo, Some(1)).ends_with("KL 2.00, not part of the reward.  GRPO advantage +0.25."));
        assert!(told(PolicyOptimizer::OnlineDpo, Some(1)).ends_with("Online DPO: the preferred answer of its pair."));
    }
}
