//! Checksums of the files in a folder, in a file beside them: a bit that flips on a disk is told, and is no other figure. Here they
//! are read; `keep` writes them.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io;

/// Name of the file with the checksums.
pub const FILE: &str = "checksums.json";
/// What a file with checksums is called that was found damaged when one was to be added to it.
pub const DAMAGED: &str = "checksums-damaged.json";

/// A file of a folder by its name; `None` where there is none.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> io::Result<Option<Vec<u8>>>;

/// Checksums by the files that they are of.
pub type Sums = BTreeMap<String, String>;

/// Lower-case hexadecimal SHA-256.
pub fn sha256(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // Lengths keep ("ab", "c") apart from ("a", "bc").
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// What is known of a folder's files; nothing of one of an older version.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub fn known(files: ReadFile) -> Result<Sums> {
    let Some(bytes) = files(FILE).with_context(|| format!("reading {FILE}"))? else { return Ok(Sums::new()) };
    serde_json::from_slice(&bytes).with_context(|| format!("{FILE} is damaged"))
}

/// What can still be read of damaged checksums: they have a line for each file.
pub fn left_of(bytes: &[u8]) -> Sums {
    let whole = |sum: &String| sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let of = |line: &[u8]| {
        let line = line.trim_ascii();
        let line = line.strip_suffix(b",").unwrap_or(line);
        serde_json::from_slice::<Sums>(&[&b"{"[..], line, &b"}"[..]].concat()).unwrap_or_default()
    };
    bytes.split(|&b| b == b'\n').flat_map(of).filter(|(_, sum)| whole(sum)).collect()
}

/// Makes sure that `bytes` are what was written into `file`. A file of which nothing is known, of an older version, passes.
///
/// # Errors
/// When they are not; the message names the file, and says what to do.
pub fn check(files: ReadFile, file: &str, bytes: &[u8]) -> Result<()> {
    match known(files)?.get(file) {
        Some(sum) if *sum != sha256(&[bytes]) => {
            bail!("{file} is not what was written: it was changed or damaged. To use it as it is, remove its line from {FILE}")
        }
        _ => Ok(()),
    }
}

/// A file of a folder as it was written, or `None`. `read` gives a file of the folder.
///
/// # Errors
/// When it cannot be read, or has changed since it was written.
pub fn read_checked(read: ReadFile, file: &str) -> Result<Option<Vec<u8>>> {
    let Some(mut bytes) = read(file)? else { return Ok(None) };
    loop {
        let checked = check(read, file, &bytes);
        if checked.is_ok() {
            return Ok(Some(bytes));
        }
        // It may have been replaced between the two looks; what is damaged is the same when it is read again.
        let Some(again) = read(file)? else { return Ok(None) };
        if again == bytes {
            checked?;
        }
        bytes = again;
    }
}

/// Files of a folder that are not what was written, or are gone.
///
/// # Errors
/// When the checksums are damaged, or a file cannot be read.
pub fn damaged(files: ReadFile) -> Result<Vec<String>> {
    let mut out = Vec::new();
    if files(DAMAGED).with_context(|| format!("reading {DAMAGED}"))?.is_some() {
        out.push(format!(
            "{FILE} was damaged, so that files may have no checksum any more; it is kept as {DAMAGED} until that is removed"
        ));
    }
    for (file, sum) in known(files)? {
        match files(&file).with_context(|| format!("reading {file}"))? {
            Some(bytes) if sum == sha256(&[&bytes]) => {}
            Some(_) => out.push(format!("{file} is not what was written")),
            None => out.push(format!("{file} is gone")),
        }
    }
    Ok(out)
}
