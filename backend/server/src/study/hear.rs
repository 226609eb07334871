//! What the runs of a study say while they train.

use moslim_engine::keep::journal;
use moslim_shared::event::EventBody;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Instant;

/// A run of a study that was started, and how much of its journal is known.
pub struct Running {
    /// Position in the plan.
    pub at: usize,
    pub folder: PathBuf,
    /// Bytes of its journal that were read.
    pub read: u64,
    pub began: Instant,
}

impl Running {
    /// What its journal has grown by.
    pub fn hear(&mut self) -> Vec<EventBody> {
        let mut text = Vec::new();
        let read = File::open(self.folder.join(journal::FILE)).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.read_to_end(&mut text)
        });
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        if read.is_err() || whole == 0 {
            return Vec::new();
        }
        self.read += whole as u64;
        journal::events(&text[..whole]).into_iter().map(|e| e.body).collect()
    }
}

/// What a run does, in a few words.
pub fn now(body: &EventBody) -> Option<String> {
    Some(match body {
        EventBody::StageBegan { part: Some(part), .. } => format!("{} of {}: {}", part.index, part.count, part.name),
        EventBody::StageBegan { stage, .. } => stage.title().to_string(),
        EventBody::Loss { stage, step, total, .. } => format!("{} {step}/{total}", stage.title()),
        EventBody::Policy { total, step, .. } => format!("Policy optimisation {}/{total}", step.step),
        EventBody::Answering { done, total } => format!("Answers to learn from {done}/{total}"),
        EventBody::Evaluating { .. } => "Evaluation".to_string(),
        _ => return None,
    })
}
