//! What drives a stage: it goes on from a checkpoint, stops when it is asked to, keeps checkpoints, and says where it is.
//!
//! Every stage of steps is a loop `while let Some(step) = driver.next(..)? { .. }`. What a step does is in the stage's file.

use crate::keep::Job;
use crate::keep::checkpoint::{self, Header, Parts, Wanted};
use crate::keep::fork;
use crate::progress::{Progress, Stopped};
use crate::ranks;
use anyhow::Result;
use moslim_shared::event::{EventBody, Part, Stage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use web_time::Instant;

/// A stage under way, or one part of it.
pub struct Driver<'a, S> {
    job: &'a Job,
    stage: Stage,
    part: Option<Part>,
    key: String,
    total: usize,
    /// Steps between checkpoints.
    every: usize,
    /// The next step, from 0, and the first of this process.
    step: usize,
    from: usize,
    began: Instant,
    wanted: Wanted,
    /// Seconds that earlier processes spent.
    before: f64,
    /// Whether this process goes on from the checkpoint of another run.
    pub forks: bool,
    /// What the stage knows besides its weights.
    pub state: S,
}

/// What a stage is: which one, what it is made from, how long it is, and how often it is kept.
pub struct Plan {
    pub stage: Stage,
    pub part: Option<Part>,
    /// Key of everything that decides its result.
    pub key: String,
    pub total: usize,
    pub checkpoint_every: usize,
    /// Key of the checkpoint of another run that it goes on from, where it is a fork.
    pub forked: Option<String>,
}

impl<'a, S: Serialize + DeserializeOwned> Driver<'a, S> {
    /// Begins a stage with `fresh` as its state, or goes on from its checkpoint, whose models are returned.
    ///
    /// # Errors
    /// When the checkpoint is damaged; the message names it.
    pub fn begin(job: &'a Job, plan: Plan, fresh: S, progress: &mut Progress) -> Result<(Self, Option<Parts>)> {
        let Plan { stage, part, key, total, checkpoint_every: every, forked } = plan;
        let began = Instant::now();
        let mut note = |text| progress.emit(EventBody::Note { text });
        let own = checkpoint::load::<S>(job, stage, &key, &mut note)?;
        let forks = own.is_none() && forked.is_some();
        let found = match (own, forked) {
            (None, Some(key)) => {
                let (header, parts) = fork::load::<S>(job, &key)?;
                let source = job.config.fork.as_deref().unwrap_or_default();
                note(format!("goes on from step {} of run {source}", header.step));
                Some((header, parts))
            }
            (own, _) => own,
        };
        let (from, before, state, parts) = match found {
            Some((header, parts)) => (header.step, header.seconds, header.state, Some(parts)),
            None => (0, 0.0, fresh, None),
        };
        progress.emit(EventBody::StageBegan { stage, part: part.clone(), from, total });
        let (every, wanted) = (every.max(1), Wanted::none(job));
        Ok((Self { job, stage, part, key, total, every, step: from, from, began, wanted, before, forks, state }, parts))
    }

    /// The next step, from 0; `None` when all are done. `parts` gives the models for a checkpoint.
    ///
    /// # Errors
    /// [`Stopped`] when the run was asked to stop, after a checkpoint; or when a checkpoint cannot be written.
    pub fn next(&mut self, progress: &mut Progress, parts: impl FnOnce() -> Result<Parts>) -> Result<Option<usize>> {
        let (step, stopped) = (self.step, progress.stopped());
        let done = step >= self.total;
        // Ranks keep a checkpoint together, when the first is asked for one.
        let wanted = ranks::any(ranks::first() && step > self.from && self.wanted.heard(self.job));
        if (stopped || wanted) && !done || step > self.from && step.is_multiple_of(self.every) {
            let header = Header { step, key: self.key.clone(), seconds: self.seconds(), state: &self.state };
            checkpoint::save(self.job, self.stage, &header, &parts()?)?;
            progress.emit(EventBody::Checkpoint { stage: self.stage, part: self.part.clone(), step });
        }
        if done {
            return Ok(None);
        }
        if stopped {
            return Err(Stopped.into());
        }
        self.step += 1;
        Ok(Some(step))
    }

