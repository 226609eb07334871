//! Runs on the tiny off-the-shelf model that ships with the tests.

use crate::{Output, Process, text};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The model's folder; it is added as `tiny`.
pub fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models/smollm2")
}

/// Trains a run on the model in the folder `data` beside the file with its configuration: a short one of the style task, with the settings
/// `base` and the targets' `wording`. `more`: options of the command.
///
/// # Panics
/// When the configuration cannot be written.
pub fn train_tiny(folder: &Path, base: &Value, wording: &str, more: &[&str]) -> Output {
    let settings = json!({
        "task": {"kind": "style", "rows": 500},
        "base": base,
        "model": {"context": 512},
        "reward_trunk": {"context": 512},
        "reward_model": {"steps": 6, "batch": 8},
        "targets": {"wording": wording, "held_out": []},
        "policy": {"iterations": 2, "prompts": 2, "samples_per_prompt": 4, "max_new_tokens": 16, "learning_rate": 0.01},
        "evaluation": {"questions": 2, "joint": 2, "held_out": 0, "front": 0, "paraphrased": 2},
    });
    let (config, data) = (folder.join("run.json"), folder.join("data"));
    fs::write(&config, settings.to_string()).expect("a file for the configuration");
    let args = ["train", "--config", text(&config), "--model", "tiny", "--device", "cpu", "--data", text(&data), "--json"];
    Process::lab(&[&args[..], more].concat()).wait()
}
