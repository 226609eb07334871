//! GGUF files, versions 2 and 3: a table of named values, a table of tensors, then the tensors' bytes. Nothing in the header is
//! believed before it is held against the size of the file.

use super::Tensors;
use super::blocks::Storage;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Where tensors begin when the file does not say: at a multiple of this.
pub(super) const ALIGNMENT: u64 = 32;
/// Most dimensions of a tensor.
const DIMENSIONS: u32 = 4;
/// Arrays within arrays are not in use; a file that nests them deeper is hostile.
const DEPTH: usize = 2;

/// A value of the header.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Value>),
}

impl Value {
    /// It as a size, where it is a whole number that is not negative.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::Unsigned(n) => usize::try_from(*n).ok(),
            Self::Signed(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// It as a number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Float(n) => Some(*n),
            Self::Unsigned(n) => Some(*n as f64),
            Self::Signed(n) => Some(*n as f64),
            _ => None,
        }
    }

    /// It as text.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Its elements.
    pub fn array(&self) -> Option<&[Self]> {
        if let Self::Array(values) = self { Some(values) } else { None }
    }
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
struct Place {
    storage: Storage,
    /// Rows first, as everywhere here; the file has the fastest dimension first.
    shape: Vec<usize>,
    from: u64,
    bytes: usize,
}

/// An open GGUF file.
pub struct Gguf {
    pub values: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Place>,
    file: Mutex<File>,
    path: PathBuf,
}

/// Reads a header, and knows how much of the file is left.
struct Reader<R: Read> {
    inner: R,
    read: u64,
    size: u64,
}

impl<R: Read> Reader<R> {
    fn bytes(&mut self, n: u64) -> Result<Vec<u8>> {
        let left = self.size - self.read;
        ensure!(n <= left, "the header wants {n} bytes where the file has {left} left");
        let mut out = vec![0; usize::try_from(n)?];
        self.inner.read_exact(&mut out)?;
        self.read += n;
        Ok(out)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        ensure!(self.size - self.read >= N as u64, "the file ends within the header");
        let mut out = [0; N];
        self.inner.read_exact(&mut out)?;
        self.read += N as u64;
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String> {
        let n = self.u64()?;
        // Vocabularies hold pieces that are no whole characters.
        Ok(String::from_utf8_lossy(&self.bytes(n)?).into_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.array::<1>()?[0])),
            1 => Value::Signed(i64::from(self.array::<1>()?[0] as i8)),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Unsigned(u64::from(self.u32()?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 => {
                ensure!(depth < DEPTH, "arrays are nested more than {DEPTH} deep");
                let (kind, n) = (self.u32()?, self.u64()?);
                // Every element has a byte at least.
                let left = self.size - self.read;
                ensure!(n <= left, "an array wants {n} elements where the file has {left} bytes left");
                (0..n).map(|_| self.value(kind, depth + 1)).collect::<Result<_>>().map(Value::Array)?
            }
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => bail!("a value is of type {other}; there are types 0 to 12"),
        })
    }
}

impl Gguf {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When it is no GGUF file, or its header does not fit the file; the message names the tensor or value.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let (values, tensors) = header(BufReader::new(&file), size)?;
        Ok(Self { values, tensors, file: Mutex::new(file), path: path.to_path_buf() })
    }

    /// A value of the header.
    ///
    /// # Errors
    /// When it is missing, or `as_what` does not find what it looks for in it; the message names it.
    pub fn needed<'a, T>(&'a self, key: &str, as_what: impl Fn(&'a Value) -> Option<T>) -> Result<T> {
        self.optional(key, as_what)?.with_context(|| format!("{key}: is missing"))
    }

    /// A value of the header, if it is there.
    ///
    /// # Errors
    /// When it is there, and is something else; the message names it.
    pub fn optional<'a, T>(&'a self, key: &str, as_what: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        as_what(value).map(Some).with_context(|| format!("{key}: has another type than it should have"))
    }
}

