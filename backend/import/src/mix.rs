//! Several imported tasks as one, in proportions.

use crate::extract::{Rating, Sample};
use crate::making::{About, Making};
use anyhow::{Context, Result, ensure};
use moslim_engine::data::ratings::{ReadFile, about, prompt_hash, rows};
use moslim_shared::ratings::{ImportedFile, ImportedObjective, RatingsTask};
use std::path::Path;

/// A task, and its share of the rows of the whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub task: String,
    pub share: f64,
}

/// Makes a task called `name` of several. Objectives of the same id are the same, and must have the same classes; rows of one task have no
/// labels for the objectives of another. As many rows as possible are taken: all of the task that has the fewest for its share. Prompts
/// are split anew, so that none is in two splits.
///
/// # Errors
/// When a task is not there, or their objectives do not fit together; or as an import.
pub fn mix(root: &Path, read: ReadFile, name: &str, parts: &[Part], replace: bool) -> Result<RatingsTask> {
    ensure!(parts.len() > 1, "of: name at least two tasks");
    ensure!(parts.iter().all(|p| p.share.is_finite() && p.share > 0.0), "of: shares are numbers above 0");
    let tasks =
        parts.iter().map(|p| about(&p.task, read).with_context(|| format!("of: {}", p.task))).collect::<Result<Vec<_>>>()?;
    let mut objectives: Vec<ImportedObjective> = Vec::new();
    for task in &tasks {
        ensure!(
            task.changes.is_empty(),
            "of: the classes of {} were changed since its import; undo that first (data edit --undo-all)",
            task.name
        );
        for own in &task.objectives {
            match objectives.iter().find(|o| o.objective.id == own.objective.id) {
                None => objectives.push(own.clone()),
                Some(known) => {
                    let fits = known.objective.class_count() == own.objective.class_count();
                    let [a, b] = [known, own].map(|o| o.objective.classes.join(", "));
                    ensure!(fits, "of: {} has the classes {b} in {}, and {a} in another task", own.objective.id, task.name);
                }
            }
        }
    }
    // Rows for each unit of share, of the task that has the fewest.
    let unit = tasks.iter().zip(parts).map(|(t, p)| t.report.rows as f64 / p.share).fold(f64::INFINITY, f64::min);
    let mut making = Making::begin(root, name, false)?;
    let mut files: Vec<ImportedFile> = Vec::new();
    for (task, part) in tasks.iter().zip(parts) {
        let first = files.len() as u32;
        files.extend(task.report.files.iter().map(|f| ImportedFile { name: format!("{}/{}", task.name, f.name), ..f.clone() }));
        let position = |n: usize| objectives.iter().position(|o| o.objective.id == task.objectives[n].objective.id).unwrap_or(0);
        // Whole prompts are taken or left, by their hash.
        let kept = (unit * part.share / task.report.rows as f64).min(1.0);
        rows(task, read, |row| {
            if prompt_hash(&row.prompt).wrapping_mul(0x9E37_79B9_7F4A_7C15) as f64 >= kept * u64::MAX as f64 && kept < 1.0 {
                return Ok(());
            }
            for (n, origin) in row.origins.iter().enumerate() {
                let own = row.ratings.iter().filter(|r| r.origin == n);
                let ratings =
                    own.map(|r| Rating { objective: position(r.objective), rater: r.rater.clone(), score: r.score }).collect();
                let (prompt, response, answer) = (row.prompt.clone(), row.response.clone(), origin.answer.clone());
                making.add(Sample { prompt, response, ratings, answer }, first + origin.file, origin.record)?;
            }
            Ok(())
        })?;
    }
    let shares: Vec<String> = parts.iter().map(|p| format!("{} x {}", p.task, p.share)).collect();
    let mut licences: Vec<&str> = tasks.iter().map(|t| t.licence.as_str()).filter(|l| !l.is_empty()).collect();
    licences.dedup();
    let about = About {
        name: name.into(),
        title: shares.join(", "),
        licence: licences.join(", "),
        objectives,
        changes: Vec::new(),
        files,
        mapping: String::new(),
        places: Vec::new(),
    };
    making.finish(about, replace)
}
