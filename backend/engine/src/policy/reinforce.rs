//! REINFORCE++ (Hu 2025): the KL penalty is subtracted token by token, rewards are summed from each token on, and the whole
//! batch of tokens shares one mean and deviation. No critic, no groups; the mapping's averages per class are the only baseline
//! that knows how hard a target is.

use super::rollout::Rollout;
use super::surrogate::{self, mean_over_tokens};
use super::update::{PolicyTrainee, Update, UpdateReport};
use crate::model::TrainBackend;
use moslim_shared::advantage::{reward_to_go, standardise, token_rewards};
use rand::rngs::StdRng;

/// Fills in the advantages of all tokens.
pub fn set_advantages(rollouts: &mut [Rollout], u: &Update) {
    let mut all: Vec<f64> =
        rollouts.iter().flat_map(|r| reward_to_go(&token_rewards(r.score, &r.log_ratios(), u.reward_beta()), 1.0)).collect();
    standardise(&mut all);
    give_tokens(rollouts, &all);
}

/// Hands out one advantage for each token, in order; a rollout's own is their mean.
pub fn give_tokens(rollouts: &mut [Rollout], all: &[f64]) {
    let mut rest = all;
    for r in rollouts {
        let (own, tail) = rest.split_at(r.answer.tokens.len());
        r.advantage = own.iter().sum::<f64>() / own.len().max(1) as f64;
        r.per_token = Some(own.iter().map(|&a| a as f32).collect());
        rest = tail;
    }
}

/// Updates the policy on a batch of rollouts.
pub fn update<B: TrainBackend>(
    policy: PolicyTrainee<B>,
    rollouts: &[Rollout],
    u: &Update,
    rng: &mut StdRng,
) -> (PolicyTrainee<B>, UpdateReport) {
    surrogate::update(policy, rollouts, u, rng, |part, _| mean_over_tokens(part))
}
