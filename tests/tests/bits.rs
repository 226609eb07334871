//! Bits that flip on a disk, in whatever the lab keeps: it is told, made again, or changes nothing; no figure is another one.

use anyhow::{Context, Result, ensure};
use moslim_shared::config::RunConfig;
use moslim_shared::study::StudyConfig;
use moslim_tests::{FLAT, Lab, Output, Place, Process, binary, lines, metrics, record, scattered, smoke, soak, text};
use serde_json::json;
use std::path::{Path, PathBuf};

/// A file with one bit flipped, and where, again and again. `n` makes the places those of another file.
fn damaged(whole: &[u8], n: u64) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..4 * soak()).map(move |turn| {
        let at = scattered(n * 31 + turn) as usize % whole.len();
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1 << (scattered(turn) % 8);
        (at, bytes)
    })
}

/// The files of a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    all.sort();
    Ok(all)
}

/// Writes a file in place of another, so that nobody reads half of it.
fn replace(file: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = tempfile::NamedTempFile::new_in(file.parent().and_then(Path::parent).context("a folder above")?)?;
    std::fs::write(fresh.path(), bytes)?;
    fresh.persist(file)?;
    Ok(())
}

#[tokio::test]
async fn a_bit_that_flips_in_a_run_is_told_and_makes_no_other_figure() -> Result<()> {
    let data = tempfile::tempdir()?;
    let train = ["train", "--preset", "smoke", "--run", "mine", "--device", "cpu", "--data", text(data.path())];
    let output = Process::lab(&train).wait();
    ensure!(output.code == Some(0), "{}", output.stderr);
    let folder = data.path().join("runs").join("mine");
    let line = json!({ "prompt": "How do I make tea?", "response": "Boil fresh water." }).to_string() + "\n";
    let score =
        || Process::start(&binary(), &["score", "--run", "mine", "--device", "cpu", "--data", text(data.path())], &line).wait();
    let generate = || {
        let args = [
            "generate",
            "--run",
            "mine",
            "--prompt",
            "How do I make tea?",
            "--seed",
            "3",
            "--device",
            "cpu",
            "--data",
            text(data.path()),
        ];
        Process::lab(&args).wait()
    };
    let (scores, answers) = (score(), generate());
    ensure!(scores.code == Some(0) && answers.code == Some(0), "{}{}", scores.stderr, answers.stderr);
    // What is shown of it: over the API, and as a page that is made of the folder alone.
    let lab = Lab::start_in(data.path()).await;
    let shown = async || lab.get("/api/v1/runs/mine").await;
    let summary = shown().await.body["summary"].clone();
    ensure!(summary["control"].is_object(), "{summary}");
    let html = data.path().join("mine.html");
    let paint = || {
        let _ = std::fs::remove_file(&html);
        let output = Process::lab(&["runs", "page", "mine", "--to", text(&html), "--data", text(data.path())]).wait();
        (output, std::fs::read_to_string(&html).unwrap_or_default())
    };
    let (painted, page) = paint();
    ensure!(painted.code == Some(0) && page.contains("Asked and achieved"), "{}", painted.stderr);
    let mut names: Vec<PathBuf> = std::fs::read_dir(&folder)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    names.sort();
    for (n, file) in names.iter().enumerate() {
        let name = file.file_name().and_then(|n| n.to_str()).context("a name")?;
        // Not what a run says: who wrote it, and what it said to a person.
        if name.starts_with("process.") || name.ends_with(".log") {
            continue;
        }
        let whole = std::fs::read(file)?;
        for turn in 0..4 * soak() {
            let at = scattered(n as u64 * 31 + turn) as usize % whole.len();
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (scattered(turn) % 8);
            replace(file, &damaged)?;
            let now = shown().await;
            ensure!(now.status == 200 && now.body["summary"] == summary, "{name}, byte {at}: {}", now.body);
            let (output, now) = paint();
            let said = format!("{}{now}", output.stderr);
            let told = said.contains("not what was written") || said.contains("damaged");
            ensure!(now == page || told, "{name}, byte {at}: the page is another one, and {:?}: {}", output.code, output.stderr);
            for (what, before, now) in [("score", &scores, score()), ("generate", &answers, generate())] {
                let same = now.code == Some(0) && now.stdout == before.stdout;
                let told = now.code != Some(0) && !now.stderr.contains("panicked");
                ensure!(
                    same || told,
                    "{name}, byte {at}: {what} ends with {:?} and says\n{}{}",
                    now.code,
                    now.stdout,
                    now.stderr
                );
            }
        }
        replace(file, &whole)?;
    }
    // A figure of the summary: its journal has it, too, and the log says once what is wrong.
    let file = folder.join("summary.json");
    let whole = std::fs::read(&file)?;
    let mut changed = whole.clone();
    let digit = changed.iter().rposition(u8::is_ascii_digit).context("a digit")?;
    changed[digit] ^= 1;
    replace(&file, &changed)?;
    for _ in 0..3 {
        ensure!(shown().await.body["summary"] == summary, "another figure is shown");
    }
    ensure!(paint().1 == page, "another figure is on the page");
    let said = lab.stderr().matches("summary.json is not what was written").count();
    ensure!(said == 1, "it is said {said} times:\n{}", lab.stderr());
    replace(&file, &whole)?;
    // What was told names the file.
    let weights = folder.join("reward.safetensors");
    let mut bytes = std::fs::read(&weights)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&weights, bytes)?;
    let told = score();
    ensure!(told.code != Some(0) && told.stderr.contains("reward.safetensors is not what was written"), "{}", told.stderr);
    Ok(())
}

