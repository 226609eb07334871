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
    let (mut bad, mut anew) = (Vec::new(), Vec::new());
    for turn in 0..TRIES {
        if turn > 0 {
            std::thread::sleep(AGAIN);
        }
        // A file that was replaced between it and its checksum is looked at again.
        let mut here = damaged(own);
        here.extend(lost(own, copy)?);
        // What is damaged here, too, is not made better by another copy.
        anew.retain(|told: &String| !here.iter().any(|here| same_file(told, here)));
        copy_folder(own, copy, (here.is_empty(), &anew), done)?;
        let there: Vec<String> = damaged(copy).into_iter().filter(|file| !here.contains(file)).collect();
        bad = there.iter().map(|file| format!("in the copy, {file}")).collect();
        anew = there;
        let kept = if had { "; what the copy had is kept" } else { "" };
        bad.extend(here.iter().map(|file| format!("{file}{kept}")));
        if bad.is_empty() {
            break;
        }
    }
    Ok(bad)
}

/// Whether what is told of a damaged file is of this one: its name comes first.
fn is_of(told: &str, name: &str) -> bool {
    told.strip_prefix(name).is_some_and(|rest| rest.starts_with(" is "))
}

/// Whether the same file is told of.
fn same_file(one: &str, other: &str) -> bool {
    one.split_once(" is ").is_some_and(|(name, _)| is_of(other, name))
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

/// What a folder has lost that its copy has, and that no checksum tells: lines of its journal, which only ever grows and begins with
/// all that its copy has, and the checksums themselves.
fn lost(own: &Path, copy: &Path) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    if copy.join(sums::FILE).is_file() && !own.join(sums::FILE).is_file() {
        lost.push(format!("{} is gone", sums::FILE));
    }
    let [here, there] = [own, copy].map(|folder| folder.join(journal::FILE));
    let reading = |path: &Path| format!("reading {}", path.display());
    if let Some(copied) = whole_file(&there).with_context(|| reading(&there))? {
        let lines = whole_lines(&here).with_context(|| reading(&here))?.unwrap_or_default();
        let told = match lines.len() < copied.len() {
            true => Some("is shorter than its copy"),
            false => (!lines.starts_with(&copied)).then_some("is not what its copy is"),
        };
        lost.extend(told.map(|told| format!("{} {told}; where that is right, remove the copy", journal::FILE)));
    }
    Ok(lost)
}

/// Copies a folder's files, and removes from the copy what is not there any more. Where it is not to `replace` anything, what is
/// new comes to the copy, and nothing that it has is lost. What is told in `anew` is copied in any case: the copy of it is damaged.
fn copy_folder(from: &Path, to: &Path, (replace, anew): (bool, &[String]), done: &mut Copied) -> Result<()> {
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
        let told = anew.iter().any(|told| is_of(told, &name.to_string_lossy()));
        kept.push(name);
        if own.is_dir() {
            copy_folder(&own, &copy, (replace, &[]), done)?;
        } else {
            copy_file(&own, &copy, (replace, told), done).with_context(|| format!("copying {}", own.display()))?;
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

fn copy_file(from: &Path, to: &Path, (replace, anew): (bool, bool), done: &mut Copied) -> Result<()> {
    let Ok(about) = fs::metadata(from) else { return Ok(()) };
    let is_journal = from.file_name().is_some_and(|name| name == journal::FILE);
    let copied = fs::metadata(to).ok();
    let written = about.modified().ok();
    // A copy has the length and the time of its file. When it was made itself says nothing: this file may have been put here since, and
    // be older.
    let same = |copy: &fs::Metadata| copy.len() == about.len() && written.is_some() && copy.modified().ok() == written;
    if !is_journal && !anew && copied.as_ref().is_some_and(same) {
        done.same += 1;
        return Ok(());
    }
    if !is_journal && !anew && copied.is_some() && !replace {
        return Ok(());
    }
    let read = if is_journal { whole_lines(from)? } else { whole_file(from)? };
    // It was there a moment ago: a checkpoint that is not needed any more.
    let Some(bytes) = read else { return Ok(()) };
    ensure!(!to.is_dir(), "{} is a folder", to.display());
    if is_journal && let Some(copied) = whole_file(to)? {
        done.same += u64::from(copied == bytes);
        // A journal that has grown holds all that its copy does; one that does not is damaged, or another one.
        if copied.len() >= bytes.len() || !bytes.starts_with(&copied) {
            return Ok(());
        }
    }
    write_file(to, &bytes)?;
    if let Some(written) = written {
        // Where it cannot be set, the file is copied again the next time.
        let _ = fs::File::options().write(true).open(to).and_then(|copy| copy.set_modified(written));
    }
    done.files += 1;
    done.bytes += bytes.len() as u64;
    Ok(())
}
