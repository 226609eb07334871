//! Runs that were deleted, until they are gone for good.

use super::DataFolder;
use crate::id::RunId;
use anyhow::Context;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use utoipa::ToSchema;

/// Days that a deleted run can be had back.
pub const TRASH_DAYS: u64 = 30;

/// Beginning of the names of folders that are being removed for good: nobody has them back.
const GOING: &str = ".gone-";

/// A run in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Discarded {
    pub id: String,
    /// When it was deleted, milliseconds since the Unix epoch.
    pub deleted: u64,
    /// Of all its files.
    pub bytes: u64,
}

/// What went from the trash for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Emptied {
    pub runs: usize,
    pub bytes: u64,
}

impl DataFolder {
    fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// What lies in the trash.
    fn in_trash(&self) -> anyhow::Result<Vec<fs::DirEntry>> {
        let read = match fs::read_dir(self.trash()) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.and_then(|all| all.collect::<io::Result<Vec<_>>>()),
        };
        read.with_context(|| format!("reading {}", self.trash().display()))
    }

    /// Runs in the trash, those that were deleted last first. What was left by a process that was killed while it removed something goes:
    /// it is nobody's run, and takes room.
    ///
    /// # Errors
    /// When the trash cannot be read.
    pub fn discarded(&self) -> anyhow::Result<Vec<Discarded>> {
        let of = |entry: fs::DirEntry| {
            let id: RunId = entry.file_name().to_str()?.parse().ok()?;
            let deleted = entry.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let deleted = u64::try_from(deleted.as_millis()).unwrap_or(u64::MAX);
            Some(Discarded { id: id.to_string(), deleted, bytes: bytes_in(&entry.path()) })
        };
        let (left, runs): (Vec<_>, Vec<_>) = self.in_trash()?.into_iter().partition(is_going);
        for entry in left {
            if let Err(error) = remove(&entry.path()) {
                tracing::warn!("what was to be gone is still in the trash: {error:#}");
            }
        }
        let mut all: Vec<Discarded> = runs.into_iter().filter_map(of).collect();
        all.sort_by(|a, b| b.deleted.cmp(&a.deleted).then_with(|| b.id.cmp(&a.id)));
        Ok(all)
    }

    /// Moves a run into the trash. What was there under its name, an older one, goes.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn discard(&self, id: &RunId) -> anyhow::Result<()> {
        let (from, to) = (self.run(id), self.trash().join(id.as_str()));
        fs::create_dir_all(self.trash()).with_context(|| format!("creating {}", self.trash().display()))?;
        remove(&to)?;
        fs::rename(&from, &to).with_context(|| format!("moving {} to {}", from.display(), to.display()))?;
        // Its time in the trash begins now.
        let _ = File::open(&to).and_then(|folder| folder.set_modified(SystemTime::now()));
        Ok(())
    }

    /// Moves a run back out of the trash; false where it is not there.
    ///
    /// # Errors
    /// When another run has its name meanwhile, or it cannot be moved.
    pub fn restore(&self, id: &RunId) -> anyhow::Result<bool> {
        let (from, to) = (self.trash().join(id.as_str()), self.run(id));
        if !from.is_dir() {
            return Ok(false);
        }
        anyhow::ensure!(!to.exists(), "there is another run {id} meanwhile");
        fs::create_dir_all(self.runs()).with_context(|| format!("creating {}", self.runs().display()))?;
        fs::rename(&from, &to).with_context(|| format!("moving {} to {}", from.display(), to.display()))?;
        Ok(true)
    }

    /// Removes what has been in the trash for longer than `age`, and what a killed process had left of it; returns how many runs that were.
    ///
    /// # Errors
    /// When one cannot be removed; all others are gone.
    pub fn empty_trash(&self, age: Duration) -> anyhow::Result<usize> {
        let (mut gone, mut failed) = (0, Ok(()));
        for entry in self.in_trash()? {
            let old = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok()).is_some_and(|a| a >= age);
            if !old && !is_going(&entry) {
                continue;
            }
            match self.remove_discarded(&entry.path()) {
                Ok(()) => gone += usize::from(!is_going(&entry)),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed.map(|()| gone)
    }

    /// Removes for good whatever is in the trash, or one run of it; `None` where that is not there.
    ///
    /// # Errors
    /// When something cannot be removed; all else is gone.
    pub fn empty_trash_of(&self, run: Option<&RunId>) -> anyhow::Result<Option<Emptied>> {
        let wanted = |entry: &fs::DirEntry| is_going(entry) || run.is_none_or(|id| entry.file_name() == id.as_str());
        let (mut done, mut failed) = (Emptied::default(), Ok(()));
        for entry in self.in_trash()?.into_iter().filter(wanted) {
            let bytes = bytes_in(&entry.path());
            match self.remove_discarded(&entry.path()) {
                Ok(()) => {
                    // What was left half removed by a process that was killed is no run any more.
                    done.runs += usize::from(!is_going(&entry));
                    done.bytes += bytes;
                }
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed.map(|()| (run.is_none() || done.runs > 0).then_some(done))
    }

    /// Removes something of the trash for good. It gets another name first, so that nobody has half of it back meanwhile.
    fn remove_discarded(&self, path: &Path) -> anyhow::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(GOING) {
            return remove(path);
        }
        let going = self.trash().join(format!("{GOING}{name}"));
        remove(&going)?;
        match fs::rename(path, &going) {
            // Somebody has had it back, or has removed it.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            renamed => {
                renamed.with_context(|| format!("moving {}", path.display()))?;
                remove(&going)
            }
        }
    }
}

