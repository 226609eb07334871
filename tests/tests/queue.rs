//! Slots, turns and priorities; runs that are paused or killed, and go on as if nothing had been.

use moslim_shared::config::RunConfig;
use moslim_shared::event::{Event, EventBody, Outcome, RunStatus, Stage};
use moslim_tests::{Answer, LIMIT, Lab, Process, endings, long_run, metrics, policy_steps, signal, smoke, text, write_config};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// A run that ends when it is told to.
fn endless(name: &str) -> RunConfig {
    RunConfig { name: name.into(), ..long_run(5_000) }
}

async fn act(lab: &Lab, id: &str, action: &str) -> Answer {
    lab.post(&format!("/api/v1/runs/{id}/{action}"), &json!({})).await
}

async fn prioritise(lab: &Lab, id: &str, priority: i32) -> Answer {
    let request = lab.request(Method::PUT, &format!("/api/v1/runs/{id}/priority")).header("origin", lab.origin());
    lab.send(request.json(&json!({ "priority": priority }))).await
}

/// Has a run wait for its turn.
async fn queue(lab: &Lab, config: &RunConfig) -> String {
    let answer = lab.post("/api/v1/runs", &json!({ "config": config, "queue": true })).await;
    assert_eq!((answer.status, answer.body["status"].as_str()), (201, Some("queued")), "{}", answer.body);
    answer.body["id"].as_str().expect("the id of a run").to_string()
}

