//! Checkpoints: one file per stage of a run that holds its step, its models and their optimisers, bit for bit.

use super::Job;
use super::bundle::{pack, unpack};
use anyhow::{Context, Result};
use moslim_shared::event::Stage;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Where the stage was, and what it needs besides the weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header<T> {
    /// Steps done.
    pub step: usize,
    /// Key of what the stage is made from; a checkpoint of another configuration is not used.
    pub key: String,
    /// Seconds spent on the stage so far.
    pub seconds: f64,
    pub state: T,
}

/// A number that survives JSON bit for bit: it is written as its bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct Exact(pub f64);

impl From<u64> for Exact {
    fn from(bits: u64) -> Self {
        Self(f64::from_bits(bits))
    }
}

impl From<Exact> for u64 {
    fn from(exact: Exact) -> Self {
        exact.0.to_bits()
    }
}

/// Model and optimiser of everything that a stage trains, in order.
pub type Parts = Vec<(Vec<u8>, Vec<u8>)>;

/// The file of a stage's checkpoint, in its run's folder.
pub fn file(stage: Stage) -> String {
    format!("checkpoint-{}.bin", stage.id())
}

/// Writes the checkpoint of a stage.
///
/// # Errors
/// When it cannot be written; the one before stays then.
pub fn save<T: Serialize>(job: &Job, stage: Stage, header: &Header<T>, parts: &Parts) -> Result<()> {
    let parts: Vec<&[u8]> = parts.iter().flat_map(|(model, optimizer)| [model.as_slice(), optimizer]).collect();
    job.write(&file(stage), &pack(header, &parts)?)
}

/// The checkpoint of a stage, or `None` when there is none or it belongs to another configuration.
///
/// # Errors
/// When it is damaged; the message names the file.
pub fn load<T: DeserializeOwned>(job: &Job, stage: Stage, key: &str) -> Result<Option<(Header<T>, Parts)>> {
    let Some(bytes) = job.read(&file(stage))? else { return Ok(None) };
    let read = || -> Result<Option<(Header<T>, Parts)>> {
        // Another configuration may keep something else there: whose it is comes first.
        let (header, parts): (Header<serde_json::Value>, _) = unpack(&bytes)?;
        if header.key != key {
            return Ok(None);
        }
        let state = serde_json::from_value(header.state).context("its state")?;
        let header = Header { step: header.step, key: header.key, seconds: header.seconds, state };
        let mut parts = parts.into_iter();
        let pairs = std::iter::from_fn(|| Some((parts.next()?, parts.next()?))).collect();
        Ok(Some((header, pairs)))
    };
    let path = job.describe(&file(stage));
    read().with_context(|| format!("the checkpoint {path} is damaged; remove it to begin the stage again"))
}

/// Removes the checkpoint of a stage, if there is one. What it was for is kept elsewhere by now, so a failure costs a file.
pub fn remove(job: &Job, stage: Stage) {
    let _ = job.files.remove(&job.path(&file(stage)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::files::{Files, Memory};
    use moslim_shared::config::RunConfig;
    use std::sync::Arc;

    #[test]
    fn checkpoints_come_back_bit_for_bit_and_damage_is_named() {
        let files = Arc::new(Memory::default());
        let job = Job::new("a", RunConfig::default(), files.clone());
        let state: Vec<Exact> = (1..200).map(|i| Exact((i as f64).sqrt() / 3.0)).collect();
        let header = Header { step: 7, key: "key".into(), seconds: 1.5, state: state.clone() };
        let parts = vec![(vec![1, 2, 3], vec![4]), (vec![5], vec![])];
        save(&job, Stage::Policy, &header, &parts).unwrap();
        let (back, kept) = load::<Vec<Exact>>(&job, Stage::Policy, "key").unwrap().unwrap();
        assert_eq!((back.step, back.seconds, back.state, kept), (7, 1.5, state, parts));
        assert!(load::<Vec<Exact>>(&job, Stage::Policy, "another").unwrap().is_none());
        let other = load::<std::collections::BTreeMap<String, f64>>(&job, Stage::Policy, "another").unwrap();
        assert!(other.is_none(), "what another configuration keeps is not read");
        assert!(load::<Vec<Exact>>(&job, Stage::PreferenceSft, "key").unwrap().is_none());
        let path = job.path("checkpoint-policy.bin");
        let mut bytes = files.read(&path).unwrap().unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        files.write(&path, &bytes).unwrap();
        let error = format!("{:#}", load::<Vec<Exact>>(&job, Stage::Policy, "key").unwrap_err());
        assert!(error.contains("checkpoint-policy.bin") && error.contains("checksum"), "{error}");
        remove(&job, Stage::Policy);
        assert!(load::<Vec<Exact>>(&job, Stage::Policy, "key").unwrap().is_none());
    }
}
