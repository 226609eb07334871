//! The stages that methods share: SFT, reward model, calibration, policy optimisation, evaluation.

use super::supervised::SupervisedStage;
use crate::data::world::World;
use crate::data::{generate, world};
use crate::evaluate::answer::{Answering, Ask, Route};
use crate::evaluate::control::{Examination, Plan, examine, wordings};
use crate::evaluate::front::front;
use crate::evaluate::goals::choose;
use crate::model::TrainBackend;
use crate::model::generate::Sampling;
use crate::model::kernels::Kernels;
use crate::model::packed::{Group, Packed};
use crate::model::store::{from_safetensors, to_safetensors, write_atomically};
use crate::model::transformer::Transformer;
use crate::policy::rollout::{Actors, Aim, Prompt, Rollout, draw_prompts, judge_rollouts, roll_out};
use crate::policy::targets::{TargetSampler, pair_positions};
use crate::policy::{Learner, Update, by_prompt, is_flat, learning_rate};
use crate::progress::{Progress, Stopped, Unfit, stream};
use crate::reward::judge::{Calibration, Judge, all_outputs};
use crate::reward::loss::Weighing;
use crate::reward::{RewardModel, train as reward_train};
use crate::run::cache::{Cache, Entry, sha256};
use crate::run::checkpoint::Exact;
use crate::run::{Job, checkpoint};
use crate::text::Tokenizer;
use crate::text::corpus::{Corpus, Encoded, siblings};
use anyhow::{Context, Result};
use burn::module::AutodiffModule;
use moslim_shared::config::{EvaluationSplit, PolicyOptimizer, RunConfig};
use moslim_shared::distribution::argmax;
use moslim_shared::event::{EventBody, PolicyStep, Sample, Stage};
use moslim_shared::kl::AdaptiveKl;
use moslim_shared::mapping::{Pooling, RewardStatistics};
use moslim_shared::method::{Budget, Method, goal};
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use moslim_shared::summary::{ControlSummary, FrontReport, KlPoint, PolicySummary, RewardModelReport, Work};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Reference answers over which the reward statistics are taken.
const REFERENCE_ROWS: usize = 2048;
/// Validation rows on which the reward model is watched while it trains.
const WATCHED_ROWS: usize = 512;
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

/// Text, rows and names that all stages share.
pub struct Setting {
    pub objectives: Vec<Objective>,
    /// Positions of the objectives that are steered.
    pub steered: Vec<usize>,
    pub tokenizer: Tokenizer,
    pub corpus: Corpus,
    pub cache: Cache,
    /// Which trade-offs every method is asked for: weights over all objectives.
    pub trade_offs: Vec<Vec<f64>>,
}

impl Setting {
    /// Makes the world's rows and their tokenizer.
    ///
    /// # Errors
    /// When they do not fit the configuration, or cannot be written.
    pub fn prepare(job: &Job) -> Result<Self> {
        let config = &job.config;
        let objectives = world::objectives();
        let splits = generate(&config.world);
        let tokenizer = Tokenizer::train(config.vocabulary, &splits, &objectives)?;
        let corpus = Corpus::new(&splits, &tokenizer)?;
        write_atomically(&job.folder().join("tokenizer.json"), tokenizer.to_json()?.as_bytes())?;
        check_lengths(config, &corpus, objectives.len())?;
        let steered = config.steered(&objectives);
        let trade_offs = config.method.weight_vectors(&steered, objectives.len());
        Ok(Self { objectives, steered, tokenizer, corpus, cache: Cache::new(&job.lab), trade_offs })
    }

    /// Which objectives are better when higher.
    pub fn higher_is_better(&self) -> Vec<bool> {
        self.objectives.iter().map(|o| o.higher_is_better).collect()
    }
}

/// Everything that a model reads must fit into its context.
fn check_lengths(config: &RunConfig, corpus: &Corpus, objectives: usize) -> Result<()> {
    // RiC writes its scores as text, of at most five tokens each.
    let objectives = if config.method.kind == Method::Ric { 5 * objectives } else { objectives };
    // <user>, <assistant> and the end of the sequence.
    let answered = corpus.longest_question() + config.policy.max_new_tokens + 3;
    for (field, context, what, needed) in [
        ("model.context", config.model.context, "the longest row", corpus.longest_row()),
        ("model.context", config.model.context, "the longest tagged prompt with its answer", answered + objectives),
        ("reward_trunk.context", config.reward_trunk.context, "the longest row", corpus.longest_row()),
        ("reward_trunk.context", config.reward_trunk.context, "the longest question with its answer", answered),
    ] {
        if needed > context {
            let hint = "a larger vocabulary makes rows shorter";
            return Err(Unfit(format!("{field}: is {context}; {what} has {needed} tokens ({hint})")).into());
        }
    }
    Ok(())
}

