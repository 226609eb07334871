//! What the runs of a study have found, put together: tables and pictures, each with its checksum, and results that came from elsewhere.

use super::Study;
use crate::folder::read_sound;
use crate::id::RunId;
use anyhow::{Context, Result};
use moslim_engine::keep::files::{Disk, Files};
use moslim_engine::keep::read_checked;
use moslim_shared::study::{FrontAxes, StudyResults, StudyRow, StudyRunState, StudyRunStatus, StudyState, front_axes};
use moslim_shared::summary::RunSummary;
use std::collections::{HashMap, HashSet};

/// Results of runs of the same plan that were trained elsewhere.
pub const ELSEWHERE: &str = "elsewhere.json";

impl Study {
    /// The summary of a finished run.
    ///
    /// # Errors
    /// When it is there and not what the run has written: no table is made of it.
    pub(super) fn summary(&self, run: &str) -> Result<Option<RunSummary>> {
        match run.parse::<RunId>() {
            Ok(id) => read_sound(&self.data.run(&id), "summary.json"),
            Err(_) => Ok(None),
        }
    }

    /// Puts together what is finished.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn write_results(&self, state: &StudyState, known: &Known) -> Result<()> {
        let finished = state.runs.iter().filter(|r| r.status == StudyRunStatus::Finished);
        let rows: Vec<StudyRow> = finished.filter_map(|r| known.rows.get(&r.run).cloned()).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let results = StudyResults::of(&self.config, rows, known.axes.clone());
        self.keep("results.csv", results.to_csv().as_bytes())?;
        for (name, picture) in crate::pictures::of_study(&results).context("drawing the results")? {
            self.keep(&name, picture.as_bytes())?;
        }
        self.keep("results.json", &serde_json::to_vec_pretty(&results)?)
    }

    /// The results, once there are some.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn results(&self) -> Result<Option<StudyResults>> {
        self.read_results("results.json")
    }

    /// Results in a file of the study.
    pub(super) fn read_results(&self, name: &str) -> Result<Option<StudyResults>> {
        read_sound(&self.folder(), name)
    }

    /// What a file of the study holds, as it was written; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read, or has changed since; the message names it.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let files = Disk(self.folder());
        read_checked(&|name| files.read(name), name).with_context(|| format!("reading {}", files.describe(name)))
    }

    /// Counts the runs of `results`, trained elsewhere with the configurations that this plan has, as finished.
    ///
    /// # Errors
    /// When they cannot be written down.
    pub fn take_over(&self, results: &StudyResults) -> Result<()> {
        self.keep(ELSEWHERE, &serde_json::to_vec(results)?)
    }
}

/// Figures of finished runs.
#[derive(Default)]
pub struct Known {
    /// By the run.
    pub rows: HashMap<String, StudyRow>,
    pub axes: FrontAxes,
    /// Runs that were trained here, so that their stages are in the cache.
    pub here: HashSet<String>,
}

impl Known {
    /// Takes in what a run has found.
    pub fn learn(&mut self, run: &StudyRunState, summary: &RunSummary) {
        if let (true, Some(axes)) = (self.axes.0.is_empty(), front_axes(summary)) {
            self.axes = axes;
        }
        self.rows.insert(run.run.clone(), StudyRow::of(&run.labels, summary));
        self.here.insert(run.run.clone());
    }
}
