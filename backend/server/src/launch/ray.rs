//! Runs of a study as jobs of a Ray cluster, through the REST interface of its dashboard that `ray job submit` speaks, too.
//!
//! Every run is a job of its own, and Ray decides which node has room for it; the study decides which run is next, as on this machine.
//! A job is known by what stands in its run's folder, which is written before Ray is asked. So whoever follows a study may be killed and
//! come back: a job that goes on is followed again. The data folder has to be one that all nodes see.

use super::{Ending, Hearing, Launch, Launcher, Life, SILENT, process, quoted};
use anyhow::{Context, Result, bail, ensure};
use moslim_engine::keep::write_atomically;
use moslim_shared::config::Problem;
use moslim_shared::study::Host;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// In a run's folder: which job of which cluster it is.
const TASK: &str = "ray.json";
/// The time between two questions to the cluster.
const APART: Duration = Duration::from_secs(1);
/// And where it did not answer: each question waits for long, and whoever follows a study hears nothing meanwhile.
const APART_IN_SILENCE: Duration = Duration::from_secs(15);
/// How long the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// A cluster that wants to know who asks reads this variable; so do we.
const TOKEN: &str = "RAY_AUTH_TOKEN";

/// How a Ray cluster wants its jobs: a TOML file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RayProfile {
    /// Address of the dashboard.
    pub address: String,
    /// Cores of a job.
    pub cores: u16,
    /// GPUs of a job; parts of one are allowed.
    pub gpus: f64,
    /// Jobs of a study that may run at a time; 0 for as many as there is room for.
    pub at_a_time: u16,
    /// The program on the nodes; this one where it is empty.
    pub program: PathBuf,
}

impl Default for RayProfile {
    fn default() -> Self {
        Self { address: "http://127.0.0.1:8265".into(), cores: 1, gpus: 0.0, at_a_time: 0, program: PathBuf::new() }
    }
}

impl RayProfile {
    /// What cannot be right, by field.
    pub fn problems(&self) -> Vec<Problem> {
        let mut out = Vec::new();
        let mut says = |field: &str, message: &str| out.push(Problem { field: field.into(), message: message.into() });
        if !["http://", "https://"].iter().any(|scheme| self.address.starts_with(scheme)) {
            says("address", "begins with http:// or https://");
        }
        if self.cores == 0 {
            says("cores", "must be at least 1");
        }
        if !(0.0..=64.0).contains(&self.gpus) {
            says("gpus", "must be 0 to 64");
        }
        out
    }
}

/// Which job a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Task {
    address: String,
    id: String,
    /// How often the run was given to a cluster.
    times: usize,
    /// Whether it has gone on on this machine since.
    #[serde(default)]
    left: bool,
}

/// What the cluster says of a job.
#[derive(Debug, Clone, Deserialize)]
struct Seen {
    /// Jobs that were not submitted have none.
    submission_id: Option<String>,
    status: String,
    message: Option<String>,
}

impl Seen {
    fn life(&self) -> Life {
        let said = self.message.as_deref().map(crate::failure::printable).unwrap_or_default();
        match self.status.as_str() {
            "RUNNING" => Life::Running,
            "SUCCEEDED" | "STOPPED" | "FAILED" => Life::Gone(Some(format!("its job is {} ({said})", self.status))),
            // PENDING, and what later versions may have.
            other => Life::Waiting(format!("{} on the cluster", other.to_lowercase())),
        }
    }
}

/// Asks the cluster at `address`: a question with a `body`, or without.
fn ask<T: DeserializeOwned>(address: &str, path: &str, body: Option<Value>) -> Result<T> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build().into();
    let url = format!("{}{path}", address.trim_end_matches('/'));
    let token = std::env::var(TOKEN).ok().map(|token| format!("Bearer {token}"));
    let answer = match body {
        Some(body) => {
            let request = agent.post(&url);
            token.iter().fold(request, |r, t| r.header("authorization", t)).send_json(body)
        }
        None => {
            let request = agent.get(&url);
            token.iter().fold(request, |r, t| r.header("authorization", t)).call()
        }
    };
    let mut answer = answer.with_context(|| format!("asking Ray at {url}; is its dashboard there?"))?;
    if !answer.status().is_success() {
        let said = answer.body_mut().read_to_string().unwrap_or_default();
        let last = said.trim().lines().last().unwrap_or_default();
        bail!("Ray says: {} {}", answer.status().as_u16(), crate::failure::printable(last));
    }
    answer.body_mut().read_json().with_context(|| format!("reading what Ray says at {url}"))
}

/// All jobs that a cluster knows, by their submission.
fn jobs(address: &str) -> Result<HashMap<String, Seen>> {
    let all: Vec<Seen> = ask(address, "/api/jobs/", None)?;
    Ok(all.into_iter().filter_map(|seen| Some((seen.submission_id.clone()?, seen))).collect())
}

/// The job that a run is, or was.
fn last_task(folder: &Path) -> Option<Task> {
    serde_json::from_slice(&std::fs::read(folder.join(TASK)).ok()?).ok()
}

fn task_of(folder: &Path) -> Option<Task> {
    last_task(folder).filter(|task| !task.left)
}

/// Whether a run is one of a cluster's.
pub fn is_task(run: &Path) -> bool {
    task_of(run).is_some()
}

