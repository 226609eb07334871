//! The data folder: what lies where, and who may write it.

mod trash;

pub use trash::{Discarded, Emptied, TRASH_DAYS, bytes_in};

use crate::id::RunId;
use crate::launch::process;
use anyhow::Context;
use moslim_engine::data::{Task, ratings};
use moslim_engine::keep::files::{Disk, Files};
use moslim_engine::keep::{Job, read_checked, read_config, sums, write_atomically};
use moslim_shared::config::{Problem, RunConfig, TaskConfig};
use moslim_shared::objective::Objective;
use moslim_shared::ratings::RatingsTask;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Environment variable that names the data folder.
const VARIABLE: &str = "MOSLIM_LAB_DATA";

/// Who looks whether a run is taken holds its lock for a moment.
const PATIENCE: Duration = Duration::from_secs(1);

/// Room on a disk, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub free: u64,
    pub all: u64,
}

/// Bytes that are kept free for runs that train already, at most a twentieth of the disk.
const RESERVE: u64 = 256 << 20;

impl Room {
    /// Why nothing new should begin here, if it should not.
    pub fn problem(self) -> Option<String> {
        let reserve = RESERVE.min(self.all / 20);
        (self.free < reserve).then(|| {
            format!(
                "{} MiB are free on the data folder's disk, and {} MiB are kept for what trains",
                self.free >> 20,
                reserve >> 20
            )
        })
    }
}

