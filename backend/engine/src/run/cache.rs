//! Finished stages by the hash of what made them. An entry is one folder that appears whole or not at all.

use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use moslim_shared::event::EventBody;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Raised whenever the same configuration would give another result: a change of generator, tokenizer, model or training.
const FORMAT: u32 = 4;

/// What is kept beside the weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// SHA-256 of the weights file.
    pub weights: String,
    /// Seconds that the stage took when it was made.
    pub seconds: f64,
    /// (step, loss, rate) as reported while it was made.
    pub losses: Vec<(usize, f64, f64)>,
    /// (step, QWK per head) as reported while it was made.
    pub validation: Vec<(usize, Vec<f64>)>,
    /// What else the stage wants to know of it.
    #[serde(default)]
    pub extra: Option<serde_json::Value>,
}

/// Lower-case hexadecimal SHA-256.
pub fn sha256(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // Lengths keep ("ab", "c") apart from ("a", "bc").
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// The cache under a lab's root.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache of the lab at `lab`.
    pub fn new(lab: &Path) -> Self {
        Self { root: lab.join("cache") }
    }

    /// The key of a stage: its name and everything that its result depends on.
    pub fn key(stage: &str, inputs: &impl Serialize) -> Result<String> {
        let text = serde_json::to_vec(&(FORMAT, env!("CARGO_PKG_VERSION"), inputs))?;
        Ok(format!("{stage}-{}", &sha256(&[&text])[..24]))
    }

    fn folder(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// The entry and its weights, or `None` when there is none.
    ///
    /// # Errors
    /// When the entry is damaged; the message names its folder.
    pub fn load(&self, key: &str) -> Result<Option<(Entry, Vec<u8>)>> {
        let folder = self.folder(key);
        if !folder.exists() {
            return Ok(None);
        }
        let read = || -> Result<(Entry, Vec<u8>)> {
            let entry: Entry =
                serde_json::from_slice(&std::fs::read(folder.join("entry.json")).context("entry.json")?).context("entry.json")?;
            let weights = std::fs::read(folder.join("weights.safetensors")).context("weights.safetensors")?;
            if sha256(&[&weights]) != entry.weights {
                bail!("weights.safetensors does not match its checksum");
            }
            Ok((entry, weights))
        };
        read().map(Some).with_context(|| format!("the cached stage in {} is damaged", folder.display()))
    }

    /// The entry and its weights, or `None` when there is none, or when it is damaged: then it is removed, and said so.
    ///
    /// # Errors
    /// When a damaged entry cannot be removed.
    pub fn load_sound(&self, key: &str, progress: &mut Progress) -> Result<Option<(Entry, Vec<u8>)>> {
        self.load(key).or_else(|error| {
            progress.emit(EventBody::Note { text: format!("{error:#}; it is removed and made again") });
            self.remove(key)?;
            Ok(None)
        })
    }

    /// Removes an entry.
    pub fn remove(&self, key: &str) -> Result<()> {
        let folder = self.folder(key);
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
    }

    /// Keeps a stage. An entry that is already there stays.
    pub fn save(&self, key: &str, mut entry: Entry, weights: &[u8]) -> Result<()> {
        entry.weights = sha256(&[weights]);
        let folder = self.folder(key);
        let temporary = self.root.join(format!(".{key}.{}.tmp", std::process::id()));
        let written = (|| -> Result<()> {
            std::fs::create_dir_all(&temporary)?;
            crate::model::store::write_atomically(&temporary.join("weights.safetensors"), weights)?;
            crate::model::store::write_atomically(&temporary.join("entry.json"), &serde_json::to_vec_pretty(&entry)?)?;
            if !folder.exists() {
                std::fs::rename(&temporary, &folder)?;
            }
            Ok(())
        })();
        let _ = std::fs::remove_dir_all(&temporary);
        written.with_context(|| format!("keeping a stage in {}", folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_damage_is_named() {
        let lab = std::env::temp_dir().join(format!("moslim-cache-{}", std::process::id()));
        let cache = Cache::new(&lab);
        let key = Cache::key("sft", &("a", 1)).unwrap();
        assert_ne!(key, Cache::key("sft", &("a", 2)).unwrap());
        assert!(cache.load(&key).unwrap().is_none());
        let entry = Entry { seconds: 1.5, losses: vec![(1, 2.0, 3.0)], ..Default::default() };
        cache.save(&key, entry.clone(), b"weights").unwrap();
        let (loaded, weights) = cache.load(&key).unwrap().unwrap();
        assert_eq!((loaded.seconds, loaded.losses, weights.as_slice()), (entry.seconds, entry.losses, b"weights".as_slice()));
        std::fs::write(cache.folder(&key).join("weights.safetensors"), b"weightz").unwrap();
        let error = format!("{:#}", cache.load(&key).unwrap_err());
        assert!(error.contains("is damaged") && error.contains(&key) && error.contains("checksum"), "{error}");
        cache.remove(&key).unwrap();
        assert!(cache.load(&key).unwrap().is_none());
        std::fs::remove_dir_all(&lab).unwrap();
    }
}
