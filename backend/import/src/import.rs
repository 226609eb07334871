//! An import from beginning to end: files in, a task in the data folder out, or nothing.

use crate::extract::{Extracted, Extractor};
use crate::gather::Gatherer;
use crate::mapping::{Format, Mapping};
use crate::records::{Defect, format_of, read};
use anyhow::{Context, Result, anyhow, bail, ensure};
use moslim_engine::data::ratings::kept::{KeptWriter, SPLITS};
use moslim_engine::data::ratings::{FILE, FOLDER, check_name, labels, rows_file, scores};
use moslim_engine::keep::write_atomically;
use moslim_shared::ratings::{Dropped, ImportReport, ImportedFile, ImportedObjective, LabelCounts, RatingsTask};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
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
}

/// Bad answers below which their share does not matter.
const FEW_BAD: u64 = 20;
/// Examples of every reason in the report.
const EXAMPLES: usize = 3;
/// Beginning of the names of files that are not finished.
const UNFINISHED: &str = ".import-";
/// The file of what was dropped.
pub const DROPPED: &str = "dropped.jsonl";

/// A line of [`DROPPED`].
#[derive(Serialize)]
struct DroppedLine<'a> {
    file: &'a str,
    /// Line of JSON Lines and CSV, else number of the record, from 1.
    record: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    answer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<&'a str>,
    reason: &'a str,
    detail: &'a str,
}

/// What was dropped so far.
struct Dump {
    file: BufWriter<File>,
    reasons: Vec<Dropped>,
    bad: u64,
}

impl Dump {
    fn add(&mut self, file: &str, record: u64, answer: &str, defect: &Defect) -> Result<()> {
        let Defect { column, reason, detail } = defect;
        let line = DroppedLine { file, record, answer, column: column.as_deref(), reason, detail };
        serde_json::to_writer(&mut self.file, &line)?;
        self.file.write_all(b"\n")?;
        let at = self.reasons.iter().position(|d| d.reason == *reason).unwrap_or_else(|| {
            self.reasons.push(Dropped { reason: (*reason).into(), count: 0, examples: Vec::new() });
            self.reasons.len() - 1
        });
        let known = &mut self.reasons[at];
        known.count += 1;
        if known.examples.len() < EXAMPLES {
            known.examples.push(said(file, record, answer, defect));
        }
        Ok(())
    }
}

/// Where something is wrong, and what.
fn said(file: &str, record: u64, answer: &str, defect: &Defect) -> String {
    let answer = if answer.is_empty() { String::new() } else { format!(", answer {answer}") };
    format!("{file}, record {record}{answer}: {defect}")
}

