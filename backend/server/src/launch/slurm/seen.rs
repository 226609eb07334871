//! What a cluster has said of the tasks that are followed.

use super::Task;
use crate::launch::{Hearing, Life, SILENT};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What the cluster says of a task.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// Job and task as commands want them, such as `12_3`.
    pub(super) id: String,
    state: String,
    reason: String,
}

impl Seen {
    pub(super) fn life(&self) -> Life {
        match self.state.as_str() {
            "RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "STAGE_OUT" | "RESIZING" => Life::Running,
            "COMPLETED" | "FAILED" | "CANCELLED" | "TIMEOUT" | "NODE_FAIL" | "OUT_OF_MEMORY" | "BOOT_FAIL" | "DEADLINE"
            | "PREEMPTED" | "REVOKED" => Life::Gone(Some(format!("its job {} is {} ({})", self.id, self.state, self.reason))),
            // CONFIGURING, PENDING, REQUEUED and what later versions may have.
            _ => Life::Waiting(format!("{} on the cluster ({})", self.state.to_lowercase(), self.reason)),
        }
    }
}

/// The tasks in what `squeue` prints as `ID|NAME|STATE|REASON`.
pub(super) fn tasks(text: &str) -> HashMap<(String, usize), Seen> {
    let task = |line: &str| {
        let mut parts = line.trim().splitn(4, '|').map(str::to_string);
        let (id, name, state, reason) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let index = id.split_once('_')?.1.parse().ok()?;
        Some(((name, index), Seen { id, state, reason }))
    };
    text.lines().filter_map(task).collect()
}

/// Everything that the cluster was last asked, by the array's name and the task's number.
#[derive(Default)]
pub(super) struct Snapshot {
    pub(super) taken: Option<Instant>,
    pub(super) wait: Duration,
    pub(super) hearing: Hearing,
    /// Arrays that are asked for.
    pub(super) names: Vec<String>,
    /// How many of them, the first, the last answer was about.
    pub(super) heard: usize,
    pub(super) tasks: HashMap<(String, usize), Seen>,
}

impl Snapshot {
    /// How a task is, as far as the cluster has said.
    pub(super) fn life(&self, task: &Task) -> Life {
        task.within(match self.tasks.get(&(task.name.clone(), task.index)).map(Seen::life) {
            Some(Life::Gone(Some(how))) => Life::Gone(Some(format!("{how}; what it printed is in {}", task.output.display()))),
            Some(life) => life,
            // Whoever does not answer has not said that a job is gone.
            None if !self.names[..self.heard].contains(&task.name) => Life::Waiting(SILENT.into()),
            None => Life::Gone(Some("its job is no longer known to the cluster".into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_which_nothing_was_said_is_not_gone() {
        let task = |index| Task { name: "study.1".into(), index, output: "1.out".into(), place: None };
        let mut snapshot = Snapshot { names: vec!["study.1".into()], ..Default::default() };
        assert_eq!(snapshot.life(&task(0)), Life::Waiting(SILENT.into()));
        let said = "7_0|study.1|PENDING|Resources\n7_1|study.1|RUNNING|None\n7_2|study.1|FAILED|NonZeroExitCode\nx\n";
        (snapshot.tasks, snapshot.heard) = (tasks(said), 1);
        assert_eq!(snapshot.life(&task(0)), Life::Waiting("pending on the cluster (Resources)".into()));
        assert_eq!(snapshot.life(&task(1)), Life::Running);
        for (index, words) in [(2, "7_2 is FAILED (NonZeroExitCode); what it printed is in 1.out"), (3, "no longer known")] {
            let life = snapshot.life(&task(index));
            assert!(matches!(&life, Life::Gone(Some(how)) if how.contains(words)), "{life:?}");
        }
    }
}
