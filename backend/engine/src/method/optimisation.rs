//! The stage of policy optimisation around a method's loop: cache, checkpoints, what moves from iteration to iteration, and
//! reports. The loop itself is in `moslim.rs`.

use super::driver::{Driver, Plan, from_cache};
use super::evaluation::front_on_the_way;
use super::setting::{Outcome, Ready, Setting};
use super::watch::{describe, kl_point, show};
use crate::keep::cache::{Cache, Entry};
use crate::keep::checkpoint::Exact;
use crate::keep::{Job, milestone_file};
use crate::model::TrainBackend;
use crate::model::store::{from_safetensors, to_safetensors};
use crate::model::transformer::Transformer;
use crate::policy::learner::Learner;
use crate::policy::rollout::{Aim, Prompt, Rollout};
use crate::policy::update::UpdateReport;
use crate::progress::Progress;
use crate::ranks;
use anyhow::Result;
use burn::module::AutodiffModule;
use moslim_shared::config::{PolicyConfig, RunConfig};
use moslim_shared::event::{EventBody, Part, PolicyStep, Stage};
use moslim_shared::inference::MILESTONES;
use moslim_shared::kl::AdaptiveKl;
use moslim_shared::mapping::{Pooling, RewardStatistics};
use moslim_shared::method::Budget;
use moslim_shared::summary::{KlPoint, PolicySummary, Work};
use serde::{Deserialize, Serialize};
use web_time::Instant;

/// Samples over which an adaptive KL coefficient may change by a fifth.
const KL_HORIZON: f64 = 2_000.0;
/// Weight of an iteration's samples in running statistics.
const RUNNING_RATE: f64 = 0.1;
/// Points of the curve of reward against KL.
const KL_POINTS: usize = 20;
/// Milestones at which the policy is kept. A browser's storage is small: a run there keeps its policy half-way alone.
const KEPT: &[u8] = if cfg!(target_family = "wasm") { &[MILESTONES[1]] } else { &MILESTONES };

/// One policy to be optimised.
pub struct PolicyTask {
    pub aim: Aim,
    pub iterations: usize,
    /// Token passes after which it is done, instead of after a number of iterations.
    pub passes: Option<f64>,
    /// Where a method trains several: which one this is.
    pub part: Option<Part>,
    /// What the policy starts from, when that is not SFT alone.
    pub start: String,
    /// Where it goes on from the checkpoint of another run: the settings of that one, and its passes as above.
    pub forked: Option<(PolicyConfig, Option<f64>)>,
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
    /// Iterations in all, as far as that is known.
    total: usize,
    /// Share of the way that was done before this iteration.
    reached: f64,
}

/// Which of several policies the `n`th is, from 0, that is for a trade-off.
pub fn trade_off_part(n: usize, trade_offs: &[Vec<f64>]) -> Part {
    let name = trade_offs[n].iter().map(|w| format!("{w:.2}")).collect::<Vec<_>>().join(" / ");
    Part { index: n + 1, count: trade_offs.len(), name }
}

/// Token passes of `budget` for one of several policies, which share it, or each have all of it; `spent`: by those before it. What they
/// left over goes to the rest.
pub fn own_passes(config: &RunConfig, budget: f64, part: &Part, spent: &Work) -> f64 {
    match config.method.budget {
        Budget::PerPolicy => budget,
        Budget::Total => ((budget - spent.passes()) / (part.count + 1 - part.index) as f64).max(1.0),
    }
}

/// One of several policies of a method with its share of the budget, as [`own_passes`] has it.
pub fn one_of_several(config: &RunConfig, aim: Aim, part: Part, spent: &Work) -> PolicyTask {
    let iterations = match config.method.budget {
        Budget::PerPolicy => config.policy.iterations,
        Budget::Total => (config.policy.iterations / part.count).max(1),
    };
    let passes = config.policy.passes.map(|p| own_passes(config, p * 1e6, &part, spent));
    PolicyTask { aim, iterations, passes, part: Some(part), start: String::new(), forked: None }
}

/// Iterations in all, when `done` of them have cost `spent` token passes of a budget: the nearest number to it.
fn iterations_within(budget: f64, spent: f64, done: usize) -> usize {
    let each = spent / done.max(1) as f64;
    done + ((budget - spent) / each.max(1.0)).round().max(0.0) as usize
}

/// Whether a front is tried after `step` of `total` iterations: at the first and the last, and at `count` evenly spaced ones in all.
fn is_seen(step: usize, total: usize, count: usize) -> bool {
    let place = |step: usize| step * count.saturating_sub(1) / total.max(1);
    count > 0 && (step == 0 || step == total || place(step) > place(step - 1))
}

