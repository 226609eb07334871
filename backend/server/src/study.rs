//! Runs a study: plans it, trains its runs in child processes, as many at a time as cores and memory allow, and puts their
//! results together.
//!
//! A study lives in a folder of its own: `study.json` is what was asked for, `state.json` how it stands, `results.json`,
//! `results.csv` and the pictures what came out, `elsewhere.json` what was trained in another place; each file appears whole or not at all. Its runs are ordinary runs. A study
//! that was stopped or killed goes on with whatever is not finished; a run that was interrupted goes on from its checkpoint.

mod estimate;
mod found;
mod hear;
mod pack;

pub use estimate::{operations, too_large};

use crate::folder::{DataFolder, read_sound, write_file};
use crate::id::{RunId, now_ms};
use crate::launch::{Ending, Launcher, Life, NOT_BEGUN, process, slurm};
use crate::states;
use crate::supervisor::worker;
use anyhow::{Context, Result, anyhow, bail};
use estimate::{fitting, shared_stages};
use found::{ELSEWHERE, Known};
use hear::{Running, now};
use moslim_engine::keep::{journal, sums};
use moslim_engine::progress::Stop;
use moslim_shared::config::Problem;
use moslim_shared::event::{EventBody, Outcome};
use moslim_shared::study::{Host, PlannedRun, StudyConfig, StudyRow, StudyRunState, StudyRunStatus, StudyState};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time for a run to reach a checkpoint when the study is stopped.
const STOP_TIME: Duration = Duration::from_secs(60);
/// Time between two looks at the children.
const TICK: Duration = Duration::from_millis(200);
/// And at journals that lie on a network's disk.
const QUEUED_TICK: Duration = Duration::from_secs(1);

/// A study on disk.
#[derive(Debug, Clone)]
pub struct Study {
    pub id: RunId,
    pub config: StudyConfig,
    data: DataFolder,
}

/// Why a study cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    #[error("{}", .0.iter().map(|p| format!("{}: {}", p.field, p.message)).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
    #[error("there is no study {0}")]
    Unknown(RunId),
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// Nobody works on a study that says somebody does.
pub fn abandon(state: &mut StudyState) {
    state.active = false;
    for run in state.runs.iter_mut().filter(|r| r.status == StudyRunStatus::Running) {
        run.status = StudyRunStatus::Waiting;
    }
}

impl Study {
    /// Writes down a new study, which is valid.
    ///
    /// # Errors
    /// When it is not, or cannot be written.
    pub fn create(data: &DataFolder, id: RunId, config: StudyConfig, on: Host) -> Result<Self, StudyError> {
        let plan = config
            .plan(&data.objectives(&config.base.task).map_err(|p| StudyError::Invalid(vec![p]))?)
            .map_err(StudyError::Invalid)?;
        let study = Self { id, config, data: data.clone() };
        let text = serde_json::to_vec_pretty(&study.config).map_err(anyhow::Error::from)?;
        study.keep("study.json", &text)?;
        study.write_state(&StudyState { on, ..study.fresh_state(&plan) })?;
        Ok(study)
    }