/// Writes to a file, and hashes what is written.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Imports files into the data folder at `root`. `each` is told how many bytes of how many were read, and may stop it.
///
/// # Errors
/// When a file cannot be read, too much of it cannot be used (named by file, record and column), or the name is taken. Nothing is left
/// of the import then, and the data folder is as it was.
pub fn import(root: &Path, import: &Import, mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<RatingsTask> {
    check_name(&import.name).map_err(|e| anyhow!("name: {e}"))?;
    ensure!(!import.files.is_empty(), "file: none is named");
    let tasks = root.join(FOLDER);
    fs::create_dir_all(&tasks).with_context(|| format!("making {}", tasks.display()))?;
    tidy_up(&tasks);
    let extractor = Extractor::new(import.mapping.clone());
    let mut gatherer = Gatherer::new(&tasks, import.mapping.repeated_is_rated_again)?;
    let dropped = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&tasks)?;
    let mut dump = Dump { file: BufWriter::new(dropped.reopen()?), reasons: Vec::new(), bad: 0 };
    let sizes = import.files.iter().map(|f| Ok(fs::metadata(f).with_context(|| format!("reading {}", f.display()))?.len()));
    let sizes = sizes.collect::<Result<Vec<u64>>>()?;
    let total: u64 = sizes.iter().sum();
    let (mut files, mut before, mut taken) = (Vec::new(), 0, 0u64);
    for (n, (path, &bytes)) in import.files.iter().zip(&sizes).enumerate() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let format = format(path, import.mapping.format)?;
        let mut records = 0;
        let mut told = |done: u64| each(before + done.min(bytes), total);
        let mut sink = |record: u64, value: Result<crate::datum::Datum, Defect>| {
            records += 1;
            let Extracted { samples, defects } = match value {
                Ok(value) => extractor.samples(&value),
                Err(defect) => Extracted { samples: Vec::new(), defects: vec![(String::new(), defect)] },
            };
            for (answer, defect) in &defects {
                let stopped = import.bad == Bad::Stop;
                ensure!(!stopped, "{}", said(&name, record, answer, defect));
                dump.add(&name, record, answer, defect)?;
                dump.bad += 1;
            }
            for sample in samples {
                taken += 1;
                gatherer.add(sample, n as u32, record)?;
            }
            // Early where nothing fits, so that nobody waits for that.
            if dump.bad == FEW_BAD.max(1_000) {
                check_bad(&dump, taken, import.most_bad.max(0.5))?;
            }
            Ok(())
        };
        let list = import.mapping.records.as_ref();
        let sha256 = read(path, format, list, extractor.wanted(), &mut told, &mut sink).map_err(|e| place(e, path))?;
        files.push(ImportedFile { name, bytes, sha256, records });
        before += bytes;
    }
    check_bad(&dump, taken, import.most_bad)?;
    ensure!(
        taken > 0,
        "there is no answer in {}",
        import.files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
    );

    let objectives = import.mapping.task_objectives();
    let own = |(n, objective): (usize, &moslim_shared::objective::Objective)| ImportedObjective {
        objective: objective.clone(),
        agree: import.mapping.objectives[n].raters,
    };
    let mut task = RatingsTask {
        name: import.name.clone(),
        title: import.mapping.title.clone(),
        licence: import.mapping.licence.clone(),
        hash: String::new(),
        objectives: objectives.iter().enumerate().map(own).collect(),
        changes: import.mapping.changes(),
        report: ImportReport {
            records: files.iter().map(|f: &ImportedFile| f.records).sum(),
            files,
            rows: 0,
            prompts: 0,
            splits: [0; 3],
            duplicates: 0,
            merged: 0,
            dropped: Vec::new(),
            labels: Vec::new(),
        },
        mapping: import.written.clone(),
    };
    let shaped = task.shaped().map_err(|e| anyhow!(e))?;
    let count = |o: &moslim_shared::objective::Objective| LabelCounts {
        id: o.id.clone(),
        classes: vec![0; o.class_count()],
        missing: 0,
        rated_again: 0,
        disagreed: 0,
    };
    let mut counts: Vec<LabelCounts> = shaped.iter().map(|s| count(&s.objective)).collect();
    let rows = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&tasks)?;
    let mut hashed = Hashed { inner: BufWriter::new(rows.reopen()?), hash: Sha256::new() };
    let names: Vec<moslim_shared::objective::Objective> = shaped.iter().map(|s| s.objective.clone()).collect();
    let mut writer = KeptWriter::new(&mut hashed, &names)?;
    let mut splits = [0u64; 3];
    let names: Vec<String> = task.report.files.iter().map(|f| f.name.clone()).collect();
    let gathered = gatherer.finish(
        |row| {
            let labels = labels(&row, &shaped);
            for (counts, (label, shaped)) in counts.iter_mut().zip(labels.iter().zip(&shaped)) {
                let Some(class) = label else {
                    counts.missing += 1;
                    continue;
                };
                counts.classes[*class] += 1;
                let votes = shaped.bins.votes(&scores(&row, shaped.imported));
                let several = votes.iter().sum::<usize>() > 1;
                counts.rated_again += u64::from(several);
                counts.disagreed += u64::from(several && votes.iter().filter(|v| **v > 0).count() > 1);
            }
            splits[row.split] += 1;
            writer.add(row, labels)
        },
        |origin, first| {
            let again = format!(
                "the same answer to the same prompt, with the same labels, is in {}, record {}",
                names[first.file as usize], first.record
            );
            dump.add(&names[origin.file as usize], origin.record, &origin.answer, &Defect::of("a duplicate", again))
        },
    )?;
    writer.finish()?;
    hashed.flush()?;
    let Hashed { inner, hash } = hashed;
    inner.into_inner().map_err(|e| anyhow!("writing rows: {e}"))?.sync_all()?;
    dump.file.flush()?;
    for (counts, mapping) in counts.iter().zip(&import.mapping.objectives) {
        let label = mapping.label.as_ref().or(mapping.preferred_at.as_ref());
        if let Some(path) = label.filter(|_| counts.classes.iter().all(|&n| n == 0)) {
            bail!("objectives ({}): no record has a label at {path}", counts.id);
        }
    }
    task.hash = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let report = &mut task.report;
    (report.rows, report.splits, report.labels) = (splits.iter().sum(), splits, counts);
    (report.prompts, report.duplicates, report.merged) = (gathered.prompts, gathered.duplicates, gathered.merged);
    report.dropped = dump.reasons;
    for (split, rows) in SPLITS.iter().zip(splits) {
        ensure!(rows > 0, "there are {} prompts, too few: none is left for {split}", report.prompts);
    }
    place_task(&tasks, &task, import.replace, rows, dropped)?;
    Ok(task)
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
fn check_bad(dump: &Dump, taken: u64, most: f64) -> Result<()> {
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

/// Removes what imports that were killed left.
fn tidy_up(tasks: &Path) {
    let hour = std::time::Duration::from_secs(3600);
    for entry in fs::read_dir(tasks).into_iter().flatten().flatten() {
        let old =
            || entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok()).is_some_and(|age| age > hour);
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) && old() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Puts the files of a finished import in place; `task.json` last, from which on the task is there.
fn place_task(
    tasks: &Path,
    task: &RatingsTask,
    replace: bool,
    rows: tempfile::NamedTempFile,
    dropped: tempfile::NamedTempFile,
) -> Result<()> {
    let folder = tasks.join(&task.name);
    let file = folder.join(FILE);
    let old: Option<RatingsTask> = match fs::read(&file) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).with_context(|| format!("reading {}", file.display()))?),
        Err(_) => None,
    };
    if let Some(old) = old.as_ref().filter(|old| old.hash != task.hash || old.objectives != task.objectives) {
        ensure!(
            replace,
            "name: there is a task {} with other rows ({}); give another name, or --replace it",
            task.name,
            &old.hash[..12]
        );
    }
    fs::create_dir_all(&folder)?;
    rows.persist(folder.join(rows_file(task)))?;
    dropped.persist(folder.join(DROPPED))?;
    write_atomically(&file, &serde_json::to_vec_pretty(task)?)?;
    if let Some(old) = old.filter(|old| old.hash != task.hash) {
        let _ = fs::remove_file(folder.join(rows_file(&old)));
    }
    Ok(())
}
