//! What the server takes under load, which is a measurement and no test: `cargo lab bench --server` prints it. Nothing is asserted of seconds
//! and bytes, everything of answers: they are right, nothing is lost or comes twice, and the server is there at the end.
//!
//! The clients are on the same machine, and take of its processor what they need.
#![cfg(target_os = "linux")]

use anyhow::{Context, Result, ensure};
use moslim_tests::bodies::{Body, bodies, sound};
use moslim_tests::{
    FLAT, LIMIT, Lab, Socket, binary, copy_run, heard, hold, lines, metrics, open_files, processor, record, resident, smoke,
    text, wait_until,
};
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// A table of what was measured.
struct Table;

impl Table {
    /// Begins one, below what the harness has said of the test.
    fn begin() -> Self {
        println!();
        Self.row("what", "measured", "target");
        Self
    }

    /// Adds a row.
    fn row(&self, what: &str, measured: &str, target: &str) {
        println!("{what:<70} | {measured:<60} | {target}");
    }
}

fn milliseconds(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

/// Figures from the least to the greatest.
fn sorted(figures: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures
}

/// The figure that a share of them, which are sorted, does not exceed; 1 for the greatest.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at).or(sorted.last()).copied().unwrap_or(f64::NAN)
}

/// Median, 99 of 100, and worst of some times, ms.
fn times(figures: impl IntoIterator<Item = f64>) -> String {
    let all = sorted(figures);
    let [median, most, worst] = [0.5, 0.99, 1.0].map(|share| quantile(&all, share));
    format!("median {median:.1} ms, 99 of 100 {most:.1} ms, worst {worst:.1} ms of {}", all.len())
}

/// Times that each body is sent: what a processor did is known to a hundredth of a second.
const SENT: u32 = 3;
/// The costliest bodies that are sent at the same time, and for how long.
const AT_ONCE: usize = 8;
const SENDING: Duration = Duration::from_secs(10);
/// What such a body may be answered: it is taken for what it is, or refused.
const ANSWERS: [u16; 7] = [200, 400, 404, 409, 413, 422, 429];
/// A task of ratings that there is.
const TASK: &str = "tea";

/// What a body took.
struct Cost {
    what: String,
    /// Seconds of the server's processor.
    seconds: f64,
    /// Of the answer.
    bytes: usize,
    request: RequestBuilder,
}

/// Sends a body some times; what is wrong with an answer goes to `wrong`.
async fn cost(lab: &Lab, path: &str, Body { what, text }: Body, wrong: &mut Vec<String>) -> Result<Cost> {
    let what = format!("{path}, {what}");
    let request = lab.request(Method::POST, path).header("origin", lab.origin()).header("content-type", "application/json");
    let request = request.body(text);
    let (mut bytes, before) = (0, processor(lab.pid()));
    for _ in 0..SENT {
        let asked = request.try_clone().context("a body that can be sent again")?.send().await;
        let answer = asked.with_context(|| format!("{what}: no answer"))?;
        let status = answer.status().as_u16();
        bytes = answer.bytes().await?.len().max(bytes);
        if !ANSWERS.contains(&status) {
            wrong.push(format!("{what}: {status}"));
        }
    }
    Ok(Cost { what, seconds: (processor(lab.pid()) - before) / f64::from(SENT), bytes, request })
}

/// Sends a file of ratings; returns the id under which it waits to be imported.
async fn upload(lab: &Lab) -> Result<String> {
    let request = lab.request(Method::POST, "/api/v1/uploads?name=tea.jsonl").header("origin", lab.origin());
    let file = lines((0..240).map(record));
    let sent = lab.send(request.header("content-type", "application/octet-stream").body(file)).await;
    ensure!(sent.status == 201, "{}", sent.body);
    Ok(sent.body["id"].as_str().context("an upload without an id")?.to_string())
}

/// All that could be started or kept by mistake.
async fn kept(lab: &Lab) -> Result<Vec<Value>> {
    let mut kept = Vec::new();
    for path in ["/api/v1/runs", "/api/v1/studies", "/api/v1/tasks"] {
        let answer = lab.get(path).await;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.body);
        kept.push(answer.body);
    }
    Ok(kept)
}

