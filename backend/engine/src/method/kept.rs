//! What a method has trained, kept in the run's folder before it is evaluated: a run that ends in between is evaluated when it
//! goes on, and a finished one can be evaluated again without training.

use super::stages::{Outcome, Ready, Trained, model_file};
use crate::model::TrainBackend;
use crate::model::store::{from_safetensors, to_safetensors, write_atomically};
use crate::progress::Progress;
use crate::run::Job;
use crate::run::cache::{Cache, sha256};
use anyhow::{Context, Result};
use moslim_shared::config::{DeviceChoice, RunConfig};
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

/// Everything that training depends on: the configuration but for names, evaluation and the wish for a device, the reward
/// model, the SFT policy, and the device that was found.
pub fn key<B: TrainBackend>(job: &Job, ready: &Ready<B>, device_name: &str) -> Result<String> {
    let config = RunConfig {
        name: String::new(),
        preset: String::new(),
        device: DeviceChoice::Auto,
        evaluation: Default::default(),
        ..job.config.clone()
    };
    Cache::key("trained", &(config, &ready.judge.calibration.hash, &ready.origin, device_name))
}

/// Writes the policies, how they are asked, and what they took.
pub fn save<B: TrainBackend>(job: &Job, trained: &Trained<B>, key: &str) -> Result<()> {
    let folder = job.folder();
    let mut policies = Vec::new();
    for (n, policy) in trained.policies.iter().enumerate() {
        let weights = to_safetensors::<B::InnerBackend, _>(policy)?;
        write_atomically(&folder.join(model_file("policy", n)), &weights)?;
        policies.push(sha256(&[&weights]));
    }
    write_atomically(&folder.join("route.json"), &serde_json::to_vec_pretty(&trained.route)?)?;
    let kept = Kept {
        key: key.into(),
        policies,
        outcome: trained.outcome.clone(),
        policies_trained: trained.policies_trained,
        policies_kept: trained.policies_kept,
    };
    // Last: where it is, everything else is.
    write_atomically(&folder.join("trained.json"), &serde_json::to_vec_pretty(&kept)?)
}

/// What this run has trained already; `None` when it has not, or from something else, or when a file of it is damaged.
pub fn load<B: TrainBackend>(job: &Job, ready: &Ready<B>, key: &str, progress: &mut Progress) -> Result<Option<Trained<B>>> {
    let folder = job.folder();
    if !folder.join("trained.json").exists() {
        return Ok(None);
    }
    let read = |file: &str| std::fs::read(folder.join(file)).with_context(|| format!("reading {file}"));
    let all = || -> Result<Option<Trained<B>>> {
        let kept: Kept = serde_json::from_slice(&read("trained.json")?).context("reading trained.json")?;
        if kept.key != key {
            return Ok(None);
        }
        let route = serde_json::from_slice(&read("route.json")?).context("reading route.json")?;
        let mut policies = Vec::new();
        for (n, checksum) in kept.policies.iter().enumerate() {
            let file = model_file("policy", n);
            let weights = read(&file)?;
            anyhow::ensure!(sha256(&[&weights]) == *checksum, "{file} does not match its checksum");
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
