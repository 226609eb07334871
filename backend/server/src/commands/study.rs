//! `moslim-lab study`: many runs that answer one question.

use crate::cli::{HostArg, StudyArgs};
use crate::commands::train::stop_on_signal;
use crate::commands::{print_json, print_line};
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::id::RunId;
use crate::json::{self, JsonError};
use crate::launch::{Launcher, limits};
use crate::log::say;
use crate::study::{Study, StudyError, operations, too_large};
use moslim_engine::bench::gemm_peak;
use moslim_engine::progress::Stop;
use moslim_engine::run::devices;
use moslim_shared::config::{DeviceChoice, RunConfig};
use moslim_shared::presets;
use moslim_shared::study::{Host, METRICS, PRESETS, PlannedRun, StudyConfig, StudyResults, StudyRunStatus, StudyState, preset};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Share of the peak of matrix products that training reaches, for the estimate before the first run.
const EFFICIENCY: f64 = 0.3;
/// Columns of the table; the rest is in the files.
const SHOWN: [&str; 10] = [
    "hypervolume",
    "expected_utility",
    "spearman",
    "hit_rate",
    "joint_hit_rate",
    "on_topic",
    "unique",
    "models_trained",
    "policy_seconds",
    "mega_passes",
];

impl From<StudyError> for Failure {
    fn from(error: StudyError) -> Self {
        match error {
            StudyError::Invalid(problems) => Self::problems(&problems),
            StudyError::Unknown(id) => Self::field("study", format!("there is no study {id}")),
            StudyError::Failed(error) => error.into(),
        }
    }
}

/// Plans and trains a study, or goes on with one.
///
/// # Errors
/// Bad input names its field; a study of which runs failed says which.
pub fn run(args: &StudyArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let study = match &args.study {
        Some(id) => Study::open(&data, id)?,
        None => {
            let config = choose(args)?;
            let plan = config
                .plan(&data.objectives(&config.base.task).map_err(|p| Failure::problems(&[p]))?)
                .map_err(|p| Failure::problems(&p))?;
            let hours = operations(&plan, &data) * 2.0 / (EFFICIENCY * gemm_peak() * 1e9) / 3600.0;
            say(&format!("{} runs, roughly {}", plan.len(), duration(hours * 3600.0)));
            if args.dry {
                for run in &plan {
                    say(&format!("  seed {}: {}", run.config.seed, run.labels.join(" · ")));
                }
                return if args.json { print_json(&plan) } else { Ok(()) };
            }
            if args.host.on == HostArg::Here {
                check_memory(&plan, &data, args.jobs)?;
            }
            data.create().map_err(Failure::BadInput)?;
            Study::create(&data, RunId::fresh(), config, Host::default())?
        }
    };
    let stop = Arc::new(Stop::default());
    stop_on_signal(stop.clone())?;
    let launcher = args.host.launcher()?;
    say(&format!("Study {} in {}", study.id, study.file("").display()));
    let state = follow(&study, args.jobs.map(usize::from), launcher.as_ref(), &stop)?;
    let results = study.results()?.unwrap_or_default();
    if args.json {
        print_json(&results)?;
    } else {
        print_line(&table(&results))?;
        print_line(&format!("\nEverything is in {}", study.file("results.csv").display()))?;
    }
    failures(&study, &state)
}

/// Whether every run of a plan would fit into this machine's memory, `jobs` at a time where that is said. What does not is refused before
/// any of it is trained.
///
/// # Errors
/// Names the field, the run, and both figures.
pub fn check_memory(plan: &[PlannedRun], data: &DataFolder, jobs: Option<u16>) -> Result<(), Failure> {
    let best_is_processor = || devices().iter().any(|d| d.chosen && d.device == "cpu");
    let computes_here = |device: DeviceChoice| match device {
        DeviceChoice::Cpu => true,
        DeviceChoice::Auto => best_is_processor(),
        DeviceChoice::Cuda | DeviceChoice::Wgpu => false,
    };
    match too_large(plan, data, (jobs.map(usize::from), limits::given_mib()?), &computes_here) {
        Some(problem) => Err(Failure::problems(&[problem])),
        None => Ok(()),
    }
}

/// Runs what is left of a study, and says how it stands whenever that changes.
pub fn follow(study: &Study, jobs: Option<usize>, launcher: &dyn Launcher, stop: &Arc<Stop>) -> Result<StudyState, Failure> {
    let mut last = String::new();
    Ok(study.run(jobs, launcher, stop, &mut |state| {
        let line = progress(state);
        if line != last {
            say(&line);
            last = line;
        }
    })?)
}

/// Which runs of a study failed, if any.
pub fn failures(study: &Study, state: &StudyState) -> Result<(), Failure> {
    let failed: Vec<String> = state
        .runs
        .iter()
        .filter(|r| r.status == StudyRunStatus::Failed)
        .map(|r| format!("run {} ({}, seed {}) failed: {}", r.run, r.labels.join(" · "), r.seed, r.message))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{}\nthe others are finished; try again with: moslim-lab study --study {}",
        failed.join("\n"),
        study.id
    )))
}

/// The configuration of the preset that a study varies.
pub fn base(id: &str) -> Result<RunConfig, Failure> {
    let found = presets::find(id).ok_or_else(|| {
        let known: Vec<String> = presets::all().into_iter().map(|p| p.id).collect();
        Failure::field("base", format!("unknown preset \"{id}\"; known are {}", known.join(", ")))
    })?;
    Ok(found.config)
}

