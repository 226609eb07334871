//! A real model: SmolLM2-135M-Instruct, as a GGUF file. `cargo lab test --model` fetches it and runs this.

use moslim_tests::{Process, lab, text};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAME: &str = "smollm2";
/// Longest time for a few steps of every stage.
const STEPS: Duration = Duration::from_secs(30 * 60);

/// The model's file.
fn model() -> PathBuf {
    std::env::var_os("MOSLIM_SMOLLM2").expect("MOSLIM_SMOLLM2 names the model's file: cargo lab test --model").into()
}

fn add(data: &Path) {
    lab(data, &["models", "add", text(&model()), "--name", NAME]).unwrap();
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[test]
#[ignore = "needs the model: cargo lab test --model"]
fn it_computes_what_transformers_computes() {
    let data = tempfile::tempdir().unwrap();
    add(data.path());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models/smollm2-135m.json");
    let expected: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let step = expected["step"].as_u64().unwrap() as usize;
    let mut worst = [0.0f64; 2];
    for case in ["texts", "chats"].iter().flat_map(|kind| expected[kind].as_array().unwrap()) {
        let (option, what) = match case["text"].as_str() {
            Some(text) => ("--text", text),
            None => ("--chat", case["question"].as_str().unwrap()),
        };
        let args = ["models", "logits", NAME, option, what, "--greedy", "64", "--device", "cpu"];
        let got = lab(data.path(), &args).unwrap();
        assert_eq!(got["tokens"], case["tokens"], "{what:?}");
        assert_eq!(got["greedy"], case["greedy"], "{what:?}");
        let nll = [&got["mean_negative_log_likelihood"], &case["nll"]].map(|v| v.as_f64().unwrap());
        let (ours, theirs) = (numbers(&got["logits"]), numbers(&case["logits"]));
        assert_eq!(ours.len().div_ceil(step), theirs.len());
        let apart = ours.iter().step_by(step).zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0f64, f64::max);
        worst[0] = worst[0].max((nll[0] - nll[1]).abs());
        worst[1] = worst[1].max(apart / case["largest"].as_f64().unwrap());
    }
    println!("mean negative log-likelihood: at most {:.1e} apart; logits: at most {:.1e} of the largest", worst[0], worst[1]);
    assert!(worst[0] < 1e-3 && worst[1] < 1e-4, "{worst:?}");
}

/// A few steps of every stage, with the models and batches of the preset, take the memory that was estimated from their sizes, within a fifth.
#[test]
#[ignore = "needs the model: cargo lab test --model"]
fn it_takes_the_memory_that_was_estimated() {
    let data = tempfile::tempdir().unwrap();
    add(data.path());
    let args = ["train", "--preset", "offtheshelf", "--model", NAME, "--estimate", "--device", "cpu", "--json", "--data"];
    let args = [&args[..], &[text(data.path())]].concat();
    let output = Process::lab_in(&args, &[("RAYON_NUM_THREADS", "2")]).wait_at_most(STEPS);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let measured: Value = serde_json::from_str(&output.stdout).unwrap();
    let (taken, memory) = (measured["peak_memory_mib"].as_f64().unwrap(), &measured["memory"]);
    let share = memory["mib"].as_f64().unwrap() / taken;
    println!("{taken} MiB taken, {share:.2} times as many estimated: {memory}");
    assert_eq!(memory["stage"], "policy");
    assert!((0.8..1.2).contains(&share), "{taken} MiB taken: {memory}");
}
