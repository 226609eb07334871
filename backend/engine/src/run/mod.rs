//! Runs: the device they compute on, how they are trained and end, and a run at work.
//!
//! Here belongs what knows concrete backends and a whole run. Stages are in `method/`, files in `keep/`.

pub mod device;
pub mod export;
mod inference;
pub mod memory;
pub mod off_the_shelf;
mod opened;
pub mod trial;
mod untrained;

pub use device::{DeviceEntry, devices};
pub use inference::{Generator, Scorer};
pub use untrained::untrained;

use crate::data::Task;
use crate::keep::above::Above;
use crate::keep::checkpoint::PAUSE;
use crate::keep::journal::{self, Journal};
use crate::keep::{Job, fork};
use crate::method;
use crate::progress::{Progress, Stop, Stopped, Unfit};
use crate::ranks::{self, Ranks};
use anyhow::Result;
use burn::backend::Autodiff;
use device::{Device, choose};
use moslim_shared::config::Problem;
use moslim_shared::event::{EventBody, Outcome, Stage};
use moslim_shared::memory::{Memory, largest};
use moslim_shared::objective::Objective;
use moslim_shared::summary::{RewardModelReport, RunSummary};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

/// Why a run did not finish.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It was asked to stop, by a person or by the system.
    #[error("the run was stopped; its checkpoint is kept")]
    Stopped(Outcome),
    #[error("{0}")]
    BadInput(String),
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl RunError {
    fn of(error: anyhow::Error, stop: &Stop) -> Self {
        match error.downcast::<Unfit>() {
            Ok(unfit) => Self::BadInput(unfit.0),
            Err(error) if error.is::<Stopped>() => Self::Stopped(stop.asked().unwrap_or(Outcome::Interrupted)),
            Err(error) => Self::Failed(error),
        }
    }
}

/// Trains a run from SFT to evaluation, or goes on from its checkpoint. Blocks until it ends or is asked to stop. Every event,
/// the end included, is in the run's journal before `sink` is told. Leaves `summary.json`, the policy and the frozen reward
/// model in the run's folder.
///
/// # Errors
/// [`RunError::BadInput`] for an invalid configuration or a forced device that is missing; [`RunError::Stopped`] after
/// `stop`; [`RunError::Failed`] otherwise, also when the journal cannot be written.
pub fn train(job: &Job, stop: &Stop, sink: &mut dyn FnMut(&EventBody)) -> Result<RunSummary, RunError> {
    let task = Task::load(&job.config.task, &|path| job.files.read(path)).map_err(RunError::Failed)?;
    train_on(job, task, stop, sink)
}

/// [`train`] as one of several processes that train the run together; all must call it with the same run. The first writes and reports
/// as [`train`] does; of the others, what they write stays in memory.
///
/// # Errors
/// As [`train`].
pub fn train_as(ranks: Rc<dyn Ranks>, job: &Job, stop: &Stop, sink: &mut dyn FnMut(&EventBody)) -> Result<RunSummary, RunError> {
    let mut job = job.clone();
    if ranks.rank() > 0 {
        job.files = Arc::new(Above::new(job.files));
    }
    ranks::together(ranks, || train(&job, stop, sink))
}

