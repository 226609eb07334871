//! How a process is known by the folder that it writes: a lock, which the kernel releases with the process, and a file that says
//! who holds it.

use anyhow::{Context, Result};
use moslim_engine::keep::checkpoint::PAUSE;
use moslim_engine::keep::write_patiently;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// The lock's name in a folder, and that of the file beside it.
const LOCK: &str = "process.lock";
pub const ABOUT: &str = "process.json";
/// Says in a folder that a person had its process killed.
pub const KILLED: &str = "process.killed";

/// Which process holds a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// When it started, in the kernel's clock ticks since boot; tells a process from a later one of the same number. 0 where the
    /// system does not tell.
    pub started: u64,
    /// The machine that it is on.
    #[serde(default)]
    pub host: String,
}

/// The name of this machine, where the system tells it.
fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_string()).unwrap_or_default()
}

impl Process {
    /// This process.
    pub fn this() -> Self {
        let pid = std::process::id();
        Self { pid, started: start_time(pid).unwrap_or(0), host: host() }
    }

    /// Whether this very process lives on this machine, as far as the system tells.
    pub fn lives(&self) -> bool {
        (self.host.is_empty() || self.host == host()) && start_time(self.pid).is_none_or(|started| started == self.started)
    }
}

/// Start time of a process, from the 22nd field of its status. The second one, its name, may hold anything up to the last `)`.
fn start_time(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    status.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Opens and locks a file; the lock goes with the file, at the latest with the process. None if another process still
/// holds it after `patience`.
///
/// # Errors
/// When the file cannot be made.
pub fn lock_file(path: &Path, patience: Duration) -> io::Result<Option<File>> {
    let file = File::create(path)?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if began.elapsed() < patience => std::thread::sleep(Duration::from_millis(20)),
            Err(TryLockError::WouldBlock) => return Ok(None),
            // Some network file systems have no locks. Then it is the user who must not start two.
            Err(TryLockError::Error(error)) => {
                tracing::warn!("{} cannot be locked ({error}); do not use it from two processes", path.display());
                return Ok(Some(file));
            }
        }
    }
}

/// Takes a folder for this process, as long as the result lives. The patience is for who looks whether it is taken.
///
/// # Errors
/// When the folder cannot be written.
pub fn take(folder: &Path, patience: Duration) -> Result<Option<File>> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let Some(lock) = lock_file(&folder.join(LOCK), patience).with_context(|| format!("locking {}", folder.display()))? else {
        return Ok(None);
    };
    // What was wished of the process before is not meant for this one.
    for wish in [PAUSE, KILLED] {
        let _ = fs::remove_file(folder.join(wish));
    }
    let about = serde_json::to_vec(&Process::this())?;
    write_patiently(&folder.join(ABOUT), &about).with_context(|| format!("writing {}", folder.join(ABOUT).display()))?;
    Ok(Some(lock))
}

/// Whether a process holds a folder.
pub fn is_taken(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join(LOCK)) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The process that holds a folder, if one does.
pub fn holder(folder: &Path) -> Option<Process> {
    if !is_taken(folder) {
        return None;
    }
    let about: Process = serde_json::from_slice(&fs::read(folder.join(ABOUT)).ok()?).ok()?;
    about.lives().then_some(about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_process_at_a_time_which_is_known() {
        let folder = std::env::temp_dir().join(format!("moslim-process-{}", std::process::id()));
        assert!(!is_taken(&folder) && holder(&folder).is_none());
        let held = take(&folder, Duration::ZERO).unwrap();
        assert!(held.is_some() && is_taken(&folder));
        assert!(take(&folder, Duration::ZERO).unwrap().is_none());
        assert_eq!(holder(&folder), Some(Process::this()));
        // The number of a process that has gone may be another one's by now.
        let reused = Process { started: Process::this().started + 1, ..Process::this() };
        assert!(!reused.lives() || start_time(std::process::id()).is_none());
        // On a disk that machines share, a process of another one is not to be told anything.
        assert!(Process::this().lives() && !Process { host: "another".into(), ..Process::this() }.lives());
        drop(held);
        for wish in [PAUSE, KILLED] {
            fs::write(folder.join(wish), "").unwrap();
        }
        // A program that another test starts meanwhile has the lock, too, for the instant before it is that program.
        assert!(take(&folder, Duration::from_secs(20)).unwrap().is_some());
        assert!(!folder.join(PAUSE).exists() && !folder.join(KILLED).exists(), "they were the last one's");
        fs::remove_dir_all(folder).unwrap();
    }
}
