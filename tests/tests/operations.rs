//! The lab as whoever looks after it has it: nobody listens, something is damaged or has gone, and somebody watches.

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use moslim_tests::{
    FLAT, LIMIT, Lab, Place, Process, binary, lab, lines, long_run, raw, record, signal, smoke, text, wait_until,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// The address that a server prints, and the token behind it.
async fn ready(server: &mut Process) -> (String, String) {
    wait_until("the server to be ready", || {
        assert!(server.running(), "the server ended at once; it said\n{}", server.stderr());
        let said = server.stdout();
        let (address, token) = said.strip_suffix('\n')?.strip_prefix("MOSLIM Lab is ready at ")?.split_once("/?token=")?;
        Some((address.to_string(), token.to_string()))
    })
    .await
}

fn client() -> Result<Client> {
    Ok(Client::builder().no_proxy().redirect(Policy::none()).timeout(LIMIT).build()?)
}

#[test]
fn a_terminal_that_has_gone_ends_no_training() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = text(folder.path());
    let args = ["train", "--preset", "smoke", "--run", "r1", "--device", "cpu", "--json", "--data", data];
    let output = Process::lab_unheard(&args).wait();
    ensure!(output.code == Some(0), "it ended with {:?} and printed {}", output.code, output.stdout);
    let summary: Value = serde_json::from_str(&output.stdout)?;
    ensure!(summary["run"] == "r1", "{summary}");
    // What fails has the exit code that it always has.
    let refused = Process::lab_unheard(&["train", "--preset", "huge", "--data", data]).wait();
    ensure!(refused.code == Some(2), "{:?}", refused.code);
    Ok(())
}

