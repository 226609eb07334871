//! Policy optimisation: the loop around rollouts and updates, for one policy.

use super::{Ready, Setting};
use crate::data::world::World;
use crate::model::TrainBackend;
use crate::model::kernels::Kernels;
use crate::model::store::{from_safetensors, to_safetensors};
use crate::model::transformer::Transformer;
use crate::policy::rollout::{Actors, Aim, Prompt, Rollout, draw_prompts, judge_answers, roll_out};
use crate::policy::targets::TargetSampler;
use crate::policy::{Learner, Update, by_prompt, is_flat, learning_rate};
use crate::progress::{Progress, Stopped, stream};
use crate::run::cache::{Cache, Entry};
use crate::run::checkpoint::Exact;
use crate::run::{Job, checkpoint};
use anyhow::Result;
use burn::module::AutodiffModule;
use moslim_shared::config::{PolicyOptimizer, RunConfig};
use moslim_shared::distribution::argmax;
use moslim_shared::event::{EventBody, PolicyStep, Sample, Stage};
use moslim_shared::kl::AdaptiveKl;
use moslim_shared::mapping::{Pooling, RewardStatistics};
use moslim_shared::method::Budget;
use moslim_shared::objective::Objective;
use moslim_shared::summary::{KlPoint, PolicySummary, Work};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Samples shown per report.
const SHOWN_SAMPLES: usize = 4;
/// Samples over which an adaptive KL coefficient may change by a fifth.
const KL_HORIZON: f64 = 2_000.0;
/// Weight of an iteration's samples in running statistics.
const RUNNING_RATE: f64 = 0.1;
/// Times that DAPO draws groups of equal rewards again.
const REDRAWS: usize = 2;
/// Points of the curve of reward against KL.
const KL_POINTS: usize = 20;

/// One policy to be optimised.
pub struct Task {
    pub aim: Aim,
    pub iterations: usize,
    /// Where a method trains several: which one this is, from 1, of how many, and its name.
    pub part: Option<(usize, usize, String)>,
    /// What the policy starts from, when that is not SFT alone.
    pub start: String,
}

/// Iterations for each of `policies` policies.
pub fn iterations_each(config: &RunConfig, policies: usize) -> usize {
    match config.method.budget {
        Budget::Total => (config.policy.iterations / policies).max(1),
        Budget::PerPolicy => config.policy.iterations,
    }
}

/// What optimising a policy took and reached.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub summary: PolicySummary,
    /// Seconds when it was done.
    pub seconds: f64,
    pub work: Work,
    pub kl_frontier: Vec<KlPoint>,
}

