//! Weights in one or many safetensors files.

use super::Tensors;
use super::blocks::Storage;
use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Mutex;

/// Bytes of the longest header: a few hundred for each of a hundred thousand tensors.
const LONGEST_HEADER: u64 = 32 << 20;
/// The one file of small models, and the table of the files of large ones.
const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Where a tensor lies.
#[derive(Debug)]
struct Place {
    /// Position among the files.
    file: usize,
    storage: Storage,
    shape: Vec<usize>,
    from: u64,
    bytes: usize,
}

/// The open weight files of a folder.
#[derive(Debug)]
pub struct Safetensors {
    files: Vec<(String, Mutex<File>)>,
    tensors: BTreeMap<String, Place>,
}

impl Safetensors {
    /// Opens the weights of a folder and reads their headers.
    ///
    /// # Errors
    /// When there are none, a file of several is missing, or a header does not fit its file; the message names the file.
    pub fn open(folder: &Path) -> Result<Self> {
        let names = names(folder)?;
        let mut out = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for name in names {
            out.add(folder, &name).with_context(|| format!("reading {}", folder.join(&name).display()))?;
        }
        Ok(out)
    }

    /// Names of the files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, _)| name.as_str())
    }

    fn add(&mut self, folder: &Path, name: &str) -> Result<()> {
        let mut file = File::open(folder.join(name))?;
        let size = file.metadata()?.len();
        for (tensor, place) in header(&mut file, size, self.files.len())? {
            ensure!(self.tensors.insert(tensor.clone(), place).is_none(), "the tensor {tensor} is there twice");
        }
        self.files.push((name.to_string(), Mutex::new(file)));
        Ok(())
    }
}

/// The tensors that the header of a file of `size` bytes describes, each once; `file`: its position among the files.
fn header(reader: &mut impl Read, size: u64, file: usize) -> Result<Vec<(String, Place)>> {
    let mut length = [0; 8];
    reader.read_exact(&mut length).context("it ends within its header")?;
    let header = u64::from_le_bytes(length);
    ensure!(
        header <= LONGEST_HEADER && header <= size.saturating_sub(8),
        "its header says it is {header} bytes long; the file has {size}, and at most {LONGEST_HEADER} are allowed"
    );
    let mut text = vec![0; header as usize];
    reader.read_exact(&mut text)?;
    let metadata: Metadata = serde_json::from_slice(&text).context("its header")?;
    let begin = 8 + header;
    ensure!(begin + metadata.data_len() as u64 == size, "its header describes another size than its {size} bytes");
    let place = |(tensor, info): (String, &TensorInfo)| {
        let storage = match info.dtype {
            Dtype::F32 => Storage::F32,
            Dtype::F16 => Storage::F16,
            Dtype::BF16 => Storage::Bf16,
            other => bail!("the tensor {tensor} is stored as {other:?}; types that can be read are F32, F16 and BF16"),
        };
        let (from, to) = info.data_offsets;
        Ok((tensor, Place { file, storage, shape: info.shape.clone(), from: begin + from as u64, bytes: to - from }))
    };
    metadata.tensors().into_iter().map(place).collect()
}

/// Names of the weight files in a folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let index = folder.join(INDEX);
    if !index.exists() {
        ensure!(
            folder.join(WHOLE).exists(),
            "{} has neither {WHOLE} nor {INDEX}; weights in other formats cannot be read",
            folder.display()
        );
        return Ok(vec![WHOLE.into()]);
    }
    let of = || format!("reading {}", index.display());
    let table: serde_json::Value = serde_json::from_slice(&std::fs::read(&index).with_context(of)?).with_context(of)?;
    let map = table.get("weight_map").and_then(|m| m.as_object()).context("it has no weight_map").with_context(of)?;
    let mut names: Vec<String> = Vec::new();
    for (tensor, name) in map {
        let name = name.as_str().with_context(|| format!("weight_map.{tensor} is no text")).with_context(of)?;
        // A name, not a way out of the folder.
        let plain = Path::new(name).components().count() == 1 && name.ends_with(".safetensors") && !name.contains(['/', '\\']);
        ensure!(plain, "{}: weight_map.{tensor} is \"{name}\", which names no file of this folder", index.display());
        if !names.iter().any(|n| n == name) {
            names.push(name.to_string());
        }
    }
    names.sort_unstable();
    if let Some(missing) = names.iter().find(|n| !folder.join(n).exists()) {
        bail!("{} names {missing}, which is not there", index.display());
    }
    Ok(names)
}

impl Tensors for Safetensors {
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
        let (file_name, file) = &self.files[place.file];
        let mut bytes = vec![0; place.bytes];
        let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(place.from)).and_then(|_| file.read_exact(&mut bytes));
        read.with_context(|| format!("reading {name} of {file_name}"))?;
        place.storage.read(&bytes, place.shape.iter().product())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::spoilt;
    use super::*;

    #[test]
    fn no_header_makes_it_fall() {
        let bytes = include_bytes!("../../../../../tests/fixtures/models/llama/model.safetensors");
        let read = |bytes: &[u8]| header(&mut &bytes[..], bytes.len() as u64, 0);
        let all: usize = read(bytes).unwrap().iter().map(|(_, place)| place.bytes).sum();
        assert!(all > 80_000 && all < bytes.len());
        // Read or refused: never a panic, never more memory than the file has bytes.
        let refused = spoilt(bytes, 4_000).filter(|bytes| read(bytes).is_err()).count();
        assert!(refused > 1_000, "{refused}");
    }
}