/// The study that the command line describes.
fn choose(args: &StudyArgs) -> Result<StudyConfig, Failure> {
    if let Some(path) = &args.config {
        let mut config: StudyConfig = read(path)?;
        if let Some(seeds) = &args.seeds {
            config.seeds.clone_from(seeds);
        }
        return Ok(config);
    }
    let id = args.preset.as_deref().ok_or_else(|| Failure::field("preset", format!("name one of {}", PRESETS.join(", "))))?;
    let base = base(&args.base)?;
    let seeds = args.seeds.clone().unwrap_or_else(|| vec![1, 2, 3]);
    preset(id, base, seeds)
        .ok_or_else(|| Failure::field("preset", format!("unknown study \"{id}\"; known are {}", PRESETS.join(", "))))
}

fn read(path: &Path) -> Result<StudyConfig, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::field("config", format!("{} cannot be read: {e}", path.display())))?;
    json::read(&bytes).map_err(|error| match error {
        JsonError::Syntax(message) => Failure::field("config", format!("{}: {message}", path.display())),
        JsonError::Field(p) => Failure::field(&p.field, p.message),
    })
}

fn duration(seconds: f64) -> String {
    if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else if seconds < 5400.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

/// How it stands, in one line.
fn progress(state: &StudyState) -> String {
    use StudyRunStatus::{Failed, Finished, Running, Waiting};
    let mut line = format!("{} of {} runs finished", state.count(Finished), state.runs.len());
    for (status, word) in [(Failed, "failed"), (Running, "running"), (Waiting, "waiting")] {
        if state.count(status) > 0 {
            line += &format!(", {} {word}", state.count(status));
        }
    }
    if let Some(left) = state.seconds_left {
        // Rounded, so that the line changes when something happens and not all the time.
        line += &format!(", about {} left", duration((left / 60.0).ceil() * 60.0));
    }
    for r in state.runs.iter().filter(|r| r.status == Running) {
        let stage = r.message.split(' ').take(2).collect::<Vec<_>>().join(" ");
        line += &format!(" | {} seed {}: {stage}", r.labels.join(" · "), r.seed);
    }
    let reasons = state.runs.iter().filter(|r| r.status == Waiting && !r.message.is_empty()).map(|r| r.message.as_str());
    let reasons: BTreeSet<&str> = reasons.collect();
    if !reasons.is_empty() {
        line += &format!(" | waiting: {}", reasons.into_iter().collect::<Vec<_>>().join(", "));
    }
    line
}

/// The results as a table: a line for each group.
fn table(results: &StudyResults) -> String {
    let columns: Vec<usize> = SHOWN.iter().filter_map(|id| METRICS.iter().position(|m| m.id == *id)).collect();
    let names: Vec<String> = results.groups.iter().map(|g| g.labels.join(" · ")).collect();
    let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0).max(8);
    let mut out = format!("{:<width$}", results.axes.join(" · "));
    for &m in &columns {
        out += &format!("  {:>20}", METRICS[m].title);
    }
    for (name, group) in names.iter().zip(&results.groups) {
        out += &format!("\n{name:<width$}");
        for &m in &columns {
            let s = group.metrics[m];
            out += &format!("  {:>20}", format!("{} ({}-{})", short(s.mean), short(s.low), short(s.high)));
        }
    }
    if !results.reference.is_empty() {
        out += &format!(
            "\n\nMean of the seeds (95 % interval by bootstrap over seeds and topics). Hypervolume over {} with reference point {:?}.",
            results.objectives.join(", "),
            results.reference
        );
    }
    out
}

fn short(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::study::StudyRunState;
    use std::iter::repeat_n;

    #[test]
    fn a_line_says_how_many_wait_and_for_what() {
        use StudyRunStatus::{Failed, Finished, Running, Waiting};
        let line = |runs: &[(StudyRunStatus, &str, usize)], seconds_left| {
            let run = |&(status, message, n): &(StudyRunStatus, &str, usize)| {
                let run =
                    StudyRunState { run: "r".into(), labels: vec!["wide".into()], seed: 1, status, message: message.into() };
                repeat_n(run, n)
            };
            progress(&StudyState {
                id: "s".into(),
                name: String::new(),
                question: String::new(),
                created: 0,
                active: true,
                on: Host::Slurm,
                runs: runs.iter().flat_map(run).collect(),
                seconds_left,
            })
        };
        assert_eq!(
            line(&[(Waiting, "submitted to the cluster", 4)], None),
            "0 of 4 runs finished, 4 waiting | waiting: submitted to the cluster"
        );
        let mixed = [
            (Finished, "", 2),
            (Failed, "", 1),
            (Running, "Policy optimisation 3/9", 1),
            (Waiting, "pending on the cluster (Resources)", 1),
            (Waiting, "pending on the cluster (Priority)", 3),
        ];
        assert_eq!(
            line(&mixed, Some(61.0)),
            "2 of 8 runs finished, 1 failed, 1 running, 4 waiting, about 2 min left | wide seed 1: Policy optimisation | waiting: \
             pending on the cluster (Priority), pending on the cluster (Resources)"
        );
    }
}
