//! Where files live: on disk, or in memory (tests, and the lab in a browser tab). Paths are relative, with `/`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use web_time::Instant;

/// A place that keeps files.
pub trait Files: Send + Sync {
    /// The whole file, or `None` where there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;

    /// Writes a file and its folders, so that it holds either all of `bytes` or what it held before, even after a crash.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()>;

    /// Opens a file to add lines to it. What follows its last line end, torn by a crash, is cut off.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn append(&self, path: &str) -> io::Result<Box<dyn Append>>;

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Gives a file another name, in place of what has it; nothing where there is no such file.
    ///
    /// # Errors
    /// When it is there and cannot be renamed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let Some(bytes) = self.read(from)? else { return Ok(()) };
        self.write(to, &bytes)?;
        self.remove(from)
    }

    /// Waits until what was added to a file has reached the disk, so that it is there after a power cut; nothing where there is no such file.
    ///
    /// # Errors
    /// When it cannot be written there.
    fn settle(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    /// Names of the files directly in a folder; none for a folder that is missing.
    ///
    /// # Errors
    /// When the folder cannot be read.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// The path for messages.
    fn describe(&self, path: &str) -> String;

    /// The folder on a disk that the paths are relative to, if it is one.
    fn folder(&self) -> Option<&Path> {
        None
    }
}

/// An open file to which lines are added.
pub trait Append: Send {
    /// Adds bytes with one write, and hands them to the system at once.
    ///
    /// # Errors
    /// When they cannot be written; nothing of them is left then.
    fn add(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Files under a folder on disk.
#[derive(Debug, Clone)]
pub struct Disk(pub PathBuf);

/// Writes `bytes` so that `path` holds either all of them or what it held before, even after a crash.
///
/// # Errors
/// When it cannot be written; the temporary file is removed then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Two threads or processes that write the same file do not share a temporary one.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nowhere = || io::Error::new(ErrorKind::InvalidInput, "the path names no file in a folder");
    let (folder, name) = path.parent().zip(path.file_name()).ok_or_else(nowhere)?;
    std::fs::create_dir_all(folder)?;
    let unique = u64::from(process_id()) << 32 | COUNT.fetch_add(1, Ordering::Relaxed);
    // As `maker` reads it.
    let temporary = folder.join(format!(".{}.{unique:x}.tmp", name.to_string_lossy()));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        // The folder's entry must reach the disk too.
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        Ok(())
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// The process that writes a temporary file of this name, as [`write_atomically`] calls them; `None` where the name is another.
pub fn maker(name: &str) -> Option<u32> {
    let (_, unique) = name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?;
    let plain = unique.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let process = u64::from_str_radix(unique, 16).ok().filter(|_| plain)? >> 32;
    u32::try_from(process).ok().filter(|&process| process > 0)
}

/// How long a write waits for room on a full disk, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Writes, and waits where the disk is full: somebody will make room, and hours of training are worth two minutes.
fn patiently(mut write: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let began = Instant::now();
    loop {
        match write() {
            Err(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) && began.elapsed() < PATIENCE => {
                std::thread::sleep(LOOK_EVERY);
            }
            written => return written,
        }
    }
}

/// [`write_atomically`], which waits where the disk is full.
///
/// # Errors
/// When it cannot be written, or there is no room for two minutes.
pub fn write_patiently(path: &Path, bytes: &[u8]) -> io::Result<()> {
    patiently(|| write_atomically(path, bytes))
}

/// A browser has no processes, and no second writer.
fn process_id() -> u32 {
    if cfg!(target_family = "wasm") { 0 } else { std::process::id() }
}

impl Files for Disk {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.0.join(path)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        write_patiently(&self.0.join(path), bytes)
    }

    fn settle(&self, path: &str) -> io::Result<()> {
        // Windows wants the right to write for it.
        match OpenOptions::new().append(true).open(self.0.join(path)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            opened => opened?.sync_data(),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match std::fs::rename(self.0.join(from), self.0.join(to)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        }
    }

    fn append(&self, path: &str) -> io::Result<Box<dyn Append>> {
        let path = self.0.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if let Ok(bytes) = std::fs::read(&path)
            && !bytes.is_empty()
            && !bytes.ends_with(b"\n")
        {
            let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
            OpenOptions::new().write(true).open(&path)?.set_len(whole as u64)?;
        }
        Ok(Box::new(Appending { file: OpenOptions::new().create(true).append(true).open(&path)? }))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        match std::fs::remove_file(self.0.join(path)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.0.join(folder)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.0)
    }

    fn describe(&self, path: &str) -> String {
        self.0.join(path).display().to_string()
    }
}

struct Appending {
    file: File,
}

impl Append for Appending {
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        let whole = self.file.metadata()?.len();
        patiently(|| {
            let added = self.file.write_all(bytes);
            if added.is_err() {
                // A full disk may have taken half of it.
                let _ = self.file.set_len(whole);
            }
            added
        })
    }
}

/// Files in memory; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Files for Memory {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.with(|files| files.get(path).cloned()))
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.with(|files| files.insert(path.into(), bytes.to_vec()));
        Ok(())
    }

    fn append(&self, path: &str) -> io::Result<Box<dyn Append>> {
        self.with(|files| {
            let file = files.entry(path.into()).or_default();
            let whole = file.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
            file.truncate(whole);
        });
        Ok(Box::new(AppendingInMemory { files: self.clone(), path: path.into() }))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.with(|files| files.remove(path));
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let inside = format!("{folder}/");
        let name = |path: &String| path.strip_prefix(&inside).filter(|n| !n.contains('/')).map(String::from);
        Ok(self.with(|files| files.keys().filter_map(name).collect()))
    }

    fn describe(&self, path: &str) -> String {
        format!("{path} (in memory)")
    }
}

