//! Several processes that train one run together, started by mpirun.

use moslim_tests::{Output, Process, binary, long_run, metrics, processes, signal, text, wait_until, write_config};
use serde_json::Value;
use std::path::Path;

/// `moslim-lab` with these arguments as so many ranks.
fn ranks(count: &str, args: &[&str]) -> Process {
    let environment = [("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"), ("RAYON_NUM_THREADS", "1")];
    let program = binary();
    Process::start_in(Path::new("mpirun"), &[&["--oversubscribe", "-n", count, text(&program)], args].concat(), "", &environment)
}

fn summary(output: Output) -> Value {
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    metrics(&serde_json::from_str(&output.stdout).unwrap())
}

#[tokio::test]
#[ignore = "needs OpenMPI and a build that has it; cargo lab test --mpi has both"]
async fn ranks_have_the_figures_of_one_process_and_lose_nothing_when_one_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), &long_run(1500));
    let (alone, together) = (folder.path().join("alone"), folder.path().join("together"));
    let train = |data| ["train", "--config", text(&config), "--run", "a", "--json", "--data", data];
    let expected = summary(Process::lab(&train(text(&alone))).wait());

    // One of three is killed in the middle: all end.
    let mut killed = ranks("3", &train(text(&together)));
    let events = together.join("runs/a/events.jsonl");
    let trains = || {
        let said = std::fs::read_to_string(&events).unwrap_or_default();
        (said.matches("\"body\":{\"policy\"").count() > 20).then_some(())
    };
    wait_until("policy optimisation", trains).await;
    // The launcher's line holds the path as well.
    let mut all = processes(&["--run", text(&together)]);
    all.retain(|pid| *pid != killed.pid());
    assert_eq!(all.len(), 3);
    assert!(signal(all[2], "KILL"));
    assert_ne!(killed.wait().code, Some(0));
    assert!(together.join("runs/a/checkpoint-policy.bin").is_file());
    assert!(!together.join("runs/a/summary.json").exists());

    // The run goes on from its checkpoint, with another number of ranks, and has the figures and the weights of one process.
    assert_eq!(summary(ranks("2", &train(text(&together))).wait()), expected);
    let weights = |data: &Path| std::fs::read(data.join("runs/a/policy.safetensors")).unwrap();
    assert!(weights(&alone) == weights(&together), "bit for bit");

    // Bad input is said once, by the first, and ends all.
    let wrong = ranks("2", &["train", "--preset", "nothing", "--data", text(&folder.path().join("wrong"))]).wait();
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert_eq!(wrong.stderr.matches("unknown preset").count(), 1, "{}", wrong.stderr);
}
