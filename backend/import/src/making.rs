//! A task on its way: samples come in, and what cannot be used is written down; at the end all of it is put in place, or nothing is.

use crate::extract::Sample;
use crate::gather::Gatherer;
use crate::records::Defect;
use anyhow::{Context, Result, anyhow, bail, ensure};
use moslim_engine::data::ratings::kept::{KeptRow, Origin, SPLITS};
use moslim_engine::data::ratings::rows::KeptWriter;
use moslim_engine::data::ratings::{FILE, FOLDER, check_name, labels, rows_file, scores};
use moslim_engine::keep::files::{Disk, Files};
use moslim_engine::keep::{read_checked, sums};
use moslim_shared::objective::Objective;
use moslim_shared::ratings::{Dropped, ImportReport, ImportedFile, ImportedObjective, LabelCounts, RatingsTask, Shaped};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Examples of every reason in the report.
const EXAMPLES: usize = 3;
/// Beginning of the names of files that are not finished.
const UNFINISHED: &str = ".import-";
/// The file of what was dropped.
pub const DROPPED: &str = "dropped.jsonl";

/// What a task is called, and what was read for it.
pub struct About {
    pub name: String,
    pub title: String,
    pub licence: String,
    pub objectives: Vec<ImportedObjective>,
    pub changes: Vec<moslim_shared::ratings::Change>,
    pub files: Vec<ImportedFile>,
    pub mapping: String,
    /// Where each objective's labels should have been, for the message that there are none.
    pub places: Vec<String>,
}

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
pub struct Dump {
    file: BufWriter<File>,
    pub reasons: Vec<Dropped>,
    /// Answers that cannot be used.
    pub bad: u64,
}

