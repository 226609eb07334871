//! A real model: SmolLM2-135M-Instruct, as a GGUF file. `cargo lab test --model` fetches it and runs this.

use moslim_shared::config::RunConfig;
use moslim_shared::presets;
use moslim_shared::summary::RunSummary;
use moslim_tests::{Process, lab, text, write_config};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAME: &str = "smollm2";
/// Longest time for a few steps of every stage, and for a short run.
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

/// How much higher than the starting model's the rank correlation of asked and achieved has to be. In every recorded run that of asking back
/// rose by more (docs/models.md: by 0.18, 0.25, 0.27 and 0.45 on the validation split, by 0.18, 0.22 and 0.27 on the test split, by 0.34
/// and 0.36 at temperature 0.8), and of 96 answers a correlation is known to about 0.1.
const RISE: f64 = 0.1;

/// The preset `offtheshelf` for one objective, short enough for a test: about six minutes on two cores.
///
/// Words alone have the model obey to a mean correlation of 0.5 over all five objectives, and ten times as many answers made 0.6 of it: that
/// a short run cannot show. Asking back is what words hardly get, and what optimisation added whenever it was tried, with about one prompt
/// in three that asked for it or against it. Here every prompt does: 48 in twelve iterations, where the recorded ones of 36 had about 72.
/// Steps are fewer, and larger therefore. All heads are trained, as in the preset, on as few answers as a task may have, and the one that is
/// optimised for counts most.
fn short() -> RunConfig {
    let mut c = presets::find("offtheshelf").expect("the preset offtheshelf").config;
    c.targets.objectives = vec!["asking_back".into()];
    c.task.rows = 500;
    (c.reward_model.steps, c.reward_model.head_weights) = (40, vec![0.2, 0.2, 0.2, 0.2, 1.0]);
    let p = &mut c.policy;
    (p.iterations, p.prompts, p.max_new_tokens, p.learning_rate) = (12, 4, 56, 2e-4);
    (c.evaluation.questions, c.evaluation.joint, c.evaluation.paraphrased) = (48, 0, 0);
    c
}

/// A short run makes the model obey better than words alone do, on held-out instructions and by the rules; its answers stay different; and
/// what is exported computes what the run's policy computes.
#[test]
#[ignore = "needs the model: cargo lab test --model"]
fn it_is_steered_and_what_is_exported_is_its_policy() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    add(&data);
    let config = write_config(folder.path(), &short());
    let args = ["train", "--config", text(&config), "--model", NAME, "--run", "steered", "--device", "cpu", "--json", "--data"];
    let output = Process::lab(&[&args[..], &[text(&data)]].concat()).wait_at_most(STEPS);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let summary: RunSummary = serde_json::from_str(&output.stdout).unwrap();
    let (start, policy) = (&summary.control.sft, &summary.control.policy);
    let figures = [start, policy].map(|c| (c.mean_spearman(), c.mean_hit_rate(), c.diversity.unique, c.fluency));
    let kappa = summary.reward_model.heads.iter().find(|h| h.objective == "asking_back").map(|h| h.qwk);
    println!(
        "rank correlation, hit rate, distinct, fluent: before {:?}, after {:?}; kappa of its head {kappa:?}; seconds {:?}",
        figures[0], figures[1], summary.seconds
    );
    assert_eq!(policy.heads.iter().map(|h| (h.objective.as_str(), h.n)).collect::<Vec<_>>(), [("asking_back", 96)]);
    assert!(policy.mean_spearman() > start.mean_spearman() + RISE, "{figures:?}, {kappa:?}");
    assert!(policy.diversity.unique >= 0.8, "{figures:?}");

    let merged = folder.path().join("merged");
    lab(&data, &["export", "steered", "--to", text(&merged)]).unwrap();
    lab(&data, &["models", "add", text(&merged), "--name", "merged"]).unwrap();
    for asked in ["How do I make tea?", "How do I make tea?\n\nEnd with a question to me."] {
        let said = |model: &str| lab(&data, &["models", "logits", model, "--chat", asked, "--device", "cpu"]).unwrap();
        let [base, policy, merged] = [NAME, "steered", "merged"].map(said);
        assert_eq!((&policy["tokens"], &policy["tokens"]), (&base["tokens"], &merged["tokens"]), "{asked:?}");
        let apart = |other: &Value| {
            let pairs = numbers(&policy["logits"]).into_iter().zip(numbers(&other["logits"]));
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0f64, f64::max)
        };
        println!(
            "logits after {asked:?}: {:.1e} from the export, {:.1e} from the model as it came",
            apart(&merged),
            apart(&base)
        );
        assert!(apart(&merged) < 1e-3 && apart(&base) > 1e-2, "{asked:?}");
    }
}
