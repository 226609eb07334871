//! The events of a run, read from its journal when somebody asks for them.

use super::Follower;
use super::lines::next_line;
use super::run::{Followed, MARK_EVERY, said_by_summary, summary};
use crate::id::RunId;
use anyhow::{Context, Result};
use moslim_engine::keep::journal;
use moslim_shared::event::Event;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

impl Follower {
    /// Hands over every event of a run, in order; blocks on the disk.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn each_event(&self, id: &RunId, mut hear: impl FnMut(&Event)) -> Result<()> {
        let mut at = 0;
        loop {
            let events = self.events(id, at, 1000)?;
            let Some(last) = events.last() else { return Ok(()) };
            at = last.seq;
            events.iter().for_each(&mut hear);
        }
    }

    /// At most `limit` events after number `after`, in order; blocks on the disk.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn events(&self, id: &RunId, after: u64, limit: usize) -> Result<Vec<Event>> {
        self.mark(id)?;
        let (last, mark) = {
            let runs = self.lock();
            let Some(run) = runs.get(id) else { return Ok(Vec::new()) };
            if after >= run.info.last_seq {
                return Ok(Vec::new());
            }
            if run.bytes == 0 {
                // A run from before there were journals: what its summary tells.
                let Some(summary) = summary(&self.data.run(id)) else { return Ok(Vec::new()) };
                let events = said_by_summary(&run.info, &summary).into_iter().skip(after as usize).take(limit);
                return Ok(events.collect());
            }
            let at = ((after / MARK_EVERY) as usize).min(run.marks.len().saturating_sub(1));
            (run.info.last_seq, (at as u64 * MARK_EVERY, run.marks.get(at).copied().unwrap_or(0)))
        };
        let path = self.data.run(id).join(journal::FILE);
        let mut file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let (mut seq, offset) = mark;
        file.seek(SeekFrom::Start(offset))?;
        let mut reader = BufReader::new(file);
        let (mut line, mut events) = (Vec::new(), Vec::new());
        while events.len() < limit && seq < last {
            line.clear();
            if next_line(&mut reader, &mut line)?.is_none() {
                break;
            }
            seq += 1;
            if seq > after {
                events.push(journal::read_line(seq, &line));
            }
        }
        Ok(events)
    }

    /// Finds the positions of a run that was taken from the index: once, when its events are first asked for.
    fn mark(&self, id: &RunId) -> Result<()> {
        let unmarked = |run: &Followed| run.marks.is_empty() && run.bytes > 0;
        let Some(bytes) = self.lock().get(id).filter(|run| unmarked(run)).map(|run| run.bytes) else { return Ok(()) };
        let path = self.data.run(id).join(journal::FILE);
        let mut reader = BufReader::new(File::open(&path).with_context(|| format!("opening {}", path.display()))?).take(bytes);
        let (mut marks, mut at, mut lines, mut line) = (vec![0], 0, 0u64, Vec::new());
        while let Some(length) = next_line(&mut reader, &mut line)? {
            (at, lines) = (at + length, lines + 1);
            if lines.is_multiple_of(MARK_EVERY) {
                marks.push(at);
            }
            line.clear();
        }
        // What it grew by meanwhile is found from the last position on.
        if let Some(run) = self.lock().get_mut(id).filter(|run| unmarked(run) && run.bytes == bytes) {
            run.marks = marks;
        }
        Ok(())
    }
}
