//! Checksums of the files in a run's folder, in a file beside them: a bit that flips on a disk is told, and is no other figure.

use super::bundle::sha256;
use super::files::Files;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io;

/// Name of the file with the checksums.
pub const FILE: &str = "checksums.json";

/// A file of a folder by its name; `None` where there is none.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> io::Result<Option<Vec<u8>>>;

fn read(files: ReadFile) -> Result<BTreeMap<String, String>> {
    let Some(bytes) = files(FILE).with_context(|| format!("reading {FILE}"))? else { return Ok(BTreeMap::new()) };
    serde_json::from_slice(&bytes).with_context(|| format!("{FILE} is damaged"))
}

/// Remembers that `file` of a folder holds `bytes` from now on.
///
/// # Errors
/// When that cannot be written.
pub fn note(files: &dyn Files, folder: &str, file: &str, bytes: &[u8]) -> Result<()> {
    let path = format!("{folder}/{FILE}");
    // One that is damaged knows nothing of use; what it knew is not checked any more.
    let mut sums = read(&|_| files.read(&path)).unwrap_or_default();
    sums.insert(file.into(), sha256(&[bytes]));
    files.write(&path, &serde_json::to_vec_pretty(&sums)?).with_context(|| format!("writing {}", files.describe(&path)))
}

/// Makes sure that `bytes` are what was written into `file`. A file of which nothing is known, of an older version, passes.
///
/// # Errors
/// When they are not; the message names the file, and says what to do.
pub fn check(files: ReadFile, file: &str, bytes: &[u8]) -> Result<()> {
    match read(files)?.get(file) {
        Some(sum) if *sum != sha256(&[bytes]) => {
            bail!("{file} is not what was written: it was changed or damaged. To use it as it is, remove its line from {FILE}")
        }
        _ => Ok(()),
    }
}

/// Files of a folder that are not what was written, or are gone.
///
/// # Errors
/// When the checksums are damaged, or a file cannot be read.
pub fn damaged(files: ReadFile) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for (file, sum) in read(files)? {
        match files(&file).with_context(|| format!("reading {file}"))? {
            Some(bytes) if sum == sha256(&[&bytes]) => {}
            Some(_) => out.push(format!("{file} is not what was written")),
            None => out.push(format!("{file} is gone")),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::files::Memory;

    #[test]
    fn what_has_changed_is_told_and_what_is_not_known_passes() {
        let files = Memory::default();
        let own = |name: &str| files.read(&format!("runs/a/{name}"));
        assert!(check(&own, "x", b"1").is_ok());
        note(&files, "runs/a", "x", b"1").unwrap();
        note(&files, "runs/a", "y", b"2").unwrap();
        assert!(check(&own, "x", b"1").is_ok() && check(&own, "z", b"3").is_ok());
        files.write("runs/a/x", b"1").unwrap();
        assert_eq!(damaged(&own).unwrap(), ["y is gone"]);
        files.write("runs/a/y", b"3").unwrap();
        assert_eq!(damaged(&own).unwrap(), ["y is not what was written"]);
        files.write("runs/a/y", b"2").unwrap();
        assert!(damaged(&own).unwrap().is_empty());
        let error = check(&own, "x", b"2").unwrap_err().to_string();
        assert!(error.contains("x is not what was written"), "{error}");
        note(&files, "runs/a", "x", b"2").unwrap();
        assert!(check(&own, "x", b"2").is_ok() && check(&own, "y", b"2").is_ok());
        files.write("runs/a/checksums.json", b"{").unwrap();
        assert!(check(&own, "x", b"2").unwrap_err().to_string().contains("checksums.json is damaged"));
    }
}
