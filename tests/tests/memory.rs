//! What takes more memory than there is: it is refused before it begins, or ends by itself, and says both figures.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use moslim_shared::study::{Axis, StudyConfig, Variant};
use moslim_tests::{FLAT, LIMIT, Lab, Place, Process, lines, processes, record, smoke, text, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A study of which one run is much larger than the other.
fn wide() -> StudyConfig {
    let shape = json!({ "layers": 4, "d_model": 512, "d_ff": 2048 });
    let wide = Variant { label: "wide".into(), set: [("model".into(), shape.clone()), ("reward_trunk".into(), shape)].into() };
    let variants = vec![Variant { label: "narrow".into(), set: [].into() }, wide];
    let axes = vec![Axis { name: "width".into(), variants }];
    StudyConfig { name: "widths".into(), question: String::new(), base: smoke(), axes, seeds: vec![1] }
}

/// Whether something is refused for its memory, with both figures.
fn says_both(text: &str) -> bool {
    text.contains("the run needs about") && text.contains("and may have") && text.contains("MiB here")
}

#[test]
fn a_study_that_does_not_fit_is_refused_before_any_of_it_is_made() -> Result<()> {
    let data = tempfile::tempdir()?;
    let file = data.path().join("plan.json");
    fs::write(&file, serde_json::to_vec(&wide())?)?;
    let args = ["study", "--config", text(&file), "--data", text(data.path())];
    let refused = Process::lab_in(&args, &[("MOSLIM_LAB_RUN_MEMORY", "250")]).wait();
    ensure!(refused.code == Some(2) && says_both(&refused.stderr), "{:?} {}", refused.code, refused.stderr);
    ensure!(refused.stderr.contains("may have 250 MiB here"), "{}", refused.stderr);
    ensure!(!data.path().join("studies").exists() && !data.path().join("runs").exists(), "something of it was made");
    Ok(())
}

#[tokio::test]
async fn a_study_of_the_server_is_refused_with_both_figures_and_its_key_stays_free() -> Result<()> {
    // The program alone takes more.
    let lab = Lab::start_with(&["--run-memory", "64"]).await;
    let study = json!({ "preset": "mappings", "base": "smoke", "seeds": [1] });
    let start = |key: &str| {
        let request = lab.request(reqwest::Method::POST, "/api/v1/studies").header("origin", lab.origin());
        lab.send(request.header("idempotency-key", key).json(&study))
    };
    for _ in 0..2 {
        let refused = start("k-1").await;
        let said = refused.body["problems"][0]["message"].as_str().unwrap_or_default();
        ensure!(refused.status == 422 && says_both(said) && said.contains("64 MiB here"), "{}", refused.body);
    }
    ensure!(lab.get("/api/v1/studies").await.body == json!([]), "something of it was made");
    Ok(())
}

#[test]
fn what_loads_a_model_for_the_server_ends_where_it_takes_more_than_it_may() -> Result<()> {
    let place = Place::new();
    let data = place.data();
    let trained = Process::lab(&["train", "--preset", "smoke", "--run", "mine", "--device", "cpu", "--data", text(&data)]).wait();
    ensure!(trained.code == Some(0), "{}", trained.stderr);
    let (mapping, file) = (place.file("flat.toml", FLAT), place.file("a.jsonl", lines((0..60).map(record))));
    place.import(&[&file, "--mapping", &mapping, "--name", "tea"]).map_err(anyhow::Error::msg)?;
    for args in [
        ["inference", "--run", "mine", "--data", text(&data)].to_vec(),
        ["data", "noise", "tea", "--run", "mine", "--data", text(&data)].to_vec(),
    ] {
        let ended = Process::lab_in(&args, &[("MOSLIM_LAB_RUN_MEMORY", "1")]).wait();
        let said = &ended.stderr;
        ensure!(
            ended.code == Some(1) && said.contains("may take 1 MiB of memory, and takes"),
            "{args:?}: {:?} {said}",
            ended.code
        );
    }
    Ok(())
}

/// A run whose tokenizer is a pipe into which nobody writes: whoever opens it waits.
async fn slow_run(lab: &Lab, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let written = lab.post("/api/v1/config/toml", &json!({ "config": smoke() })).await.body;
    fs::write(folder.join("config.toml"), written["toml"].as_str().context("a configuration")?)?;
    let made = Command::new("mkfifo").arg(folder.join("tokenizer.json")).status()?;
    ensure!(made.success(), "a pipe cannot be made");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_look_at_what_people_bring_is_asked_to_wait() -> Result<()> {
    let lab = Lab::start().await;
    let place = Place::new();
    let (mapping, file) = (place.file("flat.toml", FLAT), place.file("a.jsonl", lines((0..60).map(record))));
    let args = ["import", &file, "--mapping", &mapping, "--name", "tea", "--data", text(lab.data())];
    ensure!(Process::lab(&args).wait().code == Some(0));
    slow_run(&lab, &lab.data().join("runs/slow")).await?;
    let noise = |run: &str| {
        let request = lab.request(reqwest::Method::POST, "/api/v1/tasks/tea/noise").header("origin", lab.origin());
        request.json(&json!({ "run": run, "n": 5 }))
    };
    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(noise("slow").send())).collect();
    let at_work = || (processes(&["noise", "slow", text(lab.data())]).len() == 2).then_some(());
    wait_until("two looks for unlikely labels", at_work).await;
    let refused = noise("none").send().await?;
    ensure!(refused.status() == 429, "a third one is let in: {}", refused.status());
    ensure!(refused.headers().contains_key("retry-after"));
    let said: Value = refused.json().await?;
    ensure!(said["detail"].as_str().is_some_and(|d| d.contains("at work already")), "{said}");
    let preview = lab.post("/api/v1/uploads/preview", &json!({ "upload": "a-1", "name": "a", "mapping": FLAT })).await;
    ensure!(preview.status == 429, "{}: {}", preview.status, preview.body);
    // Who hangs up leaves room for others.
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    join_all(waiting).await;
    let began = Instant::now();
    while noise("none").send().await?.status() == 429 {
        ensure!(began.elapsed() < LIMIT, "nobody is let in any more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
