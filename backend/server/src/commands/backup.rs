//! `moslim-lab backup` and `restore`: everything that was trained, rated and measured in a second folder, and back.
//!
//! A backup is a data folder without what can be made again. It is taken while the lab runs: files appear whole there, and a run's
//! are copied again where one was replaced meanwhile.

use crate::cli::{BackupArgs, RestoreArgs};
use crate::commands::doctor::damaged;
use crate::commands::print_line;
use crate::failure::Failure;
use crate::folder::{DataFolder, write_file};
use anyhow::{Context, Result, ensure};
use moslim_engine::keep::journal;
use std::fs;
use std::path::Path;

/// What a data folder holds that cannot be made again.
const KEPT: [&str; 4] = ["runs", "studies", "tasks", "models"];
/// Files of a process that works here, and of nobody elsewhere.
const PASSING: [&str; 3] = ["process.lock", "process.json", "worker.log"];
/// How often a run's files are copied before they count as damaged.
const TRIES: usize = 5;

/// What was done.
#[derive(Debug, Default)]
struct Copied {
    files: u64,
    bytes: u64,
    /// Files that were there already.
    same: u64,
}

/// Copies what is new and what has changed.
///
/// # Errors
/// When a file cannot be read or written, or a run's files are damaged; the message names them.
pub fn backup(args: &BackupArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    if !data.root().is_dir() {
        return Err(Failure::field("data", format!("there is no folder {}", data.root().display())));
    }
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
    if absolute(&args.to).starts_with(absolute(data.root())) {
        return Err(Failure::field("to", "lies in the data folder; a backup belongs on another disk"));
    }
    copy_all(data.root(), &args.to)
}

/// Copies a backup into a new data folder.
///
/// # Errors
/// When it is no backup, or the folder has something in it; else as for [`backup`].
pub fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    if !KEPT.iter().any(|name| args.from.join(name).is_dir()) {
        return Err(Failure::field("from", format!("{} holds no backup", args.from.display())));
    }
    let taken = KEPT.iter().find(|name| fs::read_dir(data.root().join(name)).is_ok_and(|mut d| d.next().is_some()));
    if let Some(name) = taken {
        let message = format!("{} has {name} already; name a new folder", data.root().display());
        return Err(Failure::field("data", message));
    }
    data.create().map_err(Failure::BadInput)?;
    copy_all(&args.from, data.root())
}

fn copy_all(from: &Path, to: &Path) -> Result<(), Failure> {
    let (mut done, mut wrong) = (Copied::default(), Vec::new());
    for name in KEPT {
        let entries = fs::read_dir(from.join(name)).into_iter().flatten().flatten();
        for entry in entries.filter(|e| e.path().is_dir()) {
            let (own, copy) = (entry.path(), to.join(name).join(entry.file_name()));
            let mut bad = Vec::new();
            for _ in 0..TRIES {
                copy_folder(&own, &copy, &mut done)?;
                // A file that was replaced between it and its checksum is copied again.
                bad = damaged(&copy);
                if bad.is_empty() {
                    break;
                }
            }
            wrong.extend(bad.into_iter().map(|file| format!("{name}/{}: {file}", entry.file_name().to_string_lossy())));
        }
    }
    let Copied { files, bytes, same } = done;
    print_line(&format!("{files} files copied ({} MiB) to {}, {same} were there already", bytes >> 20, to.display()))?;
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Failed(format!("damaged:\n{}", wrong.join("\n")))) }
}

/// Copies a folder's files, and removes from the copy what is not there any more.
fn copy_folder(from: &Path, to: &Path, done: &mut Copied) -> Result<()> {
    let of = || format!("copying {}", from.display());
    let mut kept = Vec::new();
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(from).with_context(of)?.flatten().collect();
    // Last: a checkpoint must not know of more than the journal does.
    entries.sort_by_key(|entry| entry.file_name() == journal::FILE);
    for entry in entries {
        let (own, name) = (entry.path(), entry.file_name());
        let passing = PASSING.iter().any(|p| *p == name) || name.to_string_lossy().starts_with('.');
        if passing || own.is_symlink() {
            continue;
        }
        let copy = to.join(&name);
        kept.push(name);
        if own.is_dir() {
            copy_folder(&own, &copy, done)?;
        } else {
            copy_file(&own, &copy, done).with_context(|| format!("copying {}", own.display()))?;
        }
    }
    for entry in fs::read_dir(to).into_iter().flatten().flatten() {
        if !kept.contains(&entry.file_name()) && entry.path().is_file() {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, done: &mut Copied) -> Result<()> {
    let Ok(about) = fs::metadata(from) else { return Ok(()) };
    let is_journal = from.file_name().is_some_and(|name| name == journal::FILE);
    let copied = fs::metadata(to).ok();
    let newer = |copy: &fs::Metadata| Some(copy.modified().ok()? >= about.modified().ok()?);
    // A file of the same length that was written after this one is its copy.
    if !is_journal && copied.as_ref().is_some_and(|c| c.len() == about.len() && newer(c) == Some(true)) {
        done.same += 1;
        return Ok(());
    }
    let mut bytes = match fs::read(from) {
        // It was there a moment ago: a checkpoint that is not needed any more.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if is_journal {
        // The line that is being written is not one yet.
        bytes.truncate(bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1));
        if copied.is_some_and(|c| c.len() == bytes.len() as u64) {
            done.same += 1;
            return Ok(());
        }
    }
    ensure!(!to.is_dir(), "{} is a folder", to.display());
    write_file(to, &bytes)?;
    done.files += 1;
    done.bytes += bytes.len() as u64;
    Ok(())
}
