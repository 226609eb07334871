//! How a cluster wants its jobs.

use moslim_shared::config::Problem;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How a cluster wants its jobs: a TOML file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Partition; the cluster's default where it is empty.
    pub partition: String,
    /// Limit of a job's time, as sbatch has it: minutes, or H:MM:SS, or D-HH. A run that reaches it goes on in a new job.
    pub time: String,
    /// Memory of a job, such as `4G`.
    pub memory: String,
    /// Cores of a job, or, of several ranks, of each.
    pub cores: u16,
    /// Processes that train a run together, over MPI; each may be on a node of its own. A build with the feature `mpi` is needed.
    pub ranks: u16,
    /// Runs that a job trains one after the other; more than 1 where runs take no longer than a cluster takes to begin a job.
    pub runs_per_job: u16,
    /// Jobs of a study that may run at a time; 0 for as many as there is room for.
    pub at_a_time: u16,
    /// Seconds before the limit of time at which a run is told to keep what it has.
    pub notice: u16,
    /// Seconds between two questions to the cluster at most.
    pub ask_every: u16,
    /// Modules to load.
    pub modules: Vec<String>,
    /// Lines of shell before the program.
    pub setup: Vec<String>,
    /// Words before the program, such as `["apptainer", "exec", "lab.sif"]`.
    pub container: Vec<String>,
    /// The program on the nodes; this one where it is empty.
    pub program: PathBuf,
    /// More options for sbatch, such as `["--account=group", "--gres=gpu:1"]`.
    pub options: Vec<String>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            partition: String::new(),
            time: String::new(),
            memory: String::new(),
            cores: 1,
            ranks: 1,
            runs_per_job: 1,
            at_a_time: 0,
            notice: 120,
            ask_every: 30,
            modules: Vec::new(),
            setup: Vec::new(),
            container: Vec::new(),
            program: PathBuf::new(),
            options: Vec::new(),
        }
    }
}

/// The seconds of a limit of time as sbatch has it; none where it is no such.
fn seconds(time: &str) -> Option<u64> {
    let (days, rest) = time.split_once('-').map_or((None, time), |(days, rest)| (Some(days), rest));
    let parts: Vec<u64> = rest.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let whole = match (days, parts.as_slice()) {
        (None, [minutes]) => minutes * 60,
        (None, [minutes, seconds]) => minutes * 60 + seconds,
        (None, [hours, minutes, seconds]) => (hours * 60 + minutes) * 60 + seconds,
        (Some(days), [hours, rest @ ..]) if rest.len() < 3 => {
            let [minutes, seconds] = [0, 1].map(|n| rest.get(n).copied().unwrap_or(0));
            ((days.parse::<u64>().ok()? * 24 + hours) * 60 + minutes) * 60 + seconds
        }
        _ => return None,
    };
    Some(whole)
}

impl Profile {
    /// What cannot be right, by field.
    pub fn problems(&self) -> Vec<Problem> {
        let mut out = Vec::new();
        let mut says = |field: &str, message: &str| out.push(Problem { field: field.into(), message: message.into() });
        let plain = |text: &str| !text.chars().any(|c| c.is_control());
        if self.cores == 0 {
            says("cores", "must be at least 1");
        }
        if self.ranks == 0 {
            says("ranks", "must be at least 1");
        }
        if self.runs_per_job == 0 {
            says("runs_per_job", "must be at least 1");
        }
        if !(10..=3600).contains(&self.notice) {
            says("notice", "must be 10 to 3600 seconds");
        }
        match seconds(&self.time) {
            None if !self.time.is_empty() => says("time", "must be minutes, MIN:SEC, H:MIN:SEC, D-H, D-H:MIN or D-H:MIN:SEC"),
            Some(time) if time <= u64::from(self.notice) + 60 => {
                says(
                    "time",
                    &format!(
                        "must be more than a minute above the notice of {} seconds, in which nothing is trained",
                        self.notice
                    ),
                );
            }
            _ => {}
        }
        if !(2..=3600).contains(&self.ask_every) {
            says("ask_every", "must be 2 to 3600 seconds");
        }
        for (field, text) in [("partition", &self.partition), ("time", &self.time), ("memory", &self.memory)] {
            if !text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:,".contains(c)) {
                says(field, "has letters, digits and - _ . : , only");
            }
        }
        for (field, list) in
            [("modules", &self.modules), ("setup", &self.setup), ("container", &self.container), ("options", &self.options)]
        {
            if list.iter().any(|text| text.is_empty() || !plain(text)) {
                says(field, "has an entry that is empty or no single line");
            }
        }
        if let Some(option) = self.options.iter().find(|o| !o.starts_with('-')) {
            says("options", &format!("has \"{option}\", which is no option; write --name=value"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_time_leaves_time_to_train() {
        for (time, want) in [
            ("30", Some(1_800)),
            ("2:30", Some(150)),
            ("1:02:03", Some(3_723)),
            ("2-3", Some(183_600)),
            ("1-0:5", Some(86_700)),
            ("1-1:1:1", Some(90_061)),
            ("1-", None),
            ("1:2:3:4", None),
            ("1-2:3:4:5", None),
            ("soon", None),
        ] {
            assert_eq!(seconds(time), want, "{time}");
        }
        let problems = |time: &str, notice| Profile { time: time.into(), notice, ..Profile::default() }.problems();
        assert!(problems("", 120).is_empty() && problems("4", 120).is_empty());
        for (time, words) in [("3", "120 seconds"), ("soon", "D-H:MIN")] {
            let found = problems(time, 120);
            assert!(found.len() == 1 && found[0].field == "time" && found[0].message.contains(words), "{found:?}");
        }
    }
}
