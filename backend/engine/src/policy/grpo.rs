//! Group relative policy optimisation (Shao et al. 2024) and its variants: the baseline is the group's mean, every token
//! of an answer has the answer's advantage, and the KL penalty is k3 within the loss (or what is chosen in its place).
//!
//! | | advantage | a token's weight | KL | clipping |
//! |---|---|---|---|---|
//! | GRPO | `(r - mean) / std` | `1 / (N T_j)` | k3 in the loss | symmetric |
//! | Dr. GRPO | `r - mean` | `1 / (N T_max)` | k3 in the loss | symmetric |
//! | DAPO | `(r - mean) / std` | `1 / sum of T` | none | higher upwards |
//!
//! DAPO also draws groups of nearly equal rewards again (`dapo.rs`), lowers the score of answers that come near the
//! length limit, and learns nothing from those that were cut off there. With `normalise_then_sum` (GDPO) every objective is standardised within the group before they are added.

use super::dapo::{dapo_weight, overlong_penalty};
use super::moc::balanced_scores;
use super::rollout::Rollout;
use super::surrogate;
use super::update::{PolicyTrainee, Update, UpdateReport};
use crate::model::TrainBackend;
use moslim_shared::advantage::{dr_grpo, gdpo, grpo, standardise};
use moslim_shared::config::{Aggregation, KlPlacement, PolicyConfig, PolicyOptimizer};
use rand::rngs::StdRng;

/// Fills in the advantages.
pub fn set_advantages(rollouts: &mut [Rollout], u: &Update) {
    let config = u.config;
    let dapo = config.optimizer == PolicyOptimizer::Dapo;
    let (limit, buffer) = (config.max_new_tokens, config.dapo.overlong_buffer);
    let in_reward = config.kl_placement() == KlPlacement::Reward;
    let extra = |r: &Rollout| {
        let kl = if in_reward { -u.beta * r.kl } else { 0.0 };
        kl + if dapo { overlong_penalty(r.answer.tokens.len(), limit, buffer) } else { 0.0 }
    };
    if config.aggregation == Aggregation::NormaliseThenSum {
        for group in rollouts.chunk_by_mut(|a, b| a.prompt == b.prompt) {
            let rewards: Vec<Vec<Option<f64>>> = group
                .iter()
                .map(|r| {
                    // What is not asked for contributes 0 to every sample and stays out; the penalties are one more objective.
                    let asked = r.contributions.iter().enumerate().map(|(i, &c)| r.asked[i].then_some(c));
                    asked.chain([Some(r.penalty + extra(r))]).collect()
                })
                .collect();
            for (rollout, advantage) in group.iter_mut().zip(gdpo(&rewards)) {
                rollout.advantage = advantage;
            }
        }
        let mut all: Vec<f64> = rollouts.iter().map(|r| r.advantage).collect();
        standardise(&mut all);
        rollouts.iter_mut().zip(all).for_each(|(r, a)| r.advantage = a);
        return;
    }
    let scores: Vec<f64> = match config.aggregation {
        Aggregation::MinNorm => balanced_scores(rollouts),
        _ => rollouts.iter().map(|r| r.score).collect(),
    };
    let mut rest = scores.as_slice();
    for group in rollouts.chunk_by_mut(|a, b| a.prompt == b.prompt) {
        let (own, tail) = rest.split_at(group.len());
        rest = tail;
        let counts = |r: &Rollout| !dapo || r.answer.ended;
        let rewards: Vec<f64> = group.iter().zip(own).filter(|(r, _)| counts(r)).map(|(r, score)| score + extra(r)).collect();
        let advantages = if config.optimizer == PolicyOptimizer::DrGrpo { dr_grpo(&rewards) } else { grpo(&rewards) };
        let mut advantages = advantages.into_iter();
        for rollout in group {
            rollout.advantage = if counts(rollout) { advantages.next().expect("one each") } else { 0.0 };
        }
    }
}

/// Updates the policy on a batch of rollouts.
pub fn update<B: TrainBackend>(
    policy: PolicyTrainee<B>,
    rollouts: &[Rollout],
    u: &Update,
    rng: &mut StdRng,
) -> (PolicyTrainee<B>, UpdateReport) {
    surrogate::update(policy, rollouts, u, rng, |part, r| weight(part, r, u.config))
}

