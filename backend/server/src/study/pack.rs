//! A study as a whole on a cluster: which of its runs a job trains, one after the other, and their submission.

use super::Study;
use super::hear::Running;
use crate::launch::{Launch, Launcher, Life, Slurm, slurm};
use crate::supervisor::worker;
use anyhow::Result;
use moslim_engine::keep::journal;
use moslim_shared::study::{PlannedRun, StudyRunStatus, StudyState};
use std::collections::{HashMap, HashSet};
use std::time::Instant;

impl Study {
    /// What is asked of a cluster before the study is trained here.
    pub(super) fn asking(&self) -> String {
        let folder = self.file("slurm");
        format!("asking the cluster for the study's jobs; where it is gone for good, delete {}", folder.display())
    }

    /// Gives a cluster what is left, with the stages that several of its jobs share as jobs before them. What the cluster has
    /// already, it keeps.
    pub(super) fn submit(
        &self,
        plan: &[PlannedRun],
        state: &mut StudyState,
        (shared, warm): (&[String], &HashSet<String>),
        (cluster, most): (&Slurm, usize),
    ) -> Result<Vec<Running>> {
        let (mut running, mut launches) = (Vec::new(), HashMap::new());
        let waiting: Vec<usize> = (0..plan.len()).filter(|&n| state.runs[n].status == StudyRunStatus::Waiting).collect();
        for n in waiting {
            let id = self.run_id(n)?;
            let folder = self.data.run(&id);
            let read = std::fs::metadata(folder.join(journal::FILE)).map_or(0, |m| m.len());
            if let Life::Gone(_) = cluster.poll(&folder) {
                self.data.job(&id, plan[n].config.clone()).write_config()?;
                launches.insert(n, worker(&self.data, &id, None));
                state.runs[n].message = "submitted to the cluster".into();
            } else {
                slurm::want_again(&folder)?;
            }
            running.push(Running { at: n, folder, read, began: Instant::now() });
        }
        let new: Vec<usize> = (0..plan.len()).filter(|n| launches.contains_key(n)).collect();
        let (jobs, stages) = packed(&new, shared, warm, cluster.runs_per_job());
        let jobs: Vec<Vec<Launch>> = jobs.iter().map(|job| job.iter().map(|n| launches[n].clone()).collect()).collect();
        let stages_of = |n: &usize| {
            let launch = launches[n].clone();
            Launch { args: launch.args.iter().cloned().chain(["--stages".into()]).collect(), ..launch }
        };
        let before: Vec<Launch> = stages.iter().map(stages_of).collect();
        let before: Vec<Vec<Launch>> = before.chunks(cluster.runs_per_job()).map(<[Launch]>::to_vec).collect();
        if !jobs.is_empty() {
            cluster.submit(&self.folder(), &before, &jobs, most)?;
        }
        Ok(running)
    }
}

/// Packs the runs `new` into jobs of at most `room` each. `shared` says for every run of the plan which stages before the policy it has: runs that share
/// them come into one job where there is room, and the first of them trains the stages for all. Returned as well: the runs whose stages
/// have to be there before any job begins, because several jobs share them and they are not `warm`.
fn packed(new: &[usize], shared: &[String], warm: &HashSet<String>, room: usize) -> (Vec<Vec<usize>>, Vec<usize>) {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for &n in new {
        match groups.iter_mut().find(|group| shared[group[0]] == shared[n]) {
            Some(group) => group.push(n),
            None => groups.push(vec![n]),
        }
    }
    let (mut jobs, mut before): (Vec<Vec<usize>>, Vec<usize>) = Default::default();
    for group in groups {
        if group.len() > room && !warm.contains(&shared[group[0]]) {
            before.push(group[0]);
        }
        for part in group.chunks(room) {
            match jobs.last_mut().filter(|job| job.len() + part.len() <= room) {
                Some(job) => job.extend(part),
                None => jobs.push(part.to_vec()),
            }
        }
    }
    (jobs, before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_share_their_stages_come_into_one_job_where_there_is_room() {
        let shared: Vec<String> = ["a", "b", "a", "b", "c", "a", "d"].map(String::from).to_vec();
        let all: Vec<usize> = (0..7).collect();
        let cold = HashSet::new();
        // One run a job, as many jobs as runs; whatever two share is there before.
        let single = packed(&all, &shared, &cold, 1);
        assert_eq!(single, (vec![vec![0], vec![2], vec![5], vec![1], vec![3], vec![4], vec![6]], vec![0, 1]));
        let warm = HashSet::from(["a".to_string()]);
        assert_eq!(packed(&all, &shared, &warm, 1).1, [1]);
        // Three share a: more than a job has room for.
        assert_eq!(packed(&all, &shared, &cold, 2), (vec![vec![0, 2], vec![5], vec![1, 3], vec![4, 6]], vec![0]));
        // All who share fit: nobody waits for stages.
        assert_eq!(packed(&all, &shared, &cold, 3), (vec![vec![0, 2, 5], vec![1, 3, 4], vec![6]], vec![]));
        // Only what is new is packed.
        assert_eq!(packed(&[2, 3, 6], &shared, &cold, 2), (vec![vec![2, 3], vec![6]], vec![]));
        assert_eq!(packed(&[], &shared, &cold, 2), (vec![], vec![]));
    }
}
