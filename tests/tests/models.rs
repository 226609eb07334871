//! Off-the-shelf models: what the lab computes is what transformers computes (fixtures/make_models.py made the models and wrote down
//! what it makes of them), and what cannot be computed is refused by name, with nothing half-added.

use moslim_tests::{Process, binary, text};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models")
}

/// A command about models, and its one JSON document or what it complained about.
fn models(data: &Path, args: &[&str]) -> Result<Value, String> {
    let all: Vec<&str> = [&["models"][..], args, &["--data", text(data), "--json"]].concat();
    let output = Process::lab(&all).wait();
    match output.code {
        Some(0) => Ok(serde_json::from_str(&output.stdout).expect("one JSON document")),
        Some(2) => Err(output.stderr),
        other => panic!("{args:?} ended with {other:?}: {}", output.stderr),
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[test]
fn every_family_computes_what_transformers_computes() {
    let data = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for entry in fs::read_dir(fixtures()).unwrap().map(Result::unwrap).filter(|e| e.path().is_dir()) {
        let (folder, name) = (entry.path(), entry.file_name().into_string().unwrap());
        let file = folder.join("model.gguf");
        models(data.path(), &["add", text(if file.exists() { &file } else { &folder }), "--name", &name]).unwrap();
        let expected: Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
        for case in ["texts", "chats"].iter().flat_map(|kind| expected[kind].as_array().unwrap()) {
            let (option, what) = match case["text"].as_str() {
                Some(text) => ("--text", text),
                None => ("--chat", case["question"].as_str().unwrap()),
            };
            let got = models(data.path(), &["logits", &name, option, what, "--greedy", "24", "--device", "cpu"]).unwrap();
            let place = format!("{name}: {what:?}");
            assert_eq!(got["tokens"], case["tokens"], "{place}");
            assert_eq!(got["greedy"], case["greedy"], "{place}");
            let nll = [&got["mean_negative_log_likelihood"], &case["nll"]].map(|v| v.as_f64().unwrap());
            assert!((nll[0] - nll[1]).abs() < 1e-5, "{place}: {nll:?}");
            let (ours, theirs) = (numbers(&got["logits"]), numbers(&case["logits"]));
            assert_eq!(ours.len(), theirs.len());
            let largest = theirs.iter().fold(0.0f64, |most, l| most.max(l.abs()));
            let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0f64, f64::max);
            assert!(apart < 1e-5 * largest, "{place}: {apart} apart, of {largest}");
        }
        names.push(name);
    }
    names.sort_unstable();
    let listed = models(data.path(), &["list"]).unwrap();
    let listed: Vec<&str> = listed.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(listed, names);
    assert_eq!(names.len(), 12, "{names:?}");
}

/// A copy of a fixture that a test may spoil.
fn copy(name: &str, into: &Path) -> PathBuf {
    let to = into.join(name);
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(fixtures().join(name)).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to
}

/// Changes a JSON file.
fn change(file: &Path, how: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    how(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

#[test]
fn what_is_no_model_is_refused_by_name_and_leaves_nothing() {
    type Spoil = fn(&Path);
    let cases: [(&str, &str, Spoil, &[&str]); 14] = [
        (
            "a shard is missing",
            "llama3",
            |f| {
                fs::remove_file(f.join("model-00002-of-00002.safetensors")).unwrap_or_else(|_| {
                    let shard = fs::read_dir(f).unwrap().map(|e| e.unwrap().path()).find(|p| text(p).contains("-of-")).unwrap();
                    fs::remove_file(shard).unwrap();
                })
            },
            &["model.safetensors.index.json", "which is not there"],
        ),
        (
            "a shard is elsewhere",
            "llama3",
            |f| {
                change(&f.join("model.safetensors.index.json"), |v| {
                    v["weight_map"]["model.norm.weight"] = json!("../x.safetensors")
                });
            },
            &["weight_map.model.norm.weight", "names no file of this folder"],
        ),
        (
            "an unknown family",
            "llama",
            |f| change(&f.join("config.json"), |v| v["model_type"] = json!("gpt_neox")),
            &["config.json", "gpt_neox", "known are llama, mistral, qwen2, qwen3"],
        ),
        (
            "a field that is not understood",
            "llama",
            |f| change(&f.join("config.json"), |v| v["logit_softcap"] = json!(30.0)),
            &["logit_softcap", "--ignore"],
        ),
        (
            "another width",
            "llama",
            |f| change(&f.join("config.json"), |v| v["intermediate_size"] = json!(96)),
            &["model.layers.0.mlp.gate_proj.weight", "[64, 32]", "[96, 32]"],
        ),
        (
            "a layer too many",
            "llama",
            |f| change(&f.join("config.json"), |v| v["num_hidden_layers"] = json!(3)),
            &["model.layers.2", "is missing"],
        ),
        (
            "a layer too few",
            "llama",
            |f| change(&f.join("config.json"), |v| v["num_hidden_layers"] = json!(1)),
            &["model.layers.1", "has no place"],
        ),
        (
            "a header of 4 GB",
            "llama",
            |f| {
                let file = f.join("model.safetensors");
                let mut bytes = fs::read(&file).unwrap();
                bytes[..8].copy_from_slice(&(1u64 << 32).to_le_bytes());
                fs::write(file, bytes).unwrap();
            },
            &["model.safetensors", "4294967296"],
        ),
        (
            "weights that were cut off",
            "llama",
            |f| {
                let file = f.join("model.safetensors");
                let bytes = fs::read(&file).unwrap();
                fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
            },
            &["model.safetensors", "another size"],
        ),
        (
            "tokens without embeddings",
            "llama",
            |f| {
                change(&f.join("tokenizer.json"), |v| v["model"]["vocab"]["strange"] = json!(5000));
            },
            &["tokenizer", "5000"],
        ),
        ("no tokenizer", "llama", |f| fs::remove_file(f.join("tokenizer.json")).unwrap(), &["tokenizer.json"]),
        (
            "a template that is none",
            "llama",
            |f| fs::write(f.join("chat_template.jinja"), "{% if %}").unwrap(),
            &["chat template", "line 1"],
        ),
        (
            "a GGUF file that was cut off",
            "gguf-llama",
            |f| {
                let bytes = fs::read(f.join("model.gguf")).unwrap();
                fs::write(f.join("model.gguf"), &bytes[..bytes.len() - 100]).unwrap();
            },
            &["model.gguf", "ends after the file"],
        ),
        (
            "a GGUF file with more tensors than bytes",
            "gguf-llama",
            |f| {
                let mut bytes = fs::read(f.join("model.gguf")).unwrap();
                bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
                fs::write(f.join("model.gguf"), bytes).unwrap();
            },
            &["model.gguf", "more than fit"],
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (n, (case, fixture, spoil, said)) in cases.into_iter().enumerate() {
        let model = copy(fixture, &folder.path().join(n.to_string()));
        spoil(&model);
        let path = if fixture.starts_with("gguf") { model.join("model.gguf") } else { model };
        let data = folder.path().join("data");
        let error = models(&data, &["add", text(&path), "--name", "spoilt"]).expect_err(case);
        assert!(said.iter().all(|s| error.contains(s)) && !error.contains("panicked"), "{case}: {error}");
        assert_eq!(models(&data, &["list"]).unwrap(), json!([]), "{case}");
    }
}

#[test]
fn a_model_is_known_by_its_name_and_by_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let model = copy("llama", folder.path());
    let added = models(&data, &["add", text(&model)]).unwrap();
    assert_eq!((added["name"].as_str(), added["architecture"]["layers"].as_u64()), (Some("llama"), Some(2)));
    // Once more is no error; another under the same name is.
    models(&data, &["add", text(&model)]).unwrap();
    let other = fixtures().join("qwen2");
    let error = models(&data, &["add", text(&other), "--name", "llama"]).unwrap_err();
    assert!(error.contains("llama is taken") && error.contains("--name"), "{error}");
    for name in ["../x", ".hidden", "a b"] {
        assert!(models(&data, &["add", text(&other), "--name", name]).unwrap_err().contains("name:"));
    }
    assert!(models(&data, &["show", "nobody"]).unwrap_err().contains("known are llama"));
    let error = models(&data, &["logits", "llama", "--text", &"a".repeat(4_000)]).unwrap_err();
    assert!(error.contains("reads at most 512"), "{error}");
    change(&model.join("config.json"), |v| v["rms_norm_eps"] = json!(0.25));
    let error = models(&data, &["show", "llama"]).unwrap_err();
    assert!(error.contains("config.json") && error.contains("add the model again"), "{error}");
}

#[test]
fn a_model_is_trained_under_adapters_and_is_asked_and_graded_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let (data, config) = (folder.path().join("data"), folder.path().join("run.json"));
    models(&data, &["add", text(&fixtures().join("smollm2")), "--name", "tiny"]).unwrap();
    let settings = json!({
        "task": {"kind": "style", "rows": 500},
        "base": {"rank": 4},
        "model": {"context": 512},
        "reward_trunk": {"context": 512},
        "reward_model": {"steps": 6, "batch": 8},
        "targets": {"wording": "mixed", "held_out": []},
        "policy": {"iterations": 2, "prompts": 2, "samples_per_prompt": 4, "max_new_tokens": 16, "learning_rate": 0.01},
        "evaluation": {"questions": 2, "joint": 2, "held_out": 0, "front": 0, "paraphrased": 2},
    });
    fs::write(&config, settings.to_string()).unwrap();
    let train = |more: &[&str]| {
        let all = [&["train", "--config", text(&config), "--device", "cpu", "--data", text(&data), "--json"], more].concat();
        Process::lab(&all).wait()
    };
    // Without a model there is nothing to learn from, and a model has to be known.
    let nobody = train(&[]);
    assert_eq!(nobody.code, Some(2), "{}", nobody.stderr);
    assert!(nobody.stderr.contains("base.model: is empty") && nobody.stderr.contains("models add"), "{}", nobody.stderr);
    let unknown = train(&["--model", "other"]);
    assert!(
        unknown.code == Some(2) && unknown.stderr.contains("base.model: there is no model other; known are tiny"),
        "{}",
        unknown.stderr
    );

    let output = train(&["--model", "tiny", "--run", "styled"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let summary: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(summary["control"]["policy"]["heads"].as_array().unwrap().len(), 5);
    // What is kept is adapters: a few kilobytes, of 28 thousand weights.
    let run = data.join("runs/styled");
    let kept = fs::metadata(run.join("policy.safetensors")).unwrap().len();
    let whole = fs::metadata(fixtures().join("smollm2/model.safetensors")).unwrap().len();
    assert!(kept < whole, "{kept} of {whole} bytes");
    let ask = |target: &str| {
        let args =
            ["generate", "--run", "styled", "--prompt", "What is tea?", "--target", target, "--max-new-tokens", "12", "--json"];
        Process::lab(&[&args[..], &["--device", "cpu", "--data", text(&data)]].concat()).wait()
    };
    let answer = ask("length=0,warmth=2");
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert_eq!(ask("helpfulness=4").code, Some(2));
    let line = "{\"prompt\": \"What is tea?\", \"response\": \"A drink!\"}\n";
    let mut score = Process::start(&binary(), &["score", "--run", "styled", "--data", text(&data), "--device", "cpu"], line);
    let graded = score.wait();
    assert_eq!(graded.code, Some(0), "{}", graded.stderr);
    let line: Value = serde_json::from_str(graded.stdout.trim()).unwrap();
    assert!(line.to_string().contains("reading_ease"), "{line}");
    exports(&data, folder.path());
}

/// The tensors of a safetensors file.
fn tensors(file: &Path) -> std::collections::BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = fs::read(file).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |t: &safetensors::tensor::TensorView| -> Vec<f32> {
        match t.dtype() {
            // The upper halves of f32.
            safetensors::Dtype::BF16 => t.data().chunks(2).map(|b| f32::from_le_bytes([0, 0, b[0], b[1]])).collect(),
            _ => t.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        }
    };
    all.tensors()
        .into_iter()
        .map(|(name, t)| {
            let values = numbers(&t);
            (name, (t.shape().to_vec(), values))
        })
        .collect()
}

/// The run `styled` as others load it: whole, as an adapter, and as GGUF.
fn exports(data: &Path, folder: &Path) {
    let export = |to: &str, more: &[&str]| {
        let to = folder.join(to);
        let args = [&["export", "styled", "--to", text(&to), "--data", text(data), "--json"], more].concat();
        (Process::lab(&args).wait(), to)
    };
    for (to, form) in [("whole", "merged"), ("small", "adapter"), ("file", "gguf")] {
        let (output, _) = export(to, &["--as", form]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
    }
    // A whole model and a GGUF file say the same, and not what the model said that they were trained from.
    models(data, &["add", text(&folder.join("whole")), "--name", "whole"]).unwrap();
    models(data, &["add", text(&folder.join("file/model.gguf")), "--name", "file"]).unwrap();
    let said = |model: &str| {
        let args = ["logits", model, "--chat", "What is tea?", "--system", "length=0/4 warmth=2/2", "--greedy", "12"];
        models(data, &[&args[..], &["--device", "cpu"]].concat()).unwrap()
    };
    let [base, whole, file] = ["tiny", "whole", "file"].map(said);
    let apart = |a: &Value, b: &Value| {
        numbers(&a["logits"]).iter().zip(numbers(&b["logits"])).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    assert_eq!((&whole["tokens"], &whole["tokens"]), (&base["tokens"], &file["tokens"]));
    assert!(apart(&whole, &file) < 1e-5 && apart(&whole, &base) > 1e-3, "{} {}", apart(&whole, &file), apart(&whole, &base));
    let args = ["generate", "--run", "styled", "--prompt", "What is tea?", "--target", "length=0,warmth=2", "--temperature", "0"];
    let own = Process::lab(&[&args[..], &["--max-new-tokens", "12", "--json", "--data", text(data)]].concat()).wait();
    let own: Value = serde_json::from_str(&own.stdout).unwrap();
    assert_eq!(own["responses"][0], whole["continuation"]);

    // Merged is base plus adapter, by PEFT's names and its alpha / r.
    let of = |path: &Path| tensors(path);
    let (merged, adapter) = (of(&folder.join("whole/model.safetensors")), of(&folder.join("small/adapter_model.safetensors")));
    let base = of(&fixtures().join("smollm2/model.safetensors"));
    let config: Value = serde_json::from_slice(&fs::read(folder.join("small/adapter_config.json")).unwrap()).unwrap();
    let scale = (config["lora_alpha"].as_f64().unwrap() / config["r"].as_f64().unwrap()) as f32;
    assert_eq!(adapter.len(), 2 * 2 * 7);
    for name in ["layers.0.self_attn.k_proj", "layers.1.self_attn.o_proj", "layers.1.mlp.up_proj", "layers.0.mlp.down_proj"] {
        let of = |which: &str| &adapter[&format!("base_model.model.model.{name}.lora_{which}.weight")];
        let ((a_shape, a), (b_shape, b)) = (of("A"), of("B"));
        let name = format!("model.{name}.weight");
        let ((shape, before), (_, after)) = (&base[&name], &merged[&name]);
        let (rows, columns, rank) = (shape[0], shape[1], a_shape[0]);
        assert_eq!((a_shape[1], b_shape.as_slice()), (columns, &[rows, rank][..]));
        let mut moved = 0.0f32;
        for row in 0..rows {
            for column in 0..columns {
                let sum: f32 = (0..rank).map(|k| b[row * rank + k] * a[k * columns + column]).sum();
                let at = row * columns + column;
                assert!((after[at] - before[at] - scale * sum).abs() < 1e-5, "{name}, {row}, {column}");
                moved = moved.max(sum.abs());
            }
        }
        assert!(moved > 1e-4, "{name} has learnt nothing");
    }
    // The card says how to ask, and the reward model goes with it.
    let card = fs::read_to_string(folder.join("small/README.md")).unwrap();
    assert!(card.contains("length=0/4") && card.contains("| `warmth` |") && card.contains("library_name: peft"), "{card}");
    let reward: Value = serde_json::from_slice(&fs::read(folder.join("whole/reward/reward.json")).unwrap()).unwrap();
    assert_eq!((reward["objectives"].as_array().unwrap().len(), reward["loss"].as_str()), (5, Some("cross_entropy")));
    let heads = tensors(&folder.join("whole/reward/heads.safetensors"));
    assert_eq!(heads["weight"].0, [17, 32]);

    // What cannot be written is refused, and leaves nothing.
    let before = fs::read_dir(folder).unwrap().count();
    for (to, more, words) in [
        ("whole", &["--as", "gguf"][..], "has something in it"),
        ("other", &["--policy", "1"], "policy: is 1; the run kept 1"),
        ("other", &["--weights", "q8_0"], "safetensors hold f32, f16 and bf16"),
        ("other", &["--as", "onnx"], "allowed are merged, adapter, gguf"),
        ("other", &["--weights", "q4_k"], "allowed are f32, f16, bf16, q8_0"),
    ] {
        let (output, _) = export(to, more);
        assert_eq!((output.code, output.stderr.contains(words)), (Some(2), true), "{}", output.stderr);
    }
    let nobody = Process::lab(&["export", "20260101-000000-0000", "--to", text(&folder.join("x")), "--data", text(data)]).wait();
    assert_eq!((nobody.code, nobody.stderr.contains("run: there is no folder")), (Some(2), true), "{}", nobody.stderr);
    assert_eq!(fs::read_dir(folder).unwrap().count(), before);
}
