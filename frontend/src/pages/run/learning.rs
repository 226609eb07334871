//! The curves of policy optimisation. What a method or an optimiser does not report has no chart.

use crate::pages::run::curves::{line, lines, loss};
use crate::parts::chart::Chart;
use crate::parts::format::kl_penalty;
use crate::state::{RunState, Topic};
use crate::stream::Run;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::{Ink, LinePlot, Over, Plot, SHARE};
use moslim_shared::config::KlPlacement;
use moslim_shared::event::Stage;
use moslim_shared::method::Method;
use moslim_shared::summary::KlPoint;

/// Colour of the held-out reward model, which is no objective.
const HELD_OUT_INK: usize = 5;

/// What a chart of policy steps says before the first one.
fn empty() -> &'static str {
    t("Fills with the first iteration of policy optimisation.")
}

/// An approximate KL that rounding alone can make.
const NOTHING: f64 = 1e-9;

/// The stage that trains on tagged prompts with a loss: preference SFT where there is one, else RiC's own training.
fn tagged(state: &RunState) -> Stage {
    let sft = state.stage_list().contains(&Stage::PreferenceSft);
    if sft { Stage::PreferenceSft } else { Stage::Policy }
}

/// The section with all of them.
#[component]
pub fn Learning(run: Run) -> impl IntoView {
    let what = run.memo(approach);
    let thinned = run.on(Topic::Policy, RunState::thinned);
    let is = move |there: fn(&RunState) -> bool| {
        let there = run.memo(there);
        move || there.get()
    };
    view! {
        <section id="learning" class="section" aria-labelledby="learning-title">
            <h2 id="learning-title">{t("Policy optimisation")}</h2>
            <p class="muted" id="approach">{move || what.get()}</p>
            {move || {
                let told = |every: usize| said("Of this long run one step in {0} is drawn; its journal has them all.", &[&every.to_string()]);
                thinned.get().map(|every| view! { <p class="muted" id="thinned">{told(every)}</p> })
            }}
            <div class="grid two">
                <Show when=is(RunState::optimises)><Essentials run=run/></Show>
                <Show when=is(|s| !s.loss_curves(tagged(s)).is_empty())>
                    <Chart
                        id="chart-policy-loss"
                        title=t("Does it learn to read its prompts?")
                        hint=t("Loss on prompts that say what their answer has achieved, nats per token. Lower is better.")
                        plot=run.on(Topic::Loss, |s| loss(s, tagged(s), t("Loss")))
                    />
                </Show>
                <Show when=is(|s| !s.frontier.is_empty())>
                    <Chart
                        id="chart-frontier"
                        title=t("Is the reward model being exploited?")
                        hint=t("Share of the classes asked for that are met, over the KL from the SFT model, nats per answer. When the reward \
                                model's dots rise while the others fall, the policy is exploiting the reward model.")
                        plot=run.on(Topic::Policy, exploited)
                    />
                </Show>
                <Show when=is(|s| s.policy().iter().any(|p| p.approx_kl > NOTHING))>
                    <Chart
                        id="chart-update"
                        title=t("How large are its steps?")
                        hint=t("Approximate KL from the policy that sampled, nats, and the share of clipped ratios.")
                        plot=run.on(Topic::Policy, update)
                    />
                </Show>
                <Show when=is(|s| s.policy().iter().any(|p| p.value_loss.is_some()))>
                    <Chart
                        id="chart-critic"
                        title=t("Does the critic foresee the reward?")
                        hint=t("Value loss, and explained variance of the returns: 1 is perfect, 0 is no better than their mean.")
                        plot=run.on(Topic::Policy, critic)
                    />
                </Show>
                <Show when=is(|s| s.policy().iter().any(|p| p.preference_accuracy.is_some()))>
                    <Chart
                        id="chart-pairs"
                        title=t("Does it prefer what scores higher?")
                        hint=t("Preference accuracy: share of pairs that the policy, against the SFT model, orders like their scores.")
                        plot=run.on(Topic::Policy, pairs)
                    />
                </Show>
            </div>
        </section>
    }
}

