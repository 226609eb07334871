//! What is known of one run: a fold over the lines of its journal.

use crate::folder::read_sound;
use crate::id::RunId;
use crate::launch::process::KILLED;
use moslim_engine::keep::{config_hash, journal};
use moslim_shared::config::RunConfig;
use moslim_shared::event::{About, Event, EventBody, Outcome, RunInfo, RunStatus};
use moslim_shared::listing::Figures;
use moslim_shared::summary::RunSummary;
use std::borrow::Cow;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, UNIX_EPOCH};

/// Lines between two positions that are remembered, so that any event is found without reading a journal from its start.
pub const MARK_EVERY: u64 = 256;
/// File with what a person says of a run.
const ABOUT: &str = "about.json";
/// File with the summary of a run.
const SUMMARY: &str = "summary.json";
/// Lines of a process's log that are shown when it ends without a word.
const SHOWN_LINES: usize = 10;

/// What is known of one run.
pub struct Followed {
    /// Without its summary, which is on the disk: it is the largest part, and lists want its figures alone.
    pub info: RunInfo,
    /// Those of its summary, once there is one.
    pub figures: Option<Figures>,
    /// Which of the journals that the run had, one after the other, this is.
    pub journal: u32,
    /// How often its state has changed since the server began.
    pub changes: u32,
    /// Bytes of the journal's whole lines.
    pub bytes: u64,
    /// Where line `n * MARK_EVERY` begins; empty until the run is read.
    pub marks: Vec<u64>,
    /// When its process was started here, until it says something.
    pub started: Option<Instant>,
    /// How it says that it ended; it has when its process is gone, too.
    pub ending: Option<(Outcome, String)>,
    /// Whether anything changed since it was written to the index.
    pub dirty: bool,
}

impl Followed {
    pub fn new(id: &RunId, config: &RunConfig, created: u64) -> Self {
        let info = RunInfo { config_hash: config_hash(config), ..RunInfo::new(id.as_str(), config, created) };
        Self { info, figures: None, journal: 0, changes: 0, bytes: 0, marks: vec![0], started: None, ending: None, dirty: true }
    }

    /// A run as the index has it. Where the lines of its journal begin is found when somebody asks for them.
    pub fn indexed(info: RunInfo, figures: Option<Figures>, bytes: u64) -> Self {
        Self { info, figures, journal: 0, changes: 0, bytes, marks: Vec::new(), started: None, ending: None, dirty: false }
    }