/// Sends every body to every route that takes JSON: how many there were, the costliest, and the one with the largest answer.
async fn costs(lab: &Lab, upload: &str, wrong: &mut Vec<String>) -> Result<(usize, Vec<Cost>, (usize, String))> {
    let document = lab.get("/api/v1/openapi.json").await.body;
    let (mut count, mut worst, mut largest) = (0, Vec::<Cost>::new(), (0, String::new()));
    for (template, item) in document["paths"].as_object().context("no paths")? {
        let schema = &item["post"]["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        let name = schema["$ref"].as_str().and_then(|at| at.rsplit('/').next());
        let name = name.with_context(|| format!("the body of {template} has no name"))?;
        let fields = document["components"]["schemas"][name]["properties"].as_object();
        let fields = fields.with_context(|| format!("{name} has no fields"))?;
        let sound = sound(template, upload).with_context(|| format!("nothing is known here of what {template} takes"))?;
        let path = template.replace("{id}", "none").replace("{name}", TASK);
        for body in bodies(&sound, fields.keys())? {
            count += 1;
            let cost = cost(lab, &path, body, wrong).await?;
            if cost.bytes > largest.0 {
                largest = (cost.bytes, cost.what.clone());
            }
            worst.push(cost);
            worst.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
            worst.truncate(AT_ONCE);
        }
    }
    Ok((count, worst, largest))
}

/// Sends all requests at the same time, again and again, and asks meanwhile how the server is; returns how long each answer took, ms.
async fn health_beside(lab: &Lab, requests: Vec<RequestBuilder>) -> Result<Vec<f64>> {
    let end = Arc::<AtomicBool>::default();
    let send = |request: RequestBuilder| {
        let end = end.clone();
        tokio::spawn(async move {
            while !end.load(Ordering::Relaxed) {
                let answer = request.try_clone().context("a body that can be sent again")?.send().await?;
                let status = answer.status().as_u16();
                answer.bytes().await?;
                ensure!(ANSWERS.contains(&status), "{status}");
            }
            Ok::<(), anyhow::Error>(())
        })
    };
    let sending: Vec<JoinHandle<Result<()>>> = requests.into_iter().map(send).collect();
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < SENDING {
        let asked = Instant::now();
        let health = lab.get("/healthz").await;
        times.push(milliseconds(asked.elapsed()));
        ensure!(health.status == 200, "{} {}", health.status, health.body);
        sleep(Duration::from_millis(20)).await;
    }
    end.store(true, Ordering::Relaxed);
    for one in sending {
        one.await??;
    }
    Ok(times)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo lab bench --server"]
async fn a_body_of_one_mebibyte() -> Result<()> {
    let lab = Lab::start().await;
    let task = json!({ "upload": upload(&lab).await?, "name": TASK, "mapping": FLAT });
    let made = lab.post("/api/v1/tasks", &task).await;
    ensure!(made.status == 201, "{}", made.body);
    let waits = upload(&lab).await?;
    let (before, mut wrong) = (kept(&lab).await?, Vec::new());

    let table = Table::begin();
    let (count, worst, (bytes, what)) = costs(&lab, &waits, &mut wrong).await?;
    for (n, cost) in worst.iter().enumerate() {
        let place = format!("processor for a body of 1 MiB, number {} of {count}: {}", n + 1, cost.what);
        table.row(&place, &format!("{:.0} ms", 1e3 * cost.seconds), "50 ms");
    }
    table.row(&format!("the largest answer: {what}"), &format!("{:.1} KB", bytes as f64 / 1e3), "64 KB");
    let asked = health_beside(&lab, worst.into_iter().map(|cost| cost.request).collect()).await?;
    table.row("GET /healthz while the eight costliest are sent at once", &times(asked), "100 ms");

    let undone = lab.post(&format!("/api/v1/tasks/{TASK}/changes"), &json!({ "undo_all": true })).await;
    ensure!(undone.status == 200, "{}", undone.body);
    let after = kept(&lab).await?;
    ensure!(after == before, "something was started or kept: {after:?}");
    ensure!(wrong.is_empty(), "{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// Files that the server may open, and connections that are tried at the same time.
const FILES: usize = 1024;
const CROWD: usize = 5_000;
/// How long new clients come, one after the other, from the moment at which the crowd does.
const COMING: Duration = Duration::from_secs(10);

/// A program that is the one under test, and may open [`FILES`] files.
fn with_few_files(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("moslim-lab");
    fs::write(&path, format!("#!/bin/sh\nulimit -n {FILES}\nexec '{}' \"$@\"\n", text(&binary())))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Lets this process open as many files as the crowd needs, where the system allows it; else the crowd is smaller.
fn open_many_files() {
    let (own, limit) = (std::process::id().to_string(), format!("--nofile={}:", CROWD + FILES));
    let _ = Command::new("prlimit").args(["--pid", &own, &limit]).status();
}

/// Connects, says nothing, and stays until the server hangs up.
async fn says_nothing(port: u16, standing: Arc<AtomicUsize>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    standing.fetch_add(1, Ordering::Relaxed);
    // A connection that was reset is gone, too.
    let _ = stream.read(&mut [0]).await;
    Ok(())
}

/// Files that a server at rest may open and close meanwhile.
const FEW: usize = 4;

/// Asks once over a connection of its own; false where it is not answered.
async fn is_answered(lab: &Lab) -> bool {
    let request = format!(
        "GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        lab.port(),
        lab.token()
    );
    let mut answer = Vec::new();
    let asking = async {
        let mut stream = TcpStream::connect(("127.0.0.1", lab.port())).await?;
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    let asked = timeout(LIMIT, asking).await;
    matches!(asked, Ok(Ok(_))) && answer.starts_with(b"HTTP/1.1 200")
}

/// A new client asks until it is answered; how long that took, ms, and how often it asked in vain.
async fn newcomer(lab: &Lab) -> Result<(f64, usize)> {
    let (began, mut in_vain) = (Instant::now(), 0);
    while !is_answered(lab).await {
        ensure!(began.elapsed() < LIMIT, "a new client is not served");
        in_vain += 1;
    }
    Ok((milliseconds(began.elapsed()), in_vain))
}

/// Crowd and new client come from the same address. It is this machine's, of which there may be as many as there are at all: what keeps one
/// other machine from having all connections helps nobody here.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo lab bench --server"]
async fn a_crowd_that_says_nothing() -> Result<()> {
    open_many_files();
    let folder = tempfile::tempdir()?;
    let lab = Lab::start_from(&with_few_files(folder.path())?).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", lab.pid()))?;
    let few = |line: &str| line.starts_with("Max open files") && line.contains(&format!(" {FILES} "));
    ensure!(limits.lines().any(few), "{limits}");
    let (alone, _) = newcomer(&lab).await?;
    let before = open_files(lab.pid());

    let table = Table::begin();
    let standing = Arc::<AtomicUsize>::default();
    let join = |_| tokio::spawn(says_nothing(lab.port(), standing.clone()));
    let crowd: Vec<JoinHandle<std::io::Result<()>>> = (0..CROWD).map(join).collect();
    let (began, mut waits, mut in_vain, mut files) = (Instant::now(), Vec::new(), 0, 0);
    while began.elapsed() < COMING {
        let (wait, more) = newcomer(&lab).await?;
        waits.push(wait);
        in_vain += more;
        files = open_files(lab.pid()).max(files);
        sleep(Duration::from_millis(20)).await;
    }
    // What the server knows of: the system completes a connection that it then has no room to hand over, and its client waits.
    let freed = wait_until("the silent to be gone", || (open_files(lab.pid()) <= before + FEW).then(|| began.elapsed())).await;
    let stood = standing.load(Ordering::Relaxed);
    ensure!(stood > FILES, "{stood} connections stood, fewer than the server's files: there was no crowd");
    ensure!(lab.get("/healthz").await.status == 200, "the server is not well");

    crowd.iter().for_each(JoinHandle::abort);
    table.row("connections that stood", &format!("{stood} of {CROWD}"), "");
    let what = "a new client meanwhile, from the same address";
    table.row(what, &format!("{} ({alone:.1} ms alone)", times(waits)), "served");
    table.row("asked in vain, and asked again", &in_vain.to_string(), "0");
    table.row("files that the server has open at most", &files.to_string(), &format!("less than {FILES}"));
    table.row("until the last that said nothing is gone", &format!("{:.1} s", freed.as_secs_f64()), "30 s");
    Ok(())
}

/// Sockets that only stand.
const AT_REST: usize = 300;
/// A name that a run is given while they stand.
const NAME: &str = "seen by all";

/// Opens a socket that follows a run, and has its snapshot.
async fn opened(lab: &Lab, run: &str, after: u64) -> Result<Socket> {
    let mut socket = lab.follow(run, after).await?;
    let first = heard(&mut socket).await?;
    ensure!(first.starts_with("{\"snapshot\""), "{first:.100}");
    Ok(socket)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo lab bench --server"]
async fn many_sockets_at_rest() -> Result<()> {
    let lab = Lab::start().await;
    let run = lab.start_run(&smoke()).await;
    let last = lab.wait_for_finish(&run).await.last_seq;
    let table = Table::begin();
    let before = resident(lab.pid());
    let mut sockets = Vec::new();
    for _ in 0..AT_REST {
        sockets.push(opened(&lab, &run, last).await?);
    }
    sleep(Duration::from_secs(2)).await;
    let after = resident(lab.pid());
    // All of them live: each is told the news.
    let about = lab.request(Method::PUT, &format!("/api/v1/runs/{run}/about")).header("origin", lab.origin());
    let named = lab.send(about.json(&json!({ "name": NAME }))).await;
    ensure!(named.status == 200, "{}", named.body);
    for socket in &mut sockets {
        let told = heard(socket).await?;
        ensure!(told.starts_with("{\"info\"") && told.contains(NAME), "{told:.100}");
    }
    let news = resident(lab.pid());
    let what = format!("memory of the server with {AT_REST} sockets at rest");
    table.row(&what, &format!("{after:.0} MiB ({before:.0} before, {news:.0} after news for all)"), "150 MiB");
    Ok(())
}

/// Sockets of one run; of these, those that take nothing while the others are measured.
const SOCKETS: usize = 200;
const SLOW: usize = 10;
/// Time between two events.
const EVERY: Duration = Duration::from_millis(50);
/// How long they are written. Whoever takes nothing for 45 s is sent away.
const WRITING: Duration = Duration::from_secs(20);
/// The run whose journal is written here.
const LIVE: &str = "live";
/// In a line of a journal: it is a step of the policy.
const STEP: &str = "\"body\":{\"policy\"";

/// A run that counts as running, as long as this lives, and whose journal grows by the same step of a policy again and again.
struct Live {
    journal: PathBuf,
    line: String,
    /// Lines of the journal.
    lines: u64,
    _held: File,
}

/// Sockets that follow it while it is written.
struct Audience {
    end: Arc<AtomicBool>,
    writer: JoinHandle<std::io::Result<Vec<Instant>>>,
    readers: Vec<JoinHandle<Result<Vec<Instant>>>>,
}

impl Live {
    /// Makes one of a run that has finished, without its end, and waits until the server follows it.
    async fn begin(lab: &Lab) -> Result<Self> {
        let run = lab.start_run(&smoke()).await;
        lab.wait_for_finish(&run).await;
        let runs = lab.data().join("runs");
        let (own, folder) = (runs.join(run), runs.join(LIVE));
        let said = fs::read_to_string(own.join("events.jsonl"))?;
        let said: Vec<&str> = said.split_inclusive('\n').collect();
        let last = said.iter().rposition(|line| line.contains(STEP)).context("no step of a policy")?;
        fs::create_dir_all(&folder)?;
        let held = hold(&folder)?;
        // It counts as one of a cluster, so that this machine is free for other runs.
        fs::write(folder.join("slurm.json"), "{}")?;
        copy_run(&own, &folder, &said[..=last].concat())?;
        let live = Self { journal: folder.join("events.jsonl"), line: said[last].into(), lines: last as u64 + 1, _held: held };
        let began = Instant::now();
        loop {
            let told = lab.get(&format!("/api/v1/runs/{LIVE}")).await;
            if told.body["status"] == "running" && told.body["last_seq"] == live.lines {
                return Ok(live);
            }
            ensure!(began.elapsed() < LIMIT, "the run is not followed: {} {}", told.status, told.body);
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Adds a line to the journal every [`EVERY`], until told to end; returns when each was written. `last` becomes the number of the last
    /// before that is written.
    fn write(&self, end: Arc<AtomicBool>, last: Arc<AtomicU64>) -> JoinHandle<std::io::Result<Vec<Instant>>> {
        let (journal, line, before) = (self.journal.clone(), self.line.clone(), self.lines);
        tokio::task::spawn_blocking(move || -> std::io::Result<Vec<Instant>> {
            let mut file = OpenOptions::new().append(true).open(journal)?;
            let (began, mut times) = (Instant::now(), Vec::new());
            loop {
                let due = began + EVERY * times.len() as u32;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let over = end.load(Ordering::Relaxed);
                times.push(Instant::now());
                if over {
                    last.store(before + times.len() as u64, Ordering::Relaxed);
                }
                file.write_all(line.as_bytes())?;
                if over {
                    return Ok(times);
                }
            }
        })
    }

    /// Opens sockets, and begins to write once all stand.
    async fn begin_before(&self, lab: &Lab, sockets: usize) -> Result<Audience> {
        let (end, last) = (Arc::<AtomicBool>::default(), Arc::new(AtomicU64::new(u64::MAX)));
        let mut readers = Vec::new();
        for _ in 0..sockets {
            let socket = opened(lab, LIVE, self.lines).await?;
            readers.push(tokio::spawn(arrivals(socket, self.lines + 1, last.clone())));
        }
        Ok(Audience { writer: self.write(end.clone(), last), end, readers })
    }

    /// Ends the writing; returns when each line was written, and for every socket when it came.
    async fn end_before(&mut self, audience: Audience) -> Result<(Vec<Instant>, Vec<Vec<Instant>>)> {
        audience.end.store(true, Ordering::Relaxed);
        let written = audience.writer.await??;
        let mut seen = Vec::new();
        for reader in audience.readers {
            let came = reader.await??;
            ensure!(came.len() == written.len(), "{} events of {} came", came.len(), written.len());
            seen.push(came);
        }
        self.lines += written.len() as u64;
        Ok((written, seen))
    }
}

/// As much of a frame as tells which events are in it.
#[derive(Deserialize)]
struct Heard {
    events: Option<Several>,
}

#[derive(Deserialize)]
struct Several {
    events: Vec<Numbered>,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

/// Reads a socket from event `first` until `last` has come; returns when each came. Fails where one is missing or comes twice.
async fn arrivals(mut socket: Socket, first: u64, last: Arc<AtomicU64>) -> Result<Vec<Instant>> {
    let mut times = Vec::new();
    loop {
        let frame = heard(&mut socket).await?;
        let now = Instant::now();
        let frame: Heard = serde_json::from_str(&frame)?;
        for event in frame.events.into_iter().flat_map(|several| several.events) {
            let due = first + times.len() as u64;
            ensure!(event.seq == due, "event {} came where {due} was due", event.seq);
            times.push(now);
        }
        if first + times.len() as u64 > last.load(Ordering::Relaxed) {
            return Ok(times);
        }
    }
}

/// Seconds of processor that the server and this process, whose the sockets' other ends are, have had.
fn processors(lab: &Lab) -> [f64; 2] {
    [lab.pid(), std::process::id()].map(processor)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo lab bench --server"]
async fn many_sockets_of_one_run() -> Result<()> {
    let lab = Lab::start().await;
    let mut live = Live::begin(&lab).await?;
    let table = Table::begin();
    let (first, mut slow) = (live.lines + 1, Vec::new());
    for _ in 0..SLOW {
        slow.push(opened(&lab, LIVE, live.lines).await?);
    }
    let audience = live.begin_before(&lab, SOCKETS - SLOW).await?;
    let (began, before) = (Instant::now(), processors(&lab));
    sleep(WRITING).await;
    let (seconds, after) = (began.elapsed().as_secs_f64(), processors(&lab));
    let (written, seen) = live.end_before(audience).await?;
    // Who has taken nothing meanwhile has missed nothing.
    for socket in slow {
        let came = arrivals(socket, first, Arc::new(AtomicU64::new(live.lines))).await?;
        ensure!(came.len() == written.len(), "{} events of {} came late", came.len(), written.len());
    }
    let run = lab.get(&format!("/api/v1/runs/{LIVE}")).await.body;
    ensure!(run["status"] == "running" && run["last_seq"] == live.lines, "{run}");

    let delays = seen.iter().flatten().zip(written.iter().cycle());
    let delays = delays.map(|(came, written)| milliseconds(came.saturating_duration_since(*written)));
    let what = format!("from a line's writing to each of {} sockets, {SLOW} more asleep", SOCKETS - SLOW);
    table.row(&what, &times(delays), "250 ms");
    let share = [0, 1].map(|n| 100.0 * (after[n] - before[n]) / seconds);
    let what = format!("processor meanwhile, of one core, with {} bytes a line", live.line.len());
    table.row(&what, &format!("server {:.0} %, the sockets' clients {:.0} %", share[0], share[1]), "");
    Ok(())
}

/// Iterations of policy optimisation while sockets are served: some twenty seconds of it.
const ITERATIONS: usize = 6000;

/// The same run three times alone and three times while sockets follow another one, which says twenty events a second; in turns, for a machine is not
/// always as fast. A run trains on all cores, and the sockets' clients are here as well: on a machine of two cores they take of what trains,
/// too, and with them on other machines it would be slowed less. What server and clients took is therefore printed beside it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo lab bench --server"]
async fn training_beside_many_sockets() -> Result<()> {
    let lab = Lab::start().await;
    let mut live = Live::begin(&lab).await?;
    let mut config = smoke();
    config.policy.iterations = ITERATIONS;
    // A disk is not always as fast either.
    config.policy.checkpoint_every = ITERATIONS;
    let table = Table::begin();
    let (mut figures, mut alone, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    for followed in [false, true, false, true, false, true] {
        let audience = if followed { Some(live.begin_before(&lab, SOCKETS).await?) } else { None };
        let (began, before) = (Instant::now(), processors(&lab));
        let run = lab.start_run(&config).await;
        let summary = lab.wait_for_finish(&run).await.summary.context("a run without a summary")?;
        let (seconds, after) = (began.elapsed().as_secs_f64(), processors(&lab));
        if let Some(audience) = audience {
            live.end_before(audience).await?;
        }
        figures.push(metrics(&serde_json::to_value(&summary)?));
        let policy = summary.compute.policy_seconds;
        if followed {
            beside.push(policy)
        } else {
            alone.push(policy)
        }
        let what = if followed { "seconds of policy optimisation beside the sockets" } else { "the same without" };
        let [server, clients] = [0, 1].map(|n| after[n] - before[n]);
        let measured = format!("{policy:.2} (of {seconds:.1}: processor of server {server:.1}, of clients {clients:.1})");
        table.row(what, &measured, "");
    }
    ensure!(figures.windows(2).all(|pair| pair[0] == pair[1]), "the sockets change what comes out");
    let [alone, beside] = [alone, beside].map(|seconds: Vec<f64>| seconds.iter().sum::<f64>());
    let what = format!("training is slower with {SOCKETS} sockets at 20 events a second, by");
    table.row(&what, &format!("{:.1} %", 100.0 * (beside / alone - 1.0)), "1 %");
    Ok(())
}

/// Runs of the list, beside the one that they are copies of.
const RUNS: usize = 10_000;

/// Copies of a finished run. Their files are those of the run, so that they need no room.
fn copies(runs: &Path, of: &str) -> Result<()> {
    for n in 0..RUNS {
        let copy = runs.join(format!("copy-{n:05}"));
        fs::create_dir(&copy)?;
        for name in ["config.toml", "task.json", "events.jsonl", "summary.json"] {
            fs::hard_link(runs.join(of).join(name), copy.join(name)).with_context(|| format!("linking {name}"))?;
        }
    }
    Ok(())
}

/// Waits until all runs are in the index.
async fn indexed(lab: &Lab) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(lab.data().join("index.db"));
    let mut index = SqliteConnection::connect_with(&options).await?;
    let began = Instant::now();
    loop {
        let known: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM runs").fetch_one(&mut index).await?;
        if known > RUNS as i64 {
            break;
        }
        ensure!(began.elapsed() < LIMIT, "the index has {known} runs and gets no more");
        sleep(Duration::from_millis(100)).await;
    }
    index.close().await?;
    Ok(())
}

/// Every run once, page after page.
async fn walk(lab: &Lab) -> Result<()> {
    let (mut seen, mut path) = (BTreeSet::new(), "/api/v1/runs?limit=500".to_string());
    loop {
        let page = lab.get(&path).await;
        ensure!(page.status == 200, "{path}: {}", page.body);
        for row in page.body["rows"].as_array().context("no rows")? {
            let id = row["id"].as_str().context("a row without an id")?;
            ensure!(seen.insert(id.to_string()), "{id} is there twice");
        }
        let Some(next) = page.body["next"].as_str() else { break };
        path = format!("/api/v1/runs?limit=500&after={next}");
    }
    ensure!(seen.len() == RUNS + 1, "{} runs of {}", seen.len(), RUNS + 1);
    Ok(())
}

/// The first page some times: how long each took, ms, and its bytes.
async fn first_pages(lab: &Lab) -> Result<(Vec<f64>, usize)> {
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..50 {
        let asked = Instant::now();
        let answer = lab.request(Method::GET, "/api/v1/runs").send().await?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await?;
        times.push(milliseconds(asked.elapsed()));
        let page: Value = serde_json::from_slice(&body)?;
        let rows = page["rows"].as_array().map(Vec::len);
        ensure!(status == 200 && page["total"] == RUNS + 1 && rows == Some(50), "{status} {rows:?} {}", page["total"]);
        bytes = body.len().max(bytes);
    }
    Ok((times, bytes))
}

/// Kills the server and starts it again; seconds until it has answered.
async fn start_again(lab: &mut Lab) -> Result<f64> {
    lab.kill();
    let began = Instant::now();
    lab.restart().await;
    let page = lab.get("/api/v1/runs").await;
    ensure!(page.status == 200 && page.body["total"] == RUNS + 1, "{} {}", page.status, page.body["total"]);
    Ok(began.elapsed().as_secs_f64())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo lab bench --server"]
async fn a_list_of_ten_thousand_runs() -> Result<()> {
    let mut lab = Lab::start().await;
    let run = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&run).await;
    lab.kill();
    copies(&lab.data().join("runs"), &run)?;
    let table = Table::begin();
    let unknown = start_again(&mut lab).await?;
    indexed(&lab).await?;
    let known = start_again(&mut lab).await?;
    let (pages, bytes) = first_pages(&lab).await?;
    let memory = resident(lab.pid());
    walk(&lab).await?;
    table.row("the first page of a list of 10,001 runs", &times(pages), "200 ms");
    table.row("its size", &format!("{:.1} KB", bytes as f64 / 1e3), "100 KB");
    let whole = resident(lab.pid());
    // What it took to read the index goes back to the system within seconds.
    sleep(Duration::from_secs(5)).await;
    let rests = resident(lab.pid());
    let measured = format!("{rests:.0} MiB ({memory:.0} as it starts, {whole:.0} after all pages)");
    table.row("memory of the server", &measured, "100 MiB");
    let started = format!("{known:.2} s ({unknown:.1} s without an index)");
    table.row("from its start to its first answer", &started, "2 s");
    Ok(())
}
