//! The command line as a contract: exit codes, one JSON document on standard output, the same figures for the same seed.

use moslim_shared::config::RunConfig;
use moslim_shared::memory;
use moslim_shared::objective::Objective;
use moslim_shared::summary::RunSummary;
use moslim_tests::{Output, Process, binary, metrics, smoke, text, write_config};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Objectives of the world and how many classes each has.
const OBJECTIVES: [(&str, usize); 4] = [("helpfulness", 5), ("harmlessness", 4), ("honesty", 3), ("verbosity", 5)];

fn lab(args: &[&str]) -> Output {
    Process::lab(args).wait()
}

/// Trains and returns the summary and what was said.
fn train(data: &Path, more: &[&str]) -> (Value, String) {
    let mut args = vec!["train", "--json", "--device", "cpu", "--data", text(data)];
    args.extend(more);
    let output = lab(&args);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    (document(&output.stdout), output.stderr)
}

/// The only JSON document of an output; a second one, or anything else beside it, is an error.
fn document(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("this is not one JSON document ({error}): {stdout}"))
}

/// A number in a document.
fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {value}"))
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("{key} is no list in {value}"))
}

fn assert_close(a: f64, b: f64, what: &str) {
    assert!((a - b).abs() < 1e-9, "{what}: {a} is not {b}");
}

fn check_reward_model(report: &Value) {
    let heads = items(report, "heads");
    assert_eq!(heads.len(), OBJECTIVES.len());
    for (head, (objective, classes)) in heads.iter().zip(OBJECTIVES) {
        assert_eq!(head["objective"], objective);
        assert_eq!(head["classes"], classes);
        let confusion: Vec<Vec<u64>> = serde_json::from_value(head["confusion"].clone()).expect("counts");
        assert!(confusion.len() == classes && confusion.iter().all(|row| row.len() == classes), "{confusion:?}");
        let n = number(head, "n");
        assert_close(confusion.iter().flatten().sum::<u64>() as f64, n, "answers in the confusion matrix");
        let hits: u64 = (0..classes).map(|c| confusion[c][c]).sum();
        assert_close(number(head, "accuracy"), hits as f64 / n, "accuracy");
        let largest = confusion.iter().map(|row| row.iter().sum::<u64>()).max().expect("classes");
        assert_close(number(head, "majority"), largest as f64 / n, "majority");
        for share in ["macro_f1", "ece"] {
            assert!((0.0..=1.0).contains(&number(head, share)), "{share} in {head}");
        }
        assert!((-1.0..=1.0).contains(&number(head, "qwk")), "{head}");
    }
}

fn check_control(report: &Value) {
    let heads = items(report, "heads");
    assert_eq!(heads.len(), OBJECTIVES.len());
    for (head, (objective, classes)) in heads.iter().zip(OBJECTIVES) {
        assert_eq!(head["objective"], objective);
        assert_close(number(head, "chance"), 1.0 / classes as f64, "chance");
        let matrix: Vec<Vec<f64>> = serde_json::from_value(head["matrix"].clone()).expect("a matrix");
        assert!(matrix.len() == classes && matrix.iter().all(|row| row.len() == classes), "{matrix:?}");
        for row in &matrix {
            assert_close(row.iter().sum(), 1.0, "a row of a control matrix");
        }
        // Every class is asked for equally often, so both rates can be read off the matrix.
        let mean = |near: usize| {
            let hits = |asked: usize| (0..classes).filter(|c| c.abs_diff(asked) <= near).map(|c| matrix[asked][c]).sum::<f64>();
            (0..classes).map(hits).sum::<f64>() / classes as f64
        };
        assert_close(number(head, "hit_rate"), mean(0), "hit rate");
        assert_close(number(head, "within_one"), mean(1), "within one");
        assert!((-1.0..=1.0).contains(&number(head, "spearman")), "{head}");
    }
    for share in ["joint_hit_rate", "held_out_hit_rate"] {
        assert!((0.0..=1.0).contains(&number(report, share)), "{share} in {report}");
    }
}

