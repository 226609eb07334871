//! `moslim-lab runs`: runs as files, from lab to lab.

use crate::cli::{OpenArgs, PackArgs};
use crate::commands::print_line;
use crate::failure::Failure;
use crate::folder::{DataFolder, write_file};
use moslim_engine::keep::carried::{pack_run, unpack_run};
use moslim_engine::keep::files::Disk;

/// Writes a run into a file.
///
/// # Errors
/// When there is no such run, or it trains, or the file cannot be written.
pub fn pack(args: &PackArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let _lock = match data.run(&args.run).is_dir() {
        true => data.take_run(&args.run).map_err(|e| Failure::field("run", e))?,
        false => return Err(Failure::field("run", format!("there is no run {} in {}", args.run, data.root().display()))),
    };
    let packed = pack_run(&Disk(data.root().into()), args.run.as_str()).map_err(|e| Failure::field("run", format!("{e:#}")))?;
    write_file(&args.to, &packed).map_err(|e| Failure::field("to", format!("{e:#}")))?;
    print_line(&format!("{} bytes written to {}", packed.len(), args.to.display()))
}

/// Adds a run that is in a file.
///
/// # Errors
/// When the file cannot be read, is damaged or no run, or another run has its name.
pub fn open(args: &OpenArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    data.create().map_err(Failure::BadInput)?;
    let wrong = |e: String| Failure::field("file", format!("{}: {e}", args.file.display()));
    let bytes = std::fs::read(&args.file).map_err(|e| wrong(e.to_string()))?;
    let run = unpack_run(&Disk(data.root().into()), &bytes).map_err(|e| wrong(format!("{e:#}")))?;
    print_line(&format!("Run {run} is in {}", data.root().display()))
}