#[tokio::test]
async fn a_server_that_nobody_hears_trains_and_ends_well() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut server = Process::lab_unheard(&["serve", "--port", "0", "--data", text(folder.path())]);
    let (address, token) = ready(&mut server).await;
    let client = client()?;
    let start = client.post(format!("{address}/api/v1/runs")).bearer_auth(&token).header("origin", &address);
    let started: Value = start.json(&json!({ "config": smoke() })).send().await?.json().await?;
    let run = format!("{address}/api/v1/runs/{}", started["id"].as_str().with_context(|| started.to_string())?);
    let began = Instant::now();
    loop {
        let told: Value = client.get(&run).bearer_auth(&token).send().await?.json().await?;
        if told["status"] == "finished" {
            break;
        }
        ensure!(told["status"] == "running" && began.elapsed() < LIMIT, "{told}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(signal(server.pid(), "TERM"));
    let output = server.wait();
    ensure!(output.code == Some(0), "it ended with {:?}", output.code);
    Ok(())
}

/// Before the server stands a proxy that speaks TLS: its address is printed, its name answered, and its cookie goes over TLS alone.
#[tokio::test]
async fn a_server_behind_a_proxy_says_where_people_reach_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let url = ["--url", "https://lab.example.org", "--data", text(folder.path())];
    let mut server = Process::lab(&[&["serve", "--port", "0"], &url[..]].concat());
    let (address, token) = ready(&mut server).await;
    ensure!(address == "https://lab.example.org", "{address}");
    let port: u16 = wait_until("word of the port", || {
        server.stderr().lines().find_map(|line| line.strip_prefix("It listens on 127.0.0.1:")?.parse().ok())
    })
    .await;
    let ask = |request: &str, host: &str, more: &str| {
        raw(port, &format!("{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n"))
    };
    let entered = ask(&format!("GET /?token={token}"), "lab.example.org", "")?;
    ensure!(entered.starts_with("HTTP/1.1 303") && entered.contains("; Secure"), "{entered}");
    let stranger = ask("GET /", "other.example.org", "")?;
    ensure!(stranger.starts_with("HTTP/1.1 403"), "{stranger}");
    let known = format!("Authorization: Bearer {token}\r\n");
    for (origin, status) in [("https://lab.example.org", "404"), ("https://other.example.org", "403")] {
        let answer = ask("POST /api/v1/runs/none/cancel", "lab.example.org", &format!("{known}Origin: {origin}\r\n"))?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{origin}: {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn many_may_ask_at_a_time_how_the_server_is() -> Result<()> {
    let lab = Lab::start().await;
    for _ in 0..4 {
        for answer in join_all((0..32).map(|_| lab.get("/healthz"))).await {
            ensure!(answer.status == 200 && answer.body["ok"] == true, "{}: {}", answer.status, answer.body);
            ensure!(answer.body["problems"] == json!([]) && answer.body["degraded"] == json!([]), "{}", answer.body);
        }
    }
    let names = fs::read_dir(lab.data())?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    ensure!(!names.iter().any(|name| name.to_string_lossy().starts_with(".probe")), "{names:?}");
    Ok(())
}

#[tokio::test]
async fn a_data_folder_that_has_gone_is_missed_and_not_made_again() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (data, aside) = (place.path().join("data"), place.path().join("aside"));
    let lab = Lab::start_in(&data).await;
    let well = lab.get("/healthz").await;
    ensure!(well.status == 200, "{}", well.body);
    fs::rename(&data, &aside)?;
    let missed = lab.get("/healthz").await;
    ensure!(missed.status == 503 && missed.body["ok"] == false, "{}: {}", missed.status, missed.body);
    ensure!(missed.body["problems"].to_string().contains("has gone"), "{}", missed.body);
    ensure!(!data.exists(), "asking makes a folder");
    // What is left of a disk that is not mounted any more.
    fs::create_dir(&data)?;
    let empty = lab.get("/healthz").await;
    ensure!(empty.status == 503, "{}: {}", empty.status, empty.body);
    ensure!(empty.body["problems"].to_string().contains("is not the one"), "{}", empty.body);
    fs::remove_dir_all(&data)?;
    fs::rename(&aside, &data)?;
    let back = lab.get("/healthz").await;
    ensure!(back.status == 200, "{}", back.body);
    Ok(())
}

#[tokio::test]
async fn an_index_that_cannot_be_written_is_told_and_is_no_alarm() -> Result<()> {
    let lab = Lab::start().await;
    let path = lab.data().join("index.db");
    let mut other = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await?;
    let comes_to = async |behind: bool| -> Result<()> {
        let began = Instant::now();
        loop {
            let health = lab.get("/healthz").await;
            ensure!(health.status == 200, "{}: {}", health.status, health.body);
            if health.body["degraded"].to_string().contains("the index has not been written") == behind {
                return Ok(());
            }
            ensure!(began.elapsed() < LIMIT, "{}", health.body);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await?;
    let id = lab.start_run(&smoke()).await;
    comes_to(true).await?;
    lab.wait_for_finish(&id).await;
    sqlx::query("COMMIT").execute(&mut other).await?;
    comes_to(false).await
}

/// Figures in the text format of Prometheus, by their names with labels. Every line is one, or says what the next ones are.
fn figures(told: &str) -> Result<BTreeMap<String, f64>> {
    let plain = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let (mut found, mut known) = (BTreeMap::new(), BTreeSet::new());
    for line in told.lines() {
        let wrong = || format!("\"{line}\" is no line of this format");
        if let Some(about) = line.strip_prefix("# ") {
            let (of, about) = about.split_once(' ').with_context(wrong)?;
            let (name, said) = about.split_once(' ').with_context(wrong)?;
            let is_kind = of == "TYPE" && ["gauge", "counter"].contains(&said);
            ensure!(plain(name) && (is_kind || of == "HELP" && !said.is_empty()), "{}", wrong());
            if is_kind {
                ensure!(known.insert(name), "{name} comes twice");
            }
            continue;
        }
        let (figure, value) = line.rsplit_once(' ').with_context(wrong)?;
        let (name, labels) = figure.split_once('{').map_or((figure, None), |(name, labels)| (name, Some(labels)));
        if let Some(labels) = labels {
            for label in labels.strip_suffix('}').with_context(wrong)?.split(',') {
                let (name, value) = label.split_once('=').with_context(wrong)?;
                let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).with_context(wrong)?;
                ensure!(plain(name) && !value.contains(['"', '\\']), "{}", wrong());
            }
        }
        ensure!(plain(name) && known.contains(name), "{}", wrong());
        ensure!(found.insert(figure.to_string(), value.parse::<f64>().with_context(wrong)?).is_none(), "{figure} comes twice");
    }
    Ok(found)
}

#[tokio::test]
async fn figures_for_prometheus_are_those_of_the_runs() -> Result<()> {
    let lab = Lab::start().await;
    let mut events = 0;
    for _ in 0..2 {
        let id = lab.start_run(&smoke()).await;
        events += lab.wait_for_finish(&id).await.last_seq;
    }
    let answer = lab.get("/metrics").await;
    let found = figures(answer.body.as_str().context("no text")?)?;
    let of = |name: &str| found.get(name).copied();
    ensure!(of("moslim_runs{status=\"finished\"}") == Some(2.0), "{found:?}");
    ensure!(of("moslim_events") == Some(events as f64) && events > 20, "{events} events in all, but {found:?}");
    for name in ["moslim_connections", "moslim_answers_total{status=\"2xx\"}", "moslim_disk_free_bytes"] {
        ensure!(of(name).is_some_and(|value| value >= 1.0), "{name}: {found:?}");
    }
    Ok(())
}

/// What a folder's files hold, by their names.
fn content(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = |entry: std::io::Result<fs::DirEntry>| -> Result<(String, Vec<u8>)> {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?))
    };
    fs::read_dir(folder)?.map(read).collect()
}

#[test]
fn a_backup_puts_nothing_damaged_in_place_of_what_is_sound() -> Result<()> {
    let place = tempfile::tempdir()?;
    let [data, copy, again] = ["data", "copy", "again"].map(|name| place.path().join(name));
    let command = |args: &[&str]| Process::lab(args).wait();
    let train = ["train", "--preset", "smoke", "--run", "r1", "--device", "cpu", "--data", text(&data)];
    let trained = command(&train);
    ensure!(trained.code == Some(0), "{}", trained.stderr);
    let backup = || command(&["backup", "--to", text(&copy), "--data", text(&data)]);
    let first = backup();
    ensure!(first.code == Some(0), "{}", first.stderr);
    let (own, kept) = (data.join("runs/r1"), copy.join("runs/r1"));
    let sound = content(&kept)?;
    let flipped = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        Some(bytes)
    };
    let halved = |bytes: &[u8]| {
        let end = bytes[..bytes.len() / 2].iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        Some(bytes[..end].to_vec())
    };
    type Damage<'a> = &'a dyn Fn(&[u8]) -> Option<Vec<u8>>;
    let damages: [(&str, Damage, &str); 6] = [
        ("policy.safetensors", &flipped, "is not what was written"),
        ("summary.json", &|_| None, "is gone"),
        ("checksums.json", &|_| Some(b"{".to_vec()), "is damaged"),
        ("checksums.json", &|_| None, "is gone"),
        ("events.jsonl", &halved, "is shorter than its copy"),
        ("events.jsonl", &|_| None, "is shorter than its copy"),
    ];
    for (name, damage, words) in damages {
        let whole = fs::read(own.join(name))?;
        match damage(&whole) {
            Some(bytes) => fs::write(own.join(name), bytes)?,
            None => fs::remove_file(own.join(name))?,
        }
        let told = backup();
        let named = told.stderr.contains(&format!("runs/r1: {name} {words}"));
        ensure!(told.code == Some(1) && named, "{name}: {:?} {}", told.code, told.stderr);
        let now = content(&kept)?;
        let changed: Vec<&String> = sound.keys().filter(|file| now.get(*file) != sound.get(*file)).collect();
        ensure!(changed.is_empty() && now.len() == sound.len(), "{name} was damaged, and the copy's {changed:?} changed");
        fs::write(own.join(name), &whole)?;
    }
    let last = backup();
    ensure!(last.code == Some(0), "{}", last.stderr);
    let restored = command(&["restore", "--from", text(&copy), "--data", text(&again)]);
    ensure!(restored.code == Some(0), "{}", restored.stderr);
    let well = command(&["doctor", "--deep", "--data", text(&again)]);
    ensure!(well.code == Some(0) && well.stdout.contains("every file is what was written"), "{}{}", well.stdout, well.stderr);
    // Of what was never copied there is nothing to lose: it is copied as it is, and said.
    let weights = own.join("policy.safetensors");
    fs::write(&weights, flipped(&fs::read(&weights)?).context("bytes")?)?;
    let elsewhere = place.path().join("elsewhere");
    let told = command(&["backup", "--to", text(&elsewhere), "--data", text(&data)]);
    ensure!(told.code == Some(1) && told.stderr.contains("policy.safetensors is not what was written"), "{}", told.stderr);
    ensure!(fs::read(elsewhere.join("runs/r1/policy.safetensors"))? == fs::read(&weights)?);
    Ok(())
}