#[test]
fn a_run_prints_one_summary_with_every_figure_and_the_same_for_the_same_seed() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let arguments = ["--preset", "smoke", "--seed", "1"];
    let (summary, said) = train(folders[0].path(), &arguments);
    let typed: RunSummary = serde_json::from_value(summary.clone()).expect("the summary of a run");

    assert_eq!(summary["preset"], "smoke");
    assert_eq!(summary["seed"], 1);
    assert_eq!(summary["device"], "cpu");
    let stages = ["sft", "reward_model", "calibration", "policy", "evaluation"];
    let seconds = stages.map(|stage| number(&summary["seconds"], stage));
    assert!(seconds.iter().all(|s| *s > 0.0), "{seconds:?}");
    assert!(number(&summary["seconds"], "total") >= seconds.iter().sum::<f64>() - 1e-6);
    check_reward_model(&summary["reward_model"]);
    assert_eq!(summary["control"]["grader"], "gold");
    check_control(&summary["control"]["policy"]);
    check_control(&summary["control"]["sft"]);
    let config = smoke().policy;
    assert_eq!(typed.policy.samples as usize, config.iterations * config.prompts * config.samples_per_prompt);
    assert!(typed.policy.tokens >= typed.policy.samples);
    for key in ["kl", "reward_first", "reward_last"] {
        assert!(number(&summary["policy"], key).is_finite(), "{key}");
    }

    // Progress goes to standard error, and the same summary lies in the run's folder.
    assert!(said.contains("Policy optimisation: 1/"), "{said}");
    let stored = folders[0].path().join("runs").join(&typed.run).join("summary.json");
    assert_eq!(document(&std::fs::read_to_string(stored).unwrap()), summary);

    let (again, _) = train(folders[1].path(), &arguments);
    assert_ne!(again["run"], summary["run"]);
    assert_eq!(metrics(&again), metrics(&summary));
    let (other, _) = train(folders[1].path(), &["--preset", "smoke", "--seed", "2"]);
    assert_ne!(metrics(&other)["reward_hash"], metrics(&summary)["reward_hash"], "another seed is another run");
}

/// What a run takes is known before it starts. Of the preset's model nearly all is the program's own, which differs by tens of MiB from system to
/// system; of the other, of nine million weights, four fifths are weights, gradients, moments and what backward passes need.
#[test]
fn a_run_takes_about_the_memory_that_was_estimated() {
    let mut larger = smoke();
    (larger.model.layers, larger.model.d_model, larger.model.d_ff) = (4, 384, 1536);
    larger.reward_trunk = larger.model.clone();
    (larger.sft.steps, larger.reward_model.steps, larger.policy.iterations) = (2, 2, 2);
    let e = &mut larger.evaluation;
    (e.questions, e.joint, e.held_out, e.front, e.fronts_seen, e.paraphrased) = (2, 4, 2, 0, 0, 2);
    let objectives = OBJECTIVES.map(|(id, classes)| Objective::new(id, id, "", &vec!["class"; classes]));
    for config in [smoke(), larger] {
        let folder = tempfile::tempdir().unwrap();
        let file = write_config(folder.path(), &config);
        let args = ["train", "--json", "--device", "cpu", "--config", text(&file), "--data", text(folder.path())];
        let output = Process::lab_in(&args, &[("RAYON_NUM_THREADS", "2")]).wait();
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        let taken = number(&document(&output.stdout)["compute"], "peak_memory_mib");
        let estimate = memory::peak(&config, None, &objectives, 2).expect("the lab's own model has a shape");
        // Where the system does not tell, there is nothing to compare.
        let share = estimate.mib() as f64 / taken;
        assert!(taken == 0.0 || (1.0 / 1.5..1.5).contains(&share), "{} MiB for {taken}: {estimate:?}", estimate.mib());
    }
}

