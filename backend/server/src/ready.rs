//! What is made once for all who follow a run from the same place: of a journal that two hundred watch, each line is read once, and so
//! is what is known of the run as a whole.

use crate::follow::Extent;
use crate::id::RunId;
use anyhow::Result;
use axum::extract::ws::Utf8Bytes;
use moslim_shared::event::RunInfo;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

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
    /// Which steps of the policy are sent, where not all.
    pub thinned: Option<Thinned>,
}

/// Of the steps of a policy up to an event, every so many.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Thinned {
    /// Number of the last event that this is about. It is sent in any case.
    pub until: u64,
    pub every: usize,
}

impl Thinned {
    /// So that at most about `most` of `steps` are sent: every second, fourth or eighth, so that runs which are compared have steps in common.
    pub fn to(most: usize, steps: usize, until: u64) -> Option<Self> {
        let every = steps.div_ceil(most.max(1)).next_power_of_two();
        (most > 0 && every > 1).then_some(Self { until, every })
    }

    /// Whether a step that event `seq` tells of is left out. The first is not, nor is the last of `total`.
    pub fn leaves_out(self, seq: u64, step: usize, total: usize) -> bool {
        seq < self.until && step > 1 && step < total && !step.is_multiple_of(self.every)
    }
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
    /// Steps of the policy that it may have said by now: those that it was asked for, or fewer events.
    pub steps: usize,
    /// [`RunInfo`] as JSON.
    pub info: String,
    /// Differs where what a client shows of the run does.
    pub print: u64,
}

impl Told {
    fn of(info: &RunInfo) -> Result<Self> {
        let mut print = DefaultHasher::new();
        serde_json::to_string(&(info.status, &info.message, &info.summary, &info.about))?.hash(&mut print);
        let steps = info.config.policy.iterations.min(usize::try_from(info.last_seq).unwrap_or(usize::MAX));
        Ok(Self { last_seq: info.last_seq, steps, info: serde_json::to_string(info)?, print: print.finish() })
    }
}

/// Runs that are kept.
const KEPT_RUNS: usize = 8;

/// Which run, and since when nothing of it has changed.
pub type Version = (RunId, (Extent, u32));

/// A place for a value, which may be empty yet, under its key.
type Cells<K, V> = VecDeque<(K, Arc<OnceCell<Arc<V>>>)>;

/// The last values that were made. Who asks for one that somebody else is making waits for it.
struct Kept<K, V> {
    most: usize,
    cells: Mutex<Cells<K, V>>,
}