/// Values and tensors of a header, of a file of `size` bytes.
fn header(inner: impl Read, size: u64) -> Result<(BTreeMap<String, Value>, BTreeMap<String, Place>)> {
    let mut reader = Reader { inner, read: 0, size };
    ensure!(&reader.array::<4>()? == b"GGUF", "it is no GGUF file");
    let version = reader.u32()?;
    ensure!((2..=3).contains(&version), "it is of version {version}; versions 2 and 3 can be read");
    let (tensor_count, value_count) = (reader.u64()?, reader.u64()?);
    // A tensor's entry has 24 bytes at least, a value's 13.
    for (what, n, least) in [("tensors", tensor_count, 24), ("values", value_count, 13)] {
        ensure!(n <= size / least, "it says that it has {n} {what}, more than fit into it");
    }
    let mut values = BTreeMap::new();
    for _ in 0..value_count {
        let key = reader.text().context("the name of a value")?;
        let kind = reader.u32()?;
        let value = reader.value(kind, 0).with_context(|| format!("the value {key}"))?;
        values.insert(key, value);
    }
    let alignment = match values.get("general.alignment") {
        Some(value) => value.size().filter(|n| (1..=1 << 20).contains(n)).context("general.alignment: is no alignment")? as u64,
        None => ALIGNMENT,
    };
    let mut tensors = BTreeMap::new();
    for _ in 0..tensor_count {
        let name = reader.text().context("the name of a tensor")?;
        let place = place(&mut reader).with_context(|| format!("the tensor {name}"))?;
        ensure!(tensors.insert(name.clone(), place).is_none(), "the tensor {name} is there twice");
    }
    let begin = reader.read.next_multiple_of(alignment);
    for (name, place) in &mut tensors {
        let end = place.from.checked_add(begin).and_then(|from| from.checked_add(place.bytes as u64));
        ensure!(end.is_some_and(|end| end <= size), "the tensor {name} ends after the file of {size} bytes");
        place.from += begin;
    }
    Ok((values, tensors))
}

fn place<R: Read>(reader: &mut Reader<R>) -> Result<Place> {
    let dimensions = reader.u32()?;
    ensure!(dimensions <= DIMENSIONS, "has {dimensions} dimensions; at most {DIMENSIONS} are allowed");
    let mut shape = (0..dimensions).map(|_| Ok(usize::try_from(reader.u64()?)?)).collect::<Result<Vec<usize>>>()?;
    shape.reverse();
    let storage = Storage::of_gguf(reader.u32()?)?;
    let from = reader.u64()?;
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).context("has more numbers than can be counted")?;
    // Blocks lie within rows.
    let whole = shape.last().is_none_or(|&row| storage.bytes(row).is_some());
    let bytes = storage.bytes(n).filter(|_| whole);
    let bytes = bytes.with_context(|| format!("has the shape {shape:?}, which {} does not fill", storage.name()))?;
    Ok(Place { storage, shape, from, bytes })
}

impl Tensors for Gguf {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|place| place.shape.clone())
    }

    fn storage(&self, name: &str) -> Option<String> {
        self.tensors.get(name).map(|place| place.storage.name().to_string())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let place = self.tensors.get(name).with_context(|| format!("the tensor {name} is missing"))?;
        let mut bytes = vec![0; place.bytes];
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(place.from)).and_then(|_| file.read_exact(&mut bytes));
        read.with_context(|| format!("reading {name} of {}", self.path.display()))?;
        place.storage.read(&bytes, place.shape.iter().product())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::spoilt;
    use super::*;

    #[test]
    fn no_header_makes_it_fall() {
        let bytes = include_bytes!("../../../../../tests/fixtures/models/gguf-llama/model.gguf");
        let read = |bytes: &[u8]| header(bytes, bytes.len() as u64);
        let (values, tensors) = read(bytes).unwrap();
        assert_eq!(
            (values["llama.block_count"].size(), tensors["blk.0.ffn_down.weight"].shape.as_slice()),
            (Some(2), &[32, 64][..])
        );
        // Read or refused: never a panic, and every tensor within the file.
        let mut refused = 0;
        for bytes in spoilt(bytes, 12_000) {
            match read(&bytes) {
                Ok((_, tensors)) => assert!(tensors.values().all(|t| t.from + t.bytes as u64 <= bytes.len() as u64)),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 300, "{refused}");
    }

    #[test]
    fn arrays_do_not_nest_for_ever() {
        // An array of arrays of arrays, each with one element.
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend([0u64, 1].map(u64::to_le_bytes).concat());
        bytes.extend(1u64.to_le_bytes());
        bytes.extend(b"a");
        bytes.extend(9u32.to_le_bytes());
        for _ in 0..1000 {
            bytes.extend(9u32.to_le_bytes());
            bytes.extend(1u64.to_le_bytes());
        }
        let error = format!("{:#}", header(&bytes[..], bytes.len() as u64).unwrap_err());
        assert!(error.contains("the value a") && error.contains("nested"), "{error}");
    }
}
