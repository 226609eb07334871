//! `moslim-lab worker`: the process that trains a run for a server or a study. All that it says is in the run's folder.

use crate::allocator::keep_what_is_freed;
use crate::cli::WorkerArgs;
use crate::commands::train::{follow, stop_on_signal, train_in};
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::launch::limits;
use crate::launch::ranks;
use moslim_engine::progress::Stop;
use moslim_engine::run::RunError;
use moslim_shared::event::EventBody;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Trains; the end was written as an event by then.
///
/// # Errors
/// As the exit code of the process.
pub fn run(args: &WorkerArgs) -> Result<(), Failure> {
    limits::limit_memory()?;
    keep_what_is_freed();
    let data = DataFolder::resolve(Some(args.data.clone()));
    let world = ranks::join()?;
    if let Some(world) = world.as_ref().filter(|world| world.rank() > 0) {
        return follow(world, &data);
    }
    let fails = |failure| ranks::give_up(world.as_ref(), failure);
    let stop = Arc::new(Stop::default());
    stop_on_signal(stop.clone())?;
    let _lock = data.take_run(&args.run).map_err(|e| fails(Failure::BadInput(e)))?;
    let config = data.read_config(&args.run).map_err(|e| fails(Failure::BadInput(format!("config: {e:#}"))))?;
    let config = config.ok_or_else(|| fails(Failure::field("run", format!("{} has no configuration", args.run))))?;
    if let Some(world) = &world {
        ranks::tell(world, &args.run, &config).map_err(|e| fails(e.into()))?;
    }
    let (only_stages, at_policy) = (args.stages, stop.clone());
    let through = Arc::new(AtomicBool::new(false));
    let are_through = through.clone();
    let mut heard = move |body: &EventBody| {
        if only_stages && matches!(body, EventBody::Calibrated { .. }) {
            are_through.store(true, Ordering::Relaxed);
            at_policy.interrupt();
        }
    };
    match train_in(world.clone(), &data.job(&args.run, config), &stop, &mut heard) {
        Ok(_) => Ok(()),
        // What others share with it is in the cache.
        Err(RunError::Stopped(_)) if through.load(Ordering::Relaxed) => Ok(()),
        Err(RunError::BadInput(message)) => Err(fails(Failure::BadInput(message))),
        Err(error @ RunError::Stopped(_)) => Err(Failure::Failed(error.to_string())),
        Err(error) => Err(fails(Failure::Failed(error.to_string()))),
    }
}
