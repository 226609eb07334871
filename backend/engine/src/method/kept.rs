//! What a method has trained, kept in the run's folder before it is evaluated: a run that ends in between is evaluated when it
//! goes on, and a finished one can be evaluated again without training.

use super::setting::{Outcome, Ready, Trained};
use crate::keep::bundle::sha256;
use crate::keep::cache::Cache;
use crate::keep::{Job, ROUTE, START, TRAINED, fork, model_file};
use crate::model::TrainBackend;
use crate::model::store::{from_safetensors, to_safetensors};
use crate::model::transformer::Transformer;
use crate::progress::Progress;
use anyhow::{Context, Result, ensure};
use moslim_shared::config::{BaseConfig, DeviceChoice, RunConfig};
use moslim_shared::event::EventBody;
use serde::{Deserialize, Serialize};

/// The file beside the policies.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// What the policies were made from.
    key: String,
    /// SHA-256 of every policy's file.
    policies: Vec<String>,
    outcome: Outcome,
    policies_trained: usize,
    policies_kept: usize,
}

/// Everything that training depends on: the configuration but for names, evaluation, the wish for a device, what memory is saved by, and the
/// run that it goes on from, as a fork evaluates what that one has trained; the reward model, the SFT policy, and the device that was found.
///
/// The first is today's; those of forks from before they could be evaluated follow, in which the run that they go on from counted.
pub fn keys<B: TrainBackend>(job: &Job, ready: &Ready<B>, device_name: &str) -> Result<Vec<String>> {
    let older = fork::forked(job)?.and_then(|source| source.fork);
    let forks = [None, job.config.fork.clone(), older];
    forks.into_iter().map(|fork| key(job, ready, device_name, fork)).collect()
}

fn key<B: TrainBackend>(job: &Job, ready: &Ready<B>, device_name: &str, fork: Option<String>) -> Result<String> {
    let config = RunConfig {
        name: String::new(),
        preset: String::new(),
        fork,
        device: DeviceChoice::Auto,
        evaluation: Default::default(),
        base: BaseConfig { checkpointing: false, ..job.config.base.clone() },
        ..job.config.clone()
    };
    Cache::key("trained", &(config, &ready.reward_model.calibration.hash, &ready.origin, device_name))
}

/// Writes the policy that optimisation started from, the policies that it came to, how they are asked, and what they took.
pub fn save<B: TrainBackend>(job: &Job, ready: &Ready<B>, trained: &Trained<B>, key: &str) -> Result<()> {
    job.write(&model_file(START, 0), &to_safetensors::<B::InnerBackend, _>(&ready.reference)?)?;
    let mut policies = Vec::new();
    for (n, policy) in trained.policies.iter().enumerate() {
        let weights = to_safetensors::<B::InnerBackend, _>(policy)?;
        job.write(&model_file("policy", n), &weights)?;
        policies.push(sha256(&[&weights]));
    }
    job.write_json(ROUTE, &trained.route)?;
    let kept = Kept {
        key: key.into(),
        policies,
        outcome: trained.outcome.clone(),
        policies_trained: trained.policies_trained,
        policies_kept: trained.policies_kept,
    };
    // Last: where it is, everything else is.
    job.write_json(TRAINED, &kept)?;
    fork::let_go(job);
    Ok(())
}

/// `start`, or, for a run that evaluates what another has trained, where that one started, which it has taken over.
pub fn start<B: TrainBackend>(job: &Job, start: Transformer<B>) -> Result<Transformer<B>> {
    if fork::evaluated(job)?.is_none() {
        return Ok(start);
    }
    let file = model_file(START, 0);
    match job.read(&file)? {
        Some(weights) => from_safetensors(start, weights).with_context(|| format!("reading {file}")),
        None => Ok(start),
    }
}

/// What this run has trained already; `None` when it has not, or from something else, or when a file of it is damaged.
pub fn load<B: TrainBackend>(
    job: &Job,
    ready: &Ready<B>,
    keys: &[String],
    progress: &mut Progress,
) -> Result<Option<Trained<B>>> {
    let read = |file: &str| job.read(file)?.with_context(|| format!("{file} is missing"));
    let all = || -> Result<Option<Trained<B>>> {
        let Some(kept) = job.read(TRAINED)? else { return Ok(None) };
        let kept: Kept = serde_json::from_slice(&kept).context("reading trained.json")?;
        if !keys.contains(&kept.key) {
            return Ok(None);
        }
        let route = serde_json::from_slice(&read(ROUTE)?).context("reading route.json")?;
        let mut policies = Vec::new();
        for (n, checksum) in kept.policies.iter().enumerate() {
            let file = model_file("policy", n);
            let weights = read(&file)?;
            ensure!(sha256(&[&weights]) == *checksum, "{file} does not match its checksum");
            policies.push(from_safetensors(ready.reference.clone(), weights).with_context(|| format!("reading {file}"))?);
        }
        let Kept { outcome, policies_trained, policies_kept, .. } = kept;
        Ok(Some(Trained { policies, route, outcome, policies_trained, policies_kept }))
    };
    match all() {
        Ok(Some(trained)) => {
            // No stage begins: what a page knows of the training stays.
            progress.emit(EventBody::Note { text: "what this run has trained is there already, and is evaluated".into() });
            Ok(Some(trained))
        }
        Ok(None) => Ok(None),
        Err(error) => {
            progress.emit(EventBody::Note { text: format!("what this run has trained is damaged ({error:#}) and made again") });
            Ok(None)
        }
    }
}
