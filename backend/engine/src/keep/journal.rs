//! The journal of a run: `events.jsonl`, one event a line, written by the process that trains and by nobody else. The number of
//! an event is the number of its line. A torn last line (the process was killed) does not count.

use super::files::{Append, Files};
use anyhow::{Context, Result};
use moslim_shared::event::{Event, EventBody};
use serde::{Deserialize, Serialize};

/// The journal's name in a run's folder.
pub const FILE: &str = "events.jsonl";

/// A line, as it is written.
#[derive(Serialize)]
struct Line<'a> {
    time: u64,
    body: &'a EventBody,
}

/// A line, as it is read.
#[derive(Deserialize)]
struct ReadLine {
    time: u64,
    body: EventBody,
}

/// Milliseconds since the Unix epoch; 0 for a clock set before it.
pub fn now_ms() -> u64 {
    let elapsed = web_time::SystemTime::now().duration_since(web_time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Appends events.
pub struct Journal {
    out: Box<dyn Append>,
    line: Vec<u8>,
}

impl Journal {
    /// Opens the journal at `path`, behind whatever whole lines it has.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(files: &dyn Files, path: &str) -> Result<Self> {
        let out = files.append(path).with_context(|| format!("opening {}", files.describe(path)))?;
        Ok(Self { out, line: Vec::new() })
    }

    /// Appends an event, which then survives the death of this process.
    ///
    /// # Errors
    /// When it cannot be written; the journal ends with the event before then.
    pub fn add(&mut self, body: &EventBody) -> Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, &Line { time: now_ms(), body })?;
        self.line.push(b'\n');
        self.out.add(&self.line).context("writing the journal")
    }
}

/// The event in a line, whose number is `seq`. An event of another version keeps its place: readers rely on there being no gap.
pub fn read_line(seq: u64, line: &[u8]) -> Event {
    match serde_json::from_slice::<ReadLine>(line) {
        Ok(ReadLine { time, body }) => Event { seq, time, body },
        Err(_) => {
            let text = "(an event of another version, which this one cannot read)".to_string();
            Event { seq, time: 0, body: EventBody::Note { text } }
        }
    }
}

/// All whole lines of a journal.
pub fn events(bytes: &[u8]) -> Vec<Event> {
    bytes.split_inclusive(|&b| b == b'\n').filter(|l| l.ends_with(b"\n")).zip(1..).map(|(l, seq)| read_line(seq, l)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::files::Memory;

    fn note(text: &str) -> EventBody {
        EventBody::Note { text: text.into() }
    }

    #[test]
    fn lines_are_numbered_and_a_torn_one_is_ignored_and_replaced() {
        let files = Memory::default();
        let mut journal = Journal::open(&files, FILE).unwrap();
        journal.add(&note("one")).unwrap();
        journal.add(&note("two\nlines")).unwrap();
        let mut bytes = files.read(FILE).unwrap().unwrap();
        bytes.extend_from_slice(br#"{"time":1,"bo"#);
        files.write(FILE, &bytes).unwrap();
        assert_eq!(events(&bytes).len(), 2);
        Journal::open(&files, FILE).unwrap().add(&note("three")).unwrap();
        let all = events(&files.read(FILE).unwrap().unwrap());
        assert_eq!(all.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!([&all[1].body, &all[2].body], [&note("two\nlines"), &note("three")]);
        assert!(matches!(&events(b"{}\n")[..], [Event { seq: 1, body: EventBody::Note { .. }, .. }]));
    }
}
