//! What is known of all runs together.

use super::Follower;
use super::run::Followed;
use crate::id::RunId;
use moslim_shared::event::{About, RunStatus};
use moslim_shared::listing::{ListQuery, RunsPage};
use std::collections::BTreeMap;
use tokio::sync::watch;

impl Follower {
    /// How many runs there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Runs by their status, and the events of all.
    pub fn counts(&self) -> (BTreeMap<String, u64>, u64) {
        let (mut statuses, mut events) = (BTreeMap::new(), 0);
        for run in self.lock().values() {
            *statuses.entry(format!("{:?}", run.info.status).to_lowercase()).or_default() += 1;
            events += run.info.last_seq;
        }
        (statuses, events)
    }

    /// A page of the list of runs.
    ///
    /// # Errors
    /// When what is asked for is not understood; for people.
    pub fn list(&self, query: &ListQuery) -> Result<RunsPage, String> {
        RunsPage::of(self.lock().values().map(|f| (&f.info, f.figures)), query)
    }

    /// How often lists have changed: a run came or went, or its state or what a person says of it changed. What grows while it trains
    /// (`last_seq`, milestones) does not count, or there would be a change for every step.
    pub fn list_changes(&self) -> watch::Receiver<u64> {
        self.list_changes.subscribe()
    }

    /// Runs that have come to an end, and are not paused: when each was made (milliseconds since the Unix epoch), and whether no person has said anything of it.
    pub fn ended(&self) -> Vec<(RunId, u64, bool)> {
        let at_rest = |f: &Followed| !matches!(f.info.status, RunStatus::Running | RunStatus::Queued | RunStatus::Paused);
        let nameless = |f: &Followed| f.info.name.is_empty() && f.info.about == About::default();
        let runs = self.lock();
        runs.iter().filter(|(_, f)| at_rest(f)).map(|(id, f)| (id.clone(), f.info.created, nameless(f))).collect()
    }
}