    /// Reads a study.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn open(data: &DataFolder, id: &RunId) -> Result<Self, StudyError> {
        let config = read_sound(&data.study(id), "study.json")?.ok_or_else(|| StudyError::Unknown(id.clone()))?;
        Ok(Self { id: id.clone(), config, data: data.clone() })
    }

    /// Ids of all studies, newest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(data: &DataFolder) -> Result<Vec<RunId>> {
        let folder = data.studies();
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.with_context(|| format!("reading {}", folder.display()))?,
        };
        let mut ids: Vec<RunId> =
            entries.flatten().filter_map(|e| e.file_name().to_str().and_then(|name| name.parse().ok())).collect();
        ids.sort_by(|a: &RunId, b: &RunId| b.as_str().cmp(a.as_str()));
        Ok(ids)
    }

    /// A file of the study.
    pub fn file(&self, name: &str) -> PathBuf {
        self.data.study(&self.id).join(name)
    }

    /// The name of its `n`th run, from 0.
    fn run_id(&self, n: usize) -> Result<RunId> {
        format!("{}-{:03}", self.id, n + 1).parse().map_err(|e: String| anyhow!(e))
    }

    fn fresh_state(&self, plan: &[PlannedRun]) -> StudyState {
        let runs = plan.iter().enumerate().map(|(n, run)| StudyRunState {
            run: self.run_id(n).map(|id| id.to_string()).unwrap_or_default(),
            labels: run.labels.clone(),
            seed: run.config.seed,
            status: StudyRunStatus::Waiting,
            message: String::new(),
        });
        StudyState {
            id: self.id.to_string(),
            name: self.config.name.clone(),
            question: self.config.question.clone(),
            created: now_ms(),
            active: false,
            on: Host::default(),
            runs: runs.collect(),
            seconds_left: None,
        }
    }

    /// How it stands. What says `active` may have been killed since: the lock tells.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn state(&self) -> Result<StudyState> {
        let file = self.file(states::FILE);
        let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let mut state: StudyState = serde_json::from_slice(&bytes).with_context(|| format!("reading {}", file.display()))?;
        if state.active && !process::is_taken(&self.folder()) {
            abandon(&mut state);
        }
        Ok(state)
    }

    fn write_state(&self, state: &StudyState) -> Result<()> {
        write_file(&self.file(states::FILE), &serde_json::to_vec(state)?)
    }

    /// The folder of the study.
    pub fn folder(&self) -> PathBuf {
        self.data.study(&self.id)
    }

    /// Writes a file that decides what comes out, or that says it, with its checksum.
    fn keep(&self, name: &str, bytes: &[u8]) -> Result<()> {
        sums::write(self.data.files().as_ref(), &format!("studies/{}", self.id), name, bytes)
    }

    /// Trains whatever is not finished, and writes the results. `jobs`: runs at a time; `each` is told how it stands.
    ///
    /// # Errors
    /// When another process works on the study, or something cannot be written. Runs that fail are part of the state.
    pub fn run(
        &self,
        jobs: Option<usize>,
        launcher: &dyn Launcher,
        stop: &Stop,
        each: &mut dyn FnMut(&StudyState),
    ) -> Result<StudyState, StudyError> {
        let objectives = self.data.objectives(&self.config.base.task).map_err(|p| StudyError::Invalid(vec![p]))?;
        let plan = self.config.plan(&objectives).map_err(StudyError::Invalid)?;
        let Some(_lock) = process::take(&self.folder(), Duration::from_secs(1))? else {
            return Err(anyhow!("another process works on study {}; wait for it or stop it", self.id).into());
        };
        if launcher.queue().is_none() && slurm::holds(&self.folder()).with_context(|| self.asking())? {
            return Err(anyhow!("jobs of study {0} are on the cluster; follow them with --on slurm, or end them with: moslim-lab stop --study {0}", self.id).into());
        }
        let mut state = self.state().unwrap_or_else(|_| self.fresh_state(&plan));
        if state.runs.len() != plan.len() {
            state = self.fresh_state(&plan);
        }
        state.active = true;
        state.on = launcher.host();
        let elsewhere = self.read_results(ELSEWHERE)?.unwrap_or_default();
        let mut known = Known { axes: (elsewhere.objectives, elsewhere.reference), ..Default::default() };
        for run in &mut state.runs {
            let same = |row: &&StudyRow| row.labels == run.labels && row.seed == run.seed;
            let done = match self.summary(&run.run)? {
                Some(summary) => {
                    known.learn(run, &summary);
                    true
                }
                None => elsewhere.runs.iter().find(same).map(|row| known.rows.insert(run.run.clone(), row.clone())).is_some(),
            };
            run.status = if done { StudyRunStatus::Finished } else { StudyRunStatus::Waiting };
            run.message.clear();
        }
        let result = self.work(&plan, &mut state, &mut known, (jobs, launcher), stop, each);
        state.active = false;
        state.seconds_left = None;
        for run in state.runs.iter_mut().filter(|r| r.status == StudyRunStatus::Running) {
            // Nobody follows it any more.
            (run.status, run.message) = (StudyRunStatus::Waiting, String::new());
        }
        self.write_state(&state)?;
        each(&state);
        // Whatever has finished counts, also where others were stopped.
        let written = self.write_results(&state, &known);
        result?;
        written?;
        Ok(state)
    }

    fn work(
        &self,
        plan: &[PlannedRun],
        state: &mut StudyState,
        known: &mut Known,
        (jobs, launcher): (Option<usize>, &dyn Launcher),
        stop: &Stop,
        each: &mut dyn FnMut(&StudyState),
    ) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let queued = launcher.queue().is_some();
        let most = jobs;
        let jobs = match jobs {
            // The cluster decides how many, by its own rules.
            _ if queued => plan.len(),
            jobs => jobs.or(launcher.at_a_time()).unwrap_or_else(|| fitting(plan, cores, &self.data)),
        };
        let jobs = jobs.clamp(1, plan.len().max(1));
        let threads = (!queued).then_some((cores / jobs).max(1));
        // Runs with the same stages before the policy wait for the first of them, and find its stages in the cache.
        let shared: Vec<String> = plan.iter().map(shared_stages).collect::<Result<_>>()?;
        let mut warm: HashSet<String> =
            state.runs.iter().zip(&shared).filter(|(r, _)| known.here.contains(&r.run)).map(|(_, s)| s.clone()).collect();
        let mut running: Vec<Running> = Vec::new();
        let mut taken: Vec<f64> = Vec::new();
        // How runs that are about to go say that they ended.
        let mut ends: HashMap<usize, (Outcome, String)> = HashMap::new();
        let mut stopping: Option<Instant> = None;
        if let Some(cluster) = launcher.queue() {
            running = self.submit(plan, state, (&shared, &warm), (cluster, most.unwrap_or(0)))?;
        }
        self.write_state(state)?;
        each(state);
        loop {
            let (mut moved, mut more) = (false, false);
            if stop.asked().is_some() && stopping.is_none() {
                if queued {
                    bail!(
                        "followed no longer; its jobs go on. Follow them with: moslim-lab study --study {0} --on slurm, or end \
                           them with: moslim-lab stop --study {0}",
                        self.id
                    );
                }
                stopping = Some(Instant::now());
                for run in &running {
                    launcher.stop(&run.folder, Ending::Interrupt)?;
                }
            }
            // Start what can be started.
            while stopping.is_none() && !queued && running.len() < jobs {
                let busy: HashSet<&String> = running.iter().map(|r| &shared[r.at]).collect();
                let next = (0..plan.len()).find(|&n| {
                    // One that waits for its turn on a cluster was started already.
                    state.runs[n].status == StudyRunStatus::Waiting
                        && running.iter().all(|r| r.at != n)
                        && (warm.contains(&shared[n]) || !busy.contains(&shared[n]))
                });
                let Some(n) = next else { break };
                running.push(self.start(n, &plan[n], threads, launcher)?);
                state.runs[n].status = StudyRunStatus::Running;
                moved = true;
            }
            if running.is_empty() {
                let (left, on) = (state.count(StudyRunStatus::Waiting), if queued { " --on slurm" } else { "" });
                if stopping.is_some() {
                    bail!("stopped; go on with: moslim-lab study --study {}", self.id);
                }
                if left > 0 {
                    bail!(
                        "{left} runs were stopped before they had finished; go on with: moslim-lab study --study {}{on}",
                        self.id
                    );
                }
                return Ok(());
            }
            // Hear what they say. Before: what is gone by now has said all that it will.
            std::thread::sleep(if queued { QUEUED_TICK } else { TICK });
            let lives: Vec<Life> = running.iter().map(|run| launcher.poll(&run.folder)).collect();
            for run in &mut running {
                for body in run.hear() {
                    match &body {
                        EventBody::Ended { outcome, message } => _ = ends.insert(run.at, (*outcome, message.clone())),
                        // It goes on after an end that was not its last.
                        EventBody::Started { .. } => _ = ends.remove(&run.at),
                        _ => {}
                    }
                    if let Some(text) = now(&body)
                        && state.runs[run.at].message != text
                    {
                        state.runs[run.at].message = text;
                        moved = true;
                    }
                    // Its shared stages are in the cache from here on.
                    if matches!(body, EventBody::Calibrated { .. }) {
                        warm.insert(shared[run.at].clone());
                    }
                }
            }
            if stopping.is_some_and(|since| since.elapsed() > STOP_TIME) {
                for run in &running {
                    launcher.stop(&run.folder, Ending::Kill)?;
                }
            }
            // See who is done.
            let mut left = Vec::new();
            for (run, life) in running.into_iter().zip(lives) {
                let slot = &mut state.runs[run.at];
                // A cluster is asked rarely; who has said how it ended need not be asked for.
                let last = ends.get(&run.at).map(|(outcome, _)| *outcome);
                let how = match life {
                    Life::Gone(how) => how,
                    _ if queued && matches!(last, Some(Outcome::Finished | Outcome::Failed | Outcome::Cancelled)) => None,
                    life => {
                        let (status, message) = match life {
                            Life::Waiting(why) => (StudyRunStatus::Waiting, why),
                            _ if slot.status == StudyRunStatus::Waiting => (StudyRunStatus::Running, String::new()),
                            _ => (slot.status, slot.message.clone()),
                        };
                        if (slot.status, &slot.message) != (status, &message) {
                            (slot.status, slot.message, moved) = (status, message, true);
                        }
                        left.push(run);
                        continue;
                    }
                };
                moved = true;
                let summary = self.summary(&slot.run)?;
                let finished = summary.is_some();
                if let Some(summary) = summary {
                    known.learn(slot, &summary);
                }
                (slot.status, slot.message) = match ends.remove(&run.at) {
                    _ if finished => (StudyRunStatus::Finished, String::new()),
                    Some((Outcome::Interrupted | Outcome::Cancelled | Outcome::Paused, _)) => {
                        (StudyRunStatus::Waiting, String::new())
                    }
                    Some((_, message)) => (StudyRunStatus::Failed, message),
                    None if how.as_deref() == Some(NOT_BEGUN) => (StudyRunStatus::Waiting, NOT_BEGUN.into()),
                    None => {
                        let how = how.unwrap_or_else(|| "its process is gone".into());
                        (StudyRunStatus::Failed, format!("{how} and said nothing"))
                    }
                };
                more |= finished;
                if finished {
                    taken.push(run.began.elapsed().as_secs_f64());
                    warm.insert(shared[run.at].clone());
                }
            }
            running = left;
            if moved {
                let waiting = state.count(StudyRunStatus::Waiting) + state.count(StudyRunStatus::Running);
                let mean = taken.iter().sum::<f64>() / taken.len().max(1) as f64;
                // How long a cluster lets one wait, it does not say.
                state.seconds_left = (!taken.is_empty() && !queued).then(|| mean * waiting as f64 / jobs as f64);
                self.write_state(state)?;
                if more {
                    self.write_results(state, known)?;
                }
                each(state);
            }
        }
    }

    /// Starts the worker of the `n`th run. One that a killed study left training is taken over.
    fn start(&self, n: usize, run: &PlannedRun, threads: Option<usize>, launcher: &dyn Launcher) -> Result<Running> {
        let id = self.run_id(n)?;
        let folder = self.data.run(&id);
        // What it said earlier does not count.
        let read = std::fs::metadata(folder.join(journal::FILE)).map_or(0, |m| m.len());
        if let Life::Gone(_) = launcher.poll(&folder) {
            self.data.job(&id, run.config.clone()).write_config()?;
            launcher.start(&worker(&self.data, &id, threads))?;
        }
        Ok(Running { at: n, folder, read, began: Instant::now() })
    }
}
