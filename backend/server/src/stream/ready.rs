//! Frames that are made once for all who follow a run from the same place: a journal that two hundred watch is read once.

use super::frames::Wanted;
use crate::follow::Place;
use crate::id::RunId;
use anyhow::Result;
use axum::extract::ws::Utf8Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Batches that are kept, and the most bytes of one: together a few megabytes.
const KEPT: usize = 64;
const MOST_BYTES: usize = 64 << 10;

/// Which events, and how they are sent.
#[derive(Clone, PartialEq)]
pub struct Key {
    pub run: RunId,
    /// How far the journal was when it was asked.
    pub place: Place,
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

/// What was made last.
#[derive(Default)]
pub struct Ready(Mutex<VecDeque<(Key, Arc<Batch>)>>);

impl Ready {
    /// What was made for somebody else already.
    pub fn find(&self, key: &Key) -> Option<Arc<Batch>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().find(|(known, _)| known == key).map(|(_, batch)| batch.clone())
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
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back((key, batch.clone()));
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(after: u64) -> Key {
        let place = Place { journal: 1, last_seq: 9 };
        Key { run: "r".parse().unwrap(), place, after, wanted: Wanted::default(), channel: None }
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
        assert_eq!(made(Key { place: Place { journal: 2, last_seq: 9 }, ..key(3) }), "new");
        assert_eq!(made(Key { place: Place { journal: 1, last_seq: 10 }, ..key(3) }), "new");
        assert_eq!(made(Key { wanted: Wanted { brief: true, ..Wanted::default() }, ..key(3) }), "new");
        assert_eq!(made(Key { channel: Some(3), ..key(3) }), "new");
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