/// The settings of the systemd unit in the manual, and the lines around it that are no settings.
fn unit(manual: &str) -> Result<(BTreeMap<&str, &str>, Vec<&str>)> {
    let (_, section) = manual.split_once("\n## As a service\n").context("no section about services")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let (mut settings, mut others) = (BTreeMap::new(), Vec::new());
    for line in section.lines().filter_map(|line| line.strip_prefix("    ")) {
        match line.split_once('=').filter(|_| !line.starts_with('#')) {
            Some((name, value)) => ensure!(settings.insert(name, value).is_none(), "{name} stands twice"),
            None => others.push(line),
        }
    }
    Ok((settings, others))
}

/// The manual is what people copy from.
#[test]
fn the_unit_of_the_manual_leaves_the_lab_what_it_needs_and_logs_no_token() -> Result<()> {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md"))?;
    let (settings, others) = unit(&manual)?;
    let is = |name: &str, value: &str| ensure_is(&settings, name, value);
    is("ProtectSystem", "strict")?;
    // Nothing else is writable then: files on their way to a task are looked at in /tmp, and the data folder has to be there.
    is("PrivateTmp", "true")?;
    is("StateDirectory", "moslim-lab")?;
    is("StateDirectoryMode", "0700")?;
    is("UMask", "0077")?;
    ensure!(!settings.contains_key("ReadWritePaths"), "a folder that is not there would keep the service from starting");
    ensure!(settings["ExecStart"].ends_with(" serve --data /var/lib/moslim-lab"), "{}", settings["ExecStart"]);
    // The address that is printed ends with a token.
    is("StandardOutput", "null")?;
    is("StandardError", "journal")?;
    // What trains outlives the server, and does not take it along when it wants too much memory.
    is("KillMode", "process")?;
    is("OOMPolicy", "continue")?;
    let user = format!("u {} ", settings["User"]);
    ensure!(others.iter().any(|line| line.starts_with(&user)), "nobody makes the user: {others:?}");
    Ok(())
}