/// Files of cached stages.
fn cached_weights(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data.join("cache")).expect("a cache");
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn finished_stages_come_from_the_cache_and_damaged_ones_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let smoke_file = write_config(folder.path(), &smoke());
    let (first, said) = train(data, &["--config", text(&smoke_file)]);
    assert!(!said.contains("from the cache"), "{said}");

    let mut config = smoke();
    config.policy.iterations = 4;
    config.policy.learning_rate *= 2.0;
    let (other, said) = train(data, &["--config", text(&write_config(folder.path(), &config))]);
    for stage in ["Supervised fine-tuning", "Reward model"] {
        let line = said.lines().find(|line| line.starts_with(&format!("{stage}: done"))).unwrap_or_else(|| panic!("{said}"));
        assert!(line.ends_with("from the cache"), "{line}");
    }
    assert_eq!(other["reward_model"], first["reward_model"]);
    assert_eq!(other["reward_hash"], first["reward_hash"]);
    assert_eq!(other["control"]["sft"], first["control"]["sft"]);
    assert_ne!(other["policy"], first["policy"], "the policy had other settings");

    let files = cached_weights(data);
    assert_eq!(files.len(), 2, "{files:?}");
    for file in &files {
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        std::fs::write(file, bytes).unwrap();
    }
    let (again, said) = train(data, &["--config", text(&write_config(folder.path(), &smoke()))]);
    assert_eq!(said.matches("is damaged").count(), 2, "{said}");
    assert!(!said.contains("from the cache"), "{said}");
    assert_eq!(metrics(&again), metrics(&first));
    assert_eq!(cached_weights(data).len(), 2, "the damaged entries were replaced");
}

#[test]
fn a_held_out_reward_model_watches_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let (plain, _) = train(data, &["--config", text(&write_config(data, &smoke()))]);
    let mut config = smoke();
    config.evaluation.held_out_reward_model = true;
    let (watched, _) = train(data, &["--config", text(&write_config(data, &config))]);
    for same in ["control", "policy", "reward_hash", "reward_model", "front"] {
        assert_eq!(watched[same], plain[same], "{same}");
    }
    let points = items(&watched, "kl_frontier");
    assert!(points.len() > 2 && items(&plain, "kl_frontier").iter().all(|p| p["held_out_hit_rate"].is_null()));
    for point in points {
        assert!((0.0..=1.0).contains(&number(point, "held_out_hit_rate")), "{point}");
    }
    assert!(points.iter().any(|p| p["held_out_hit_rate"] != p["proxy_hit_rate"]), "it is another reward model");
}

#[test]
fn a_finished_run_is_evaluated_again_without_training() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let (first, said) = train(data, &["--preset", "smoke", "--run", "r1"]);
    assert!(said.contains("Policy optimisation: 1/"), "{said}");
    let (again, said) = train(data, &["--run", "r1"]);
    assert!(!said.contains("Policy optimisation: 1/"), "{said}");
    assert_eq!(metrics(&again), metrics(&first));

    let policy = data.join("runs/r1/policy.safetensors");
    let mut bytes = std::fs::read(&policy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&policy, bytes).unwrap();
    let (mended, said) = train(data, &["--run", "r1"]);
    assert!(said.contains("policy.safetensors is not what was written") && said.contains("Policy optimisation: 1/"), "{said}");
    assert_eq!(metrics(&mended), metrics(&first));
}

