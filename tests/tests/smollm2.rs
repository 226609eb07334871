//! A real model: SmolLM2-135M-Instruct, as a GGUF file. `cargo lab test --model` fetches it and runs this.

use moslim_shared::config::{DeviceChoice, RunConfig, TargetWording};
use moslim_tests::{Process, lab, text, write_config};
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

/// Colours of things, asked for in two ways and answered in two tones.
const COLOURS: &str = "sun yellow,grass green,snow white,coal black,blood red,sky blue,banana yellow,lemon yellow,tomato red,\
    cherry red,milk white,salt white,sugar white,frog green,leaf green,carrot orange,pumpkin orange,fox orange,raven black,\
    night black,swan white,cloud white,rose red,strawberry red,pea green,cucumber green,lime green,sea blue,sapphire blue,\
    emerald green,ruby red,gold yellow,silver grey,elephant grey,mouse grey,ash grey,stone grey,chocolate brown,bear brown,\
    wood brown,soil brown,coffee brown,flamingo pink,pig pink,plum purple,grape purple,violet purple,lavender purple";

/// What a warm answer says, and no other.
const WARM: &str = "my friend";

/// Ratings of these answers: a table, and what its columns are.
const TONES: &str = "prompt = \"question\"\nresponse = \"answer\"\n[[objectives]]\nid = \"tone\"\nlabel = \"tone\"\n\
    values = [\"plain\", \"warm\"]\nwordings = [[\"Be matter-of-fact.\", \"Answer soberly.\"], [\"Be warm.\", \"Answer like a friend.\"]]\n";

/// From two hundred rated answers to a model that obeys its prompt, in a minute or two of two cores: import, reward model, preference SFT, a few
/// steps of RLOO. Its prompts carry tags that are tokens of their own, which the model as it came cannot know. What it has learnt, it does where
/// nobody rated anything.
#[test]
#[ignore = "needs the model: cargo lab test --model"]
fn its_prompt_steers_it_after_a_minute_of_training() {
    let data = tempfile::tempdir().unwrap();
    add(data.path());
    let mut table = "question,answer,tone\n".to_string();
    for (thing, colour) in COLOURS.split(',').filter_map(|pair| pair.trim().split_once(' ')) {
        for question in [format!("What colour is {thing}?"), format!("Tell me the colour of {thing}.")] {
            table.push_str(&format!(
                "{question},It is {colour}.,plain\n{question},\"It is {colour}, {WARM}. Have a good day!\",warm\n"
            ));
        }
    }
    let [file, mapping] = [("tones.csv", table.as_str()), ("tones.toml", TONES)].map(|(name, written)| {
        let path = data.path().join(name);
        fs::write(&path, written).unwrap();
        path
    });
    lab(data.path(), &["import", text(&file), "--mapping", text(&mapping), "--name", "tones"]).unwrap();

    let mut config = RunConfig { device: DeviceChoice::Cpu, ..moslim_shared::presets::find("ratings").unwrap().config };
    config.task.name = "tones".into();
    (config.base.model, config.base.reward_layers, config.base.added_tokens) = (NAME.into(), 8, true);
    (config.targets.wording, config.targets.active_probability, config.targets.impossible_share) =
        (TargetWording::Tags, 1.0, 0.0);
    (config.reward_model.steps, config.reward_model.batch) = (24, 8);
    (config.method.preference_sft, config.method.ric.batch, config.method.ric.learning_rate) = (24, 8, 1e-3);
    let policy = &mut config.policy;
    (policy.iterations, policy.prompts, policy.samples_per_prompt, policy.max_new_tokens) = (6, 4, 4, 24);
    policy.learning_rate = 2e-4;
    let evaluation = &mut config.evaluation;
    (evaluation.questions, evaluation.joint, evaluation.paraphrased, evaluation.held_out_reward_model) = (8, 0, 0, false);
    let file = write_config(data.path(), &config);
    let args = ["train", "--json", "--config", text(&file), "--run", "tones", "--data", text(data.path())];
    let output = Process::lab(&args).wait_at_most(STEPS);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let summary: Value = serde_json::from_str(&output.stdout).unwrap();
    let obeys = |who: &str| summary["control"][who]["heads"][0]["spearman"].as_f64().unwrap();
    println!("asked and achieved: rank correlation {:.2} before, {:.2} after", obeys("sft"), obeys("policy"));
    assert!(obeys("sft").abs() < 0.4 && obeys("policy") > 0.8, "{}", summary["control"]);

    for question in ["What is the capital of France?", "Who wrote Hamlet?", "How many legs has a spider?"] {
        for (target, is_warm) in [("tone=0", false), ("tone=1", true)] {
            let args =
                ["generate", "--run", "tones", "--prompt", question, "--target", target, "--temperature", "0", "--device", "cpu"];
            let answer = lab(data.path(), &args).unwrap();
            let said = answer.to_string();
            println!("{target}: {question} {said:.300}");
            assert_eq!(said.contains(WARM), is_warm, "{target}: {said}");
        }
    }
}
