//! A run that is killed and resumed ends with the same figures as one that is left alone.

use moslim_shared::config::EvaluationSplit;
use moslim_shared::method::Method;
use moslim_tests::{Output, Process, long_run, metrics, text, wait_until, write_config};
use serde_json::Value;
use std::path::Path;

fn start(data: &Path, more: &[&str]) -> Process {
    let mut args = vec!["train", "--json", "--run", "victim", "--data", text(data)];
    args.extend(more);
    Process::lab(&args)
}

/// Waits for the checkpoint of a stage and kills the process.
async fn kill_at_checkpoint(mut process: Process, data: &Path, stage: &str) {
    let file = data.join("runs").join("victim").join(format!("checkpoint-{stage}.bin"));
    wait_until("a checkpoint", || {
        assert!(process.running(), "the run ended before it could be killed; make it longer\n{}", process.stderr());
        file.exists().then_some(())
    })
    .await;
    process.kill();
    assert_eq!(process.stdout(), "", "it was killed before its end");
}

#[tokio::test]
async fn a_killed_run_ends_like_an_undisturbed_one() {
    let mut config = long_run(60);
    config.sft.steps = 100;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let file = write_config(folders[0].path(), &config);
    let mut undisturbed = start(folders[0].path(), &["--config", text(&file)]);

    let data = folders[1].path();
    kill_at_checkpoint(start(data, &["--config", text(&file)]), data, "sft").await;
    assert!(!data.join("cache").exists(), "no stage was finished");

    let resumed = start(data, &[]);
    kill_at_checkpoint(resumed, data, "policy").await;

    // The third process is asked to stop, and does so at a checkpoint.
    let mut resumed = start(data, &[]);
    let said = wait_until("policy optimisation", || {
        assert!(resumed.running(), "the run ended before it could be stopped; make it longer\n{}", resumed.stderr());
        let said = resumed.stderr();
        said.contains("Policy optimisation: ").then_some(said)
    })
    .await;
    assert!(said.contains("The run resumes on cpu"), "{said}");
    assert_eq!(said.matches("from the cache").count(), 2, "SFT and reward model were finished\n{said}");
    let (_, progress) = said.split_once("Policy optimisation: ").unwrap();
    let step: usize = progress.split('/').next().unwrap().parse().unwrap();
    assert!(step > config.policy.checkpoint_every, "it began again instead of going on: {said}");
    assert!(moslim_tests::signal(resumed.pid(), "TERM"));
    let output = resumed.wait();
    assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{}", output.stderr);
    assert!(output.stderr.contains("moslim-lab train --run victim"), "{}", output.stderr);

    let output = start(data, &[]).wait();
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let expected = undisturbed.wait();
    assert_eq!(expected.code, Some(0), "{}", expected.stderr);
    let [summary, expected]: [Value; 2] = [output.stdout, expected.stdout].map(|text| serde_json::from_str(&text).unwrap());
    assert_eq!(metrics(&summary), metrics(&expected));
    assert_eq!(summary["run"], "victim");
    let left: Vec<_> = std::fs::read_dir(data.join("runs").join("victim")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("checkpoint-")), "{left:?}");
}

