//! What processes were writing when they were killed: nobody goes on with it or reads it. In the cache it is whole models.

use crate::folder::prober;
use moslim_engine::keep::files::maker;
use std::fs::{self, DirEntry};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What was written to after this may be somebody's who is not known here: a disk may be shared with other machines.
const OLD: Duration = Duration::from_secs(3600);
/// How deep there are files, in folders below the data folder: `studies/ID/slurm`.
const DEPTH: usize = 3;

/// Removes what was left below a data folder by processes that live no more; returns how many files that were. It is for a
/// process that has begun a moment ago.
pub fn sweep(root: &Path) -> usize {
    within(root, DEPTH)
}

fn within(folder: &Path, depth: usize) -> usize {
    let mut gone = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => gone += within(&entry.path(), depth - 1),
            Ok(kind) if kind.is_file() && is_left(&entry) && fs::remove_file(entry.path()).is_ok() => gone += 1,
            _ => {}
        }
    }
    gone
}

/// Whether it was left: its name says that it is for a moment, the process that it names is gone, and it is old.
fn is_left(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let Some(process) = name.to_str().and_then(|name| maker(name).or_else(|| prober(name))) else { return false };
    let written = entry.metadata().and_then(|about| about.modified()).ok();
    let age = written.and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age >= OLD) && !lives(process)
}

/// Whether a process of this number lives. What is old and has the number of this one is of another that had it before, as it is
/// in a container, whose first process always has the same.
fn lives(process: u32) -> bool {
    if process == std::process::id() {
        return false;
    }
    #[cfg(unix)]
    {
        use rustix::process::{Pid, test_kill_process};
        let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
    }
    // Who lives is not known there.
    #[cfg(not(unix))]
    true
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs::File;

    /// No process has a number as high, and one has the first.
    const GONE: u64 = 0x7fff_fff0;
    const FIRST: u64 = 1;

    #[test]
    fn what_killed_processes_left_is_removed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let of = |name: &str, process: u64| format!(".{name}.{:x}.tmp", process << 32 | 3);
        let own = u64::from(std::process::id());
        let left = [
            format!("cache/{}", of("sft-0a.stage", GONE)),
            format!("cache/{}", of("sft-0b.stage", own)),
            format!("starts/{}", of("0c.json", GONE)),
            format!("studies/a/{}", of("state.json", GONE)),
            format!("studies/a/slurm/{}", of("runs.sh", GONE)),
            format!("runs/b/{}", of("about.json", GONE)),
            format!(".probe-{GONE}"),
            format!(".probe-{GONE}-00c0ffee"),
        ];
        let kept = [
            format!("cache/{}", of("sft-0d.stage", FIRST)),
            format!(".probe-{FIRST}"),
            "cache/sft-0a.stage".into(),
            "runs/b/about.json".into(),
            "runs/b/.notes.tmp".into(),
            "runs/b/.notes.3.tmp".into(),
            format!("runs/b/notes.{:x}.tmp", GONE << 32),
            format!("runs/b/.notes.{:X}.tmp", GONE << 32 | 0xa),
            ".probe-".into(),
            ".probe-x".into(),
            format!(".probe-{GONE}-notes"),
            format!("a/b/c/d/{}", of("x", GONE)),
        ];
        let young = format!("cache/{}", of("sft-0e.stage", GONE));
        for name in left.iter().chain(&kept).chain([&young]) {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = File::create(path).unwrap();
            if *name != young {
                file.set_modified(SystemTime::now() - OLD - Duration::from_secs(60)).unwrap();
            }
        }
        assert_eq!(sweep(root.path()), left.len());
        for name in &left {
            assert!(!root.path().join(name).exists(), "{name} is there");
        }
        for name in kept.iter().chain([&young]) {
            assert!(root.path().join(name).exists(), "{name} is gone");
        }
        assert_eq!(sweep(root.path()), 0);
    }
}
