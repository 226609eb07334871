//! How studies stand, as their files say: each is read again only when it has been written since.

use anyhow::{Context, Result};
use moslim_shared::study::StudyState;
use std::collections::HashMap;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Name of the file in a study's folder.
pub const FILE: &str = "state.json";

/// What tells a file from the one that was there before. Clocks of disks are coarse, but what replaces a file is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    written: Option<SystemTime>,
    bytes: u64,
    number: u64,
}

impl Stamp {
    fn of(about: &Metadata) -> Self {
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(about);
        #[cfg(not(unix))]
        let number = 0;
        Self { written: about.modified().ok(), bytes: about.len(), number }
    }
}

/// What files of studies said when they were read, by their folders.
#[derive(Default)]
pub struct States(Mutex<HashMap<PathBuf, (Stamp, Arc<StudyState>)>>);

impl States {
    /// What the file in the folder of a study says; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read or understood; the message names it.
    pub fn read(&self, study: &Path) -> Result<Option<Arc<StudyState>>> {
        let file = study.join(FILE);
        let of = || format!("reading {}", file.display());
        // Before it is read: what is written meanwhile is then read again, and never taken for known.
        let stamp = match std::fs::metadata(&file) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.lock().remove(study);
                return Ok(None);
            }
            about => Stamp::of(&about.with_context(of)?),
        };
        if let Some((known, state)) = self.lock().get(study)
            && *known == stamp
        {
            return Ok(Some(state.clone()));
        }
        let state: StudyState = serde_json::from_slice(&std::fs::read(&file).with_context(of)?).with_context(of)?;
        let state = Arc::new(state);
        self.lock().insert(study.into(), (stamp, state.clone()));
        Ok(Some(state))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, (Stamp, Arc<StudyState>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::write_file;
    use moslim_shared::study::Host;

    #[test]
    fn a_file_is_read_again_when_it_was_written_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let (study, states) = (folder.path().join("s"), States::default());
        let write = |name: &str| {
            let state = StudyState {
                id: "s".into(),
                name: name.into(),
                question: String::new(),
                created: 0,
                active: false,
                on: Host::Here,
                runs: Vec::new(),
                seconds_left: None,
            };
            write_file(&study.join(FILE), &serde_json::to_vec(&state).unwrap()).unwrap();
        };
        assert!(states.read(&study).unwrap().is_none());
        // Names of the same length, written within a tick of any clock.
        let mut last: Option<Arc<StudyState>> = None;
        for name in ["a", "b", "c", "d", "e", "f"] {
            write(name);
            let [first, again] = [(); 2].map(|()| states.read(&study).unwrap().unwrap());
            assert_eq!(first.name, name);
            assert!(Arc::ptr_eq(&first, &again), "it was read again although nothing was written");
            assert!(last.is_none_or(|last| !Arc::ptr_eq(&last, &first)));
            last = Some(first);
        }
        std::fs::write(study.join(FILE), "{").unwrap();
        assert!(format!("{:#}", states.read(&study).unwrap_err()).contains("state.json"));
        std::fs::remove_dir_all(&study).unwrap();
        assert!(states.read(&study).unwrap().is_none());
    }
}