    /// The number of steps that are left, where it is known better than at the beginning. Returns the number of all.
    pub fn set_left(&mut self, left: usize) -> usize {
        self.total = self.step + left;
        self.total
    }

    /// Seconds spent on the stage so far, those of earlier processes included.
    pub fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    /// Steps a second in this process.
    pub fn rate(&self) -> f64 {
        (self.step - self.from) as f64 / self.began.elapsed().as_secs_f64()
    }

    /// Which part of the stage this is.
    pub fn part(&self) -> Option<Part> {
        self.part.clone()
    }

    /// Reports the loss of the step that is done, `step` counting from 1.
    pub fn report_loss(&self, step: usize, loss: f64, progress: &mut Progress) {
        let (stage, part, total) = (self.stage, self.part(), self.total);
        progress.emit(EventBody::Loss { stage, part, step, total, loss, rate: self.rate() });
    }

    /// The stage is over. What it made is in the cache by now, so its checkpoint goes; a policy that is alone is kept after this, and
    /// its checkpoint goes then. Returns its seconds.
    pub fn end(self, progress: &mut Progress) -> f64 {
        let seconds = self.seconds();
        if self.stage != Stage::Policy || self.part.is_some() {
            checkpoint::remove(self.job, self.stage);
        }
        progress.emit(EventBody::StageEnded { stage: self.stage, part: self.part, seconds, cached: false });
        seconds
    }
}

/// Says that a stage was found in the cache. `replay` reports what was reported when it was made; without it, what this run
/// may have reported earlier stays good.
pub fn from_cache(
    stage: Stage,
    part: Option<&Part>,
    total: usize,
    began: Instant,
    progress: &mut Progress,
    replay: Option<&dyn Fn(&mut Progress)>,
) -> f64 {
    let from = if replay.is_some() { 0 } else { total };
    progress.emit(EventBody::StageBegan { stage, part: part.cloned(), from, total });
    if let Some(replay) = replay {
        replay(progress);
    }
    let seconds = began.elapsed().as_secs_f64();
    progress.emit(EventBody::StageEnded { stage, part: part.cloned(), seconds, cached: true });
    seconds
}

/// Says when a stage should report: at most every `interval`, and always when asked to.
pub struct Ticker {
    interval: Duration,
    last: Option<Instant>,
}

impl Ticker {
    /// A ticker that is due at once.
    pub fn new(interval: Duration) -> Self {
        Self { interval, last: None }
    }

    /// Whether a report is due; if so, the next one is due after the interval.
    pub fn due(&mut self) -> bool {
        let due = self.last.is_none_or(|t| t.elapsed() >= self.interval);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::files::Memory;
    use crate::progress::Stop;
    use std::sync::Arc;

    /// A stage that turned out longer than was thought, and was interrupted beyond its first estimate, goes on to its end.
    #[test]
    fn a_resumed_stage_is_as_long_as_is_known_by_then() {
        let job = Job::new("longer", Default::default(), Arc::new(Memory::default()));
        let stop = Stop::default();
        let mut progress = Progress { sink: &mut |_| {}, stop: &stop };
        let plan = || Plan { stage: Stage::Policy, part: None, key: "k".into(), total: 3, checkpoint_every: 4, forked: None };
        let (mut driver, _) = Driver::begin(&job, plan(), 0u64, &mut progress).unwrap();
        let mut made = 0;
        while let Some(step) = driver.next(&mut progress, || Ok(Vec::new())).unwrap() {
            made = step + 1;
            assert_eq!(driver.set_left(6 - made), 6);
            if made == 5 {
                break;
            }
        }
        let (mut driver, parts) = Driver::begin(&job, plan(), 0u64, &mut progress).unwrap();
        assert!(parts.is_some(), "there is a checkpoint of step 4, beyond the estimate of 3");
        driver.set_left(2);
        let mut steps = Vec::new();
        while let Some(step) = driver.next(&mut progress, || Ok(Vec::new())).unwrap() {
            steps.push(step);
        }
        assert_eq!((made, steps), (5, vec![4, 5]));
    }
}
