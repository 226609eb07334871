//! The stage of policy optimisation around a method's loop: cache, checkpoints, what moves from iteration to iteration, and
//! reports. The loop itself is in `moslim.rs`.

use super::driver::{Driver, Plan, from_cache};
use super::setting::{Outcome, Ready, Setting};
use super::watch::{describe, kl_point, show};
use crate::keep::Job;
use crate::keep::cache::{Cache, Entry};
use crate::keep::checkpoint::Exact;
use crate::model::TrainBackend;
use crate::model::store::{from_safetensors, to_safetensors};
use crate::model::transformer::Transformer;
use crate::policy::learner::Learner;
use crate::policy::rollout::{Aim, Prompt, Rollout};
use crate::policy::update::UpdateReport;
use crate::progress::Progress;
use anyhow::Result;
use moslim_shared::event::{EventBody, Part, PolicyStep, Stage};
use moslim_shared::kl::AdaptiveKl;
use moslim_shared::mapping::{Pooling, RewardStatistics};
use moslim_shared::summary::{KlPoint, PolicySummary, Work};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Samples over which an adaptive KL coefficient may change by a fifth.
const KL_HORIZON: f64 = 2_000.0;
/// Weight of an iteration's samples in running statistics.
const RUNNING_RATE: f64 = 0.1;
/// Points of the curve of reward against KL.
const KL_POINTS: usize = 20;

/// One policy to be optimised.
pub struct PolicyTask {
    pub aim: Aim,
    pub iterations: usize,
    /// Where a method trains several: which one this is.
    pub part: Option<Part>,
    /// What the policy starts from, when that is not SFT alone.
    pub start: String,
}

/// Numbers per objective and class, bit for bit.
type ExactTable = Vec<Vec<Exact>>;

/// What policy optimisation keeps in its checkpoint besides the weights.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct PolicyState {
    beta: Exact,
    samples: u64,
    tokens: u64,
    work: Work,
    /// Mean scalar and KL per iteration.
    rewards: Vec<Exact>,
    kls: Vec<Exact>,
    kl_frontier: Vec<KlPoint>,
    /// Mean and deviation of the mapping, as bits, where they move.
    running: Option<[ExactTable; 2]>,
}

impl PolicyState {
    fn statistics(&self, frozen: &RewardStatistics) -> RewardStatistics {
        let plain = |v: &ExactTable| v.iter().map(|r| r.iter().map(|x| x.0).collect()).collect();
        match &self.running {
            Some([mean, std]) => RewardStatistics { mean: plain(mean), std: plain(std), ..frozen.clone() },
            None => frozen.clone(),
        }
    }

    fn keep(&mut self, moved: &RewardStatistics) {
        let exact = |v: &Vec<Vec<f64>>| v.iter().map(|r| r.iter().map(|&x| Exact(x)).collect()).collect();
        self.running = Some([exact(&moved.mean), exact(&moved.std)]);
    }
}

/// A stage that was found in the cache, or one that has begun.
#[allow(clippy::large_enum_variant)]
pub enum PolicyStage<'a, B: TrainBackend> {
    Cached(Transformer<B>, Outcome),
    Begun(Iterations<'a, B>, Learner<B>),
}

/// Policy optimisation under way.
pub struct Iterations<'a, B: TrainBackend> {
    driver: Driver<'a, PolicyState>,
    job: &'a Job,
    setting: &'a Setting,
    ready: &'a Ready<B>,
    task: &'a PolicyTask,
    key: String,
    began: Instant,
}

impl<'a, B: TrainBackend> PolicyStage<'a, B> {
    /// Begins from `start`, or goes on from a checkpoint.
    ///
    /// A policy that is one of several is kept in the cache when it is done, so that a method that is interrupted goes on with
    /// the next, and methods that need the same policy train it once.
    ///
    /// # Errors
    /// When a file is damaged; the message names it.
    pub fn begin(
        job: &'a Job,
        setting: &'a Setting,
        ready: &'a Ready<B>,
        start: Transformer<B>,
        task: &'a PolicyTask,
        device: &B::Device,
        progress: &mut Progress,
    ) -> Result<Self> {
        let began = Instant::now();
        let (config, c) = (&job.config, &job.config.policy);
        let (stage, total) = (Stage::Policy, task.iterations);
        let weights = if let Aim::Weights(w) = &task.aim { Some(w) } else { None };
        let targets = weights.is_none().then_some(&config.targets);
        let hash = &ready.reward_model.calibration.hash;
        let inputs = (hash, &ready.origin, &task.start, c, targets, weights, total, config.seed, &config.model);
        let key = Cache::key("policy", &inputs)?;
        if task.part.is_some()
            && let Some((entry, weights)) = setting.cache.load_sound(&key, progress)?
            && let Some(outcome) = entry.extra.and_then(|e| serde_json::from_value::<Outcome>(e).ok())
        {
            let model = from_safetensors(start, weights)?;
            from_cache(stage, task.part.as_ref(), total, began, progress, None);
            return Ok(Self::Cached(model, outcome));
        }
        let plan = Plan { stage, part: task.part.clone(), key: key.clone(), total, checkpoint_every: c.checkpoint_every };
        let fresh = PolicyState { beta: Exact(c.kl_coefficient), ..Default::default() };
        let (driver, parts) = Driver::begin(job, plan, fresh, progress)?;
        let mut learner = Learner::new(start, c);
        if let Some(parts) = parts {
            learner = learner.from_parts(parts, device)?;
        }
        Ok(Self::Begun(Iterations { driver, job, setting, ready, task, key, began: Instant::now() }, learner))
    }
}

