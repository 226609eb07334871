//! Runs: the device they compute on, the cache of finished stages, checkpoints, and what is left when they end.

pub mod cache;
pub mod checkpoint;
mod device;
mod inference;

pub(crate) use device::free_memory;
pub use device::{DeviceEntry, bench, devices};
pub use inference::{Generator, ScoreLine, Scored, Scorer};

use crate::data::world;
use crate::progress::{Progress, Stopped, Unfit};
use moslim_shared::config::RunConfig;
use moslim_shared::event::EventBody;
use moslim_shared::summary::RunSummary;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// A run to be trained.
#[derive(Debug, Clone)]
pub struct Job {
    /// Identifier; names the run's folder.
    pub run: String,
    pub config: RunConfig,
    /// Root of everything the lab keeps: `cache/` and `runs/`.
    pub lab: PathBuf,
}

impl Job {
    /// The run's folder.
    pub fn folder(&self) -> PathBuf {
        self.lab.join("runs").join(&self.run)
    }
}

/// Why a run did not finish.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the run was stopped; its checkpoint is kept")]
    Cancelled,
    #[error("{0}")]
    BadInput(String),
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for RunError {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Unfit>() {
            Ok(unfit) => Self::BadInput(unfit.0),
            Err(error) if error.is::<Stopped>() => Self::Cancelled,
            Err(error) => Self::Failed(error),
        }
    }
}

/// Most memory that this process has held so far, MiB; 0 where the system does not tell.
pub fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Trains a run from SFT to evaluation, or goes on from its checkpoint. Blocks until it ends or `stop` is set; reports to
/// `sink`. Leaves `summary.json`, the policy and the frozen reward model in the run's folder.
///
/// # Errors
/// [`RunError::BadInput`] for an invalid configuration or a forced device that is missing; [`RunError::Cancelled`] after
/// `stop`; [`RunError::Failed`] otherwise.
pub fn train(job: &Job, stop: &AtomicBool, sink: &mut dyn FnMut(EventBody)) -> Result<RunSummary, RunError> {
    let problems = job.config.problems(&world::objectives());
    if !problems.is_empty() {
        let lines: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect();
        return Err(RunError::BadInput(lines.join("\n")));
    }
    std::fs::create_dir_all(job.folder())
        .map_err(|e| RunError::BadInput(format!("the folder {} cannot be written: {e}", job.folder().display())))?;
    device::train_on_device(job, &mut Progress { sink, stop })
}