    /// What a person says of the run, where its file has something else than is known. One that is damaged changes nothing.
    pub fn hear_about(&mut self, folder: &Path) {
        let about = match std::fs::read(folder.join(ABOUT)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Some(About::default()),
            read => read.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()),
        };
        if let Some(about) = about.filter(|about| *about != self.info.about) {
            (self.info.about, self.dirty) = (about, true);
        }
    }

    /// A run that has no journal, from before there were some, is known by its summary.
    pub fn read_summary(&mut self, folder: &Path) {
        if let Some(summary) = summary(folder) {
            (self.info.status, self.info.message) = (RunStatus::Finished, String::new());
            self.info.last_seq = said_by_summary(&self.info, &summary).len() as u64;
            self.figures = Some(Figures::of(&summary));
        } else {
            self.info.message = "it did not finish; resume it to go on from its last checkpoint".into();
        }
    }

    /// Takes in lines that a journal has grown by, of the last of which `cut` bytes are left out; returns their number.
    pub fn take(&mut self, text: &[u8], cut: u64) -> u64 {
        let mut lines = 0;
        if self.bytes == 0 && !text.is_empty() {
            self.info.last_seq = 0;
        }
        for line in text.split_inclusive(|&b| b == b'\n').filter(|l| l.ends_with(b"\n")) {
            if !self.marks.is_empty() && self.info.last_seq.is_multiple_of(MARK_EVERY) {
                self.marks.truncate((self.info.last_seq / MARK_EVERY) as usize);
                self.marks.push(self.bytes);
            }
            self.bytes += line.len() as u64;
            self.info.last_seq += 1;
            lines += 1;
            self.hear(line);
        }
        self.bytes += cut;
        lines
    }

    /// What a line says of the run. Most lines are read by nobody but the page.
    fn hear(&mut self, line: &[u8]) {
        let head = head(line);
        if ["started", "milestone", "summary", "ended"].iter().any(|kind| is_of(&head, kind)) {
            let event = journal::read_line(self.info.last_seq, line);
            self.info.hear(&event);
            self.figures = self.info.summary.take().map(|s| Figures::of(&s)).or(self.figures);
            match event.body {
                EventBody::Started { .. } => {
                    (self.started, self.ending) = (None, None);
                    self.info.config_hash = config_hash(&self.info.config);
                }
                EventBody::Ended { outcome, message } => self.ending = Some((outcome, message)),
                _ => {}
            }
        } else if self.info.last_seq == 1 {
            self.info.status = RunStatus::Running;
        }
    }

    /// The process of a run that has not ended is gone.
    pub fn lose(&mut self, how: Option<String>, folder: &Path) {
        // How it went is a failure, unless a person wanted it so; that nobody knows is what the end of a machine leaves.
        let killed = folder.join(KILLED).exists();
        self.info.status = if how.is_some() && !killed { RunStatus::Failed } else { RunStatus::Interrupted };
        let how = match how {
            _ if killed => "it was killed".into(),
            how => how.unwrap_or_else(|| "its process went away without a word".into()),
        };
        let mut message = format!("{how}; its last checkpoint is kept, resume the run to go on");
        let log = std::fs::read(folder.join(crate::launch::LOG)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log[log.len().saturating_sub(8 << 10)..]).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        for (n, line) in lines[lines.len().saturating_sub(SHOWN_LINES)..].iter().enumerate() {
            message.push_str(if n == 0 { "\nThe last it said:\n" } else { "\n" });
            message.extend(line.chars().take(500));
        }
        self.info.message = message;
        self.started = None;
    }
}

/// When a run was made, as far as its folder tells, milliseconds since the Unix epoch.
pub fn created(folder: &Path) -> u64 {
    let made = |file: &str| std::fs::metadata(folder.join(file)).and_then(|m| m.modified()).ok();
    let time = made("config.toml").or_else(|| made("config.json")).and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    time.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX))
}

/// Name, note and tags that a person gave a run.
pub fn read_about(folder: &Path) -> About {
    let read = std::fs::read(folder.join(ABOUT)).ok();
    read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// The beginning of a line of a journal. A line is {"time":N,"sum":"...","body":{"kind":...; its kind is near its start.
fn head(line: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&line[..line.len().min(96)])
}

/// Whether a line that begins so is of a kind.
fn is_of(head: &str, kind: &str) -> bool {
    head.contains(&format!("\"body\":{{\"{kind}\""))
}

/// The summary in a run's folder: in a file of its own, which every version has written, or where that is damaged in its journal, each
/// line of which has a checksum.
pub fn summary(folder: &Path) -> Option<RunSummary> {
    match read_sound(folder, SUMMARY) {
        Ok(Some(summary)) => return Some(summary),
        Ok(None) => {}
        Err(error) => warn_once(&error),
    }
    let text = std::fs::read(folder.join(journal::FILE)).ok()?;
    let lines = text.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n"));
    lines.rev().filter(|line| is_of(&head(line), "summary")).find_map(|line| match journal::read_line(0, line).body {
        EventBody::Summary { summary } => Some(summary),
        _ => None,
    })
}

/// Says once what is wrong with a summary: whoever looks at its run reads it every few seconds.
fn warn_once(error: &anyhow::Error) {
    static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let text = format!("{error:#}");
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.get_or_insert_default().insert(text.clone()) {
        tracing::warn!("what a run's journal says of its end is taken instead of its summary: {text}");
    }
}

/// What a run without a journal would have said at its end.
pub fn said_by_summary(info: &RunInfo, summary: &RunSummary) -> Vec<Event> {
    crate::legacy::events_of(&info.config, summary)
        .into_iter()
        .zip(1..)
        .map(|(body, seq)| Event { seq, time: info.created, body })
        .collect()
}
