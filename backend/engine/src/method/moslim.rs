//! MOSLIM (arXiv 2505.20336), top to bottom: SFT, reward model, calibration, policy optimisation, evaluation.

use super::supervised::SupervisedStage;
use crate::data::{generate, world};
use crate::evaluate::control::{Examined, Plan, examine};
use crate::model::TrainBackend;
use crate::model::optimizer::Trainee;
use crate::model::packed::{Group, Packed};
use crate::model::store::{to_safetensors, write_atomically};
use crate::model::transformer::Transformer;
use crate::policy::rloo;
use crate::policy::rollout::{Actors, Prompt, Rollout, draw_prompts, roll_out};
use crate::policy::targets::{TargetSampler, pair_positions};
use crate::progress::{Progress, Stopped, Unfit, stream};
use crate::reward::judge::{Calibration, Judge, logits};
use crate::reward::{RewardModel, labelled, train as reward_train};
use crate::run::cache::{Cache, sha256};
use crate::run::checkpoint::Exact;
use crate::run::{Job, checkpoint};
use crate::text::Tokenizer;
use crate::text::corpus::{Corpus, Encoded};
use anyhow::Result;
use burn::module::AutodiffModule;
use burn::prelude::*;
use moslim_shared::config::RunConfig;
use moslim_shared::distribution::softmax;
use moslim_shared::event::{DeviceReport, EventBody, ModelReport, PolicyStep, Sample, Stage};
use moslim_shared::kl::AdaptiveKl;
use moslim_shared::mapping::RewardStatistics;
use moslim_shared::objective::Objective;
use moslim_shared::summary::{ControlSummary, PolicySummary, RewardModelReport, RunSummary, StageSeconds};
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

/// Text, rows and names that all stages share.
struct Setting {
    objectives: Vec<Objective>,
    tokenizer: Tokenizer,
    corpus: Corpus,
    cache: Cache,
}

/// Runs the method for `job` on `device`.
pub fn run<B: TrainBackend>(job: &Job, device: &B::Device, report: DeviceReport, progress: &mut Progress) -> Result<RunSummary> {
    let config = &job.config;
    let objectives = world::objectives();
    let name = report.device.clone();
    let resumed = job.folder().join("config.json").exists()
        && std::fs::read_dir(job.folder())?.flatten().any(|f| f.file_name().to_string_lossy().starts_with("checkpoint-"));
    progress.emit(EventBody::Started { config: config.clone(), device: report, objectives: objectives.clone(), resumed });
    write_atomically(&job.folder().join("config.json"), &serde_json::to_vec_pretty(config)?)?;

    let splits = generate(&config.world);
    let tokenizer = Tokenizer::train(config.vocabulary, &splits, &objectives)?;
    let corpus = Corpus::new(&splits, &tokenizer)?;
    write_atomically(&job.folder().join("tokenizer.json"), tokenizer.to_json()?.as_bytes())?;
    check_lengths(config, &corpus, objectives.len())?;
    let setting = Setting { objectives, tokenizer, corpus, cache: Cache::new(&job.lab) };
    progress.check()?;

    let (sft, sft_key, sft_seconds) = supervised_fine_tuning::<B>(job, &setting, &name, device, progress)?;
    let (reward_model, reward_seconds) = reward_model::<B>(job, &setting, &sft, &sft_key, &name, device, progress)?;
    progress.emit(EventBody::Model {
        model: ModelReport {
            policy_parameters: sft.num_params() as u64,
            reward_parameters: reward_model.num_params() as u64,
            vocabulary: setting.tokenizer.vocabulary(),
            rows: [setting.corpus.train.len(), setting.corpus.validation.len(), setting.corpus.test.len()],
        },
    });
    let (judge, reward_report, calibration_seconds) = calibrate::<B>(job, &setting, reward_model.valid(), progress)?;

    // The reference is the SFT policy; both start with the same fresh tag embeddings, so KL starts at 0.
    let tags: Vec<u32> = setting.tokenizer.tag_tokens().collect();
    let start = sft.copy_embedding(&tags, setting.tokenizer.user, config.seed);
    let reference = start.valid();
    let (policy, policy_summary, policy_seconds) =
        optimise_policy::<B>(job, &setting, &judge, start, &reference, device, progress)?;
    let (control, control_reward_model, evaluation_seconds) =
        evaluate::<B>(config, &setting, &judge, &policy.valid(), &reference, progress)?;

    let seconds = StageSeconds {
        sft: sft_seconds,
        reward_model: reward_seconds,
        calibration: calibration_seconds,
        policy: policy_seconds,
        evaluation: evaluation_seconds,
        total: sft_seconds + reward_seconds + calibration_seconds + policy_seconds + evaluation_seconds,
    };
    let summary = RunSummary {
        run: job.run.clone(),
        preset: config.preset.clone(),
        seed: config.seed,
        device: name,
        seconds,
        reward_model: reward_report,
        control,
        control_reward_model,
        policy: policy_summary,
        reward_hash: judge.calibration.hash.clone(),
    };
    write_atomically(&job.folder().join("policy.safetensors"), &to_safetensors::<B, _>(&policy)?)?;
    write_atomically(&job.folder().join("summary.json"), &serde_json::to_vec_pretty(&summary)?)?;
    checkpoint::remove(&job.folder(), Stage::Policy);
    progress.emit(EventBody::Summary { summary: summary.clone() });
    Ok(summary)
}

