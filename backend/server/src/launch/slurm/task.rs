//! Which job of a cluster trains a run, and what the job has written of it.

use crate::launch::{Life, NOT_BEGUN};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// In a run's folder: which task of which submission it is.
pub(super) const TASK: &str = "slurm.json";

/// Which task of which submission a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Task {
    /// Name of the job array.
    pub(super) name: String,
    pub(super) index: usize,
    /// Where its jobs print to.
    pub(super) output: PathBuf,
    /// Its place, where a job trains several runs one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<Place>,
}

/// Which of the runs of a job that trains several a run is. They are numbered through their array.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Its job's first run.
    pub(super) first: usize,
    pub(super) number: usize,
}

impl Task {
    /// Where its job writes down which of its runs have ended, and with what code: `NUMBER CODE` in each line, with `-` for one that was stopped before it began.
    pub(super) fn ended_file(&self) -> PathBuf {
        self.output.with_extension("ended")
    }

    /// Where it is written down that a run is not wanted any more, and by which signal it is to be told.
    pub(super) fn wish_file(&self, place: Place) -> PathBuf {
        self.output.with_extension(format!("{}.stop", place.number))
    }

    /// How a run is whose job is so.
    pub(super) fn within(&self, job: Life) -> Life {
        let Some(place) = self.place else { return job };
        let ended = fs::read_to_string(self.ended_file()).unwrap_or_default();
        let code = |number: usize| {
            let of = |line: &str| line.split_once(' ').filter(|(n, _)| n.parse() == Ok(number)).map(|(_, code)| code.to_string());
            ended.lines().find_map(of)
        };
        match code(place.number) {
            Some(code) if code == "-" => Life::Gone(Some(NOT_BEGUN.into())),
            Some(code) => {
                let printed = self.output.display();
                Life::Gone(Some(format!("its job has seen it end with code {code}, what it printed is in {printed}")))
            }
            None if job == Life::Running && (place.first..place.number).any(|before| code(before).is_none()) => {
                Life::Waiting("its job has another run before it".into())
            }
            None => job,
        }
    }
}

/// The task of a run, if it is a cluster's.
pub(super) fn task_of(folder: &Path) -> Option<Task> {
    serde_json::from_slice(&fs::read(folder.join(TASK)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_a_job_that_trains_several_is_known_by_what_the_job_wrote_down() {
        let folder = tempfile::tempdir().unwrap();
        let of = |number| Task {
            name: "study.1".into(),
            index: 1,
            output: folder.path().join("1-1.out"),
            place: Some(Place { first: 9, number }),
        };
        let lives = |job: &Life| [9, 10, 11].map(|number| of(number).within(job.clone()));
        let turn = Life::Waiting("its job has another run before it".into());
        assert_eq!(lives(&Life::Running), [Life::Running, turn.clone(), turn.clone()]);
        let pending = Life::Waiting("pending".into());
        assert_eq!(lives(&pending), [pending.clone(), pending.clone(), pending.clone()]);
        // One more line that is not whole, and one of another number that begins alike.
        std::fs::write(of(9).ended_file(), "9 0\n1 0\n10").unwrap();
        assert_eq!(of(9).ended_file(), folder.path().join("1-1.ended"));
        let lived = lives(&Life::Running);
        assert!(matches!(&lived[0], Life::Gone(Some(how)) if how.contains("code 0")), "{lived:?}");
        assert_eq!(lived[1..], [Life::Running, turn]);
        std::fs::write(of(9).ended_file(), "9 0\n10 137\n").unwrap();
        let gone = Life::Gone(Some("lost".into()));
        let lived = lives(&gone);
        assert!(matches!(&lived[1], Life::Gone(Some(how)) if how.contains("137") && how.contains("1-1.out")), "{lived:?}");
        assert_eq!(lived[2], gone);
        std::fs::write(of(9).ended_file(), "9 -\n").unwrap();
        let stopped = of(9).within(Life::Running);
        assert!(matches!(&stopped, Life::Gone(Some(how)) if how.contains("before it began")), "{stopped:?}");
        // A run that is its job's only one is what its job is.
        assert_eq!(Task { place: None, ..of(9) }.within(Life::Running), Life::Running);
    }
}