#[tokio::test]
async fn a_fork_goes_on_where_its_run_was_as_if_it_were_that_run() {
    let config = long_run(60);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let file = write_config(data, &config);
    let early = train_as(data, &["--fork", "victim", "--run", "early"]);
    assert_eq!((early.code, early.stderr.contains("fork: there is no run victim")), (Some(2), true), "{}", early.stderr);
    kill_at_checkpoint(start(data, &["--config", text(&file)]), data, "policy").await;

    // Unchanged, it ends like the run itself would have.
    let same = train_as(data, &["--fork", "victim", "--run", "same"]);
    assert_eq!(same.code, Some(0), "{}", same.stderr);
    assert!(same.stderr.contains(" of run victim"), "{}", same.stderr);
    // The run itself goes on, which it would not where the fork had taken its checkpoint away.
    let resumed = train_as(data, &["--run", "victim"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    let [fork, own]: [Value; 2] = [&same, &resumed].map(|output| serde_json::from_str(&output.stdout).unwrap());
    assert_eq!(metrics(&fork), metrics(&own));

    // It has finished: what it has trained can be evaluated, and no longer be gone on with.
    let longer = write_config(data, &long_run(61));
    let late = train_as(data, &["--fork", "victim", "--config", text(&longer), "--run", "late"]);
    assert_eq!(
        (late.code, late.stderr.contains("policy.iterations: is 61; a fork of a run that has finished")),
        (Some(2), true),
        "{}",
        late.stderr
    );
    let names = || std::fs::read_dir(data.join("runs")).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    assert!(names().all(|name| ["victim", "same"].contains(&name.as_str()) || !has_config(&data.join("runs").join(name))));
}

#[tokio::test]
async fn a_fork_changes_the_policys_settings_and_no_others() {
    let mut config = long_run(60);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let file = write_config(data, &config);
    kill_at_checkpoint(start(data, &["--config", text(&file)]), data, "policy").await;
    (config.policy.kl_coefficient, config.policy.iterations) = (0.77, 20);
    let file = write_config(data, &config);
    let fork = train_as(data, &["--fork", "victim", "--config", text(&file), "--run", "fork"]);
    assert_eq!(fork.code, Some(0), "{}", fork.stderr);
    let steps = |run: &str| -> Vec<(u64, f64)> {
        let journal = std::fs::read_to_string(data.join("runs").join(run).join("events.jsonl")).unwrap();
        let events = journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let steps = events.map(|e| e["body"]["policy"]["step"].clone()).filter(Value::is_object);
        steps.map(|s| (s["step"].as_u64().unwrap(), s["kl_coefficient"].as_f64().unwrap())).collect()
    };
    let (first, own) = (steps("victim"), steps("fork"));
    assert!(own[0].0 > 5 && own[0].0 <= first.last().unwrap().0 + 1, "it goes on from a checkpoint: {own:?} after {first:?}");
    assert!(own.iter().all(|(_, beta)| *beta == 0.77) && own.last().unwrap().0 == 20, "{own:?}");
    config.seed = 99;
    let file = write_config(data, &config);
    let other = train_as(data, &["--fork", "victim", "--config", text(&file), "--run", "other"]);
    assert_eq!((other.code, other.stderr.contains("seed: is 99; a fork keeps")), (Some(2), true), "{}", other.stderr);
}

/// What a run has trained is evaluated on other questions as if they had been asked from the beginning, and nothing is trained for it.
#[test]
fn a_finished_run_is_evaluated_on_other_questions() {
    let mut config = moslim_tests::smoke();
    config.method.kind = Method::RewardedSoups;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let file = write_config(data, &config);
    let ran = |output: Output| -> Value {
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        serde_json::from_str(&output.stdout).expect("one summary")
    };
    let first = ran(train_as(data, &["--config", text(&file), "--run", "first"]));
    let evaluate = |of: &str, more: &[&str]| {
        let mut args = vec!["evaluate", of, "--json", "--data", text(data)];
        args.extend(more);
        Process::lab(&args).wait()
    };
    let other = ran(evaluate("first", &["--split", "validation", "--run", "other"]));
    let journal = std::fs::read_to_string(data.join("runs/other/events.jsonl")).unwrap();
    assert!(!journal.contains(r#""body":{"policy":"#) && journal.contains("is evaluated"), "{journal}");
    // Of an evaluation of an evaluation, after the first run is gone: what is needed was copied.
    std::fs::remove_dir_all(data.join("runs/first")).unwrap();
    std::fs::remove_dir_all(data.join("cache")).unwrap();
    let again = ran(evaluate("other", &["--split", "test", "--run", "again"]));
    assert_eq!(metrics(&again), metrics(&first));
    let journal = std::fs::read_to_string(data.join("runs/again/events.jsonl")).unwrap();
    assert!(!journal.contains(r#"{"loss":{"stage":"reward_model""#), "the reward model was trained again");
    config.evaluation.split = EvaluationSplit::Validation;
    let file = write_config(data, &config);
    let whole = ran(train_as(data, &["--config", text(&file), "--run", "whole"]));
    assert_eq!(metrics(&other), metrics(&whole));
    assert_ne!(metrics(&other), metrics(&first));

    // What cannot be evaluated leaves nothing behind.
    let refused = |output: Output, run: &str, why: &str| {
        assert_eq!((output.code, output.stderr.contains(why)), (Some(2), true), "{}", output.stderr);
        let left: Vec<_> =
            std::fs::read_dir(data.join("runs").join(run)).into_iter().flatten().map(|f| f.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name.to_string_lossy().starts_with("process.")), "{left:?}");
    };
    refused(evaluate("nowhere", &["--run", "x"]), "x", "fork: there is no run nowhere");
    config.seed = 99;
    let file = write_config(data, &config);
    refused(evaluate("whole", &["--config", text(&file), "--run", "x"]), "x", "seed: is 99; a fork of a run that has finished");
    let policy = data.join("runs/whole/policy.safetensors");
    let mut bytes = std::fs::read(&policy).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&policy, bytes).unwrap();
    let damaged = evaluate("whole", &["--run", "x"]);
    assert_eq!(damaged.code, Some(1));
    refused(Output { code: Some(2), ..damaged }, "x", "policy.safetensors");
}

fn train_as(data: &Path, more: &[&str]) -> Output {
    let mut args = vec!["train", "--json", "--data", text(data)];
    args.extend(more);
    Process::lab(&args).wait()
}

fn has_config(run: &Path) -> bool {
    run.join("config.toml").exists()
}

#[test]
fn a_run_is_not_resumed_with_another_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = write_config(folder.path(), &moslim_tests::smoke());
    let mut first = start(folder.path(), &["--config", text(&file)]);
    assert_eq!(first.wait().code, Some(0), "{}", first.stderr());
    let output = start(folder.path(), &["--seed", "99"]).wait();
    assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""), "{}", output.stderr);
    assert!(output.stderr.contains("run: victim exists with another configuration"), "{}", output.stderr);
}

#[tokio::test]
async fn a_run_with_preference_sft_resumes_in_either_part() {
    let mut config = long_run(40);
    // Long enough for a checkpoint of its own.
    (config.method.preference_sft, config.method.ric.batch, config.method.rehearsal) = (260, 8, Some(0.5));
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let file = write_config(folders[0].path(), &config);
    let mut undisturbed = start(folders[0].path(), &["--config", text(&file)]);

    let data = folders[1].path();
    kill_at_checkpoint(start(data, &["--config", text(&file)]), data, "preference-sft").await;
    let mut resumed = start(data, &[]);
    let kept = |data: &Path| {
        let entries = std::fs::read_dir(data.join("cache")).ok()?;
        entries
            .flatten()
            .map(|e| e.path())
            .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("preference-sft-")))
    };
    let changed = |path: &Path| path.metadata().ok()?.modified().ok();
    wait_until("a checkpoint of policy optimisation", || {
        assert!(resumed.running(), "the run ended before it could be killed; make it longer\n{}", resumed.stderr());
        let finished = changed(&kept(data)?)?;
        (changed(&data.join("runs/victim/checkpoint-policy.bin"))? > finished).then_some(())
    })
    .await;
    resumed.kill();

    let output = start(data, &[]).wait();
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(!output.stderr.contains("/260"), "preference SFT was finished\n{}", output.stderr);
    let expected = undisturbed.wait();
    assert_eq!(expected.code, Some(0), "{}", expected.stderr);
    let [expected, got] = [expected, output].map(|o| serde_json::from_str::<Value>(&o.stdout).expect("one summary"));
    assert_eq!(metrics(&got), metrics(&expected));
}