/// Everything that a model reads must fit into its context.
fn check_lengths(config: &RunConfig, corpus: &Corpus, objectives: usize) -> Result<()> {
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
fn supervised_fine_tuning<B: TrainBackend>(
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

/// Stage 2: one multi-head classifier, masked cross-entropy per head, on untagged question and answer.
fn reward_model<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    sft: &Transformer<B>,
    sft_key: &str,
    device_name: &str,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(RewardModel<B>, f64)> {
    let c = &job.config;
    let tokenizer = &setting.tokenizer;
    let classes: Vec<usize> = setting.objectives.iter().map(Objective::class_count).collect();
    let seed = c.seed ^ 0x4EA4;
    let model = if c.reward_from_sft {
        RewardModel::<B>::on_trunk(sft.clone(), &classes, seed)
    } else {
        RewardModel::<B>::new(&c.reward_trunk, tokenizer.vocabulary(), &classes, seed, device)
    };
    let origin = c.reward_from_sft.then_some(sft_key);
    let stage = SupervisedStage {
        stage: Stage::RewardModel,
        config: &c.reward_model,
        rows: &setting.corpus.train,
        seed: c.seed,
        key: Cache::key("reward", &(&c.world, c.vocabulary, &c.reward_trunk, &c.reward_model, origin, c.seed, device_name))?,
        cache: &setting.cache,
        run_folder: &job.folder(),
    };
    let watched = &setting.corpus.validation[..WATCHED_ROWS.min(setting.corpus.validation.len())];
    stage.run::<B, _, _>(
        model,
        device,
        progress,
        |model, rows, counts: &Vec<usize>| reward_train::loss(model, rows, counts, c.reward_model.label_smoothing),
        |rows| labelled(&rows.iter().map(|r| r.labels.as_slice()).collect::<Vec<_>>(), classes.len()),
        |model| reward_train::kappas(&reward_train::outputs(model, watched), &classes),
    )
}

/// Stage 3: a temperature per head on validation data, then mean and deviation per head and class over reference answers;
/// all frozen under one hash.
fn calibrate<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    model: RewardModel<B::InnerBackend>,
    progress: &mut Progress,
) -> Result<(Judge<B::InnerBackend>, RewardModelReport, f64)> {
    let begun = Instant::now();
    let corpus = &setting.corpus;
    progress.emit(EventBody::StageBegan { stage: Stage::Calibration, from: 0, total: 3 });
    let temperatures = reward_train::temperatures(&reward_train::outputs(&model, &corpus.validation));
    progress.check()?;
    let report = reward_train::report(&reward_train::outputs(&model, &corpus.test), &temperatures, &setting.objectives);
    progress.emit(EventBody::RewardModel { report: report.clone() });
    progress.check()?;
    let reference: Vec<Group> = corpus.train.iter().take(REFERENCE_ROWS).map(Encoded::group).collect();
    let rows: Vec<Vec<Vec<f64>>> = logits(&model, &reference)
        .into_iter()
        .map(|heads| heads.iter().zip(&temperatures).map(|(l, &t)| softmax(l, t)).collect())
        .collect();
    let mapping = job.config.mapping.clone();
    let statistics = RewardStatistics::over(&mapping, &rows);
    let weights = to_safetensors::<B::InnerBackend, _>(&model)?;
    let frozen = serde_json::to_vec(&(&temperatures, &statistics, &mapping))?;
    let hash = sha256(&[&weights, &frozen]);
    progress.emit(EventBody::Calibrated {
        temperatures: temperatures.clone(),
        statistics: statistics.clone(),
        hash: hash.clone(),
    });
    let calibration = Calibration { temperatures, statistics, mapping, hash };
    write_atomically(&job.folder().join("reward.safetensors"), &weights)?;
    write_atomically(&job.folder().join("calibration.json"), &serde_json::to_vec_pretty(&calibration)?)?;
    let seconds = begun.elapsed().as_secs_f64();
    progress.emit(EventBody::StageEnded { stage: Stage::Calibration, seconds, cached: false });
    Ok((Judge { model, calibration }, report, seconds))
}

/// What policy optimisation keeps in its checkpoint besides the weights.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct PolicyState {
    beta: Exact,
    samples: u64,
    tokens: u64,
    /// Mean scalar and KL per iteration.
    rewards: Vec<Exact>,
    kls: Vec<Exact>,
}

