//! How a study stands, and what the API says of studies.

use serde::{Deserialize, Serialize};

/// A run of a study as its progress shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StudyRunStatus {
    Waiting,
    Running,
    Finished,
    Failed,
}

/// Where the runs of a study are trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Host {
    /// On the machine that was asked, as many at a time as fit.
    #[default]
    Here,
    /// On the cluster that Slurm manages, as a job array.
    Slurm,
    /// On a Ray cluster, a job each.
    Ray,
}

/// State of a run of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct StudyRunState {
    pub run: String,
    pub labels: Vec<String>,
    pub seed: u64,
    pub status: StudyRunStatus,
    /// Why it failed, or what it does now; empty otherwise.
    pub message: String,
}

/// How a study stands, as it is kept on disk and told by the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct StudyState {
    pub id: String,
    pub name: String,
    pub question: String,
    /// Milliseconds since the Unix epoch.
    pub created: u64,
    /// Whether a process works on it.
    pub active: bool,
    /// Where it was trained last.
    #[serde(default)]
    pub on: Host,
    pub runs: Vec<StudyRunState>,
    /// Estimate of what is left, seconds; none before the first run is finished.
    pub seconds_left: Option<f64>,
}

impl StudyState {
    /// Runs with a status.
    pub fn count(&self, status: StudyRunStatus) -> usize {
        self.runs.iter().filter(|r| r.status == status).count()
    }
}

/// A shipped study as the API lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct StudyPreset {
    pub id: String,
    pub question: String,
    /// Settings that are compared: runs for each seed.
    pub settings: usize,
}

/// What the API needs to start a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StudyRequest {
    /// One of [`PRESETS`].
    pub preset: String,
    /// Run preset that it varies.
    pub base: String,
    pub seeds: Vec<u64>,
    #[serde(default)]
    pub on: Host,
}
