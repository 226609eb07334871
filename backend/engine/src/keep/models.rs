//! Models from elsewhere that the lab knows by a name. Their files stay where they are; what is kept is where that is, what they are,
//! and a checksum of every file, so that a run says what it began from.

use super::files::{Disk, Files};
use super::sums;
use crate::model::architecture::Architecture;
use crate::model::files::ModelFiles;
use crate::sums::read_checked;
use crate::text::chat::ChatTemplate;
use crate::text::tokenizer;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The folder of models in the data folder, and the file of each in its own.
const FOLDER: &str = "models";
const FILE: &str = "model.json";
/// Longest name.
const LONGEST: usize = 64;

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFile {
    pub path: PathBuf,
    pub bytes: u64,
    pub sha256: String,
}

/// A model that was added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownModel {
    pub name: String,
    /// The folder or file that it was added from.
    pub path: PathBuf,
    /// Where it was fetched from, with its revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    pub architecture: Architecture,
    pub weights: u64,
    /// How many tensors are stored in which format.
    pub storages: Vec<(String, usize)>,
    /// Whether it brings a chat template.
    pub template: bool,
    /// Fields of its configuration that the person who added it vouched for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    pub files: Vec<KnownFile>,
}

/// A model that is about to be added.
#[derive(Debug, Clone, Default)]
pub struct NewModel {
    /// A folder or a GGUF file.
    pub path: PathBuf,
    pub name: String,
    /// Fields of its configuration that the person who adds it vouches for.
    pub ignored: Vec<String>,
    /// Where it was fetched from, with its revision.
    pub source: Option<String>,
    /// SHA-256 that files should have, by file name.
    pub checksums: BTreeMap<String, String>,
}

impl KnownModel {
    /// The id of the model on the hub that it was fetched from, and the commit.
    pub fn hub_id(&self) -> Option<(&str, &str)> {
        self.source.as_deref()?.split_once('@')
    }
}

/// The models of a data folder.
#[derive(Debug, Clone)]
pub struct Models {
    /// A folder for each.
    folder: Disk,
}

/// All models that a data folder knows.
#[derive(Debug, Clone, Default)]
pub struct KnownModels {
    /// By name.
    pub models: Vec<KnownModel>,
    /// What is wrong with the others, each with its file.
    pub damaged: Vec<String>,
}

impl Models {
    /// Those of the data folder at `root`.
    pub fn of(root: &Path) -> Self {
        Self { folder: Disk(root.join(FOLDER)) }
    }