/// The milestone, per cent of the way, that is reached when the share of it that is done goes from `before` to `now`; of several the last.
fn milestone(before: f64, now: f64) -> Option<u8> {
    KEPT.iter().rev().copied().find(|at| {
        let share = f64::from(*at) / 100.0;
        before < share && share <= now
    })
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
        let key_of = |c: &PolicyConfig, total: usize, passes: Option<f64>| {
            let run = (total, passes.map(f64::to_bits), config.seed);
            Cache::key("policy", &(hash, &ready.origin, &task.start, c, targets, weights, run, &config.model))
        };
        let key = key_of(c, total, task.passes)?;
        let forked = task.forked.as_ref().map(|(c, passes)| key_of(c, c.iterations, *passes)).transpose()?;
        if task.part.is_some()
            && let Some((entry, weights)) = setting.cache.load_sound(&key, progress)?
            && let Some(outcome) = entry.extra.and_then(|e| serde_json::from_value::<Outcome>(e).ok())
        {
            let model = from_safetensors(start, weights)?;
            from_cache(stage, task.part.as_ref(), total, began, progress, None);
            return Ok(Self::Cached(model, outcome));
        }
        let (part, checkpoint_every) = (task.part.clone(), c.checkpoint_every);
        let plan = Plan { stage, part, key: key.clone(), total, checkpoint_every, forked };
        let fresh = PolicyState { beta: Exact(c.kl_coefficient), ..Default::default() };
        let (mut driver, parts) = Driver::begin(job, plan, fresh, progress)?;
        let mut learner = Learner::new(start, c);
        if let Some(parts) = parts {
            learner = learner.from_parts(parts, device)?;
        }
        if let Some((before, passes)) = task.forked.as_ref().filter(|_| driver.forks) {
            // A coefficient that adapts has moved, and goes on from there unless another one is wanted.
            if before.kl_target.is_none() || before.kl_coefficient != c.kl_coefficient {
                driver.state.beta = Exact(c.kl_coefficient);
            }
            // The mean is of the last share of a run: of another one, where that ends elsewhere.
            if (before.average, before.iterations, *passes) != (c.average, total, task.passes) {
                learner.forget_average();
            }
        }
        let mut iterations = Iterations { driver, job, setting, ready, task, key, began: Instant::now(), total, reached: 0.0 };
        iterations.within_budget();
        Ok(Self::Begun(iterations, learner))
    }
}

