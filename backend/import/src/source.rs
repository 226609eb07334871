//! Files as bytes: plain, gzip or zstd, told by how they begin, and never more than what a data set can honestly be.

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

/// How many times longer than its file a text may become, beyond [`FREE`] bytes: real ones become five to thirty times as long.
const MOST_EXPANSION: u64 = 200;
const FREE: u64 = 1 << 30;
/// Longest record, bytes.
pub const LONGEST_RECORD: u64 = 64 << 20;
const BUFFER: usize = 1 << 18;

/// Counts bytes on their way from the disk, and hashes them.
struct Raw {
    file: File,
    count: Rc<Cell<u64>>,
    hash: Rc<std::cell::RefCell<Sha256>>,
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.count.set(self.count.get() + n as u64);
        self.hash.borrow_mut().update(&buffer[..n]);
        Ok(n)
    }
}

/// Refuses to expand a file without end.
struct Bounded<R> {
    inner: R,
    out: u64,
    raw: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.out += n as u64;
        if self.out > FREE + MOST_EXPANSION * self.raw.get() {
            let (out, raw) = (self.out >> 20, self.raw.get() >> 10);
            return Err(io::Error::other(format!(
                "{raw} KiB of the file become more than {out} MiB, as in a file that is made to fill memories; at most {MOST_EXPANSION} \
                 times as much is allowed"
            )));
        }
        Ok(n)
    }
}

/// Fails where a record is too long, so that a quote that never ends does not fill the memory.
pub struct Fenced<R> {
    inner: R,
    /// Bytes since the record began.
    pub since: Rc<Cell<u64>>,
}

impl<R: Read> Fenced<R> {
    /// A fence around `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, since: Rc::default() }
    }
}

impl<R: Read> Read for Fenced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.since.set(self.since.get() + n as u64);
        if self.since.get() > LONGEST_RECORD + BUFFER as u64 {
            let most = LONGEST_RECORD >> 20;
            return Err(io::Error::other(format!(
                "a record is longer than {most} MiB, the most that is allowed; does a quote not end?"
            )));
        }
        Ok(n)
    }
}

/// A file opened for reading.
pub struct Source {
    pub reader: Box<dyn BufRead>,
    raw: Rc<Cell<u64>>,
    hash: Rc<std::cell::RefCell<Sha256>>,
}

impl Source {
    /// Opens a file; compressed ones are expanded as they are read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let of = || format!("reading {}", path.display());
        let file = File::open(path).with_context(of)?;
        let (raw, hash) = (Rc::new(Cell::new(0)), Rc::new(std::cell::RefCell::new(Sha256::new())));
        let mut begun = BufReader::with_capacity(BUFFER, Raw { file, count: raw.clone(), hash: hash.clone() });
        let magic = begun.fill_buf().with_context(of)?;
        let reader: Box<dyn BufRead> = if magic.starts_with(&[0x1f, 0x8b]) {
            let inner = MultiGzDecoder::new(begun);
            Box::new(BufReader::with_capacity(BUFFER, Bounded { inner, out: 0, raw: raw.clone() }))
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let mut inner = zstd::stream::read::Decoder::with_buffer(begun).with_context(of)?;
            // Windows of at most 128 MiB.
            inner.window_log_max(27).with_context(of)?;
            Box::new(BufReader::with_capacity(BUFFER, Bounded { inner, out: 0, raw: raw.clone() }))
        } else {
            Box::new(begun)
        };
        Ok(Self { reader, raw, hash })
    }

    /// Bytes read of the file so far.
    pub fn position(&self) -> Rc<Cell<u64>> {
        self.raw.clone()
    }

    /// SHA-256 of the whole file, in hex, when all of it was read.
    ///
    /// # Errors
    /// When what is left of it cannot be read.
    pub fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self.reader, &mut io::sink())?;
        Ok(self.hash.borrow().clone().finalize().iter().map(|b| format!("{b:02x}")).collect())
    }
}

/// The name without what says how it is compressed.
pub fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let plain = [".gz", ".zst", ".zstd", ".gzip"].iter().find_map(|end| name.strip_suffix(end));
    plain.unwrap_or(&name).to_string()
}
