//! A laboratory of its own for each test: a server with a fresh folder, and the ways to talk to it.

use crate::browser::Browser;
use crate::process::{LIMIT, Process, binary, kill_processes, processes, text, wait_until};
use crate::soak;
use anyhow::{Context, Result, ensure};
use moslim_shared::config::RunConfig;
use moslim_shared::event::{Event, EventBody, Outcome, RunInfo, RunStatus, Stage};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const READY: &str = "MOSLIM Lab is ready at http://127.0.0.1:";

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The body; a text where it is not JSON.
    pub body: Value,
}

/// A running server and its folder.
#[derive(Debug)]
pub struct Lab {
    /// The program that serves.
    program: PathBuf,
    server: Process,
    port: u16,
    token: String,
    /// What `serve` was given beside port and folder.
    options: Vec<String>,
    http: Client,
    data: PathBuf,
    /// Where the data folder is this lab's own.
    _folder: Option<TempDir>,
}

/// Starts a server; returns its port and its token.
async fn serve(program: &Path, data: &Path, port: u16, options: &[String]) -> (Process, u16, String) {
    let port = port.to_string();
    let mut args = vec!["serve", "--port", &port, "--data", text(data)];
    args.extend(options.iter().map(String::as_str));
    let mut server = Process::start(program, &args, "");
    let (port, token) = wait_until("the server to be ready", || {
        assert!(server.running(), "the server ended at once; it said\n{}", server.stderr());
        let said = server.stdout();
        let (port, token) = said.strip_suffix('\n')?.strip_prefix(READY)?.split_once("/?token=")?;
        Some((port.parse().ok()?, token.to_string()))
    })
    .await;
    (server, port, token)
}