/// The imported tasks of a data folder.
#[derive(Debug, Default)]
pub struct Tasks {
    /// By name.
    pub tasks: Vec<RatingsTask>,
    /// What is wrong with the others, each with its file.
    pub damaged: Vec<String>,
}

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

    /// # Errors
    /// Where nothing new should begin, because the disk is almost full; for people.
    pub fn check_room(&self) -> Result<(), String> {
        self.room().and_then(Room::problem).map_or(Ok(()), Err)
    }

    /// The folder of a run.
    pub fn run(&self, id: &RunId) -> PathBuf {
        self.root.join("runs").join(id.as_str())
    }

    /// The folder of all runs.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Room on the disk that the folder lies on; `None` where the system does not tell.
    pub fn room(&self) -> Option<Room> {
        #[cfg(unix)]
        {
            let told = rustix::fs::statvfs(&self.root).ok()?;
            Some(Room { free: told.f_bavail * told.f_frsize, all: told.f_blocks * told.f_frsize })
        }
        #[cfg(not(unix))]
        None
    }

    /// The folder of all studies.
    pub fn studies(&self) -> PathBuf {
        self.root.join("studies")
    }

    /// The folder of a study.
    pub fn study(&self, id: &RunId) -> PathBuf {
        self.studies().join(id.as_str())
    }

    /// The server's index of runs, which can be made anew.
    pub fn index(&self) -> PathBuf {
        self.root.join("index.db")
    }

    /// The database that held the events of runs before runs had journals.
    pub fn old_database(&self) -> PathBuf {
        self.root.join("lab.db")
    }

    /// What was started under the keys of requests.
    pub fn starts(&self) -> PathBuf {
        self.root.join("starts")
    }

    /// The file with the server's own token.
    pub fn token(&self) -> PathBuf {
        self.root.join("token")
    }

    /// The file with the secret that the server makes browsers' cookies with.
    pub fn cookie_key(&self) -> PathBuf {
        self.root.join("cookie-key")
    }

    /// The file that sends a browser to the server's page, for the moment in which it is opened.
    pub fn opening(&self) -> PathBuf {
        self.root.join("open.html")
    }

    /// The file that a running server holds locked.
    pub fn lock(&self) -> PathBuf {
        self.root.join("server.lock")
    }

    /// A file of the folder; `None` where there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(&self, path: &str) -> std::io::Result<Option<Vec<u8>>> {
        Disk(self.root.clone()).read(path)
    }

    /// Every imported task, and what is wrong with those that cannot be read.
    ///
    /// # Errors
    /// When the folder of tasks cannot be read.
    pub fn tasks(&self) -> anyhow::Result<Tasks> {
        let folder = Disk(self.root.join(ratings::FOLDER));
        let mut names = folder.list("").with_context(|| format!("reading {}", folder.0.display()))?;
        names.retain(|name| folder.0.join(name).join(ratings::FILE).is_file());
        names.sort_unstable();
        let mut known = Tasks::default();
        for name in names {
            match ratings::about(&name, &|path| self.read(path)) {
                Ok(task) => known.tasks.push(task),
                Err(error) => known.damaged.push(format!("{error:#}")),
            }
        }
        Ok(known)
    }

    /// Writes down what is known of an imported task.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_task(&self, task: &RatingsTask) -> anyhow::Result<()> {
        let tasks = Disk(self.root.join(ratings::FOLDER));
        sums::write(&tasks, &task.name, ratings::FILE, &serde_json::to_vec_pretty(task)?)
    }

    /// The objectives of the task that a configuration names.
    ///
    /// # Errors
    /// When there is no such task, or it is damaged.
    pub fn objectives(&self, task: &TaskConfig) -> Result<Vec<Objective>, Problem> {
        let wrong = |e: anyhow::Error| {
            let message = format!("{e:#}");
            Problem { field: "task.name".into(), message: message.strip_prefix("task.name: ").unwrap_or(&message).into() }
        };
        Task::objectives_of(task, &|path| self.read(path)).map_err(wrong)
    }

    /// Takes a run for this process: two that write one run's checkpoints would spoil them.
    ///
    /// # Errors
    /// When another process trains the run, or its folder cannot be written.
    pub fn take_run(&self, id: &RunId) -> Result<File, String> {
        match process::take(&self.run(id), PATIENCE) {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => Err(format!("run: another process trains {id}; wait for it or stop it")),
            Err(error) => Err(format!("data: {error:#}")),
        }
    }

    /// The files of this folder, as the engine knows them.
    pub fn files(&self) -> Arc<dyn Files> {
        Arc::new(Disk(self.root.clone()))
    }

    /// A run of this folder with a configuration.
    pub fn job(&self, id: &RunId, config: RunConfig) -> Job {
        Job::new(id.as_str(), config, self.files())
    }

    /// The configuration of a run, if it has one.
    ///
    /// # Errors
    /// When it is damaged; the message names the file.
    pub fn read_config(&self, id: &RunId) -> anyhow::Result<Option<RunConfig>> {
        let folder = self.run(id);
        if !folder.join("config.toml").exists() && !folder.join("config.json").exists() {
            return Ok(None);
        }
        let files = Disk(folder.clone());
        read_config(|file| files.read(file)).map(Some).with_context(|| format!("in {}", folder.display()))
    }

    /// Makes the folder, for its owner alone: what is in it says what people asked and rated.
    fn make_root(&self) -> std::io::Result<()> {
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
        folder.create(&self.root)
    }

    /// Creates the folder and writes a file into it, to fail early and in words. A full disk is said, and no reason to fail.
    ///
    /// # Errors
    /// When it cannot be created or written; the message names the folder and what to do.
    pub fn create(&self) -> Result<(), String> {
        let made = self.make_root().and_then(|()| self.probe());
        if made.as_ref().is_err_and(|e| matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)) {
            // What is there can be looked at, and deleted.
            tracing::warn!("the disk of the data folder {} is full", self.root.display());
            return Ok(());
        }
        made.map_err(|e| {
            let root = self.root.display();
            format!("data: the folder {root} cannot be written ({e}); name another with --data or {VARIABLE}")
        })
    }

    /// Whether the folder of a server that runs is there, and holds what is written into it. It is not made: whoever asks wants to
    /// hear that it has gone.
    ///
    /// # Errors
    /// When it has gone, another is in its place, or a file is not read back as it was written; the message names the folder.
    pub fn check(&self) -> Result<(), String> {
        let root = self.root.display();
        if !self.root.is_dir() {
            return Err(format!("data: the folder {root} has gone"));
        }
        // A disk that is not mounted any more leaves an empty folder in which one can write very well.
        if !self.lock().is_file() {
            return Err(format!(
                "data: the folder {root} is not the one that the server has begun with; what it has locked is not there"
            ));
        }
        self.probe().map_err(|e| format!("data: the folder {root} cannot be used: {e}"))
    }

    /// Writes a file, reads it back, and removes it. Its name is nobody else's, for many may do this at a time.
    fn probe(&self) -> std::io::Result<()> {
        let (process, unique) = (std::process::id(), RandomState::new().build_hasher().finish());
        let (path, written) = (self.root.join(format!("{PROBE}{process}-{unique:016x}")), unique.to_le_bytes());
        let tried = (|| {
            let mut file = File::create_new(&path)?;
            file.write_all(&written)?;
            file.sync_all()?;
            let read = fs::read(&path)?;
            if read == written { Ok(()) } else { Err(std::io::Error::other("what was written is not what is read")) }
        })();
        let removed = fs::remove_file(&path);
        tried.and(removed)
    }
}

