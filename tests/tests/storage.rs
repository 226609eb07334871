//! What happens to disks, files and databases under a running lab: full, locked, spoilt. Bits that flip are in `bits.rs`.

use anyhow::{Context, Result, ensure};
use moslim_shared::event::RunStatus;
use moslim_tests::{LIMIT, Lab, Process, long_run, metrics, scattered, smoke, soak, text};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A small file system in memory. It is unmounted when this is dropped.
struct Small(tempfile::TempDir);

impl Small {
    /// `None` where this user may not mount one.
    fn mount(megabytes: u32) -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs", text(folder.path())]).output();
        Ok(mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder)))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that is left, until the file it returns is removed.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path)?;
        for size in [1 << 20, 1 << 12] {
            while std::io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
        }
        Ok(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", text(self.path())]).status();
    }
}

/// How soon after there is room again a run shall write; and how soon it has to, for machines are shared.
const WANTED: Duration = Duration::from_secs(2);
const AT_LATEST: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_disk_that_is_full_for_a_while_costs_nothing() -> Result<()> {
    // What a long run says has to fit, too.
    let Some(disk) = Small::mount(24 + 2 * (soak() as u32 - 1))? else {
        eprintln!("this user may mount nothing: that a full disk is survived was not tested");
        return Ok(());
    };
    let lab = Lab::start_in(disk.path()).await;
    let mut config = smoke();
    // Each time for another while, up to ten seconds.
    let more = (0..2 * (soak() - 1)).map(|n| (45 + 60 * n as usize, 500 + scattered(n) % 9_500));
    let times: Vec<(usize, u64)> = [(5, 600), (25, 2_500)].into_iter().chain(more).collect();
    // A fast machine does some of them while it is looked at.
    config.policy.iterations = 90 * times.len();
    let (mut worst, mut waited) = (Duration::ZERO, 0);
    let id = lab.start_run(&config).await;
    for (n, (reach, full)) in times.into_iter().enumerate() {
        if !lab.reaches_policy(&id, reach).await {
            ensure!(n >= 2, "the run ended before the disk was full twice; make it longer");
            eprintln!("the disk was full {n} times before the run had ended");
            break;
        }
        let filler = disk.fill()?;
        tokio::time::sleep(Duration::from_millis(full)).await;
        let health = lab.get("/api/v1/health").await;
        ensure!(health.status == 200, "while the disk is full: {}", health.body);
        let before = lab.run(&id).await.last_seq;
        std::fs::remove_file(filler)?;
        let began = Instant::now();
        while lab.run(&id).await.last_seq <= before {
            ensure!(began.elapsed() < AT_LATEST, "nothing is written although there has been room for {AT_LATEST:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (worst, waited) = (worst.max(began.elapsed()), waited + 1);
    }
    if std::env::var_os("MOSLIM_SOAK").is_some() {
        let [worst, wanted] = [worst, WANTED].map(|time| time.as_millis());
        println!("writing again after {waited} full disks: {worst} ms at worst, where {wanted} ms are wanted");
    }
    lab.wait_for_finish(&id).await;
    // None is missing, none came twice; and the server takes the next run, without a restart.
    let steps = moslim_tests::policy_steps(&lab.events(&id).await);
    ensure!(steps == (1..=config.policy.iterations).collect::<Vec<_>>(), "{steps:?}");
    let next = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&next).await;
    Ok(())
}

/// A run that waits is not spent on a disk on which it could not begin; a server that starts there shows what there is; and what trains can
/// be killed. With room again all goes on.
#[tokio::test]
async fn on_a_full_disk_a_server_starts_and_who_waits_goes_on_waiting() -> Result<()> {
    let Some(disk) = Small::mount(24)? else {
        eprintln!("this user may mount nothing: what a server does on a full disk was not tested");
        return Ok(());
    };
    let mut lab = Lab::start_in(disk.path()).await;
    let done = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&done).await;
    let mut long = smoke();
    long.policy.iterations = 100_000;
    let trains = lab.start_run(&long).await;
    lab.wait_for_policy(&trains, 3).await;
    let queued = lab.post("/api/v1/runs", &json!({ "config": smoke(), "queue": true })).await;
    ensure!(queued.status == 201, "{}", queued.body);
    let waits = queued.body["id"].as_str().context("no id")?.to_string();
    let filler = disk.fill()?;
    let killed = lab.post(&format!("/api/v1/runs/{trains}/kill"), &Value::Null).await;
    ensure!(killed.status == 202, "{}", killed.body);
    ensure!(lab.wait_for_end(&trains).await.status != RunStatus::Finished);
    let resumed = lab.post(&format!("/api/v1/runs/{trains}/resume"), &Value::Null).await;
    ensure!(resumed.status == 409 && resumed.body["detail"].as_str().is_some_and(|d| d.contains("are free")), "{}", resumed.body);
    for path in ["/api/v1/uploads?name=rows.jsonl", "/api/v1/run-files"] {
        let sent = lab.request(reqwest::Method::POST, path).header("origin", lab.origin());
        let refused = lab.send(sent.header("content-type", "application/octet-stream").body("{}")).await;
        ensure!(
            refused.status == 409 && refused.body["detail"].as_str().is_some_and(|d| d.contains("are free")),
            "{}",
            refused.body
        );
    }
    // Its slot is free now, and turns are taken twice a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(lab.run(&waits).await.status == RunStatus::Queued, "{:?}", lab.run(&waits).await);
    lab.restart().await;
    ensure!(lab.run(&done).await.status == RunStatus::Finished);
    ensure!(lab.run(&waits).await.status == RunStatus::Queued);
    std::fs::remove_file(filler)?;
    let began = Instant::now();
    while lab.run(&waits).await.status != RunStatus::Finished {
        ensure!(began.elapsed() < LIMIT, "{:?}", lab.run(&waits).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn another_program_that_locks_the_index_holds_nothing_up() -> Result<()> {
    let mut lab = Lab::start().await;
    let path = lab.data().join("index.db");
    let mut other = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await?;
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await?;
    let began = Instant::now();
    // The longer it is locked, the more runs come and go meanwhile: up to a minute.
    let mut id = String::new();
    for _ in 0..soak() {
        if began.elapsed() > Duration::from_secs(60) {
            break;
        }
        let started = Instant::now();
        id = lab.start_run(&smoke()).await;
        lab.wait_for_finish(&id).await;
        let told = lab.get("/api/v1/runs").await;
        ensure!(told.body["rows"][0]["status"] == "finished", "{}", told.body);
        ensure!(started.elapsed() < LIMIT);
    }
    sqlx::query("COMMIT").execute(&mut other).await?;
    // It catches up by itself.
    let began = Instant::now();
    while sqlx::query("SELECT id FROM runs WHERE info LIKE '%finished%'").fetch_optional(&mut other).await?.is_none() {
        ensure!(began.elapsed() < LIMIT, "the index is not written after the lock is gone");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A lock while a server starts: the folders are the truth, and it begins without.
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await?;
    lab.restart().await;
    ensure!(lab.run(&id).await.status == RunStatus::Finished);
    Ok(())
}

#[tokio::test]
async fn a_damaged_index_is_set_aside_and_made_anew_from_the_folders() -> Result<()> {
    let mut lab = Lab::start().await;
    let mut before = Vec::new();
    for _ in 0..2 {
        let id = lab.start_run(&smoke()).await;
        before.push(lab.wait_for_finish(&id).await);
    }
    let path = lab.data().join("index.db");
    let mut other = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await?;
    let both = "SELECT id FROM runs WHERE info LIKE '%finished%' LIMIT 1 OFFSET 1";
    let began = Instant::now();
    while sqlx::query(both).fetch_optional(&mut other).await?.is_none() {
        ensure!(began.elapsed() < LIMIT, "the index is not written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lab.kill();
    // What the server had written to the database's log alone would hide what is wrong with its file.
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut other).await?;
    other.close().await?;
    let mut bytes = std::fs::read(&path)?;
    // The second page, where the table of runs begins.
    bytes.get_mut(4096..8192).context("the file has no second page")?.fill(0xa5);
    std::fs::write(&path, &bytes)?;
    lab.restart().await;
    let listed = lab.get("/api/v1/runs").await.body;
    ensure!(listed["total"] == before.len(), "{listed}");
    for run in &before {
        ensure!(lab.run(&run.id).await == *run, "run {} is not what it was", run.id);
    }
    let aside = std::fs::read(lab.data().join("index-damaged.db"))?;
    ensure!(aside.get(4096..8192) == bytes.get(4096..8192), "the damaged index is not kept");
    let said = lab.stderr();
    ensure!(said.contains("it is damaged") && said.contains("index-damaged.db"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_spoilt_checkpoint_costs_the_steps_since_the_one_before() -> Result<()> {
    let lab = Lab::start().await;
    let mut config = smoke();
    (config.policy.iterations, config.policy.checkpoint_every) = (400, 2);
    let id = lab.start_run(&config).await;
    lab.wait_for_policy(&id, 9).await;
    for pid in lab.workers() {
        moslim_tests::signal(pid, "KILL");
    }
    lab.wait_for_end(&id).await;
    let folder = lab.data().join("runs").join(&id);
    let newest = folder.join("checkpoint-policy.bin");
    let older = folder.join("checkpoint-policy-older.bin");
    ensure!(older.is_file(), "one checkpoint alone is kept");
    // It may have been killed between the renaming of the last one and the writing of the next.
    let mut bytes = std::fs::read(if newest.is_file() { &newest } else { &older })?;
    // In its header, where the step is.
    bytes[200] ^= 2;
    std::fs::write(&newest, bytes)?;
    // Events of before the kill must not be taken for its going on.
    let reached = moslim_tests::policy_steps(&lab.events(&id).await).len();
    lab.resume(&id).await;
    lab.wait_for_policy(&id, reached + 1).await;
    let events = serde_json::to_string(&lab.events(&id).await)?;
    ensure!(events.contains("goes on from the checkpoint before it"), "it is not said");
    ensure!(lab.post(&format!("/api/v1/runs/{id}/cancel"), &Value::Null).await.status < 300);
    Ok(())
}

#[tokio::test]
async fn what_is_deleted_can_be_had_back() -> Result<()> {
    use reqwest::Method;
    let lab = Lab::start().await;
    let id = lab.start_run(&smoke()).await;
    let delete = || lab.request(Method::DELETE, &format!("/api/v1/runs/{id}")).header("origin", lab.origin());
    ensure!(lab.send(delete()).await.status == 409, "it trains");
    lab.wait_for_finish(&id).await;
    let before = lab.events(&id).await.len();
    ensure!(lab.send(delete()).await.status == 204);
    ensure!(lab.get(&format!("/api/v1/runs/{id}")).await.status == 404);
    ensure!(lab.get("/api/v1/runs").await.body["total"] == 0);
    ensure!(lab.send(delete()).await.status == 404);
    let back = lab.post(&format!("/api/v1/runs/{id}/restore"), &json!({})).await;
    ensure!(back.status == 200 && back.body["status"] == "finished", "{}", back.body);
    ensure!(lab.events(&id).await.len() == before);
    ensure!(lab.post(&format!("/api/v1/runs/{id}/restore"), &json!({})).await.status == 404);
    Ok(())
}

/// A backup that was taken while a run trained is a lab in which that run goes on, to the same figures.
#[tokio::test]
async fn a_backup_taken_while_a_run_trains_is_a_lab_where_it_goes_on() -> Result<()> {
    let lab = Lab::start().await;
    let done = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&done).await;
    let id = lab.start_run(&long_run(300)).await;
    lab.wait_for_policy(&id, 20).await;
    let place = tempfile::tempdir()?;
    let (copy, again) = (place.path().join("copy"), place.path().join("again"));
    let command = |args: &[&str]| Process::lab(args).wait();
    let backup = || command(&["backup", "--to", text(&copy), "--data", text(lab.data())]);
    let first = backup();
    ensure!(first.code == Some(0), "{}", first.stderr);
    ensure!(lab.run(&id).await.status == RunStatus::Running, "the run ended before its backup");
    lab.wait_for_finish(&id).await;
    let restored = command(&["restore", "--from", text(&copy), "--data", text(&again)]);
    ensure!(restored.code == Some(0), "{}", restored.stderr);
    let well = command(&["doctor", "--deep", "--data", text(&again)]);
    ensure!(well.code == Some(0) && well.stdout.contains("every file is what was written"), "{}{}", well.stdout, well.stderr);
    ensure!(command(&["train", "--run", &id, "--data", text(&again)]).code == Some(0), "it does not go on");
    let figures = |data: &Path| -> Result<Value> {
        Ok(metrics(&serde_json::from_slice(&std::fs::read(data.join("runs").join(&id).join("summary.json"))?)?))
    };
    ensure!(figures(&again)? == figures(lab.data())?, "the figures differ");
    // What is there already is not copied again, and what is damaged is said.
    ensure!(backup().code == Some(0), "a second backup");
    let third = backup();
    ensure!(third.stdout.starts_with("0 files copied"), "{}", third.stdout);
    let policy = lab.data().join("runs").join(&done).join("policy.safetensors");
    let mut bytes = std::fs::read(&policy)?;
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    std::fs::write(&policy, bytes)?;
    for output in [backup(), command(&["doctor", "--deep", "--data", text(lab.data())])] {
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(
            output.code == Some(1) && said.contains(&format!("{done}: policy.safetensors is not what was written")),
            "{said}"
        );
    }
    for (args, words) in [
        (vec!["backup", "--to", text(&lab.data().join("b")), "--data", text(lab.data())], "to: lies in the data folder"),
        (vec!["backup", "--to", text(&copy), "--data", "/nowhere/at/all"], "data: there is no folder"),
        (vec!["restore", "--from", text(place.path()), "--data", text(&place.path().join("new"))], "from: "),
        (vec!["restore", "--from", text(&copy), "--data", text(&again)], "has runs already"),
    ] {
        let output = command(&args);
        ensure!(output.code == Some(2) && output.stderr.contains(words), "{args:?}: {}", output.stderr);
    }
    Ok(())
}