/// [`train`] on a task that no configuration names.
///
/// # Errors
/// As [`train`].
pub fn train_on(job: &Job, task: Task, stop: &Stop, sink: &mut dyn FnMut(&EventBody)) -> Result<RunSummary, RunError> {
    fits(job, &task, Stage::Evaluation)?;
    job.tidy();
    let mut journal = Journal::open(job.files.as_ref(), &job.path(journal::FILE))
        .map_err(|e| RunError::BadInput(format!("the run's folder cannot be written: {e:#}")))?;
    let mut lost: Option<anyhow::Error> = None;
    let mut write = |body: EventBody| {
        match journal.add(&body) {
            Ok(()) => sink(&body),
            // What is not in the journal did not happen: the run ends at its next step.
            Err(error) => {
                lost.get_or_insert(error);
                stop.interrupt();
            }
        }
    };
    let mut progress = Progress { sink: &mut write, stop };
    let trained = catch_unwind(AssertUnwindSafe(|| train_on_device(job, task, &mut progress)));
    let mut result = trained.unwrap_or_else(|panic| Err(RunError::Failed(panicked(&*panic))));
    if let Some(error) = lost.take() {
        result = Err(RunError::Failed(error.context("its events could not be kept (is the disk full?)")));
    }
    let pauses = || matches!(job.files.read(&job.path(PAUSE)), Ok(Some(_)));
    let (outcome, message) = match &result {
        Ok(_) => (Outcome::Finished, String::new()),
        Err(RunError::Stopped(Outcome::Cancelled)) => (Outcome::Cancelled, "cancelled".into()),
        Err(RunError::Stopped(_)) if pauses() => (Outcome::Paused, "paused".into()),
        Err(RunError::Stopped(_)) => {
            (Outcome::Interrupted, "it was asked to stop; resume it to go on from its last checkpoint".into())
        }
        Err(error) => (Outcome::Failed, error.to_string()),
    };
    let ended = EventBody::Ended { outcome, message };
    match journal.add(&ended) {
        Ok(()) => sink(&ended),
        Err(error) if result.is_ok() => result = Err(RunError::Failed(error.context("its end could not be kept"))),
        Err(_) => {}
    }
    result
}

