//! All files of a lab in one file, for places that have no folders: whatever is written is added at its end, and what is there
//! is known by reading it from the start.
//!
//! A record is a kind, lengths, a checksum, a path and bytes. What a crash has torn is cut off when the log is opened. When most of it is
//! out of date, what is left is copied into the other of two files, whose header, written last, makes it the valid one.

use super::files::{Append, Files};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something that bytes are kept in.
pub trait Medium: Send {
    /// Bytes of it.
    ///
    /// # Errors
    /// When they cannot be counted.
    fn len(&self) -> io::Result<u64>;

    /// Whether nothing is in it.
    ///
    /// # Errors
    /// As [`Medium::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// All of it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self) -> io::Result<Vec<u8>>;

    /// Writes all of `bytes` from `at` on.
    ///
    /// # Errors
    /// When there is no room.
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts it to `len` bytes.
    ///
    /// # Errors
    /// When it cannot be cut.
    fn cut(&mut self, len: u64) -> io::Result<()>;

    /// Hands what was written to the system.
    ///
    /// # Errors
    /// When that fails.
    fn flush(&mut self) -> io::Result<()>;
}

const MAGIC: &[u8; 8] = b"MOSLIM01";
/// Magic, generation, checksum of both.
const HEADER: u64 = 24;
/// Kind, length of the path, length of the bytes, checksum.
const RECORD: usize = 1 + 4 + 8 + 8;
/// Bytes out of date from which on a log is written anew, if they are most of it.
const WASTE: u64 = 48 << 20;

const WRITE: u8 = 1;
const APPEND: u8 = 2;
const REMOVE: u8 = 3;

fn checksum(parts: &[&[u8]]) -> [u8; 8] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut out = [0; 8];
    out.copy_from_slice(&hash.finalize()[..8]);
    out
}

fn header(generation: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(generation.to_le_bytes());
    out.extend(checksum(&[&out.clone()]));
    out
}

fn generation(bytes: &[u8]) -> Option<u64> {
    let found = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    (bytes.get(..HEADER as usize)? == header(found)).then_some(found)
}

fn record(kind: u8, path: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RECORD + path.len() + bytes.len());
    out.push(kind);
    out.extend((path.len() as u32).to_le_bytes());
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(checksum(&[&[kind], path.as_bytes(), bytes]));
    out.extend(path.as_bytes());
    out.extend(bytes);
    out
}

/// The record that `bytes` begin with, and its length; `None` where it is torn.
fn next(bytes: &[u8]) -> Option<(u8, &str, &[u8], usize)> {
    let (head, rest) = bytes.split_at_checked(RECORD)?;
    let path = u32::from_le_bytes(head[1..5].try_into().ok()?) as usize;
    let own = usize::try_from(u64::from_le_bytes(head[5..13].try_into().ok()?)).ok()?;
    let (path, rest) = rest.split_at_checked(path)?;
    let (own, _) = rest.split_at_checked(own)?;
    if checksum(&[&head[..1], path, own]) != head[13..] {
        return None;
    }
    Some((head[0], std::str::from_utf8(path).ok()?, own, RECORD + path.len() + own.len()))
}

struct Inner<M> {
    /// The valid one first.
    media: [M; 2],
    generation: u64,
    /// Bytes of the valid one.
    end: u64,
    files: BTreeMap<String, Vec<u8>>,
}

/// A log; clones share it.
pub struct Log<M>(Arc<Mutex<Inner<M>>>);

impl<M> Clone for Log<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Medium> Log<M> {
    /// Opens what is in two media, or begins a log in them.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn open(media: [M; 2]) -> io::Result<Self> {
        let [first, second] = media;
        let found = [first.read()?, second.read()?].map(|bytes| generation(&bytes).map(|generation| (generation, bytes)));
        let newest = |n: usize| found[n].as_ref().map_or(0, |f| f.0);
        let swapped = newest(1) > newest(0);
        let [zeroth, other] = found;
        let (found, media) = if swapped { (other, [second, first]) } else { (zeroth, [first, second]) };
        let Some((generation, bytes)) = found else {
            let mut inner = Inner { media, generation: 1, end: HEADER, files: BTreeMap::new() };
            inner.media[0].cut(0)?;
            inner.media[0].write(0, &header(1))?;
            return Ok(Self(Arc::new(Mutex::new(inner))));
        };
        let mut inner = Inner { media, generation, end: HEADER, files: BTreeMap::new() };
        while let Some((kind, path, own, length)) = next(&bytes[inner.end as usize..]) {
            inner.take(kind, path, own);
            inner.end += length as u64;
        }
        if inner.end < bytes.len() as u64 {
            inner.media[0].cut(inner.end)?;
        }
        Ok(Self(Arc::new(Mutex::new(inner))))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Paths of all files.
    pub fn paths(&self) -> Vec<String> {
        self.lock().files.keys().cloned().collect()
    }

