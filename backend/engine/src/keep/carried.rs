//! A run as one file, to be taken to another lab: everything in its folder that is a run's, whole and with a checksum.

use super::bundle::{pack, unpack};
use super::files::Files;
use super::job::read_config;
use super::journal;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The end of such a file's name.
pub const ENDING: &str = "moslim-run";
/// Version of what is in it.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    run: String,
    /// Names of the files, in the order of their bytes.
    files: Vec<String>,
}

/// Whether a file of a run's folder goes with it: checkpoints do, so that it can be resumed; what a process of this machine left does not.
fn goes_along(name: &str) -> bool {
    is_plain(name) && !name.starts_with("process.") && !name.ends_with(".log") && !name.ends_with(".tmp")
}

/// Whether `name` is that of a file directly in a folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.len() <= 200
        && !name.contains(['/', '\\', ':'])
        && !name.contains(char::is_control)
}

/// Whether `run` may name a run's folder.
fn is_run(run: &str) -> bool {
    (1..=64).contains(&run.len()) && run.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Packs a run.
///
/// # Errors
/// When there is no such run, or a file of it cannot be read.
pub fn pack_run(files: &dyn Files, run: &str) -> Result<Vec<u8>> {
    ensure!(is_run(run), "there is no run {run}");
    let folder = format!("runs/{run}");
    let mut names = files.list(&folder).with_context(|| format!("reading {}", files.describe(&folder)))?;
    names.retain(|name| goes_along(name));
    names.sort();
    ensure!(!names.is_empty(), "there is no run {run}");
    let mut parts = Vec::with_capacity(names.len());
    for name in &names {
        let path = format!("{folder}/{name}");
        let read = || format!("reading {}", files.describe(&path));
        parts.push(files.read(&path).with_context(read)?.with_context(read)?);
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    pack(&Header { format: FORMAT, run: run.into(), files: names }, &parts)
}

/// Adds a packed run to the lab that `files` keeps, and returns its identifier. A run that is there already, with the same journal, stays
/// as it is.
///
/// # Errors
/// When the file is damaged or none of the kind, when another run has the same identifier, or files cannot be written; nothing is left
/// then.
pub fn unpack_run(files: &dyn Files, bytes: &[u8]) -> Result<String> {
    let (header, parts) = unpack::<Header>(bytes).context("the file is damaged, or is no run")?;
    let Header { format, run, files: names } = header;
    ensure!(format == FORMAT, "the file is of format {format}; this version reads {FORMAT}");
    ensure!(is_run(&run), "the file names a run \"{run}\"; allowed are 1 to 64 lower-case letters, digits and hyphens");
    ensure!(names.len() == parts.len(), "the file names {} files and holds {}", names.len(), parts.len());
    for name in &names {
        ensure!(goes_along(name), "the file holds \"{name}\", which is no file of a run");
    }
    let own = |name: &str| names.iter().position(|n| n == name).map(|at| parts[at].clone());
    read_config(|name| Ok(own(name))).context("the run in the file has no configuration that this version reads")?;
    let folder = format!("runs/{run}");
    let there = files.list(&folder).with_context(|| format!("reading {}", files.describe(&folder)))?;
    if !there.is_empty() {
        let known = files.read(&format!("{folder}/{}", journal::FILE))?;
        ensure!(known == own(journal::FILE), "there is another run {run} already");
        return Ok(run);
    }
    // Its configuration last: what is cut off before is no run.
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|&n| names[n].starts_with("config."));
    for (done, &n) in order.iter().enumerate() {
        let path = format!("{folder}/{}", names[n]);
        if let Err(error) = files.write(&path, &parts[n]) {
            for &n in &order[..done] {
                let _ = files.remove(&format!("{folder}/{}", names[n]));
            }
            return Err(error).with_context(|| format!("writing {}", files.describe(&path)));
        }
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::Job;
    use crate::keep::files::Memory;
    use moslim_shared::presets;
    use std::sync::Arc;

    fn lab() -> Memory {
        let files = Memory::default();
        let config = presets::find("smoke").unwrap().config;
        Job::new("a-1", config, Arc::new(files.clone())).write_config().unwrap();
        for (name, bytes) in
            [("events.jsonl", "{}\n"), ("policy.safetensors", "weights"), ("process.lock", ""), ("worker.log", "x")]
        {
            files.write(&format!("runs/a-1/{name}"), bytes.as_bytes()).unwrap();
        }
        files
    }

    #[test]
    fn a_run_goes_to_another_lab_without_what_belongs_to_this_machine() {
        let (from, to) = (lab(), Memory::default());
        let packed = pack_run(&from, "a-1").unwrap();
        assert_eq!(unpack_run(&to, &packed).unwrap(), "a-1");
        assert_eq!(to.list("runs/a-1").unwrap(), ["checksums.json", "config.toml", "events.jsonl", "policy.safetensors"]);
        assert_eq!(to.read("runs/a-1/policy.safetensors").unwrap().unwrap(), b"weights");
        assert_eq!(unpack_run(&to, &packed).unwrap(), "a-1", "once more changes nothing");
        to.write("runs/a-1/events.jsonl", b"{}\n{}\n").unwrap();
        assert!(unpack_run(&to, &packed).unwrap_err().to_string().contains("another run"));
        assert!(pack_run(&from, "b").is_err() && pack_run(&from, "../a-1").is_err());
    }

    #[test]
    fn damage_and_names_that_lead_elsewhere_are_refused_and_nothing_is_left() {
        let packed = pack_run(&lab(), "a-1").unwrap();
        let refused = |bytes: &[u8]| {
            let to = Memory::default();
            let error = format!("{:#}", unpack_run(&to, bytes).unwrap_err());
            assert!(to.list("runs/a-1").unwrap().is_empty() && to.list("runs").unwrap().is_empty(), "{error}");
            error
        };
        for at in [0, packed.len() / 2, packed.len() - 1] {
            let mut bad = packed.clone();
            bad[at] ^= 1;
            assert!(refused(&bad).contains("damaged"));
        }
        let of =
            |run: &str, name: &str| pack(&Header { format: FORMAT, run: run.into(), files: vec![name.into()] }, &[b"x"]).unwrap();
        for name in ["../x", "a/b", "..", "a\\b", "c:x", ".x", "process.lock"] {
            assert!(refused(&of("a-1", name)).contains("no file of a run"), "{name}");
        }
        assert!(refused(&of("../a", "x")).contains("allowed are"));
        assert!(refused(&of("a-1", "x")).contains("no configuration"));
    }
}