/// Stage 1: next-token training on mixed-quality answers. No tags, no preference labels.
pub fn supervised_fine_tuning<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    device_name: &str,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Transformer<B>, String, f64)> {
    let c = &job.config;
    let tokenizer = &setting.tokenizer;
    let model = Transformer::<B>::new(&c.model, tokenizer.vocabulary(), tokenizer.outputs(), c.seed, device);
    let stage = SupervisedStage {
        stage: Stage::Sft,
        config: &c.sft,
        rows: &setting.corpus.train,
        seed: c.seed,
        key: Cache::key("sft", &(&c.world, c.vocabulary, &c.model, &c.sft, c.seed, device_name))?,
        siblings: None,
        cache: &setting.cache,
        run_folder: &job.folder(),
    };
    let loss = |model: &Transformer<B>, rows: &[&Encoded], answer_tokens: &usize| {
        let groups: Vec<Group> = rows.iter().map(|r| r.group()).collect();
        model.answer_log_probs(&Packed::new(&groups), 1.0).sum().neg() / *answer_tokens as f32
    };
    let answer_tokens = |rows: &[&Encoded]| rows.iter().map(|r| r.tokens.len() - r.answer).sum::<usize>();
    let (model, seconds) = stage.run::<B, _, _>(model, device, progress, loss, answer_tokens, |_| Vec::new())?;
    Ok((model, stage.key, seconds))
}

/// Stage 2: one multi-head model, or a model for each objective, on untagged question and answer. Labels that are missing add
/// no loss.
pub fn reward_models<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    (sft, sft_key): (&Transformer<B>, &str),
    device_name: &str,
    seed: u64,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Vec<RewardModel<B>>, f64)> {
    let c = &job.config;
    let all: Vec<usize> = (0..setting.objectives.len()).collect();
    let sets: Vec<Vec<usize>> = if c.reward_model.separate { all.iter().map(|&h| vec![h]).collect() } else { vec![all] };
    let mut models = Vec::new();
    let mut seconds = 0.0;
    for (n, heads) in sets.iter().enumerate() {
        if sets.len() > 1 {
            let name = setting.objectives[heads[0]].id.clone();
            progress.emit(EventBody::Part { stage: Stage::RewardModel, index: n + 1, count: sets.len(), name });
        }
        let (model, own) = reward_model(job, setting, heads, sets.len(), (sft, sft_key), device_name, seed, device, progress)?;
        models.push(model);
        seconds += own;
    }
    Ok((models, seconds))
}

/// One reward model with heads for the objectives at `heads`; one of `count` that share the steps.
#[allow(clippy::too_many_arguments)]
fn reward_model<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    heads: &[usize],
    count: usize,
    (sft, sft_key): (&Transformer<B>, &str),
    device_name: &str,
    seed: u64,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(RewardModel<B>, f64)> {
    let c = &job.config;
    let r = &c.reward_model;
    let tokenizer = &setting.tokenizer;
    let classes: Vec<usize> = heads.iter().map(|&h| setting.objectives[h].class_count()).collect();
    let weights_seed = seed ^ 0x4EA4 ^ ((heads[0] as u64) << 20);
    let model = if c.reward_from_sft {
        RewardModel::<B>::on_trunk(sft.clone(), &classes, r.loss, weights_seed)
    } else {
        RewardModel::<B>::new(&c.reward_trunk, tokenizer.vocabulary(), &classes, r.loss, weights_seed, device)
    };
    let rows = &setting.corpus.train;
    let class_weights = reward_train::class_weights(r.class_weights, rows, heads, &classes);
    let head_weights: Vec<f64> = heads.iter().map(|&h| r.head_weights.get(h).copied().unwrap_or(1.0)).collect();
    let origin = c.reward_from_sft.then_some(sft_key);
    let mut schedule = r.schedule();
    schedule.steps = (schedule.steps / count).max(1);
    let pairs = r.loss == moslim_shared::ordinal::RewardLoss::BradleyTerry;
    let stage = SupervisedStage {
        stage: Stage::RewardModel,
        config: &schedule,
        rows,
        seed,
        key: Cache::key("reward", &(&c.world, c.vocabulary, &c.reward_trunk, r, heads, origin, seed, device_name))?,
        siblings: pairs.then(|| siblings(rows)),
        cache: &setting.cache,
        run_folder: &job.folder(),
    };
    let watched = &setting.corpus.validation[..WATCHED_ROWS.min(setting.corpus.validation.len())];
    stage.run::<B, _, _>(
        model,
        device,
        progress,
        |model, rows, weighing: &Weighing| reward_train::loss(model, rows, heads, weighing),
        |rows| {
            let labels = reward_train::labels_of(rows, heads);
            let labels: Vec<&[Option<usize>]> = labels.iter().map(Vec::as_slice).collect();
            Weighing {
                smoothing: r.label_smoothing,
                learned: r.learned_head_weights,
                ..Weighing::of(&labels, r.loss, &class_weights, &head_weights)
            }
        },
        |model| {
            let outputs = reward_train::outputs(std::slice::from_ref(model), watched, heads);
            reward_train::kappas(r.loss, &outputs, &classes)
        },
    )
}