fn ensure_is(settings: &BTreeMap<&str, &str>, name: &str, value: &str) -> Result<()> {
    let found = settings.get(name);
    ensure!(found == Some(&value), "{name} is {found:?} and not {value}");
    Ok(())
}

#[tokio::test]
async fn what_a_killed_process_was_writing_goes_with_the_next_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cache = folder.path().join("cache");
    fs::create_dir_all(&cache)?;
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 3600);
    // No process has a number as high, and one has the first.
    let [left, of_another, whole] =
        [".sft-0a.stage.7ffffff000000001.tmp", ".sft-0b.stage.100000001.tmp", "sft-0a.stage"].map(|name| cache.join(name));
    for path in [&left, &of_another, &whole] {
        File::create(path)?.set_modified(long_ago)?;
    }
    let _lab = Lab::start_in(folder.path()).await;
    wait_until("the file to go", || (!left.exists()).then_some(())).await;
    ensure!(of_another.exists() && whole.exists(), "it is somebody's");
    Ok(())
}

#[test]
fn what_strangers_have_written_does_nothing_to_a_terminal() -> Result<()> {
    const ACTS: [char; 4] = ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}'];
    let place = Place::new();
    let mapping = place.file("flat.toml", FLAT);
    let written = (0..200).map(|n| {
        let mut row = record(n);
        row["question"] = json!(format!("How do I make tea \u{1b}]0;owned\u{7}, way {}?", n / 2));
        row["answer"] = json!(format!("Boil\u{1b}[2J water\u{9b}2J, {n} times\u{202e}."));
        row
    });
    let file = place.file("a.jsonl", lines(written));
    let data = place.data();
    place.import(&[&file, "--mapping", &mapping, "--name", "tea"]).map_err(anyhow::Error::msg)?;
    let to = place.folder.path().join("grades.jsonl");
    let grades = ["rate", "grades", "tea", "--rater", "ann", "--n", "2", "--to", text(&to)];
    for (args, shows) in
        [(&["data", "show", "tea"][..], true), (&["data", "stats", "tea"], false), (&grades, true), (&["import", &file], false)]
    {
        let output = Process::start(&binary(), &[args, &["--data", text(&data)]].concat(), "q\n").wait();
        ensure!(output.code == Some(0), "{args:?}: {}", output.stderr);
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(!said.contains(ACTS), "{args:?}: {said:?}");
        ensure!(
            !shows || said.contains("\\u{1b}[2J water\\u{9b}2J") && said.contains("\\u{1b}]0;owned\\u{7}"),
            "{args:?}: {said}"
        );
    }
    // Programs get what was written.
    let rows = lab(&data, &["data", "show", "tea"]).map_err(anyhow::Error::msg)?;
    ensure!(rows[0]["response"].as_str().is_some_and(|answer| answer.starts_with("Boil\u{1b}[2J water\u{9b}2J")), "{rows}");
    Ok(())
}

