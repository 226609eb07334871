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

/// A policy with its optimiser.
pub type PolicyTrainee<B> = Trainee<B, Transformer<B>>;

/// A policy under optimisation, with its critic where the optimiser has one.
pub struct Learner<B: TrainBackend> {
    pub policy: PolicyTrainee<B>,
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

/// Whether all samples of a prompt got the same score: comparing them teaches nothing.
pub fn is_flat(group: &[Rollout]) -> bool {
    group.iter().all(|r| (r.score - group[0].score).abs() < 1e-9)
}

fn zero_std_groups(rollouts: &[Rollout]) -> f64 {
    let (mut flat, mut groups) = (0, 0);
    for group in by_prompt(rollouts) {
        groups += 1;
        flat += usize::from(is_flat(group));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::generate::{Sampling, generate};
    use crate::model::packed::Group;
    use crate::policy::rollout::answer_log_probs;
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::{Autodiff, Flex};
    use burn::module::AutodiffModule;
    use moslim_shared::config::{Aggregation, ModelConfig};
    use moslim_shared::preference::Preference;
    use rand::SeedableRng;

    type B = Autodiff<Flex, NoCheckpointing>;

    const EOS: u32 = 0;

    fn policy() -> Transformer<B> {
        let config = ModelConfig {
            layers: 1,
            d_model: 24,
            heads: 2,
            kv_heads: 1,
            d_ff: 40,
            context: 48,
            tied_embeddings: true,
            ..Default::default()
        };
        Transformer::new(&config, 14, 12, 3, &Default::default())
    }

    fn prompts() -> Vec<Prompt> {
        let tokens = [[13, 1, 2], [13, 3, 4], [13, 5, 6], [13, 7, 8]];
        tokens.iter().map(|t| Prompt { question: 0, preference: Preference(vec![Some(0)]), tokens: t.to_vec() }).collect()
    }

    /// Answers of `policy`; the score of an answer is the share of token 5 in it.
    fn rollouts(policy: &Transformer<B>, prompts: &[Prompt], samples: usize, seed: u64) -> Vec<Rollout> {
        let inputs: Vec<&[u32]> = prompts.iter().map(|p| p.tokens.as_slice()).collect();
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: 8, seed };
        let answers = generate(&policy.valid(), &inputs, samples, EOS, &sampling);
        answers
            .into_iter()
            .enumerate()
            .map(|(n, answer)| {
                let score = answer.tokens.iter().filter(|&&t| t == 5).count() as f64 / answer.tokens.len() as f64;
                Rollout {
                    prompt: n / samples,
                    distributions: vec![],
                    contributions: vec![score],
                    penalty: 0.0,
                    score,
                    kl: 0.0,
                    reward: score,
                    reference_log_probs: answer.log_probs.clone(),
                    asked: vec![true],
                    advantage: 0.0,
                    per_token: None,
                    values: Default::default(),
                    answer,
                }
            })
            .collect()
    }

    fn config(optimizer: PolicyOptimizer) -> PolicyConfig {
        let mut config = PolicyConfig { optimizer, learning_rate: 5e-3, max_new_tokens: 8, ..Default::default() };
        config.ppo.critic_warm_up = 0;
        config.dpo.margin = 0.01;
        config
    }

    /// Mean score over fresh samples.
    fn mean_score(policy: &Transformer<B>) -> f64 {
        let all = rollouts(policy, &prompts(), 64, 99);
        all.iter().map(|r| r.score).sum::<f64>() / all.len() as f64
    }

    #[test]
    fn every_optimiser_starts_at_ratio_one_and_raises_the_reward() {
        let mut cases: Vec<PolicyConfig> = PolicyOptimizer::ALL.map(config).to_vec();
        let gdpo = PolicyConfig { aggregation: Aggregation::NormaliseThenSum, ..config(PolicyOptimizer::Grpo) };
        let epochs = PolicyConfig { epochs: 2, minibatches: 2, ..config(PolicyOptimizer::Ppo) };
        cases.extend([gdpo, epochs]);
        let before = mean_score(&policy());
        for config in cases {
            let mut learner = Learner::<B>::new(policy(), &config);
            let mut rng = StdRng::seed_from_u64(1);
            let prompts = prompts();
            for iteration in 0..12 {
                let mut batch = rollouts(&learner.policy.model, &prompts, 16, iteration as u64);
                let rate = config.learning_rate;
                let update = Update { prompts: &prompts, config: &config, beta: 0.01, learning_rate: rate, iteration };
                let (next, report) = learner.update(&mut batch, &update, &mut rng);
                learner = next;
                let name = config.optimizer.title();
                assert!((report.first_ratio - 1.0).abs() < 1e-4, "{name}: first ratio {}", report.first_ratio);
                assert!(report.gradient_norm.is_finite() && report.work.training_tokens > 0, "{name}");
                if config.epochs * config.minibatches == 1 {
                    assert!(report.approx_kl < 1e-8 && report.clip_fraction == 0.0, "{name}: nothing has moved yet");
                }
                assert_eq!(report.value_loss.is_some(), config.optimizer == PolicyOptimizer::Ppo);
            }
            let after = mean_score(&learner.policy.model);
            assert!(after > before + 0.05, "{:?} {:?}: {before} to {after}", config.optimizer, config.aggregation);
        }
    }

    #[test]
    fn a_learner_comes_back_bit_for_bit_with_its_critic() {
        let config = config(PolicyOptimizer::Ppo);
        let prompts = prompts();
        let step = |learner: Learner<B>, seed: u64| {
            let mut batch = rollouts(&learner.policy.model, &prompts, 4, seed);
            let update = Update { prompts: &prompts, config: &config, beta: 0.01, learning_rate: 5e-3, iteration: 9 };
            learner.update(&mut batch, &update, &mut StdRng::seed_from_u64(seed)).0
        };
        let once = step(Learner::new(policy(), &config), 1);
        let parts = once.to_parts().unwrap();
        assert_eq!(parts.len(), 2);
        let back = Learner::new(policy(), &config).from_parts(parts.clone(), &Default::default()).unwrap();
        // Records of optimisers have no fixed order; what they lead to has.
        let weights = |learner: Learner<B>| {
            let policy: Vec<f32> = learner.policy.model.embedding.val().into_data().to_vec().unwrap();
            let critic: Vec<f32> = learner.critic.unwrap().model.head.val().into_data().to_vec().unwrap();
            assert!(critic.iter().any(|&w| w != 0.0));
            (policy, critic)
        };
        assert!(weights(step(once, 2)) == weights(step(back, 2)));
        let half = Learner::<B>::new(policy(), &config).from_parts(parts[..1].to_vec(), &Default::default());
        assert!(half.is_err_and(|e| e.to_string().contains("too few models")));
    }

    #[test]
    fn log_probs_of_generation_are_those_of_the_model() {
        let (policy, prompts) = (policy(), prompts());
        let batch = rollouts(&policy, &prompts, 2, 7);
        let groups: Vec<Group> = batch
            .chunks(2)
            .map(|g| Group {
                prompt: &prompts[g[0].prompt].tokens,
                answers: g.iter().map(|r| r.answer.tokens.as_slice()).collect(),
            })
            .collect();
        for (r, own) in batch.iter().zip(answer_log_probs(&policy.valid(), &groups, 1.0)) {
            assert_eq!(own.len(), r.answer.tokens.len());
            for (a, b) in own.iter().zip(&r.answer.log_probs) {
                assert!((a - b).abs() < 1e-4);
            }
        }
    }
}
