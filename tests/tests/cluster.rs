//! Studies on a real Slurm cluster: the figures of a study that is trained here, whatever happens to nodes, jobs and whoever follows
//! them; stopping; refusals; and the server.

use moslim_shared::study::{StudyConfig, StudyRunStatus, StudyState};
use moslim_tests::cluster::{Cluster, NODES};
use moslim_tests::studies::{study_figures, study_folder, study_state, the_server_trains_a_study, two_clips};
use moslim_tests::{Output, Process, scattered, signal, soak, text, wait_until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How the jobs are wanted.
const PROFILE: &str = "notice = 30\nask_every = 2\nmemory = \"600M\"\n";

/// Runs that keep what they have often.
fn config(iterations: usize) -> StudyConfig {
    let mut config = two_clips("cluster", iterations);
    config.base.policy.checkpoint_every = 5;
    config
}

struct Data {
    folder: tempfile::TempDir,
    study: PathBuf,
    profile: PathBuf,
}

impl Data {
    fn new(config: &StudyConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (study, profile) = (folder.path().join("study.json"), folder.path().join("cluster.toml"));
        std::fs::write(&study, serde_json::to_vec(config).unwrap()).unwrap();
        std::fs::write(&profile, PROFILE).unwrap();
        Self { folder, study, profile }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn start(&self, more: &[&str]) -> Process {
        Process::lab(&[&["study", "--data", text(self.path())], more].concat())
    }

    fn on_the_cluster(&self, more: &[&str]) -> Process {
        self.start(&[&["--on", "slurm", "--profile", text(&self.profile)], more].concat())
    }

    fn folder(&self) -> Option<PathBuf> {
        study_folder(self.path())
    }

    fn state(&self) -> Option<StudyState> {
        study_state(self.path())
    }

    fn figures(&self) -> BTreeMap<(Vec<String>, u64), Value> {
        study_figures(self.path())
    }
}

fn succeeds(output: Output) {
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

/// What a run has said so far.
fn journal(data: &Data, run: &str) -> String {
    std::fs::read_to_string(data.path().join("runs").join(run).join("events.jsonl")).unwrap_or_default()
}

/// Whether a run is in the middle of its policy's optimisation.
fn trains(data: &Data, run: &str) -> bool {
    let said = journal(data, run);
    said.matches("\"body\":{\"policy\"").count() > 20 && !said.contains("\"body\":{\"ended\"")
}

/// Waits until a task trains on both nodes. Each is held as soon as it does, so that none ends before both are there.
async fn held(cluster: &Cluster, training: impl Fn() -> Vec<[String; 4]>) -> Vec<[String; 4]> {
    wait_until("runs that train on both nodes", || {
        let training = training();
        training.iter().for_each(|t| cluster.hold(&t[3]));
        (training.len() == 2).then_some(training)
    })
    .await
}

/// Which of some tasks is on a node.
fn on(tasks: &[[String; 4]], node: &str) -> String {
    tasks.iter().find(|t| t[3] == node).unwrap_or_else(|| panic!("{tasks:?}"))[0].clone()
}

/// Waits until the controller no longer believes that a task runs on a node that is gone.
async fn missed(cluster: &Cluster, task: &str, node: &str) {
    let is_lost = |t: &[String; 4]| t[0] == task && t[2] == "RUNNING" && t[3] == node;
    wait_until("the controller to miss the node", || (!cluster.tasks().iter().any(is_lost)).then_some(())).await;
}

/// A node dies, a job reaches its limit of time, who follows is killed: the figures are those of the same study here. They are returned.
async fn whatever_happens_the_figures_are_the_same(cluster: &Cluster) -> BTreeMap<(Vec<String>, u64), Value> {
    let config = config(1200);
    let here = Data::new(&config);
    succeeds(here.start(&["--config", text(&here.study)]).wait());
    let there = Data::new(&config);
    let mut first = there.on_the_cluster(&["--config", text(&there.study)]);
    // Two jobs for the stages that two runs share, and four for the runs.
    wait_until("the study's jobs", || (cluster.tasks().len() == 6).then_some(())).await;
    assert_eq!(cluster.tasks().iter().filter(|t| t[1].ends_with("-stages")).count(), 2);
    let running = || -> Vec<[String; 4]> {
        let is_run = |t: &[String; 4]| t[2] == "RUNNING" && !t[1].ends_with("-stages");
        cluster.tasks().into_iter().filter(is_run).collect()
    };
    let is_at_it = |t: &[String; 4]| {
        let n: usize = t[0].split_once('_').unwrap().1.parse().unwrap();
        trains(&there, &there.state().unwrap().runs[n].run)
    };
    let both = held(cluster, || running().into_iter().filter(is_at_it).collect()).await;
    // One is told, as before its limit of time, to keep what it has; the other's node is no more; nor is who follows.
    let of = |node: &str| on(&both, node);
    // The signal is delivered at once; `scancel` itself asks again for a minute and a half while other tasks of the array are pending.
    let mut tells = Command::new("scancel").args(["--signal=USR1", "--batch", &of("n1")]).spawn().unwrap();
    cluster.let_go("n1");
    cluster.kill_node("n2");
    first.kill();
    let id = there.state().unwrap().id;
    // While its jobs are on the cluster it is not trained here as well.
    let twice = there.start(&["--study", &id]).wait();
    assert_eq!(twice.code, Some(1), "{}", twice.stderr);
    assert!(twice.stderr.contains("on the cluster"), "{}", twice.stderr);
    let mut second = there.on_the_cluster(&["--study", &id]);
    let goes_on = |t: &[String; 4]| t[0] == of("n1") && t[2] == "RUNNING" && t[3] == "n1";
    wait_until("the run that was told to stop", || (!cluster.tasks().iter().any(goes_on)).then_some(())).await;
    let _ = tells.kill();
    tells.wait().unwrap();
    missed(cluster, &of("n2"), "n2").await;
    cluster.start_node("n2");
    succeeds(second.wait());
    assert_eq!(there.figures(), here.figures());
    let scripts = std::fs::read_dir(there.folder().unwrap().join("slurm")).unwrap().flatten();
    let scripts = scripts.filter(|e| e.path().extension().is_some_and(|e| e == "sh")).count();
    assert_eq!(scripts, 2, "whoever came back has submitted nothing anew");
    for node in ["n1", "n2"] {
        let out = Command::new("scontrol").args(["show", "job", &of(node), "-o"]).output().unwrap();
        let job = String::from_utf8_lossy(&out.stdout);
        assert!(!job.contains("Restarts=0"), "on {node} it was interrupted and went on: {job}");
    }
    here.figures()
}

/// Two runs share a job, and their stages: one job is told to keep what it has, the other's node dies, both in the middle of their second
/// run. Neither trains its first one again, and the `figures` are the same.
async fn runs_share_a_job(cluster: &Cluster, figures: &BTreeMap<(Vec<String>, u64), Value>) {
    let config = config(1200);
    let data = Data::new(&config);
    std::fs::write(&data.profile, PROFILE.to_string() + "runs_per_job = 2\n").unwrap();
    let before = cluster.tasks().len();
    let mut study = data.on_the_cluster(&["--config", text(&data.study)]);
    let own = || cluster.tasks().split_off(before);
    wait_until("the study's jobs", || (own().len() == 2).then_some(())).await;
    // The number of the job that a run is in, and whether it is the second there.
    let place = |run: &str| -> Option<(u64, bool)> {
        let task: Value =
            serde_json::from_slice(&std::fs::read(data.path().join("runs").join(run).join("slurm.json")).ok()?).ok()?;
        Some((task["index"].as_u64()?, task["place"]["number"] != task["place"]["first"]))
    };
    let seconds = |job: &str| {
        let state = data.state()?;
        let runs: Vec<String> = state.runs.iter().map(|r| r.run.clone()).collect();
        runs.into_iter().find(|run| place(run).is_some_and(|(n, second)| second && job.ends_with(&format!("_{n}"))))
    };
    let is_at_it = |t: &[String; 4]| t[2] == "RUNNING" && seconds(&t[0]).is_some_and(|run| trains(&data, &run));
    let both = held(cluster, || own().into_iter().filter(is_at_it).collect()).await;
    let of = |node: &str| on(&both, node);
    let mut tells = Command::new("scancel").args(["--signal=USR1", "--batch", &of("n1")]).spawn().unwrap();
    cluster.let_go("n1");
    cluster.kill_node("n2");
    missed(cluster, &of("n2"), "n2").await;
    cluster.start_node("n2");
    succeeds(study.wait());
    let _ = tells.kill();
    tells.wait().unwrap();
    assert_eq!(&data.figures(), figures);
    for run in data.state().unwrap().runs {
        let began = journal(&data, &run.run).matches("\"body\":{\"started\"").count();
        let (_, second) = place(&run.run).unwrap();
        assert_eq!(began > 1, second, "{} began {began} times", run.run);
    }
}

/// Of four runs of one job one waits and is not wanted any more, one is cancelled and one killed while it trains: the others go on.
async fn runs_of_a_job_are_stopped_one_by_one() {
    let data = Data::new(&config(2000));
    std::fs::write(&data.profile, PROFILE.to_string() + "runs_per_job = 4\n").unwrap();
    let mut follower = data.on_the_cluster(&["--config", text(&data.study)]);
    let runs = wait_until("a run that trains", || {
        let runs: Vec<String> = data.state()?.runs.iter().map(|r| r.run.clone()).collect();
        let first = runs.iter().position(|run| trains(&data, run))?;
        Some((first, runs))
    })
    .await;
    let order: Vec<String> = {
        let number = |run: &String| {
            let file = data.path().join("runs").join(run).join("slurm.json");
            serde_json::from_slice::<Value>(&std::fs::read(file).unwrap()).unwrap()["place"]["number"].as_u64().unwrap()
        };
        let mut order = runs.1.clone();
        order.sort_by_key(number);
        order
    };
    assert_eq!(order[0], runs.1[runs.0]);
    let waits = || {
        let state = data.state()?;
        let slot = state.runs.into_iter().find(|r| r.run == order[2])?;
        (slot.status == StudyRunStatus::Waiting && slot.message.contains("another run before it")).then_some(())
    };
    wait_until("word that a run waits for its job", waits).await;
    let stop = |run: &str| Process::lab(&["stop", "--run", run, "--data", text(data.path())]).wait();
    succeeds(stop(&order[2]));
    succeeds(stop(&order[0]));
    wait_until("the second run", || trains(&data, &order[1]).then_some(())).await;
    assert!(journal(&data, &order[0]).contains("\"outcome\":\"cancelled\""));
    succeeds(Process::lab(&["kill", &order[1], "--data", text(data.path())]).wait());
    wait_until("the fourth run", || trains(&data, &order[3]).then_some(())).await;
    assert_eq!(journal(&data, &order[2]), "", "it was not wanted");
    let again = stop(&order[0]);
    assert!(again.stderr.contains("is not running"), "{}", again.stderr);
    succeeds(stop(&order[3]));
    let ended = follower.wait();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("3 runs were stopped before they had finished"), "{}", ended.stderr);
    let state = data.state().unwrap();
    let of = |run: &str| state.runs.iter().find(|r| r.run == run).unwrap().clone();
    for (n, status, words) in [
        (0, StudyRunStatus::Waiting, ""),
        (1, StudyRunStatus::Failed, "code 137"),
        (2, StudyRunStatus::Waiting, "stopped before it began"),
        (3, StudyRunStatus::Waiting, ""),
    ] {
        let run = of(&order[n]);
        assert!(run.status == status && run.message.contains(words), "{run:?}");
    }
}

/// The controller dies and comes back; who follows may leave; `stop` ends the jobs; and the study goes on where it was.
async fn a_study_is_left_and_stopped_and_goes_on(cluster: &Cluster) {
    let data = Data::new(&config(2000));
    let own = |state: &str| cluster.tasks().iter().filter(|t| t[2] == state && !t[1].ends_with("-stages")).count();
    let before = cluster.tasks().len();
    let mut follower = data.on_the_cluster(&["--config", text(&data.study)]);
    wait_until("runs on the cluster", || (cluster.tasks().len() > before && own("RUNNING") == 2).then_some(())).await;
    // The controller dies. Jobs go on; who follows says that it is silent, takes none of them for lost, and hears when it is back.
    NODES.iter().for_each(|node| cluster.hold(node));
    let running = cluster.tasks().into_iter().skip(before).find(|task| task[2] == "RUNNING").unwrap();
    wait_until("the controller to write down what it knows", || cluster.keeps(&running[0], "kept-from-here").then_some(())).await;
    cluster.kill_controller();
    wait_until("word of the silence", || follower.stderr().contains("the cluster does not answer").then_some(())).await;
    assert!(follower.running());
    cluster.start_controller();
    wait_until("word of its end", || follower.stderr().contains("the cluster answers again").then_some(())).await;
    NODES.iter().for_each(|node| cluster.let_go(node));
    assert_eq!(own("RUNNING"), 2, "{:?}", cluster.tasks());
    assert!(signal(follower.pid(), "INT"));
    let left = follower.wait();
    assert_eq!(left.code, Some(1), "{}", left.stderr);
    assert!(left.stderr.contains("its jobs go on"), "{}", left.stderr);
    assert_eq!(own("RUNNING"), 2);
    let state = data.state().unwrap();
    assert_eq!((state.active, state.count(StudyRunStatus::Running)), (false, 0), "{state:?}");
    succeeds(Process::lab(&["stop", "--study", &state.id, "--data", text(data.path())]).wait());
    assert!(!data.folder().unwrap().join("process.json").exists(), "a server that starts would take it up again");
    wait_until("the end of its jobs", || (own("RUNNING") + own("PENDING") == 0).then_some(())).await;
    let again = Process::lab(&["stop", "--study", &state.id, "--data", text(data.path())]).wait();
    assert!(again.stderr.contains("is not running"), "{}", again.stderr);
    // A run that was told in time has kept what it had.
    let kept = std::fs::read_dir(data.path().join("runs")).unwrap().flatten();
    let kept = kept.filter(|run| run.path().join("checkpoint-policy.bin").is_file()).count();
    assert!(kept >= 2, "{kept}");
}

/// One run is cancelled while others of its study wait: it ends by itself, and they go on.
async fn one_run_is_stopped_and_the_others_go_on(cluster: &Cluster) {
    let data = Data::new(&config(2000));
    let before = cluster.tasks().len();
    let mut follower = data.on_the_cluster(&["--config", text(&data.study)]);
    let running = |data: &Data| {
        let state = data.state()?;
        state.runs.iter().map(|r| r.run.clone()).find(|run| trains(data, run))
    };
    let run = wait_until("a run that trains", || running(&data)).await;
    let own = |state: &str| cluster.tasks()[before..].iter().filter(|t| t[2] == state && !t[1].ends_with("-stages")).count();
    assert!(own("PENDING") >= 1, "{:?}", cluster.tasks());
    succeeds(Process::lab(&["stop", "--run", &run, "--data", text(data.path())]).wait());
    let ended = || journal(&data, &run).contains("\"outcome\":\"cancelled\"").then_some(());
    wait_until("its own end", ended).await;
    wait_until("another run in its place", || (own("RUNNING") == 2).then_some(())).await;
    let id = data.state().unwrap().id;
    succeeds(Process::lab(&["stop", "--study", &id, "--data", text(data.path())]).wait());
    wait_until("the end of its jobs", || (own("RUNNING") + own("PENDING") == 0).then_some(())).await;
    follower.kill();
}

/// What cannot be is said, and nothing is left of it.
fn what_cannot_be_is_refused(cluster: &Cluster) {
    let data = Data::new(&config(8));
    let before = cluster.tasks().len();
    let refuse = |profile: &str, words: &[&str], code: i32| {
        std::fs::write(&data.profile, profile).unwrap();
        let output = data.on_the_cluster(&["--config", text(&data.study)]).wait();
        assert_eq!(output.code, Some(code), "{profile}: {}", output.stderr);
        for word in words {
            assert!(output.stderr.contains(word), "{profile}: {}", output.stderr);
        }
        assert_eq!(cluster.tasks().len(), before, "{profile}");
    };
    refuse("partitions = \"lab\"", &["cluster.toml", "partitions", "partition"], 2);
    refuse("cores = 0", &["cluster.toml", "cores", "at least 1"], 2);
    refuse("memory = \"4G --wrap=x\"", &["memory", "letters, digits"], 2);
    refuse("options = [\"x\"]", &["options", "no option"], 2);
    refuse("partition = ", &["cluster.toml", "TOML"], 2);
    refuse("partition = \"nowhere\"", &["sbatch says", "nowhere"], 1);
    for run in std::fs::read_dir(data.path().join("runs")).unwrap().flatten() {
        assert!(!run.path().join("slurm.json").exists(), "{run:?} waits for nothing");
    }
    let mut nowhere = Process::lab_in(
        &["study", "--on", "slurm", "--config", text(&data.study), "--data", text(data.path())],
        &[("PATH", "/nowhere")],
    );
    let output = nowhere.wait();
    assert_eq!(output.code, Some(2), "{}", output.stderr);
    assert!(output.stderr.contains("is Slurm installed here?"), "{}", output.stderr);
    let here = data.start(&["--config", text(&data.study), "--profile", text(&data.profile)]).wait();
    assert!(here.stderr.contains("--on slurm"), "{}", here.stderr);
}

#[tokio::test]
#[ignore = "needs Slurm and root; cargo lab test --cluster has both"]
async fn a_cluster_trains_studies() {
    let cluster = Cluster::start();
    what_cannot_be_is_refused(&cluster);
    let figures = whatever_happens_the_figures_are_the_same(&cluster).await;
    runs_share_a_job(&cluster, &figures).await;
    runs_of_a_job_are_stopped_one_by_one().await;
    a_study_is_left_and_stopped_and_goes_on(&cluster).await;
    one_run_is_stopped_and_the_others_go_on(&cluster).await;
    the_server_trains_a_study("slurm", "--cluster", text(&Data::new(&config(8)).profile)).await;
}

/// `cargo lab soak --cluster`: the controller is killed at any moment, again and again, while jobs of one study wait, begin, train and end;
/// each time it comes back a while later with what it had written down by then. The figures are those of the same study here.
#[tokio::test]
#[ignore = "needs Slurm and root, and takes long; cargo lab soak --cluster has both"]
async fn a_controller_that_is_killed_again_and_again() {
    let (cluster, kills, limit) = (Cluster::start(), soak(), Duration::from_secs(3_600));
    // Two runs for each time, so that some of them end while nobody is there to hear of it.
    let config = StudyConfig { seeds: (1..=kills.min(400)).collect(), ..config(400) };
    let here = Data::new(&config);
    succeeds(here.start(&["--config", text(&here.study), "--jobs", "2"]).wait_at_most(limit));
    let there = Data::new(&config);
    let mut study = there.on_the_cluster(&["--config", text(&there.study)]);
    // Stages that two runs share, and the runs.
    wait_until("the study's jobs", || (cluster.tasks().len() == 3 * config.seeds.len()).then_some(())).await;
    let begun = || there.state()?.runs.iter().any(|r| !journal(&there, &r.run).is_empty()).then_some(());
    wait_until("a job that trains", begun).await;
    // What was submitted a moment before the first kill would be lost with it.
    NODES.iter().for_each(|node| cluster.hold(node));
    let running = cluster.tasks().into_iter().find(|t| t[2] == "RUNNING").unwrap();
    wait_until("the controller to write down what it knows", || cluster.keeps(&running[0], "kept-from-here").then_some(())).await;
    NODES.iter().for_each(|node| cluster.let_go(node));
    for n in 0..kills {
        tokio::time::sleep(Duration::from_millis(200 + scattered(2 * n) % 3_000)).await;
        assert!(study.running(), "the study ended after {n} kills; make it longer\n{}", study.stderr());
        cluster.kill_controller();
        tokio::time::sleep(Duration::from_millis(300 + scattered(2 * n + 1) % 2_000)).await;
        cluster.start_controller();
        cluster.take_into_service();
    }
    let began = Instant::now();
    while study.running() && began.elapsed() < limit {
        cluster.take_into_service();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    succeeds(study.wait());
    assert_eq!(there.figures(), here.figures());
    let runs = there.state().unwrap().runs;
    let again = runs.iter().filter(|r| journal(&there, &r.run).matches("\"body\":{\"started\"").count() > 1).count();
    println!(
        "{kills} kills of the controller while {} runs trained; {again} of them were begun again, and no figure differs",
        runs.len()
    );
}

/// Two ranks train each run of a study; they are told to keep what they have, and go on. The figures are those of one process. Both are on
/// one node: the two nodes of this cluster are one machine, and PMIx wants a folder on each.
#[tokio::test]
#[ignore = "needs Slurm, root, OpenMPI and a build that has it; cargo lab test --cluster --mpi has all"]
async fn ranks_train_one_run() {
    let cluster = Cluster::start();
    let config = StudyConfig { seeds: vec![1], axes: Vec::new(), ..config(1200) };
    let here = Data::new(&config);
    succeeds(here.start(&["--config", text(&here.study)]).wait());
    let there = Data::new(&config);
    std::fs::write(&there.profile, PROFILE.to_string() + "ranks = 2\noptions = [\"--nodes=1\", \"--overcommit\"]\n").unwrap();
    let mut study = there.on_the_cluster(&["--config", text(&there.study)]);
    let at_it = || trains(&there, &there.state()?.runs.first()?.run).then_some(());
    wait_until("a run that trains", at_it).await;
    let task = cluster.tasks().into_iter().find(|t| t[2] == "RUNNING").unwrap();
    let mut tells = Command::new("scancel").args(["--signal=USR1", "--batch", &task[0]]).spawn().unwrap();
    succeeds(study.wait());
    let _ = tells.kill();
    tells.wait().unwrap();
    assert_eq!(there.figures(), here.figures());
    let out = Command::new("scontrol").args(["show", "job", &task[0], "-o"]).output().unwrap();
    let job = String::from_utf8_lossy(&out.stdout);
    assert!(!job.contains("Restarts=0"), "it was interrupted and went on: {job}");
}

/// `cargo lab bench --cluster`: a hundred runs as one array, beside the same study here; and once more with a node lost in the middle,
/// which changes no figure.
#[tokio::test]
#[ignore = "measures; cargo lab bench --cluster runs it"]
async fn a_hundred_runs_as_one_array() {
    let cluster = Cluster::start();
    let config = StudyConfig { seeds: (1..=50).collect(), ..config(40) };
    let limit = Duration::from_secs(1_800);
    let here = Data::new(&config);
    let began = Instant::now();
    succeeds(here.start(&["--config", text(&here.study), "--jobs", "2"]).wait_at_most(limit));
    let alone = began.elapsed().as_secs_f64();
    for (per_job, loses) in [(1, false), (10, false), (10, true)] {
        let there = Data::new(&config);
        std::fs::write(&there.profile, format!("{PROFILE}runs_per_job = {per_job}\n")).unwrap();
        let before = cluster.tasks().len();
        let jobs = if per_job == 1 { 150 } else { 100 / per_job };
        let began = Instant::now();
        let mut study = there.on_the_cluster(&["--config", text(&there.study)]);
        wait_until("the study's jobs", || (cluster.tasks().len() == before + jobs).then_some(())).await;
        let submitted = began.elapsed().as_secs_f64();
        if loses {
            let done = || cluster.tasks().iter().skip(before).filter(|t| t[2] == "COMPLETED").count();
            while done() < jobs / 2 {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            cluster.kill_node("n2");
            wait_until("the controller to miss the node", || {
                let on_it = |t: &[String; 4]| t[2] == "RUNNING" && t[3] == "n2";
                (!cluster.tasks().iter().any(on_it)).then_some(())
            })
            .await;
            cluster.start_node("n2");
        }
        succeeds(study.wait_at_most(limit));
        let seconds = began.elapsed().as_secs_f64();
        assert_eq!(there.figures(), here.figures());
        let lost = if loses { ", a node lost in the middle" } else { "" };
        println!(
            "100 runs: here {alone:.0} s, two at a time; as one array of {jobs} jobs on two nodes of one core{lost} {seconds:.0} s, {:.2} \
             times as long, of which the first {submitted:.1} s until all are in the queue",
            seconds / alone
        );
    }
}
