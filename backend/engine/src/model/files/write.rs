//! Weights written down as others read them: safetensors, and GGUF. One tensor at a time is in memory beside the model.

use super::blocks::Storage;
use super::gguf::{ALIGNMENT, Value};
use super::names::Naming;
use crate::model::architecture::{Architecture, Part};
use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, View, serialize_to_file};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// A tensor to be written.
pub struct Sheet<'a> {
    pub name: String,
    /// Rows first.
    pub shape: Vec<usize>,
    pub storage: Storage,
    /// Its numbers, row after row.
    pub values: Box<dyn Fn() -> Vec<f32> + 'a>,
}

impl<'a> Sheet<'a> {
    /// A tensor that is there already.
    pub fn of(name: impl Into<String>, shape: &[usize], values: Vec<f32>) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), storage: Storage::F32, values: Box::new(move || values.clone()) }
    }

    /// Every tensor of a decoder, by `naming`; `weights` gives its parts. Vectors stay f32 in GGUF files, and matrices whose rows do
    /// not fill blocks become F16 there.
    pub fn all(naming: Naming, a: &'a Architecture, storage: Storage, weights: &'a dyn Fn(Part) -> Vec<f32>) -> Vec<Self> {
        let one = |part: Part| {
            naming.tensors(a, part).into_iter().enumerate().map(move |(n, (name, shape))| {
                let row = shape.last().copied().unwrap_or(1);
                let storage = match naming {
                    Naming::Gguf { .. } if shape.len() == 1 => Storage::F32,
                    Naming::Gguf { .. } if !row.is_multiple_of(storage.block()) => Storage::F16,
                    _ => storage,
                };
                Self { name, shape, storage, values: Box::new(move || naming.split(a, part, n, &weights(part))) }
            })
        };
        a.parts().into_iter().flat_map(one).collect()
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        self.storage.write(&(self.values)()).with_context(|| format!("the tensor {}", self.name))
    }

    fn numbers(&self) -> usize {
        self.shape.iter().product()
    }
}

impl View for &Sheet<'_> {
    fn dtype(&self) -> Dtype {
        match self.storage {
            Storage::F16 => Dtype::F16,
            Storage::Bf16 => Dtype::BF16,
            _ => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.bytes().expect("whole numbers of bytes fill every plain storage"))
    }

    fn data_len(&self) -> usize {
        self.storage.bytes(self.numbers()).expect("whole numbers of bytes fill every plain storage")
    }
}

/// A safetensors file.
///
/// # Errors
/// When a storage is none of F32, F16 and BF16, or the file cannot be written.
pub fn safetensors(path: &Path, sheets: &[Sheet]) -> Result<()> {
    let plain = |s: &Sheet| matches!(s.storage, Storage::F32 | Storage::F16 | Storage::Bf16);
    ensure!(sheets.iter().all(plain), "safetensors hold F32, F16 and BF16");
    // Readers look for this to know how matrices lie.
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    serialize_to_file(sheets.iter().map(|s| (s.name.as_str(), s)), Some(format), path)
        .with_context(|| format!("writing {}", path.display()))
}

/// A GGUF file of version 3.
///
/// # Errors
/// When it cannot be written.
pub fn gguf(path: &Path, values: &[(String, Value)], sheets: &[Sheet]) -> Result<()> {
    let of = || format!("writing {}", path.display());
    let mut out = Counted { inner: BufWriter::new(File::create(path).with_context(of)?), written: 0 };
    header(&mut out, values, sheets).with_context(of)?;
    for sheet in sheets {
        out.pad().and_then(|()| Ok(out.put(&sheet.bytes()?)?)).with_context(of)?;
    }
    out.pad().and_then(|()| Ok(out.inner.flush()?)).with_context(of)
}

fn header(out: &mut Counted<impl Write>, values: &[(String, Value)], sheets: &[Sheet]) -> Result<()> {
    out.put(b"GGUF")?;
    out.put(&3u32.to_le_bytes())?;
    out.put(&(sheets.len() as u64).to_le_bytes())?;
    out.put(&(values.len() as u64).to_le_bytes())?;
    for (key, value) in values {
        out.text(key)?;
        out.put(&kind(value).to_le_bytes())?;
        out.value(value)?;
    }
    let mut from = 0;
    for sheet in sheets {
        out.text(&sheet.name)?;
        out.put(&(sheet.shape.len() as u32).to_le_bytes())?;
        for &n in sheet.shape.iter().rev() {
            out.put(&(n as u64).to_le_bytes())?;
        }
        out.put(&sheet.storage.gguf().to_le_bytes())?;
        out.put(&(from as u64).to_le_bytes())?;
        let bytes = sheet.storage.bytes(sheet.numbers()).with_context(|| format!("{} does not fill blocks", sheet.name))?;
        from += bytes.next_multiple_of(ALIGNMENT as usize);
    }
    Ok(())
}

