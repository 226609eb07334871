//! How processes of the lab are started, stopped and asked whether they live. A process writes its own folder and is known by
//! it: who started it does not matter, and it outlives who did.
//!
//! Here belongs what starts processes, one file for each way. What they do is a command's business, what they wrote `follow.rs`'s.

pub mod limits;
mod local;
pub mod process;
pub mod ranks;
pub mod ray;
pub mod slurm;

pub use local::{LOG, Local};
pub use ray::Ray;
pub use slurm::Slurm;

use crate::folder::write_file;
use anyhow::Context;
use moslim_engine::keep::checkpoint::PAUSE;
use moslim_shared::study::Host;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A process to be started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Arguments of `moslim-lab`.
    pub args: Vec<OsString>,
    /// The folder that it writes and is known by.
    pub folder: PathBuf,
    /// Threads that it may compute with; as many as there are cores when not given.
    pub threads: Option<usize>,
}

/// How a process is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A person does not want it any more: it ends at its next step.
    Cancel,
    /// It has to go, and will be resumed: it ends at its next step.
    Interrupt,
    /// A person wants it to make room for a while: it ends at its next step, and has been paused.
    Pause,
    /// At once.
    Kill,
}

/// Whether the process of a folder lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    Running,
    /// It waits for its turn; for what.
    Waiting(String),
    /// It is gone; how, where that is known.
    Gone(Option<String>),
}

/// What is in the folder of a study, and not in that of a run.
const STUDY: &str = "study.json";

/// Tells what a run or a study has, on a cluster or on this machine, to end; false where it has nothing.
///
/// # Errors
/// When it cannot be told.
pub fn stop(launcher: &dyn Launcher, folder: &Path, ending: Ending) -> anyhow::Result<bool> {
    let mark = match ending {
        Ending::Pause => Some(folder.join(PAUSE)),
        Ending::Kill => Some(folder.join(process::KILLED)),
        Ending::Cancel | Ending::Interrupt => None,
    };
    // It is there before the process ends, for whoever asks why it did.
    if let Some(mark) = &mark {
        match write_file(mark, b"") {
            // What has to go at once goes, also from a full disk.
            Err(error) if ending == Ending::Kill => tracing::warn!("that it was killed cannot be noted: {error:#}"),
            written => written?,
        }
    }
    // A process that trains on another machine is told by the cluster alone; one that follows a study is here, and is told whatever the
    // cluster says.
    let there = slurm::stop(folder, ending).and_then(|slurm| Ok(slurm | ray::stop(folder)?));
    // A run's process is told once, also where the cluster's node is this machine: told twice, it ends without a checkpoint.
    let is_told = ending != Ending::Kill && matches!(there, Ok(true)) && is_elsewhere(folder);
    let here = !is_told && launcher.stop(folder, ending)?;
    let told = match there {
        Ok(there) => there | here,
        Err(error) if here => {
            tracing::warn!("{}: what it has on a cluster cannot be told to end: {error:#}", folder.display());
            true
        }
        Err(error) => return Err(error),
    };
    if told && folder.join(STUDY).is_file() && !process::is_taken(folder) {
        // Nobody follows it, and nobody is to take it up again.
        let _ = std::fs::remove_file(folder.join(process::ABOUT));
    }
    if let (false, Some(mark)) = (told, &mark) {
        let _ = std::fs::remove_file(mark);
    }
    Ok(told)
}

/// Whether a run trains on a cluster, and not on this machine.
pub fn is_elsewhere(run: &Path) -> bool {
    slurm::is_task(run) || ray::is_task(run)
}

/// A run that a cluster had goes on on this machine: what it still has there is told to end, and it is the cluster's no more.
fn bring_home(run: &Path) -> anyhow::Result<()> {
    if !is_elsewhere(run) {
        return Ok(());
    }
    // A cluster that is gone must keep nobody from going on here.
    for told in [slurm::stop(run, Ending::Interrupt), ray::stop(run)] {
        told.inspect_err(|error| tracing::warn!("{}: its cluster cannot be told that it goes on here: {error:#}", run.display()))
            .ok();
    }
    slurm::leave(run)?;
    ray::leave(run)
}

/// Words of a shell, each in quotes.
fn quoted(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<String> {
    let quote = |word: &OsStr| {
        let text = word.to_str().with_context(|| format!("{} is not UTF-8", word.display()))?;
        Ok(format!("'{}'", text.replace('\'', r"'\''")))
    };
    Ok(words.into_iter().map(|w| quote(w.as_ref())).collect::<anyhow::Result<Vec<_>>>()?.join(" "))
}

/// How a run went that was stopped while it waited in its job.
pub const NOT_BEGUN: &str = "it was stopped before it began";

/// What a run waits for whose cluster has not said how it is.
const SILENT: &str = "the cluster does not answer";

/// Whether a cluster answers. That it does not is said once, and once that it does again.
#[derive(Default)]
struct Hearing {
    silent: bool,
}

impl Hearing {
    /// Takes what a cluster has answered, or that it has not.
    fn hear<T>(&mut self, answer: anyhow::Result<T>) -> Option<T> {
        let was_silent = std::mem::replace(&mut self.silent, answer.is_err());
        match &answer {
            Err(error) if !was_silent => tracing::warn!("the cluster does not answer, and is asked again: {error:#}"),
            Ok(_) if was_silent => tracing::warn!("the cluster answers again"),
            _ => {}
        }
        answer.ok()
    }
}

/// A way to run processes: on this machine, or on a cluster.
pub trait Launcher: Send + Sync {
    /// Starts a process; it goes on when the caller ends.
    ///
    /// # Errors
    /// When it cannot be started.
    fn start(&self, launch: &Launch) -> anyhow::Result<()>;

    /// Where its processes are.
    fn host(&self) -> Host {
        Host::Here
    }

    /// MiB that the process of a run may take on this machine, where somebody has said so.
    fn memory(&self) -> Option<u64> {
        None
    }

    /// How many of a study's processes it takes at a time, where that is not for this machine to say.
    fn at_a_time(&self) -> Option<usize> {
        None
    }

    /// The cluster, where this is one that wants a study as a whole: it has a queue of its own, and wants everything at once.
    fn queue(&self) -> Option<&Slurm> {
        None
    }

    /// Tells the process of a folder to end; false when there is none.
    ///
    /// # Errors
    /// When it cannot be told.
    fn stop(&self, folder: &Path, ending: Ending) -> anyhow::Result<bool>;

    /// Whether the process of a folder lives.
    fn poll(&self, folder: &Path) -> Life;

    /// Forgets how the last process of a folder went: the next one is about to be started.
    fn forget(&self, _folder: &Path) {}
}

#[cfg(test)]
mod tests {
    use super::Hearing;
    use std::io::{Read, Seek};
    use std::sync::Arc;

    #[test]
    fn the_silence_of_a_cluster_is_said_once_and_so_is_its_end() {
        let mut log = tempfile::tempfile().unwrap();
        let writer = Arc::new(log.try_clone().unwrap());
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
        let answers = [Ok(1), Err("no route"), Err("refused"), Ok(2), Ok(3), Err("timed out")];
        let heard = tracing::subscriber::with_default(subscriber, || {
            let mut hearing = Hearing::default();
            answers.map(|answer| hearing.hear(answer.map_err(anyhow::Error::msg)))
        });
        assert_eq!(heard, [Some(1), None, None, Some(2), Some(3), None]);
        let mut said = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut said).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        for (line, words) in lines.iter().zip(["asked again: no route", "answers again", "asked again: timed out"]) {
            assert!(line.contains(words), "{said}");
        }
    }
}
