//! REINFORCE leave-one-out (Ahmadian et al. 2024): the KL penalty is part of the reward, each sample's baseline is the
//! mean reward of its group's other samples, and one probability ratio per sequence is clipped as in PPO. With credit by the reward
//! model's heads every token has an advantage and a ratio of its own.

use super::moc::balanced_scores;
use super::reinforce::give_tokens;
use super::rollout::{Prompt, Rollout, groups};
use super::surrogate::{self, kl_estimate};
use super::update::{PolicyTrainee, Tally, Update, UpdateReport, clip_range, group_gradients, minibatches, tokens};
use crate::model::TrainBackend;
use crate::model::packed::Packed;
use crate::model::transformer::{Transformer, index_tensor};
use burn::prelude::*;
use burn::tensor::IndexingUpdateOp;
use moslim_shared::advantage::{gae, rloo, rloo_of_tokens, token_rewards};
use moslim_shared::config::Aggregation;
use rand::rngs::StdRng;

/// Fills in the advantages: `A_j = r_j - mean of the other rewards of the group`, with `r = score - beta KL` unless the KL penalty is
/// in the loss.
pub fn set_advantages(rollouts: &mut [Rollout], u: &Update) {
    let mut scores: Vec<f64> = match u.config.aggregation {
        Aggregation::MinNorm => balanced_scores(rollouts),
        _ => rollouts.iter().map(|r| r.score).collect(),
    };
    scores.iter_mut().zip(rollouts.iter()).for_each(|(score, r)| *score -= u.reward_beta() * r.kl);
    if let Some(lambda) = u.config.credit() {
        return set_token_advantages(rollouts, u, lambda);
    }
    let mut rest = scores.as_slice();
    for group in rollouts.chunk_by_mut(|a, b| a.prompt == b.prompt) {
        let (rewards, tail) = rest.split_at(group.len());
        rest = tail;
        for (rollout, advantage) in group.iter_mut().zip(rloo(rewards)) {
            rollout.advantage = advantage;
        }
    }
}

/// An advantage for every token: generalised advantage estimation with what the reward model's heads expect before each token as the
/// critic, and the mean over the tokens of the group's other samples as the baseline of what such a critic is wrong by.
fn set_token_advantages(rollouts: &mut [Rollout], u: &Update, lambda: f64) {
    for group in rollouts.chunk_by_mut(|a, b| a.prompt == b.prompt) {
        let of = |r: &Rollout| gae(&token_rewards(r.score, &r.log_ratios(), u.reward_beta()), &r.expected, 1.0, lambda).0;
        let own: Vec<Vec<f64>> = group.iter().map(of).collect();
        give_tokens(group, &rloo_of_tokens(&own).concat());
    }
}

/// Log-probability of every answer under `policy`, summed over its tokens: `[rollouts]`.
pub fn sequence_log_probs<B: TrainBackend>(
    policy: &Transformer<B>,
    rollouts: &[&Rollout],
    prompts: &[Prompt],
    temperature: f32,
) -> Tensor<B, 1> {
    let log_probs = policy.answer_log_probs(&Packed::new(&groups(rollouts, prompts)), temperature);
    sums(log_probs, rollouts)
}

/// Sums of one number a token over each rollout: `[tokens]` to `[rollouts]`.
fn sums<B: TrainBackend>(tokens: Tensor<B, 1>, rollouts: &[&Rollout]) -> Tensor<B, 1> {
    let device = tokens.device();
    let rows: Vec<u32> =
        rollouts.iter().enumerate().flat_map(|(i, r)| std::iter::repeat_n(i as u32, r.answer.tokens.len())).collect();
    let zeros = Tensor::zeros([rollouts.len()], &device);
    zeros.select_assign(0, index_tensor(&rows, &device), tokens, IndexingUpdateOp::Add)
}

