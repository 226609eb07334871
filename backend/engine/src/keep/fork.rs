//! Forks: runs that begin with what another has. Of one that optimises its policy, its last checkpoint, and they go on from there; of one
//! that has finished, what it has trained, and they evaluate it anew.
//!
//! What they begin with is copied when they are made, so that the other run may go on, and be deleted.

use super::bundle::unpack;
use super::checkpoint::{Header, Parts, file, load_file, older};
use super::{CALIBRATION, CONFIG, Job, ROUTE, START, TRAINED, model_file, read_config, sums};
use crate::progress::Unfit;
use anyhow::{Context, Result};
use moslim_shared::config::{Problem, RunConfig};
use moslim_shared::event::Stage;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The checkpoint that a fork goes on from.
const FORK: &str = "fork.bin";
/// What was taken over. Where it is, all of it is.
const FORKED: &str = "fork.json";

/// What was taken over, and of which run.
#[derive(Serialize, Deserialize)]
struct Forked {
    run: String,
    config: RunConfig,
    /// Whether it is what that run has trained, and no checkpoint.
    #[serde(default)]
    trained: bool,
    /// Fingerprint of the task that it was trained on; empty where that is not known.
    #[serde(default)]
    task: String,
}

/// What this run has taken over, where it is a fork.
fn taken(job: &Job) -> Result<Option<Forked>> {
    let Some(bytes) = job.read(FORKED)? else { return Ok(None) };
    let taken: Forked = serde_json::from_slice(&bytes).with_context(|| format!("reading {}", job.describe(FORKED)))?;
    Ok(Some(taken).filter(|taken| job.config.fork.as_ref() == Some(&taken.run)))
}

/// Takes over what the run that this one is a fork of has; once.
///
/// # Errors
/// [`Unfit`] where there is no such run, it has neither trained anything nor a checkpoint of policy optimisation, or it was trained with other
/// settings than a fork may change; or when a file cannot be read or written. Nothing of it is kept then.
pub fn take_over(job: &Job) -> Result<()> {
    let Some(source) = &job.config.fork else { return Ok(()) };
    if taken(job)?.is_some() {
        return Ok(());
    }
    // Of a fork whose note of what it has taken over is lost: nothing is put in the place of what it has trained.
    if job.files.read(&job.path(TRAINED))?.is_some() {
        return Err(
            Unfit(format!("fork: {} is missing, by which it is known what this run has trained", job.describe(FORKED))).into()
        );
    }
    let of = Job { run: source.clone(), ..job.clone() };
    let taken = copy(job, &of);
    if taken.is_err() {
        leave(job);
    }
    taken
}

fn copy(job: &Job, of: &Job) -> Result<()> {
    let unfit = |what: String| anyhow::Error::from(Unfit(format!("fork: {what}")));
    let read = |file: &str| job.files.read(&of.path(file));
    let config = read_config(read).map_err(|_| unfit(format!("there is no run {}", of.run)))?;
    let trained = read(TRAINED)?.is_some();
    let problems = if trained { job.config.evaluation_problems(&config) } else { job.config.fork_problems(&config) };
    if let Some(Problem { field, message }) = problems.into_iter().next() {
        return Err(Unfit(format!("{field}: {message}")).into());
    }
    let card = read("task.json")?.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let task = card.and_then(|card| Some(card.get("fingerprint")?.as_str()?.to_string())).unwrap_or_default();
    let forked = Forked { run: of.run.clone(), config, trained, task };
    if trained {
        for name in trained_files(of)? {
            let bytes = of.read(&name)?.with_context(|| format!("{} is missing", of.describe(&name)))?;
            job.write(&name, &bytes)?;
        }
        return job.write_json(FORKED, &forked);
    }
    for name in [file(Stage::Policy), older(Stage::Policy)] {
        let Some(bytes) = read(&name)?.filter(|bytes| unpack::<Header<serde_json::Value>>(bytes).is_ok()) else { continue };
        job.files.write(&job.path(FORK), &bytes).with_context(|| format!("writing {}", job.describe(FORK)))?;
        return job.write_json(FORKED, &forked);
    }
    Err(unfit(format!("run {} has no checkpoint to go on from: it is not optimising its policy yet", of.run)))
}

/// Files that hold what a run has trained and what it was trained for, [`TRAINED`] the last of them.
fn trained_files(job: &Job) -> Result<Vec<String>> {
    let mut names: Vec<String> = job.files.list(&format!("runs/{}", job.run))?;
    let kept = |name: &str| ["policy", "reward"].iter().any(|kind| name.starts_with(kind)) && name.ends_with(".safetensors");
    names.retain(|name| *name == model_file(START, 0) || kept(name));
    names.extend([CALIBRATION, ROUTE, TRAINED].map(String::from));
    Ok(names)
}

/// Removes what was taken over by a run that is not made after all.
pub fn leave(job: &Job) {
    let names = trained_files(job).unwrap_or_default();
    for name in names.iter().map(String::as_str).rev().chain([FORK, FORKED]) {
        let _ = job.files.remove(&job.path(name));
    }
    if matches!(job.files.read(&job.path(CONFIG)), Ok(None)) {
        let _ = job.files.remove(&job.path(sums::FILE));
    }
}

/// The configuration that the checkpoint which was taken over was made with, where there is one.
///
/// # Errors
/// When it cannot be read.
pub fn forked(job: &Job) -> Result<Option<RunConfig>> {
    Ok(taken(job)?.map(|taken| taken.config))
}

/// The run whose policies this one evaluates, with the reward model that they were trained for; it trains neither itself.
///
/// # Errors
/// When what was taken over cannot be read.
pub fn evaluated(job: &Job) -> Result<Option<String>> {
    Ok(taken(job)?.filter(|taken| taken.trained).map(|taken| taken.run))
}

/// Makes sure that what this run evaluates was trained on the task with this fingerprint: another one may mean something else by its heads,
/// and ask as test questions what was trained on.
///
/// # Errors
/// [`Unfit`] where it was another, as after an import that replaced it; or when what was taken over cannot be read.
pub fn same_task(job: &Job, fingerprint: &str) -> Result<()> {
    match taken(job)?.filter(|taken| taken.trained && !taken.task.is_empty() && taken.task != fingerprint) {
        Some(taken) => {
            Err(Unfit(format!("task: is another than the one that run {} was trained on; it was changed since", taken.run))
                .into())
        }
        None => Ok(()),
    }
}

/// The policy that came of it is kept: the checkpoint that was taken over goes.
pub fn let_go(job: &Job) {
    let _ = job.files.remove(&job.path(FORK));
}

/// The checkpoint that was taken over, which was made from `key`.
///
/// # Errors
/// When it is damaged; [`Unfit`] when it was made from something else.
pub fn load<T: DeserializeOwned>(job: &Job, key: &str) -> Result<(Header<T>, Parts)> {
    let other = "fork: the checkpoint was made with another reward model, from another policy, or by another version of the lab, than \
                 this run has by now";
    load_file(job, FORK, key)?.ok_or_else(|| Unfit(other.into()).into())
}
