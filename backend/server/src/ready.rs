//! What is made once for all who follow a run from the same place: of a journal that two hundred watch, each line is read once, and so
//! is what is known of the run as a whole.

use crate::follow::Extent;
use crate::id::RunId;
use anyhow::Result;
use axum::extract::ws::Utf8Bytes;
use moslim_shared::event::RunInfo;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// Batches that are kept, and the most bytes of one: together a few megabytes.
const KEPT: usize = 64;
const MOST_BYTES: usize = 64 << 10;

/// What a client wants of a journal.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Kinds of events; all where there are none.
    pub kinds: Vec<String>,
    /// Whether steps of the policy are sent without what every class gets.
    pub brief: bool,
}

/// Which events, and how they are sent.
#[derive(Clone, PartialEq)]
pub struct Key {
    pub run: RunId,
    /// How far the journal was when it was asked.
    pub extent: Extent,
    /// Number of the last event that was sent before.
    pub after: u64,
    pub wanted: Wanted,
    pub channel: Option<u32>,
}

/// Events of a journal as frames.
pub struct Batch {
    /// Number of the last event; none where there is none.
    pub last: Option<u64>,
    /// Events that were read, those that nobody wants included.
    pub count: usize,
    pub frames: Vec<Utf8Bytes>,
}

/// A run as a whole, its summary included, which may be half a megabyte.
pub struct Told {
    pub last_seq: u64,
    /// [`RunInfo`] as JSON.
    pub info: String,
    /// Differs where what a client shows of the run does.
    pub print: u64,
}

impl Told {
    fn of(info: &RunInfo) -> Result<Self> {
        let mut print = DefaultHasher::new();
        serde_json::to_string(&(info.status, &info.message, &info.summary, &info.about))?.hash(&mut print);
        Ok(Self { last_seq: info.last_seq, info: serde_json::to_string(info)?, print: print.finish() })
    }
}

/// Runs that are kept.
const KEPT_RUNS: usize = 8;

/// Which run, and since when nothing of it has changed.
pub type Version = (RunId, (Extent, u32));

/// What was made last.
#[derive(Default)]
pub struct Ready {
    batches: Mutex<VecDeque<(Key, Arc<Batch>)>>,
    runs: Mutex<VecDeque<(Version, Arc<Told>)>>,
    telling: Mutex<()>,
}

fn find<K: PartialEq, V: Clone>(kept: &Mutex<VecDeque<(K, V)>>, key: &K) -> Option<V> {
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.clone())
}

fn keep<K, V>(kept: &Mutex<VecDeque<(K, V)>>, most: usize, key: K, value: V) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() == most {
        kept.pop_front();
    }
    kept.push_back((key, value));
}

impl Ready {
    /// What was made for somebody else already.
    pub fn find(&self, key: &Key) -> Option<Arc<Batch>> {
        find(&self.batches, key)
    }

    /// Makes it unless somebody else has.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn find_or_make(&self, key: Key, make: impl FnOnce() -> Result<Batch>) -> Result<Arc<Batch>> {
        if let Some(batch) = self.find(&key) {
            return Ok(batch);
        }
        let batch = Arc::new(make()?);
        if batch.frames.iter().map(|frame| frame.len()).sum::<usize>() <= MOST_BYTES {
            keep(&self.batches, KEPT, key, batch.clone());
        }
        Ok(batch)
    }

    /// What was made of a run for somebody else already.
    pub fn find_run(&self, version: &Version) -> Option<Arc<Told>> {
        find(&self.runs, version)
    }

    /// Makes it unless somebody else has; one at a time, since each holds a whole summary meanwhile.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn find_or_tell(&self, version: Version, read: impl FnOnce() -> Option<RunInfo>) -> Result<Option<Arc<Told>>> {
        let _one = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = self.find_run(&version) {
            return Ok(Some(told));
        }
        let Some(info) = read() else { return Ok(None) };
        let told = Arc::new(Told::of(&info)?);
        keep(&self.runs, KEPT_RUNS, version, told.clone());
        Ok(Some(told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(after: u64) -> Key {
        let extent = Extent { journal: 1, last_seq: 9 };
        Key { run: "r".parse().unwrap(), extent, after, wanted: Wanted::default(), channel: None }
    }

    fn batch(text: &str) -> Result<Batch> {
        Ok(Batch { last: Some(9), count: 1, frames: vec![text.to_string().into()] })
    }

    #[test]
    fn a_batch_is_made_once_for_the_same_place_and_the_same_wish() {
        let ready = Ready::default();
        let made = |key: Key| ready.find_or_make(key, || batch("new")).unwrap().frames[0].to_string();
        ready.find_or_make(key(3), || batch("old")).unwrap();
        assert_eq!(made(key(3)), "old");
        assert_eq!(made(key(4)), "new");
        // Another journal with as many lines, one that has grown, another wish, another channel.
        assert_eq!(made(Key { extent: Extent { journal: 2, last_seq: 9 }, ..key(3) }), "new");
        assert_eq!(made(Key { extent: Extent { journal: 1, last_seq: 10 }, ..key(3) }), "new");
        assert_eq!(made(Key { wanted: Wanted { brief: true, ..Wanted::default() }, ..key(3) }), "new");
        assert_eq!(made(Key { channel: Some(3), ..key(3) }), "new");
    }

    #[test]
    fn a_run_is_told_once_until_it_changes_and_what_differs_shows() {
        let ready = Ready::default();
        let version = |changes| ("r".parse().unwrap(), (Extent { journal: 1, last_seq: 9 }, changes));
        let info = |message: &str| {
            let info = RunInfo::new("r", &moslim_shared::config::RunConfig::default(), 0);
            Some(RunInfo { message: message.into(), last_seq: 9, ..info })
        };
        let told = |changes, message: &str| ready.find_or_tell(version(changes), || info(message)).unwrap().unwrap();
        let first = told(1, "one");
        assert_eq!((told(1, "two").print, first.last_seq), (first.print, 9), "it is not read again");
        assert_ne!(told(2, "two").print, first.print);
        assert_eq!(told(3, "one").print, first.print);
        assert!(ready.find_or_tell(version(4), || None).unwrap().is_none());
    }

    #[test]
    fn what_is_large_or_long_ago_is_not_kept() {
        let ready = Ready::default();
        ready.find_or_make(key(0), || batch(&"x".repeat(MOST_BYTES + 1))).unwrap();
        assert!(ready.find(&key(0)).is_none());
        for after in 1..=KEPT as u64 + 1 {
            ready.find_or_make(key(after), || batch("x")).unwrap();
        }
        assert!(ready.find(&key(1)).is_none() && ready.find(&key(2)).is_some());
    }
}