/// Stage 3: a temperature per head on validation data, then mean and deviation per head and class over reference answers;
/// all frozen under one hash.
pub fn calibrate<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    trained: &[RewardModel<B>],
    progress: &mut Progress,
) -> Result<(Judge<B::InnerBackend>, RewardModelReport, f64)> {
    let begun = Instant::now();
    let corpus = &setting.corpus;
    progress.emit(EventBody::StageBegan { stage: Stage::Calibration, from: 0, total: 3 });
    let models: Vec<RewardModel<B::InnerBackend>> = trained.iter().map(AutodiffModule::valid).collect();
    let heads: Vec<usize> = (0..setting.objectives.len()).collect();
    let mut calibration = fit_calibration(job, setting, &models);
    progress.check()?;
    let test = reward_train::outputs(&models, &corpus.test, &heads);
    let mut report = reward_train::report(&test, &calibration, &corpus.test, &setting.objectives);
    if let [shared] = trained {
        report.gradient_cosines = reward_train::gradient_cosines(shared, &corpus.validation);
    }
    progress.emit(EventBody::RewardModel { report: report.clone() });
    progress.check()?;
    let reference: Vec<Group> = corpus.train.iter().take(REFERENCE_ROWS).map(Encoded::group).collect();
    let rows: Vec<Vec<Vec<f64>>> =
        all_outputs(&models, &reference).iter().map(|outputs| calibration.distributions(outputs)).collect();
    calibration.statistics = RewardStatistics::over(&calibration.mapping, &rows);
    let weights = models.iter().map(to_safetensors::<B::InnerBackend, _>).collect::<Result<Vec<_>>>()?;
    let frozen = serde_json::to_vec(&calibration)?;
    let parts: Vec<&[u8]> = weights.iter().map(Vec::as_slice).chain([frozen.as_slice()]).collect();
    calibration.hash = sha256(&parts);
    progress.emit(EventBody::Calibrated {
        temperatures: calibration.temperatures.clone(),
        statistics: calibration.statistics.clone(),
        hash: calibration.hash.clone(),
    });
    for (n, weights) in weights.iter().enumerate() {
        write_atomically(&job.folder().join(model_file("reward", n)), weights)?;
    }
    write_atomically(&job.folder().join("calibration.json"), &serde_json::to_vec_pretty(&calibration)?)?;
    let seconds = begun.elapsed().as_secs_f64();
    progress.emit(EventBody::StageEnded { stage: Stage::Calibration, seconds, cached: false });
    Ok((Judge { models, calibration }, report, seconds))
}

/// Temperatures (and thresholds) that fit `models` to validation rows; without statistics.
fn fit_calibration<B: Kernels>(job: &Job, setting: &Setting, models: &[RewardModel<B>]) -> Calibration {
    let loss = job.config.reward_model.loss;
    let heads: Vec<usize> = (0..setting.objectives.len()).collect();
    let classes: Vec<usize> = setting.objectives.iter().map(Objective::class_count).collect();
    let validation = reward_train::outputs(models, &setting.corpus.validation, &heads);
    let thresholds = reward_train::fit_thresholds(loss, &validation, &classes);
    let temperatures = reward_train::temperatures(loss, &validation, &classes, &thresholds);
    Calibration {
        temperatures,
        statistics: RewardStatistics::default(),
        mapping: job.config.mapping.clone(),
        hash: String::new(),
        loss,
        classes,
        thresholds,
    }
}

