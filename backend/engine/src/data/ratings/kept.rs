//! Rows of imported tasks.

use serde::{Deserialize, Serialize};

/// Where a rating comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Position among the import's files.
    pub file: u32,
    /// Line or number of the record, from 1.
    pub record: u64,
    /// Which answer of the record; empty where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// What one rater said of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptRating {
    /// Position among the objectives as they were imported.
    pub objective: usize,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rater: String,
    /// On the scale of the imported classes: 0 is the lowest.
    pub score: f64,
    /// Position among the row's origins.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub origin: usize,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptRow {
    pub prompt: String,
    pub response: String,
    /// 0 for training, 1 for validation, 2 for test.
    pub split: usize,
    pub origins: Vec<Origin>,
    pub ratings: Vec<KeptRating>,
}

/// Names of the splits, by their numbers.
pub const SPLITS: [&str; 3] = ["train", "validation", "test"];
