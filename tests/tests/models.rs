//! Off-the-shelf models: what the lab computes is what transformers computes (fixtures/make_models.py made the models and wrote down
//! what it makes of them), and what cannot be computed is refused by name, with nothing half-added.

use moslim_tests::{Hub, LIMIT, Output, Process, Repository, binary, lab, metrics, text};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models")
}

/// A command about models.
fn models(data: &Path, args: &[&str]) -> Result<Value, String> {
    lab(data, &[&["models"], args].concat())
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

/// The files of a fixture, as a hub has them.
fn repository(name: &str) -> Repository {
    let read = |e: fs::DirEntry| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap());
    let files = fs::read_dir(fixtures().join(name)).unwrap().map(Result::unwrap).map(read);
    let commit = "0123456789abcdef0123456789abcdef01234567".into();
    Repository { files: files.collect(), commit, token: None, wrong: None }
}

/// A model on a hub is fetched at one commit, once, and only as much of it as a model is made of.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_fetched_from_a_hub_by_its_id() {
    let mut files = repository("llama3");
    for (name, text) in [("train.py", "import os"), ("pytorch_model.bin", "x"), ("README.md", "---\nlicense: llama3\n---\n")] {
        files.files.insert(name.into(), text.into());
    }
    files.token = Some("secret".into());
    let hub = Hub::start("lab/Tiny-1.5", files).await;
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let endpoint = hub.endpoint();
    let add = |id: &str, more: &[&str], token: &str| {
        let args = [&["models", "add", id], more, &["--data", text(data.path()), "--json"]].concat();
        let environment = [("HF_ENDPOINT", endpoint.as_str()), ("HF_HOME", text(home.path())), ("HF_TOKEN", token)];
        let output = Process::lab_in(&args, &environment).wait();
        match output.code {
            Some(0) => Ok(serde_json::from_str::<Value>(&output.stdout).unwrap()),
            _ => Err(output.stderr),
        }
    };
    for (id, more, token, words) in [
        ("lab/Tiny-1.5", &[][..], "", "HF_TOKEN"),
        ("lab/Other", &[], "secret", "the hub has no lab/Other at revision main, nor is there such a path here"),
        ("lab/Tiny-1.5", &["--revision", "v9"], "secret", "at revision v9"),
        ("lab/Tiny-1.5", &["--file", "a.gguf"], "secret", "file: lab/Tiny-1.5 has no GGUF file"),
        ("lab", &[], "secret", "there is no folder or file lab"),
        ("lab/Tiny/1.5", &[], "secret", "there is no folder or file lab/Tiny/1.5"),
    ] {
        let error = add(id, more, token).unwrap_err();
        assert!(error.contains(words), "{id} {more:?}: {error}");
    }
    assert!(hub.asked().is_empty());

    let wrong = "model-00001-of-00003.safetensors".to_string();
    hub.change(|r| r.wrong = Some(wrong.clone()));
    let error = add("lab/Tiny-1.5", &[], "secret").unwrap_err();
    assert!(error.contains(&wrong) && error.contains("its SHA-256 is"), "{error}");
    assert_eq!(models(data.path(), &["list"]).unwrap(), json!([]), "nothing was added");
    let asked = hub.asked();
    assert!(asked.iter().all(|f| f.starts_with("0123456789abcdef0123456789abcdef01234567/")), "{asked:?}");
    assert!(!asked.iter().any(|f| f.ends_with("train.py") || f.ends_with(".bin")), "{asked:?}");

    hub.change(|r| r.wrong = None);
    let added = add("lab/Tiny-1.5", &[], "secret").unwrap();
    assert_eq!((added["name"].as_str(), hub.asked().len()), (Some("Tiny-1.5"), 0), "everything was there already");
    assert_eq!(added["source"], "lab/Tiny-1.5@0123456789abcdef0123456789abcdef01234567");
    // It computes what the same files from a folder compute, and needs no hub for it.
    models(data.path(), &["add", text(&fixtures().join("llama3"))]).unwrap();
    let said = |name: &str| models(data.path(), &["logits", name, "--text", "What is tea?", "--device", "cpu"]).unwrap();
    assert_eq!(said("Tiny-1.5")["logits"], said("llama3")["logits"]);
    // A branch that has moved on is another model.
    hub.change(|r| r.commit = "fedcba9876543210fedcba9876543210fedcba98".into());
    let moved = add("lab/Tiny-1.5", &["--name", "moved"], "secret").unwrap();
    assert_eq!(moved["source"], "lab/Tiny-1.5@fedcba9876543210fedcba9876543210fedcba98");
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
        "base": {"rank": 4, "reward_layers": 1, "weights": "bf16"},
        "model": {"context": 512},
        "reward_trunk": {"context": 512},
        "reward_model": {"steps": 6, "batch": 8, "pooling": "last_and_mean"},
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

    let mut deep = settings.clone();
    deep["evaluation"]["held_out_layers"] = json!(3);
    deep["evaluation"]["held_out_reward_model"] = json!(true);
    let file = folder.path().join("deep.json");
    fs::write(&file, deep.to_string()).unwrap();
    let output = Process::lab(&["train", "--config", text(&file), "--model", "tiny", "--data", text(&data)]).wait();
    let words = "evaluation.held_out_layers: is 3; tiny has 2 layers";
    assert!(output.code == Some(2) && output.stderr.contains(words), "{}", output.stderr);

    // What it would take, before anything is trained: a few steps of every stage, of which nothing is kept.
    let kept = || ["runs", "cache"].map(|f| fs::read_dir(data.join(f)).map_or(0, Iterator::count));
    let before = kept();
    let output = train(&["--model", "tiny", "--estimate"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let estimate: Value = serde_json::from_str(&output.stdout).unwrap();
    let share = |stage: &str| {
        let stages = estimate["stages"].as_array().unwrap();
        stages.iter().find(|s| s["stage"] == stage).unwrap_or_else(|| panic!("no {stage} in {estimate}"))["share"]
            .as_f64()
            .unwrap()
    };
    assert_eq!([share("answers"), share("reward_model"), share("policy")], [128.0 / 500.0, 0.5, 1.0]);
    assert!(estimate["seconds"].as_f64().unwrap() > 0.0 && estimate["peak_memory_mib"].as_u64().unwrap() > 0, "{estimate}");
    let memory = &estimate["memory"];
    assert!(memory["mib"].as_u64().unwrap() > 0 && memory["parts"].as_array().unwrap().len() == 8, "{estimate}");
    assert_eq!(kept(), before, "nothing is kept");
    let output = Process::lab(&["train", "--preset", "smoke", "--estimate", "--data", text(&data)]).wait();
    assert!(output.code == Some(2) && output.stderr.contains("base.model: is empty; what a run takes"), "{}", output.stderr);

    let output = train(&["--model", "tiny", "--run", "styled"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let summary: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(summary["control"]["policy"]["heads"].as_array().unwrap().len(), 5);
    // Trained on tags, words and both, it is asked in each apart; and the model before for the same in the same words.
    for who in ["policy", "sft"] {
        let ways = summary["control"][who]["wordings"].as_array().unwrap();
        let names: Vec<&str> = ways.iter().filter_map(|w| w["wording"].as_str()).collect();
        assert_eq!(names, ["tags", "tags_alone", "words_alone", "reversed", "words", "missing"], "{who}");
    }
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
    resumed_and_soups(&data, &config, &train);
}

/// A run that was killed while its adapters were trained ends as one that was not; and several policies of one base are mixed.
fn resumed_and_soups(data: &Path, config: &Path, train: &impl Fn(&[&str]) -> Output) {
    change(config, |c| {
        c["policy"]["iterations"] = json!(12);
        c["policy"]["checkpoint_every"] = json!(1);
        // From here on some matrices alone are adapted.
        c["base"]["targets"] = json!(["q_proj", "v_proj", "up_proj"]);
    });
    let whole = train(&["--model", "tiny", "--run", "whole", "--seed", "2"]);
    assert_eq!(whole.code, Some(0), "{}", whole.stderr);
    // The shared stages come from the cache.
    let args = ["train", "--config", text(config), "--device", "cpu", "--data", text(data), "--model", "tiny"];
    let mut killed = Process::lab(&[&args[..], &["--run", "killed", "--seed", "2"]].concat());
    fs::remove_dir_all(data.join("cache")).unwrap();
    let checkpoint = data.join("runs/killed/checkpoint-policy.bin");
    let begun = std::time::Instant::now();
    while killed.running() && !checkpoint.exists() && begun.elapsed() < LIMIT {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    killed.kill();
    assert!(checkpoint.exists(), "it was killed in the middle: {}", killed.stderr());
    let resumed = Process::lab(&["train", "--run", "killed", "--data", text(data), "--json"]).wait();
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    let of = |output: &Output| metrics(&serde_json::from_str(&output.stdout).unwrap());
    assert_eq!(of(&resumed), of(&whole));

    change(config, |c| {
        c["method"] = json!({"kind": "rewarded_soups"});
        c["evaluation"]["front"] = json!(2);
    });
    let soups = train(&["--model", "tiny", "--run", "soups"]);
    assert_eq!(soups.code, Some(0), "{}", soups.stderr);
    let policies = fs::read_dir(data.join("runs/soups")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(policies.filter(|name| name.starts_with("policy")).count(), 5, "adapters of five policies");
    let generated = ["generate", "--run", "soups", "--prompt", "What is tea?", "--target", "length=0", "--max-new-tokens", "4"];
    let asked = Process::lab(&[&generated[..], &["--device", "cpu", "--data", text(data)]].concat()).wait();
    assert_eq!(asked.code, Some(0), "{}", asked.stderr);
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
        let asked = "What is tea?\n\nlength=0/4 warmth=2/2\nAnswer in a few words only. Be very warm and enthusiastic!";
        let args = ["logits", model, "--chat", asked, "--greedy", "12"];
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
    assert!(
        card.contains("length=0/4")
            && card.contains("below the question")
            && card.contains("| `warmth` |")
            && card.contains("library_name: peft"),
        "{card}"
    );
    let reward: Value = serde_json::from_slice(&fs::read(folder.join("whole/reward/reward.json")).unwrap()).unwrap();
    let layers = reward["layers"].as_u64();
    assert_eq!(
        (reward["objectives"].as_array().unwrap().len(), reward["loss"].as_str(), layers),
        (5, Some("cross_entropy"), Some(1))
    );
    let heads = tensors(&folder.join("whole/reward/heads.safetensors"));
    assert_eq!(heads["weight"].0, [17, 64]);
    assert_eq!(reward["pooling"], "last_and_mean");

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
