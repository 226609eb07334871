//! Checkpoints: one file per run that holds a stage's step, its model and its optimiser, bit for bit.

use super::cache::sha256;
use crate::model::store::write_atomically;
use anyhow::{Context, Result, bail};
use moslim_shared::event::Stage;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the stage was, and what it needs besides the weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header<T> {
    pub stage: Stage,
    /// Steps done.
    pub step: usize,
    /// Key of what the stage is made from; a checkpoint of another configuration is not used.
    pub key: String,
    /// Seconds spent on the stage so far.
    pub seconds: f64,
    pub extra: T,
    model_bytes: usize,
    optimizer_bytes: usize,
    checksum: String,
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

/// A checkpoint as read.
#[derive(Debug)]
pub struct Checkpoint<T> {
    pub header: Header<T>,
    pub model: Vec<u8>,
    pub optimizer: Vec<u8>,
}

fn path(folder: &Path, stage: Stage) -> PathBuf {
    folder.join(format!("checkpoint-{}.bin", stage as u8 + 1))
}

/// Writes the checkpoint of a stage: a line of JSON, then model and optimiser.
#[allow(clippy::too_many_arguments)]
pub fn save<T: Serialize>(
    folder: &Path,
    stage: Stage,
    step: usize,
    key: &str,
    seconds: f64,
    extra: T,
    (model, optimizer): (Vec<u8>, Vec<u8>),
) -> Result<()> {
    let checksum = sha256(&[&model, &optimizer]);
    let (model_bytes, optimizer_bytes) = (model.len(), optimizer.len());
    let header = Header { stage, step, key: key.into(), seconds, extra, model_bytes, optimizer_bytes, checksum };
    let mut bytes = serde_json::to_vec(&header)?;
    bytes.push(b'\n');
    bytes.extend(model);
    bytes.extend(optimizer);
    write_atomically(&path(folder, stage), &bytes)
}

/// The checkpoint of a stage, or `None` when there is none or it belongs to another configuration.
///
/// # Errors
/// When it is damaged; the message names the file.
pub fn load<T: for<'a> Deserialize<'a>>(folder: &Path, stage: Stage, key: &str) -> Result<Option<Checkpoint<T>>> {
    let path = path(folder, stage);
    let bytes = match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("reading {}", path.display()))?,
    };
    let read = || -> Result<Checkpoint<T>> {
        let end = bytes.iter().position(|&b| b == b'\n').context("it has no header")?;
        let header: Header<T> = serde_json::from_slice(&bytes[..end]).context("its header")?;
        let body = &bytes[end + 1..];
        if body.len() != header.model_bytes + header.optimizer_bytes {
            bail!(
                "it is {} bytes long after the header and should be {}",
                body.len(),
                header.model_bytes + header.optimizer_bytes
            );
        }
        let (model, optimizer) = body.split_at(header.model_bytes);
        if sha256(&[model, optimizer]) != header.checksum {
            bail!("it does not match its checksum");
        }
        Ok(Checkpoint { model: model.to_vec(), optimizer: optimizer.to_vec(), header })
    };
    let checkpoint =
        read().with_context(|| format!("the checkpoint {} is damaged; remove it to begin the stage again", path.display()))?;
    Ok((checkpoint.header.key == key).then_some(checkpoint))
}

/// Removes the checkpoint of a stage, if there is one.
pub fn remove(folder: &Path, stage: Stage) {
    let _ = std::fs::remove_file(path(folder, stage));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_come_back_bit_for_bit_and_damage_is_named() {
        let folder = std::env::temp_dir().join(format!("moslim-checkpoint-{}", std::process::id()));
        let numbers: Vec<Exact> = (1..200).map(|i| Exact((i as f64).sqrt() / 3.0)).collect();
        save(&folder, Stage::Policy, 7, "key", 1.5, &numbers, (vec![1, 2, 3], vec![4])).unwrap();
        let back: Checkpoint<Vec<Exact>> = load(&folder, Stage::Policy, "key").unwrap().unwrap();
        assert_eq!((back.header.step, back.header.extra, back.model, back.optimizer), (7, numbers, vec![1, 2, 3], vec![4]));
        assert!(load::<Vec<Exact>>(&folder, Stage::Policy, "another").unwrap().is_none());
        assert!(load::<Vec<Exact>>(&folder, Stage::Sft, "key").unwrap().is_none());
        let file = path(&folder, Stage::Policy);
        let mut bytes = std::fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let error = format!("{:#}", load::<Vec<Exact>>(&folder, Stage::Policy, "key").unwrap_err());
        assert!(error.contains("checkpoint-4.bin is damaged") && error.contains("checksum"), "{error}");
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert!(load::<Vec<Exact>>(&folder, Stage::Policy, "key").is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
