//! Checksums of the files in a folder, as they are written: of a run's, a study's, an imported task's and a known model's. What reads
//! them is `crate::sums`.

use super::files::Files;
pub use crate::sums::{DAMAGED, FILE, ReadFile, check, damaged};
use crate::sums::{Sums, known, left_of, sha256};
use anyhow::{Context, Result};

/// Writes a file of a folder, whole or not at all, and remembers what it holds. A process that is killed in the middle leaves one of
/// which nothing is known, and none that seems to be damaged.
///
/// # Errors
/// When it cannot be written; the message names it.
pub fn write(files: &dyn Files, folder: &str, file: &str, bytes: &[u8]) -> Result<()> {
    let (path, sum) = (format!("{folder}/{file}"), sha256(&[bytes]));
    let mut sums = all(files, folder)?;
    if sums.get(file).is_some_and(|old| *old != sum) {
        sums.remove(file);
        keep(files, folder, &sums)?;
    }
    files.write(&path, bytes).with_context(|| format!("writing {}", files.describe(&path)))?;
    note(files, folder, file, sum)
}

/// Remembers that what `file` of a folder holds has this checksum from now on.
fn note(files: &dyn Files, folder: &str, file: &str, sum: String) -> Result<()> {
    let mut sums = all(files, folder)?;
    sums.insert(file.into(), sum);
    keep(files, folder, &sums)
}

fn keep(files: &dyn Files, folder: &str, sums: &Sums) -> Result<()> {
    let path = format!("{folder}/{FILE}");
    files.write(&path, &serde_json::to_vec_pretty(sums)?).with_context(|| format!("writing {}", files.describe(&path)))
}

/// What is known of a folder's files. Where that is damaged, it is set aside, so that it is told for as long as it lies there, and what
/// can still be read of it goes on being checked.
fn all(files: &dyn Files, folder: &str) -> Result<Sums> {
    let path = format!("{folder}/{FILE}");
    let Some(bytes) = files.read(&path).with_context(|| format!("reading {}", files.describe(&path)))? else {
        return Ok(Sums::new());
    };
    if let Ok(sums) = known(&|_| Ok(Some(bytes.clone()))) {
        return Ok(sums);
    }
    let (aside, left) = (format!("{folder}/{DAMAGED}"), left_of(&bytes));
    files.write(&aside, &bytes).with_context(|| format!("writing {}", files.describe(&aside)))?;
    keep(files, folder, &left)?;
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::files::{Append, Memory};
    use crate::sums::read_checked;
    use std::io;
    use std::sync::Mutex;

    #[test]
    fn what_has_changed_is_told_and_what_is_not_known_passes() {
        let files = Memory::default();
        let own = |name: &str| files.read(&format!("runs/a/{name}"));
        let note = |file: &str, bytes: &[u8]| note(&files, "runs/a", file, sha256(&[bytes])).unwrap();
        assert!(check(&own, "x", b"1").is_ok());
        note("x", b"1");
        note("y", b"2");
        assert!(check(&own, "x", b"1").is_ok() && check(&own, "z", b"3").is_ok());
        files.write("runs/a/x", b"1").unwrap();
        assert_eq!(damaged(&own).unwrap(), ["y is gone"]);
        files.write("runs/a/y", b"3").unwrap();
        assert_eq!(damaged(&own).unwrap(), ["y is not what was written"]);
        files.write("runs/a/y", b"2").unwrap();
        assert!(damaged(&own).unwrap().is_empty());
        let error = check(&own, "x", b"2").unwrap_err().to_string();
        assert!(error.contains("x is not what was written"), "{error}");
        note("x", b"2");
        assert!(check(&own, "x", b"2").is_ok() && check(&own, "y", b"2").is_ok());
        files.write("runs/a/checksums.json", b"{").unwrap();
        assert!(check(&own, "x", b"2").unwrap_err().to_string().contains("checksums.json is damaged"));
    }

    #[test]
    fn damaged_checksums_are_named_and_what_can_be_read_of_them_is_kept() {
        let files = Memory::default();
        let own = |name: &str| files.read(&format!("runs/a/{name}"));
        for name in ["one", "two", "six"] {
            write(&files, "runs/a", name, name.as_bytes()).unwrap();
        }
        let whole = own(FILE).unwrap().unwrap();
        let text = String::from_utf8(whole.clone()).unwrap();
        // Every bit of the line in the middle: what the other lines say is checked all the same, whatever is added then.
        let (from, to) = (text.find("\"six\"").unwrap(), text.find("\"two\"").unwrap() - ",\n  ".len());
        for (at, bit) in (from..to).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            files.write("runs/a/checksums.json", &bytes).unwrap();
            files.remove("runs/a/checksums-damaged.json").unwrap();
            let unread = known(&own).is_err();
            write(&files, "runs/a", "ten", b"ten").unwrap();
            assert!(check(&own, "one", b"x").is_err() && check(&own, "two", b"x").is_err(), "byte {at}, bit {bit}");
            let told = damaged(&own).unwrap();
            assert_eq!(told.iter().any(|line| line.contains(DAMAGED)), unread, "byte {at}, bit {bit}: {told:?}");
            assert_eq!(told.len(), 1, "byte {at}, bit {bit}: {told:?}");
            assert_eq!(own(DAMAGED).unwrap(), unread.then_some(bytes));
        }
    }

    /// Files of a process that is killed after so many writes.
    struct Dying {
        files: Memory,
        left: Mutex<usize>,
    }

    impl Files for Dying {
        fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
            self.files.read(path)
        }

        fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
            let mut left = self.left.lock().unwrap();
            *left = left.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
            self.files.write(path, bytes)
        }

        fn append(&self, path: &str) -> io::Result<Box<dyn Append>> {
            self.files.append(path)
        }

        fn remove(&self, path: &str) -> io::Result<()> {
            self.files.remove(path)
        }

        fn list(&self, folder: &str) -> io::Result<Vec<String>> {
            self.files.list(folder)
        }

        fn describe(&self, path: &str) -> String {
            self.files.describe(path)
        }
    }

    #[test]
    fn what_was_being_replaced_when_its_process_was_killed_is_not_taken_for_damaged() {
        let mut seen = Vec::new();
        for writes in 0..4 {
            let files = Memory::default();
            write(&files, "runs/a", "x", b"old").unwrap();
            let dying = Dying { files: files.clone(), left: Mutex::new(writes) };
            let written = write(&dying, "runs/a", "x", b"new");
            assert_eq!(written.is_ok(), writes == 3);
            let read = read_checked(&|name| files.read(&format!("runs/a/{name}")), "x").unwrap().unwrap();
            assert!(read == b"old" || read == b"new");
            seen.push(read);
        }
        assert_eq!(seen.iter().filter(|read| *read == b"old").count(), 2);
    }
    #[test]
    fn what_is_replaced_while_it_is_read_is_not_taken_for_damaged() {
        let files = Memory::default();
        write(&files, "runs/a", "x", b"old").unwrap();
        let looks = Mutex::new(0);
        let read = |name: &str| {
            let found = files.read(&format!("runs/a/{name}"));
            let mut looks = looks.lock().unwrap();
            *looks += 1;
            if *looks == 1 {
                write(&files, "runs/a", "x", b"new").unwrap();
            }
            found
        };
        assert_eq!(read_checked(&read, "x").unwrap().unwrap(), b"new");
    }
}
