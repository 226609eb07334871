//! Keeps the index as long as the server runs.

use super::Follower;
use super::run::Followed;
use crate::id::RunId;
use crate::index::{Index, Indexed};
use crate::pulse;
use std::time::Duration;

/// Time between two looks at what the index does not have yet.
const INDEX_EVERY: Duration = Duration::from_millis(500);

impl Follower {
    /// Runs that have changed since this was last asked, for the index.
    pub fn changed(&self) -> Vec<(RunId, Indexed)> {
        let mut runs = self.lock();
        let dirty = runs.iter_mut().filter(|(_, f)| f.dirty);
        let take = |(id, f): (&RunId, &mut Box<Followed>)| {
            f.dirty = false;
            (id.clone(), Indexed { info: f.info.clone(), figures: f.figures, bytes: f.bytes })
        };
        dirty.map(take).collect()
    }

    /// Keeps the index for ever. Nothing waits for it: a database that another program has locked holds up no run and no page.
    pub async fn keep(self, index: Index) {
        // What fails again is not said again.
        let mut fails = false;
        // An index that is gone with this server keeps nothing, however often it is written.
        let kept = || {
            if !index.is_in_memory() {
                pulse::INDEX.beat();
            }
        };
        loop {
            tokio::time::sleep(INDEX_EVERY).await;
            let changed = self.changed();
            if changed.is_empty() {
                kept();
                continue;
            }
            let written = index.write(&changed).await;
            let failed = std::mem::replace(&mut fails, written.is_err());
            match &written {
                Err(error) if !failed => tracing::warn!("the index cannot be written ({error:#}); it is tried again"),
                Ok(()) if failed => tracing::warn!("the index can be written again"),
                _ => {}
            }
            if fails {
                let mut runs = self.lock();
                changed.iter().for_each(|(id, _)| {
                    if let Some(run) = runs.get_mut(id) {
                        run.dirty = true;
                    }
                });
            } else {
                kept();
            }
        }
    }
}
