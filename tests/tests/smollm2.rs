//! A real model: SmolLM2-135M-Instruct, as a GGUF file. `cargo lab test --model` fetches it and runs this.

use moslim_tests::{Process, lab, text, write_config};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const NAME: &str = "smollm2";

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

/// An hour's run cut to minutes: every stage on the real model, and it is steered by then in what is easiest to see. What the hour gives is
/// in docs/models.md.
#[test]
#[ignore = "needs the model: cargo lab test --model"]
fn it_learns_to_answer_as_briefly_as_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    add(&data);
    let mut config = moslim_shared::presets::find("offtheshelf").expect("the preset").config;
    config.base.model = NAME.into();
    config.task.rows = 160;
    config.reward_model.steps = 16;
    config.method.preference_sft = 24;
    (config.policy.iterations, config.policy.prompts, config.policy.samples_per_prompt) = (1, 2, 4);
    config.evaluation.questions = 2;
    (config.evaluation.joint, config.evaluation.paraphrased) = (2, 2);
    let file = write_config(folder.path(), &config);
    let output =
        Process::lab(&["train", "--config", text(&file), "--run", "short", "--device", "cpu", "--data", text(&data), "--json"])
            .wait();
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let summary: Value = serde_json::from_str(&output.stdout).unwrap();
    let control = &summary["control"];
    let [after, before] = ["policy", "sft"].map(|who| control[who]["likelihood"].as_f64().unwrap());
    assert!((-6.0..0.0).contains(&after) && (-6.0..0.0).contains(&before), "log-likelihoods {after}, {before}");
    let words = |target: &str| {
        let ask = |question: &str| {
            let args = [
                "generate",
                "--run",
                "short",
                "--prompt",
                question,
                "--target",
                target,
                "--n",
                "4",
                "--temperature",
                "0.7",
                "--max-new-tokens",
                "80",
            ];
            let answers = lab(&data, &[&args[..], &["--device", "cpu"]].concat()).unwrap();
            let answers = answers["responses"].as_array().unwrap().clone();
            answers.iter().map(|a| a.as_str().unwrap().split_whitespace().count()).sum::<usize>()
        };
        ["How do I make tea?", "What is a library?"].map(ask).iter().sum::<usize>() as f64 / 8.0
    };
    let [short, long] = ["length=0", "length=4"].map(words);
    println!("words of an answer: {short} where few are asked for, {long} where many are");
    assert!(short < 0.8 * long, "{short} words where few are asked for, {long} where many are");
}