impl Outcome {
    /// Adds what another policy of the same method took; what is reached is that of the last, and means of all.
    pub fn add(&mut self, other: Self, count: usize) {
        self.summary.samples += other.summary.samples;
        self.summary.tokens += other.summary.tokens;
        let share = 1.0 / count as f64;
        self.summary.kl += share * other.summary.kl;
        self.summary.reward_first += share * other.summary.reward_first;
        self.summary.reward_last += share * other.summary.reward_last;
        self.seconds += other.seconds;
        self.work += other.work;
        self.kl_frontier = other.kl_frontier;
    }
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

/// Stage 4: optimises one policy against the frozen reference.
///
/// A policy that is one of several is kept in the cache when it is done, so that a method that is interrupted goes on with
/// the next, and methods that need the same policy train it once.
pub fn optimise_policy<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    ready: &Ready<B>,
    start: Transformer<B>,
    task: &Task,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Transformer<B>, Outcome)> {
    let begun = Instant::now();
    let (config, c, judge) = (&job.config, &job.config.policy, &ready.judge);
    let (stage, total) = (Stage::Policy, task.iterations);
    let weights = if let Aim::Weights(w) = &task.aim { Some(w) } else { None };
    let targets = weights.is_none().then_some(&config.targets);
    let inputs = (&judge.calibration.hash, &ready.origin, &task.start, c, targets, weights, total, config.seed, &config.model);
    let key = Cache::key("policy", &inputs)?;
    if let Some((index, count, name)) = &task.part {
        progress.emit(EventBody::Part { stage, index: *index, count: *count, name: name.clone() });
        if let Some((entry, weights)) = setting.cache.load_sound(&key, progress)?
            && let Some(outcome) = entry.extra.and_then(|e| serde_json::from_value::<Outcome>(e).ok())
        {
            progress.emit(EventBody::StageBegan { stage, from: 0, total });
            let model = from_safetensors(start, weights)?;
            progress.emit(EventBody::StageEnded { stage, seconds: begun.elapsed().as_secs_f64(), cached: true });
            return Ok((model, outcome));
        }
    }
    let labels = setting.corpus.train.iter().map(|r| r.labels.as_slice());
    let sampler = TargetSampler::new(config, &setting.objectives, labels);
    let higher_is_better = setting.higher_is_better();
    let mut learner = Learner::new(start, c);
    let mut state = PolicyState { beta: Exact(c.kl_coefficient), ..Default::default() };
    let (mut from, mut before) = (0, 0.0);
    if let Some(loaded) = checkpoint::load::<PolicyState>(&job.folder(), stage, &key)? {
        learner = learner.from_parts(loaded.parts, device)?;
        (from, before, state) = (loaded.header.step, loaded.header.seconds, loaded.header.extra);
    }
    progress.emit(EventBody::StageBegan { stage, from, total });
    for step in from..total {
        if progress.stopped() {
            let seconds = before + begun.elapsed().as_secs_f64();
            checkpoint::save(&job.folder(), stage, step, &key, seconds, &state, &learner.to_parts()?)?;
            progress.emit(EventBody::Checkpoint { stage, step });
            return Err(Stopped.into());
        }
        let iteration = Instant::now();
        let mut rng = stream(config.seed, stage, step);

        // 1. Prompts, each with a preference; all samples of a prompt share it.
        let questions = &setting.corpus.train_questions;
        let mut prompts = draw_prompts(c.prompts, questions, &sampler, &setting.tokenizer, &task.aim, &mut rng);
        // 2. Roll out and score: reward model, mapping, KL.
        let statistics = state.statistics(&judge.calibration.statistics);
        let policy = learner.policy.model.valid();
        let actors = Actors {
            policy: &policy,
            reference: &ready.reference,
            judge,
            tokenizer: &setting.tokenizer,
            questions,
            aim: &task.aim,
            statistics: &statistics,
            higher_is_better: &higher_is_better,
        };
        let (mut rollouts, work) = roll_out(&actors, &prompts, c, state.beta.0, rng.random());
        state.work += work;
        if c.optimizer == PolicyOptimizer::Dapo {
            state.work += redraw_flat_groups(&mut rollouts, &mut prompts, &actors, &sampler, job, state.beta.0, &mut rng);
        }
        // 3. Advantages and one update, as the optimiser has them.
        let beta = state.beta.0;
        let update = Update {
            prompts: &prompts,
            config: c,
            beta,
            learning_rate: learning_rate(c.learning_rate, step, total),
            iteration: step,
        };
        let (next, report) = learner.update(&mut rollouts, &update, &mut rng);
        learner = next;

        state.work += report.work;
        state.samples += rollouts.len() as u64;
        state.tokens += rollouts.iter().map(|r| r.answer.tokens.len() as u64).sum::<u64>();
        if config.mapping.pooling == Pooling::Running && task.aim == Aim::Preference {
            let mut moved = statistics;
            let seen = rollouts.iter().map(|r| (r.distributions.as_slice(), &prompts[r.prompt].preference));
            moved.observe(&config.mapping, seen, RUNNING_RATE);
            state.keep(&moved);
        }
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
            seconds: iteration.elapsed().as_secs_f64(),
            ..describe(&rollouts, &prompts, &setting.objectives)
        };
        state.rewards.push(Exact(report.reward));
        state.kls.push(Exact(report.kl));
        if let Some(target) = c.kl_target {
            let mut controller = AdaptiveKl { coefficient: beta, target, horizon: KL_HORIZON };
            controller.update(report.kl, rollouts.len());
            state.beta = Exact(controller.coefficient);
        }
        let (kl, proxy) = (report.kl, report.score);
        progress.emit(EventBody::Policy { total, step: report });
        if step % (total / 100).max(1) == 0 || step + 1 == total {
            let samples = show(&rollouts, &prompts, setting)?;
            progress.emit(EventBody::Samples { step: step + 1, samples });
        }
        if task.aim == Aim::Preference && ((step + 1) % (total / KL_POINTS).max(1) == 0 || step == 0) {
            // Looked at, never learnt from: nothing of this reaches the optimiser.
            let gold = gold_classes(&rollouts, &prompts, setting)?;
            let held_out = ready.held_out.as_ref().map(|judge| {
                let answers: Vec<(usize, &[u32])> = rollouts.iter().map(|r| (r.prompt, r.answer.tokens.as_slice())).collect();
                let (seen, _) = judge_answers(judge, &answers, &prompts, questions, &setting.tokenizer);
                hit_rate(&rollouts, &prompts, |n, i| argmax(&seen[n][i]))
            });
            let point = KlPoint {
                step: step + 1,
                kl,
                proxy,
                proxy_hit_rate: hit_rate(&rollouts, &prompts, |n, i| argmax(&rollouts[n].distributions[i])),
                gold_hit_rate: hit_rate(&rollouts, &prompts, |n, i| gold[n][i]),
                held_out_hit_rate: held_out,
            };
            state.kl_frontier.push(point);
            progress.emit(EventBody::KlFrontier { point });
        }
        if (step + 1) % c.checkpoint_every == 0 || step + 1 == total {
            let seconds = before + begun.elapsed().as_secs_f64();
            checkpoint::save(&job.folder(), stage, step + 1, &key, seconds, &state, &learner.to_parts()?)?;
            progress.emit(EventBody::Checkpoint { stage, step: step + 1 });
        }
    }
    let seconds = before + begun.elapsed().as_secs_f64();
    progress.emit(EventBody::StageEnded { stage, seconds, cached: false });
    let tenth = (total / 10).max(1);
    let mean = |v: &[Exact]| v.iter().map(|x| x.0).sum::<f64>() / v.len().max(1) as f64;
    let summary = PolicySummary {
        samples: state.samples,
        tokens: state.tokens,
        kl: mean(&state.kls[state.kls.len().saturating_sub(tenth)..]),
        reward_first: mean(&state.rewards[..tenth.min(state.rewards.len())]),
        reward_last: mean(&state.rewards[state.rewards.len().saturating_sub(tenth)..]),
    };
    let outcome = Outcome { summary, seconds, work: state.work, kl_frontier: state.kl_frontier };
    let model = learner.policy.model;
    if task.part.is_some() {
        let entry = Entry { seconds, extra: Some(serde_json::to_value(&outcome)?), ..Default::default() };
        setting.cache.save(&key, entry, &to_safetensors::<B, _>(&model)?)?;
    }
    Ok((model, outcome))
}