impl Lab {
    /// Starts a server on a free port with an empty folder.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with more options of `serve`.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().to_path_buf();
        Self::start_at(binary(), data, Some(folder), options).await
    }

    /// Starts a server on a free port with a folder that is not there yet, from another file than [`binary`].
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_from(program: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        Self::start_at(program.into(), data, Some(folder), &[]).await
    }

    /// Starts a server on a free port with a given folder.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_in(data: &Path) -> Self {
        Self::start_at(binary(), data.into(), None, &[]).await
    }

    async fn start_at(program: PathBuf, data: PathBuf, folder: Option<TempDir>, options: &[&str]) -> Self {
        let http = Client::builder().no_proxy().redirect(Policy::none()).timeout(LIMIT).build().expect("an HTTP client");
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let (server, port, token) = serve(&program, &data, 0, &options).await;
        Self { program, server, port, token, options, http, data, _folder: folder }
    }

    /// Ends the server at once (SIGKILL).
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts the server again, with the same folder and on the same port.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn restart(&mut self) {
        self.kill();
        (self.server, self.port, self.token) = serve(&self.program, &self.data, self.port, &self.options).await;
    }

    /// What the server wrote to standard error since it was started.
    pub fn stderr(&self) -> String {
        self.server.stderr()
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:PORT`.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The server's own token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// A browser that has come by the address which the server printed.
    ///
    /// # Errors
    /// When it does not start, or is not let in.
    pub async fn browser(&self) -> Result<Browser> {
        let browser = Browser::open().await?;
        browser.goto(&format!("{}/?token={}", self.origin(), self.token)).await?;
        ensure!(browser.js("location.search").await? == "", "the token stays in the address");
        Ok(browser)
    }

    /// A request of nobody.
    pub fn stranger(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.origin()))
    }

    /// Process ids of the workers of this server, and of servers of this folder before it.
    pub fn workers(&self) -> Vec<u32> {
        processes(&["worker", text(self.data())])
    }

    /// A request with no more headers than any program would send: no `Origin`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.stranger(method, path).bearer_auth(&self.token)
    }

    /// Sends a request.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer of the server");
        let status = response.status().as_u16();
        let body = response.text().await.expect("the body of the answer");
        Answer { status, body: serde_json::from_str(&body).unwrap_or(Value::String(body)) }
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Posts JSON as the server's own page does.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).header("origin", self.origin()).json(body)).await
    }

    /// Starts a run; returns its id.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn start_run(&self, config: &RunConfig) -> String {
        let answer = self.post("/api/v1/runs", &json!({ "config": config })).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body["id"].as_str().expect("the id of a run").to_string()
    }

    /// Goes on with a run; as soon as may be, where too much was started within a minute.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn resume(&self, id: &str) {
        let began = Instant::now();
        loop {
            let answer = self.post(&format!("/api/v1/runs/{id}/resume"), &json!({})).await;
            if answer.status == 429 && began.elapsed() < LIMIT {
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            }
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.body["status"], "running", "{}", answer.body);
            return;
        }
    }

    /// A run.
    ///
    /// # Panics
    /// When there is none.
    pub async fn run(&self, id: &str) -> RunInfo {
        let answer = self.get(&format!("/api/v1/runs/{id}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_value(answer.body).expect("a run")
    }

    /// At most 200 events of a run after number `after`.
    ///
    /// # Panics
    /// When there is no such run.
    async fn page(&self, id: &str, after: usize) -> Vec<Event> {
        let answer = self.get(&format!("/api/v1/runs/{id}/events?after={after}&limit=200")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_value(answer.body).expect("events")
    }

    /// All events of a run, page by page.
    ///
    /// # Panics
    /// When their numbers are not 1, 2, 3 and so on.
    pub async fn events(&self, id: &str) -> Vec<Event> {
        let mut all: Vec<Event> = Vec::new();
        loop {
            let page = self.page(id, all.len()).await;
            if page.is_empty() {
                break;
            }
            all.extend(page);
        }
        let numbers: Vec<u64> = all.iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (1..=all.len() as u64).collect::<Vec<_>>(), "the numbers of the events have a gap");
        all
    }

    /// Waits until a run no longer runs; longer for one that is made longer for a soak.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn wait_for_end(&self, id: &str) -> RunInfo {
        let began = Instant::now();
        loop {
            let run = self.run(id).await;
            if run.status != RunStatus::Running {
                return run;
            }
            assert!(began.elapsed() < LIMIT * soak() as u32, "run {id} does not end; it is at event {}", run.last_seq);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a run finished.
    ///
    /// # Panics
    /// When it ends in another way.
    pub async fn wait_for_finish(&self, id: &str) -> RunInfo {
        let run = self.wait_for_end(id).await;
        assert_eq!(run.status, RunStatus::Finished, "{}", run.message);
        assert!(run.summary.is_some(), "a finished run has a summary");
        run
    }

    /// Waits until a running run has done `step` iterations of policy optimisation.
    ///
    /// # Panics
    /// When it ends before.
    pub async fn wait_for_policy(&self, id: &str, step: usize) {
        assert!(self.reaches_policy(id, step).await, "run {id} ended before iteration {step}; make it longer");
    }

    /// Waits until a running run has done `step` iterations of policy optimisation, or has ended; whether it has done them.
    pub async fn reaches_policy(&self, id: &str, step: usize) -> bool {
        let began = Instant::now();
        let mut seen: Vec<Event> = Vec::new();
        loop {
            // Before: whoever has ended says nothing more.
            let runs = self.run(id).await.status == RunStatus::Running;
            let page = self.page(id, seen.len()).await;
            let all = page.is_empty();
            seen.extend(page);
            if policy_steps(&seen).last().is_some_and(|&last| last >= step) {
                return true;
            }
            if !all {
                continue;
            }
            if !runs {
                return false;
            }
            assert!(began.elapsed() < LIMIT, "run {id} does not reach iteration {step}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server said\n{}", self.server.stderr());
        }
        self.server.kill();
        // The workers of a killed server go by themselves, but the folder goes now.
        kill_processes(&["worker", text(&self.data)]);
    }
}

/// A token that the command makes for somebody, and the lines of a group's file that make it known.
///
/// # Errors
/// When the command fails.
pub fn invite(name: &str, role: &str) -> Result<(String, String)> {
    let output = Process::lab(&["token", name, "--role", role]).wait();
    ensure!(output.code == Some(0), "{}", output.stderr);
    let token = output.stderr.lines().next().and_then(|line| line.rsplit(' ').next()).context("a token")?;
    Ok((token.to_string(), output.stdout))
}

/// How the processes of a run ended, one after the other.
pub fn endings(events: &[Event]) -> Vec<Outcome> {
    let outcome = |event: &Event| match event.body {
        EventBody::Ended { outcome, .. } => Some(outcome),
        _ => None,
    };
    events.iter().filter_map(outcome).collect()
}

/// The iterations of policy optimisation that count: a resumed run voids those after its checkpoint.
pub fn policy_steps(events: &[Event]) -> Vec<usize> {
    let mut steps: Vec<usize> = Vec::new();
    for event in events {
        match &event.body {
            EventBody::StageBegan { stage: Stage::Policy, from, .. } => steps.retain(|step| step <= from),
            EventBody::Policy { step, .. } => steps.push(step.step),
            _ => {}
        }
    }
    steps
}
