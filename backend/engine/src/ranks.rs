//! Several processes that train one run together, by data parallelism: every rank does everything that is cheap, the same as the others,
//! and of what is dear (sampling, reading, gradients) its own consecutive part; results are gathered and used in the order of the work.
//! So the figures are those of one process, bit for bit, however many ranks there are and whoever is fastest.
//!
//! How bytes travel is behind [`Ranks`], which knows nothing of training.

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

/// The processes that train a run together, as one of them sees them.
pub trait Ranks {
    /// Which one this is, from 0. The first alone writes files and reports.
    fn rank(&self) -> usize;

    /// How many there are, at least 1.
    fn size(&self) -> usize;

    /// Which one this is of those on its machine, from 0: which of the machine's devices it takes.
    fn local(&self) -> usize {
        self.rank()
    }

    /// What every rank gives, in the order of the ranks. All must call it at the same point; it waits for them.
    ///
    /// # Errors
    /// When one is gone.
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>>;
}

thread_local! {
    /// The ranks of the run that this thread trains.
    static RANKS: RefCell<Option<Rc<dyn Ranks>>> = const { RefCell::new(None) };
}

/// Calls `train` as one of `ranks`: everything that it shares is shared with them.
pub fn together<T>(ranks: Rc<dyn Ranks>, train: impl FnOnce() -> T) -> T {
    /// Ends it, also where `train` panics.
    struct End(Option<Rc<dyn Ranks>>);
    impl Drop for End {
        fn drop(&mut self) {
            RANKS.set(self.0.take());
        }
    }
    let _end = End(RANKS.replace(Some(ranks)));
    train()
}

/// The ranks of this thread's run, where there is more than one.
fn current() -> Option<Rc<dyn Ranks>> {
    RANKS.with_borrow(Clone::clone).filter(|ranks| ranks.size() > 1)
}

/// How many ranks train this thread's run.
pub fn size() -> usize {
    current().map_or(1, |ranks| ranks.size())
}

/// Whether this is the first of the ranks, or the only one: what is on the disk is its.
pub fn first() -> bool {
    current().is_none_or(|ranks| ranks.rank() == 0)
}

/// Which device of its machine this thread's run computes on.
pub fn local() -> usize {
    current().map_or(0, |ranks| ranks.local())
}

/// Which of `count` pieces of work are this rank's.
pub fn own(count: usize) -> Range<usize> {
    let Some(ranks) = current() else { return 0..count };
    let (rank, size) = (ranks.rank(), ranks.size());
    count * rank / size..count * (rank + 1) / size
}

/// The results of all ranks, in the order of the work; `own`: those of this rank's part of it, which is `count` pieces on every rank.
///
/// # Panics
/// When a rank is gone, or has cut the work otherwise: nothing can go on then. The run fails with what this says, and goes on from its
/// checkpoint.
pub fn all<R: Serialize + DeserializeOwned>(own: Vec<R>, count: usize) -> Vec<R> {
    let Some(ranks) = current() else { return own };
    let gather = || -> Result<Vec<R>> {
        let given = ranks.gather(&postcard::to_allocvec(&(count as u64, own)).context("packing results")?)?;
        let parts: Vec<(u64, Vec<R>)> =
            given.iter().map(|bytes| postcard::from_bytes(bytes)).collect::<Result<_, _>>().context("unpacking results")?;
        let same = parts.iter().all(|(other, _)| *other == count as u64);
        ensure!(same, "they cut their work differently, as different devices or memory have it");
        Ok(parts.into_iter().flat_map(|(_, part)| part).collect())
    };
    gather().unwrap_or_else(|e| panic!("the ranks of this run cannot go on together: {e:#}"))
}

/// Whether it holds for any rank.
pub fn any(own: bool) -> bool {
    all(vec![own], 0).into_iter().any(|x| x)
}

/// Whether it holds for every rank.
pub fn every(own: bool) -> bool {
    all(vec![own], 0).into_iter().all(|x| x)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, Mutex};

    /// Ranks that are threads of this process.
    pub struct Threads {
        rank: usize,
        given: Arc<Mutex<Vec<Vec<u8>>>>,
        barrier: Arc<Barrier>,
    }

    impl Ranks for Threads {
        fn rank(&self) -> usize {
            self.rank
        }

        fn size(&self) -> usize {
            self.given.lock().unwrap().len()
        }

        fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
            self.given.lock().unwrap()[self.rank] = own.to_vec();
            self.barrier.wait();
            let all = self.given.lock().unwrap().clone();
            // Nobody gives anything new before everybody has read.
            self.barrier.wait();
            Ok(all)
        }
    }

    /// What `size` ranks make of `work(rank)`.
    pub fn run<T: Send>(size: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let (given, barrier) = (Arc::new(Mutex::new(vec![Vec::new(); size])), Arc::new(Barrier::new(size)));
        std::thread::scope(|scope| {
            let start = |rank| {
                let ranks = Threads { rank, given: given.clone(), barrier: barrier.clone() };
                let work = &work;
                scope.spawn(move || together(Rc::new(ranks), || work(rank)))
            };
            let threads: Vec<_> = (0..size).map(start).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        })
    }

    /// This thread's own place among them.
    pub fn here() -> Rc<dyn Ranks> {
        RANKS.with_borrow(Clone::clone).expect("one of the ranks of `run`")
    }

    #[test]
    fn every_piece_has_one_owner_and_results_keep_their_order() {
        for (size, count) in [(1, 5), (2, 5), (3, 2), (4, 9), (3, 0)] {
            let made = run(size, |_| all(own(count).map(|n| n * n).collect::<Vec<usize>>(), count));
            let expected: Vec<usize> = (0..count).map(|n| n * n).collect();
            assert!(made.iter().all(|m| *m == expected), "{size} ranks, {count} pieces: {made:?}");
        }
        assert_eq!((own(3), all(vec![1, 2], 2), size(), local()), (0..3, vec![1, 2], 1, 0), "alone");
    }

    #[test]
    fn ranks_that_cut_their_work_differently_do_not_go_on() {
        let made = run(2, |rank| std::panic::catch_unwind(|| all(vec![rank], 2 + rank)).is_err());
        assert_eq!(made, [true, true]);
    }

    #[test]
    fn ranks_agree() {
        assert_eq!(run(3, |rank| (any(rank == 1), every(rank == 1), size())), [(true, false, 3); 3]);
        assert_eq!(run(2, |_| (any(false), every(true))), [(false, true); 2]);
    }
}
