//! A study in a data folder, as a follower on this machine or on a cluster leaves it.

use crate::{Lab, metrics, signal, smoke, wait_until};
use moslim_shared::study::{Axis, StudyConfig, StudyState, Variant};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Four runs of some seconds, half of which share their first stages with another.
pub fn two_clips(name: &str, iterations: usize) -> StudyConfig {
    let mut base = smoke();
    base.policy.iterations = iterations;
    let variant = |label: &str, clip: f64| Variant { label: label.into(), set: [("policy.clip".into(), json!(clip))].into() };
    let axes = vec![Axis { name: "clip".into(), variants: vec![variant("narrow", 0.1), variant("wide", 0.3)] }];
    StudyConfig { name: name.into(), question: String::new(), base, axes, seeds: vec![1, 2] }
}

/// The folder of the only study.
pub fn study_folder(data: &Path) -> Option<PathBuf> {
    Some(std::fs::read_dir(data.join("studies")).ok()?.next()?.ok()?.path())
}

/// How the only study stands.
pub fn study_state(data: &Path) -> Option<StudyState> {
    serde_json::from_slice(&std::fs::read(study_folder(data)?.join("state.json")).ok()?).ok()
}

/// What each run of the only study has found, by its labels and its seed.
pub fn study_figures(data: &Path) -> BTreeMap<(Vec<String>, u64), Value> {
    let figures = |run: &str| {
        let summary = std::fs::read(data.join("runs").join(run).join("summary.json")).unwrap();
        metrics(&serde_json::from_slice(&summary).unwrap())
    };
    let state = study_state(data).unwrap();
    state.runs.iter().map(|r| ((r.labels.clone(), r.seed), figures(&r.run))).collect()
}

/// From the page's side: the server, started with `option` and a profile, offers a cluster called `on`, starts a study there, follows it,
/// and has its own machine free meanwhile; a server without has no such cluster, and says which option it wants.
pub async fn the_server_trains_a_study(on: &str, option: &str, profile: &str) {
    let mut lab = Lab::start_with(&[option, profile]).await;
    assert_eq!(lab.get("/api/v1/study-hosts").await.body, json!(["here", on]));
    let request = json!({"preset": "mappings", "base": "smoke", "seeds": [1], "on": on});
    let answer = lab.post("/api/v1/studies", &request).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let id = answer.body["id"].as_str().unwrap().to_string();
    assert_eq!(answer.body["on"], on);
    let run = lab.post("/api/v1/runs", &json!({"config": smoke()})).await;
    assert_eq!(run.status, 201, "{}", run.body);
    // The server and who follows the study for it die, as with their machine: the next server follows it again.
    let about = lab.data().join("studies").join(&id).join("process.json");
    let follower = wait_until("who follows the study", || {
        study_state(lab.data()).filter(|state| state.active)?;
        serde_json::from_slice::<serde_json::Value>(&std::fs::read(&about).ok()?).ok()?["pid"].as_u64()
    })
    .await;
    lab.kill();
    assert!(signal(u32::try_from(follower).unwrap(), "KILL"));
    lab.restart().await;
    wait_until("the study to be followed again", || {
        let now: serde_json::Value = serde_json::from_slice(&std::fs::read(&about).ok()?).ok()?;
        (now["pid"].as_u64()? != follower).then_some(())
    })
    .await;
    // A run that waits there is not one that was interrupted.
    let mut waited = false;
    for _ in 0..600 {
        let state = lab.get(&format!("/api/v1/studies/{id}")).await.body;
        let runs = state["runs"].as_array().unwrap();
        let last = lab.get(&format!("/api/v1/runs/{id}-009")).await.body;
        waited |= last["status"] == "queued" && last["message"].as_str().is_some_and(|m| m.contains("cluster"));
        if state["active"] == false && runs.iter().all(|r| r["status"] == "finished") {
            break;
        }
        assert!(runs.iter().all(|r| r["status"] != "failed"), "{state}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(waited || on != "slurm", "the last run was not shown as one that waits");
    assert_eq!(lab.get(&format!("/api/v1/studies/{id}/results")).await.body["runs"].as_array().unwrap().len(), 9);
    let plain = Lab::start().await;
    assert_eq!(plain.get("/api/v1/study-hosts").await.body, json!(["here"]));
    let refused = plain.post("/api/v1/studies", &request).await;
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.body.to_string().contains(option), "{}", refused.body);
}
