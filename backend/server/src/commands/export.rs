//! `moslim-lab export`: a run's policy and reward model for other software.

use crate::cli::ExportArgs;
use crate::commands::{print_json, print_line};
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::log::say;
use moslim_engine::run::export::export;

/// Writes the files and lists them.
///
/// # Errors
/// Bad input names its option; a run that cannot be loaded says which file is at fault. Nothing is left half-written.
pub fn run(args: &ExportArgs) -> Result<(), Failure> {
    let folder = DataFolder::resolve(args.folder.data.clone()).run(&args.run);
    if !folder.is_dir() {
        return Err(Failure::field("run", format!("there is no folder {}", folder.display())));
    }
    let mut note = say;
    let exported = export(&folder, &args.to, (args.form, args.weights), args.policy, &mut note);
    let exported = exported.map_err(|e| Failure::BadInput(format!("{e:#}")))?;
    if args.json {
        return print_json(&exported);
    }
    print_line(&format!("Written to {}", exported.folder.display()))?;
    exported.files.iter().try_for_each(|(name, bytes)| print_line(&format!("{bytes:>12}  {name}")))
}
