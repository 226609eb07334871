//! Finished stages by the hash of what made them. An entry is one file that appears whole or not at all.

use super::bundle::{pack, sha256, unpack};
use super::files::Files;
use crate::progress::Progress;
use crate::ranks;
use anyhow::{Context, Result};
use moslim_shared::event::EventBody;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Raised whenever the same configuration would give another result: a change of generator, tokenizer, model or training.
const FORMAT: u32 = 7;

/// What is kept beside the weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
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

/// The cache of a lab.
#[derive(Clone)]
pub struct Cache {
    files: Arc<dyn Files>,
}

impl Cache {
    /// The cache of the lab that `files` keeps.
    pub fn new(files: Arc<dyn Files>) -> Self {
        Self { files }
    }

    /// The key of a stage: its name and everything that its result depends on.
    ///
    /// # Errors
    /// When the inputs are no JSON.
    pub fn key(stage: &str, inputs: &impl Serialize) -> Result<String> {
        let text = serde_json::to_vec(&(FORMAT, env!("CARGO_PKG_VERSION"), inputs))?;
        Ok(format!("{stage}-{}", &sha256(&[&text])[..24]))
    }

    fn path(key: &str) -> String {
        format!("cache/{key}.stage")
    }

    /// The entry and its weights, or `None` when there is none.
    ///
    /// # Errors
    /// When the entry is damaged; the message names its file.
    pub fn load(&self, key: &str) -> Result<Option<(Entry, Vec<u8>)>> {
        let path = Self::path(key);
        let read = || -> Result<Option<(Entry, Vec<u8>)>> {
            let Some(bytes) = self.files.read(&path)? else { return Ok(None) };
            let (entry, parts) = unpack(&bytes)?;
            Ok(Some((entry, parts.into_iter().next().context("it has no weights")?)))
        };
        let found = read();
        // Another run may have made the stage a moment ago: ranks that train together take it together or not at all.
        let everywhere = ranks::every(matches!(found, Ok(Some(_))));
        let found = found.with_context(|| format!("the cached stage in {} is damaged", self.files.describe(&path)))?;
        Ok(found.filter(|_| everywhere))
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
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, key: &str) -> Result<()> {
        let path = Self::path(key);
        self.files.remove(&path).with_context(|| format!("removing {}", self.files.describe(&path)))
    }

    /// Keeps a stage.
    ///
    /// # Errors
    /// When it cannot be written; nothing half-written is left.
    pub fn save(&self, key: &str, entry: &Entry, weights: &[u8]) -> Result<()> {
        let path = Self::path(key);
        self.files.write(&path, &pack(entry, &[weights])?).with_context(|| format!("writing {}", self.files.describe(&path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::files::Memory;

    #[test]
    fn entries_come_back_and_damage_is_named() {
        let files = Arc::new(Memory::default());
        let cache = Cache::new(files.clone());
        let key = Cache::key("sft", &("a", 1)).unwrap();
        assert_ne!(key, Cache::key("sft", &("a", 2)).unwrap());
        assert!(cache.load(&key).unwrap().is_none());
        let entry = Entry { seconds: 1.5, losses: vec![(1, 2.0, 3.0)], ..Default::default() };
        cache.save(&key, &entry, b"weights").unwrap();
        assert_eq!(cache.load(&key).unwrap().unwrap(), (entry, b"weights".to_vec()));
        let path = Cache::path(&key);
        let mut bytes = files.read(&path).unwrap().unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        files.write(&path, &bytes).unwrap();
        let error = format!("{:#}", cache.load(&key).unwrap_err());
        assert!(error.contains("is damaged") && error.contains(&key) && error.contains("checksum"), "{error}");
        cache.remove(&key).unwrap();
        assert!(cache.load(&key).unwrap().is_none());
    }
}
