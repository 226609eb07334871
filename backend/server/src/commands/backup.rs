//! `moslim-lab backup` and `restore`: everything that was trained, rated and measured in a second folder, and back.
//!
//! A backup is a data folder without what can be made again. It is taken while the lab runs: files appear whole there, and a run's
//! are copied again where one was replaced meanwhile. Where something of a run is damaged, its copy may be the last that is sound,
//! and loses nothing.

use crate::cli::{BackupArgs, RestoreArgs};
use crate::commands::doctor::damaged;
use crate::commands::print_line;
use crate::failure::Failure;
use crate::folder::{DataFolder, write_file};
use anyhow::{Context, Result, ensure};
use moslim_engine::keep::{journal, sums};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

/// What a data folder holds that cannot be made again.
const KEPT: [&str; 4] = ["runs", "studies", "tasks", "models"];
/// Files of a process that works here, and of nobody elsewhere.
const PASSING: [&str; 3] = ["process.lock", "process.json", "worker.log"];
/// How often a run's files are copied before they count as damaged, and how long they are given to be whole again.
const TRIES: usize = 5;
const AGAIN: Duration = Duration::from_millis(100);

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
        for entry in entries(&from.join(name))?.into_iter().filter(|e| e.path().is_dir()) {
            let bad = copy_checked(&entry.path(), &to.join(name).join(entry.file_name()), &mut done)?;
            wrong.extend(bad.into_iter().map(|file| format!("{name}/{}: {file}", entry.file_name().to_string_lossy())));
        }
    }
    let Copied { files, bytes, same } = done;
    print_line(&format!("{files} files copied ({} MiB) to {}, {same} were there already", bytes >> 20, to.display()))?;
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Failed(format!("damaged:\n{}", wrong.join("\n")))) }
}

/// What a folder holds; nothing where there is none. One that is read in part would look as if the rest had been removed.
fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let read = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.and_then(|all| all.collect::<io::Result<Vec<_>>>()),
    };
    read.with_context(|| format!("reading {}", folder.display()))
}

/// Copies a folder, and says what of it is damaged, here or in the copy.
fn copy_checked(own: &Path, copy: &Path, done: &mut Copied) -> Result<Vec<String>> {
    let had = copy.is_dir();
    let mut bad = Vec::new();
    for turn in 0..TRIES {
        if turn > 0 {
            std::thread::sleep(AGAIN);
        }
        // A file that was replaced between it and its checksum is looked at again.
        let mut here = damaged(own);
        here.extend(lost(own, copy)?);
        copy_folder(own, copy, here.is_empty(), done)?;
        let there = damaged(copy).into_iter().filter(|file| !here.contains(file)).map(|file| format!("in the copy, {file}"));
        bad = there.collect();
        let kept = if had { "; what the copy had is kept" } else { "" };
        bad.extend(here.iter().map(|file| format!("{file}{kept}")));
        if bad.is_empty() {
            break;
        }
    }
    Ok(bad)
}

/// A file; `None` where there is none.
fn whole_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// The whole lines of a journal; the one that is being written is not one yet.
fn whole_lines(journal: &Path) -> io::Result<Option<Vec<u8>>> {
    let end = |bytes: &[u8]| bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
    Ok(whole_file(journal)?.map(|mut bytes| {
        bytes.truncate(end(&bytes));
        bytes
    }))
}

/// What a folder has lost that its copy has, and that no checksum tells: lines of its journal, which only ever grows, and the
/// checksums themselves.
fn lost(own: &Path, copy: &Path) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    if copy.join(sums::FILE).is_file() && !own.join(sums::FILE).is_file() {
        lost.push(format!("{} is gone", sums::FILE));
    }
    if let Ok(copied) = fs::metadata(copy.join(journal::FILE)) {
        let journal = own.join(journal::FILE);
        let lines = whole_lines(&journal).with_context(|| format!("reading {}", journal.display()))?;
        if (lines.map_or(0, |lines| lines.len()) as u64) < copied.len() {
            lost.push(format!("{} is shorter than its copy; where that is right, remove the copy", journal::FILE));
        }
    }
    Ok(lost)
}

/// Copies a folder's files, and removes from the copy what is not there any more. Where it is not to `replace` anything, what is
/// new comes to the copy, and nothing that it has is lost.
fn copy_folder(from: &Path, to: &Path, replace: bool, done: &mut Copied) -> Result<()> {
    let mut kept = Vec::new();
    let mut all = entries(from)?;
    // Last: a checkpoint must not know of more than the journal does.
    all.sort_by_key(|entry| entry.file_name() == journal::FILE);
    for entry in all {
        let (own, name) = (entry.path(), entry.file_name());
        let passing = PASSING.iter().any(|p| *p == name) || name.to_string_lossy().starts_with('.');
        if passing || own.is_symlink() {
            continue;
        }
        let copy = to.join(&name);
        kept.push(name);
        if own.is_dir() {
            copy_folder(&own, &copy, replace, done)?;
        } else {
            copy_file(&own, &copy, replace, done).with_context(|| format!("copying {}", own.display()))?;
        }
    }
    if !replace {
        return Ok(());
    }
    for entry in entries(to)? {
        if !kept.contains(&entry.file_name()) && entry.path().is_file() {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, replace: bool, done: &mut Copied) -> Result<()> {
    let Ok(about) = fs::metadata(from) else { return Ok(()) };
    let is_journal = from.file_name().is_some_and(|name| name == journal::FILE);
    let copied = fs::metadata(to).ok();
    let newer = |copy: &fs::Metadata| Some(copy.modified().ok()? >= about.modified().ok()?);
    // A file of the same length that was written after this one is its copy.
    if !is_journal && copied.as_ref().is_some_and(|c| c.len() == about.len() && newer(c) == Some(true)) {
        done.same += 1;
        return Ok(());
    }
    // A journal that has grown holds all that its copy does.
    if !is_journal && copied.is_some() && !replace {
        return Ok(());
    }
    let read = if is_journal { whole_lines(from)? } else { whole_file(from)? };
    // It was there a moment ago: a checkpoint that is not needed any more.
    let Some(bytes) = read else { return Ok(()) };
    if is_journal && copied.is_some_and(|c| c.len() >= bytes.len() as u64) {
        done.same += 1;
        return Ok(());
    }
    ensure!(!to.is_dir(), "{} is a folder", to.display());
    write_file(to, &bytes)?;
    done.files += 1;
    done.bytes += bytes.len() as u64;
    Ok(())
}
