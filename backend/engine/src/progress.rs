//! What a stage needs from the outside: somewhere to report to, and a way to be stopped.

use anyhow::Result;
use moslim_shared::event::{EventBody, Stage};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The run was asked to stop; its checkpoint is written.
#[derive(Debug, thiserror::Error)]
#[error("the run was stopped")]
pub struct Stopped;

/// A configuration that is valid by itself but does not fit its data; names the field.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

/// Reports events and knows whether to stop.
pub struct Progress<'a> {
    pub sink: &'a mut dyn FnMut(EventBody),
    pub stop: &'a AtomicBool,
}

impl Progress<'_> {
    /// Reports an event.
    pub fn emit(&mut self, body: EventBody) {
        (self.sink)(body);
    }

    /// Whether the run was asked to stop.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Fails with [`Stopped`] when the run was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.stopped() { Err(Stopped.into()) } else { Ok(()) }
    }
}

/// The random numbers of one step of one stage. They depend on nothing else, so a resumed run draws the same ones.
pub fn stream(seed: u64, stage: Stage, step: usize) -> StdRng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8] = stage as u8 + 1;
    key[16..24].copy_from_slice(&(step as u64).to_le_bytes());
    StdRng::from_seed(key)
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
