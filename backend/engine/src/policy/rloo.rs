//! REINFORCE leave-one-out (Ahmadian et al. 2024): the KL penalty is part of the reward, each sample's baseline is the
//! mean reward of its group's other samples, and one probability ratio per sequence is clipped as in PPO.

use super::rollout::{Prompt, Rollout, groups};
use crate::model::TrainBackend;
use crate::model::optimizer::{Trainee, gradients};
use crate::model::packed::{Packed, chunks};
use crate::model::transformer::{Transformer, index_tensor};
use burn::prelude::*;
use burn::tensor::IndexingUpdateOp;
use moslim_shared::advantage::rloo;
use moslim_shared::config::PolicyConfig;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Fills in the advantages: `A_j = r_j - mean of the other rewards of the group`. Returns the share of groups whose rewards
/// are all equal, from which nothing can be learnt.
pub fn set_advantages(rollouts: &mut [Rollout], samples_per_prompt: usize) -> f64 {
    let mut flat = 0;
    let groups = rollouts.len() / samples_per_prompt;
    for group in rollouts.chunks_mut(samples_per_prompt) {
        debug_assert!(group.iter().all(|r| r.prompt == group[0].prompt), "a group shares its prompt and preference");
        let rewards: Vec<f64> = group.iter().map(|r| r.reward).collect();
        flat += usize::from(rewards.iter().all(|r| (r - rewards[0]).abs() < 1e-9));
        for (rollout, advantage) in group.iter_mut().zip(rloo(&rewards)) {
            rollout.advantage = advantage;
        }
    }
    flat as f64 / groups.max(1) as f64
}

/// What an update reports.
#[derive(Debug, Clone, Default)]
pub struct UpdateReport {
    /// Mean ratio of the first minibatch.
    pub first_ratio: f64,
    /// Share of sequences outside the clipping range, over all minibatches.
    pub clip_fraction: f64,
    /// Largest gradient norm before limiting.
    pub gradient_norm: f64,
}

/// `L = - mean_j min(ratio_j A_j, clip(ratio_j, 1 - eps, 1 + eps) A_j)` with `ratio_j = exp(log pi(y_j) - log pi_old(y_j))`
/// over whole answers. Returns the loss of `rollouts`, divided by `total` samples, and their ratios.
pub fn loss<B: TrainBackend>(
    policy: &Transformer<B>,
    rollouts: &[&Rollout],
    prompts: &[Prompt],
    config: &PolicyConfig,
    total: usize,
) -> (Tensor<B, 1>, Vec<f32>) {
    let device = policy.device();
    let n = rollouts.len();
    let host = |values: Vec<f32>| Tensor::<B, 1>::from_data(TensorData::new(values, [n]), &device);
    let packed = Packed::new(&groups(rollouts, prompts));
    let log_probs = policy.answer_log_probs(&packed, config.temperature as f32);
    let rows: Vec<u32> =
        rollouts.iter().enumerate().flat_map(|(i, r)| std::iter::repeat_n(i as u32, r.answer.tokens.len())).collect();
    let new = Tensor::zeros([n], &device).select_assign(0, index_tensor(&rows, &device), log_probs, IndexingUpdateOp::Add); // [n]
    let old = host(rollouts.iter().map(|r| r.answer.log_probs.iter().sum()).collect());
    let advantage = host(rollouts.iter().map(|r| r.advantage as f32).collect());
    let ratio = (new - old).clamp(-20.0, 20.0).exp();
    let clipped = ratio.clone().clamp(1.0 - config.clip, 1.0 + config.clip);
    let surrogate = (ratio.clone() * advantage.clone()).min_pair(clipped * advantage);
    let ratios = ratio.inner().into_data().to_vec().expect("ratios are f32");
    (surrogate.sum().neg() / total as f32, ratios)
}

/// Updates the policy on a batch of rollouts: `epochs` passes over `minibatches` parts in random order. Samples of one
/// prompt stay together.
pub fn update<B: TrainBackend>(
    mut trainee: Trainee<B, Transformer<B>>,
    rollouts: &[Rollout],
    prompts: &[Prompt],
    config: &PolicyConfig,
    learning_rate: f64,
    rng: &mut StdRng,
) -> (Trainee<B, Transformer<B>>, UpdateReport) {
    let mut report = UpdateReport::default();
    let mut order: Vec<&[Rollout]> = rollouts.chunk_by(|a, b| a.prompt == b.prompt).collect();
    let (mut clipped, mut seen) = (0usize, 0usize);
    for epoch in 0..config.epochs {
        order.shuffle(rng);
        for (m, part) in order.chunks(order.len().div_ceil(config.minibatches)).enumerate() {
            let total = part.iter().map(|group| group.len()).sum();
            let tokens = |group: &&[Rollout]| {
                prompts[group[0].prompt].tokens.len() + group.iter().map(|r| r.answer.tokens.len()).sum::<usize>()
            };
            let (_, gradients, ratios) = gradients(&trainee.model, chunks::<B, _>(part, tokens), |model, groups| {
                let rollouts: Vec<&Rollout> = groups.iter().flat_map(|group| group.iter()).collect();
                loss(model, &rollouts, prompts, config, total)
            });
            let ratios = ratios.concat();
            if epoch == 0 && m == 0 {
                report.first_ratio = ratios.iter().map(|&r| r as f64).sum::<f64>() / ratios.len() as f64;
            }
            clipped += ratios.iter().filter(|&&r| (r as f64 - 1.0).abs() > config.clip).count();
            seen += ratios.len();
            let (next, norm) = trainee.step(gradients, learning_rate);
            trainee = next;
            report.gradient_norm = report.gradient_norm.max(norm);
        }
    }
    report.clip_fraction = clipped as f64 / seen.max(1) as f64;
    (trainee, report)
}

/// Warm-up over ten iterations, then constant, then a linear decay over the last quarter. `step` counts from 0.
pub fn learning_rate(peak: f64, step: usize, total: usize) -> f64 {
    let warm_up = ((step + 1) as f64 / 10.0).min(1.0);
    let left = (total - step) as f64 / (total as f64 / 4.0).max(1.0);
    peak * warm_up.min(left.min(1.0))
}
