//! `moslim-lab train`: a run in this process, from the command line to the table of results.

use crate::allocator::keep_what_is_freed;
use crate::cli::{EvaluateArgs, TrainArgs};
use crate::commands::{print_json, print_line};
use crate::failure::{Failure, RUN_FAILED};
use crate::folder::DataFolder;
use crate::id::RunId;
use crate::json::{self, JsonError};
use crate::launch::ranks::{self, World};
use crate::log::say;
use crate::progress::Progress;
use crate::report;
use crate::signals::{Signals, Wish};
use moslim_engine::keep::Job;
use moslim_engine::keep::fork::take_over;
use moslim_engine::progress::{Stop, Unfit};
use moslim_engine::run::{RunError, train, train_as, trial};
use moslim_shared::config::{Problem, RunConfig, TaskKind, differences};
use moslim_shared::event::EventBody;
use moslim_shared::presets;
use moslim_shared::summary::RunSummary;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What is trained when nothing is said.
const DEFAULT_PRESET: &str = "quick";
/// How long a rank that fails waits for the first one to end them all.
const GRACE: Duration = Duration::from_secs(5);

/// Trains a run, or goes on with one.
///
/// # Errors
/// Bad input names its field; a run that fails or is stopped says what is kept of it.
pub fn run(args: TrainArgs) -> Result<(), Failure> {
    keep_what_is_freed();
    if args.estimate {
        return estimate(&args);
    }
    let world = ranks::join()?;
    if let Some(world) = world.as_ref().filter(|world| world.rank() > 0) {
        return follow(world, &DataFolder::resolve(args.folder.data));
    }
    let fails = |failure| ranks::give_up(world.as_ref(), failure);
    let (data, id) = (DataFolder::resolve(args.folder.data.clone()), args.run.clone().unwrap_or_else(RunId::fresh));
    let (job, _lock) = prepare(&args, &data, &id).map_err(fails)?;
    if let Some(world) = &world {
        ranks::tell(world, &id, &job.config).map_err(|e| fails(e.into()))?;
    }
    let stop = Arc::new(Stop::default());
    stop_on_signal(stop.clone())?;
    say(&format!("Run {id} in {}", data.run(&id).display()));
    let mut progress = Progress::new();
    let result = train_in(world.clone(), &job, &stop, &mut |body| progress.observe(body));
    progress.clear();
    match result {
        Ok(summary) if args.json => print_json(&summary),
        Ok(summary) => print_line(report::table(&summary).trim_end()),
        Err(RunError::Stopped(_)) => Err(Failure::Failed(format!("stopped; go on with: moslim-lab train --run {id}"))),
        Err(RunError::BadInput(message)) => Err(fails(Failure::BadInput(message))),
        Err(RunError::Failed(error)) => Err(fails(Failure::Failed(format!(
            "run {id} failed: {error:#}\nwhat it reached is kept; go on with: moslim-lab train --run {id}"
        )))),
    }
}

/// Evaluates what a finished run has trained, as a fork of it.
///
/// # Errors
/// As [`run`].
pub fn evaluate(args: EvaluateArgs) -> Result<(), Failure> {
    let EvaluateArgs { of, split, config, folder, run: id, json } = args;
    run(TrainArgs { fork: Some(of), split, config, folder, run: id, json, ..Default::default() })
}

/// Says what a run would take, and keeps nothing.
fn estimate(args: &TrainArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let id = RunId::fresh();
    let origin = match &args.from {
        Some(from) => data.read_config(from).map_err(|e| Failure::field("run", format!("{e:#}")))?,
        None => None,
    };
    let config = choose(args, &id, None, origin)?;
    let job = data.job(&id, config);
    let stop = Arc::new(Stop::default());
    stop_on_signal(stop.clone())?;
    let mut progress = Progress::new();
    let result = trial::estimate(&job, &stop, &mut |body| progress.observe(body));
    progress.clear();
    match result {
        Ok(estimate) if args.json => print_json(&estimate),
        Ok(estimate) => print_line(report::estimate(&estimate).trim_end()),
        Err(RunError::Stopped(_)) => Err(Failure::Failed("stopped".into())),
        Err(RunError::BadInput(message)) => Err(Failure::BadInput(message)),
        Err(RunError::Failed(error)) => Err(error.into()),
    }
}

