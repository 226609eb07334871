//! The processes that `mpirun` or `srun` has started to train one run together.
//!
//! Without the feature `mpi` there is one process; one of several says that it cannot join the others.

use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::id::RunId;
use anyhow::{Context, Result};
use moslim_engine::keep::Job;
use moslim_engine::ranks::Ranks;
use moslim_shared::config::RunConfig;
use std::rc::Rc;

#[cfg(feature = "mpi")]
mod world;

/// What can be done with ranks beyond training.
pub trait Together: Ranks {
    /// Ends all processes; the exit code of the whole.
    fn abort(&self, code: u8) -> !;
}

/// The ranks that this process is one of.
pub type World = Rc<dyn Together>;

/// How many processes a launcher has started, as OpenMPI, PMIx under Slurm, and MPICH say it; `variable` reads the environment.
fn started(variable: impl Fn(&str) -> Option<String>) -> usize {
    let number = |name: &str| variable(name).and_then(|v| v.trim().parse::<usize>().ok());
    let under_slurm = || variable("PMIX_RANK").and_then(|_| number("SLURM_STEP_NUM_TASKS"));
    number("OMPI_COMM_WORLD_SIZE").or_else(under_slurm).or_else(|| number("PMI_SIZE")).unwrap_or(1)
}

/// Joins the others, where there are any.
///
/// # Errors
/// When there are and they cannot be joined.
pub fn join() -> Result<Option<World>, Failure> {
    match started(|name| std::env::var(name).ok()) {
        0 | 1 => Ok(None),
        #[cfg(feature = "mpi")]
        _ => world::Mpi::join().map(|world| Some(Rc::new(world) as World)).map_err(|e| Failure::Failed(format!("{e:#}"))),
        #[cfg(not(feature = "mpi"))]
        count => Err(Failure::BadInput(format!(
            "this is one of {count} processes that were started together, and this build cannot join them: build it with \
             `--features moslim-server/mpi` (OpenMPI and clang are needed), or start one process"
        ))),
    }
}

/// Says why this rank cannot go on, and ends all of them.
pub fn give_up(world: Option<&World>, failure: Failure) -> Failure {
    if let Some(world) = world {
        crate::log::say(&failure.to_string());
        world.abort(failure.code());
    }
    failure
}

/// The first rank tells the others which run they train.
///
/// # Errors
/// When they are gone.
pub fn tell(world: &World, run: &RunId, config: &RunConfig) -> Result<()> {
    world.gather(&serde_json::to_vec(&(run.as_str(), config))?).map(|_| ())
}

/// The run that the first rank trains, in the folder that all of them see.
///
/// # Errors
/// When it is gone.
pub fn told(world: &World, data: &DataFolder) -> Result<Job> {
    let given = world.gather(&[])?;
    let (run, config): (String, RunConfig) = serde_json::from_slice(&given[0]).context("reading what the first rank tells")?;
    Ok(Job::new(&run, config, data.files()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_says_how_many_it_has_started() {
        let with =
            |pairs: &[(&str, &str)]| started(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string()));
        assert_eq!((with(&[]), with(&[("OMPI_COMM_WORLD_SIZE", "4")]), with(&[("PMI_SIZE", "2")])), (1, 4, 2));
        assert_eq!(with(&[("PMIX_RANK", "0"), ("SLURM_STEP_NUM_TASKS", "3")]), 3);
        assert_eq!(with(&[("SLURM_STEP_NUM_TASKS", "3")]), 1, "an ordinary step of a job");
    }
}
