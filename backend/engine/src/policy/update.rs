//! What every optimiser's update is made of: what it is told, minibatches, gradients, and what it reports.

use super::rollout::{Prompt, Rollout};
use crate::model::TrainBackend;
use crate::model::optimizer::{Trainee, gradients};
use crate::model::packed::chunks;
use crate::model::transformer::Transformer;
use burn::prelude::*;
use moslim_shared::config::PolicyConfig;
use moslim_shared::summary::Work;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// What an update reports, under the field's standard names; see [`moslim_shared::event::PolicyStep`].
#[derive(Debug, Clone, Default)]
pub struct UpdateReport {
    /// Share of groups whose rewards are all equal, from which nothing can be learnt by comparison.
    pub zero_std_groups: f64,
    /// Mean ratio of the first minibatch.
    pub first_ratio: f64,
    /// Share of ratios outside the clipping range, over all minibatches.
    pub clip_fraction: f64,
    pub approx_kl: f64,
    /// Largest gradient norm before limiting.
    pub gradient_norm: f64,
    pub value_loss: Option<f64>,
    pub explained_variance: Option<f64>,
    pub value_clip_fraction: Option<f64>,
    pub preference_accuracy: Option<f64>,
    pub work: Work,
}

/// A policy with its optimiser.
pub type PolicyTrainee<B> = Trainee<B, Transformer<B>>;

/// What an update needs to know besides its rollouts.
pub struct Update<'a> {
    pub prompts: &'a [Prompt],
    pub config: &'a PolicyConfig,
    /// Current KL coefficient.
    pub beta: f64,
    /// Current learning rate of the policy.
    pub learning_rate: f64,
    /// Iteration, from 0.
    pub iteration: usize,
}

/// Rollouts that answer the same prompt, in order.
pub fn by_prompt(rollouts: &[Rollout]) -> impl Iterator<Item = &[Rollout]> {
    rollouts.chunk_by(|a, b| a.prompt == b.prompt)
}

/// Whether all samples of a prompt got the same score: comparing them teaches nothing.
pub fn is_flat(group: &[Rollout]) -> bool {
    group.iter().all(|r| (r.score - group[0].score).abs() < 1e-9)
}

/// Share of groups whose samples all got the same score.
pub fn zero_std_groups(rollouts: &[Rollout]) -> f64 {
    let (mut flat, mut groups) = (0, 0);
    for group in by_prompt(rollouts) {
        groups += 1;
        flat += usize::from(is_flat(group));
    }
    flat as f64 / f64::max(f64::from(groups), 1.0)
}

/// Parts of the rollouts for each optimiser step: `epochs` passes over `minibatches` parts in random order, all samples of a
/// prompt in the same part.
pub fn minibatches<'a>(rollouts: &'a [Rollout], config: &PolicyConfig, rng: &mut StdRng) -> Vec<Vec<&'a [Rollout]>> {
    let mut order: Vec<&[Rollout]> = by_prompt(rollouts).collect();
    let size = order.len().div_ceil(config.minibatches).max(1);
    let mut out = Vec::new();
    for _ in 0..config.epochs {
        order.shuffle(rng);
        out.extend(order.chunks(size).map(<[_]>::to_vec));
    }
    out
}

/// Tokens of a prompt and its answers.
pub fn tokens(group: &[Rollout], prompts: &[Prompt]) -> usize {
    prompts[group[0].prompt].tokens.len() + group.iter().map(|r| r.answer.tokens.len()).sum::<usize>()
}

/// Sums up what the minibatches of an update report.
#[derive(Default)]
pub struct Tally {
    first_ratio: Option<f64>,
    clipped: usize,
    ratios: usize,
    squares: f64,
    gradient_norm: f64,
    pub work: Work,
}

impl Tally {
    /// Log-ratios of one minibatch, and the clipping range of the ratios.
    pub fn observe(&mut self, log_ratios: &[f32], (low, high): (f64, f64), norm: f64) {
        let ratio = |&l: &f32| f64::from(l).exp();
        let n = log_ratios.len();
        self.first_ratio.get_or_insert_with(|| log_ratios.iter().map(ratio).sum::<f64>() / n.max(1) as f64);
        self.clipped += log_ratios.iter().map(ratio).filter(|r| *r < 1.0 - low || *r > 1.0 + high).count();
        self.squares += log_ratios.iter().map(|&l| f64::from(l).powi(2)).sum::<f64>();
        self.ratios += n;
        self.gradient_norm = self.gradient_norm.max(norm);
    }

    /// What the update reports.
    pub fn report(self) -> UpdateReport {
        let n = self.ratios.max(1) as f64;
        UpdateReport {
            first_ratio: self.first_ratio.unwrap_or(1.0),
            clip_fraction: self.clipped as f64 / n,
            approx_kl: 0.5 * self.squares / n,
            gradient_norm: self.gradient_norm,
            work: self.work,
            ..Default::default()
        }
    }
}

/// Clipping range below and above 1.
pub fn clip_range(config: &PolicyConfig) -> (f64, f64) {
    (config.clip, config.clip_high.unwrap_or(config.clip))
}

/// Gradients of `loss` over the groups of a minibatch, computed in pieces; `loss` gets all groups of a piece.
pub fn group_gradients<B: TrainBackend, M: burn::module::AutodiffModule<B>, R: Send>(
    model: &M,
    part: &[&[Rollout]],
    prompts: &[Prompt],
    loss: impl Fn(&M, &[&[Rollout]]) -> (Tensor<B, 1>, R) + Sync,
) -> (f64, burn::optim::GradientsParams, Vec<R>) {
    let pieces = chunks::<B, _>(part, |group| tokens(group, prompts));
    gradients(model, pieces, loss)
}

/// Warm-up over ten iterations, then constant, then a linear decay over the last quarter. `step` counts from 0.
pub fn learning_rate(peak: f64, step: usize, total: usize) -> f64 {
    let warm_up = ((step + 1) as f64 / 10.0).min(1.0);
    let left = (total - step) as f64 / (total as f64 / 4.0).max(1.0);
    peak * warm_up.min(left.min(1.0))
}