/// A run of a second.
fn brief() -> RunConfig {
    let mut config = smoke();
    (config.sft.steps, config.reward_model.steps, config.policy.iterations) = (10, 12, 4);
    config
}

/// Trains a run that leaves nothing behind but what others share with it.
fn train(place: &Place, config: &str) -> Result<Output> {
    let data = place.data();
    let output = Process::lab(&["train", "--json", "--config", config, "--run", "again", "--data", text(&data)]).wait();
    if data.join("runs").join("again").exists() {
        std::fs::remove_dir_all(data.join("runs").join("again"))?;
    }
    Ok(output)
}

/// Flips bits in every file of a folder, one at a time, and trains: to the figures that came first, or to an error in words. Returns the
/// number of times that damage was noticed.
fn flipped(place: &Place, config: &str, folder: &Path) -> Result<usize> {
    let figures = |output: &Output| anyhow::Ok(metrics(&serde_json::from_str(&output.stdout)?));
    let first = train(place, config)?;
    ensure!(first.code == Some(0), "{}", first.stderr);
    let (expected, mut noticed) = (figures(&first)?, 0);
    for (n, file) in files(folder)?.iter().enumerate() {
        let whole = std::fs::read(file)?;
        if whole.is_empty() {
            continue;
        }
        for (at, bytes) in damaged(&whole, n as u64) {
            std::fs::write(file, bytes)?;
            let now = train(place, config)?;
            let same = now.code == Some(0) && figures(&now)? == expected;
            let told = now.code != Some(0) && !now.stderr.contains("panicked");
            ensure!(same || told, "{}, byte {at}: it ends with {:?} and says\n{}", file.display(), now.code, now.stderr);
            noticed += usize::from(told || now.stderr.contains("is damaged"));
        }
        std::fs::write(file, &whole)?;
    }
    let last = train(place, config)?;
    ensure!(last.code == Some(0) && figures(&last)? == expected, "{}", last.stderr);
    Ok(noticed)
}

/// A finished stage that is not what was written is made again.
#[test]
fn a_bit_that_flips_in_the_cache_makes_no_other_figure() -> Result<()> {
    let place = Place::new();
    let config = place.file("config.json", serde_json::to_vec(&brief())?);
    ensure!(train(&place, &config)?.code == Some(0));
    let folder = place.data().join("cache");
    let noticed = flipped(&place, &config, &folder)?;
    ensure!(noticed > 0 && files(&folder)?.len() > 1, "nothing was damaged: {noticed} of {:?}", files(&folder)?);
    Ok(())
}

/// An imported task that is not what was written is refused: its rows, what it says of them, and what was done to its classes.
#[test]
fn a_bit_that_flips_in_an_imported_task_makes_no_other_figure() -> Result<()> {
    let place = Place::new();
    let (rows, mapping) = (place.file("tea.jsonl", lines((0..600).map(record))), place.file("flat.toml", FLAT));
    place.import(&[&rows, "--mapping", &mapping, "--name", "tea"]).map_err(anyhow::Error::msg)?;
    let rebin = ["data", "edit", "tea", "--rebin", "use:1.5,2.5=low,middle,high"];
    moslim_tests::lab(&place.data(), &rebin).map_err(anyhow::Error::msg)?;
    let small = json!({ "layers": 1, "d_model": 32, "heads": 2, "kv_heads": 1, "d_ff": 64 });
    let config = json!({
        "task": { "kind": "ratings", "name": "tea" },
        "device": "cpu",
        "vocabulary": 400,
        "model": small,
        "reward_trunk": small,
        "sft": { "steps": 10, "batch": 16 },
        "reward_model": { "steps": 12, "batch": 16 },
        "targets": { "held_out": [] },
        "policy": { "iterations": 3, "prompts": 4, "samples_per_prompt": 4, "max_new_tokens": 16 },
        "evaluation": { "questions": 4, "joint": 4, "held_out": 0, "front": 4, "paraphrased": 4 },
    });
    let config = place.file("config.json", config.to_string());
    let folder = place.data().join("tasks").join("tea");
    ensure!(flipped(&place, &config, &folder)? > 0, "no damage was noticed");
    // Other labels for the same rows: an edge of a class, which is as good as any.
    let file = folder.join("task.json");
    let mut bytes = std::fs::read(&file)?;
    let edge = bytes.windows(3).rposition(|text| text == b"1.5").context("an edge")?;
    bytes[edge] ^= 1;
    std::fs::write(&file, &bytes)?;
    let told = train(&place, &config)?;
    ensure!(told.code == Some(2) && told.stderr.contains("task.json is not what was written"), "{:?} {}", told.code, told.stderr);
    let doctor = Process::lab(&["doctor", "--data", text(&place.data())]).wait();
    ensure!(doctor.code == Some(1) && doctor.stdout.contains("task.json is not what was written"), "{}", doctor.stdout);
    Ok(())
}