/// `L = - mean_j min(ratio_j A_j, clip(ratio_j, 1 - eps, 1 + eps) A_j)` with `ratio_j = exp(log pi(y_j) - log pi_old(y_j))`
/// over whole answers; where the KL penalty is in the loss, plus `beta` times its estimates, summed over an answer's tokens. Returns
/// the loss of `rollouts`, divided by `total` samples, and their log-ratios.
pub fn loss<B: TrainBackend>(
    policy: &Transformer<B>,
    rollouts: &[&Rollout],
    u: &Update,
    total: usize,
) -> (Tensor<B, 1>, Vec<f32>) {
    let (device, config) = (policy.device(), u.config);
    let host = |values: Vec<f32>| {
        let n = values.len();
        Tensor::<B, 1>::from_data(TensorData::new(values, [n]), &device)
    };
    let tokens = policy.answer_log_probs(&Packed::new(&groups(rollouts, u.prompts)), config.temperature as f32);
    let new = sums(tokens.clone(), rollouts);
    let old = host(rollouts.iter().map(|r| r.answer.log_probs.iter().sum()).collect());
    let advantage = host(rollouts.iter().map(|r| r.advantage as f32).collect());
    let (low, high) = clip_range(config);
    let log_ratio = (new - old).clamp(-20.0, 20.0);
    let ratio = log_ratio.clone().exp();
    let clipped = ratio.clone().clamp(1.0 - low, 1.0 + high);
    let surrogate = (ratio * advantage.clone()).min_pair(clipped * advantage);
    let mut surrogate = surrogate.sum().neg();
    if let Some((kind, beta)) = u.penalty() {
        let all = |f: fn(&Rollout) -> &[f32]| host(rollouts.iter().flat_map(|r| f(r)).copied().collect());
        let ratio = (tokens.clone() - all(|r| &r.answer.log_probs)).clamp(-20.0, 20.0).exp();
        surrogate = surrogate + kl_estimate(kind, tokens - all(|r| &r.reference_log_probs), ratio).sum() * beta;
    }
    let log_ratios = log_ratio.inner().into_data().to_vec().expect("ratios are f32");
    (surrogate / total as f32, log_ratios)
}

/// Updates the policy on a batch of rollouts.
pub fn update<B: TrainBackend>(
    mut policy: PolicyTrainee<B>,
    rollouts: &[Rollout],
    u: &Update,
    rng: &mut StdRng,
) -> (PolicyTrainee<B>, UpdateReport) {
    if u.config.credit().is_some() {
        // A sum over an answer's tokens, a mean over answers, as below; ratios are of tokens.
        return surrogate::update(policy, rollouts, u, rng, |part, _| 1.0 / part.iter().map(|g| g.len()).sum::<usize>() as f64);
    }
    let mut tally = Tally::default();
    for (step, part) in minibatches(rollouts, u.config, rng).into_iter().enumerate() {
        let total = part.iter().map(|group| group.len()).sum();
        let (_, grads, log_ratios) = group_gradients(&policy.model, &part, u.prompts, |model, groups| {
            let rollouts: Vec<&Rollout> = groups.iter().flat_map(|group| group.iter()).collect();
            loss(model, &rollouts, u, total)
        });
        let grads = u.mix_in(&policy.model, grads, step, &mut tally.work);
        let (next, norm) = policy.step(grads, u.learning_rate);
        policy = next;
        tally.observe(&log_ratios.concat(), clip_range(u.config), norm);
        tally.work.training_tokens += part.iter().map(|g| tokens(g, u.prompts) as u64).sum::<u64>();
    }
    (policy, tally.report())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::update::tests::rollout;
    use moslim_shared::config::PolicyConfig;

    /// Two answers to one prompt, the heads' expectations before their tokens, and a KL penalty of 0.1 on one token.
    #[test]
    fn every_token_is_credited_with_what_it_changes() {
        let advantages = |lambda: f64| {
            let config = PolicyConfig { head_credit: Some(lambda), ..Default::default() };
            let u = Update { prompts: &[], config: &config, beta: 0.5, learning_rate: 1e-3, iteration: 0, supervised: &[] };
            let mut group = [rollout(0, 1.0, 2), rollout(0, -2.0, 1)];
            group[0].expected = vec![0.25, 0.5];
            group[1].expected = vec![0.0];
            // Log-probabilities are -1: the second token is less likely under the reference by 0.2 nats.
            group[0].reference_log_probs[1] = -1.2;
            set_advantages(&mut group, &u);
            group.map(|r| r.per_token.unwrap())
        };
        let close = |got: &[f32], want: &[f32]| {
            assert!(got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}, not {want:?}");
        };
        // Lambda 1: what came, less what was expected before the token; then less what the other answer's tokens have on average.
        let [a, b] = advantages(1.0);
        close(&a, &[0.65 + 2.0, 0.4 + 2.0]);
        close(&b, &[-2.0 - (0.65 + 0.4) / 2.0]);
        // Lambda 0: what the token itself changed.
        let [a, b] = advantages(0.0);
        close(&a, &[0.25 + 2.0, 0.4 + 2.0]);
        close(&b, &[-2.0 - (0.25 + 0.4) / 2.0]);
    }
}
