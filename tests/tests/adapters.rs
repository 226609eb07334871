//! Adapters of some of a model's matrices: from a run's configuration to its files for other software, and what is refused.

use moslim_tests::{Output, lab, text, tiny, train_tiny};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Adapted matrices, and others of the same sizes.
const SOME: [&str; 3] = ["q_proj", "v_proj", "up_proj"];
const OTHERS: [&str; 3] = ["q_proj", "k_proj", "up_proj"];

fn train(folder: &Path, targets: &Value, more: &[&str]) -> Output {
    train_tiny(folder, &json!({"rank": 4, "reward_layers": 1, "targets": targets}), "words", more)
}

fn refused(output: &Output, words: &str) {
    assert!(output.code == Some(2) && output.stderr.contains(words), "{words:?} is not in: {}", output.stderr);
}

#[test]
fn what_is_no_list_of_matrices_is_refused_by_its_field() {
    let folder = tempfile::tempdir().unwrap();
    let all = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj";
    for (targets, words) in [
        (
            json!(["q_proj", "lm_head"]),
            "base.targets[1]: unknown variant `lm_head`, expected one of `q_proj`, `k_proj`".to_string(),
        ),
        (json!([]), format!("base.targets: is empty; allowed is one or more of {all}")),
        (json!(["v_proj", "q_proj", "v_proj"]), "base.targets: names v_proj twice".into()),
        (json!(vec!["q_proj"; 8]), "base.targets: has 8 members; at most 7".into()),
    ] {
        refused(&train(folder.path(), &targets, &[]), &words);
    }
    assert!(!folder.path().join("data/runs").exists(), "nothing is kept");
}

#[test]
fn adapters_of_some_matrices_are_trained_and_written_down_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, data) = (folder.path(), folder.path().join("data"));
    lab(&data, &["models", "add", text(&tiny()), "--name", "tiny"]).unwrap();
    // In any order.
    let trained = train(folder, &json!(["up_proj", "q_proj", "v_proj"]), &["--run", "some"]);
    assert_eq!(trained.code, Some(0), "{}", trained.stderr);

    // As PEFT has them, those of the policy and of its reward model.
    let small = folder.join("small");
    lab(&data, &["export", "some", "--to", text(&small), "--as", "adapter"]).unwrap();
    for (part, layers) in [(small.clone(), 2), (small.join("reward"), 1)] {
        let told: Value = serde_json::from_slice(&fs::read(part.join("adapter_config.json")).unwrap()).unwrap();
        assert_eq!(told["target_modules"], json!(SOME));
        let bytes = fs::read(part.join("adapter_model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let names: Vec<String> = tensors.tensors().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), layers * 2 * SOME.len(), "{names:?}");
        assert!(names.iter().all(|name| SOME.iter().any(|matrix| name.contains(*matrix))), "{names:?}");
    }
    let card = fs::read_to_string(small.join("README.md")).unwrap();
    assert!(card.contains("adapters of rank 4 on q_proj, v_proj, up_proj)"), "{card}");

    // Added to the weights they compute the same, and not what the model computed without them.
    lab(&data, &["export", "some", "--to", text(&folder.join("merged"))]).unwrap();
    lab(&data, &["models", "add", text(&folder.join("merged")), "--name", "merged"]).unwrap();
    let said = |model: &str| {
        let asked = "What is tea?\n\nBe very warm and enthusiastic!";
        lab(&data, &["models", "logits", model, "--chat", asked, "--greedy", "8", "--device", "cpu"]).unwrap()
    };
    let [base, policy, merged] = ["tiny", "some", "merged"].map(said);
    let apart = |a: &Value, b: &Value| {
        let of = |v: &Value| v["logits"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect::<Vec<_>>();
        of(a).into_iter().zip(of(b)).map(|(a, b)| (a - b).abs()).fold(0.0f64, f64::max)
    };
    assert_eq!((&policy["tokens"], &policy["greedy"]), (&merged["tokens"], &merged["greedy"]));
    assert!(
        apart(&policy, &merged) < 1e-4 && apart(&policy, &base) > 1e-3,
        "{}, {}",
        apart(&policy, &merged),
        apart(&policy, &base)
    );

    // Keys are as large as values: files do not tell them apart, and configurations do.
    let others = train(folder, &json!(OTHERS), &["--run", "other", "--from", "some"]);
    refused(&others, "base.targets: is q_proj, k_proj, up_proj; the policy of run some, which this run starts from, was trained");
    let resumed = train(folder, &json!(OTHERS), &["--run", "some"]);
    refused(
        &resumed,
        "some exists with another configuration (base.targets is q_proj, v_proj, up_proj there, and not q_proj, k_proj",
    );
    let evaluated = train(folder, &json!(OTHERS), &["--run", "fork", "--fork", "some"]);
    refused(&evaluated, "base.targets: is q_proj, k_proj, up_proj; a fork of a run that has finished");
}
