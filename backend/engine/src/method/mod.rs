//! Methods: each reads top to bottom like a recipe, and shares stages, optimisers, reward models and evaluation with the
//! others.

pub mod baselines;
mod kept;
pub mod morlhf;
pub mod moslim;
pub mod ric;
pub mod soups;
pub mod stages;
mod supervised;

use crate::data::world;
use crate::model::TrainBackend;
use crate::model::packed::fit_pieces;
use crate::model::store::write_atomically;
use crate::progress::{Progress, Unfit};
use crate::run::{Job, checkpoint, free_memory, peak_memory_mib};
use anyhow::Result;
use burn::module::AutodiffModule;
use burn::prelude::*;
use moslim_shared::event::{DeviceReport, EventBody, ModelReport, Stage};
use moslim_shared::method::Method;
use moslim_shared::summary::{ComputeReport, RunSummary, StageSeconds};
use stages::{Ready, Setting, Trained, calibrate, evaluate, held_out_judge, reward_models, supervised_fine_tuning};

/// What the seed of the held-out reward model differs by.
const HELD_OUT_SEED: u64 = 0x4E1D;

/// Runs the method of `job` on `device`: shared stages first, then the method's own, then evaluation.
pub fn run<B: TrainBackend>(job: &Job, device: &B::Device, report: DeviceReport, progress: &mut Progress) -> Result<RunSummary> {
    let config = &job.config;
    let name = report.device.clone();
    let resumed = job.folder().join("config.json").exists()
        && std::fs::read_dir(job.folder())?.flatten().any(|f| f.file_name().to_string_lossy().starts_with("checkpoint-"));
    let objectives = world::objectives();
    progress.emit(EventBody::Started { config: config.clone(), device: report, objectives, resumed });
    write_atomically(&job.folder().join("config.json"), &serde_json::to_vec_pretty(config)?)?;
    for (field, precision) in [("model", config.model.precision), ("reward_trunk", config.reward_trunk.precision)] {
        if !B::computes_in(device, precision) {
            let id = precision.id();
            return Err(Unfit(format!("{field}.precision: is {id}, which {name} does not have; allowed is f32")).into());
        }
    }
    let setting = Setting::prepare(job)?;
    if let Some(free) = free_memory(&name)
        && let Some(tokens) = fit_pieces::<B>(&[&config.model, &config.reward_trunk], setting.tokenizer.vocabulary(), free)
    {
        let text = format!("{} MiB of the device are free; it computes {tokens} tokens at a time", free >> 20);
        progress.emit(EventBody::Note { text });
    }
    progress.check()?;

    let (sft, sft_key, sft_seconds) = supervised_fine_tuning::<B>(job, &setting, &name, device, progress)?;
    let (mut held_out, mut held_out_seconds) = (None, 0.0);
    if config.evaluation.held_out_reward_model {
        progress.emit(EventBody::Note { text: "a held-out reward model is trained first; it has no curves".into() });
        // Curves and rows of the page are those of the reward model that counts.
        let Progress { sink, stop } = progress;
        let mut quiet = |body: EventBody| match body {
            EventBody::Loss { .. } | EventBody::Validation { .. } => {}
            other => sink(other),
        };
        let mut silent = Progress { sink: &mut quiet, stop };
        let seed = config.seed ^ HELD_OUT_SEED;
        let (models, seconds) = reward_models::<B>(job, &setting, (&sft, &sft_key), &name, seed, device, &mut silent)?;
        held_out = Some(held_out_judge(job, &setting, &models));
        held_out_seconds = seconds;
    }
    let (reward_models, reward_seconds) =
        reward_models::<B>(job, &setting, (&sft, &sft_key), &name, config.seed, device, progress)?;
    progress.emit(EventBody::Model {
        model: ModelReport {
            policy_parameters: sft.num_params() as u64,
            reward_parameters: reward_models.iter().map(|m| m.num_params() as u64).sum(),
            vocabulary: setting.tokenizer.vocabulary(),
            rows: [setting.corpus.train.len(), setting.corpus.validation.len(), setting.corpus.test.len()],
        },
    });
    let (judge, reward_report, calibration_seconds) = calibrate::<B>(job, &setting, &reward_models, progress)?;
    // The reference is the SFT policy; both start with the same fresh tag embeddings, so KL starts at 0.
    let tags: Vec<u32> = setting.tokenizer.tag_tokens().collect();
    let start = sft.copy_embedding(&tags, setting.tokenizer.user, config.seed);
    let ready = Ready { judge, held_out, reference: start.valid(), start, origin: sft_key };

    let key = kept::key(job, &ready, &name)?;
    let trained: Trained<B> = match kept::load(job, &ready, &key, progress)? {
        Some(trained) => trained,
        None => {
            let trained = match config.method.kind {
                Method::Moslim => moslim::train(job, &setting, &ready, device, progress)?,
                Method::Morlhf => morlhf::train(job, &setting, &ready, device, progress)?,
                Method::RewardedSoups => soups::train(job, &setting, &ready, device, progress)?,
                Method::Ric | Method::RicClass => ric::train(job, &setting, &ready, device, progress)?,
                Method::TaggedSft => baselines::tagged_sft(&ready),
                Method::BestOfN => baselines::best_of_n(&ready, config.method.best_of),
            };
            kept::save(job, &trained, &key)?;
            trained
        }
    };
    let evaluated = evaluate::<B>(config, &setting, &ready, &trained, progress)?;

    let outcome = &trained.outcome;
    let mut work = outcome.work;
    work += evaluated.work;
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
        control: evaluated.control,
        control_reward_model: evaluated.control_reward_model,
        policy: outcome.summary.clone(),
        reward_hash: ready.judge.calibration.hash.clone(),
        method: config.method.kind,
        optimizer: config.policy.optimizer,
        front: evaluated.front,
        compute: ComputeReport {
            policy: work,
            policy_seconds: outcome.seconds,
            models_trained: trained.policies_trained + reward_models.len(),
            models_kept: trained.policies_kept,
            peak_memory_mib: peak_memory_mib(),
        },
        kl_frontier: outcome.kl_frontier.clone(),
    };
    write_atomically(&job.folder().join("summary.json"), &serde_json::to_vec_pretty(&summary)?)?;
    checkpoint::remove(&job.folder(), Stage::Policy);
    progress.emit(EventBody::Summary { summary: summary.clone() });
    Ok(summary)
}
