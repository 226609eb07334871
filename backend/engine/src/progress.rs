//! What a stage needs from the outside: somewhere to report to, a way to be stopped, and random numbers of its own.

use crate::ranks;
use anyhow::Result;
use moslim_shared::config::Problem;
use moslim_shared::event::{EventBody, Outcome, Stage};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::atomic::{AtomicU8, Ordering};

/// The run was asked to stop; its checkpoint is written.
#[derive(Debug, thiserror::Error)]
#[error("the run was stopped")]
pub struct Stopped;

/// A configuration that is valid by itself but does not fit its data; names the field.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

impl Unfit {
    /// The field and what is wrong with it.
    pub fn problem(&self) -> Problem {
        let (field, message) = self.0.split_once(": ").unwrap_or(("", &self.0));
        Problem { field: field.into(), message: message.into() }
    }
}

/// Asks a run to stop at its next step. Clones of a reference share it.
#[derive(Debug, Default)]
pub struct Stop(AtomicU8);

impl Stop {
    /// A person wants the run to end.
    pub fn cancel(&self) {
        self.0.store(2, Ordering::SeqCst);
    }

    /// The system wants the process to go; the run can be resumed. A cancelled run stays cancelled.
    pub fn interrupt(&self) {
        let _ = self.0.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// How the run ends because it was asked to, if it was.
    pub fn asked(&self) -> Option<Outcome> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            1 => Some(Outcome::Interrupted),
            _ => Some(Outcome::Cancelled),
        }
    }
}

/// Reports events and knows whether to stop.
pub struct Progress<'a> {
    pub sink: &'a mut dyn FnMut(EventBody),
    pub stop: &'a Stop,
}

impl Progress<'_> {
    /// Reports an event.
    pub fn emit(&mut self, body: EventBody) {
        (self.sink)(body);
    }

    /// Whether the run was asked to stop. Ranks that train it together stop together.
    pub fn stopped(&self) -> bool {
        ranks::any(self.stop.asked().is_some())
    }

    /// Fails with [`Stopped`] when the run was asked to stop.
    ///
    /// # Errors
    /// As said.
    pub fn check(&self) -> Result<()> {
        if self.stopped() { Err(Stopped.into()) } else { Ok(()) }
    }
}

/// The random numbers of one step of one stage. They depend on nothing else, so a resumed run draws the same ones.
pub fn stream(seed: u64, stage: Stage, step: usize) -> StdRng {
    // Not the position in the list of stages: a stage that is added must not change what another draws.
    let number = match stage {
        Stage::Sft => 1,
        Stage::RewardModel | Stage::HeldOutRewardModel => 2,
        Stage::Calibration => 3,
        Stage::Policy | Stage::PreferenceSft => 4,
        Stage::Evaluation => 5,
        Stage::Answers => 6,
    };
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8] = number;
    key[16..24].copy_from_slice(&(step as u64).to_le_bytes());
    StdRng::from_seed(key)
}
