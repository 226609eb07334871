//! `moslim-lab compare`: the whole comparison, study after study, each from where it was interrupted.

use super::study::{base, check_memory, failures, follow};
use crate::cli::{CompareArgs, HostArg};
use crate::commands::print_line;
use crate::commands::train::stop_on_signal;
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::folder::write_file;
use crate::id::RunId;
use crate::log::say;
use crate::pictures;
use crate::study::Study;
use moslim_engine::progress::Stop;
use moslim_shared::study::{
    Host, METRICS, ON_REQUEST, PROGRAMME, PlannedRun, StudyConfig, StudyResults, before, programme_study,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Runs the studies of the programme that are not done, in order, and writes for each its plan, its results and its runs.
///
/// # Errors
/// Bad input names its field; where runs fail, which.
pub fn run(args: &CompareArgs) -> Result<(), Failure> {
    let base = base(&args.base)?;
    let seeds = args.seeds.clone().unwrap_or_else(|| vec![1, 2, 3]);
    if seeds.contains(&args.tuning_seed) {
        return Err(Failure::field("tuning-seed", format!("is {}, which is also a seed of the results", args.tuning_seed)));
    }
    for id in args.only.iter().flatten() {
        if !PROGRAMME.contains(&id.as_str()) {
            return Err(Failure::field("only", format!("unknown study \"{id}\"; known are {}", PROGRAMME.join(", "))));
        }
    }
    let data = DataFolder::resolve(args.folder.data.clone());
    data.create().map_err(Failure::BadInput)?;
    let stop = Arc::new(Stop::default());
    stop_on_signal(stop.clone())?;
    let launcher = args.host.launcher()?;
    let mut done: BTreeMap<String, StudyResults> = BTreeMap::new();
    for (n, id) in PROGRAMME.iter().enumerate() {
        let wanted = match &args.only {
            Some(only) => only.iter().any(|o| o == id),
            None => !ON_REQUEST.contains(id),
        };
        let Some(config) = programme_study(id, &base, &seeds, args.tuning_seed, &done) else {
            if wanted {
                let missing: Vec<&str> = before(id).iter().copied().filter(|b| !done.contains_key(*b)).collect();
                return Err(match missing[..] {
                    [] if seeds.len() < 2 => Failure::field("seeds", format!("{id} is done with all of them but the first")),
                    [] => Failure::field("only", format!("{id} finds no settings in {}", before(id).join(" and "))),
                    _ => Failure::field(
                        "only",
                        format!("{id} takes its settings from {}, which is not done", missing.join(" and ")),
                    ),
                });
            }
            continue;
        };
        let written = args.to.as_deref().and_then(|to| written(to, &config, &data));
        if let Some(Written { results, .. }) = written.as_ref().filter(|w| w.of_this_plan && w.results.is_complete(&config)) {
            if wanted {
                say(&format!("Study {} of {}: {id} is written already", n + 1, PROGRAMME.len()));
                args.to.iter().try_for_each(|to| write_overview(to, id, results))?;
            }
            done.insert(id.to_string(), results.clone());
            continue;
        }
        let study = match begun(&data, &config)? {
            Some(study) => study,
            None if wanted => {
                // What is wrong with a plan is said when the study is made.
                let objectives = data.objectives(&config.base.task).unwrap_or_default();
                if args.host.on == HostArg::Here
                    && let Ok(plan) = config.plan(&objectives)
                {
                    check_memory(&plan, &data, args.jobs)?;
                }
                Study::create(&data, RunId::fresh(), config, Host::default())?
            }
            None => continue,
        };
        let mut ended = Ok(());
        if wanted {
            say(&format!("Study {} of {}: {id}, in {}", n + 1, PROGRAMME.len(), study.file("").display()));
            if let Some(Written { results, .. }) = written.as_ref().filter(|w| !w.results.runs.is_empty()) {
                say(&format!("{} of its runs are written already", results.runs.len()));
                study.take_over(results)?;
            }
            let followed = follow(&study, args.jobs.map(usize::from), launcher.as_ref(), &stop);
            ended = followed.and_then(|state| failures(&study, &state));
        }
        let Some(results) = study.results()? else { continue };
        if let Some(to) = &args.to {
            let write = |name: String, text: &[u8]| {
                write_file(&to.join(&name), text).map_err(|e| Failure::field("to", format!("{name} cannot be written: {e:#}")))
            };
            write(format!("{id}.json"), &serde_json::to_vec_pretty(&study.config)?)?;
            write(format!("{id}.results.json"), &serde_json::to_vec_pretty(&results)?)?;
            write(format!("{id}.csv"), results.to_csv().as_bytes())?;
            write_overview(to, id, &results)?;
        }
        ended?;
        if wanted && !results.is_complete(&study.config) {
            // What later studies take from it would be another thing.
            return Err(Failure::Failed(format!("study {id} has not all its results; go on with the same command")));
        }
        done.insert(id.to_string(), results);
    }
    print_line(&format!("{} studies are done: {}", done.len(), done.keys().cloned().collect::<Vec<_>>().join(", ")))
}

/// The study in one picture, where there are fronts to be compared.
fn write_overview(to: &Path, id: &str, results: &StudyResults) -> Result<(), Failure> {
    let Some(svg) = pictures::overview(results)? else { return Ok(()) };
    write_file(&to.join(format!("{id}.svg")), svg.as_bytes()).map_err(|e| Failure::field("to", format!("{id}.svg: {e:#}")))
}

/// Results of a study that were written before.
struct Written {
    results: StudyResults,
    /// Whether the plan they were made with is today's.
    of_this_plan: bool,
}

/// What lies in `to` of a study, of runs that today's plan has as well; what is damaged is made anew.
fn written(to: &Path, config: &StudyConfig, data: &DataFolder) -> Option<Written> {
    let read = |name: String| std::fs::read(to.join(name)).ok();
    let plan: StudyConfig = serde_json::from_slice(&read(format!("{}.json", config.name))?).ok()?;
    let mut results: StudyResults = serde_json::from_slice(&read(format!("{}.results.json", config.name))?).ok()?;
    // Of a version with other figures, or of a run that is another one today.
    let runs = |plan: &StudyConfig| plan.plan(&data.objectives(&plan.base.task).ok()?).ok();
    let (then, today) = (runs(&plan)?, runs(config)?);
    results.runs.retain(|row| {
        let same = |run: &&PlannedRun| run.labels == row.labels && run.config.seed == row.seed;
        let is_the_same = then.iter().find(same).is_some_and(|run| today.contains(run));
        row.metrics.len() == METRICS.len() && is_the_same
    });
    Some(Written { results, of_this_plan: plan == *config })
}

/// The study with this configuration, if it was begun.
fn begun(data: &DataFolder, config: &StudyConfig) -> Result<Option<Study>, Failure> {
    for id in Study::list(data)? {
        let study = Study::open(data, &id)?;
        if study.config == *config {
            return Ok(Some(study));
        }
    }
    Ok(None)
}
