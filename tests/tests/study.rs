//! Studies: every method and every optimiser from the command line, a study that is killed and goes on, refusals, and the API.

use moslim_shared::config::{PolicyOptimizer, RunConfig};
use moslim_shared::method::Method;
use moslim_shared::presets;
use moslim_shared::study::{
    Axis, METRICS, StudyConfig, StudyResults, StudyRow, StudyRunStatus, StudyState, Variant, programme_study,
};
use moslim_shared::summary::RunSummary;
use moslim_tests::{Lab, Output, Process, smoke, text, wait_until};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A run of a second.
fn tiny() -> RunConfig {
    let mut config = smoke();
    config.sft.steps = 10;
    config.reward_model.steps = 12;
    config.policy.iterations = 8;
    config.method.weights = vec![vec![1.0, 0.0, 0.0, 0.0], vec![0.25, 0.25, 0.25, 0.25]];
    config.method.ric.online_samples = 64;
    config.method.best_of = 2;
    config
}

fn axis(name: &str, variants: Vec<(&str, &str, Value)>) -> Axis {
    let variants =
        variants.into_iter().map(|(label, field, value)| Variant { label: label.into(), set: [(field.into(), value)].into() });
    Axis { name: name.into(), variants: variants.collect() }
}

fn write(folder: &Path, study: &StudyConfig) -> PathBuf {
    let file = folder.join("study.json");
    std::fs::write(&file, serde_json::to_vec(study).unwrap()).unwrap();
    file
}

fn study(data: &Path, more: &[&str]) -> Output {
    let mut args = vec!["study", "--json", "--data", text(data)];
    args.extend(more);
    Process::lab(&args).wait()
}

fn results(output: &Output) -> StudyResults {
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", output.stdout))
}

