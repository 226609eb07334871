//! `moslim-lab stop`, `pause` and `kill`: end a run or a study that trains in another process, at its next step or at once.

use crate::cli::{NamedRunArgs, StopArgs};
use crate::commands::print_line;
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::id::RunId;
use crate::launch::{self, Ending, Local};
use std::path::PathBuf;

/// Tells it to stop.
///
/// # Errors
/// When it does not run.
pub fn run(args: &StopArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    match (&args.run, &args.study) {
        (Some(id), _) => tell(("run", id, data.run(id)), Ending::Cancel, "is told to stop"),
        (None, Some(id)) => tell(("study", id, data.study(id)), Ending::Interrupt, "is told to stop"),
        (None, None) => Err(Failure::field("run", "name a run with --run or a study with --study")),
    }
}

/// Tells a run to make room for a while.
///
/// # Errors
/// When it does not run.
pub fn pause(args: &NamedRunArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    tell(("run", &args.run, data.run(&args.run)), Ending::Pause, "is told to pause")
}

/// Ends the process of a run at once.
///
/// # Errors
/// When it does not run.
pub fn kill(args: &NamedRunArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    tell(("run", &args.run, data.run(&args.run)), Ending::Kill, "is killed")
}

/// Tells what works in a folder how to end, and prints what was `done`.
fn tell((option, id, folder): (&str, &RunId, PathBuf), ending: Ending, done: &str) -> Result<(), Failure> {
    // Where nothing is, nothing is to be left behind.
    if !folder.is_dir() || !launch::stop(&Local::new()?, &folder, ending)? {
        return Err(Failure::field(option, format!("{id} is not running")));
    }
    print_line(&format!("{id} {done}"))
}
