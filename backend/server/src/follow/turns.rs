//! Runs that wait for their turn, and runs that have it.

use super::Follower;
use super::run::Followed;
use crate::id::{RunId, now_ms};
use crate::launch::is_elsewhere;
use crate::queue::Place;
use moslim_shared::config::{DeviceChoice, RunConfig};
use moslim_shared::event::RunStatus;

impl Follower {
    /// Runs of a status, each with the device that its configuration asks for.
    fn with_status(&self, status: RunStatus) -> Vec<(RunId, DeviceChoice)> {
        let runs = self.lock();
        runs.iter().filter(|(_, f)| f.info.status == status).map(|(id, f)| (id.clone(), f.info.config.device)).collect()
    }

    /// Runs that train on this machine, whoever started them, each with the device that its configuration asks for.
    pub fn training(&self) -> Vec<(RunId, DeviceChoice)> {
        let running = self.with_status(RunStatus::Running).into_iter();
        running.filter(|(id, _)| !is_elsewhere(&self.data.run(id))).collect()
    }

    /// Runs that wait for their turn on this machine, each with the device that its configuration asks for.
    pub fn queued(&self) -> Vec<(RunId, DeviceChoice)> {
        let waiting = self.with_status(RunStatus::Queued).into_iter();
        waiting.filter(|(id, _)| !is_elsewhere(&self.data.run(id))).collect()
    }

    /// A run waits for its turn.
    pub fn queue(&self, id: &RunId, config: &RunConfig, place: Place) {
        let mut runs = self.lock();
        let run = runs.entry(id.clone()).or_insert_with(|| Box::new(Followed::new(id, config, now_ms())));
        (run.info.status, run.info.message, run.dirty) = (RunStatus::Queued, place.told(), true);
        drop(runs);
        self.announce(id, true);
    }

    /// A run that waited for its turn does so no more.
    pub fn unqueue(&self, id: &RunId) {
        if let Some(run) = self.lock().get_mut(id) {
            let message = "it was taken out of the queue; resume it when it is wanted";
            (run.info.status, run.info.message, run.dirty) = (RunStatus::Cancelled, message.into(), true);
        }
        self.announce(id, true);
    }

    /// A run that has a place in the queue waits, and one that has none does not, whatever index and journal say of it.
    pub(super) fn recall(&self, id: &RunId) {
        let place = Place::read(&self.data.run(id));
        let mut runs = self.lock();
        let Some(run) = runs.get_mut(id) else { return };
        let (status, message) = match (run.info.status, place) {
            (RunStatus::Running | RunStatus::Finished, _) => return,
            (_, Some(place)) => (RunStatus::Queued, place.told()),
            (RunStatus::Queued, None) => {
                (RunStatus::Interrupted, "it has lost its place in the queue; resume it to wait again".into())
            }
            (_, None) => return,
        };
        (run.info.status, run.info.message, run.dirty) = (status, message, true);
        drop(runs);
        self.announce(id, true);
    }
}