/// The only study in a data folder.
fn folder(data: &Path) -> PathBuf {
    let all: Vec<PathBuf> = std::fs::read_dir(data.join("studies")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

fn state(folder: &Path) -> Option<StudyState> {
    serde_json::from_slice(&std::fs::read(folder.join("state.json")).ok()?).ok()
}

fn summary(data: &Path, run: &str) -> RunSummary {
    serde_json::from_slice(&std::fs::read(data.join("runs").join(run).join("summary.json")).unwrap()).unwrap()
}

#[test]
fn every_method_and_every_optimiser_trains_and_is_compared() {
    let data = tempfile::tempdir().unwrap();
    let methods: Vec<_> = Method::ALL.iter().map(|m| (m.title(), "method.kind", json!(m))).collect();
    let optimisers = PolicyOptimizer::ALL.iter().skip(1).map(|o| (o.title(), "policy.optimizer", json!(o)));
    let mut what = axis("what", methods.into_iter().chain(optimisers).collect());
    let by_rules = [("method.kind", json!(Method::BestOfN)), ("method.chosen_by", json!("rules"))];
    what.variants.push(Variant { label: "By the rules".into(), set: by_rules.map(|(f, v)| (f.into(), v)).into() });
    let config = StudyConfig {
        name: "everything".into(),
        question: "Does it all run?".into(),
        base: tiny(),
        axes: vec![what],
        seeds: vec![1],
    };
    let found = results(&study(data.path(), &["--config", text(&write(data.path(), &config))]));
    assert_eq!(found.groups.len(), Method::ALL.len() + PolicyOptimizer::ALL.len());
    assert_eq!((found.axes.as_slice(), found.objectives.len()), (&["what".to_string()][..], 4));
    for row in &found.runs {
        let s = summary(data.path(), &row.run);
        // Numbers went through JSON twice.
        let close = |(a, b): (&f64, f64)| (*a - b).abs() <= 1e-12 * b.abs();
        assert!(row.metrics.iter().zip(METRICS.iter().map(|m| (m.of)(&s))).all(close), "{row:?}");
        assert_eq!((s.front.served.len(), s.front.reference.as_slice()), (2, &[0.0; 4][..]));
        assert!((1..=2).contains(&s.front.points.len()) && s.front.served.iter().all(|t| t.point < s.front.points.len()));
        let [low, high] = s.front.interval;
        assert!(low <= high && s.front.hypervolume >= 0.0);
        // Shared by all: the same reward model grades every method.
        assert_eq!(s.reward_hash, found.runs[0].reward_hash);
        let trained = match s.method {
            Method::Moslim | Method::Ric | Method::RicClass => 1,
            Method::Morlhf | Method::ParetoHqd => 2,
            Method::RewardedSoups => 4,
            Method::TaggedSft | Method::BestOfN => 0,
        };
        assert_eq!(s.compute.models_trained, trained + 1, "{:?}", s.method);
        assert_eq!(s.compute.policy.training_tokens > 0, trained > 0, "{:?}", s.method);
        // What was trained can be asked.
        if s.method != Method::BestOfN {
            let folder = data.path().join("runs").join(&row.run);
            let args =
                ["generate", "--folder", text(&folder), "--prompt", "How do I make tea?", "--target", "honesty=2", "--json"];
            let answer = Process::lab(&args).wait();
            assert_eq!(answer.code, Some(0), "{:?}: {}", s.method, answer.stderr);
        }
    }
    // Of the same answers, those that the rules choose meet more of what the rules then look for.
    let hits = |label: &str| {
        let row = found.runs.iter().find(|r| r.labels == [label]).unwrap();
        summary(data.path(), &row.run).control.policy.mean_hit_rate()
    };
    assert!(hits("By the rules") > hits(Method::BestOfN.title()), "{} {}", hits("By the rules"), hits("Best of n"));
    let folder = folder(data.path());
    let csv = std::fs::read_to_string(folder.join("results.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + found.runs.len());
    for picture in ["front.svg", "figures.svg"] {
        let svg = std::fs::read_to_string(folder.join(picture)).unwrap();
        assert!(svg.contains("MORLHF") && svg.trim_end().ends_with("</svg>"), "{picture}");
    }
    assert!(state(&folder).unwrap().runs.iter().all(|r| r.status == StudyRunStatus::Finished));
}

/// The same budget for every method, whatever it spends it on: within the last step or iteration.
#[test]
fn a_budget_is_spent_by_every_method() {
    let data = tempfile::tempdir().unwrap();
    let mut base = tiny();
    (base.policy.passes, base.method.ric.batch, base.method.ric.online_samples) = (Some(0.3), 16, 256);
    let kinds = [Method::Moslim, Method::Morlhf, Method::RewardedSoups, Method::Ric, Method::RicClass, Method::ParetoHqd];
    let mut variants: Vec<_> = kinds.iter().map(|m| (m.title(), "method.kind", json!(m))).collect();
    variants.push(("MOSLIM after preference SFT", "method.preference_sft", json!(20)));
    let axes = vec![axis("method", variants)];
    let config = StudyConfig { name: "budget".into(), question: String::new(), base, axes, seeds: vec![1] };
    let found = results(&study(data.path(), &["--config", text(&write(data.path(), &config))]));
    let passes = METRICS.iter().position(|m| m.id == "mega_passes").unwrap();
    for group in &found.groups {
        let spent = group.metrics[passes].mean;
        assert!((spent - 0.3).abs() < 0.01, "{:?} spent {spent} of 0.3 million", group.labels);
    }
}

/// What is written of a study is not trained again: neither all of it nor a part.
#[test]
fn a_comparison_goes_on_from_what_is_written() {
    let data = tempfile::tempdir().unwrap();
    let to = data.path().join("to");
    std::fs::create_dir_all(&to).unwrap();
    let (base, done) = (presets::find("smoke").unwrap().config, Default::default());
    let tuning = programme_study("methods-tuning", &base, &[1], 4, &done).unwrap();
    let name = |file: &str| to.join(format!("methods-tuning{file}"));
    std::fs::write(name(".json"), serde_json::to_vec(&tuning).unwrap()).unwrap();
    let labels: Vec<String> = tuning.axes[0].variants.iter().map(|v| v.label.clone()).collect();
    let row = |label: &String| StudyRow {
        run: format!("elsewhere {label}"),
        labels: vec![label.clone()],
        seed: 4,
        metrics: vec![0.25; METRICS.len()],
        ..Default::default()
    };
    let of = |rows: &[String]| StudyResults::of(&tuning, rows.iter().map(row).collect(), Default::default());
    let compare = |seeds: &str| {
        let args = ["compare", "--base", "smoke", "--only", "methods-tuning", "--seeds", seeds, "--data", text(data.path())];
        Process::lab(&[&args[..], &["--to", text(&to), "--jobs", "2"]].concat()).wait()
    };
    let write = |rows: &[String]| std::fs::write(name(".results.json"), serde_json::to_vec(&of(rows)).unwrap()).unwrap();
    write(&labels);
    let all = compare("1");
    assert_eq!((all.code, all.stderr.contains("methods-tuning is written already")), (Some(0), true), "{}", all.stderr);
    assert!(!data.path().join("studies").exists());
    // But for one run, which is trained.
    write(&labels[1..]);
    let rest = compare("1");
    assert_eq!((rest.code, rest.stderr.contains("55 of its runs are written already")), (Some(0), true), "{}", rest.stderr);
    assert_eq!(std::fs::read_dir(data.path().join("runs")).unwrap().count(), 1);
    let found: StudyResults = serde_json::from_slice(&std::fs::read(name(".results.json")).unwrap()).unwrap();
    assert!(found.is_complete(&tuning) && found.runs[1..] == of(&labels).runs[1..] && found.runs[0].metrics[0] != 0.25);
    assert_eq!(found.objectives.len(), 4, "the front's axes are those of the run that was trained");
}

/// The comparison goes study by study; what is not done is not made up.
#[test]
fn the_comparison_refuses_what_it_cannot_know_yet() {
    let data = tempfile::tempdir().unwrap();
    for (args, words) in [
        (vec!["--only", "everything"], "only: unknown study \"everything\"; known are methods-tuning, methods"),
        (vec!["--only", "methods"], "only: methods takes its settings from methods-tuning, which is not done"),
        (vec!["--seeds", "3,4"], "tuning-seed: is 4, which is also a seed of the results"),
        (vec!["--base", "huge"], "base: unknown preset"),
    ] {
        let mut all = vec!["compare", "--data", text(data.path())];
        all.extend(args);
        let output = Process::lab(&all).wait();
        assert_eq!((output.code, output.stderr.contains(words)), (Some(2), true), "{}", output.stderr);
    }
    assert!(!data.path().join("studies").exists());
}

#[tokio::test]
async fn a_killed_study_goes_on_where_it_was() {
    let data = tempfile::tempdir().unwrap();
    let mut base = tiny();
    base.policy.iterations = 60;
    base.policy.checkpoint_every = 5;
    let axes = vec![axis("clip", vec![("narrow", "policy.clip", json!(0.1)), ("wide", "policy.clip", json!(0.3))])];
    let config = StudyConfig { name: "killed".into(), question: String::new(), base, axes, seeds: vec![1, 2] };
    let file = write(data.path(), &config);
    let mut first = Process::lab(&["study", "--jobs", "1", "--data", text(data.path()), "--config", text(&file)]);
    let finished = |folder: &Path| state(folder).map_or(0, |s| s.count(StudyRunStatus::Finished));
    wait_until("the first run of the study", || {
        assert!(first.running(), "the study ended before it could be killed\n{}", first.stderr());
        let folder = data.path().join("studies");
        let folder = std::fs::read_dir(folder).ok()?.next()?.ok()?.path();
        (finished(&folder) >= 1).then_some(())
    })
    .await;
    first.kill();
    let folder = folder(data.path());
    let before = state(&folder).unwrap();
    let done: Vec<String> = before.runs.iter().filter(|r| r.status == StudyRunStatus::Finished).map(|r| r.run.clone()).collect();
    assert!(done.len() < 4, "it was killed too late");
    let stamp =
        |run: &str| std::fs::metadata(data.path().join("runs").join(run).join("summary.json")).unwrap().modified().unwrap();
    let stamps: Vec<_> = done.iter().map(|run| stamp(run)).collect();
    // Workers of a killed study write a checkpoint and leave; then it goes on.
    let id = folder.file_name().unwrap().to_str().unwrap().to_string();
    let found = results(&study(data.path(), &["--study", &id]));
    assert_eq!(found.runs.len(), 4);
    assert_eq!(found.groups.iter().map(|g| g.seeds.len()).collect::<Vec<_>>(), [2, 2]);
    for (run, stamp_before) in done.iter().zip(stamps) {
        assert_eq!(stamp(run), stamp_before, "{run} was finished and is not trained again");
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_written() {
    let data = tempfile::tempdir().unwrap();
    let refuse = |change: &dyn Fn(&mut StudyConfig), words: &str| {
        let mut config = StudyConfig { name: "s".into(), question: String::new(), base: tiny(), axes: vec![], seeds: vec![1] };
        change(&mut config);
        let output = study(data.path(), &["--config", text(&write(data.path(), &config))]);
        assert_eq!(output.code, Some(2), "{}", output.stderr);
        assert!(output.stderr.contains(words), "{words} in {}", output.stderr);
        assert_eq!(output.stdout, "");
    };
    refuse(&|c| c.axes = vec![Axis::field("x", "policy.optimiser", &[json!("ppo")])], "\"policy.optimiser\" names no field");
    refuse(&|c| c.axes = vec![Axis::field("x", "policy.samples_per_prompt", &[json!(1)])], "RLOO compares the samples");
    refuse(&|c| c.base.method.weights = vec![vec![0.5, 0.6, 0.0, 0.0]], "method.weights[0]");
    refuse(&|c| c.base.targets.objectives = vec!["kindness".into()], "unknown objective \"kindness\"");
    refuse(&|c| c.seeds.clear(), "seeds: is empty");
    for (args, words) in [
        (vec!["--preset", "everything"], "preset: unknown study"),
        (vec!["--preset", "methods", "--base", "huge"], "base: unknown preset"),
        (vec!["--study", "nothing"], "study: there is no study nothing"),
        (vec!["--config", "/nowhere.json"], "config: /nowhere.json cannot be read"),
    ] {
        let output = study(data.path(), &args);
        assert_eq!((output.code, output.stderr.contains(words)), (Some(2), true), "{}", output.stderr);
    }
    assert!(!data.path().join("studies").exists() && !data.path().join("runs").exists());
    // A plan can be looked at.
    let output = study(data.path(), &["--preset", "methods", "--dry"]);
    assert_eq!(output.code, Some(0));
    assert_eq!(serde_json::from_str::<Vec<Value>>(&output.stdout).unwrap().len(), 36);
    assert!(!data.path().join("studies").exists());
}

#[test]
fn a_run_can_start_from_the_policy_of_another() {
    let data = tempfile::tempdir().unwrap();
    let mut config = tiny();
    let train = |config: &RunConfig, run: &str| {
        let file = data.path().join(format!("{run}.json"));
        std::fs::write(&file, serde_json::to_vec(config).unwrap()).unwrap();
        Process::lab(&["train", "--json", "--config", text(&file), "--run", run, "--data", text(data.path())]).wait()
    };
    assert_eq!(train(&config, "first").code, Some(0));
    let fork = Process::lab(&["train", "--json", "--from", "first", "--run", "second", "--data", text(data.path())]).wait();
    assert_eq!(fork.code, Some(0), "{}", fork.stderr);
    let (first, second) = (summary(data.path(), "first"), summary(data.path(), "second"));
    assert_ne!(first.control, second.control);
    // It starts where the first one ended: with next to no steps, it stays there.
    let weights = |run: &str| -> Vec<f32> {
        let bytes = std::fs::read(data.path().join("runs").join(run).join("policy.safetensors")).unwrap();
        let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut all = all.tensors();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.iter().flat_map(|(_, t)| t.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()))).collect()
    };
    let apart = |a: &str, b: &str| weights(a).iter().zip(weights(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let mut still = config.clone();
    (still.from, still.policy.learning_rate, still.policy.iterations) = (Some("first".into()), 1e-7, 1);
    assert_eq!(train(&still, "still").code, Some(0));
    still.from = None;
    assert_eq!(train(&still, "fresh").code, Some(0));
    let (still, fresh) = (apart("first", "still"), apart("first", "fresh"));
    assert!(still < 1e-5 && fresh > 1e-3, "{still} and {fresh}");
    config.from = Some("nothing".into());
    let missing = train(&config, "third");
    assert_eq!((missing.code, missing.stderr.contains("from: there is no run nothing")), (Some(2), true), "{}", missing.stderr);
    config.from = Some("first".into());
    config.model.d_ff = 96;
    config.reward_trunk.d_ff = 96;
    let other = train(&config, "fourth");
    assert_eq!((other.code, other.stderr.contains("from: ")), (Some(2), true), "{}", other.stderr);
}

/// What preference SFT has taught is not punished: the reference is the policy that optimisation starts from, so the first answers are as
/// likely under both.
#[test]
fn after_preference_sft_the_divergence_starts_at_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut config = tiny();
    (config.method.preference_sft, config.method.ric.batch) = (60, 16);
    let divergence = |run: &str, config: &RunConfig| {
        let file = data.path().join(format!("{run}.json"));
        std::fs::write(&file, serde_json::to_vec(config).unwrap()).unwrap();
        let args = ["train", "--json", "--config", text(&file), "--run", run, "--data", text(data.path())];
        let output = Process::lab(&args).wait();
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        let journal = std::fs::read_to_string(data.path().join(format!("runs/{run}/events.jsonl"))).unwrap();
        // A line of a journal has no number: that is its place.
        let kl = |line: &str| serde_json::from_str::<Value>(line).unwrap()["body"]["policy"]["step"]["kl"].as_f64();
        let divergence: Vec<f64> = journal.lines().filter_map(kl).collect();
        assert!(divergence.len() == config.policy.iterations && divergence[0].abs() < 0.01, "{divergence:?}");
        assert!(divergence.iter().any(|kl| kl.abs() > 0.01), "nothing was learnt: {divergence:?}");
        divergence
    };
    let taught = divergence("taught", &config);
    // With rows of SFT among its rows it is another policy, and is not taken for the one that is kept.
    config.method.rehearsal = Some(0.5);
    assert_ne!(divergence("rehearsed", &config), taught);
}

#[tokio::test]
async fn the_api_starts_stops_and_shows_studies() {
    let lab = Lab::start().await;
    let presets = lab.get("/api/v1/study-presets").await;
    let ids: Vec<&str> = presets.body.as_array().unwrap().iter().filter_map(|p| p["id"].as_str()).collect();
    assert_eq!(ids, ["methods", "ceiling", "optimisers", "credit", "mappings", "reward-size", "stages", "labels"]);
    assert_eq!(lab.get("/api/v1/studies").await.body, json!([]));
    for (body, field) in [
        (json!({"preset": "nothing", "base": "smoke", "seeds": [1]}), "preset"),
        (json!({"preset": "methods", "base": "nothing", "seeds": [1]}), "base"),
        (json!({"preset": "methods", "base": "smoke", "seeds": []}), "seeds"),
        (json!({"preset": "methods", "base": "smoke", "sheeds": []}), "sheeds"),
    ] {
        let answer = lab.post("/api/v1/studies", &body).await;
        assert_eq!((answer.status, &answer.body["problems"][0]["field"]), (422, &json!(field)), "{}", answer.body);
    }

    let answer = lab.post("/api/v1/studies", &json!({"preset": "optimisers", "base": "smoke", "seeds": [1]})).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let id = answer.body["id"].as_str().unwrap().to_string();
    let path = |tail: &str| format!("/api/v1/studies/{id}{tail}");
    // The machine is taken.
    assert_eq!(lab.post("/api/v1/runs", &json!({"config": smoke()})).await.status, 409);
    assert_eq!(lab.post("/api/v1/studies", &json!({"preset": "methods", "base": "smoke", "seeds": [1]})).await.status, 409);
    assert_eq!(lab.post(&path("/cancel"), &json!({})).await.status, 202);
    let read = async || serde_json::from_value::<StudyState>(lab.get(&path("")).await.body).unwrap();
    let stopped = async |what: &str| {
        for _ in 0..600 {
            let state = read().await;
            if !state.active {
                return state;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        panic!("{what} does not end")
    };
    let state = stopped("a study that was told to stop").await;
    assert!(state.count(StudyRunStatus::Finished) < 8);
    assert_eq!(lab.post(&path("/cancel"), &json!({})).await.status, 409);

    assert_eq!(lab.post(&path("/resume"), &json!({})).await.status, 200);
    let state = stopped("the study").await;
    assert_eq!(state.count(StudyRunStatus::Finished), 8, "{state:?}");
    let results: StudyResults = serde_json::from_value(lab.get(&path("/results")).await.body).unwrap();
    assert_eq!(results.groups.len(), 8);
    assert_eq!(lab.get("/api/v1/studies").await.body[0]["id"], json!(id));
    for (file, status) in [("results.csv", 200), ("front.svg", 200), ("study.json", 404), ("..%2fstate.json", 404)] {
        assert_eq!(lab.get(&path(&format!("/files/{file}"))).await.status, status, "{file}");
    }
    assert_eq!(lab.get("/api/v1/studies/no-such-study").await.status, 404);
    assert_eq!(lab.get("/api/v1/studies/..%2fx/results").await.status, 404);
}

#[tokio::test]
async fn who_has_the_list_of_studies_is_told_that_it_has_not_changed() {
    let lab = Lab::start().await;
    let ask = async |tag: Option<&str>| {
        let request = lab.request(reqwest::Method::GET, "/api/v1/studies");
        let request = tag.iter().fold(request, |request, tag| request.header("if-none-match", *tag));
        let answer = request.send().await.unwrap();
        let tag = answer.headers()["etag"].to_str().unwrap().to_string();
        (answer.status().as_u16(), tag, answer.bytes().await.unwrap().len())
    };
    let none = ask(None).await;
    assert_eq!((none.0, none.2), (200, 2), "an empty list");
    let config = StudyConfig { name: "s".into(), question: String::new(), base: tiny(), axes: vec![], seeds: vec![1, 2] };
    assert_eq!(study(lab.data(), &["--config", text(&write(lab.data(), &config))]).code, Some(0));
    let (status, tag, bytes) = ask(Some(&none.1)).await;
    assert!(status == 200 && tag != none.1 && bytes > 100, "{status} {tag} {bytes}");
    assert_eq!(ask(Some(&tag)).await, (304, tag.clone(), 0));
    // A file that has been written since is read again, however little of it is another.
    let file = folder(lab.data()).join("state.json");
    let mut changed = state(&folder(lab.data())).unwrap();
    changed.name = "t".into();
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, serde_json::to_vec(&changed).unwrap()).unwrap();
    std::fs::rename(&fresh, &file).unwrap();
    let (status, other, _) = ask(Some(&tag)).await;
    assert!(status == 200 && other != tag);
    assert_eq!(lab.get("/api/v1/studies").await.body[0]["name"], "t");
    // One that cannot be read hides no other, and holds nothing up.
    std::fs::create_dir_all(lab.data().join("studies/broken")).unwrap();
    std::fs::write(lab.data().join("studies/broken/state.json"), "{").unwrap();
    assert_eq!(ask(Some(&other)).await, (304, other.clone(), 0));
    assert_eq!(lab.post("/api/v1/runs", &json!({"config": tiny()})).await.status, 201);
}
