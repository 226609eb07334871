//! A study on a real Ray cluster: the figures of a study that is trained here, whoever follows it; stopping; the server; refusals.

use moslim_shared::study::{Host, StudyConfig, StudyRunStatus};
use moslim_tests::studies::{study_figures, study_state, the_server_trains_a_study, two_clips};
use moslim_tests::{Process, text, wait_until};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PORT: u16 = 8267;

/// A cluster of one node with two cores, whose daemons end with it.
struct Ray {
    program: PathBuf,
    _folder: tempfile::TempDir,
    profile: PathBuf,
}

impl Ray {
    fn start() -> Self {
        let program = PathBuf::from(std::env::var_os("MOSLIM_RAY").expect("MOSLIM_RAY names Ray's program"));
        let folder = tempfile::tempdir().unwrap();
        let profile = folder.path().join("ray.toml");
        std::fs::write(&profile, format!("address = \"http://127.0.0.1:{PORT}\"\ncores = 1\n")).unwrap();
        let own = Self { program, _folder: folder, profile };
        let port = format!("--dashboard-port={PORT}");
        own.ray(&[
            "start",
            "--head",
            "--include-dashboard=true",
            "--dashboard-host=127.0.0.1",
            &port,
            "--num-cpus=2",
            "--port=6399",
        ]);
        own
    }

    fn ray(&self, args: &[&str]) {
        let mut command = Command::new(&self.program);
        let status = command.args(args).env("RAY_USAGE_STATS_ENABLED", "0").stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "ray {args:?}");
    }
}

impl Drop for Ray {
    fn drop(&mut self) {
        let _ = Command::new(&self.program).args(["stop", "--force"]).stdout(Stdio::null()).status();
    }
}

fn start(data: &Path, more: &[&str]) -> Process {
    Process::lab(&[&["study", "--data", text(data)], more].concat())
}

/// `cargo lab test --ray` fetches Ray and runs it.
#[tokio::test]
#[ignore = "needs Ray, which cargo lab test --ray fetches"]
async fn a_ray_cluster_trains_a_study() {
    let ray = Ray::start();
    let there = ["--on", "ray", "--profile", text(&ray.profile)];
    let file = |data: &Path, config: &StudyConfig| {
        let file = data.join("study.json");
        std::fs::write(&file, serde_json::to_vec(config).unwrap()).unwrap();
        file
    };

    let config = two_clips("ray", 300);
    let here = tempfile::tempdir().unwrap();
    let done = start(here.path(), &["--config", text(&file(here.path(), &config))]).wait();
    assert_eq!(done.code, Some(0), "{}", done.stderr);

    // Who follows is killed while two train, and comes back: the jobs go on, and none is begun twice.
    let data = tempfile::tempdir().unwrap();
    let study = file(data.path(), &config);
    let mut first = start(data.path(), &[&there[..], &["--config", text(&study)]].concat());
    let training = || {
        let state = study_state(data.path())?;
        let says =
            |run: &str| std::fs::read_to_string(data.path().join("runs").join(run).join("events.jsonl")).unwrap_or_default();
        let policies = state.runs.iter().filter(|r| says(&r.run).contains("\"body\":{\"policy\"")).count();
        (policies > 0 && state.count(StudyRunStatus::Running) == 2).then_some(state)
    };
    let seen = wait_until("two runs on the cluster", training).await;
    assert_eq!(seen.on, Host::Ray);
    first.kill();
    let id = seen.id.clone();
    let second = start(data.path(), &[&there[..], &["--study", &id]].concat()).wait();
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert_eq!(study_figures(data.path()), study_figures(here.path()));
    for run in &seen.runs {
        let task = std::fs::read(data.path().join("runs").join(&run.run).join("ray.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&task).unwrap()["times"], json!(1), "{}", run.run);
    }

    // Stopped from outside while nobody follows: jobs keep what they have and end, and the study goes on where it was.
    let data = tempfile::tempdir().unwrap();
    let study = file(data.path(), &two_clips("ray", 4000));
    let mut follower = start(data.path(), &[&there[..], &["--config", text(&study)]].concat());
    let running = wait_until("a run on the cluster", || {
        let state = study_state(data.path())?;
        (state.count(StudyRunStatus::Running) == 2).then_some(state)
    })
    .await;
    follower.kill();
    let stopped = Process::lab(&["stop", "--study", &running.id, "--data", text(data.path())]).wait();
    assert_eq!(stopped.code, Some(0), "{}", stopped.stderr);
    let gone = || {
        let again = Process::lab(&["stop", "--study", &running.id, "--data", text(data.path())]).wait();
        (again.code != Some(0)).then_some(again)
    };
    let nothing = wait_until("the jobs to end", gone).await;
    assert!(nothing.stderr.contains("is not running"), "{}", nothing.stderr);
    let ends = |run: &str| std::fs::read_to_string(data.path().join("runs").join(run).join("events.jsonl")).unwrap_or_default();
    let interrupted = running.runs.iter().filter(|r| ends(&r.run).contains("\"outcome\":\"interrupted\"")).count();
    assert_eq!(interrupted, 2, "both kept what they had");

    the_server_trains_a_study("ray", "--ray", text(&ray.profile)).await;

    // Nobody there, and what no profile may say.
    let nobody = ray.profile.with_file_name("nobody.toml");
    std::fs::write(&nobody, "address = \"http://127.0.0.1:9\"\n").unwrap();
    let refused = start(data.path(), &["--on", "ray", "--profile", text(&nobody), "--study", &running.id]).wait();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("on: asking Ray at http://127.0.0.1:9/api/jobs/"), "{}", refused.stderr);
    std::fs::write(&nobody, "address = \"ray://x\"\ncores = 0\n").unwrap();
    let refused = start(data.path(), &["--on", "ray", "--profile", text(&nobody), "--study", &running.id]).wait();
    assert!(
        refused.stderr.contains("address: begins with http://") && refused.stderr.contains("cores: must be"),
        "{}",
        refused.stderr
    );
}