/// Trains, with others where there are any.
pub fn train_in(world: Option<World>, job: &Job, stop: &Stop, sink: &mut dyn FnMut(&EventBody)) -> Result<RunSummary, RunError> {
    match world {
        Some(world) => train_as(world, job, stop, sink),
        None => train(job, stop, sink),
    }
}

/// Trains the run of the first rank with it; what is said and kept is the first one's.
///
/// # Errors
/// When the run fails; all ranks end then.
pub fn follow(world: &World, data: &DataFolder) -> Result<(), Failure> {
    let fails = |failure| {
        // What ends all of them alike the first one writes down, and ends them itself.
        std::thread::sleep(GRACE);
        ranks::give_up(Some(world), failure)
    };
    let job = ranks::told(world, data).map_err(|e| fails(e.into()))?;
    let stop = Arc::new(Stop::default());
    stop_on_signal(stop.clone())?;
    match train_as(world.clone(), &job, &stop, &mut |_| {}) {
        Ok(_) | Err(RunError::Stopped(_)) => Ok(()),
        Err(RunError::BadInput(message)) => Err(fails(Failure::BadInput(message))),
        Err(error) => Err(fails(Failure::Failed(format!("rank {}: {error:#}", world.rank())))),
    }
}

/// The run with its folder, which nobody else takes meanwhile.
fn prepare(args: &TrainArgs, data: &DataFolder, id: &RunId) -> Result<(Job, std::fs::File), Failure> {
    let stored = |id: &RunId| data.read_config(id).map_err(|e| Failure::field("run", format!("{e:#}")));
    let own = stored(id)?;
    let origin = args.from.as_ref().or(args.fork.as_ref()).map(&stored).transpose()?.flatten();
    let config = choose(args, id, own, origin)?;
    let problems = config.problems(&data.objectives(&config.task).map_err(|p| Failure::problems(&[p]))?);
    if !problems.is_empty() {
        return Err(Failure::problems(&problems));
    }
    data.create().map_err(Failure::BadInput)?;
    let lock = data.take_run(id).map_err(Failure::BadInput)?;
    let job = data.job(id, config);
    take_over(&job).map_err(|e| match e.downcast::<Unfit>() {
        Ok(unfit) => Failure::problems(&[unfit.problem()]),
        Err(error) => error.into(),
    })?;
    job.write_config()?;
    Ok((job, lock))
}