impl<B: TrainBackend> Iterations<'_, B> {
    /// The next iteration, from 0; `None` when all are done.
    ///
    /// # Errors
    /// When the run was asked to stop, or a checkpoint cannot be written.
    pub fn next(&mut self, learner: &Learner<B>, progress: &mut Progress) -> Result<Option<usize>> {
        self.began = Instant::now();
        self.reached = self.share();
        self.driver.next(progress, || learner.to_parts())
    }

    /// Iterations in all: of a budget of passes, as many as it will reach for by what they have cost so far.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Sets the number of iterations by what they have cost.
    fn within_budget(&mut self) {
        let done = self.driver.state.rewards.len();
        if let Some(budget) = self.task.passes
            && done > 0
        {
            let total = iterations_within(budget, self.driver.state.work.passes(), done);
            self.total = self.driver.set_left(total - done);
        }
    }

    /// Tries the front of the policy that `step` iterations have made, when it is time to: at the beginning, at the end, and at even
    /// distances between. Nothing of the training depends on it.
    ///
    /// # Errors
    /// When the run was asked to stop.
    pub fn see_front(&self, step: usize, policy: &Transformer<B::InnerBackend>, progress: &mut Progress) -> Result<()> {
        let config = &self.job.config;
        let seen = config.evaluation.fronts_seen;
        if self.task.aim == Aim::Preference && is_seen(step, self.total, seen) {
            let front = front_on_the_way(self.setting, self.ready, policy, step, config, progress)?;
            progress.emit(EventBody::FrontSeen { part: self.task.part.clone(), front });
        }
        Ok(())
    }

    /// Share of the way that is done: of the budget of passes where that ends it, else of the iterations.
    fn share(&self) -> f64 {
        let state = &self.driver.state;
        match self.task.passes {
            Some(budget) => state.work.passes() / budget,
            None => state.rewards.len() as f64 / self.total.max(1) as f64,
        }
    }

    /// Keeps the policy as it is, where the iteration that is recorded has reached a milestone. What an earlier process has kept of the same
    /// iteration is not written again. Where a method trains several policies, none is kept, and none at the end, which is no milestone.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_milestone(&self, learner: &Learner<B>, progress: &mut Progress) -> Result<()> {
        let step = self.driver.state.rewards.len();
        let Some(share) = milestone(self.reached, self.share()) else { return Ok(()) };
        if self.task.part.is_some() || step >= self.total {
            return Ok(());
        }
        if ranks::first() {
            let (file, weights) = (milestone_file(share), to_safetensors::<B, _>(&learner.policy.model)?);
            // One that cannot be read is made anew.
            let known = self.job.files.read(&self.job.path(&file)).ok().flatten();
            if known.as_ref() != Some(&weights) {
                self.job.write(&file, &weights)?;
            }
        }
        progress.emit(EventBody::Milestone { share, step });
        Ok(())
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
        let (config, c) = (&self.job.config, &self.job.config.policy);
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
            pairs_left_out: report.pairs_left_out,
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
        self.within_budget();
        let total = self.total;
        progress.emit(EventBody::Policy { part: part.clone(), total, step: report.clone() });
        if step.is_multiple_of((total / 100).max(1)) || step + 1 == total {
            let samples = show(rollouts, prompts, setting)?;
            progress.emit(EventBody::Samples { part: part.clone(), step: step + 1, samples });
        }
        if self.task.aim == Aim::Preference && ((step + 1).is_multiple_of((total / KL_POINTS).max(1)) || step == 0) {
            let point = kl_point(&report, rollouts, prompts, setting, self.ready)?;
            self.driver.state.kl_frontier.push(point);
            progress.emit(EventBody::KlFrontier { part, point });
        }
        Ok(())
    }

    /// All iterations are done: what came out, kept in the cache where it is one of several.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn end(mut self, learner: Learner<B>, progress: &mut Progress) -> Result<(Transformer<B>, Outcome)> {
        let state = std::mem::take(&mut self.driver.state);
        let tenth = (self.total / 10).max(1);
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
        let model = learner.into_policy();
        self.see_front(self.total, &model.valid(), progress)?;
        if self.task.part.is_some() {
            let entry = Entry { seconds, extra: Some(serde_json::to_value(&outcome)?), ..Default::default() };
            self.setting.cache.save(&self.key, &entry, &to_safetensors::<B, _>(&model)?)?;
        }
        self.driver.end(progress);
        Ok((model, outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_at_the_nearest_iteration() {
        assert_eq!(iterations_within(1000.0, 100.0, 1), 10);
        // Longer answers cost more: fewer iterations are left.
        assert_eq!(iterations_within(1000.0, 600.0, 4), 7);
        assert_eq!((iterations_within(1000.0, 940.0, 10), iterations_within(1000.0, 960.0, 10)), (11, 10));
        assert_eq!(iterations_within(1000.0, 1200.0, 3), 3);
    }

    #[test]
    fn fronts_are_tried_at_even_distances_the_first_and_the_last_included() {
        let seen = |total, count| (0..=total).filter(|&step| is_seen(step, total, count)).collect::<Vec<_>>();
        assert_eq!(seen(10, 3), [0, 5, 10]);
        assert_eq!(seen(7, 4), [0, 3, 5, 7]);
        assert_eq!((seen(10, 1), seen(10, 0), seen(2, 9)), (vec![0, 10], vec![], vec![0, 1, 2]));
    }

    #[test]
    fn a_milestone_is_reached_once_and_by_the_first_iteration_that_is_there() {
        let reached = |total: usize| {
            let share = |done: usize| done as f64 / total as f64;
            (1..total).filter_map(|done| Some((done, milestone(share(done - 1), share(done))?))).collect::<Vec<_>>()
        };
        assert_eq!(reached(16), [(4, 25), (8, 50), (12, 75)]);
        assert_eq!((reached(10), reached(3)), (vec![(3, 25), (5, 50), (8, 75)], vec![(1, 25), (2, 50)]));
        // Of an iteration that reaches two it is the later that is true of it.
        assert_eq!((reached(2), reached(1)), (vec![(1, 50)], vec![]));
        assert_eq!(milestone(0.75, 0.97), None);
    }

    #[test]
    fn policies_share_a_budget_and_what_is_left_of_it() {
        let mut config = RunConfig::default();
        (config.policy.iterations, config.policy.passes) = (220, Some(9.0));
        let task = |config: &RunConfig, index, spent| {
            let part = Part { index, count: 4, name: String::new() };
            let task = one_of_several(config, Aim::Preference, part, &Work { forward_tokens: spent, training_tokens: 0 });
            (task.iterations, task.passes)
        };
        assert_eq!(task(&config, 1, 0), (55, Some(2.25e6)));
        // The first spent too much, so that the others get a little less.
        assert_eq!(task(&config, 2, 2_400_000), (55, Some(2.2e6)));
        assert_eq!(task(&config, 4, 8_000_000), (55, Some(1e6)));
        config.method.budget = Budget::PerPolicy;
        assert_eq!(task(&config, 4, 8_000_000), (220, Some(9e6)));
        config.policy.passes = None;
        assert_eq!(task(&config, 2, 0), (220, None));
    }
}
