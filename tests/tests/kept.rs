//! What was said and written last is there afterwards: of runs although the index is behind, in a backup, and under the eyes of the doctor.

use anyhow::{Context, Result, ensure};
use moslim_tests::{LIMIT, Lab, Output, Process, smoke, text};
use reqwest::Method;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

fn command(args: &[&str]) -> Output {
    Process::lab(args).wait()
}

/// Trains a small run in a data folder.
fn train(data: &Path, run: &str) -> Result<()> {
    let trained = command(&["train", "--preset", "smoke", "--run", run, "--device", "cpu", "--data", text(data)]);
    ensure!(trained.code == Some(0), "{}", trained.stderr);
    Ok(())
}

/// Flips a bit in the middle of a file, which keeps its time.
fn flip(path: &Path) -> Result<()> {
    let (mut bytes, time) = (fs::read(path)?, fs::metadata(path)?.modified()?);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes)?;
    Ok(File::options().write(true).open(path)?.set_modified(time)?)
}

#[tokio::test]
async fn a_name_that_the_index_does_not_have_yet_outlives_the_server() -> Result<()> {
    let mut lab = Lab::start().await;
    let id = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&id).await;
    let path = lab.data().join("index.db");
    let mut other = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await?;
    let began = Instant::now();
    while sqlx::query("SELECT id FROM runs WHERE info LIKE '%finished%'").fetch_optional(&mut other).await?.is_none() {
        ensure!(began.elapsed() < LIMIT, "the index is not written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The index comes too late, however slow this machine is.
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await?;
    let about = json!({ "name": "the one that counts", "note": "why", "tags": ["kept"] });
    let request = lab.request(Method::PUT, &format!("/api/v1/runs/{id}/about")).header("origin", lab.origin());
    let said = lab.send(request.json(&about)).await;
    ensure!(said.status == 200, "{}", said.body);
    lab.kill();
    sqlx::query("ROLLBACK").execute(&mut other).await?;
    other.close().await?;
    lab.restart().await;
    let run = lab.run(&id).await;
    ensure!((run.about.name.as_str(), run.about.note.as_str()) == ("the one that counts", "why"), "{:?}", run.about);
    ensure!(run.about.tags == ["kept"], "{:?}", run.about);
    Ok(())
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_that_ends_writes_its_index() -> Result<()> {
    let mut lab = Lab::start().await;
    let id = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&id).await;
    let path = lab.data().join("index.db");
    // The look of every half second comes after the end for most of these.
    for turn in 0..5 {
        let name = format!("name {turn}");
        let request = lab.request(Method::PUT, &format!("/api/v1/runs/{id}/about")).header("origin", lab.origin());
        let said = lab.send(request.json(&json!({ "name": name }))).await;
        ensure!(said.status == 200, "{}", said.body);
        moslim_tests::signal(lab.pid(), "TERM");
        let began = Instant::now();
        // One that has ended, and of which nobody has asked how, has no files open.
        while Path::new(&format!("/proc/{}/fd/0", lab.pid())).exists() {
            ensure!(began.elapsed() < LIMIT, "it does not end: {}", lab.stderr());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut index = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await?;
        let found = sqlx::query("SELECT id FROM runs WHERE info LIKE ?").bind(format!("%{name}%")).fetch_optional(&mut index);
        ensure!(found.await?.is_some(), "the index does not have \"{name}\"");
        index.close().await?;
        lab.restart().await;
    }
    Ok(())
}

#[tokio::test]
async fn an_index_in_memory_is_told_by_who_is_asked_how_it_is() -> Result<()> {
    let data = tempfile::tempdir()?;
    // What is no file cannot be opened, and is not damaged.
    fs::create_dir(data.path().join("index.db"))?;
    let lab = Lab::start_in(data.path()).await;
    let began = Instant::now();
    loop {
        let health = lab.get("/healthz").await;
        ensure!(health.status == 200, "{}: {}", health.status, health.body);
        if health.body["degraded"].to_string().contains("the index has not been written") {
            return Ok(());
        }
        ensure!(began.elapsed() < LIMIT, "{}", health.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn a_backup_copies_what_differs_and_takes_no_damaged_journal() -> Result<()> {
    let place = tempfile::tempdir()?;
    let [data, copy] = ["data", "copy"].map(|name| place.path().join(name));
    train(&data, "r1")?;
    let (own, kept) = (data.join("runs/r1"), copy.join("runs/r1"));
    fs::write(own.join("about.json"), r#"{"name":"one"}"#)?;
    let backup = || command(&["backup", "--to", text(&copy), "--data", text(&data)]);
    let well = |output: Output| {
        ensure!(output.code == Some(0), "{:?} {}{}", output.code, output.stdout, output.stderr);
        Ok(output.stdout)
    };
    well(backup())?;
    ensure!(well(backup())?.starts_with("0 files copied"), "what is there is copied again");

    // The copy has rotted: this side is sound, and takes its place.
    flip(&kept.join("policy.safetensors"))?;
    well(backup())?;
    ensure!(fs::read(kept.join("policy.safetensors"))? == fs::read(own.join("policy.safetensors"))?);

    // Put here since, as long as its copy, and older.
    fs::write(own.join("about.json"), r#"{"name":"two"}"#)?;
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(own.join("about.json"))?.set_modified(hour_ago)?;
    well(backup())?;
    ensure!(fs::read_to_string(kept.join("about.json"))?.contains("two"), "an older file is not copied");

    let journal = own.join("events.jsonl");
    let whole = fs::read(&journal)?;
    flip(&journal)?;
    // As long as its copy, and with one line more.
    let last = whole.trim_ascii_end().rsplit(|&b| b == b'\n').next().context("a line")?;
    let longer = [fs::read(&journal)?.as_slice(), last, &b"\n"[..]].concat();
    for turn in 0..2 {
        if turn == 1 {
            fs::write(&journal, &longer)?;
        }
        let told = backup();
        let named = told.stderr.contains("runs/r1: events.jsonl is not what its copy is; where that is right, remove the copy");
        ensure!(told.code == Some(1) && named, "{:?} {}", told.code, told.stderr);
        ensure!(fs::read(kept.join("events.jsonl"))? == whole, "the sound journal is gone");
    }
    fs::write(&journal, [whole.as_slice(), last, &b"\n"[..]].concat())?;
    well(backup())?;
    ensure!(fs::read(kept.join("events.jsonl"))? == fs::read(&journal)?, "a journal that has grown is not copied");
    Ok(())
}

#[test]
fn the_doctor_looks_into_journals_and_checkpoints_and_says_what_nobody_knows() -> Result<()> {
    let data = tempfile::tempdir()?;
    train(data.path(), "r1")?;
    let folder = data.path().join("runs/r1");
    let doctor = || command(&["doctor", "--deep", "--data", text(data.path())]);
    let well = doctor();
    ensure!(well.code == Some(0) && well.stdout.contains("every file is what was written"), "{}{}", well.stdout, well.stderr);
    // A run that has ended has no checkpoints any more.
    let checkpoint = folder.join("checkpoint-policy.bin");
    fs::write(&checkpoint, "{}\nno checkpoint")?;
    let told = doctor();
    ensure!(told.code == Some(1) && told.stdout.contains("r1: checkpoint-policy.bin is damaged"), "{}", told.stdout);
    fs::remove_file(&checkpoint)?;
    let journal = folder.join("events.jsonl");
    let whole = fs::read(&journal)?;
    // In a line's checksum: elsewhere a flipped bit may change nothing that is read.
    let mut bytes = whole.clone();
    let sum = bytes.windows(7).position(|text| text == b"\"sum\":\"").context("a checksum")? + 7;
    bytes[sum] ^= 4;
    fs::write(&journal, bytes)?;
    let told = doctor();
    ensure!(told.code == Some(1) && told.stdout.contains("r1: 1 lines of events.jsonl are damaged"), "{}", told.stdout);
    fs::write(&journal, whole)?;
    fs::remove_file(folder.join("checksums.json"))?;
    let bare = doctor();
    ensure!(bare.code == Some(0) && bare.stdout.contains("1 of them have no checksums"), "{}", bare.stdout);
    ensure!(!bare.stdout.contains("every file is what was written"), "{}", bare.stdout);
    Ok(())
}
