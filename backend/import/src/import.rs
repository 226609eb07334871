//! An import from beginning to end: files in, a task in the data folder out, or nothing.

use crate::datum::Datum;
use crate::extract::{Extracted, Extractor};
use crate::making::{About, Making, said};
use crate::mapping::{Format, Mapping, ObjectiveMapping};
use crate::records::{Defect, format_of, read};
use anyhow::{Context, Result, anyhow, bail, ensure};
use moslim_shared::ratings::{ImportedFile, ImportedObjective, RatingsTask};
use std::fs;
use std::path::{Path, PathBuf};

/// What is done with records that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// They are left out, with their place and the reason.
    Drop,
    /// The first ends the import.
    Stop,
}

/// What is imported, and how.
#[derive(Debug, Clone)]
pub struct Import {
    pub files: Vec<PathBuf>,
    pub mapping: Mapping,
    /// The mapping as it was written, which is kept with the task.
    pub written: String,
    /// Name of the task.
    pub name: String,
    pub bad: Bad,
    /// Largest share of answers that may be dropped because they cannot be used, in [0, 1].
    pub most_bad: f64,
    /// Whether a task of that name may be replaced.
    pub replace: bool,
    /// Records of each file that are read at most; all of them where it is not given.
    pub most: Option<u64>,
}

/// Ends the reading of a file of which enough has been read.
#[derive(Debug, thiserror::Error)]
#[error("enough has been read")]
struct Enough;

/// Bad answers below which their share does not matter.
const FEW_BAD: u64 = 20;
/// Bad answers at which it is looked whether most are.
const EARLY: u64 = 1_000;

/// Imports files into the data folder at `root`. `each` is told how many bytes of how many were read, and may stop it.
///
/// # Errors
/// When a file cannot be read, too much of it cannot be used (named by file, record and column), or the name is taken. Nothing is left
/// of the import then, and the data folder is as it was.
pub fn import(root: &Path, import: &Import, mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<RatingsTask> {
    ensure!(!import.files.is_empty(), "file: none is named");
    let extractor = Extractor::new(import.mapping.clone());
    let mut making = Making::begin(root, &import.name, import.mapping.repeated_is_rated_again)?;
    let sizes = import.files.iter().map(|f| Ok(fs::metadata(f).with_context(|| format!("reading {}", f.display()))?.len()));
    let sizes = sizes.collect::<Result<Vec<u64>>>()?;
    let total: u64 = sizes.iter().sum();
    let (mut files, mut before) = (Vec::new(), 0);
    for (n, (path, &bytes)) in import.files.iter().zip(&sizes).enumerate() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let format = format(path, import.mapping.format)?;
        let mut records = 0;
        let mut told = |done: u64| each(before + done.min(bytes), total);
        let mut sink = |record: u64, value: Result<Datum, Defect>| {
            ensure!(import.most.is_none_or(|most| records < most), Enough);
            records += 1;
            let Extracted { samples, defects } = match value {
                Ok(value) => extractor.samples(&value),
                Err(defect) => Extracted { samples: Vec::new(), defects: vec![(String::new(), defect)] },
            };
            for (answer, defect) in &defects {
                ensure!(import.bad == Bad::Drop, "{}", said(&name, record, answer, defect));
                making.dump.add(&name, record, answer, defect)?;
                making.dump.bad += 1;
            }
            samples.into_iter().try_for_each(|sample| making.add(sample, n as u32, record))?;
            // Early where nothing fits, so that nobody waits for that.
            if making.dump.bad == EARLY { check_bad(&making, import.most_bad.max(0.5)) } else { Ok(()) }
        };
        let list = import.mapping.records.as_ref();
        let sha256 = match read(path, format, list, extractor.wanted(), &mut told, &mut sink) {
            // The sum of a part says nothing.
            Err(error) if error.is::<Enough>() => String::new(),
            other => other.map_err(|e| place(e, path))?,
        };
        files.push(ImportedFile { name, bytes, sha256, records });
        before += bytes;
    }
    check_bad(&making, import.most_bad)?;
    let named = || import.files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
    ensure!(making.taken > 0, "there is no answer in {}", named());

    let mapping = &import.mapping;
    let own = mapping.task_objectives().into_iter().zip(&mapping.objectives);
    let place =
        |o: &ObjectiveMapping| o.label.as_ref().or(o.preferred_at.as_ref()).map_or(String::new(), |path| format!(" at {path}"));
    let about = About {
        name: import.name.clone(),
        title: mapping.title.clone(),
        licence: mapping.licence.clone(),
        objectives: own.map(|(objective, o)| ImportedObjective { objective, agree: o.raters }).collect(),
        changes: mapping.changes(),
        files,
        mapping: import.written.clone(),
        places: mapping.objectives.iter().map(place).collect(),
    };
    making.finish(about, import.replace)
}

/// The format of a file.
///
/// # Errors
/// When neither its name nor the mapping tells.
pub fn format(path: &Path, named: Option<Format>) -> Result<Format> {
    let of = || {
        let known = "jsonl, json, csv, tsv or parquet, and .gz or .zst behind it";
        format!("{}: its name does not tell its format ({known}); the mapping may say format", path.display())
    };
    named.or_else(|| format_of(path)).with_context(of)
}

/// An error with the file that it is about.
fn place(error: anyhow::Error, path: &Path) -> anyhow::Error {
    let text = format!("{error:#}");
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if text.contains(&name) { error } else { anyhow!("{}: {text}", path.display()) }
}

/// Whether too many answers cannot be used.
fn check_bad(making: &Making, most: f64) -> Result<()> {
    let (dump, taken) = (&making.dump, making.taken);
    let share = dump.bad as f64 / (dump.bad + taken).max(1) as f64;
    if dump.bad < FEW_BAD && taken > dump.bad || share <= most {
        return Ok(());
    }
    let reasons = dump.reasons.iter().filter(|d| d.reason != "a duplicate");
    let examples: Vec<String> = reasons.map(|d| format!("  {} ({} times): {}", d.reason, d.count, d.examples[0])).collect();
    bail!(
        "{} of {} answers cannot be used, more than the {:.0} % that are allowed (--most-bad):\n{}",
        dump.bad,
        dump.bad + taken,
        100.0 * most,
        examples.join("\n")
    )
}