/// The configuration of the run: what is given, else what the run has `stored`, else that of the run it starts `from` or forks, else the
/// default preset.
fn choose(args: &TrainArgs, id: &RunId, stored: Option<RunConfig>, from: Option<RunConfig>) -> Result<RunConfig, Failure> {
    let given = match (&args.config, &args.preset, from) {
        (Some(path), ..) => Some(read("config", path)?),
        (None, Some(preset), _) => Some(preset_config(preset)?),
        // Where it began itself is over.
        (None, None, Some(from)) if stored.is_none() => Some(RunConfig { fork: None, ..from }),
        (None, None, _) => None,
    };
    let mut config = match (&given, &stored) {
        (Some(given), _) => given.clone(),
        (None, Some(stored)) => stored.clone(),
        (None, None) => preset_config(DEFAULT_PRESET)?,
    };
    if let Some(model) = &args.model {
        config.base.model.clone_from(model);
    }
    if let Some(task) = &args.task {
        (config.task.kind, config.task.name) = (TaskKind::Ratings, task.clone());
    }
    if let Some(seed) = args.seed {
        config.seed = seed;
    }
    if let Some(device) = args.device {
        config.device = device;
    }
    if let Some(split) = args.split {
        config.evaluation.split = split;
    }
    if let Some(from) = &args.from {
        config.from = Some(from.to_string());
    }
    if let Some(fork) = &args.fork {
        config.fork = Some(fork.to_string());
    }
    if let Some(stored) = stored {
        // Half a run with one configuration and half with another would have results that mean nothing. Where it is
        // computed, and what it is called, may change.
        let wanted = RunConfig { device: stored.device, name: stored.name.clone(), ..config.clone() };
        if wanted != stored {
            let first = differences(&stored, &wanted).into_iter().next();
            let what = first.map_or_else(String::new, |d| format!(" ({} is {} there, and not {})", d.path, d.old, d.new));
            let message = format!(
                "{id} exists with another configuration{what}; leave out --preset, --config and --seed to go on with it, or choose \
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

/// Reads a configuration, TOML or JSON by the name of its file; `option` is the one that named it.
pub fn read(option: &str, path: &Path) -> Result<RunConfig, Failure> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|e| Failure::field(option, format!("{shown} cannot be read: {e}")))?;
    let read = if path.extension().is_some_and(|e| e == "toml") { json::read_toml(&bytes) } else { json::read(&bytes) };
    read.map_err(|error| match error {
        JsonError::Syntax(message) => Failure::field(option, format!("{shown}: {message}")),
        JsonError::Field(problem) if problem.field.is_empty() => Failure::field(option, format!("{shown}: {}", problem.message)),
        JsonError::Field(Problem { field, message }) => Failure::field(&field, message),
    })
}

/// The first Ctrl-C cancels the run at its next step, the first request of the system to end interrupts it; the second of
/// either ends the process at once.
pub fn stop_on_signal(stop: Arc<Stop>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut signals = match Signals::listen() {
                Ok(signals) => signals,
                // Then the system's own way to handle them stays, which ends the process.
                Err(_) => return,
            };
            match signals.end().await {
                Wish::Cancel => stop.cancel(),
                Wish::End | Wish::Reload => stop.interrupt(),
            }
            say("Stopping at the next checkpoint. Once more ends at once.");
            signals.end().await;
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
        std::fs::create_dir_all(&folder).unwrap();
        let (file, table) = (folder.join("own.json"), folder.join("own.toml"));
        std::fs::write(&file, br#"{"vocabulary": 700, "seed": 9}"#).unwrap();
        std::fs::write(&table, b"vocabulary = 701\n[policy]\nprompts = 7\n").unwrap();
        let id = RunId::fresh();
        let choose = |line: &str, stored: Option<RunConfig>| choose(&args(line), &id, stored, None);

        assert_eq!(choose("train", None).unwrap().preset, "quick");
        let config = choose("train --preset smoke --seed 4 --device cpu", None).unwrap();
        assert_eq!((config.preset.as_str(), config.seed), ("smoke", 4));
        let config = choose(&format!("train --preset smoke --config {}", file.display()), None).unwrap();
        assert_eq!((config.preset.as_str(), config.vocabulary, config.seed), ("custom", 700, 9));
        let config = choose(&format!("train --config {}", table.display()), None).unwrap();
        assert_eq!((config.vocabulary, config.policy.prompts), (701, 7));

        let failure = choose("train --preset huge", None).unwrap_err();
        assert_eq!((failure.code(), failure.to_string().contains("known are smoke, quick, tab, noisy")), (2, true));
        assert!(choose("train --config /nowhere.json", None).unwrap_err().to_string().starts_with("config: "));
        std::fs::write(&table, b"[policy]\nprompts = \"x\"\n").unwrap();
        let wrong = choose(&format!("train --config {}", table.display()), None).unwrap_err();
        assert!(wrong.to_string().starts_with("policy.prompts: "), "{wrong}");

        let stored = RunConfig { preset: "smoke".into(), seed: 2, ..RunConfig::default() };
        assert_eq!(choose("train --device cpu", Some(stored.clone())).unwrap().seed, 2);
        let told = choose("train --seed 3", Some(stored.clone())).unwrap_err().to_string();
        assert!(told.starts_with("run: ") && told.contains("(seed is 2 there, and not 3)"), "{told}");
        std::fs::write(&table, b"preset = \"smoke\"\nseed = 2\n[base]\ntargets = [\"q_proj\", \"v_proj\"]\n").unwrap();
        let told = choose(&format!("train --config {}", table.display()), Some(stored)).unwrap_err().to_string();
        assert!(told.contains("(base.targets is q_proj, k_proj") && told.contains("and not q_proj, v_proj)"), "{told}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