impl Dump {
    /// Writes down what is wrong with an answer.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, file: &str, record: u64, answer: &str, defect: &Defect) -> Result<()> {
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
pub fn said(file: &str, record: u64, answer: &str, defect: &Defect) -> String {
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

/// A task that is being made.
pub struct Making {
    tasks: PathBuf,
    gatherer: Gatherer,
    dropped: NamedTempFile,
    pub dump: Dump,
    /// Answers that came in.
    pub taken: u64,
}

fn unfinished(tasks: &Path) -> Result<NamedTempFile> {
    Ok(tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(tasks)?)
}

impl Making {
    /// Begins a task called `name` in the data folder at `root`.
    ///
    /// # Errors
    /// When the name is not allowed, or files cannot be made.
    pub fn begin(root: &Path, name: &str, repeated_is_rated_again: bool) -> Result<Self> {
        check_name(name).map_err(|e| anyhow!("name: {e}"))?;
        let tasks = root.join(FOLDER);
        fs::create_dir_all(&tasks).with_context(|| format!("making {}", tasks.display()))?;
        tidy_up(&tasks);
        let gatherer = Gatherer::new(&tasks, repeated_is_rated_again)?;
        let dropped = unfinished(&tasks)?;
        let dump = Dump { file: BufWriter::new(dropped.reopen()?), reasons: Vec::new(), bad: 0 };
        Ok(Self { tasks, gatherer, dropped, dump, taken: 0 })
    }

    /// Adds a sample of a file's record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, sample: Sample, file: u32, record: u64) -> Result<()> {
        self.taken += 1;
        self.gatherer.add(sample, file, record)
    }

    /// Puts the task in place. `replace`: whether another of its name may go.
    ///
    /// # Errors
    /// When an objective has no label, a split would be empty, the name is taken, or files cannot be written. Nothing is left then.
    pub fn finish(self, about: About, replace: bool) -> Result<RatingsTask> {
        let Self { tasks, gatherer, dropped, mut dump, .. } = self;
        let About { name, title, licence, objectives, changes, files, mapping, places } = about;
        let names: Vec<String> = files.iter().map(|f| f.name.clone()).collect();
        let report = ImportReport {
            records: files.iter().map(|f| f.records).sum(),
            files,
            rows: 0,
            prompts: 0,
            splits: [0; 3],
            duplicates: 0,
            merged: 0,
            dropped: Vec::new(),
            labels: Vec::new(),
        };
        let mut task = RatingsTask { name, title, licence, hash: String::new(), objectives, changes, report, mapping };
        let shaped = task.shaped().map_err(|e| anyhow!(e))?;
        let mut counts: Vec<LabelCounts> = shaped.iter().map(uncounted).collect();
        let rows = unfinished(&tasks)?;
        let mut hashed = Hashed { inner: BufWriter::new(rows.reopen()?), hash: Sha256::new() };
        let columns: Vec<Objective> = shaped.iter().map(|s| s.objective.clone()).collect();
        let mut writer = KeptWriter::new(&mut hashed, &columns)?;
        let mut splits = [0u64; 3];
        let gathered = gatherer.finish(
            |row| {
                splits[row.split] += 1;
                let labels = labels(&row, &shaped);
                count(&mut counts, &row, &labels, &shaped);
                writer.add(row, labels)
            },
            |origin: Origin, first: &Origin| {
                let (file, record) = (&names[first.file as usize], first.record);
                let again = format!("the same answer to the same prompt, with the same labels, is in {file}, record {record}");
                dump.add(&names[origin.file as usize], origin.record, &origin.answer, &Defect::of("a duplicate", again))
            },
        )?;
        writer.finish()?;
        hashed.flush()?;
        let Hashed { inner, hash } = hashed;
        inner.into_inner().map_err(|e| anyhow!("writing rows: {e}"))?.sync_all()?;
        dump.file.flush()?;
        for (counts, place) in counts.iter().zip(&places) {
            if counts.classes.iter().all(|&n| n == 0) {
                bail!("objectives ({}): no record has a label{place}", counts.id);
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
        place_task(&tasks, &task, replace, rows, dropped)?;
        Ok(task)
    }
}

fn uncounted(shaped: &Shaped) -> LabelCounts {
    let o = &shaped.objective;
    LabelCounts { id: o.id.clone(), classes: vec![0; o.class_count()], missing: 0, rated_again: 0, disagreed: 0 }
}

/// Counts a row's labels.
fn count(counts: &mut [LabelCounts], row: &KeptRow, labels: &[Option<usize>], shaped: &[Shaped]) {
    for (counts, (label, shaped)) in counts.iter_mut().zip(labels.iter().zip(shaped)) {
        let Some(class) = label else {
            counts.missing += 1;
            continue;
        };
        counts.classes[*class] += 1;
        let votes = shaped.bins.votes(&scores(row, shaped.imported));
        let several = votes.iter().sum::<usize>() > 1;
        counts.rated_again += u64::from(several);
        counts.disagreed += u64::from(several && votes.iter().filter(|v| **v > 0).count() > 1);
    }
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

/// What is known of the task that has the name already, if one has. One that is damaged may go where tasks may.
///
/// # Errors
/// When it is damaged, and may not be replaced.
fn before(tasks: &Disk, name: &str, replace: bool) -> Result<Option<RatingsTask>> {
    let of = || format!("reading {}", tasks.describe(&format!("{name}/{FILE}")));
    let read = || -> Result<Option<RatingsTask>> {
        let bytes = read_checked(&|file| tasks.read(&format!("{name}/{file}")), FILE)?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    };
    match read() {
        Err(_) if replace => Ok(None),
        read => read.with_context(of),
    }
}

/// Puts the files of a finished import in place; `task.json` last, from which on the task is there.
fn place_task(tasks: &Path, task: &RatingsTask, replace: bool, rows: NamedTempFile, dropped: NamedTempFile) -> Result<()> {
    let (folder, files) = (tasks.join(&task.name), Disk(tasks.into()));
    let old = before(&files, &task.name, replace)?;
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
    sums::write(&files, &task.name, FILE, &serde_json::to_vec_pretty(task)?)?;
    if let Some(old) = old.filter(|old| old.hash != task.hash) {
        let _ = fs::remove_file(folder.join(rows_file(&old)));
    }
    Ok(())
}
