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
    use crate::policy::update::tests::{
        batch, for_tokens, near, norm, of_two_objectives, policy, prompts, rollout, said, sampled, told, trainee,
    };
    use moslim_shared::config::{KlPenalty, PolicyConfig};
    use rand::SeedableRng;

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

    #[test]
    fn every_answer_is_compared_with_the_others_of_its_own_group() {
        let of = |all: [(usize, f64, f64); 5]| all.map(|(prompt, score, kl)| Rollout { kl, ..rollout(prompt, score, 1) });
        // Less half of the KL: 0.5, 0, 2 and 4, 1.
        let mut all = of([(0, 1.0, 1.0), (0, 0.0, 0.0), (0, 2.0, 0.0), (1, 4.0, 0.0), (1, 2.0, 2.0)]);
        let mut config = PolicyConfig::default();
        set_advantages(&mut all, &told(&[], &config));
        assert_eq!(all.map(|r| r.advantage), [-0.5, -1.25, 1.75, 3.0, -3.0]);
        // Balanced, the first objective has a hundred times the say of the second: what each contributes, times 200/101 and 2/101.
        config.aggregation = Aggregation::MinNorm;
        let mut all = of_two_objectives();
        (all[1].penalty, all[3].kl) = (-1.0, 2.0);
        set_advantages(&mut all, &told(&[], &config));
        for (r, want) in all.iter().zip([301.0 / 101.0, -301.0 / 101.0, 121.0 / 101.0, -121.0 / 101.0]) {
            assert!((r.advantage - want).abs() < 1e-3, "{} is not {want}", r.advantage);
        }
    }

    /// An answer that has become more likely, one that has become less likely, and one that still is about as likely.
    #[test]
    fn the_loss_is_clipped_over_whole_answers() {
        let (policy, prompts) = (policy(), prompts());
        let config = |kl_penalty| PolicyConfig { clip_high: Some(0.3), temperature: 0.5, kl_penalty, ..Default::default() };
        let mut all = [said(2, &[6, 0]), said(2, &[1]), said(0, &[5, 3, 0])];
        sampled(&policy, &mut all, 0.5);
        let ratios = [1.5f32, 0.5, 1.1];
        for ((r, ratio), advantage) in all.iter_mut().zip(ratios).zip([2.0, -1.0, -3.0]) {
            r.answer.log_probs[0] -= ratio.ln();
            r.advantage = advantage;
        }
        // Log-ratios of two tokens to the reference: 0.2 and -0.5.
        all[0].reference_log_probs[0] -= 0.2;
        all[2].reference_log_probs[2] += 0.5;
        let at = |all: &[Rollout], config: &PolicyConfig| {
            let (loss, log_ratios) = loss(&policy, &all.iter().collect::<Vec<_>>(), &told(&prompts, config), 5);
            (f64::from(loss.into_scalar()), log_ratios)
        };
        // 1.3 * 2 and 0.8 * -1 at the ends of the range, 1.1 * -3 within it; of five samples.
        let (value, log_ratios) = at(&all, &config(KlPenalty::Own));
        assert!((value + (2.6 - 0.8 - 3.3) / 5.0).abs() < 1e-4, "{value}");
        assert!(log_ratios.iter().zip(ratios).all(|(l, ratio)| (l - ratio.ln()).abs() < 1e-4), "{log_ratios:?}");
        // exp(-d) - 1 + d of both, the first times the ratio of its token, 1.5; half of it counts.
        let (with, _) = at(&all, &config(KlPenalty::K3RatioLoss));
        assert!((with - value - 0.5 * (1.5 * 0.018731 + 0.148721) / 5.0).abs() < 1e-4, "{with} {value}");
        // Log-ratios are limited, of answers and of tokens.
        all.iter_mut().for_each(|r| r.advantage = 0.0);
        all[0].answer.log_probs[0] -= 30.0;
        all[1].answer.log_probs[0] += 30.0;
        let (far, log_ratios) = at(&all, &config(KlPenalty::K3RatioLoss));
        assert!(log_ratios[..2] == [20.0, -20.0] && near(far, 0.5 * (20f64.exp() * 0.018731 + 0.148721) / 5.0), "{far}");
    }

    #[test]
    fn an_update_averages_over_answers_and_counts_what_it_reads() {
        let (policy, prompts) = (policy(), prompts());
        let mut all = batch(&policy, 0.5);
        let each = [1.0, -1.0, 0.5, 2.0, -1.5, 0.25];
        all.iter_mut().zip(each).for_each(|(r, advantage)| r.advantage = advantage);
        let mut config = PolicyConfig { epochs: 2, temperature: 0.5, ..Default::default() };
        let follows = |all: &[Rollout], config: &PolicyConfig, coefficients: Vec<f32>| {
            let rng = &mut StdRng::seed_from_u64(1);
            let (_, report) = update(trainee(&policy), all, &told(&prompts, config), rng);
            assert!(near(report.gradient_norm, norm(&policy, all, &coefficients, 0.5)), "{}", report.gradient_norm);
            assert_eq!(report.work.training_tokens, 2 * 21);
        };
        // Six answers, however many tokens they have.
        follows(&all, &config, for_tokens(&all, &each.map(|a| a / 6.0)));
        config.head_credit = Some(0.5);
        let tokens: Vec<f64> = (0..15).map(|t| f64::from(t - 5) / 4.0).collect();
        give_tokens(&mut all, &tokens);
        follows(&all, &config, tokens.iter().map(|a| (a / 6.0) as f32).collect());
    }
}
