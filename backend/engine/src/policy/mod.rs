//! Policy optimisation: prompts, rollouts and their rewards, and one file for every optimiser.
//!
//! All optimisers work on the same [`rollout::Rollout`]s. An optimiser's file holds its decisions: where the baseline comes
//! from, where the KL penalty is, how losses of tokens are averaged. What they share is here.

pub mod dpo;
pub mod grpo;
pub mod ppo;
pub mod reinforce;
pub mod rloo;
pub mod rollout;
pub mod surrogate;
pub mod targets;

use crate::model::TrainBackend;
use crate::model::optimizer::Trainee;
use crate::model::packed::chunks;
use crate::model::transformer::Transformer;
use anyhow::Result;
use burn::prelude::*;
use moslim_shared::config::{PolicyConfig, PolicyOptimizer};
use moslim_shared::summary::Work;
use ppo::Critic;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rollout::{Prompt, Rollout};

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

/// A policy under optimisation, with its critic where the optimiser has one.
pub struct Learner<B: TrainBackend> {
    pub policy: Trainee<B, Transformer<B>>,
    critic: Option<Trainee<B, Critic<B>>>,
}

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

impl<B: TrainBackend> Learner<B> {
    /// Starts from `policy`; a critic is a copy of its trunk with a value head of 0.
    pub fn new(policy: Transformer<B>, config: &PolicyConfig) -> Self {
        let critic = (config.optimizer == PolicyOptimizer::Ppo)
            .then(|| Trainee::new(Critic::on_trunk(policy.clone()), 0.0, config.max_gradient_norm));
        Self { policy: Trainee::new(policy, 0.0, config.max_gradient_norm), critic }
    }

    /// Models and optimiser states, bit for bit.
    pub fn to_parts(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut parts = vec![self.policy.to_bytes()?];
        parts.extend(self.critic.as_ref().map(Trainee::to_bytes).transpose()?);
        Ok(parts)
    }

    /// Restores what [`Learner::to_parts`] gave for a learner of the same shape.
    pub fn from_parts(self, parts: Vec<(Vec<u8>, Vec<u8>)>, device: &B::Device) -> Result<Self> {
        let mut parts = parts.into_iter();
        let mut next = || parts.next().ok_or_else(|| anyhow::anyhow!("the checkpoint holds too few models"));
        let (model, optimizer) = next()?;
        let policy = self.policy.from_bytes(model, optimizer, device)?;
        let critic = match self.critic {
            Some(critic) => {
                let (model, optimizer) = next()?;
                Some(critic.from_bytes(model, optimizer, device)?)
            }
            None => None,
        };
        Ok(Self { policy, critic })
    }

    /// Gives the rollouts their advantages and updates the policy on them. Samples of one prompt are neighbours.
    pub fn update(self, rollouts: &mut [Rollout], u: &Update, rng: &mut StdRng) -> (Self, UpdateReport) {
        let flat = zero_std_groups(rollouts);
        let Self { policy, critic } = self;
        let (policy, critic, mut report) = match u.config.optimizer {
            PolicyOptimizer::Rloo => {
                rloo::set_advantages(rollouts);
                let (policy, report) = rloo::update(policy, rollouts, u, rng);
                (policy, critic, report)
            }
            PolicyOptimizer::Grpo | PolicyOptimizer::DrGrpo | PolicyOptimizer::Dapo => {
                grpo::set_advantages(rollouts, u);
                let (policy, report) = grpo::update(policy, rollouts, u, rng);
                (policy, critic, report)
            }
            PolicyOptimizer::ReinforcePlusPlus => {
                reinforce::set_advantages(rollouts, u);
                let (policy, report) = reinforce::update(policy, rollouts, u, rng);
                (policy, critic, report)
            }
            PolicyOptimizer::Ppo => {
                let critic = critic.expect("PPO has a critic");
                let read = ppo::set_advantages(&critic, rollouts, u);
                let (policy, critic, mut report) = ppo::update(policy, critic, rollouts, u, rng);
                report.work.forward_tokens += read;
                (policy, Some(critic), report)
            }
            PolicyOptimizer::OnlineDpo | PolicyOptimizer::OnlineIpo => {
                dpo::set_advantages(rollouts);
                let (policy, report) = dpo::update(policy, rollouts, u, rng);
                (policy, critic, report)
            }
        };
        report.zero_std_groups = flat;
        (Self { policy, critic }, report)
    }
}