#[tokio::test]
async fn a_bit_that_flips_in_a_study_makes_no_other_figure() -> Result<()> {
    let data = tempfile::tempdir()?;
    let mut base = smoke();
    (base.sft.steps, base.reward_model.steps, base.policy.iterations) = (10, 12, 4);
    let plan = StudyConfig { name: "bits".into(), question: String::new(), base, axes: Vec::new(), seeds: vec![1] };
    let file = data.path().join("plan.json");
    std::fs::write(&file, serde_json::to_vec(&plan)?)?;
    let study = |more: &[&str]| Process::lab(&[&["study", "--json", "--data", text(data.path())], more].concat()).wait();
    let first = study(&["--config", text(&file)]);
    ensure!(first.code == Some(0), "{}", first.stderr);
    let id = std::fs::read_dir(data.path().join("studies"))?.next().context("a study")??.file_name();
    let id = id.to_str().context("a name")?;
    let again = study(&["--study", id]);
    ensure!(again.code == Some(0) && again.stdout == first.stdout, "{}", again.stderr);
    // One digit: the seed of the plan, then a figure of the run.
    let run = data.path().join("runs").join(format!("{id}-001")).join("summary.json");
    for (path, name) in [(data.path().join("studies").join(id).join("study.json"), "study.json"), (run, "summary.json")] {
        let whole = std::fs::read(&path)?;
        let mut damaged = whole.clone();
        let digit = damaged.iter().rposition(u8::is_ascii_digit).context("a digit")?;
        damaged[digit] ^= 1;
        std::fs::write(&path, &damaged)?;
        let told = study(&["--study", id]);
        ensure!(told.code == Some(1) && told.stdout.is_empty(), "{name}: {:?} {}", told.code, told.stdout);
        ensure!(told.stderr.contains(name) && told.stderr.contains("not what was written"), "{}", told.stderr);
        std::fs::write(&path, &whole)?;
    }
    let whole = study(&["--study", id]);
    ensure!(whole.code == Some(0) && whole.stdout == first.stdout, "{}", whole.stderr);
    // What it has found, as it is shown and sent.
    let lab = Lab::start_in(data.path()).await;
    let folder = data.path().join("studies").join(id);
    for name in ["results.json", "results.csv", "figures.svg"] {
        let paths = [format!("/api/v1/studies/{id}/results"), format!("/api/v1/studies/{id}/files/{name}")];
        let mut before = Vec::new();
        for path in &paths {
            let answer = lab.get(path).await;
            ensure!(answer.status == 200, "{path}: {}", answer.body);
            before.push(answer.body);
        }
        let file = folder.join(name);
        let whole = std::fs::read(&file)?;
        let mut refused = 0;
        for turn in 0..8 * soak() {
            let at = scattered(turn) as usize % whole.len();
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (scattered(turn + 1) % 8);
            replace(&file, &damaged)?;
            for (path, before) in paths.iter().zip(&before) {
                let now = lab.get(path).await;
                refused += usize::from(now.status == 500);
                ensure!(now.status == 500 || (now.status == 200 && now.body == *before), "{path}, byte {at}: {}", now.body);
            }
        }
        ensure!(refused > 0 && lab.stderr().contains(&format!("{name} is not what was written")), "{}", lab.stderr());
        replace(&file, &whole)?;
    }
    let deep = || Process::lab(&["doctor", "--deep", "--data", text(data.path())]).wait();
    ensure!(deep().code == Some(0), "{}", deep().stdout);
    std::fs::write(folder.join("results.csv"), "run,seed\n")?;
    ensure!(deep().stdout.contains("results.csv is not what was written"), "{}", deep().stdout);
    Ok(())
}