/// Whether something in the trash is being removed for good, or was when its process was killed.
fn is_going(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with(GOING)
}

/// Bytes of all files below a folder, links not followed.
pub fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => bytes_in(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

/// Removes a folder with all that is in it, or a file; nothing where there is neither.
fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| format!("removing {}", path.display())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deleted_can_be_had_back_for_a_while() {
        let root = std::env::temp_dir().join(format!("moslim-trash-{}", std::process::id()));
        let (data, id) = (DataFolder::resolve(Some(root.clone())), RunId::fresh());
        fs::create_dir_all(data.run(&id)).unwrap();
        fs::write(data.run(&id).join("a"), "1").unwrap();
        data.discard(&id).unwrap();
        assert!(!data.run(&id).exists());
        assert_eq!(data.empty_trash(Duration::from_secs(60)).unwrap(), 0, "it is young");
        assert!(data.restore(&id).unwrap() && !data.restore(&id).unwrap());
        assert_eq!(fs::read_to_string(data.run(&id).join("a")).unwrap(), "1");
        data.discard(&id).unwrap();
        fs::create_dir_all(data.run(&id)).unwrap();
        assert!(data.restore(&id).unwrap_err().to_string().contains("another run"));
        // Deleted again under the same name: the older one goes.
        data.discard(&id).unwrap();
        assert_eq!((data.empty_trash(Duration::ZERO).unwrap(), data.restore(&id).unwrap()), (1, false));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_is_in_the_trash_is_listed_and_goes_for_good_one_by_one_or_all_at_once() {
        let place = tempfile::tempdir().unwrap();
        let data = DataFolder::resolve(Some(place.path().into()));
        assert_eq!((data.discarded().unwrap(), data.empty_trash_of(None).unwrap()), (vec![], Some(Emptied::default())));
        let [a, b, c] = ["a-1", "b-1", "c-1"].map(|id| id.parse::<RunId>().unwrap());
        for (days, (id, bytes)) in [(&a, 10), (&b, 200), (&c, 3_000)].into_iter().enumerate() {
            fs::create_dir_all(data.run(id).join("models")).unwrap();
            fs::write(data.run(id).join("models/x"), vec![0; bytes]).unwrap();
            data.discard(id).unwrap();
            let at = SystemTime::now() - Duration::from_secs(days as u64 * 24 * 3600);
            File::open(data.trash().join(id.as_str())).unwrap().set_modified(at).unwrap();
        }
        let listed = || data.discarded().unwrap().into_iter().map(|one| (one.id, one.bytes)).collect::<Vec<_>>();
        assert_eq!(listed(), [("a-1".into(), 10), ("b-1".into(), 200), ("c-1".into(), 3_000)]);
        assert_eq!(data.empty_trash_of(Some(&b)).unwrap(), Some(Emptied { runs: 1, bytes: 200 }));
        assert_eq!(data.empty_trash_of(Some(&b)).unwrap(), None, "it is gone");
        assert!(!data.restore(&b).unwrap());
        assert_eq!(listed(), [("a-1".into(), 10), ("c-1".into(), 3_000)]);
        // What a process was removing when it was killed is nobody's run, and goes, too, whoever looks next.
        let left = data.trash().join(".gone-d-1");
        let leave = || {
            fs::create_dir_all(&left).unwrap();
            fs::write(left.join("x"), [0; 7]).unwrap();
        };
        leave();
        assert_eq!((listed().len(), left.exists()), (2, false));
        leave();
        assert_eq!((data.empty_trash(Duration::from_secs(30 * 24 * 3600)).unwrap(), left.exists()), (0, false), "it has no time");
        leave();
        assert_eq!((data.empty_trash_of(Some(&b)).unwrap(), left.exists()), (None, false));
        leave();
        assert_eq!(data.empty_trash_of(None).unwrap(), Some(Emptied { runs: 2, bytes: 3_017 }));
        assert_eq!(fs::read_dir(data.trash()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_removed_keeps_nothing_else_in_the_trash() {
        let place = tempfile::tempdir().unwrap();
        let data = DataFolder::resolve(Some(place.path().into()));
        // With what is put before it while it goes, its name is longer than names may be.
        let stuck = "x".repeat(252);
        let in_trash = || fs::read_dir(data.trash()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let empties: [&dyn Fn() -> bool; 2] =
            [&|| data.empty_trash(Duration::ZERO).is_err(), &|| data.empty_trash_of(None).is_err()];
        for empty in empties {
            for name in (0..40).map(|n| format!("run-{n}")).chain([stuck.clone()]) {
                fs::create_dir_all(data.trash().join(name)).unwrap();
            }
            assert!(empty(), "it is not said");
            assert_eq!(in_trash(), [stuck.as_str()]);
        }
    }
}
