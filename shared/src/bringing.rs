//! What people bring to the lab: files of ratings that become tasks, and off-the-shelf models.

use crate::memory::Shape;
use crate::ratings::{Change, RatingsTask, ShownRow};
use serde::{Deserialize, Serialize};

/// A column of a file, or a path into its records, with what is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct SeenColumn {
    pub path: String,
    pub kind: String,
    pub example: String,
    /// Different values, as long as they are few and short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
    /// Records that have it, of those that were looked at.
    pub records: usize,
}

/// A mapping that the lab brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct KnownMapping {
    pub name: String,
    /// As TOML.
    pub text: String,
}

/// A file that was sent to be imported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Upload {
    pub id: String,
    /// Name of the file.
    pub name: String,
    pub bytes: u64,
    pub columns: Vec<SeenColumn>,
    /// A mapping to begin with, as TOML.
    pub mapping: String,
    /// Mappings of public data sets.
    pub known: Vec<KnownMapping>,
}

/// How a file becomes a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// Id of an [`Upload`].
    pub upload: String,
    /// Name of the task.
    pub name: String,
    /// Mapping, as TOML.
    pub mapping: String,
    /// Whether a task of that name may be replaced.
    #[serde(default)]
    pub replace: bool,
    /// Whether the first record that cannot be used ends the import, instead of being left out.
    #[serde(default)]
    pub stop: bool,
}

/// What the first records of a file would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Preview {
    /// The task that they would make alone.
    pub task: RatingsTask,
    pub rows: Vec<ShownRow>,
}

/// What is to be done to a task's classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// Added to those that were made before.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// Whether all that were made since the import are undone first.
    #[serde(default)]
    pub undo_all: bool,
}

/// Labels that a reward model finds the least likely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NoiseRequest {
    /// A finished run whose reward model knows the task's objectives.
    pub run: String,
    /// Number of rows.
    pub n: usize,
}

/// An off-the-shelf model as a list shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ModelInfo {
    pub name: String,
    pub family: String,
    pub weights: u64,
    pub layers: usize,
    pub d_model: usize,
    pub vocabulary: usize,
    /// Longest sequence, tokens.
    pub context: usize,
    /// What the memory of a run depends on.
    pub shape: Shape,
    /// How many tensors are stored in which format.
    pub storages: Vec<(String, usize)>,
    /// Whether it brings a chat template.
    pub template: bool,
    /// Where it was fetched from, with its revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Size of its files.
    pub bytes: u64,
    /// Memory of its weights as the lab computes with them, MiB: a run needs that once, and more for what it computes.
    pub memory_mib: u64,
}

/// The models that a lab knows, and what there is where it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ModelList {
    pub models: Vec<ModelInfo>,
    /// MiB, where the system tells.
    pub free_mib: Option<u64>,
    /// Threads that a run computes with on the processor.
    pub threads: usize,
}