/// The charts that every optimiser has.
#[component]
fn Essentials(run: Run) -> impl IntoView {
    view! {
        <Chart
            id="chart-learning"
            title=t("Is it learning?")
            hint=t("Bold: the scalar that is optimised. Thin: the score before KL, and what each objective adds when it is asked for.")
            empty=empty()
            plot=run.on(Topic::Policy, learning)
        />
        <Chart
            id="chart-kl"
            title=t("How far has it moved from the SFT model?")
            hint=t("KL divergence in nats per answer, and what it costs where it is subtracted from the reward (β·KL).")
            empty=empty()
            plot=run.on(Topic::Policy, divergence)
        />
        <Chart
            id="chart-target"
            title=t("How likely is the class asked for?")
            hint=t("Probability that the reward model gives to the class asked for, mean over the answers that ask.")
            empty=t("Fills with the first iteration whose prompts carry tags.")
            plot=run.on(Topic::Policy, on_target)
        />
        <Chart
            id="chart-entropy"
            title=t("Does it still try different things?")
            hint=t("Mean entropy of the next token, nats. A fall to zero means that the policy says one thing only.")
            empty=empty()
            plot=run.on(Topic::Policy, entropy)
        />
    }
}

/// What is done to the policy, and by whom.
fn approach(state: &RunState) -> String {
    let Some(config) = &state.config else { return String::new() };
    let (method, optimizer) = (config.method.kind, config.policy.optimizer);
    let title = method.title();
    match method {
        Method::TaggedSft | Method::BestOfN => said("{0} trains no policy: the SFT policy answers.", &[title]),
        Method::Ric | Method::RicClass => {
            said("{0}: supervised training on prompts that say what their answer has achieved. No reward is optimised.", &[title])
        }
        Method::ParetoHqd => {
            said("{0}: for every trade-off, supervised training on answers near the front in its direction.", &[title])
        }
        Method::Moslim => said("{0} with {1}. {2}", &[title, optimizer.title(), kl_penalty(&config.policy)]),
        Method::Morlhf | Method::RewardedSoups => said(
            "{0} with {1}. {2} Several policies are trained in turn; the curves are those of the last one that began.",
            &[title, optimizer.title(), kl_penalty(&config.policy)],
        ),
    }
}

/// Whether the reward that is optimised pays for the divergence. Elsewhere the score is what is optimised.
fn pays(state: &RunState) -> bool {
    state.kl_placement() == KlPlacement::Reward
}

/// One thin line per objective. Where prompts do not ask, no step says what an objective adds.
fn per_objective(state: &RunState) -> Vec<(String, Ink, bool)> {
    let names = state.objectives.iter().enumerate().map(|(i, o)| (o.name.clone(), Ink::Objective(i), false));
    if state.asks() { names.collect() } else { Vec::new() }
}

fn learning(state: &RunState) -> Plot {
    let pays = pays(state);
    let mut heads = Vec::new();
    if pays {
        heads.push((t("Reward as optimised").to_string(), Ink::Strong, true));
    }
    heads.push((t("Score before KL").to_string(), if pays { Ink::Accent } else { Ink::Strong }, !pays));
    let first = heads.len();
    heads.extend(per_objective(state));
    lines(state, t("reward"), heads, &|p, n| match n {
        0 if pays => Some(p.reward),
        n if n < first => Some(p.score),
        n => p.contributions.get(n - first).copied(),
    })
}

fn divergence(state: &RunState) -> Plot {
    let mut heads = vec![(t("KL, nats per answer").to_string(), Ink::Strong, true)];
    if pays(state) {
        heads.push((t("β·KL, its cost").to_string(), Ink::Accent, false));
    }
    lines(state, t("nats per answer"), heads, &|p, n| Some(if n == 0 { p.kl } else { p.score - p.reward }))
}

/// Probability of the class asked for, per objective.
pub fn on_target(state: &RunState) -> Plot {
    lines(state, SHARE, per_objective(state), &|p, n| p.on_target.get(n).copied())
}

fn entropy(state: &RunState) -> Plot {
    lines(state, t("nats per token"), vec![(t("Token entropy, nats").into(), Ink::Strong, true)], &|p, _| Some(p.entropy))
}

fn update(state: &RunState) -> Plot {
    let heads = vec![(t("Approximate KL").into(), Ink::Strong, true), (t("Clip fraction").into(), Ink::Accent, false)];
    lines(state, t("nats, and a share"), heads, &|p, n| Some(if n == 0 { p.approx_kl } else { p.clip_fraction }))
}

fn critic(state: &RunState) -> Plot {
    let heads = vec![(t("Explained variance").into(), Ink::Strong, true), (t("Value loss").into(), Ink::Accent, false)];
    lines(state, "", heads, &|p, n| if n == 0 { p.explained_variance } else { p.value_loss })
}

