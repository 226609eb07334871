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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::update::tests::{batch, near, norm, policy, prompts, rollout, told, trainee};
    use moslim_shared::config::{PolicyConfig, PolicyOptimizer};
    use rand::SeedableRng;

    fn config() -> PolicyConfig {
        PolicyConfig { optimizer: PolicyOptimizer::ReinforcePlusPlus, epochs: 2, temperature: 0.5, ..Default::default() }
    }

    #[test]
    fn tokens_earn_what_follows_them_and_are_compared_with_the_whole_batch() {
        let mut all = [rollout(0, 1.0, 2), rollout(0, -2.0, 1), rollout(1, 0.5, 3)];
        // Log-probabilities are -1: k1 is 0 and 0.5, -0.2, 0.4 and 0 and 0, of which half is subtracted.
        all[0].reference_log_probs[1] = -1.5;
        all[1].reference_log_probs[0] = -0.8;
        all[2].reference_log_probs[0] = -1.4;
        set_advantages(&mut all, &told(&[], &config()));
        // From each token on: 0.75, 0.75; -1.9; 0.3, 0.5, 0.5. Their mean is 0.15, their variance 5.19 / 5.
        let deviation = 1.038f64.sqrt() + 1e-4;
        let want: [&[f64]; 3] = [&[0.6, 0.6], &[-2.05], &[0.15, 0.35, 0.35]];
        for (r, want) in all.iter().zip(want) {
            let got = r.token_advantages();
            assert!(got.len() == want.len() && got.iter().zip(want).all(|(g, w)| (f64::from(*g) - w / deviation).abs() < 1e-5));
            let mean = want.iter().sum::<f64>() / want.len() as f64 / deviation;
            assert!((r.advantage - mean).abs() < 1e-6, "{} is not {mean}", r.advantage);
        }
        // Without advantages of their own, all tokens have the answer's.
        all[2].per_token = None;
        assert_eq!(all[2].token_advantages(), [all[2].advantage as f32; 3]);
    }

    #[test]
    fn an_update_averages_over_all_tokens() {
        let (policy, prompts, config) = (policy(), prompts(), config());
        let mut all = batch(&policy, 0.5);
        let advantages: Vec<f64> = (0..15).map(|t| f64::from(t - 5) / 4.0).collect();
        give_tokens(&mut all, &advantages);
        let (_, report) = update(trainee(&policy), &all, &told(&prompts, &config), &mut StdRng::seed_from_u64(1));
        let coefficients: Vec<f32> = advantages.iter().map(|a| (a / 15.0) as f32).collect();
        assert!(near(report.gradient_norm, norm(&policy, &all, &coefficients, 0.5)));
        // The prompts' six tokens and the answers' fifteen, twice.
        assert_eq!(report.work.training_tokens, 2 * 21);
    }
}