#[test]
fn a_finished_run_scores_and_answers() {
    let folder = tempfile::tempdir().unwrap();
    let data = text(folder.path());
    train(folder.path(), &["--preset", "smoke", "--run", "r1"]);

    let score = |more: &[&str], input: &str| {
        let mut args = vec!["score", "--run", "r1", "--device", "cpu", "--data", data];
        args.extend(more);
        Process::start(&binary(), &args, input).wait()
    };
    let good =
        "{\"prompt\": \"How do I sleep?\", \"response\": \"Go to bed early.\"}\n\n{\"prompt\": \"Why?\", \"response\": \"\"}\n";
    let output = score(&["--target", "helpfulness=4,verbosity=0"], good);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let lines: Vec<Value> = output.stdout.lines().map(document).collect();
    assert_eq!(lines.len(), 2, "{}", output.stdout);
    for line in &lines {
        let distributions = line["distributions"].as_object().expect("distributions by objective");
        assert_eq!(distributions.len(), OBJECTIVES.len());
        for (objective, classes) in OBJECTIVES {
            let shares: Vec<f64> = serde_json::from_value(distributions[objective].clone()).expect("probabilities");
            assert_eq!(shares.len(), classes);
            assert!(shares.iter().all(|p| (0.0..=1.0).contains(p)), "{shares:?}");
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{shares:?}");
        }
        let parts = &line["reward"]["contributions"];
        let sum: f64 = OBJECTIVES.iter().map(|(objective, _)| number(parts, objective)).sum();
        assert_close(number(&line["reward"], "scalar"), sum, "the reward and its parts");
        assert_eq!((number(parts, "harmlessness"), number(parts, "honesty")), (0.0, 0.0), "they are not asked for");
        assert!(number(parts, "helpfulness") != 0.0 && number(parts, "verbosity") != 0.0, "{parts}");
    }
    assert_ne!(lines[0], lines[1]);
    let plain = score(&[], good);
    let plain: Vec<Value> = plain.stdout.lines().map(document).collect();
    for (plain, line) in plain.iter().zip(&lines) {
        assert_eq!((&plain["distributions"], &plain["reward"]), (&line["distributions"], &Value::Null));
        assert_eq!(plain["gold"]["verbosity"], 0, "by the rules they are short");
    }
    let long = json!({ "prompt": "a", "response": "so long ".repeat(400) });
    let output = score(&[], &format!("{}\n{long}\n", good.lines().next().unwrap()));
    assert_eq!((output.code, output.stdout.lines().count()), (Some(2), 1), "{}", output.stderr);
    assert!(output.stderr.contains("line 2: ") && output.stderr.contains("tokens long"), "{}", output.stderr);

    let output = score(&[], "{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\": \"a\"}\n");
    assert_eq!((output.code, output.stdout.lines().count()), (Some(2), 1), "{}", output.stderr);
    assert!(output.stderr.contains("line 2: ") && output.stderr.contains("response"), "{}", output.stderr);

    let generate = |seed: &str| {
        let args = ["generate", "--run", "r1", "--device", "cpu", "--data", data, "--prompt", "How do I sleep?"];
        let more = ["--target", "verbosity=0", "--n", "3", "--max-new-tokens", "16", "--json", "--seed", seed];
        let output = lab(&[args.as_slice(), more.as_slice()].concat());
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        document(&output.stdout)
    };
    let answers = generate("7");
    assert_eq!((&answers["prompt"], &answers["target"]), (&json!("How do I sleep?"), &json!("verbosity=0")));
    assert_eq!(items(&answers, "responses").len(), 3);
    assert_eq!(items(&answers, "scores").len(), 3);
    assert_eq!(generate("7"), answers);
    assert_ne!(generate("8")["responses"], answers["responses"]);

    for (args, said) in [
        (["generate", "--run", "r1", "--prompt", "a", "--target", "kindness=1"], "target: unknown objective \"kindness\""),
        (["generate", "--run", "r1", "--prompt", "a", "--target", "honesty=3"], "allowed are 0 ("),
        (["generate", "--run", "r2", "--prompt", "a", "--target", ""], "run: there is no folder"),
        (["generate", "--run", "r1", "--prompt", "a", "--top-p", "0"], "top-p: is 0"),
    ] {
        let output = lab(&[args.as_slice(), &["--data", data]].concat());
        assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""), "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(said), "{args:?}: {}", output.stderr);
    }
}