    /// Bytes that the log has on its medium.
    pub fn size(&self) -> u64 {
        self.lock().end
    }
}

impl<M: Medium> Inner<M> {
    /// What a record changes in memory.
    fn take(&mut self, kind: u8, path: &str, bytes: &[u8]) {
        match kind {
            WRITE => drop(self.files.insert(path.into(), bytes.to_vec())),
            APPEND => self.files.entry(path.into()).or_default().extend_from_slice(bytes),
            _ => drop(self.files.remove(path)),
        }
    }

    /// Adds a record: first where it is kept, then here. A record that does not fit leaves nothing.
    fn add(&mut self, kind: u8, path: &str, bytes: &[u8]) -> io::Result<()> {
        let record = record(kind, path, bytes);
        if let Err(error) = self.media[0].write(self.end, &record) {
            let _ = self.media[0].cut(self.end);
            return Err(error);
        }
        self.end += record.len() as u64;
        self.take(kind, path, bytes);
        if kind != APPEND {
            self.media[0].flush()?;
            self.tidy();
        }
        Ok(())
    }

    /// Writes the log anew where most of it is out of date. That there is no room for it is no reason to fail: it is tried again later.
    fn tidy(&mut self) {
        let live: u64 = self.files.iter().map(|(path, bytes)| (RECORD + path.len() + bytes.len()) as u64).sum();
        let waste = self.end.saturating_sub(HEADER + live);
        if waste > WASTE && waste > live {
            let _ = self.rewrite();
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let fresh = &mut self.media[1];
        // Nothing in it counts until its header is there.
        fresh.cut(0)?;
        let mut end = HEADER;
        for (path, bytes) in &self.files {
            let record = record(WRITE, path, bytes);
            fresh.write(end, &record)?;
            end += record.len() as u64;
        }
        fresh.flush()?;
        fresh.write(0, &header(self.generation + 1))?;
        fresh.flush()?;
        self.media.swap(0, 1);
        (self.generation, self.end) = (self.generation + 1, end);
        self.media[1].cut(0)
    }
}

impl<M: Medium + 'static> Files for Log<M> {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.lock().files.get(path).cloned())
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.lock().add(WRITE, path, bytes)
    }

    fn append(&self, path: &str) -> io::Result<Box<dyn Append>> {
        let mut inner = self.lock();
        let whole =
            inner.files.get(path).map(|file| (file.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1), file.len()));
        if let Some((whole, _)) = whole.filter(|(whole, len)| whole < len) {
            let kept = inner.files.get(path).map(|file| file[..whole].to_vec()).unwrap_or_default();
            inner.add(WRITE, path, &kept)?;
        }
        drop(inner);
        Ok(Box::new(Appending { log: self.clone(), path: path.into() }))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.files.contains_key(path) { inner.add(REMOVE, path, &[]) } else { Ok(()) }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let inside = format!("{folder}/");
        let name = |path: &String| path.strip_prefix(&inside).filter(|n| !n.contains('/')).map(String::from);
        Ok(self.lock().files.keys().filter_map(name).collect())
    }

    fn describe(&self, path: &str) -> String {
        format!("{path} (in this browser)")
    }
}

struct Appending<M> {
    log: Log<M>,
    path: String,
}

impl<M: Medium> Append for Appending<M> {
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.log.lock().add(APPEND, &self.path, bytes)
    }
}

/// A medium in memory, with as much room as `room` says.
#[derive(Debug, Clone)]
pub struct InMemory {
    bytes: Arc<Mutex<Vec<u8>>>,
    room: usize,
}