impl<B: TrainBackend> Iterations<'_, B> {
    /// The next iteration, from 0; `None` when all are done.
    ///
    /// # Errors
    /// When the run was asked to stop, or a checkpoint cannot be written.
    pub fn next(&mut self, learner: &Learner<B>, progress: &mut Progress) -> Result<Option<usize>> {
        self.began = Instant::now();
        self.driver.next(progress, || learner.to_parts())
    }

    /// The KL coefficient of this iteration.
    pub fn kl_coefficient(&self) -> f64 {
        self.driver.state.beta.0
    }

    /// Statistics of the mapping in this iteration: the frozen ones, or as far as they have moved.
    pub fn statistics(&self) -> RewardStatistics {
        self.driver.state.statistics(&self.ready.reward_model.calibration.statistics)
    }

    /// Counts and reports an iteration, and moves what moves: statistics and KL coefficient.
    ///
    /// # Errors
    /// When the tokenizer fails.
    #[allow(clippy::too_many_arguments)]
    pub fn record(
        &mut self,
        step: usize,
        rollouts: &[Rollout],
        prompts: &[Prompt],
        statistics: &RewardStatistics,
        report: UpdateReport,
        work: Work,
        progress: &mut Progress,
    ) -> Result<()> {
        let (config, c, total) = (&self.job.config, &self.job.config.policy, self.task.iterations);
        let (setting, part) = (self.setting, self.task.part.clone());
        let state = &mut self.driver.state;
        state.work += work;
        state.work += report.work;
        state.samples += rollouts.len() as u64;
        state.tokens += rollouts.iter().map(|r| r.answer.tokens.len() as u64).sum::<u64>();
        if config.mapping.pooling == Pooling::Running && self.task.aim == Aim::Preference {
            let mut moved = statistics.clone();
            let seen = rollouts.iter().map(|r| (r.distributions.as_slice(), &prompts[r.prompt].preference));
            moved.observe(&config.mapping, seen, RUNNING_RATE);
            state.keep(&moved);
        }
        let beta = state.beta.0;
        let report = PolicyStep {
            step: step + 1,
            kl_coefficient: beta,
            zero_std_groups: report.zero_std_groups,
            first_ratio: report.first_ratio,
            clip_fraction: report.clip_fraction,
            gradient_norm: report.gradient_norm,
            approx_kl: report.approx_kl,
            value_loss: report.value_loss,
            explained_variance: report.explained_variance,
            value_clip_fraction: report.value_clip_fraction,
            preference_accuracy: report.preference_accuracy,
            samples: state.samples,
            tokens: state.tokens,
            seconds: self.began.elapsed().as_secs_f64(),
            ..describe(rollouts, prompts, &setting.objectives)
        };
        state.rewards.push(Exact(report.reward));
        state.kls.push(Exact(report.kl));
        if let Some(target) = c.kl_target {
            let mut controller = AdaptiveKl { coefficient: beta, target, horizon: KL_HORIZON };
            controller.update(report.kl, rollouts.len());
            state.beta = Exact(controller.coefficient);
        }
        progress.emit(EventBody::Policy { part: part.clone(), total, step: report.clone() });
        if step.is_multiple_of((total / 100).max(1)) || step + 1 == total {
            let samples = show(rollouts, prompts, setting)?;
            progress.emit(EventBody::Samples { part: part.clone(), step: step + 1, samples });
        }
        if self.task.aim == Aim::Preference && ((step + 1).is_multiple_of((total / KL_POINTS).max(1)) || step == 0) {
            let point = kl_point(&report, rollouts, prompts, setting, self.ready)?;
            state.kl_frontier.push(point);
            progress.emit(EventBody::KlFrontier { part, point });
        }
        Ok(())
    }

    /// All iterations are done: what came out, kept in the cache where it is one of several.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn end(mut self, learner: Learner<B>, progress: &mut Progress) -> Result<(Transformer<B>, Outcome)> {
        let total = self.task.iterations;
        let state = std::mem::take(&mut self.driver.state);
        let tenth = (total / 10).max(1);
        let mean = |v: &[Exact]| v.iter().map(|x| x.0).sum::<f64>() / v.len().max(1) as f64;
        let summary = PolicySummary {
            samples: state.samples,
            tokens: state.tokens,
            kl: mean(&state.kls[state.kls.len().saturating_sub(tenth)..]),
            reward_first: mean(&state.rewards[..tenth.min(state.rewards.len())]),
            reward_last: mean(&state.rewards[state.rewards.len().saturating_sub(tenth)..]),
        };
        let seconds = self.driver.seconds();
        let outcome = Outcome { summary, seconds, work: state.work, kl_frontier: state.kl_frontier };
        let model = learner.policy.model;
        if self.task.part.is_some() {
            let entry = Entry { seconds, extra: Some(serde_json::to_value(&outcome)?), ..Default::default() };
            self.setting.cache.save(&self.key, &entry, &to_safetensors::<B, _>(&model)?)?;
        }
        self.driver.end(progress);
        Ok((model, outcome))
    }
}
