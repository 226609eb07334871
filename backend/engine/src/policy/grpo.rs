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