impl InMemory {
    /// An empty one.
    pub fn new(room: usize) -> Self {
        Self { bytes: Arc::default(), room }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Medium for InMemory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        Ok(self.lock().clone())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut own = self.lock();
        let end = at as usize + bytes.len();
        let fits = end.min(self.room.max(own.len()));
        if own.len() < fits {
            own.resize(fits, 0);
        }
        let written = fits.saturating_sub(at as usize);
        own[at as usize..at as usize + written].copy_from_slice(&bytes[..written]);
        if written < bytes.len() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.lock().truncate(len as usize);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media() -> [InMemory; 2] {
        [InMemory::new(usize::MAX), InMemory::new(usize::MAX)]
    }

    #[test]
    fn what_was_kept_is_there_when_it_is_opened_again_and_what_was_torn_is_not() {
        let media = media();
        let log = Log::open(media.clone()).unwrap();
        log.write("runs/a/x", b"old").unwrap();
        log.write("runs/a/x", b"new").unwrap();
        log.write("runs/a/gone", b"1").unwrap();
        log.remove("runs/a/gone").unwrap();
        log.append("runs/a/log").unwrap().add(b"one\n").unwrap();
        let whole = media[0].len().unwrap();
        log.append("runs/a/log").unwrap().add(b"two\n").unwrap();
        // Every place at which a crash may have torn the last record.
        for end in whole..media[0].len().unwrap() {
            let torn = [InMemory::new(usize::MAX), InMemory::new(usize::MAX)];
            torn[0].clone().write(0, &media[0].read().unwrap()[..end as usize]).unwrap();
            let log = Log::open(torn.clone()).unwrap();
            assert_eq!(log.read("runs/a/log").unwrap().unwrap(), b"one\n");
            assert_eq!((log.read("runs/a/x").unwrap().unwrap(), torn[0].len().unwrap()), (b"new".to_vec(), whole));
        }
        let again = Log::open(media.clone()).unwrap();
        assert_eq!(again.read("runs/a/log").unwrap().unwrap(), b"one\ntwo\n");
        assert_eq!(again.list("runs/a").unwrap(), ["log", "x"]);
        // A flipped bit ends it there.
        media[0].clone().write(HEADER + 30, b"\xff").unwrap();
        assert!(Log::open(media).unwrap().paths().is_empty());
    }

    #[test]
    fn a_torn_line_is_cut_off_before_more_are_added() {
        let log = Log::open(media()).unwrap();
        log.write("log", b"one\ntwo\nthr").unwrap();
        log.append("log").unwrap().add(b"three\n").unwrap();
        assert_eq!(log.read("log").unwrap().unwrap(), b"one\ntwo\nthree\n");
    }

    #[test]
    fn a_log_that_is_mostly_out_of_date_is_written_anew() {
        let media = media();
        let log = Log::open(media.clone()).unwrap();
        log.write("kept", b"here").unwrap();
        let large = vec![7u8; 20 << 20];
        for _ in 0..4 {
            log.write("checkpoint", &large).unwrap();
        }
        assert!(log.size() < 50 << 20, "{} bytes", log.size());
        let again = Log::open(media.clone()).unwrap();
        assert_eq!(
            (again.read("kept").unwrap().unwrap(), again.read("checkpoint").unwrap().unwrap().len()),
            (b"here".to_vec(), 20 << 20)
        );
        // Cut off in the middle of being written anew, the older one counts.
        let log = Log::open(media.clone()).unwrap();
        let mut inner = log.lock();
        inner.media[1].write(HEADER, b"half of a record").unwrap();
        drop(inner);
        assert_eq!(Log::open(media).unwrap().read("kept").unwrap().unwrap(), b"here");
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_behind() {
        let media = [InMemory::new(200), InMemory::new(200)];
        let log = Log::open(media.clone()).unwrap();
        log.write("a", b"fits").unwrap();
        let error = log.write("b", &[1; 300]).unwrap_err();
        assert_eq!((error.kind(), log.read("b").unwrap()), (ErrorKind::StorageFull, None));
        log.write("c", b"fits, too").unwrap();
        assert_eq!(Log::open(media).unwrap().paths(), ["a", "c"]);
    }
}