impl<K: Clone + PartialEq, V> Kept<K, V> {
    fn new(most: usize) -> Self {
        Self { most, cells: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Cells<K, V>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value's place, which may be empty.
    fn cell(&self, key: &K) -> Arc<OnceCell<Arc<V>>> {
        let mut cells = self.lock();
        if let Some((_, cell)) = cells.iter().rev().find(|(known, _)| known == key) {
            return cell.clone();
        }
        if cells.len() == self.most {
            cells.pop_front();
        }
        let cell = Arc::default();
        cells.push_back((key.clone(), Arc::clone(&cell)));
        cell
    }

    fn forget(&self, key: &K) {
        self.lock().retain(|(known, _)| known != key);
    }
}

/// What was made last.
pub struct Ready {
    batches: Kept<Key, Batch>,
    runs: Kept<Version, Told>,
    telling: tokio::sync::Mutex<()>,
}

impl Default for Ready {
    fn default() -> Self {
        Self { batches: Kept::new(KEPT), runs: Kept::new(KEPT_RUNS), telling: tokio::sync::Mutex::default() }
    }
}

impl Ready {
    /// Events of a journal, read by `make`, which blocks, unless somebody else has.
    ///
    /// # Errors
    /// Those of `make`.
    pub async fn batch(&self, key: Key, make: impl FnOnce(&Key) -> Result<Batch> + Send + 'static) -> Result<Arc<Batch>> {
        let (cell, own) = (self.batches.cell(&key), key.clone());
        let made = async || anyhow::Ok(Arc::new(spawn_blocking(move || make(&own)).await??));
        let batch = cell.get_or_try_init(made).await?;
        if batch.frames.iter().map(|frame| frame.len()).sum::<usize>() > MOST_BYTES {
            self.batches.forget(&key);
        }
        Ok(batch.clone())
    }

    /// A run as a whole, if there is one, read by `read`, which blocks, unless somebody else has. One is read at a time, since each holds a
    /// whole summary meanwhile.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn run(
        &self,
        version: Version,
        read: impl FnOnce() -> Option<RunInfo> + Send + 'static,
    ) -> Result<Option<Arc<Told>>> {
        let tell = async || {
            let _one = self.telling.lock().await;
            let tell = move || read().map(|info| Told::of(&info).map(Arc::new)).transpose();
            spawn_blocking(tell).await.map_err(anyhow::Error::from).flatten().map_err(Some)?.ok_or(None)
        };
        match self.runs.cell(&version).get_or_try_init(tell).await {
            Ok(told) => Ok(Some(told.clone())),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn key(after: u64) -> Key {
        let extent = Extent { journal: 1, last_seq: 9 };
        Key { run: "r".parse().unwrap(), extent, after, wanted: Wanted::default(), channel: None }
    }

    fn batch(text: &str) -> Result<Batch> {
        Ok(Batch { last: Some(9), count: 1, frames: vec![text.to_string().into()] })
    }

    async fn made(ready: &Ready, key: Key, text: &str) -> String {
        let text = text.to_string();
        ready.batch(key, move |_| batch(&text)).await.unwrap().frames[0].to_string()
    }

    #[tokio::test]
    async fn a_batch_is_made_once_for_the_same_place_and_the_same_wish() {
        let ready = Ready::default();
        made(&ready, key(3), "old").await;
        assert_eq!(made(&ready, key(3), "new").await, "old");
        // Another journal with as many lines, one that has grown, another wish, another channel.
        for key in [
            key(4),
            Key { extent: Extent { journal: 2, last_seq: 9 }, ..key(3) },
            Key { extent: Extent { journal: 1, last_seq: 10 }, ..key(3) },
            Key { wanted: Wanted { brief: true, ..Wanted::default() }, ..key(3) },
            Key { wanted: Wanted { thinned: Thinned::to(1, 2, 9), ..Wanted::default() }, ..key(3) },
            Key { channel: Some(3), ..key(3) },
        ] {
            assert_eq!(made(&ready, key, "new").await, "new");
        }
    }

    #[test]
    fn of_many_steps_every_so_many_are_sent() {
        let every = |most, steps| Thinned::to(most, steps, 9).map(|thinned| thinned.every);
        assert_eq!([every(0, 1_000), every(10, 0), every(10, 10)], [None; 3]);
        assert_eq!([every(10, 11), every(10, 20), every(10, 21), every(1, 1_000)], [Some(2), Some(2), Some(4), Some(1_024)]);
        let thinned = Thinned { until: 9, every: 4 };
        let sent = [(1, 1), (2, 3), (3, 4), (8, 9), (9, 10), (10, 11)].map(|(seq, step)| !thinned.leaves_out(seq, step, 20));
        assert_eq!(sent, [true, false, true, false, true, true], "the first, every fourth, the last, and all that comes later");
        assert!(!thinned.leaves_out(7, 10, 10), "the last of all");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_comes_while_it_is_made_waits_for_it_and_what_fails_is_tried_again() {
        let (ready, times) = (Arc::new(Ready::default()), Arc::new(AtomicUsize::new(0)));
        let ask = |fails: bool| {
            let (ready, times) = (ready.clone(), times.clone());
            let make = move |_: &Key| {
                times.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(50));
                if fails { Err(anyhow::anyhow!("no disk")) } else { batch("x") }
            };
            tokio::spawn(async move { ready.batch(key(1), make).await.is_ok() })
        };
        assert!(!ask(true).await.unwrap());
        let all: Vec<_> = (0..20).map(|_| ask(false)).collect();
        for one in all {
            assert!(one.await.unwrap());
        }
        assert_eq!(times.load(Ordering::Relaxed), 2, "once in vain, once for all");
    }

    #[tokio::test]
    async fn a_run_is_told_once_until_it_changes_and_what_differs_shows() {
        let ready = Ready::default();
        let version = |changes| ("r".parse().unwrap(), (Extent { journal: 1, last_seq: 9 }, changes));
        let told = async |changes, message: &'static str| {
            let info = RunInfo::new("r", &moslim_shared::config::RunConfig::default(), 0);
            let info = RunInfo { message: message.into(), last_seq: 9, ..info };
            ready.run(version(changes), move || Some(info)).await.unwrap().unwrap()
        };
        let first = told(1, "one").await;
        assert_eq!((told(1, "two").await.print, first.last_seq), (first.print, 9), "it is not read again");
        assert_ne!(told(2, "two").await.print, first.print);
        assert_eq!(told(3, "one").await.print, first.print);
        assert!(ready.run(version(4), || None).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_large_or_long_ago_is_not_kept() {
        let ready = Ready::default();
        made(&ready, key(0), &"x".repeat(MOST_BYTES + 1)).await;
        assert_eq!(made(&ready, key(0), "again").await, "again");
        for after in 1..=KEPT as u64 + 1 {
            made(&ready, key(after), "x").await;
        }
        assert_eq!(made(&ready, key(KEPT as u64 + 1), "y").await, "x");
        assert_eq!(made(&ready, key(1), "y").await, "y");
    }
}