struct AppendingInMemory {
    files: Memory,
    path: String,
}

impl Append for AppendingInMemory {
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.files.with(|files| files.entry(self.path.clone()).or_default().extend_from_slice(bytes));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What holds for every kind of place.
    fn check(files: &dyn Files) {
        assert!(files.read("runs/a/x.json").unwrap().is_none() && files.list("runs/a").unwrap().is_empty());
        files.write("runs/a/x.json", b"old").unwrap();
        files.write("runs/a/x.json", b"new").unwrap();
        assert_eq!(files.read("runs/a/x.json").unwrap().unwrap(), b"new");
        assert_eq!(files.list("runs/a").unwrap(), ["x.json"], "no temporary file is left");
        files.write("runs/a/log", b"one\ntwo\nthr").unwrap();
        let mut log = files.append("runs/a/log").unwrap();
        log.add(b"three\n").unwrap();
        assert_eq!(files.read("runs/a/log").unwrap().unwrap(), b"one\ntwo\nthree\n", "a torn line is cut off");
        files.append("runs/a/fresh").unwrap().add(b"1\n").unwrap();
        assert_eq!(files.read("runs/a/fresh").unwrap().unwrap(), b"1\n");
        files.rename("runs/a/x.json", "runs/a/y.json").unwrap();
        files.rename("runs/a/nothing", "runs/a/y.json").unwrap();
        assert_eq!((files.read("runs/a/x.json").unwrap(), files.read("runs/a/y.json").unwrap()), (None, Some(b"new".to_vec())));
        files.rename("runs/a/y.json", "runs/a/x.json").unwrap();
        files.remove("runs/a/x.json").unwrap();
        files.remove("runs/a/x.json").unwrap();
        assert!(files.read("runs/a/x.json").unwrap().is_none());
    }

    #[test]
    fn a_write_waits_for_room_and_gives_up_on_everything_else() {
        let mut tries = 0;
        let written = patiently(|| {
            tries += 1;
            if tries < 3 { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        assert!(written.is_ok() && tries == 3, "{tries}");
        let mut tries = 0;
        let refused = patiently(|| {
            tries += 1;
            Err(ErrorKind::PermissionDenied.into())
        });
        assert!(refused.is_err() && tries == 1);
    }

    #[test]
    fn a_temporary_file_says_whose_it_is() {
        let own = format!(".a.b.{:x}.tmp", u64::from(process_id()) << 32 | 7);
        assert_eq!((maker(&own), maker(".weights.12c00000003.tmp")), (Some(process_id()), Some(300)));
        for other in
            ["a.12c00000003.tmp", ".a.12c00000003", ".12c00000003.tmp", ".a.3.tmp", ".a.+12c00000003.tmp", ".a.12C00000003.tmp"]
        {
            assert_eq!(maker(other), None, "{other}");
        }
    }

    #[test]
    fn disk_and_memory_keep_files_alike() {
        let folder = std::env::temp_dir().join(format!("moslim-files-{}", std::process::id()));
        check(&Disk(folder.clone()));
        std::fs::remove_dir_all(folder).unwrap();
        check(&Memory::default());
    }
}
