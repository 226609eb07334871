//! PPO's clipped surrogate over tokens, which GRPO, REINFORCE++ and PPO share; they differ in advantages and weights.

use super::rollout::{Prompt, Rollout, groups};
use super::update::{PolicyTrainee, Tally, Update, UpdateReport, clip_range, group_gradients, minibatches, tokens};
use crate::model::TrainBackend;
use crate::model::packed::Packed;
use crate::model::transformer::Transformer;
use burn::prelude::*;
use rand::rngs::StdRng;

/// `sum_t w_t [ -min(ratio_t A_t, clip(ratio_t, 1 - low, 1 + high) A_t) + beta k3_t ]`. All arguments but the ranges: one number
/// a token, `[tokens]`; `reference` is read when `beta` is not 0. Returns the loss and the log-ratios.
pub fn clipped<B: TrainBackend>(
    new: Tensor<B, 1>,
    old: Vec<f32>,
    reference: Vec<f32>,
    advantages: Vec<f32>,
    weights: Vec<f32>,
    (low, high): (f64, f64),
    beta: f64,
) -> (Tensor<B, 1>, Vec<f32>) {
    let device = new.device();
    let n = old.len();
    let host = |values: Vec<f32>| Tensor::<B, 1>::from_data(TensorData::new(values, [n]), &device);
    let advantage = host(advantages);
    let log_ratio = (new.clone() - host(old)).clamp(-20.0, 20.0);
    let ratio = log_ratio.clone().exp();
    let bounded = ratio.clone().clamp(1.0 - low, 1.0 + high);
    let mut loss = (ratio * advantage.clone()).min_pair(bounded * advantage).neg();
    if beta != 0.0 {
        let d = (new - host(reference)).clamp(-20.0, 20.0);
        loss = loss + (d.clone().neg().exp() - 1.0 + d) * beta;
    }
    let log_ratios = log_ratio.inner().into_data().to_vec().expect("ratios are f32");
    ((loss * host(weights)).sum(), log_ratios)
}

/// [`clipped`] over all tokens of `rollouts`, in order. `weight(rollout)`: the weight of each of its tokens.
pub fn loss<B: TrainBackend>(
    policy: &Transformer<B>,
    rollouts: &[&Rollout],
    prompts: &[Prompt],
    u: &Update,
    beta: f64,
    weight: impl Fn(&Rollout) -> f64,
) -> (Tensor<B, 1>, Vec<f32>) {
    let new = policy.answer_log_probs(&Packed::new(&groups(rollouts, prompts)), u.config.temperature as f32);
    let all = |f: &dyn Fn(&Rollout) -> Vec<f32>| rollouts.iter().flat_map(|r| f(r)).collect::<Vec<f32>>();
    clipped(
        new,
        all(&|r| r.answer.log_probs.clone()),
        all(&|r| r.reference_log_probs.clone()),
        all(&Rollout::token_advantages),
        all(&|r| vec![weight(r) as f32; r.answer.tokens.len()]),
        clip_range(u.config),
        beta,
    )
}

/// Updates the policy with [`loss`]. `beta`: KL coefficient within the loss; `weight(part, rollout)`: weight of each token of a
/// rollout, for a minibatch.
pub fn update<B: TrainBackend>(
    mut policy: PolicyTrainee<B>,
    rollouts: &[Rollout],
    u: &Update,
    beta: f64,
    rng: &mut StdRng,
    weight: impl Fn(&[&[Rollout]], &Rollout) -> f64 + Sync,
) -> (PolicyTrainee<B>, UpdateReport) {
    let mut tally = Tally::default();
    for part in minibatches(rollouts, u.config, rng) {
        let (_, grads, log_ratios) = group_gradients(&policy.model, &part, u.prompts, |model, groups| {
            let rollouts: Vec<&Rollout> = groups.iter().flat_map(|group| group.iter()).collect();
            loss(model, &rollouts, u.prompts, u, beta, |r| weight(&part, r))
        });
        let (next, norm) = policy.step(grads, u.learning_rate);
        policy = next;
        tally.observe(&log_ratios.concat(), clip_range(u.config), norm);
        tally.work.training_tokens += part.iter().map(|g| tokens(g, u.prompts) as u64).sum::<u64>();
    }
    (policy, tally.report())
}

/// Weight that makes a sum over the tokens of a minibatch their mean.
pub fn mean_over_tokens(part: &[&[Rollout]]) -> f64 {
    let tokens: usize = part.iter().flat_map(|g| g.iter()).map(|r| r.answer.tokens.len()).sum();
    1.0 / tokens.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::{Autodiff, Flex};

    type B = Autodiff<Flex, NoCheckpointing>;

    fn tensor(values: &[f32]) -> Tensor<B, 1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Default::default())
    }

    #[test]
    fn the_clipped_loss_matches_the_vectors() {
        for (ratio, advantage, want) in [(1.3f32, 1.0f32, -1.2f32), (1.3, -1.0, 1.3), (0.7, 1.0, -0.7), (0.7, -1.0, 0.8)] {
            let (loss, _) = clipped(tensor(&[ratio.ln()]), vec![0.0], vec![0.0], vec![advantage], vec![1.0], (0.2, 0.2), 0.0);
            assert!((loss.into_scalar() - want).abs() < 1e-5, "ratio {ratio}, advantage {advantage}");
        }
        // Clip-higher leaves more room upwards alone.
        let (loss, _) = clipped(tensor(&[1.3f32.ln()]), vec![0.0], vec![0.0], vec![1.0], vec![1.0], (0.2, 0.28), 0.0);
        assert!((loss.into_scalar() + 1.28).abs() < 1e-5);
    }

    #[test]
    fn k3_in_the_loss_matches_the_vectors_and_pulls_towards_the_reference() {
        let new = tensor(&[-1.0, -0.5, -2.0]).require_grad();
        let (loss, _) =
            clipped(new.clone(), vec![-1.0, -0.5, -2.0], vec![-1.2, -0.4, -1.5], vec![0.0; 3], vec![1.0; 3], (0.2, 0.2), 2.0);
        assert!((loss.clone().into_scalar() - 2.0 * (0.018731 + 0.005171 + 0.148721)).abs() < 1e-5);
        let grad: Vec<f32> = new.grad(&loss.backward()).unwrap().into_data().to_vec().unwrap();
        assert!(grad[0] > 0.0 && grad[1] < 0.0 && grad[2] < 0.0, "{grad:?}");
    }
}
