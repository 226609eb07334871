//! `moslim-lab train`: a run in this process, from the command line to the table of results.

use crate::cli::TrainArgs;
use crate::commands::{print_json, print_line};
use crate::failure::{Failure, RUN_FAILED};
use crate::folder::DataFolder;
use crate::id::RunId;
use crate::json::{self, JsonError};
use crate::progress::Progress;
use crate::report;
use crate::signals::Signals;
use moslim_engine::data::world;
use moslim_engine::model::store::write_atomically;
use moslim_engine::run::{Job, RunError, train};
use moslim_shared::config::{Problem, RunConfig};
use moslim_shared::presets;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What is trained when nothing is said.
const DEFAULT_PRESET: &str = "quick";

/// Trains a run, or goes on with one.
///
/// # Errors
/// Bad input names its field; a run that fails or is stopped says what is kept of it.
pub fn run(args: TrainArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let id = args.run.clone().unwrap_or_else(RunId::fresh);
    let origin = args.from.as_ref().map(|from| data.config(from));
    let config = choose(&args, &id, &data.config(&id), origin.as_deref())?;
    let problems = config.problems(&world::objectives());
    if !problems.is_empty() {
        return Err(Failure::problems(&problems));
    }
    data.create().map_err(Failure::BadInput)?;
    let _lock = data.lock_run(&id, Duration::ZERO).map_err(Failure::BadInput)?;
    write_atomically(&data.config(&id), &serde_json::to_vec_pretty(&config)?)?;

    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signal(stop.clone())?;
    eprintln!("Run {id} in {}", data.run(&id).display());
    let job = Job { run: id.to_string(), config, lab: data.root().to_path_buf() };
    let mut progress = Progress::new();
    let result = train(&job, &stop, &mut |body| progress.observe(&body));
    progress.clear();
    match result {
        Ok(summary) if args.json => print_json(&summary),
        Ok(summary) => print_line(report::table(&summary).trim_end()),
        Err(RunError::BadInput(message)) => Err(Failure::BadInput(message)),
        Err(RunError::Cancelled) => Err(Failure::Failed(format!("stopped; go on with: moslim-lab train --run {id}"))),
        Err(RunError::Failed(error)) => Err(Failure::Failed(format!(
            "run {id} failed: {error:#}\nwhat it reached is kept; go on with: moslim-lab train --run {id}"
        ))),
    }
}

/// The configuration of the run: what is given, else what the run has already, else that of the run it starts `from`, else
/// the default preset.
fn choose(args: &TrainArgs, id: &RunId, stored: &Path, from: Option<&Path>) -> Result<RunConfig, Failure> {
    let stored = if stored.exists() { Some(read("run", stored)?) } else { None };
    let given = match (&args.config, &args.preset, from) {
        (Some(path), ..) => Some(read("config", path)?),
        (None, Some(preset), _) => Some(preset_config(preset)?),
        (None, None, Some(from)) if stored.is_none() => Some(read("from", from)?),
        (None, None, _) => None,
    };
    let mut config = match (&given, &stored) {
        (Some(given), _) => given.clone(),
        (None, Some(stored)) => stored.clone(),
        (None, None) => preset_config(DEFAULT_PRESET)?,
    };
    if let Some(seed) = args.seed {
        config.seed = seed;
    }
    if let Some(device) = args.device {
        config.device = device;
    }
    if let Some(from) = &args.from {
        config.from = Some(from.to_string());
    }
    if let Some(stored) = stored {
        // Half a run with one configuration and half with another would have results that mean nothing. Where it is
        // computed, and what it is called, may change.
        let same = RunConfig { device: stored.device, name: stored.name.clone(), ..config.clone() } == stored;
        if !same {
            let message = format!(
                "{id} exists with another configuration; leave out --preset, --config and --seed to go on with it, or choose \
                 another id"
            );
            return Err(Failure::field("run", message));
        }
    }
    Ok(config)
}

fn preset_config(id: &str) -> Result<RunConfig, Failure> {
    presets::find(id).map(|p| p.config).ok_or_else(|| {
        let known: Vec<String> = presets::all().into_iter().map(|p| p.id).collect();
        Failure::field("preset", format!("unknown preset \"{id}\"; known are {}", known.join(", ")))
    })
}

/// Reads a configuration; `option` is the one that named the file.
fn read(option: &str, path: &Path) -> Result<RunConfig, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::field(option, format!("{} cannot be read: {e}", path.display())))?;
    json::read(&bytes).map_err(|error| match error {
        JsonError::Syntax(message) => Failure::field(option, format!("{}: {message}", path.display())),
        JsonError::Field(problem) if problem.field.is_empty() => {
            Failure::field(option, format!("{}: {}", path.display(), problem.message))
        }
        JsonError::Field(Problem { field, message }) => Failure::field(&field, message),
    })
}

/// The first Ctrl-C (or request to end) stops the run at a checkpoint, the second ends the process at once.
pub fn stop_on_signal(stop: Arc<AtomicBool>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut signals = match Signals::listen() {
                Ok(signals) => signals,
                // Then the system's own way to handle them stays, which ends the process.
                Err(_) => return,
            };
            signals.next().await;
            stop.store(true, Ordering::SeqCst);
            eprintln!("Stopping at the next checkpoint. Once more ends at once.");
            signals.next().await;
            std::process::exit(i32::from(RUN_FAILED));
        });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn args(line: &str) -> TrainArgs {
        let words = std::iter::once("moslim-lab").chain(line.split_whitespace());
        let Command::Train(args) = Cli::try_parse_from(words).unwrap().command else { panic!("train was expected") };
        args
    }

    #[test]
    fn a_configuration_is_chosen_as_documented() {
        let folder = std::env::temp_dir().join(format!("moslim-train-{}", std::process::id()));
        let (file, stored, missing) = (folder.join("own.json"), folder.join("config.json"), folder.join("missing.json"));
        write_atomically(&file, br#"{"vocabulary": 700, "seed": 9}"#).unwrap();
        let id = RunId::fresh();
        let choose = |line: &str, stored: &Path| choose(&args(line), &id, stored, None);

        assert_eq!(choose("train", &missing).unwrap().preset, "quick");
        let config = choose("train --preset smoke --seed 4 --device cpu", &missing).unwrap();
        assert_eq!((config.preset.as_str(), config.seed), ("smoke", 4));
        let config = choose(&format!("train --preset smoke --config {}", file.display()), &missing).unwrap();
        assert_eq!((config.preset.as_str(), config.vocabulary, config.seed), ("custom", 700, 9));

        let failure = choose("train --preset huge", &missing).unwrap_err();
        assert_eq!((failure.code(), failure.to_string().contains("known are smoke, quick, standard")), (2, true));
        assert!(choose("train --config /nowhere.json", &missing).unwrap_err().to_string().starts_with("config: "));

        write_atomically(&stored, br#"{"preset": "smoke", "seed": 2}"#).unwrap();
        assert_eq!(choose("train --device cpu", &stored).unwrap().seed, 2);
        assert!(choose("train --seed 3", &stored).unwrap_err().to_string().starts_with("run: "));
        write_atomically(&stored, br#"{"policy": {"prompts": "x"}}"#).unwrap();
        assert!(choose("train", &stored).unwrap_err().to_string().starts_with("policy.prompts: "));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