async fn wait_for(lab: &Lab, id: &str, status: RunStatus) {
    let began = Instant::now();
    loop {
        let run = lab.run(id).await;
        if run.status == status {
            return;
        }
        assert!(began.elapsed() < LIMIT, "{} is {:?} and not {status:?}: {}", run.title(), run.status, run.message);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Trains a run in a folder of its own, where nothing disturbs it.
fn alone(folder: &Path, config: &RunConfig) -> Process {
    let file = write_config(folder, config);
    Process::lab(&["train", "--json", "--config", text(&file), "--data", text(folder)])
}

/// The figures of a run are those of one that was trained alone.
async fn assert_like(lab: &Lab, id: &str, alone: &mut Process) {
    let output = alone.wait();
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let expected: Value = serde_json::from_str(&output.stdout).expect("one summary");
    let own = lab.get(&format!("/api/v1/runs/{id}")).await.body["summary"].clone();
    assert_eq!(metrics(&own), metrics(&expected));
}

#[tokio::test]
async fn as_many_runs_train_as_there_are_slots_and_the_urgent_ones_go_first() {
    let lab = Lab::start_with(&["--slots", "cpu=2"]).await;
    let [first, second] = [lab.start_run(&endless("first")).await, lab.start_run(&endless("second")).await];
    for id in [&first, &second] {
        lab.wait_for_policy(id, 1).await;
    }
    let workers = lab.workers();
    assert_eq!(workers.len(), 2, "both train at a time");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = format!("RAYON_NUM_THREADS={}", (cores / 2).max(1));
    for pid in workers {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        assert!(environment.split('\0').any(|pair| pair == share), "{share} is not in {environment}");
    }
    let refused = lab.post("/api/v1/runs", &json!({ "config": smoke() })).await;
    assert_eq!(refused.status, 409);
    assert!(refused.body["detail"].as_str().unwrap().contains("cpu, which takes 2 at a time"), "{}", refused.body);
    let beyond = lab.post("/api/v1/runs", &json!({ "config": smoke(), "queue": true, "priority": 101 })).await;
    assert_eq!((beyond.status, beyond.body["problems"][0]["field"].as_str()), (422, Some("priority")), "{}", beyond.body);

    let [a, b, c] = [queue(&lab, &endless("a")).await, queue(&lab, &endless("b")).await, queue(&lab, &endless("c")).await];
    let told = prioritise(&lab, &b, 5).await;
    assert_eq!((told.status, told.body["status"].as_str()), (200, Some("queued")), "{}", told.body);
    assert!(lab.run(&b).await.message.contains("its priority is 5"), "{}", lab.run(&b).await.message);
    for (id, priority, status) in [(b.as_str(), -101, 422), (first.as_str(), 1, 409), ("nothing", 1, 404)] {
        assert_eq!(prioritise(&lab, id, priority).await.status, status, "{id}");
    }
    let command = |id: &str, priority: &str| Process::lab(&["runs", "priority", id, priority, "--data", text(lab.data())]).wait();
    for (id, priority, code) in [(&c, "-7", 0), (&c, "7", 0), (&c, "101", 2), (&first, "1", 2)] {
        let output = command(id, priority);
        assert_eq!(output.code, Some(code), "{priority}: {}", output.stderr);
    }

    assert_eq!(act(&lab, &first, "cancel").await.status, 202);
    wait_for(&lab, &c, RunStatus::Running).await;
    assert_eq!([lab.run(&a).await.status, lab.run(&b).await.status], [RunStatus::Queued; 2], "the most urgent goes first");
    assert_eq!(act(&lab, &second, "cancel").await.status, 202);
    wait_for(&lab, &b, RunStatus::Running).await;
    assert_eq!(lab.run(&a).await.status, RunStatus::Queued, "there are two slots");
    assert_eq!(act(&lab, &b, "cancel").await.status, 202);
    wait_for(&lab, &a, RunStatus::Running).await;
}

#[tokio::test]
async fn a_paused_run_leaves_its_slot_and_ends_as_if_nothing_had_been() {
    let config = long_run(100);
    let folder = tempfile::tempdir().unwrap();
    let mut undisturbed = alone(folder.path(), &config);
    let mut lab = Lab::start().await;
    let id = lab.start_run(&config).await;
    let other = queue(&lab, &endless("other")).await;
    assert_eq!(act(&lab, &other, "pause").await.status, 409, "it waits");
    lab.wait_for_policy(&id, 3).await;
    let told = act(&lab, &id, "pause").await;
    assert_eq!(told.status, 202, "{}", told.body);
    wait_for(&lab, &other, RunStatus::Running).await;
    let paused = lab.run(&id).await;
    assert_eq!((paused.status, paused.message.as_str()), (RunStatus::Paused, ""));
    for (status, count) in [("paused", 1), ("cancelled", 0), ("interrupted", 0)] {
        assert_eq!(lab.get(&format!("/api/v1/runs?filter=status%3A{status}")).await.body["total"], count, "{status}");
    }
    let events = lab.events(&id).await;
    let reached = policy_steps(&events).len();
    assert!((3..100).contains(&reached), "{reached}");
    let kept = |event: &Event| match event.body {
        EventBody::Checkpoint { stage: Stage::Policy, step, .. } => Some(step),
        _ => None,
    };
    assert_eq!(events.iter().filter_map(kept).next_back(), Some(reached), "it stops at a checkpoint");
    assert_eq!(act(&lab, &id, "pause").await.status, 409, "it is paused");

    // It waits behind the one that has its slot, whatever becomes of server and index.
    let resumed = act(&lab, &id, "resume").await;
    assert_eq!((resumed.status, resumed.body["status"].as_str()), (200, Some("queued")), "{}", resumed.body);
    assert_eq!(act(&lab, &id, "resume").await.status, 409, "it waits already");
    lab.kill();
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = std::fs::remove_file(lab.data().join(name));
    }
    lab.restart().await;
    assert_eq!([lab.run(&id).await.status, lab.run(&other).await.status], [RunStatus::Queued, RunStatus::Running]);
    assert_eq!(act(&lab, &other, "cancel").await.status, 202);
    wait_for(&lab, &id, RunStatus::Finished).await;
    let events = lab.events(&id).await;
    assert_eq!(endings(&events), [Outcome::Paused, Outcome::Finished]);
    assert_eq!(policy_steps(&events), (1..=100).collect::<Vec<_>>());
    assert_like(&lab, &id, &mut undisturbed).await;
}

#[tokio::test]
async fn a_run_that_does_not_answer_is_killed_and_goes_on_from_its_last_checkpoint() {
    let config = long_run(200);
    let folder = tempfile::tempdir().unwrap();
    let mut undisturbed = alone(folder.path(), &config);
    let lab = Lab::start().await;
    let id = lab.start_run(&config).await;
    // The iteration after a checkpoint: by then the checkpoint is written.
    lab.wait_for_policy(&id, config.policy.checkpoint_every + 1).await;
    let workers = lab.workers();
    assert_eq!(workers.len(), 1);
    // It hears nothing any more.
    assert!(signal(workers[0], "STOP"));
    assert_eq!(act(&lab, &id, "cancel").await.status, 202);
    assert_eq!(lab.run(&id).await.status, RunStatus::Running);
    assert_eq!(act(&lab, &id, "kill").await.status, 202);
    let run = lab.wait_for_end(&id).await;
    assert_eq!(run.status, RunStatus::Interrupted, "{}", run.message);
    assert!(run.message.starts_with("it was killed; its last checkpoint is kept"), "{}", run.message);
    assert_eq!(lab.workers(), Vec::<u32>::new());
    for action in ["kill", "pause", "cancel"] {
        let refused = act(&lab, &id, action).await;
        assert_eq!(refused.status, 409, "{action}");
        assert!(refused.body["detail"].as_str().unwrap().contains("is not running"), "{}", refused.body);
    }

    // The same from the command line, with a server that looks on.
    let command = |name: &str| Process::lab(&[name, &id, "--data", text(lab.data())]).wait();
    for (name, until, status) in [("kill", 20, RunStatus::Interrupted), ("pause", 40, RunStatus::Paused)] {
        lab.resume(&id).await;
        lab.wait_for_policy(&id, until).await;
        let output = command(name);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        assert_eq!(lab.wait_for_end(&id).await.status, status);
        let again = command(name);
        assert_eq!((again.code, again.stderr.contains("is not running")), (Some(2), true), "{}", again.stderr);
    }
    lab.resume(&id).await;
    lab.wait_for_finish(&id).await;
    let events = lab.events(&id).await;
    // Who was killed says nothing more, and nobody speaks for it.
    assert_eq!(endings(&events), [Outcome::Paused, Outcome::Finished]);
    assert_eq!(policy_steps(&events), (1..=200).collect::<Vec<_>>());
    assert_like(&lab, &id, &mut undisturbed).await;
}

#[test]
fn slots_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (slots, said) in [("cpu=0", "allowed is 1 to 64"), ("tpu=1", "unknown device"), ("auto=1", "auto is no device")] {
        let output = Process::lab(&["serve", "--port", "0", "--data", text(folder.path()), "--slots", slots]).wait();
        assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""), "{}", output.stderr);
        assert!(output.stderr.contains("--slots") && output.stderr.contains(said), "{}", output.stderr);
    }
}
