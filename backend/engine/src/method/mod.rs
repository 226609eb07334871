//! Methods: each reads top to bottom like a recipe, and shares stages, optimisers, reward models and evaluation with the
//! others.
//!
//! Here belongs the order of things: which stage comes when, what a method trains, what is reported. Formulas are in `policy/`,
//! `reward/` and `evaluate/`, or in the crate `moslim-shared`.

mod answers;
mod base;
mod baselines;
mod classes;
mod driver;
mod evaluation;
mod kept;
mod morlhf;
mod moslim;
mod optimisation;
mod pareto_hqd;
mod preference_sft;
mod reward;
mod ric;
mod scored;
mod setting;
mod soups;
mod supervised;
mod watch;

pub use moslim::{Actors, roll_out};

use crate::data::Task;
use crate::keep::{Job, checkpoint, fork};
use crate::model::TrainBackend;
use crate::model::architecture::Architecture;
use crate::model::memory::{free_memory, peak_memory_mib};
use crate::model::packed::fit_pieces;
use crate::model::transformer::Transformer;
use crate::progress::{Progress, Unfit};
use crate::ranks;
use anyhow::Result;
use base::{Base, adapted, same_adapters};
use burn::module::AutodiffModule;
use burn::prelude::*;
use driver::from_cache;
use evaluation::evaluate;
use moslim_shared::event::{DeviceReport, EventBody, ModelReport, Stage};
use moslim_shared::method::Method;
use moslim_shared::summary::{ComputeReport, RewardModelReport, RunSummary, StageSeconds};
use reward::{advice, calibrate, classifying, reward_models};
use setting::{Ready, Setting, Trained};
use supervised::fine_tuning;
use web_time::Instant;

/// Where everything begins: the task with its rows, and a model that can talk.
struct Beginning<B: TrainBackend> {
    setting: Setting,
    /// What the policy starts from: the lab's own model after SFT, or one off the shelf under adapters.
    sft: Transformer<B>,
    /// What reward models grow on, or on the first layers of.
    trunk: Transformer<B>,
    sft_key: String,
    sft_seconds: f64,
    /// The device's name.
    name: String,
}

fn begin<B: TrainBackend>(
    job: &Job,
    task: Task,
    device: &B::Device,
    report: DeviceReport,
    progress: &mut Progress,
) -> Result<Beginning<B>> {
    let config = &job.config;
    let name = report.device.clone();
    let resumed = job.files.list(&format!("runs/{}", job.run))?.iter().any(|f| f.starts_with("checkpoint-"));
    let objectives = task.objectives.clone();
    progress.emit(EventBody::Started { config: config.clone(), device: report, objectives, resumed });
    job.write_config()?;
    if ranks::first() {
        fork::take_over(job)?;
    }
    // The others read it.
    ranks::every(true);
    for (field, precision) in [("model", config.model.precision), ("reward_trunk", config.reward_trunk.precision)] {
        if !B::computes_in(device, precision) {
            let id = precision.id();
            return Err(Unfit(format!("{field}.precision: is {id}, which {name} does not have; allowed is f32")).into());
        }
    }
    let base = Base::open(job)?;
    same_adapters(job)?;
    let mut setting = Setting::prepare(job, task, base.as_ref())?;
    fork::same_task(job, &setting.task.fingerprint)?;
    if setting.left_out != [0; 2] {
        let ([rows, questions], context) = (setting.left_out, config.model.context);
        let text =
            format!("{rows} rows and {questions} questions are longer than the context of {context} tokens, and are left out");
        progress.emit(EventBody::Note { text });
    }
    let models = match &base {
        Some(base) => vec![base.architecture().clone()],
        None => {
            let vocabulary = setting.tokenizer.vocabulary();
            [&config.model, &config.reward_trunk].map(|c| Architecture::own(c, vocabulary, vocabulary)).to_vec()
        }
    };
    // Ranks that train together cut their work alike, by the device that has least.
    if let Some(free) = free_memory(&name).and_then(|free| ranks::all(vec![free], 0).into_iter().min())
        && let Some([tokens, rows]) = fit_pieces::<B>(&models, config.model.context, free)
    {
        let free = free >> 20;
        let text = format!("{free} MiB of the device are free; it computes {tokens} tokens and samples {rows} answers at a time");
        progress.emit(EventBody::Note { text });
    }
    progress.check()?;

    // A model that can talk: the lab's own after SFT; or one off the shelf, as it is, under adapters of policy and reward model.
    let (sft, trunk, sft_key, sft_seconds) = match &base {
        None => {
            let (sft, key, seconds) = fine_tuning::<B>(job, &setting, &name, device, progress)?;
            (sft.clone(), sft, key, seconds)
        }
        Some(base) => {
            let (model, key) = (base.load::<B>(job, device, progress)?, base.key(job)?);
            let seconds = if setting.corpus.train.is_empty() {
                answers::answers::<B>(job, &mut setting, (&model.valid(), &key), &name, progress)?
            } else {
                0.0
            };
            let [policy, trunk] = adapted(job, &model);
            // Reward models never see a tag.
            (policy.with_tags(setting.tokenizer.added()), trunk, key, seconds)
        }
    };
    Ok(Beginning { setting, sft, trunk, sft_key, sft_seconds, name })
}