/// Stage 4: RLOO against the frozen reference.
fn optimise_policy<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    judge: &Judge<B::InnerBackend>,
    start: Transformer<B>,
    reference: &Transformer<B::InnerBackend>,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Transformer<B>, PolicySummary, f64)> {
    let begun = Instant::now();
    let (config, c) = (&job.config, &job.config.policy);
    let (stage, total) = (Stage::Policy, c.iterations);
    let key = sha256(&[judge.calibration.hash.as_bytes(), &serde_json::to_vec(&(config, "policy"))?]);
    let targets = TargetSampler::new(config, &setting.objectives, setting.corpus.train.iter().map(|r| r.labels.as_slice()));
    let mut trainee = Trainee::new(start, 0.0, c.max_gradient_norm);
    let mut state = PolicyState { beta: Exact(c.kl_coefficient), ..Default::default() };
    let (mut from, mut before) = (0, 0.0);
    if let Some(loaded) = checkpoint::load::<PolicyState>(&job.folder(), stage, &key)? {
        trainee = trainee.from_bytes(loaded.model, loaded.optimizer, device)?;
        (from, before, state) = (loaded.header.step, loaded.header.seconds, loaded.header.extra);
    }
    progress.emit(EventBody::StageBegan { stage, from, total });
    for step in from..total {
        if progress.stopped() {
            let seconds = before + begun.elapsed().as_secs_f64();
            checkpoint::save(&job.folder(), stage, step, &key, seconds, &state, trainee.to_bytes()?)?;
            progress.emit(EventBody::Checkpoint { stage, step });
            return Err(Stopped.into());
        }
        let iteration = Instant::now();
        let mut rng = stream(config.seed, stage, step);

        // 1. Prompts, each with a preference; all samples of a prompt share it.
        let prompts = draw_prompts(c.prompts, &setting.corpus.train_questions, &targets, &setting.tokenizer, &mut rng);
        // 2. Roll out and score: reward model, mapping, KL penalty.
        let policy = trainee.model.valid();
        let actors = Actors {
            policy: &policy,
            reference,
            judge,
            tokenizer: &setting.tokenizer,
            questions: &setting.corpus.train_questions,
        };
        let mut rollouts = roll_out(&actors, &prompts, c, state.beta.0, rng.random());
        // 3. Advantages within each group, 4. one update.
        let zero_std_groups = rloo::set_advantages(&mut rollouts, c.samples_per_prompt);
        let rate = rloo::learning_rate(c.learning_rate, step, total);
        let (next, update) = rloo::update(trainee, &rollouts, &prompts, c, rate, &mut rng);
        trainee = next;

        let beta = state.beta.0;
        state.samples += rollouts.len() as u64;
        state.tokens += rollouts.iter().map(|r| r.answer.tokens.len() as u64).sum::<u64>();
        let report = PolicyStep {
            step: step + 1,
            kl_coefficient: beta,
            zero_std_groups,
            first_ratio: update.first_ratio,
            clip_fraction: update.clip_fraction,
            gradient_norm: update.gradient_norm,
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
        progress.emit(EventBody::Policy { total, step: report });
        if step % (total / 100).max(1) == 0 || step + 1 == total {
            let samples = show(&rollouts, &prompts, setting)?;
            progress.emit(EventBody::Samples { step: step + 1, samples });
        }
        if (step + 1) % c.checkpoint_every == 0 || step + 1 == total {
            let seconds = before + begun.elapsed().as_secs_f64();
            checkpoint::save(&job.folder(), stage, step + 1, &key, seconds, &state, trainee.to_bytes()?)?;
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
    Ok((trainee.model, summary, seconds))
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

/// Stage 5: control by the gold judge and by the reward model, for the policy and for the SFT baseline.
fn evaluate<B: TrainBackend>(
    config: &RunConfig,
    setting: &Setting,
    judge: &Judge<B::InnerBackend>,
    policy: &Transformer<B::InnerBackend>,
    reference: &Transformer<B::InnerBackend>,
    progress: &mut Progress,
) -> Result<(ControlSummary, ControlSummary, f64)> {
    let begun = Instant::now();
    let steered = config.steered(&setting.objectives);
    let held_out: Vec<_> = config.targets.held_out.iter().filter_map(|p| pair_positions(p, &setting.objectives)).collect();
    let questions = &setting.corpus.test_questions;
    // Evaluation prompts depend on the world alone, so that runs with other seeds answer the same questions.
    let plan = Plan::new(&config.evaluation, questions, &setting.objectives, &steered, &held_out, config.world.seed);
    let total = 2 * plan.len();
    progress.emit(EventBody::StageBegan { stage: Stage::Evaluation, from: 0, total });
    let mut gold = ControlSummary { judge: "gold".into(), ..Default::default() };
    let mut model = ControlSummary { judge: "reward_model".into(), ..Default::default() };
    for (turn, (name, policy, tagged)) in [("sft", reference, false), ("policy", policy, true)].into_iter().enumerate() {
        let examined =
            Examined { policy, judge, tokenizer: &setting.tokenizer, questions, objectives: &setting.objectives, tagged };
        let [by_gold, by_model] =
            examine(&examined, &plan, &config.evaluation, config.policy.max_new_tokens, config.seed, |done| {
                progress.emit(EventBody::Evaluating { done: turn * plan.len() + done, total });
                progress.check()
            })?;
        for (summary, report) in [(&mut gold, by_gold), (&mut model, by_model)] {
            progress.emit(EventBody::Control { policy: name.into(), judge: summary.judge.clone(), report: report.clone() });
            if tagged {
                summary.policy = report;
            } else {
                summary.sft = report;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    progress.emit(EventBody::StageEnded { stage: Stage::Evaluation, seconds, cached: false });
    Ok((gold, model, seconds))
}