fn panicked(panic: &(dyn Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    anyhow::anyhow!("internal error: {}", text.unwrap_or("no message"))
}

/// A function of `method/` on the backend of a device.
macro_rules! on {
    ($device:expr, $function:ident($job:expr, $task:expr, $report:expr, $progress:expr)) => {
        match $device {
            Device::Cpu(device) => method::$function::<Autodiff<burn::backend::Flex>>($job, $task, &device, $report, $progress),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => method::$function::<Autodiff<burn::backend::Cuda>>($job, $task, &device, $report, $progress),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(device) => method::$function::<Autodiff<burn::backend::Wgpu>>($job, $task, &device, $report, $progress),
        }
    };
}

/// Runs the method on the device that the configuration asks for.
fn train_on_device(job: &Job, task: Task, progress: &mut Progress) -> Result<RunSummary, RunError> {
    let (device, report) = choose(job.config.device).map_err(|e| RunError::BadInput(format!("device: {e:#}")))?;
    let everywhere = ranks::all(vec![report.device.clone()], 0);
    if everywhere.iter().any(|other| *other != report.device) {
        let message = format!("device: the processes of this run compute on {}; name one that all have", everywhere.join(", "));
        return Err(RunError::BadInput(message));
    }
    let stop = progress.stop;
    on!(device, run(job, task, report, progress)).map_err(|error| RunError::of(error, stop))
}

/// Trains the reward model of `job` and nothing else, and measures it on test rows. Of the run nothing is kept; what the cache keeps of it
/// is not made again.
///
/// # Errors
/// As [`train`].
pub fn reward_model_alone(job: &Job, stop: &Stop, sink: &mut dyn FnMut(&EventBody)) -> Result<RewardModelReport, RunError> {
    let mut job = job.clone();
    job.files = Arc::new(Above::of("runs", job.files));
    let task = Task::load(&job.config.task, &|path| job.files.read(path)).map_err(RunError::Failed)?;
    fits(&job, &task, Stage::RewardModel)?;
    let (device, report) = choose(job.config.device).map_err(|e| RunError::BadInput(format!("device: {e:#}")))?;
    let mut tell = |body: EventBody| sink(&body);
    let progress = &mut Progress { sink: &mut tell, stop };
    on!(device, reward_alone(&job, task, report, progress)).map_err(|error| RunError::of(error, stop))
}

/// Memory of a run in its largest moment here, up to its stage `last`; `None` where that is not known. What evaluates the policies of another
/// run trains nothing.
fn needed(job: &Job, objectives: &[Objective], last: Stage) -> Option<Memory> {
    let all = memory::moments(&job.config, objectives, rayon::current_num_threads(), &|path| job.files.read(path));
    let evaluates = fork::evaluated(job).is_ok_and(|run| run.is_some());
    largest(all.into_iter().filter(|m| m.stage <= last && (!evaluates || m.stage == Stage::Evaluation)))
}

/// Why a run does not fit into this machine's memory; a graphics card has memory of its own.
fn too_large(job: &Job, objectives: &[Objective], last: Stage) -> Option<Problem> {
    let free = memory::available_mib().filter(|_| matches!(choose(job.config.device), Ok((Device::Cpu(_), _))))?;
    memory::problem(&job.config, &needed(job, objectives, last)?, free)
}

/// Whether the configuration fits the task and the machine, up to the stage `last`.
fn fits(job: &Job, task: &Task, last: Stage) -> Result<(), RunError> {
    let mut problems = job.config.problems(&task.objectives);
    problems.extend(too_large(job, &task.objectives, last));
    if problems.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect();
    Err(RunError::BadInput(lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::files::{Files, Memory};
    use moslim_shared::config::PolicyOptimizer;
    use moslim_shared::presets;

    /// A run that ranks train has the figures and the weights of one that is trained alone; also when it is stopped and goes on with
    /// another number of them.
    #[test]
    fn the_number_of_ranks_changes_nothing() {
        let mut config = presets::find("smoke").unwrap().config;
        config.policy.optimizer = PolicyOptimizer::Ppo;
        config.policy.checkpoint_every = 3;
        let outcome = |files: &Memory| {
            let read = |name: &str| files.read(&format!("runs/a/{name}")).unwrap();
            let summary: RunSummary = serde_json::from_slice(&read("summary.json").unwrap()).unwrap();
            (read("policy.safetensors").unwrap(), summary.control, summary.front, summary.kl_frontier)
        };
        let train_with = |files: &Arc<Memory>, size: usize, stop_at: Option<usize>| {
            let job = Job::new("a", config.clone(), files.clone());
            ranks::tests::run(size, |rank| {
                let stop = Stop::default();
                let mut told = 0;
                let mut sink = |body: &EventBody| {
                    told += 1;
                    // The last alone is asked to stop; all do.
                    if rank + 1 == size && matches!(body, EventBody::Policy { step, .. } if Some(step.step) == stop_at) {
                        stop.interrupt();
                    }
                };
                let ranks = ranks::tests::here();
                let result = train_as(ranks, &job, &stop, &mut sink);
                (result.is_ok(), matches!(result, Err(RunError::Stopped(_))), told)
            })
        };
        let alone = Arc::new(Memory::default());
        assert!(train_with(&alone, 1, None)[0].0);
        let (together, later) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
        assert!(train_with(&together, 3, None).iter().all(|r| r.0));
        assert!(outcome(&alone) == outcome(&together), "three ranks");
        assert!(train_with(&later, 2, Some(5)).iter().all(|r| r.1), "both stop");
        assert!(later.read("runs/a/checkpoint-policy.bin").unwrap().is_some());
        assert!(train_with(&later, 3, None).iter().all(|r| r.0));
        assert!(outcome(&alone) == outcome(&later), "two ranks, then three");
        // The journal is the first one's: every event once.
        let events = |files: &Memory| files.read("runs/a/events.jsonl").unwrap().unwrap().iter().filter(|b| **b == b'\n').count();
        assert_eq!(events(&alone), events(&together));
    }

    #[test]
    fn panics_keep_their_message() {
        let panics: [Box<dyn Any + Send>; 2] = [Box::new("gone"), Box::new(String::from("gone"))];
        for panic in panics {
            assert_eq!(panicked(&*panic).to_string(), "internal error: gone");
        }
    }
}
