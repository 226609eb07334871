//! The trash: what is in it is listed and goes for good, and a lab that is full has room again.

use anyhow::{Context, Result, ensure};
use moslim_tests::{Lab, Process, invite, smoke, text};
use reqwest::Method;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::Path;

/// A run that has ended, with files of `mib` MiB, none of which takes room on the disk.
fn large_run(lab: &Lab, like: &str, id: &str, mib: u64) -> Result<()> {
    let folder = lab.data().join("runs").join(id);
    fs::create_dir_all(&folder)?;
    fs::copy(lab.data().join("runs").join(like).join("config.toml"), folder.join("config.toml"))?;
    File::create(folder.join("policy.safetensors"))?.set_len(mib << 20)?;
    Ok(())
}

fn command(data: &Path, args: &[&str]) -> moslim_tests::Output {
    Process::lab(&[&["runs"], args, &["--data", text(data)]].concat()).wait()
}

#[tokio::test]
async fn a_full_lab_has_room_again_when_its_trash_is_emptied() -> Result<()> {
    let mut lab = Lab::start_with(&["--quota", "1"]).await;
    let small = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&small).await;
    for id in ["large-1", "large-2"] {
        large_run(&lab, &small, id, 600)?;
    }
    // How much it holds is looked at once a minute.
    lab.restart().await;
    let start = async || lab.post("/api/v1/runs", &json!({ "config": smoke() })).await;
    let full = start().await;
    let said = full.body["detail"].as_str().unwrap_or_default();
    ensure!(full.status == 409 && said.contains("moslim-lab runs trash --empty"), "{}", full.body);
    ensure!(lab.get("/api/v1/trash").await.body == json!([]));
    let send = async |method: Method, path: &str| lab.send(lab.request(method, path).header("origin", lab.origin())).await;
    for id in ["large-1", "large-2"] {
        ensure!(send(Method::DELETE, &format!("/api/v1/runs/{id}")).await.status == 204);
    }
    ensure!(start().await.status == 409, "what is in the trash counts");
    let listed = lab.get("/api/v1/trash").await;
    let all = listed.body.as_array().context("a list")?;
    let ids: Vec<&str> = all.iter().filter_map(|run| run["id"].as_str()).collect();
    ensure!(listed.status == 200 && ids == ["large-2", "large-1"], "{}", listed.body);
    let sound = |run: &Value| run["bytes"].as_u64() > Some(600 << 20) && run["deleted"].as_u64() > Some(1_700_000_000_000);
    ensure!(all.iter().all(sound), "{}", listed.body);
    let trash = lab.data().join("trash");
    ensure!(trash.join("large-1").is_dir());

    // One run, then all; what is not there, or is no name, is not.
    for (query, status) in [("?run=nothing", 404), ("?run=..%2fruns", 404), ("?all=yes", 400)] {
        ensure!(send(Method::DELETE, &format!("/api/v1/trash{query}")).await.status == status, "{query}");
    }
    ensure!(trash.join("large-1").is_dir() && trash.join("large-2").is_dir(), "something went");
    let emptied = send(Method::DELETE, "/api/v1/trash?run=large-1").await;
    ensure!(emptied.status == 200 && emptied.body["runs"] == 1, "{}", emptied.body);
    ensure!(!trash.join("large-1").exists() && trash.join("large-2").is_dir());
    let back = lab.post("/api/v1/runs/large-1/restore", &json!({})).await;
    ensure!(back.status == 404, "{}", back.body);
    let again = start().await;
    ensure!(again.status == 201, "it has room again: {}", again.body);
    let emptied = send(Method::DELETE, "/api/v1/trash").await;
    ensure!(emptied.status == 200 && emptied.body["runs"] == 1, "{}", emptied.body);
    ensure!(fs::read_dir(&trash)?.count() == 0);
    ensure!(lab.stderr().contains("of the trash are gone for good"), "{}", lab.stderr());
    Ok(())
}

#[tokio::test]
async fn only_who_may_do_everything_empties_the_trash() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("group.toml");
    let (run, runner) = invite("Rob", "run")?;
    fs::write(&file, runner)?;
    let lab = Lab::start_with(&["--tokens", text(&file)]).await;
    let ask = |method: Method| lab.stranger(method, "/api/v1/trash").bearer_auth(&run).header("origin", lab.origin());
    ensure!(lab.send(ask(Method::GET)).await.status == 200);
    ensure!(lab.send(ask(Method::DELETE)).await.status == 403);
    Ok(())
}

#[test]
fn the_command_line_lists_the_trash_and_empties_it() -> Result<()> {
    let data = tempfile::tempdir()?;
    for id in ["a-1", "b-1"] {
        fs::create_dir_all(data.path().join("runs").join(id))?;
        fs::write(data.path().join("runs").join(id).join("events.jsonl"), vec![b'x'; 3 << 20])?;
        let deleted = command(data.path(), &["delete", id]);
        ensure!(deleted.code == Some(0), "{}", deleted.stderr);
    }
    let listed = command(data.path(), &["trash"]);
    ensure!(listed.code == Some(0) && listed.stdout.lines().count() == 2, "{}{}", listed.stdout, listed.stderr);
    for line in listed.stdout.lines() {
        ensure!(line.contains("-1 ") && line.contains("deleted 0 min ago") && line.ends_with("3 MiB"), "{line}");
    }
    let rows: Value = serde_json::from_str(&command(data.path(), &["trash", "--json"]).stdout)?;
    ensure!(rows.as_array().map(Vec::len) == Some(2) && rows[0]["bytes"].as_u64() >= Some(3 << 20), "{rows}");
    let unknown = command(data.path(), &["trash", "--empty", "--run", "c-1"]);
    ensure!(unknown.code == Some(2) && unknown.stderr.contains("run: there is no run c-1 in the trash"), "{}", unknown.stderr);
    let one = command(data.path(), &["trash", "--empty", "--run", "a-1"]);
    ensure!(one.code == Some(0) && one.stdout.contains("1 runs are gone for good"), "{}{}", one.stdout, one.stderr);
    ensure!(!data.path().join("trash/a-1").exists() && data.path().join("trash/b-1").is_dir());
    ensure!(command(data.path(), &["restore", "a-1"]).code == Some(2), "it is gone");
    let rest: Value = serde_json::from_str(&command(data.path(), &["trash", "--empty", "--json"]).stdout)?;
    ensure!(rest["runs"] == 1 && fs::read_dir(data.path().join("trash"))?.count() == 0, "{rest}");
    ensure!(command(data.path(), &["trash"]).stdout.is_empty());
    Ok(())
}
