//! Models as people have them on their disks: a folder as Hugging Face's libraries write it, or a GGUF file.

mod blocks;
pub mod config;
mod gguf;
pub mod gguf_header;
mod gguf_model;
mod names;
mod safetensors;
pub mod write;

pub use blocks::Storage;
pub use gguf::{Gguf, Value};
pub use names::{DIVISORS, Naming};

use self::safetensors::Safetensors;
use super::architecture::Architecture;
use super::kernels::Kernels;
use super::transformer::Transformer;
use anyhow::{Context, Result, ensure};
use moslim_shared::config::Precision;
use std::path::{Path, PathBuf};

/// Named tensors of a file or of several.
pub trait Tensors: Send + Sync {
    /// Names of all of them.
    fn names(&self) -> Vec<String>;
    /// Dimensions of a tensor, rows first.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
    /// How its numbers are stored.
    fn storage(&self, name: &str) -> Option<String>;
    /// Its numbers, row after row.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    fn read(&self, name: &str) -> Result<Vec<f32>>;
}

/// A model in files, opened: what it is, with its weights still on disk.
pub struct ModelFiles {
    pub architecture: Architecture,
    /// `tokenizer.json`.
    pub tokenizer: String,
    /// Its chat template, in Jinja.
    pub template: Option<String>,
    /// Texts of the tokens that begin a sequence and end an answer, where the model has them.
    pub bos: Option<String>,
    pub eos: Option<String>,
    /// Every file that it is made of.
    pub files: Vec<PathBuf>,
    tensors: Box<dyn Tensors>,
    naming: Naming,
}

/// Longest of the small files: configurations, templates, tokenizers.
const LONGEST_TEXT: u64 = 64 << 20;

impl ModelFiles {
    /// Opens a folder or a GGUF file. `ignored`: fields of config.json that the caller vouches for.
    ///
    /// # Errors
    /// When it is neither, is of an unknown family, has a field or a tensor that is not understood, or lacks one; the message names
    /// the file, and the field or tensor.
    pub fn open(path: &Path, ignored: &[String]) -> Result<Self> {
        let out = if path.is_dir() { Self::open_folder(path, ignored)? } else { Self::open_gguf(path)? };
        let check = out.naming.check_all_used(out.tensors.as_ref(), &out.architecture);
        check.with_context(|| format!("in {}", path.display()))?;
        Ok(out)
    }

    fn open_folder(folder: &Path, ignored: &[String]) -> Result<Self> {
        let config = json(&folder.join("config.json"))?;
        let mut architecture =
            Architecture::of_config(&config, ignored).with_context(|| format!("in {}", folder.join("config.json").display()))?;
        let tensors = Safetensors::open(folder)?;
        let tokenizer = text(&folder.join("tokenizer.json"))?;
        let beside = folder.join("tokenizer_config.json");
        let settings = if beside.exists() { json(&beside)? } else { serde_json::Value::Null };
        let token = |name: &str| match settings.get(name)? {
            serde_json::Value::String(text) => Some(text.clone()),
            object => object.get("content")?.as_str().map(String::from),
        };
        let jinja = folder.join("chat_template.jinja");
        let template = match settings.get("chat_template") {
            Some(serde_json::Value::String(text)) => Some(text.clone()),
            // Several templates with names.
            Some(serde_json::Value::Array(all)) => all
                .iter()
                .find(|t| t.get("name").and_then(|n| n.as_str()) == Some("default"))
                .and_then(|t| t.get("template")?.as_str().map(String::from)),
            _ if jinja.exists() => Some(text(&jinja)?),
            _ => None,
        };
        // A file without a head shares its embeddings, whatever the configuration leaves out.
        if !config.as_object().is_some_and(|c| c.contains_key("tie_word_embeddings")) {
            architecture.tied = tensors.shape("lm_head.weight").is_none();
        }
        let mut files = vec![folder.join("config.json"), folder.join("tokenizer.json")];
        files.extend([beside, jinja].into_iter().filter(|f| f.exists()));
        files.extend(tensors.files().map(|name| folder.join(name)));
        let (bos, eos) = (token("bos_token"), token("eos_token"));
        Ok(Self { architecture, tokenizer, template, bos, eos, files, tensors: Box::new(tensors), naming: Naming::HuggingFace })
    }

    /// How the weights are stored: names of number formats, with how many tensors have each.
    pub fn storages(&self) -> Vec<(String, usize)> {
        let mut out: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
        for name in self.tensors.names() {
            *out.entry(self.tensors.storage(&name).unwrap_or_default()).or_default() += 1;
        }
        out.into_iter().collect()
    }

    /// Whether every tensor that the model needs is there, in its shape. Reads no weights.
    ///
    /// # Errors
    /// When one is missing or has another shape; the message names it.
    pub fn check(&self) -> Result<()> {
        let parts = self.architecture.parts();
        parts.into_iter().try_for_each(|part| self.naming.check(self.tensors.as_ref(), &self.architecture, part).map(drop))
    }

    /// The model on a device. `context`: longest sequence it will read; it is at most what the model can. `numbers`: what it multiplies in, and
    /// what its matrices are kept in. Before every part `check` says whether it is still wanted.
    ///
    /// # Errors
    /// When a tensor is missing, damaged or of another shape; the message names it. What `check` says.
    pub fn load<B: Kernels>(
        &self,
        context: usize,
        numbers: (Precision, Precision),
        device: &B::Device,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<Transformer<B>> {
        Transformer::assemble(&self.architecture, numbers, context, device, |part, _| {
            check()?;
            self.naming.read(self.tensors.as_ref(), &self.architecture, part)
        })
    }
}

/// A small text file.
fn text(path: &Path) -> Result<String> {
    let of = || format!("reading {}", path.display());
    let size = std::fs::metadata(path).with_context(of)?.len();
    ensure!(size <= LONGEST_TEXT, "{}: is {size} bytes long; at most {LONGEST_TEXT} are allowed", path.display());
    std::fs::read_to_string(path).with_context(of)
}

/// A small JSON file.
fn json(path: &Path) -> Result<serde_json::Value> {
    serde_json::from_str(&text(path)?).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// Copies of `bytes` that are spoilt at random within the first `header` of them: bits, whole numbers, and where they end. Two
    /// thousand, or as many as the environment variable MOSLIM_FUZZ says.
    pub fn spoilt(bytes: &[u8], header: usize) -> impl Iterator<Item = Vec<u8>> {
        let count = std::env::var("MOSLIM_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
        let mut rng = StdRng::seed_from_u64(1);
        (0..count).map(move |_| {
            let mut copy = bytes.to_vec();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..header.min(copy.len().saturating_sub(8)));
                match rng.random_range(0..4) {
                    0 => copy[at] ^= 1 << rng.random_range(0..8),
                    1 => copy[at] = rng.random(),
                    2 => {
                        let number: u64 = [0, 1, u64::from(u32::MAX), u64::MAX, 1 << 40][rng.random_range(0..5)];
                        copy[at..at + 8].copy_from_slice(&number.to_le_bytes());
                    }
                    _ => copy.truncate(rng.random_range(9..=copy.len().max(10))),
                }
                if copy.len() < 64 {
                    break;
                }
            }
            copy
        })
    }
}
