//! The journal of a run: `events.jsonl`, one event a line, written by the process that trains and by nobody else. The number of
//! an event is the number of its line. A torn last line (the process was killed) does not count.

use super::files::{Append, Files};
use anyhow::{Context, Result};
use moslim_shared::event::{Event, EventBody};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// The journal's name in a run's folder.
pub const FILE: &str = "events.jsonl";

/// A line. The body is kept as the text that its checksum is of.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    time: u64,
    /// [`checksum`]; lines of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<String>,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// CRC-32 of an event's time and text, in hexadecimal digits: enough for bits that flip, and it costs nothing.
fn checksum(time: u64, body: &str) -> String {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&time.to_le_bytes());
    hash.update(body.as_bytes());
    format!("{:08x}", hash.finalize())
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
        let (time, body) = (now_ms(), to_raw_value(body)?);
        let sum = Some(checksum(time, body.get()));
        serde_json::to_writer(&mut self.line, &Line { time, sum, body: &body })?;
        self.line.push(b'\n');
        self.out.add(&self.line).context("writing the journal")
    }
}

/// The event in a line, whose number is `seq`. An event of another version keeps its place: readers rely on there being no gap.
pub fn read_line(seq: u64, line: &[u8]) -> Event {
    let note = |time, text: &str| Event { seq, time, body: EventBody::Note { text: text.into() } };
    match serde_json::from_slice::<Line>(line) {
        Ok(Line { time, sum: Some(sum), body }) if sum != checksum(time, body.get()) => {
            note(0, "(an event that is damaged: it does not match its checksum)")
        }
        Ok(Line { time, body, .. }) => match serde_json::from_str(body.get()) {
            Ok(body) => Event { seq, time, body },
            Err(_) => note(time, "(an event of another version, which this one cannot read)"),
        },
        Err(_) => note(0, "(an event that is damaged, or of another version)"),
    }
}

/// How the notes begin that stand in the place of lines which cannot be read.
const DAMAGED: &str = "(an event that is damaged";

/// Whether an event stands in the place of one that cannot be read.
pub fn is_damaged(body: &EventBody) -> bool {
    matches!(body, EventBody::Note { text } if text.starts_with(DAMAGED))
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
    fn no_flipped_bit_makes_another_event() {
        let files = Memory::default();
        let body = EventBody::Answering { done: 80, total: 398 };
        Journal::open(&files, FILE).unwrap().add(&body).unwrap();
        let line = files.read(FILE).unwrap().unwrap();
        let event = read_line(1, &line);
        assert_eq!(event.body, body);
        // A line without a checksum is one of an older version.
        assert_eq!(read_line(1, br#"{"time":5,"body":{"note":{"text":"old"}}}"#).body, note("old"));
        for at in 0..line.len() - 1 {
            for bit in 0..8 {
                let mut damaged = line.clone();
                damaged[at] ^= 1 << bit;
                let read = read_line(1, &damaged);
                assert!(is_damaged(&read.body) || read == event, "byte {at}, bit {bit}: {read:?}");
            }
        }
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
