//! How much memory a process that trains may take. One that wants more than there is ends by itself, and says so, before the system ends
//! another program for it.

use crate::failure::RUN_FAILED;
use anyhow::{Context, Result};
use moslim_engine::run::memory;
use std::time::Duration;

/// Environment variable that names the limit, MiB.
pub const VARIABLE: &str = "MOSLIM_LAB_RUN_MEMORY";
/// Time between two looks. Memory is taken when it is written to, which is slower than asking for it.
const EVERY: Duration = Duration::from_millis(50);
/// Of what the machine has, so much is left to others, in percent.
const LEFT: u64 = 5;

/// Memory that a process which trains may take, MiB, where the environment says so.
///
/// # Errors
/// When it names no number.
pub fn given_mib() -> Result<Option<u64>> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{VARIABLE}: \"{text}\" is no number of MiB"))
}

/// Ends this process as soon as it takes more than it may: as the environment says, else nearly all that the machine or its control group
/// has. Only Linux tells what a process takes.
///
/// # Errors
/// When the environment names no number, or no thread can be had.
pub fn limit_memory() -> Result<()> {
    let whole = || memory::total_mib().map(|mib| mib * (100 - LEFT) / 100);
    let Some(mib) = given_mib()?.or_else(whole) else { return Ok(()) };
    // Where memory runs out all the same, this is what should go.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    let watch = move || {
        while let Some(taken) = memory::taken_mib() {
            if taken > mib {
                crate::log::say(&format!("this process may take {mib} MiB of memory, and takes {taken} MiB; it ends"));
                std::process::exit(i32::from(RUN_FAILED));
            }
            std::thread::sleep(EVERY);
        }
    };
    std::thread::Builder::new().name("memory".into()).spawn(watch).context("starting a thread")?;
    Ok(())
}