/// The number of the type that readers expect of a value: 32 bits, where it fits into them.
fn kind(value: &Value) -> u32 {
    match value {
        Value::Unsigned(n) if u32::try_from(*n).is_ok() => 4,
        Value::Unsigned(_) => 10,
        Value::Signed(n) if i32::try_from(*n).is_ok() => 5,
        Value::Signed(_) => 11,
        Value::Float(_) => 6,
        Value::Bool(_) => 7,
        Value::Text(_) => 8,
        Value::Array(_) => 9,
    }
}

/// Knows how much was written.
struct Counted<W: Write> {
    inner: W,
    written: usize,
}

impl<W: Write> Counted<W> {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.written += bytes.len();
        self.inner.write_all(bytes)
    }

    fn pad(&mut self) -> Result<()> {
        let missing = self.written.next_multiple_of(ALIGNMENT as usize) - self.written;
        Ok(self.put(&vec![0; missing])?)
    }

    fn text(&mut self, text: &str) -> std::io::Result<()> {
        self.put(&(text.len() as u64).to_le_bytes())?;
        self.put(text.as_bytes())
    }

    fn value(&mut self, value: &Value) -> Result<()> {
        match (value, kind(value)) {
            (Value::Unsigned(n), 4) => self.put(&(*n as u32).to_le_bytes())?,
            (Value::Unsigned(n), _) => self.put(&n.to_le_bytes())?,
            (Value::Signed(n), 5) => self.put(&(*n as i32).to_le_bytes())?,
            (Value::Signed(n), _) => self.put(&n.to_le_bytes())?,
            (Value::Float(n), _) => self.put(&(*n as f32).to_le_bytes())?,
            (Value::Bool(b), _) => self.put(&[u8::from(*b)])?,
            (Value::Text(text), _) => self.text(text)?,
            (Value::Array(all), _) => {
                let first = all.first().map_or(8, kind);
                ensure!(all.iter().all(|v| kind(v) == first), "an array mixes types");
                self.put(&first.to_le_bytes())?;
                self.put(&(all.len() as u64).to_le_bytes())?;
                for value in all {
                    self.value(value)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tensors;
    use super::super::gguf::Gguf;
    use super::*;

    #[test]
    fn a_written_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        let values = [
            ("a.count", Value::Unsigned(7)),
            ("a.large", Value::Unsigned(1 << 40)),
            ("a.below", Value::Signed(-3)),
            ("a.share", Value::Float(0.25)),
            ("a.is", Value::Bool(true)),
            ("a.words", Value::Array(vec![Value::Text("x".into()), Value::Text("häuser".into())])),
            ("a.none", Value::Array(vec![])),
        ];
        let values: Vec<(String, Value)> = values.map(|(k, v)| (k.to_string(), v)).into();
        let numbers = |n: usize| (0..n).map(|i| i as f32 - 2.0).collect::<Vec<f32>>();
        let sheets = [
            Sheet::of("odd", &[3], numbers(3)),
            Sheet { storage: Storage::Q8_0, ..Sheet::of("blocks", &[2, 32], vec![1.0; 64]) },
            Sheet { storage: Storage::F16, ..Sheet::of("half", &[5, 2], numbers(10)) },
        ];
        gguf(&path, &values, &sheets).unwrap();
        let read = Gguf::open(&path).unwrap();
        for (key, value) in &values {
            assert_eq!(&read.values[key], value, "{key}");
        }
        assert_eq!((read.shape("half"), read.shape("blocks")), (Some(vec![5, 2]), Some(vec![2, 32])));
        assert_eq!((read.read("odd").unwrap(), read.read("half").unwrap()), (numbers(3), numbers(10)));
        let apart = read.read("blocks").unwrap().iter().map(|v| (v - 1.0).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-3, "{apart}");
        let mixed = [("a".to_string(), Value::Array(vec![Value::Bool(true), Value::Float(1.0)]))];
        assert!(gguf(&path, &mixed, &sheets).is_err());
    }
}