/// Weight of each token of `rollout` in the loss of the minibatch `part`.
fn weight(part: &[&[Rollout]], rollout: &Rollout, config: &PolicyConfig) -> f64 {
    let samples: usize = part.iter().map(|g| g.len()).sum();
    match config.optimizer {
        PolicyOptimizer::Dapo => dapo_weight(part, rollout),
        PolicyOptimizer::DrGrpo => 1.0 / (samples * config.max_new_tokens) as f64,
        _ => 1.0 / (samples * rollout.answer.tokens.len().max(1)) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rloo;
    use crate::policy::update::tests::{
        batch, for_tokens, near, norm, of_two_objectives, policy, prompts, rollout, told, trainee,
    };
    use moslim_shared::config::KlPenalty;
    use rand::SeedableRng;
    use std::f64::consts::FRAC_1_SQRT_2;

    /// Two answers of equal score, of which the second has gone two nats further; a third was cut off.
    fn rollouts() -> Vec<Rollout> {
        let mut all: Vec<Rollout> = [0.0, 2.0, 9.0].iter().map(|&kl| Rollout { kl, ..rollout(0, 1.0, 3) }).collect();
        all[2].answer.ended = false;
        all
    }

    fn advantages(config: &PolicyConfig, set: impl Fn(&mut [Rollout], &Update)) -> Vec<f64> {
        let mut all = rollouts();
        set(&mut all, &Update { prompts: &[], config, beta: 0.5, learning_rate: 0.0, iteration: 0, supervised: &[] });
        all.iter().map(|r| r.advantage).collect()
    }

    #[test]
    fn a_penalty_in_the_reward_lowers_it_and_one_in_the_loss_does_not() {
        let config = |optimizer, kl_penalty| PolicyConfig { optimizer, kl_penalty, ..Default::default() };
        // r = 1, 0, -3.5: the mean is -5/6.
        let dr_grpo = advantages(&config(PolicyOptimizer::DrGrpo, KlPenalty::K1Reward), set_advantages);
        assert!(dr_grpo.iter().zip([11.0 / 6.0, 5.0 / 6.0, -16.0 / 6.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{dr_grpo:?}");
        assert_eq!(advantages(&config(PolicyOptimizer::DrGrpo, KlPenalty::Own), set_advantages), [0.0; 3]);
        let rloo_own = advantages(&config(PolicyOptimizer::Rloo, KlPenalty::Own), rloo::set_advantages);
        assert!(rloo_own.iter().zip([2.75, 1.25, -4.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{rloo_own:?}");
        assert_eq!(advantages(&config(PolicyOptimizer::Rloo, KlPenalty::K2Loss), rloo::set_advantages), [0.0; 3]);
    }

    #[test]
    fn dapo_compares_what_ended() {
        let config = PolicyConfig { optimizer: PolicyOptimizer::Dapo, kl_penalty: KlPenalty::K1Reward, ..Default::default() };
        let dapo = advantages(&config, set_advantages);
        // Of 1 and 0 the mean is a half, the deviation 0.7071.
        assert!((dapo[0] - 0.7070).abs() < 1e-3 && (dapo[1] + 0.7070).abs() < 1e-3 && dapo[2] == 0.0, "{dapo:?}");
    }

    /// Advantages of rollouts, set with a KL coefficient of a half.
    fn set(mut all: Vec<Rollout>, config: &PolicyConfig) -> Vec<f64> {
        set_advantages(&mut all, &told(&[], config));
        all.iter().map(|r| r.advantage).collect()
    }

    fn close(got: &[f64], want: &[f64], by: f64) {
        assert!(got.len() == want.len() && got.iter().zip(want).all(|(g, w)| (g - w).abs() < by), "{got:?}, not {want:?}");
    }

    #[test]
    fn every_group_has_its_own_baseline_and_grpo_its_own_deviation() {
        let all: Vec<Rollout> =
            [(0, 1.0), (0, 0.0), (0, 2.0), (1, 4.0), (1, 2.0)].iter().map(|&(p, score)| rollout(p, score, 1)).collect();
        let mut config = PolicyConfig { optimizer: PolicyOptimizer::DrGrpo, ..Default::default() };
        assert_eq!(set(all.clone(), &config), [0.0, -1.0, 1.0, 1.0, -1.0]);
        config.optimizer = PolicyOptimizer::Grpo;
        // Deviations of 1 and of the square root of 2.
        close(&set(all, &config), &[0.0, -1.0, 1.0, FRAC_1_SQRT_2, -FRAC_1_SQRT_2], 1e-3);
        // Balanced, the first objective has a hundred times the say of the second, 200/101 and 2/101: scores of 200/101 and -1, 20/101 and 0.
        (config.optimizer, config.aggregation) = (PolicyOptimizer::DrGrpo, Aggregation::MinNorm);
        let mut all = of_two_objectives();
        all[1].penalty = -1.0;
        close(&set(all, &config), &[301.0 / 202.0, -301.0 / 202.0, 10.0 / 101.0, -10.0 / 101.0], 1e-3);
    }

    #[test]
    fn objectives_that_are_asked_for_and_penalties_are_standardised_one_by_one() {
        let config = PolicyConfig {
            optimizer: PolicyOptimizer::Grpo,
            kl_penalty: KlPenalty::K1Reward,
            aggregation: Aggregation::NormaliseThenSum,
            ..Default::default()
        };
        // Contributions, penalty and KL of three answers to a prompt that asks for the first objective, and two to one that asks for both.
        let all: [(usize, [f64; 2], f64, f64); 5] = [
            (0, [1.0, 5.0], 0.0, 0.0),
            (0, [3.0, -5.0], 0.0, 1.0),
            (0, [5.0, 0.0], -1.0, 2.0),
            (1, [0.0, 3.0], 0.0, 0.0),
            (1, [4.0, 1.0], -1.0, 0.0),
        ];
        let of = |(prompt, contributions, penalty, kl): (usize, [f64; 2], f64, f64)| Rollout {
            contributions: contributions.to_vec(),
            asked: vec![true, prompt == 1],
            penalty,
            kl,
            ..rollout(prompt, 9.0, 1)
        };
        // In the first group -1, 0, 1 and, of the penalties 0, -0.5 and -2, 0.8006, 0.3203 and -1.1209; in the second -0.7071 and 0.7071 and
        // twice the opposite. Their mean is 0 and their deviation 0.5378.
        let want = [-0.3707, 0.5954, -0.2247, 1.3145, -1.3145];
        close(&set(all.map(of).to_vec(), &config), &want, 1e-3);
    }

    #[test]
    fn dapo_alone_lowers_the_score_of_answers_near_the_limit() {
        let mut config = PolicyConfig { kl_penalty: KlPenalty::K1Reward, max_new_tokens: 10, ..Default::default() };
        config.dapo.overlong_buffer = 4;
        // Scores of 1, less half of the KL: 1, 0.5 and 1. Eight tokens of ten cost 0.5, ten cost 1.
        let all: Vec<Rollout> =
            [(6, 0.0), (8, 1.0), (10, 0.0)].iter().map(|&(length, kl)| Rollout { kl, ..rollout(0, 1.0, length) }).collect();
        config.optimizer = PolicyOptimizer::DrGrpo;
        close(&set(all.clone(), &config), &[1.0 / 6.0, -1.0 / 3.0, 1.0 / 6.0], 1e-9);
        // 1, 0 and 0: a third on average, 0.5774 the deviation.
        config.optimizer = PolicyOptimizer::Dapo;
        close(&set(all.clone(), &config), &[1.1547, -0.5774, -0.5774], 1e-3);
        // Without the first, which was cut off, no two differ; without the second, 1 and 0 do.
        let cut = |n: usize| {
            let mut all = all.clone();
            all[n].answer.ended = false;
            set(all, &config)
        };
        assert_eq!(cut(0), [0.0; 3]);
        close(&cut(1), &[FRAC_1_SQRT_2, 0.0, -FRAC_1_SQRT_2], 1e-3);
    }

    #[test]
    fn tokens_weigh_as_the_table_says() {
        let mut cut = rollout(1, 0.0, 4);
        cut.answer.ended = false;
        let groups = [vec![rollout(0, 0.0, 3), rollout(0, 0.0, 2)], vec![cut]];
        let part: Vec<&[Rollout]> = groups.iter().map(Vec::as_slice).collect();
        let weights = |optimizer| {
            let config = PolicyConfig { optimizer, max_new_tokens: 10, ..Default::default() };
            [&groups[0][0], &groups[0][1], &groups[1][0]].map(|r| weight(&part, r, &config))
        };
        // Three answers, of three, two and four tokens, ten at most, and five of those that ended.
        assert_eq!(weights(PolicyOptimizer::Grpo), [1.0 / 9.0, 1.0 / 6.0, 1.0 / 12.0]);
        assert_eq!(weights(PolicyOptimizer::DrGrpo), [1.0 / 30.0; 3]);
        assert_eq!(weights(PolicyOptimizer::Dapo), [0.2, 0.2, 0.0]);
    }

    #[test]
    fn an_update_weighs_tokens_by_the_minibatch() {
        let (policy, prompts) = (policy(), prompts());
        let mut all = batch(&policy, 1.0);
        let each = [1.0, -1.0, 0.5, 2.0, -1.5, 0.25];
        all.iter_mut().zip(each).for_each(|(r, advantage)| r.advantage = advantage);
        let config = PolicyConfig { optimizer: PolicyOptimizer::Grpo, ..Default::default() };
        let rng = &mut StdRng::seed_from_u64(1);
        let (_, report) = update(trainee(&policy), &all, &told(&prompts, &config), rng);
        // Six answers, each of which is a mean over its tokens.
        let own: Vec<f64> = all.iter().zip(each).map(|(r, a)| a / (6 * r.answer.tokens.len()) as f64).collect();
        assert!(near(report.gradient_norm, norm(&policy, &all, &for_tokens(&all, &own), 1.0)), "{}", report.gradient_norm);
    }
}
