//! `moslim-lab stop`: ends a run or a study that trains in another process, at its next step.

use crate::cli::StopArgs;
use crate::commands::print_line;
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::launch::{self, Ending, Local};

/// Tells it to stop.
///
/// # Errors
/// When it does not run.
pub fn run(args: &StopArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let (option, id, folder) = match (&args.run, &args.study) {
        (Some(id), _) => ("run", id, data.run(id)),
        (None, Some(id)) => ("study", id, data.study(id)),
        (None, None) => return Err(Failure::field("run", "name a run with --run or a study with --study")),
    };
    let ending = if option == "run" { Ending::Cancel } else { Ending::Interrupt };
    if !launch::stop(&Local::new()?, &folder, ending)? {
        return Err(Failure::field(option, format!("{id} is not running")));
    }
    print_line(&format!("{id} is told to stop"))
}