#[test]
fn curves_are_written_for_tensorboard() {
    let folder = tempfile::tempdir().unwrap();
    let (data, to) = (text(folder.path()), folder.path().join("board"));
    train(folder.path(), &["--preset", "smoke", "--run", "r1"]);
    let write = |run: &str| lab(&["runs", "tensorboard", run, "--to", text(&to), "--data", data]);
    let first = write("r1");
    assert_eq!((first.code, write("r1").code), (Some(0), Some(0)), "{}", first.stderr);
    let files: Vec<PathBuf> = std::fs::read_dir(to.join("r1")).unwrap().map(|e| e.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}: a second export replaces the first") };

    // Records follow each other, each with its length in front and a checksum around length and data.
    let bytes = std::fs::read(file).unwrap();
    let (mut at, mut records) = (0, Vec::new());
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        records.push(&bytes[at + 12..at + 12 + length]);
        at += length + 16;
    }
    assert!(records[0].ends_with(b"brain.Event:2"));
    let journal = std::fs::read_to_string(folder.path().join("runs/r1/events.jsonl")).unwrap();
    let steps: Vec<Value> = journal
        .lines()
        .map(document)
        .filter_map(|line| line["body"]["policy"]["step"].as_object().cloned().map(Value::Object))
        .collect();
    let named = |tag: &str| records.iter().filter(|r| r.windows(tag.len()).any(|w| w == tag.as_bytes())).collect::<Vec<_>>();
    let rewards = named("policy/reward");
    assert_eq!(rewards.len(), steps.len());
    for (record, step) in rewards.iter().zip(&steps) {
        let value = f32::from_le_bytes(record[record.len() - 4..].try_into().unwrap());
        assert_eq!(value, number(step, "reward") as f32);
    }
    assert_eq!(named("policy/class mass/verbosity/0").len(), steps.len());
    assert!(!named("sft/loss").is_empty() && !named("reward-model/quadratic kappa/honesty").is_empty());

    let output = write("r2");
    assert_eq!(output.code, Some(2));
    assert!(output.stderr.contains("run: there is no run r2"), "{}", output.stderr);

    // The same as a page that needs nothing else.
    let page = folder.path().join("r1.html");
    let output = lab(&["runs", "page", "r1", "--to", text(&page), "--data", data]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let html = std::fs::read_to_string(&page).unwrap();
    let summary = std::fs::read_to_string(folder.path().join("runs/r1/summary.json")).unwrap();
    let summary: RunSummary = serde_json::from_str(&summary).unwrap();
    for head in &summary.control.policy.heads {
        let first = format!("{:.0} %", 100.0 * head.matrix[0][0]);
        let table = html.split("<caption>").find(|part| part.starts_with(&head.objective)).expect("a matrix of each objective");
        assert!(table.contains(&first), "{}: {first}", head.objective);
    }
    let kappa = format!("<td>{:.2}<td>", summary.reward_model.heads[0].qwk);
    assert!(html.contains(&kappa) && html.matches("<svg").count() >= 6 && html.contains("<blockquote>"), "{kappa}");
    assert!(!html.contains("<script") && !html.contains("href="), "it runs nothing and fetches nothing");
}

