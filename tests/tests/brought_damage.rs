//! What people have brought, and a bit of it flips: the file is named, no other figure is shown, and the rest is there.

use anyhow::{Context, Result, ensure};
use moslim_tests::{FLAT, Lab, Place, Process, lines, record, scattered, soak, text, tiny};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A file with one bit flipped; which one, `turn` says.
fn flipped(whole: &[u8], turn: u64) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let at = scattered(turn) as usize % bytes.len();
    bytes[at] ^= 1 << (scattered(turn + 1) % 8);
    bytes
}

/// A command on a data folder.
fn command(data: &Path, args: &[&str]) -> moslim_tests::Output {
    Process::lab(&[args, &["--data", text(data)]].concat()).wait()
}

#[tokio::test]
async fn a_bit_that_flips_in_a_task_is_told_and_hides_no_other_task() -> Result<()> {
    let lab = Lab::start().await;
    let place = Place::new();
    let (mapping, file) = (place.file("flat.toml", FLAT), place.file("a.jsonl", lines((0..240).map(record))));
    for name in ["coffee", "tea"] {
        let done = command(lab.data(), &["import", &file, "--mapping", &mapping, "--name", name]);
        ensure!(done.code == Some(0), "{}", done.stderr);
    }
    let paths = ["/api/v1/tasks/tea", "/api/v1/tasks/tea/rows?limit=500"];
    let mut before = Vec::new();
    for path in paths {
        let answer = lab.get(path).await;
        ensure!(answer.status == 200, "{path}: {}", answer.body);
        before.push(answer.body);
    }
    let list = lab.get("/api/v1/tasks").await.body;
    let folder = lab.data().join("tasks/tea");
    let names = fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    let mut names = names.collect::<Result<Vec<String>>>()?;
    names.sort();
    ensure!(names.iter().any(|name| name == "checksums.json") && names.len() == 4, "{names:?}");
    let mut left_out = 0;
    for name in &names {
        let whole = fs::read(folder.join(name))?;
        if whole.is_empty() {
            continue;
        }
        for turn in 0..12 * soak() {
            fs::write(folder.join(name), flipped(&whole, turn))?;
            for (path, before) in paths.iter().zip(&before) {
                let now = lab.get(path).await;
                ensure!(now.status == 500 || (now.status == 200 && now.body == *before), "{name}: {path}: {}", now.body);
            }
            let now = lab.get("/api/v1/tasks").await;
            let all = now.body.as_array().context("tasks")?;
            ensure!(now.status == 200 && all.first() == list.get(0), "{name}: {}", now.body);
            ensure!(all.len() == 1 || now.body == list, "{name}: {}", now.body);
            left_out += usize::from(all.len() == 1);
        }
        fs::write(folder.join(name), &whole)?;
    }
    let said = lab.stderr();
    ensure!(left_out > 0 && said.contains("tasks/tea/task.json: task.json is not what was written"), "{left_out} {said}");
    // The command line names it, and shows the other one.
    let whole = fs::read(folder.join("task.json"))?;
    fs::write(folder.join("task.json"), flipped(&whole, 1))?;
    let listed = command(lab.data(), &["data", "list", "--json"]);
    ensure!(listed.code == Some(0) && listed.stderr.contains("tasks/tea/task.json"), "{}", listed.stderr);
    let shown: Value = serde_json::from_str(&listed.stdout)?;
    ensure!(shown.as_array().map(Vec::len) == Some(1) && shown[0]["name"] == "coffee", "{shown}");
    let sick = command(lab.data(), &["doctor"]);
    ensure!(sick.code == Some(1) && sick.stdout.contains("task.json is not what was written"), "{}", sick.stdout);
    let again = ["import", &file, "--mapping", &mapping, "--name", "tea"];
    let refused = command(lab.data(), &again);
    ensure!(refused.code == Some(2) && refused.stderr.contains("task.json is not what was written"), "{}", refused.stderr);
    let replaced = command(lab.data(), &[&again[..], &["--replace"]].concat());
    ensure!(replaced.code == Some(0), "{}", replaced.stderr);
    ensure!(lab.get("/api/v1/tasks").await.body == list, "it is not what it was");
    // One of an older version has no checksum.
    fs::remove_file(folder.join("checksums.json"))?;
    ensure!(lab.get("/api/v1/tasks").await.body == list, "an older task is not read");
    let changed = command(lab.data(), &["data", "edit", "tea", "--rename", "tone=Tone"]);
    ensure!(changed.code == Some(0), "{}", changed.stderr);
    ensure!(lab.get("/api/v1/tasks/tea").await.status == 200 && folder.join("checksums.json").is_file());
    Ok(())
}

#[tokio::test]
async fn a_bit_that_flips_in_what_is_known_of_a_model_is_told_and_hides_no_other_model() -> Result<()> {
    let lab = Lab::start().await;
    for name in ["first", "second"] {
        let added = command(lab.data(), &["models", "add", text(&tiny()), "--name", name]);
        ensure!(added.code == Some(0), "{}", added.stderr);
    }
    let list = async || lab.get("/api/v1/models").await.body["models"].clone();
    let before = list().await;
    ensure!(before.as_array().map(Vec::len) == Some(2), "{before}");
    let show = || command(lab.data(), &["models", "show", "second", "--json"]);
    let known = show().stdout;
    let folder = lab.data().join("models/second");
    let mut left_out = 0;
    for name in ["model.json", "checksums.json"] {
        let whole = fs::read(folder.join(name))?;
        for turn in 0..12 * soak() {
            fs::write(folder.join(name), flipped(&whole, turn))?;
            let now = list().await;
            ensure!(now == before || (now.as_array().map(Vec::len) == Some(1) && now[0] == before[0]), "{name}: {now}");
            left_out += usize::from(now != before);
            let said = show();
            let told = said.code == Some(2) && said.stderr.contains("models/second/model.json");
            ensure!(told || said.stdout == known, "{name}: {:?} {}{}", said.code, said.stdout, said.stderr);
        }
        fs::write(folder.join(name), &whole)?;
    }
    ensure!(left_out > 0 && lab.stderr().contains("model.json is not what was written"), "{left_out} {}", lab.stderr());
    ensure!(list().await == before, "it is not what it was");
    Ok(())
}