/// Rollouts that answer the same prompt, in order.
pub fn by_prompt(rollouts: &[Rollout]) -> impl Iterator<Item = &[Rollout]> {
    rollouts.chunk_by(|a, b| a.prompt == b.prompt)
}

fn zero_std_groups(rollouts: &[Rollout]) -> f64 {
    let (mut flat, mut groups) = (0, 0);
    for group in by_prompt(rollouts) {
        groups += 1;
        flat += usize::from(group.iter().all(|r| (r.score - group[0].score).abs() < 1e-9));
    }
    flat as f64 / f64::max(f64::from(groups), 1.0)
}

/// Parts of the rollouts for each optimiser step: `epochs` passes over `minibatches` parts in random order, all samples of a
/// prompt in the same part.
fn minibatches<'a>(rollouts: &'a [Rollout], config: &PolicyConfig, rng: &mut StdRng) -> Vec<Vec<&'a [Rollout]>> {
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
fn tokens(group: &[Rollout], prompts: &[Prompt]) -> usize {
    prompts[group[0].prompt].tokens.len() + group.iter().map(|r| r.answer.tokens.len()).sum::<usize>()
}

/// Sums up what the minibatches of an update report.
#[derive(Default)]
struct Tally {
    first_ratio: Option<f64>,
    clipped: usize,
    ratios: usize,
    squares: f64,
    gradient_norm: f64,
    work: Work,
}

impl Tally {
    /// Log-ratios of one minibatch, and the clipping range of the ratios.
    fn observe(&mut self, log_ratios: &[f32], (low, high): (f64, f64), norm: f64) {
        let ratio = |&l: &f32| f64::from(l).exp();
        let n = log_ratios.len();
        self.first_ratio.get_or_insert_with(|| log_ratios.iter().map(ratio).sum::<f64>() / n.max(1) as f64);
        self.clipped += log_ratios.iter().map(ratio).filter(|r| *r < 1.0 - low || *r > 1.0 + high).count();
        self.squares += log_ratios.iter().map(|&l| f64::from(l).powi(2)).sum::<f64>();
        self.ratios += n;
        self.gradient_norm = self.gradient_norm.max(norm);
    }

    fn report(self) -> UpdateReport {
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
fn clip_range(config: &PolicyConfig) -> (f64, f64) {
    (config.clip, config.clip_high.unwrap_or(config.clip))
}

/// Gradients of `loss` over the groups of a minibatch, computed in pieces; `loss` gets all groups of a piece.
fn group_gradients<B: TrainBackend, M: burn::module::AutodiffModule<B>, R: Send>(
    model: &M,
    part: &[&[Rollout]],
    prompts: &[Prompt],
    loss: impl Fn(&M, &[&[Rollout]]) -> (Tensor<B, 1>, R) + Sync,
) -> (f64, burn::optim::GradientsParams, Vec<R>) {
    let pieces = chunks::<B, _>(part, |group| tokens(group, prompts));
    crate::model::optimizer::gradients(model, pieces, loss)
}

/// Warm-up over ten iterations, then constant, then a linear decay over the last quarter. `step` counts from 0.
pub fn learning_rate(peak: f64, step: usize, total: usize) -> f64 {
    let warm_up = ((step + 1) as f64 / 10.0).min(1.0);
    let left = (total - step) as f64 / (total as f64 / 4.0).max(1.0);
    peak * warm_up.min(left.min(1.0))
}