#[test]
fn bad_input_ends_with_code_2_and_names_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let bad_value = file("value.json", &json!({ "policy": { "samples_per_prompt": 1 } }).to_string());
    let bad_type = file("type.json", &json!({ "policy": { "prompts": "many" } }).to_string());
    let unknown = file("unknown.json", &json!({ "sft": { "shteps": 3 } }).to_string());
    let half = file("half.json", &json!({ "model": { "precision": "bf16" }, "reward_from_sft": false }).to_string());
    let no_json = file("no.json", "{");
    let no_folder = file("plain-file", "");
    let fresh = folder.path().join("fresh");
    let fresh = text(&fresh);
    let mut table: Vec<(Vec<&str>, Vec<&str>)> = vec![
        (
            vec!["train", "--preset", "huge", "--data", fresh],
            vec!["preset: ", "\"huge\"", "smoke, quick, tab, noisy, sparse, biased, world, standard, offtheshelf"],
        ),
        (vec!["train", "--config", &bad_value, "--data", fresh], vec!["policy.samples_per_prompt: is 1", "at least 2"]),
        (vec!["train", "--config", &bad_type, "--data", fresh], vec!["policy.prompts: invalid type"]),
        (vec!["train", "--config", &unknown, "--data", fresh], vec!["unknown field `shteps`", "steps"]),
        (vec!["train", "--config", &no_json, "--data", fresh], vec!["config: ", "no.json", "not valid JSON"]),
        (vec!["train", "--config", "/nowhere.json", "--data", fresh], vec!["config: /nowhere.json cannot be read"]),
        (vec!["train", "--preset", "smoke", "--data", &no_folder], vec!["data: ", "plain-file", "--data"]),
        (vec!["train", "--preset", "smoke", "--run", "../x", "--data", fresh], vec!["--run", "lower-case letters"]),
        (
            vec!["train", "--config", &half, "--device", "cpu", "--data", fresh],
            vec!["model.precision: is bf16, which cpu does not have; allowed is f32"],
        ),
        (vec!["bench", "--bf16", "--sizes", "0.16M"], vec!["precision: cpu does not compute in bf16"]),
        (vec!["data", "sample", "--n", "0"], vec!["n: is 0"]),
        (vec!["data", "sample", "--label-noise", "0.9"], vec!["task.label_noise: is 0.9"]),
        (vec!["serve", "--port", "0", "--host", "0.0.0.0", "--no-token", "--data", fresh], vec!["no-token: ", "other machines"]),
        (vec!["serve", "--port", "0", "--tokens", &no_json, "--data", fresh], vec!["tokens: ", "no.json"]),
        (
            vec!["serve", "--port", "0", "--certificate", &no_json, "--key", &no_json, "--data", fresh],
            vec!["certificate: ", "no.json", "PEM"],
        ),
    ];
    let devices = document(&lab(&["devices", "--json"]).stdout);
    let list = devices.as_array().expect("a list of devices");
    let available = |name: &str| list.iter().any(|d| d["device"] == name && d["available"] == true);
    assert!(available("cpu"), "{devices}");
    assert_eq!(list.iter().filter(|d| d["chosen"] == true).count(), 1, "{devices}");
    if available("cuda") {
        eprintln!("CUDA is available here: that its absence is told was not tested");
    } else {
        let args = vec!["train", "--preset", "smoke", "--device", "cuda", "--data", fresh];
        table.push((args, vec!["device: ", "cuda is not available"]));
    }
    for (args, words) in table {
        let output = lab(&args);
        assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""), "{args:?}: {}", output.stderr);
        for word in words {
            assert!(output.stderr.contains(word), "{args:?}: {word} is not in {}", output.stderr);
        }
        assert!(!output.stderr.contains("panicked"), "{args:?}: {}", output.stderr);
    }
}

#[test]
fn one_of_several_processes_says_that_this_build_trains_alone() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["train", "--preset", "smoke", "--data", text(folder.path())];
    let output = Process::lab_in(&args, &[("OMPI_COMM_WORLD_SIZE", "2")]).wait();
    assert_eq!(output.code, Some(2), "{}", output.stderr);
    assert!(output.stderr.contains("one of 2 processes") && output.stderr.contains("moslim-server/mpi"), "{}", output.stderr);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was begun");
}

#[test]
fn rows_of_the_world_can_be_looked_at() {
    let sample = |seed: &str| {
        let output = lab(&["data", "sample", "--world", "--n", "5", "--seed", seed, "--json"]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        document(&output.stdout)
    };
    let rows = sample("1");
    assert_eq!(rows.as_array().map(Vec::len), Some(5), "{rows}");
    for row in rows.as_array().unwrap() {
        assert!(row["question"].as_str().is_some_and(|text| !text.is_empty()), "{row}");
        assert!(row["answer"].is_string(), "{row}");
        let labels: Vec<(String, usize, String)> = serde_json::from_value(row["labels"].clone()).expect("labels");
        assert_eq!(labels.len(), OBJECTIVES.len());
        for ((objective, class, _), (expected, classes)) in labels.iter().zip(OBJECTIVES) {
            assert!(objective == expected && *class < classes, "{row}");
        }
    }
    assert_eq!(sample("1"), rows);
    assert_ne!(sample("2"), rows);
}

/// A valid configuration may not end in a panic: rows that are longer than the model's context have to be told or handled.
#[test]
fn a_short_context_is_no_crash() {
    let folder = tempfile::tempdir().unwrap();
    let mut config: RunConfig = smoke();
    config.vocabulary = 320;
    config.policy.max_new_tokens = 8;
    config.model.context = 64;
    config.reward_trunk.context = 64;
    let file = write_config(folder.path(), &config);
    let output = lab(&["train", "--config", text(&file), "--json", "--data", text(folder.path())]);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    assert!(matches!(output.code, Some(0 | 2)), "{:?}: {}", output.code, output.stderr);
}