#[tokio::test]
async fn the_log_says_who_has_changed_what() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("group.toml");
    let invited = Process::lab(&["token", "Ada", "--role", "run"]).wait();
    let token = invited.stderr.lines().next().and_then(|line| line.rsplit(' ').next()).context("a token")?;
    fs::write(&file, &invited.stdout)?;
    let lab = Lab::start_with(&["--tokens", text(&file)]).await;
    let asks = async |path: &str, body: &Value| {
        let request = lab.stranger(Method::POST, path).bearer_auth(token).header("origin", lab.origin());
        lab.send(request.header("x-request-id", "of-ada").json(body)).await
    };
    let started = asks("/api/v1/runs", &json!({ "config": long_run(5_000) })).await;
    ensure!(started.status == 201, "{}", started.body);
    let id = started.body["id"].as_str().context("an id")?;
    lab.wait_for_policy(id, 1).await;
    let kill = format!("/api/v1/runs/{id}/kill");
    ensure!(asks(&kill, &json!({})).await.status == 202);
    lab.wait_for_end(id).await;
    ensure!(asks(&kill, &json!({})).await.status == 409, "it trains no more");
    let delete = lab.request(Method::DELETE, &format!("/api/v1/runs/{id}")).header("origin", lab.origin());
    ensure!(lab.send(delete).await.status == 204);
    let said = lab.stderr();
    for (what, who, request) in
        [("is started", "Ada", "id=of-ada"), ("is killed", "Ada", "id=of-ada"), ("is put into the trash", "this server", "id=")]
    {
        let words = ["INFO", request, &format!("run {id} {what}"), &format!("person=\"{who}\"")];
        let told = said.lines().filter(|line| words.iter().all(|word| line.contains(*word))).count();
        ensure!(told == 1, "{told} lines say that {who} did it, run {id} {what}:\n{said}");
    }
    ensure!(!said.contains(token) && !said.contains(lab.token()), "{said}");
    Ok(())
}

#[tokio::test]
async fn no_token_is_logged_with_an_address() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let args = ["serve", "--port", "0", "--data", text(folder.path())];
    let mut server = Process::lab_in(&args, &[("RUST_LOG", "tower_http=debug")]);
    let (address, token) = ready(&mut server).await;
    let entered = client()?.get(format!("{address}/?token={token}")).send().await?;
    ensure!(entered.status().as_u16() == 303, "{}", entered.status());
    let said = wait_until("the request in the log", || Some(server.stderr()).filter(|said| said.contains("/?token="))).await;
    ensure!(!said.contains(&token), "{said}");
    Ok(())
}