/// Writes what a run's folder has before anything is trained: configuration, task and tokenizer.
///
/// # Errors
/// When they do not fit together, or cannot be written.
pub fn prepare(job: &Job, task: Task) -> Result<()> {
    job.write_config()?;
    Setting::prepare(job, task, Base::open(job)?.as_ref())?;
    Ok(())
}

/// Trains the reward model of `job` and nothing else, and measures it on test rows.
///
/// # Errors
/// As [`run`].
pub fn reward_alone<B: TrainBackend>(
    job: &Job,
    task: Task,
    device: &B::Device,
    report: DeviceReport,
    progress: &mut Progress,
) -> Result<RewardModelReport> {
    let Beginning { setting, trunk, sft_key, name, .. } = begin::<B>(job, task, device, report, progress)?;
    let (models, _) = reward_models::<B>(job, &setting, Stage::RewardModel, (&trunk, &sft_key), &name, device, progress)?;
    Ok(classifying(job, &setting, &models).1)
}

/// Runs the method of `job` on `device`: shared stages first, then the method's own, then evaluation.
///
/// # Errors
/// When it is stopped, when the configuration does not fit the task or the device, or when a file cannot be read or written.
pub fn run<B: TrainBackend>(
    job: &Job,
    task: Task,
    device: &B::Device,
    report: DeviceReport,
    progress: &mut Progress,
) -> Result<RunSummary> {
    let config = &job.config;
    let Beginning { mut setting, sft, trunk, sft_key, sft_seconds, name } = begin::<B>(job, task, device, report, progress)?;
    // Without a gold grader, the held-out reward model grades.
    let (mut held_out, mut held_out_seconds) = (None, 0.0);
    if setting.gold.is_none() {
        setting.corpus.set_aside();
    }
    if config.evaluation.held_out_reward_model || setting.gold.is_none() {
        let stage = Stage::HeldOutRewardModel;
        let (models, seconds) = reward_models::<B>(job, &setting, stage, (&trunk, &sft_key), &name, device, progress)?;
        (held_out, held_out_seconds) = (Some(classifying(job, &setting, &models)), seconds);
    }
    let (reward_models, reward_seconds) =
        reward_models::<B>(job, &setting, Stage::RewardModel, (&trunk, &sft_key), &name, device, progress)?;
    progress.emit(EventBody::Model {
        model: ModelReport {
            policy_parameters: sft.num_params() as u64,
            reward_parameters: reward_models.iter().map(|m| m.num_params() as u64).sum(),
            vocabulary: setting.tokenizer.vocabulary(),
            rows: [setting.corpus.train.len(), setting.corpus.validation.len(), setting.corpus.test.len()],
        },
    });
    let (reward_model, reward_report, calibration_seconds) = calibrate::<B>(job, &setting, &reward_models, progress)?;
    // The reference is the SFT policy; both start with the same fresh tag embeddings, so KL starts at 0.
    let start = match setting.tokenizer.tag_tokens() {
        Some((tags, like)) => sft.copy_embedding(&tags, like, config.seed),
        None => sft,
    };
    let start = kept::start(job, start)?;
    let (held_out, held_out_report) = held_out.unzip();
    if setting.gold.is_none() {
        let size = |stage| base::reward_layers(config, stage);
        let smaller = held_out_report.as_ref().filter(|_| size(Stage::RewardModel) == size(Stage::HeldOutRewardModel));
        let rows = [setting.corpus.judging.len(), setting.corpus.train.len()];
        advice(&reward_report, smaller, rows).into_iter().for_each(|text| progress.emit(EventBody::Note { text }));
    }
    let ready = Ready { reward_model, held_out, reference: start.valid(), start, origin: sft_key };

    let keys = kept::keys(job, &ready, &name)?;
    let other = fork::evaluated(job)?;
    let trained: Trained<B> = match kept::load(job, &ready, &keys, progress)? {
        Some(trained) => {
            if other.is_some() && trained.policies_trained > 0 {
                from_cache(Stage::Policy, None, config.policy.iterations, Instant::now(), progress, None);
            }
            trained
        }
        None => {
            if let Some(run) = other {
                let why = "it is damaged, or this run came to another reward model or device than that run had";
                return Err(Unfit(format!("fork: what run {run} has trained cannot be evaluated here: {why}")).into());
            }
            let trained = match config.method.kind {
                Method::Moslim => moslim::train(job, &setting, &ready, device, progress)?,
                Method::Morlhf => morlhf::train(job, &setting, &ready, device, progress)?,
                Method::RewardedSoups => soups::train(job, &setting, &ready, device, progress)?,
                Method::Ric | Method::RicClass => ric::train(job, &setting, &ready, device, progress)?,
                Method::ParetoHqd => pareto_hqd::train(job, &setting, &ready, device, progress)?,
                Method::TaggedSft => baselines::tagged_sft(&ready),
                Method::BestOfN => baselines::best_of_n(&ready, config.method.best_of),
            };
            kept::save(job, &ready, &trained, &keys[0])?;
            checkpoint::remove(job, Stage::Policy);
            trained
        }
    };
    let evaluated = evaluate::<B>(config, &setting, &ready, &trained, progress)?;

    let outcome = &trained.outcome;
    let seconds = StageSeconds {
        sft: sft_seconds,
        reward_model: reward_seconds,
        calibration: calibration_seconds,
        policy: outcome.seconds,
        evaluation: evaluated.seconds + held_out_seconds,
        total: sft_seconds + reward_seconds + calibration_seconds + outcome.seconds + evaluated.seconds + held_out_seconds,
    };
    let summary = RunSummary {
        run: job.run.clone(),
        preset: config.preset.clone(),
        seed: config.seed,
        device: name,
        seconds,
        reward_model: reward_report,
        held_out_reward_model: held_out_report,
        control: evaluated.control,
        control_reward_model: evaluated.control_reward_model,
        policy: outcome.summary.clone(),
        reward_hash: ready.reward_model.calibration.hash.clone(),
        method: config.method.kind,
        optimizer: config.policy.optimizer,
        front: evaluated.front,
        compute: ComputeReport {
            policy: outcome.work,
            policy_seconds: outcome.seconds,
            models_trained: trained.policies_trained + reward_models.len(),
            models_kept: trained.policies_kept,
            peak_memory_mib: peak_memory_mib(),
        },
        kl_frontier: outcome.kl_frontier.clone(),
    };
    job.write_json("summary.json", &summary)?;
    progress.emit(EventBody::Summary { summary: summary.clone() });
    Ok(summary)
}
