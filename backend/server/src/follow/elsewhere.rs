//! Runs of a study that a cluster trains: whether one waits or trains there is not for this machine to see, and the study says it.

use super::Follower;
use crate::id::RunId;
use crate::launch::{Life, is_elsewhere, process};
use moslim_shared::study::StudyRunStatus;
use std::path::Path;

/// The study that a run is one of: runs are called after it, with a number.
fn study_of(run: &RunId) -> Option<RunId> {
    let (study, number) = run.as_str().rsplit_once('-')?;
    (number.len() >= 3 && number.bytes().all(|b| b.is_ascii_digit())).then(|| study.parse().ok())?
}

impl Follower {
    /// Whether the process of a run lives, wherever it is.
    pub(super) fn life(&self, id: &RunId, folder: &Path) -> Life {
        let here = self.launcher.poll(folder);
        match here {
            Life::Gone(_) if is_elsewhere(folder) => self.life_elsewhere(id).unwrap_or(here),
            here => here,
        }
    }

    /// What the study of a run says of it, as long as somebody follows the study.
    fn life_elsewhere(&self, id: &RunId) -> Option<Life> {
        let study = self.data.study(&study_of(id)?);
        if !process::is_taken(&study) {
            return None;
        }
        let state = self.studies.read(&study).ok()??;
        let run = state.runs.iter().find(|run| run.run == id.as_str())?;
        match run.status {
            StudyRunStatus::Running => Some(Life::Running),
            StudyRunStatus::Waiting => Some(Life::Waiting(run.message.clone())),
            StudyRunStatus::Finished | StudyRunStatus::Failed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_a_study_is_known_by_its_number() {
        let study = |run: &str| study_of(&run.parse().unwrap()).map(|id| id.to_string());
        assert_eq!(study("20260101-120000-abcd-007").as_deref(), Some("20260101-120000-abcd"));
        assert_eq!(study("mine-1000").as_deref(), Some("mine"));
        for run in ["20260101-120000-abcd", "mine", "mine-07", "mine-a07"] {
            assert_eq!(study(run), None, "{run}");
        }
    }
}
