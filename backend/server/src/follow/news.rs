//! What listeners are told of: which runs have grown, gathered for all of them together, so that each wakes once.

use super::Follower;
use crate::id::RunId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};

/// Announcements kept for a slow listener; one that falls further behind looks at all runs.
const KEPT: usize = 64;
/// Events of this time share a frame, at least and at most, and what every client that listens adds to it: with many, each event would cost
/// as many frames, of the processor that also trains.
const GATHER_TIMES: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(200)];
const GATHER_TIME_OF_ONE: Duration = Duration::from_millis(1);

/// Runs whose journals have grown, and whether the state (status, message, summary) of each changed too. It carries no events: a listener reads
/// them from the journal, so there is one way to get events, live or late, and none can be lost or come twice.
#[derive(Debug, Clone, Default)]
pub struct Touched {
    runs: HashMap<RunId, bool>,
    /// A listener that fell behind cannot know, and looks at all.
    all: bool,
}

impl Touched {
    /// Whether there is news of `run`, and if so whether its state changed.
    pub fn of(&self, run: &RunId) -> Option<bool> {
        if self.all { Some(true) } else { self.runs.get(run).copied() }
    }
}

/// Gathers news, and tells it to all listeners.
pub(super) struct Teller {
    gathered: Mutex<HashMap<RunId, bool>>,
    fresh: Notify,
    listeners: broadcast::Sender<Arc<Touched>>,
}

impl Default for Teller {
    fn default() -> Self {
        Self { gathered: Mutex::default(), fresh: Notify::new(), listeners: broadcast::channel(KEPT).0 }
    }
}

impl Teller {
    /// A run has grown.
    pub(super) fn add(&self, run: &RunId, state_changed: bool) {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        *gathered.entry(run.clone()).or_default() |= state_changed;
        self.fresh.notify_one();
    }

    /// For how long news is gathered.
    fn gather_time(&self) -> Duration {
        let [least, most] = GATHER_TIMES;
        let clients = self.listeners.receiver_count().min(1000) as u32;
        (GATHER_TIME_OF_ONE * clients).clamp(least, most)
    }

    /// Tells all listeners what was gathered.
    fn tell(&self) {
        let runs = std::mem::take(&mut *self.gathered.lock().unwrap_or_else(PoisonError::into_inner));
        // What came while news was gathered has asked for another turn.
        if runs.is_empty() {
            return;
        }
        // An error says that nobody listens, which is fine.
        let _ = self.listeners.send(Arc::new(Touched { runs, all: false }));
    }
}

/// One who is told.
pub struct News(broadcast::Receiver<Arc<Touched>>);

impl News {
    /// What has grown since the last time, once there is something; none when the server stops.
    pub async fn recv(&mut self) -> Option<Arc<Touched>> {
        match self.0.recv().await {
            Ok(touched) => Some(touched),
            Err(RecvError::Lagged(_)) => Some(Arc::new(Touched { all: true, ..Touched::default() })),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Follower {
    /// What grows from now on.
    pub fn listen(&self) -> News {
        News(self.news.listeners.subscribe())
    }

    /// Tells listeners what has grown, for ever.
    pub async fn tell(self) {
        loop {
            self.news.fresh.notified().await;
            tokio::time::sleep(self.news.gather_time()).await;
            self.news.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_together_is_told_once_and_who_fell_behind_looks_at_everything() {
        let [a, b]: [RunId; 2] = ["a", "b"].map(|id| id.parse().unwrap());
        let teller = Teller::default();
        let mut news = News(teller.listeners.subscribe());
        let mut heard = async || {
            let touched = news.recv().await.unwrap();
            [touched.of(&a), touched.of(&b)]
        };
        for state_changed in [false, true, false] {
            teller.add(&b, state_changed);
        }
        teller.tell();
        teller.add(&a, false);
        teller.tell();
        assert_eq!(heard().await, [None, Some(true)]);
        assert_eq!(heard().await, [Some(false), None]);
        for _ in 0..=KEPT {
            teller.add(&b, false);
            teller.tell();
        }
        assert_eq!(heard().await, [Some(true), Some(true)]);
        assert_eq!(heard().await, [None, Some(false)]);
        drop(teller);
        while let Some(touched) = news.recv().await {
            assert_eq!(touched.of(&b), Some(false));
        }
    }

    #[test]
    fn the_more_listen_the_longer_news_is_gathered() {
        let teller = Teller::default();
        let mut all = Vec::new();
        let mut with = |clients: usize| {
            all.resize_with(clients, || teller.listeners.subscribe());
            teller.gather_time().as_millis()
        };
        assert_eq!([0, 1, 25, 26, 100, 199, 200, 300].map(&mut with), [25, 25, 25, 26, 100, 199, 200, 200]);
    }
}
