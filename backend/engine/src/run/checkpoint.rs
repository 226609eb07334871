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
    /// Bytes of each part.
    sizes: Vec<usize>,
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
    /// Model and optimiser of everything that is trained, in order.
    pub parts: Vec<(Vec<u8>, Vec<u8>)>,
}

fn path(folder: &Path, stage: Stage) -> PathBuf {
    folder.join(format!("checkpoint-{}.bin", stage as u8 + 1))
}

/// Writes the checkpoint of a stage: a line of JSON, then model and optimiser of everything that it trains.
pub fn save<T: Serialize>(
    folder: &Path,
    stage: Stage,
    step: usize,
    key: &str,
    seconds: f64,
    extra: T,
    parts: &[(Vec<u8>, Vec<u8>)],
) -> Result<()> {
    let parts: Vec<&[u8]> = parts.iter().flat_map(|(model, optimizer)| [model.as_slice(), optimizer]).collect();
    let sizes = parts.iter().map(|p| p.len()).collect();
    let header = Header { stage, step, key: key.into(), seconds, extra, sizes, checksum: sha256(&parts) };
    let mut bytes = serde_json::to_vec(&header)?;
    bytes.push(b'\n');
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
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
    let read = || -> Result<Option<Checkpoint<T>>> {
        let end = bytes.iter().position(|&b| b == b'\n').context("it has no header")?;
        // Another configuration may keep something else there: whose it is comes first.
        let header: Header<serde_json::Value> = serde_json::from_slice(&bytes[..end]).context("its header")?;
        if header.key != key {
            return Ok(None);
        }
        let header: Header<T> = serde_json::from_slice(&bytes[..end]).context("its header")?;
        let body = &bytes[end + 1..];
        let size: usize = header.sizes.iter().sum();
        if body.len() != size {
            bail!("it is {} bytes long after the header and should be {size}", body.len());
        }
        let mut rest = body;
        let mut parts = Vec::new();
        for &size in &header.sizes {
            let (part, tail) = rest.split_at(size);
            parts.push(part);
            rest = tail;
        }
        if sha256(&parts) != header.checksum {
            bail!("it does not match its checksum");
        }
        let parts = parts.chunks_exact(2).map(|pair| (pair[0].to_vec(), pair[1].to_vec())).collect();
        Ok(Some(Checkpoint { parts, header }))
    };
    read().with_context(|| format!("the checkpoint {} is damaged; remove it to begin the stage again", path.display()))
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
        save(&folder, Stage::Policy, 7, "key", 1.5, &numbers, &[(vec![1, 2, 3], vec![4]), (vec![5], vec![])]).unwrap();
        let back: Checkpoint<Vec<Exact>> = load(&folder, Stage::Policy, "key").unwrap().unwrap();
        assert_eq!((back.header.step, back.header.extra), (7, numbers));
        assert_eq!(back.parts, [(vec![1, 2, 3], vec![4]), (vec![5], vec![])]);
        assert!(load::<Vec<Exact>>(&folder, Stage::Policy, "another").unwrap().is_none());
        let other = load::<std::collections::BTreeMap<String, f64>>(&folder, Stage::Policy, "another").unwrap();
        assert!(other.is_none(), "what another configuration keeps is not read");
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