/// DAPO's dynamic sampling: prompts whose samples all got the same score are replaced by new ones, a few times.
fn redraw_flat_groups<B: Kernels>(
    rollouts: &mut Vec<Rollout>,
    prompts: &mut [Prompt],
    actors: &Actors<B>,
    sampler: &TargetSampler,
    job: &Job,
    beta: f64,
    rng: &mut rand::rngs::StdRng,
) -> Work {
    let c = &job.config.policy;
    let mut work = Work::default();
    for _ in 0..REDRAWS {
        let flat: Vec<usize> = by_prompt(rollouts).filter(|g| is_flat(g)).map(|g| g[0].prompt).collect();
        if flat.is_empty() {
            break;
        }
        let fresh = draw_prompts(flat.len(), actors.questions, sampler, actors.tokenizer, actors.aim, rng);
        let (new, own) = roll_out(actors, &fresh, c, beta, rng.random());
        work += own;
        rollouts.retain(|r| !flat.contains(&r.prompt));
        rollouts.extend(new.into_iter().map(|r| Rollout { prompt: flat[r.prompt], ..r }));
        for (&at, prompt) in flat.iter().zip(fresh) {
            prompts[at] = prompt;
        }
        rollouts.sort_by_key(|r| r.prompt);
    }
    work
}

