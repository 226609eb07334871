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
use moslim_shared::config::{Aggregation, KlPlacement, PolicyOptimizer};
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
    surrogate::update(policy, rollouts, u, rng, |part, r| {
        let samples: usize = part.iter().map(|g| g.len()).sum();
        match u.config.optimizer {
            PolicyOptimizer::Dapo => dapo_weight(part, r),
            PolicyOptimizer::DrGrpo => 1.0 / (samples * u.config.max_new_tokens) as f64,
            _ => 1.0 / (samples * r.answer.tokens.len().max(1)) as f64,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rloo;
    use crate::policy::update::tests::rollout;
    use moslim_shared::config::{KlPenalty, PolicyConfig};

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
}
