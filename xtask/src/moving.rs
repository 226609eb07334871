//! `cargo lab moving`: the moving picture of the first page, made of a run's journal.

use crate::root;
use anyhow::{Context, Result, bail};
use moslim_shared::event::{Event, EventBody};
use moslim_shared::moving::Moving;
use serde::Deserialize;

/// Frames of the picture.
const FRAMES: usize = 8;
/// Where the page has it from.
const FILE: &str = "frontend/src/pages/home/moving.json";

/// Writes the picture of the finished run whose folder the arguments name.
pub fn moving(rest: &[String]) -> Result<()> {
    let [folder] = rest else { bail!("cargo lab moving FOLDER names the folder of a finished run") };
    #[derive(Deserialize)]
    struct Line {
        time: u64,
        body: EventBody,
    }
    let text =
        std::fs::read_to_string(format!("{folder}/events.jsonl")).with_context(|| format!("reading the journal in {folder}"))?;
    let read = |(line, seq)| {
        let Line { time, body } = serde_json::from_str(line)?;
        Ok(Event { seq, time, body })
    };
    let events = text.lines().zip(1..).map(read).collect::<Result<Vec<Event>>>()?;
    let moving = Moving::of(&events, FRAMES).with_context(|| format!("{folder}: no finished policy optimisation"))?;
    std::fs::write(root().join(FILE), serde_json::to_string(&moving)? + "\n")?;
    println!("wrote {FILE}: {} steps", moving.frames.len());
    Ok(())
}
