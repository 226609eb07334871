//! The data folder: what lies where, and who may write it.

use crate::id::RunId;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Environment variable that names the data folder.
const VARIABLE: &str = "MOSLIM_LAB_DATA";

/// The data folder of a laboratory.
#[derive(Debug, Clone)]
pub struct DataFolder {
    root: PathBuf,
}

impl DataFolder {
    /// The folder given on the command line, else the one in `MOSLIM_LAB_DATA`, else `lab-data` in the current folder.
    pub fn resolve(given: Option<PathBuf>) -> Self {
        let variable = || std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
        let root = given.or_else(variable).unwrap_or_else(|| PathBuf::from("lab-data"));
        // Absolute, so that messages say where it is. Without a current folder the relative path is as good as any.
        Self { root: std::path::absolute(&root).unwrap_or(root) }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a run.
    pub fn run(&self, id: &RunId) -> PathBuf {
        self.root.join("runs").join(id.as_str())
    }

    /// The configuration of a run.
    pub fn config(&self, id: &RunId) -> PathBuf {
        self.run(id).join("config.json")
    }

    /// The folder of all studies.
    pub fn studies(&self) -> PathBuf {
        self.root.join("studies")
    }

    /// The folder of a study.
    pub fn study(&self, id: &RunId) -> PathBuf {
        self.studies().join(id.as_str())
    }

    /// The server's database.
    pub fn database(&self) -> PathBuf {
        self.root.join("lab.db")
    }

    /// The file that a running server holds locked.
    pub fn lock(&self) -> PathBuf {
        self.root.join("server.lock")
    }

    /// Locks a run for this process: two that write one run's checkpoints would spoil them. The patience is for the worker
    /// of a server that was killed, which takes a moment to write its checkpoint and go.
    ///
    /// # Errors
    /// When another process trains the run, or its folder cannot be written.
    pub fn lock_run(&self, id: &RunId, patience: Duration) -> Result<File, String> {
        let folder = self.run(id);
        let held = fs::create_dir_all(&folder).and_then(|()| lock_file(&folder.join("run.lock"), patience));
        match held {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(format!("run: another process trains {id}; wait for it or stop it")),
            Err(error) => Err(format!("data: {} cannot be written: {error}", folder.display())),
        }
    }

    /// Creates the folder and writes a file into it, to fail early and in words.
    ///
    /// # Errors
    /// When it cannot be created or written; the message names the folder and what to do.
    pub fn create(&self) -> Result<(), String> {
        let probe = self.root.join(format!(".probe-{}", std::process::id()));
        fs::create_dir_all(&self.root).and_then(|()| File::create(&probe)).and_then(|_| fs::remove_file(&probe)).map_err(|e| {
            let root = self.root.display();
            format!("data: the folder {root} cannot be written ({e}); name another with --data or {VARIABLE}")
        })
    }
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
            Err(TryLockError::WouldBlock) if began.elapsed() < patience => std::thread::sleep(Duration::from_millis(200)),
            Err(TryLockError::WouldBlock) => return Ok(None),
            // Some network file systems have no locks. Then it is the user who must not start two.
            Err(TryLockError::Error(error)) => {
                tracing::warn!("{} cannot be locked ({error}); do not use it from two processes", path.display());
                return Ok(Some(file));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_trained_once_at_a_time() {
        let root = std::env::temp_dir().join(format!("moslim-run-lock-{}", std::process::id()));
        let (data, id) = (DataFolder::resolve(Some(root.clone())), RunId::fresh());
        let held = data.lock_run(&id, Duration::ZERO).unwrap();
        assert!(data.lock_run(&id, Duration::ZERO).unwrap_err().contains(id.as_str()));
        drop(held);
        assert!(data.lock_run(&id, Duration::ZERO).is_ok());
        fs::remove_dir_all(root).unwrap();
    }
}