/// The held-out reward model, which only classifies.
pub fn held_out_judge<B: TrainBackend>(job: &Job, setting: &Setting, trained: &[RewardModel<B>]) -> Judge<B::InnerBackend> {
    let models: Vec<RewardModel<B::InnerBackend>> = trained.iter().map(AutodiffModule::valid).collect();
    let calibration = fit_calibration(job, setting, &models);
    Judge { models, calibration }
}

/// Name of the `n`th file of weights called `name`, from 0.
pub fn model_file(name: &str, n: usize) -> String {
    if n == 0 { format!("{name}.safetensors") } else { format!("{name}-{}.safetensors", n + 1) }
}

/// What is there before policy optimisation begins.
pub struct Ready<B: TrainBackend> {
    pub judge: Judge<B::InnerBackend>,
    /// A reward model that no policy is optimised for.
    pub held_out: Option<Judge<B::InnerBackend>>,
    /// The SFT policy with fresh embeddings of the tags.
    pub start: Transformer<B>,
    /// The same, frozen.
    pub reference: Transformer<B::InnerBackend>,
    /// Key of the SFT stage that both come from.
    pub origin: String,
}

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
                let seen = judge_rollouts(judge, &rollouts, &prompts, questions, &setting.tokenizer);
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

/// What a method has trained.
pub struct Trained<B: TrainBackend> {
    pub policies: Vec<Transformer<B::InnerBackend>>,
    pub route: Route,
    pub outcome: Outcome,
    /// Policies that were trained, and how many must be kept to answer every trade-off.
    pub policies_trained: usize,
    pub policies_kept: usize,
}

/// Mean class of each objective in answers of `policy`, asked without tags, as the reward model sees it, over some training
/// questions: `[objective]`. Also returns the work.
pub fn behaviour<B: TrainBackend>(
    setting: &Setting,
    judge: &Judge<B::InnerBackend>,
    policy: &Transformer<B::InnerBackend>,
    config: &RunConfig,
) -> Result<(Vec<f64>, Work)> {
    let questions = &setting.corpus.train_questions;
    let x = Answering {
        policies: std::slice::from_ref(policy),
        route: &Route::Untagged,
        judge,
        tokenizer: &setting.tokenizer,
        questions,
        objectives: &setting.objectives,
        trade_offs: &setting.trade_offs,
    };
    let ask = Ask::of(Preference::none(setting.objectives.len()));
    let n = questions.len().min(256);
    let asks: Vec<_> = (0..n).map(|q| (q * (questions.len() / n), ask.clone())).collect();
    let sampling =
        Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: config.policy.max_new_tokens, seed: config.seed ^ 0xBE4A };
    let answers = x.answer(&asks, &sampling)?;
    let pairs: Vec<_> = asks.iter().map(|(q, _)| *q).zip(&answers).collect();
    let mut means = vec![0.0; setting.objectives.len()];
    for heads in x.judged(&pairs) {
        for (mean, p) in means.iter_mut().zip(heads) {
            *mean += argmax(&p) as f64 / n as f64;
        }
    }
    let read: usize = pairs.iter().map(|(q, a)| questions[*q].tokens.len() + 2 + a.tokens.len()).sum();
    Ok((means, Work { forward_tokens: 2 * read as u64, training_tokens: 0 }))
}

/// What evaluation finds.
pub struct Evaluated {
    pub control: ControlSummary,
    pub control_reward_model: ControlSummary,
    pub front: FrontReport,
    /// Work of choosing what to ask for at every trade-off.
    pub work: Work,
    pub seconds: f64,
}

