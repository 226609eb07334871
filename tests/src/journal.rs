//! Runs whose journals a test writes, in place of a process that trains.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes a run in the folder `to` like the one in `from`, with a journal of its own.
///
/// # Errors
/// When a file cannot be read or written.
pub fn copy_run(from: &Path, to: &Path, journal: &str) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for name in ["config.toml", "task.json", "tokenizer.json"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name))?;
        }
    }
    fs::write(to.join("events.jsonl"), journal)
}

/// Holds the folder of a run as the process does that trains it: the run counts as running as long as the file is open.
///
/// # Errors
/// When it cannot be locked.
pub fn hold(folder: &Path) -> io::Result<File> {
    let file = File::create(folder.join("process.lock"))?;
    file.lock()?;
    Ok(file)
}