/// Share of the classes asked for that are met; `achieved(rollout, objective)` tells the class.
fn hit_rate(rollouts: &[Rollout], prompts: &[Prompt], achieved: impl Fn(usize, usize) -> usize) -> f64 {
    let (mut hits, mut asked) = (0.0, 0.0);
    for (n, r) in rollouts.iter().enumerate() {
        for (i, t) in prompts[r.prompt].preference.asked() {
            asked += 1.0;
            hits += f64::from(u8::from(achieved(n, i) == t));
        }
    }
    hits / f64::max(asked, 1.0)
}

/// Class of each objective by the gold judge, `[rollout][objective]`.
fn gold_classes(rollouts: &[Rollout], prompts: &[Prompt], setting: &Setting) -> Result<Vec<Vec<usize>>> {
    let class = |r: &Rollout| {
        let text = setting.tokenizer.decode(&r.answer.tokens)?;
        let question = &setting.corpus.train_questions[prompts[r.prompt].question].question;
        Ok(World::get().judge(question, &text).classes)
    };
    rollouts.iter().map(class).collect()
}

/// Averages of a batch of rollouts.
fn describe(rollouts: &[Rollout], prompts: &[Prompt], objectives: &[Objective]) -> PolicyStep {
    let n = rollouts.len().max(1) as f64;
    let mean = |f: &dyn Fn(&Rollout) -> f64| rollouts.iter().map(f).sum::<f64>() / n;
    let tokens: f64 = rollouts.iter().map(|r| r.answer.tokens.len() as f64).sum();
    let entropy: f64 = rollouts.iter().flat_map(|r| &r.answer.entropies).map(|&e| e as f64).sum();
    let mut step = PolicyStep {
        reward: mean(&|r| r.reward),
        score: mean(&|r| r.score),
        kl: mean(&|r| r.kl),
        entropy: entropy / tokens.max(1.0),
        length: tokens / n,
        eos_rate: mean(&|r| f64::from(r.answer.ended)),
        ..Default::default()
    };
    for (i, objective) in objectives.iter().enumerate() {
        let classes = objective.class_count();
        let mut mass = vec![0.0; classes];
        let mut matrix = vec![vec![0.0; classes]; classes];
        let (mut contribution, mut on_target, mut asked) = (0.0, 0.0, 0.0);
        for r in rollouts {
            for (m, p) in mass.iter_mut().zip(&r.distributions[i]) {
                *m += p / n;
            }
            if let Some(class) = prompts[r.prompt].preference.0[i] {
                asked += 1.0;
                contribution += r.contributions[i];
                on_target += r.distributions[i][class];
                for (m, p) in matrix[class].iter_mut().zip(&r.distributions[i]) {
                    *m += p;
                }
            }
        }
        step.distributions.push(mass);
        step.matrix.push(matrix);
        step.contributions.push(contribution / f64::max(asked, 1.0));
        step.on_target.push(on_target / f64::max(asked, 1.0));
    }
    step
}

/// The first sample of the first few groups, ready to be shown.
fn show(rollouts: &[Rollout], prompts: &[Prompt], setting: &Setting) -> Result<Vec<Sample>> {
    let mut seen = std::collections::HashSet::new();
    rollouts
        .iter()
        .filter(|r| seen.insert(r.prompt))
        .take(SHOWN_SAMPLES)
        .map(|r| {
            let prompt = &prompts[r.prompt];
            Ok(Sample {
                question: setting.corpus.train_questions[prompt.question].question.text.clone(),
                preference: prompt.preference.clone(),
                answer: setting.tokenizer.decode(&r.answer.tokens)?,
                distributions: r.distributions.clone(),
                contributions: r.contributions.clone(),
                penalty: r.penalty,
                score: r.score,
                kl: r.kl,
                reward: r.reward,
                advantage: r.advantage,
            })
        })
        .collect()
}