/// Stage 5: control by the gold judge and by the reward model, for the method and for the SFT baseline; then the method's
/// front.
pub fn evaluate<B: TrainBackend>(
    config: &RunConfig,
    setting: &Setting,
    ready: &Ready<B>,
    trained: &Trained<B>,
    progress: &mut Progress,
) -> Result<Evaluated> {
    let begun = Instant::now();
    let held_out: Vec<_> = config.targets.held_out.iter().filter_map(|p| pair_positions(p, &setting.objectives)).collect();
    let questions = match config.evaluation.split {
        EvaluationSplit::Test => &setting.corpus.test_questions,
        EvaluationSplit::Validation => &setting.corpus.validation_questions,
    };
    // Evaluation prompts depend on the world alone, so that runs with other seeds answer the same questions.
    let seed = config.world.seed;
    let plan = Plan::new(&config.evaluation, questions, &setting.objectives, &setting.steered, &held_out, seed);
    let trade_offs = if config.evaluation.front > 0 { setting.trade_offs.len() } else { 0 };
    let total = 2 * plan.len() + trade_offs * config.evaluation.front;
    progress.emit(EventBody::StageBegan { stage: Stage::Evaluation, from: 0, total });
    let mut gold = ControlSummary { judge: "gold".into(), ..Default::default() };
    let mut model = ControlSummary { judge: "reward_model".into(), ..Default::default() };
    let max_new_tokens = config.policy.max_new_tokens;
    let sampling = Sampling { temperature: config.evaluation.temperature, top_p: 1.0, max_new_tokens, seed: config.seed };
    // The SFT baseline never learnt tags and is asked without.
    let baseline = (std::slice::from_ref(&ready.reference), &Route::Untagged);
    let method = (trained.policies.as_slice(), &trained.route);
    let answering = |(policies, route), questions| Answering {
        policies,
        route,
        judge: &ready.judge,
        tokenizer: &setting.tokenizer,
        questions,
        objectives: &setting.objectives,
        trade_offs: &setting.trade_offs,
    };
    let mut sft: Option<Examination> = None;
    for (turn, (name, who)) in [("sft", baseline), ("policy", method)].into_iter().enumerate() {
        let x = answering(who, questions);
        let answers = examine(&x, &plan, &config.evaluation, max_new_tokens, config.seed, |done| {
            progress.emit(EventBody::Evaluating { done: turn * plan.len() + done, total });
            progress.check()
        })?;
        let wordings = wordings(&x, &plan, config.evaluation.paraphrased, &sampling)?;
        let [mut by_gold, by_model] = answers.reports(&plan, &setting.objectives, sft.as_ref());
        by_gold.wordings = wordings;
        for (summary, report) in [(&mut gold, by_gold), (&mut model, by_model)] {
            progress.emit(EventBody::Control { policy: name.into(), judge: summary.judge.clone(), report: report.clone() });
            if turn == 0 {
                summary.sft = report;
            } else {
                summary.policy = report;
            }
        }
        sft = Some(answers);
    }
    let (mut report, mut work) = (FrontReport::default(), Work::default());
    if trade_offs > 0 {
        let (steered, each) = (&setting.steered, config.evaluation.front);
        let x = answering(method, questions);
        // What to ask for is chosen on training questions; the fixed map beside it is what others use.
        let fixed: Vec<Preference> = setting.trade_offs.iter().map(|w| goal(w, &setting.objectives)).collect();
        let reads_prompts = !trained.route.wordings().is_empty();
        let mut goals = fixed.clone();
        if reads_prompts {
            let trial = answering(method, &setting.corpus.train_questions);
            (goals, work) = choose(&trial, steered, &sampling, || progress.check())?;
        }
        report = front(&x, steered, &goals, each, &sampling, seed, |done| {
            progress.emit(EventBody::Evaluating { done: 2 * plan.len() + done * each, total });
            progress.check()
        })?;
        if reads_prompts {
            let beside = front(&x, steered, &fixed, each, &sampling, seed, |_| progress.check())?;
            report.fixed_map_hypervolume = beside.hypervolume;
        }
        progress.emit(EventBody::Front { report: report.clone() });
    }
    let seconds = begun.elapsed().as_secs_f64();
    progress.emit(EventBody::StageEnded { stage: Stage::Evaluation, seconds, cached: false });
    Ok(Evaluated { control: gold, control_reward_model: model, front: report, work, seconds })
}

/// The policy of another run, to start from.
///
/// # Errors
/// When there is no such run, it is not finished, or its model has another shape.
pub fn policy_of<B: TrainBackend>(job: &Job, run: &str, like: Transformer<B>) -> Result<Transformer<B>> {
    let folder = job.lab.join("runs").join(run);
    let file = folder.join("policy.safetensors");
    let unfit = |what: String| Unfit(format!("from: {what}"));
    let tokenizer = std::fs::read(folder.join("tokenizer.json")).map_err(|_| unfit(format!("there is no run {run}")))?;
    let own = std::fs::read(job.folder().join("tokenizer.json")).context("reading this run's tokenizer")?;
    if sha256(&[&tokenizer]) != sha256(&[&own]) {
        return Err(unfit(format!("run {run} has another vocabulary; it needs the same world and vocabulary")).into());
    }
    let weights = std::fs::read(&file).map_err(|_| unfit(format!("run {run} has no policy; it must be finished")))?;
    from_safetensors(like, weights).map_err(|e| unfit(format!("the policy of run {run} has another shape: {e:#}")).into())
}