fn pairs(state: &RunState) -> Plot {
    lines(state, SHARE, vec![(t("Preference accuracy").into(), Ink::Strong, true)], &|p, _| p.preference_accuracy)
}

fn exploited(state: &RunState) -> Plot {
    let points = |of: &dyn Fn(&KlPoint) -> Option<f64>| state.frontier.iter().filter_map(|p| Some((p.kl, of(p)?))).collect();
    let series = vec![
        line(t("As the reward model sees it"), Ink::Accent, false, points(&|p| Some(p.proxy_hit_rate))),
        line(t("As a held-out reward model sees it"), Ink::Objective(HELD_OUT_INK), false, points(&|p| p.held_out_hit_rate)),
        line(t("By the gold grader"), Ink::Strong, true, points(&|p| p.gold_hit_rate)),
    ];
    let series = series.into_iter().filter(|s| !s.points.is_empty()).collect();
    Plot::Lines(LinePlot { series, range: Some((0.0, 1.0)), zero: true, percent: true, over: Over::Kl, unit: SHARE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::config::{PolicyOptimizer, RunConfig};
    use moslim_shared::event::PolicyStep;
    use moslim_shared::objective::Objective;

    fn state(change: impl Fn(&mut RunConfig)) -> RunState {
        let step = PolicyStep { step: 1, reward: 0.5, score: 0.75, contributions: vec![0.25], kl: 2.0, ..Default::default() };
        let mut config = RunConfig::default();
        change(&mut config);
        let mut state = RunState::default();
        state.config = Some(config);
        state.objectives.push(Objective::new("honesty", "Honesty", "", &["no", "yes"]));
        state.policies.entry(0).or_default().push(step);
        state
    }

    /// Label, whether it is bold, and first value of every line.
    fn values(plot: Plot) -> Vec<(String, bool, f64)> {
        match plot {
            Plot::Lines(p) => p.series.into_iter().map(|s| (s.label, s.bold, s.points[0].1)).collect(),
            Plot::Bands(_) => Vec::new(),
        }
    }

    #[test]
    fn the_bold_line_is_what_the_optimiser_used() {
        let own = |label: &str, bold, value| (label.to_string(), bold, value);
        assert_eq!(
            values(learning(&state(|_| {}))),
            [own("Reward as optimised", true, 0.5), own("Score before KL", false, 0.75), own("Honesty", false, 0.25)]
        );
        let grpo = state(|c| c.policy.optimizer = PolicyOptimizer::Grpo);
        assert_eq!(values(learning(&grpo)), [own("Score before KL", true, 0.75), own("Honesty", false, 0.25)]);
        let morlhf = state(|c| c.method.kind = Method::Morlhf);
        assert_eq!(values(learning(&morlhf)).len(), 2, "what an objective adds is not reported");
    }

    #[test]
    fn the_cost_of_kl_is_the_difference_of_score_and_reward() {
        assert_eq!(values(divergence(&state(|_| {})))[1].2, 0.25);
        assert_eq!(values(divergence(&state(|c| c.policy.optimizer = PolicyOptimizer::OnlineDpo))).len(), 1);
    }

    #[test]
    fn missing_values_leave_an_empty_line() {
        assert!(on_target(&state(|_| {})).is_empty());
    }

    #[test]
    fn all_graders_of_the_same_answers_are_shown() {
        let mut state = state(|_| {});
        state.frontier.push(KlPoint { step: 5, proxy_hit_rate: 0.75, gold_hit_rate: Some(0.5), ..Default::default() });
        assert_eq!(values(exploited(&state)).iter().map(|v| v.2).collect::<Vec<_>>(), [0.75, 0.5]);
        state.frontier[0].held_out_hit_rate = Some(0.625);
        assert_eq!(values(exploited(&state)).iter().map(|v| v.2).collect::<Vec<_>>(), [0.75, 0.625, 0.5]);
    }

    #[test]
    fn the_approach_names_method_and_optimiser() {
        assert!(approach(&state(|c| c.policy.optimizer = PolicyOptimizer::Ppo)).starts_with("MOSLIM with PPO. Its KL"));
        assert!(approach(&state(|c| c.method.kind = Method::BestOfN)).contains("trains no policy"));
        assert_eq!(approach(&RunState::default()), "");
    }
}
