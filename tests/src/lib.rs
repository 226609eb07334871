//! What the whole-system tests share: the real program as a child process, a laboratory to talk to, a real browser.
//!
//! Nothing here waits for a fixed time: every wait is for something, and [`LIMIT`] only decides how long a failure takes.

pub mod bodies;
mod browser;
pub mod charts;
pub mod cluster;
mod hub;
pub mod inference;
mod journal;
mod lab;
pub mod pages;
mod place;
mod process;
mod site;
mod socket;
pub mod studies;
mod tiny;
mod usage;

pub use browser::{Browser, Tab};
pub use hub::{Hub, Repository};
pub use journal::{copy_run, hold};
pub use lab::{Answer, Lab, endings, invite, policy_steps};
pub use place::{FLAT, Place, lab, lines, record};
pub use process::{LIMIT, Output, Process, binary, kill_processes, processes, raw, signal, text, wait_until};
pub use site::Site;
pub use socket::{Socket, heard};
pub use thirtyfour::Key;
pub use tiny::{tiny, train_tiny};
pub use usage::{open_files, processor, resident};

use moslim_shared::config::{DeviceChoice, RunConfig};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The preset `smoke` on the CPU, where the same seed gives the same figures.
///
/// # Panics
/// When there is no such preset.
pub fn smoke() -> RunConfig {
    let preset = moslim_shared::presets::find("smoke").expect("the preset smoke");
    RunConfig { device: DeviceChoice::Cpu, ..preset.config }
}

/// How many times as long as usual the tests are that `cargo lab soak` repeats.
pub fn soak() -> u64 {
    std::env::var("MOSLIM_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(1).max(1)
}

/// Numbers that look random and are the same every time.
pub fn scattered(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x.wrapping_mul(0x94d0_49bb_1331_11eb) >> 20
}

/// A run that hurries to policy optimisation and stays there for seconds, with a checkpoint every few iterations, so that
/// it can be disturbed.
pub fn long_run(iterations: usize) -> RunConfig {
    let mut config = smoke();
    config.sft.steps = 20;
    config.reward_model.steps = 20;
    config.policy.iterations = iterations;
    config.policy.checkpoint_every = 5;
    config.evaluation.questions = 2;
    config.evaluation.joint = 4;
    config.evaluation.held_out = 2;
    config
}

/// Writes a configuration into a folder; returns the file.
///
/// # Panics
/// When it cannot be written.
pub fn write_config(folder: &Path, config: &RunConfig) -> PathBuf {
    let path = folder.join("config-of-the-test.json");
    std::fs::write(&path, serde_json::to_vec(config).expect("a configuration as JSON")).expect("a file for the configuration");
    path
}

/// A summary without what differs from run to run by nature: its name and how long it took.
///
/// # Panics
/// When it is not the summary of a run.
pub fn metrics(summary: &Value) -> Value {
    let mut metrics = summary.clone();
    let fields = metrics.as_object_mut().expect("a summary is an object");
    for field in ["run", "seconds"] {
        assert!(fields.remove(field).is_some(), "a summary has {field}");
    }
    let compute = fields["compute"].as_object_mut().expect("a summary says what the run cost");
    for field in ["policy_seconds", "peak_memory_mib"] {
        assert!(compute.remove(field).is_some(), "the cost has {field}");
    }
    assert!(!fields.is_empty(), "a summary has more than a name and a time");
    metrics
}