/// A run is no cluster's any more. How often it was given to one stays known: a cluster takes no name twice.
///
/// # Errors
/// When its file cannot be written.
pub fn leave(run: &Path) -> Result<()> {
    let Some(task) = task_of(run) else { return Ok(()) };
    let file = run.join(TASK);
    write_atomically(&file, &serde_json::to_vec(&Task { left: true, ..task })?)
        .with_context(|| format!("writing {}", file.display()))
}

/// Tells what a run, or every run of a study, has on a cluster to end; false where it has nothing there. Ray knows one way: it tells a
/// job to keep what it has, and ends it three seconds later. The run can be resumed.
///
/// # Errors
/// When the cluster cannot be told.
pub fn stop(folder: &Path) -> Result<bool> {
    let mut tasks: Vec<Task> = task_of(folder).into_iter().collect();
    if let (Some(study), Some(data)) =
        (folder.file_name(), folder.parent().filter(|p| p.ends_with("studies")).and_then(Path::parent))
    {
        let of_study = format!("{}-", study.to_string_lossy());
        let runs = std::fs::read_dir(data.join("runs")).into_iter().flatten().flatten();
        tasks.extend(runs.filter(|e| e.file_name().to_string_lossy().starts_with(&of_study)).filter_map(|e| task_of(&e.path())));
    }
    let mut told = false;
    let mut known: HashMap<String, HashMap<String, Seen>> = HashMap::new();
    for Task { address, id, .. } in tasks {
        if !known.contains_key(&address) {
            known.insert(address.clone(), jobs(&address)?);
        }
        if known[&address].get(&id).is_some_and(|seen| !matches!(seen.life(), Life::Gone(_))) {
            let _: Value = ask(&address, &format!("/api/jobs/{id}/stop"), Some(json!({})))?;
            told = true;
        }
    }
    Ok(told)
}

/// What the cluster was last asked.
#[derive(Default)]
struct Snapshot {
    taken: Option<Instant>,
    hearing: Hearing,
    /// Whether it answered when it was asked last.
    heard: bool,
    jobs: HashMap<String, Seen>,
}

/// Runs on a Ray cluster.
pub struct Ray {
    profile: RayProfile,
    snapshot: Mutex<Snapshot>,
}

impl Ray {
    /// A cluster as `profile` wants it; it is asked whether it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn new(profile: RayProfile) -> Result<Self> {
        jobs(&profile.address)?;
        Ok(Self { profile, snapshot: Mutex::default() })
    }

    /// The command line of a job.
    fn entrypoint(&self, launch: &Launch) -> Result<String> {
        let own = || std::env::current_exe().context("finding this program");
        let program = if self.profile.program.as_os_str().is_empty() { own()? } else { self.profile.program.clone() };
        ensure!(
            !self.profile.program.as_os_str().is_empty() || program.is_file(),
            "{} has been replaced since it was started; start again, or name another program in the profile",
            program.display()
        );
        let words = [program.as_os_str()].into_iter().chain(launch.args.iter().map(|a| a.as_os_str()));
        Ok(format!("exec {}", quoted(words)?))
    }
}

impl Launcher for Ray {
    fn start(&self, launch: &Launch) -> Result<()> {
        let name = launch.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let times = last_task(&launch.folder).map_or(0, |task| task.times) + 1;
        let p = &self.profile;
        let task = Task { address: p.address.clone(), id: format!("{name}.{times}"), times, left: false };
        let file = launch.folder.join(TASK);
        write_atomically(&file, &serde_json::to_vec(&task)?).with_context(|| format!("writing {}", file.display()))?;
        let body = json!({
            "entrypoint": self.entrypoint(launch)?,
            "submission_id": task.id,
            "entrypoint_num_cpus": p.cores,
            "entrypoint_num_gpus": p.gpus,
            "runtime_env": { "env_vars": { "RAYON_NUM_THREADS": p.cores.to_string() } },
        });
        let _: Value = ask(&p.address, "/api/jobs/", Some(body))?;
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).taken = None;
        Ok(())
    }

    fn host(&self) -> Host {
        Host::Ray
    }

    fn at_a_time(&self) -> Option<usize> {
        Some(if self.profile.at_a_time == 0 { usize::MAX } else { self.profile.at_a_time.into() })
    }

    fn stop(&self, folder: &Path, _ending: Ending) -> Result<bool> {
        stop(folder)
    }

    fn poll(&self, folder: &Path) -> Life {
        let Some(task) = task_of(folder) else {
            return if process::is_taken(folder) { Life::Running } else { Life::Gone(None) };
        };
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let apart = if snapshot.heard { APART } else { APART_IN_SILENCE };
        if snapshot.taken.is_none_or(|taken| taken.elapsed() >= apart) {
            let answer = snapshot.hearing.hear(jobs(&task.address));
            (snapshot.heard, snapshot.taken) = (answer.is_some(), Some(Instant::now()));
            snapshot.jobs = answer.unwrap_or_default();
        }
        // Whoever does not answer has not said that a job is gone.
        if !snapshot.heard {
            return Life::Waiting(SILENT.into());
        }
        match snapshot.jobs.get(&task.id) {
            Some(seen) => seen.life(),
            None => Life::Gone(Some("its job is not known to the cluster".into())),
        }
    }
}