    /// Adds a model. `each` is told how many bytes of how many have been read, and may stop it.
    ///
    /// # Errors
    /// When it is no model that the lab can compute or a file is not what was promised (nothing is added then), or the name is taken by
    /// another.
    pub fn add(&self, new: &NewModel, mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<KnownModel> {
        let NewModel { name, ignored, .. } = new;
        check_name(name)?;
        let path = resolved(&new.path).with_context(|| format!("{} is neither a folder nor a file", new.path.display()))?;
        let files = ModelFiles::open(&path, ignored)?;
        files.check().with_context(|| format!("in {}", path.display()))?;
        tokenizer(&files.tokenizer, files.architecture.vocabulary).with_context(|| format!("in {}", path.display()))?;
        if let Some(template) = &files.template {
            let read = ChatTemplate::new(template, files.bos.as_deref(), files.eos.as_deref());
            read.with_context(|| format!("in {}", path.display()))?;
        }
        let sizes = files.files.iter().map(|f| Ok(std::fs::metadata(f)?.len())).collect::<Result<Vec<u64>>>()?;
        let (total, mut done) = (sizes.iter().sum(), 0);
        let mut known = Vec::new();
        for (file, bytes) in files.files.iter().zip(sizes) {
            let sha256 = checksum(file, |n| {
                done += n;
                each(done, total)
            })?;
            let file_name = file.file_name().unwrap_or_default().to_string_lossy();
            if let Some(promised) = new.checksums.get(&*file_name) {
                ensure!(*promised == sha256, "{}: its SHA-256 is {sha256} and should be {promised}", file.display());
            }
            known.push(KnownFile { path: file.clone(), bytes, sha256 });
        }
        let model = KnownModel {
            name: name.clone(),
            path,
            source: new.source.clone(),
            weights: files.architecture.weights(),
            storages: files.storages(),
            template: files.template.is_some(),
            architecture: files.architecture,
            ignored: ignored.clone(),
            files: known,
        };
        if let Some(other) = self.find(name)? {
            let same = other.files.iter().map(|f| &f.sha256).eq(model.files.iter().map(|f| &f.sha256));
            ensure!(same, "name: {name} is taken by the model in {}; give another with --name", other.path.display());
        }
        sums::write(&self.folder, name, FILE, &serde_json::to_vec_pretty(&model)?)?;
        Ok(model)
    }

    /// The model called `name`, if there is one.
    ///
    /// # Errors
    /// When its file is damaged; the message names it.
    pub fn find(&self, name: &str) -> Result<Option<KnownModel>> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let of = || format!("reading {}", self.folder.describe(&format!("{name}/{FILE}")));
        let read = |file: &str| self.folder.read(&format!("{name}/{file}"));
        let Some(bytes) = read_checked(&read, FILE).with_context(of)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).with_context(of)
    }

    /// All models, and what is wrong with those that cannot be read.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<KnownModels> {
        let mut names = self.folder.list("").with_context(|| format!("reading {}", self.folder.0.display()))?;
        names.sort_unstable();
        let mut known = KnownModels::default();
        for name in names {
            match self.find(&name) {
                Ok(model) => known.models.extend(model),
                Err(error) => known.damaged.push(format!("{error:#}")),
            }
        }
        Ok(known)
    }

    /// Opens a model by its name, if its files are what they were.
    ///
    /// # Errors
    /// When there is no such model, or a file has gone or has another size.
    pub fn open(&self, name: &str) -> Result<(KnownModel, ModelFiles)> {
        let Some(model) = self.find(name)? else {
            let known: Vec<String> = self.list()?.models.into_iter().map(|m| m.name).collect();
            let hint = if known.is_empty() { "none was added yet".into() } else { format!("known are {}", known.join(", ")) };
            bail!("model: there is no model {name}; {hint}")
        };
        for file in &model.files {
            let found = std::fs::metadata(&file.path).map(|m| m.len()).unwrap_or(0);
            let (path, bytes) = (file.path.display(), file.bytes);
            ensure!(found == bytes, "{path} had {bytes} bytes when {name} was added and has {found}; add the model again");
        }
        let files = ModelFiles::open(&model.path, &model.ignored)?;
        Ok((model, files))
    }
}

/// The path from the root. Of a file only the folder's links are followed: where files are kept by their checksums, a link has the name.
fn resolved(path: &Path) -> std::io::Result<PathBuf> {
    match (path.is_dir(), path.file_name()) {
        (false, Some(name)) => {
            std::fs::metadata(path)?;
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(std::fs::canonicalize(folder)?.join(name))
        }
        _ => std::fs::canonicalize(path),
    }
}

/// A name that is a folder's.
fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let good = !name.is_empty() && name.len() <= LONGEST && name.chars().all(allowed) && !name.starts_with('.');
    ensure!(good, "name: is \"{name}\"; allowed are 1 to {LONGEST} letters, digits, dashes, dots and underscores");
    Ok(())
}

/// A name for the model at `path`: that of its folder or file, as [`name_from`] makes it.
pub fn name_of(path: &Path) -> String {
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name_from(&stem.unwrap_or_default().to_string_lossy())
}

/// `text` as a name, with what is not allowed in names replaced.
pub fn name_from(text: &str) -> String {
    let name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let name: String = name.trim_start_matches('.').chars().take(LONGEST).collect();
    if name.is_empty() { "model".into() } else { name }
}

/// SHA-256 of a file, in hex; `each` is told of every piece's bytes.
///
/// # Errors
/// When it cannot be read, or `each` ends it.
pub fn checksum(file: &Path, mut each: impl FnMut(u64) -> Result<()>) -> Result<String> {
    let of = || format!("reading {}", file.display());
    let (mut hash, mut reader) = (Sha256::new(), File::open(file).with_context(of)?);
    let mut piece = vec![0; 1 << 20];
    loop {
        let n = reader.read(&mut piece).with_context(of)?;
        if n == 0 {
            return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect());
        }
        hash.update(&piece[..n]);
        each(n as u64)?;
    }
}