/// Beginning of the names of files that are written to see whether one can.
const PROBE: &str = ".probe-";

/// The process that has written a file of this name to see whether it can; `None` where the name is no such one.
pub fn prober(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PROBE)?;
    let (process, unique) = rest.split_once('-').unwrap_or((rest, ""));
    let plain = process.bytes().all(|b| b.is_ascii_digit()) && unique.bytes().all(|b| b.is_ascii_hexdigit());
    process.parse().ok().filter(|_| plain)
}

/// Writes a file whole or not at all.
///
/// # Errors
/// When it cannot be written; the message names it.
pub fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_atomically(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// What a file of a folder holds, as it was written; `None` where there is none.
///
/// # Errors
/// When it cannot be read or understood, or has changed since; the message names it.
pub fn read_sound<T: DeserializeOwned>(folder: &Path, name: &str) -> anyhow::Result<Option<T>> {
    let read = |name: &str| match std::fs::read(folder.join(name)) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    };
    let sound = || -> anyhow::Result<Option<T>> {
        let bytes = read_checked(&read, name)?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    };
    sound().with_context(|| format!("reading {}", folder.join(name).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_kept_that_fits_the_disk() {
        let room = |free: u64, all: u64| Room { free: free << 20, all: all << 20 }.problem();
        assert!(room(257, 100_000).is_none() && room(2, 24).is_none());
        assert!(room(255, 100_000).unwrap().contains("255 MiB are free"));
        assert!(room(1, 24).is_some());
    }

    #[test]
    fn a_folder_is_checked_by_many_at_a_time_and_missed_when_it_has_gone() {
        let place = tempfile::tempdir().unwrap();
        let data = DataFolder::resolve(Some(place.path().join("data")));
        assert!(data.check().unwrap_err().contains("has gone") && !data.root().exists(), "a check makes no folder");
        data.create().unwrap();
        assert!(data.check().unwrap_err().contains("is not the one"), "nothing in it is a server's");
        fs::write(data.lock(), "").unwrap();
        std::thread::scope(|all| {
            for _ in 0..8 {
                all.spawn(|| (0..20).for_each(|_| data.check().unwrap()));
            }
        });
        let left: Vec<_> = fs::read_dir(data.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["server.lock"]);
        let own = format!("{PROBE}{}-00000000000000ff", std::process::id());
        assert_eq!((prober(&own), prober(".probe-7")), (Some(std::process::id()), Some(7)));
        for other in [".probe-", ".probe-x", ".probe-7-notes", ".probe-+7", "probe-7", ".probe-7.txt"] {
            assert_eq!(prober(other), None, "{other}");
        }
    }

    #[test]
    fn a_run_is_trained_once_at_a_time() {
        let root = std::env::temp_dir().join(format!("moslim-run-lock-{}", std::process::id()));
        let (data, id) = (DataFolder::resolve(Some(root.clone())), RunId::fresh());
        let held = data.take_run(&id).unwrap();
        assert!(data.take_run(&id).unwrap_err().contains(id.as_str()));
        drop(held);
        assert!(data.take_run(&id).is_ok());
        fs::remove_dir_all(root).unwrap();
    }
}
