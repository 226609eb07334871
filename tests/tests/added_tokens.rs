//! Tags that are tokens, added to an off-the-shelf model: from a run's configuration to its files for other software.

use moslim_tests::{Output, lab, text, tiny, train_tiny};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Entries of the tiny model's vocabulary, and classes of the style task.
const ENTRIES: usize = 290;
const TAGS: usize = 17;

fn train(folder: &Path, wording: &str, more: &[&str]) -> Output {
    train_tiny(folder, &json!({"rank": 4, "reward_layers": 1, "added_tokens": true}), wording, more)
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// Shape and bytes of the tags' embeddings among a policy's weights.
fn embeddings(file: &Path) -> (Vec<usize>, Vec<u8>) {
    let bytes = fs::read(file).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tags = all.tensor("tags").unwrap();
    (tags.shape().to_vec(), tags.data().to_vec())
}

fn logits(said: &Value) -> Vec<f64> {
    said["logits"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect()
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn tags_are_added_to_a_model_and_go_where_its_policy_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, data) = (folder.path(), folder.path().join("data"));
    lab(&data, &["models", "add", text(&tiny()), "--name", "tiny"]).unwrap();
    let words = train(folder, "words", &[]);
    let refusal = "base.added_tokens: is on, and targets.wording is words";
    assert!(words.code == Some(2) && words.stderr.contains(refusal), "{}", words.stderr);
    let trained = train(folder, "tags", &["--run", "tagged"]);
    assert_eq!(trained.code, Some(0), "{}", trained.stderr);

    // They are kept with what the run has trained, and have learnt.
    let run = data.join("runs/tagged");
    let [start, policy] = ["start", "policy"].map(|kind| embeddings(&run.join(format!("{kind}.safetensors"))));
    assert_eq!((&start.0, &policy.0), (&vec![TAGS, 32], &vec![TAGS, 32]));
    assert!(start.1 != policy.1, "no tag has learnt anything");

    // An adapter alone has no place for them; a whole model and a GGUF file have.
    let export = |to: &Path, form: &str| lab(&data, &["export", "tagged", "--to", text(to), "--as", form]);
    let refused = export(&folder.join("small"), "adapter").unwrap_err();
    assert!(refused.contains("as: is adapter; the policy has tags") && refused.contains("written as merged"), "{refused}");
    let (merged, file) = (folder.join("merged"), folder.join("file"));
    export(&merged, "merged").unwrap();
    export(&file, "gguf").unwrap();
    lab(&data, &["models", "add", text(&merged), "--name", "merged"]).unwrap();
    lab(&data, &["models", "add", text(&file.join("model.gguf")), "--name", "file"]).unwrap();
    let said = |model: &str| {
        let asked = "What is tea?\n\n<length=0><warmth=2>";
        lab(&data, &["models", "logits", model, "--chat", asked, "--greedy", "8", "--device", "cpu"]).unwrap()
    };
    let [base, own, whole, gguf] = ["tiny", "tagged", "merged", "file"].map(said);
    let read_as_tags = |said: &Value| {
        let tokens = said["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as usize);
        tokens.filter(|&t| t >= ENTRIES).collect::<Vec<_>>()
    };
    assert_eq!((read_as_tags(&own), read_as_tags(&base)), (vec![290, 304], vec![]));
    assert_eq!((&own["tokens"], &own["tokens"]), (&whole["tokens"], &gguf["tokens"]));
    let [own_logits, whole, gguf] = [&own, &whole, &gguf].map(logits);
    assert_eq!([own_logits.len(), whole.len(), gguf.len()], [ENTRIES, ENTRIES + TAGS, ENTRIES + TAGS], "it writes no tag");
    assert!(apart(&own_logits, &whole) < 1e-4 && apart(&whole, &gguf) < 1e-5);
    // What the policy says to who names classes is what it says after their tags.
    let args = ["generate", "--run", "tagged", "--prompt", "What is tea?", "--target", "length=0,warmth=2"];
    let greedy = ["--temperature", "0", "--max-new-tokens", "8", "--device", "cpu"];
    let generated = lab(&data, &[&args[..], &greedy].concat()).unwrap();
    assert_eq!(generated["responses"][0].as_str().unwrap(), own["continuation"].as_str().unwrap().trim_start());

    // Others are told what there is, and what is not to be written.
    assert_eq!(read(&merged.join("config.json"))["vocab_size"], ENTRIES + TAGS);
    let silent: Vec<usize> = (ENTRIES..ENTRIES + TAGS).collect();
    let generation = read(&merged.join("generation_config.json"));
    assert_eq!((&generation["suppress_tokens"], &generation["eos_token_id"]), (&json!(silent), &json!(1)));
    let tokens = read(&merged.join("tokenizer.json"));
    let last = tokens["added_tokens"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["id"], &last["content"], &last["special"]), (&json!(306), &json!("<asking_back=1>"), &json!(true)));
    let card = fs::read_to_string(merged.join("README.md")).unwrap();
    assert!(card.contains("For example: `<length=0><reading_ease=3>`") && card.contains("one special token"), "{card}");
}
