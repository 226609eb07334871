//! Requests to whoever answers, the server or this tab's engine: a function for each, and why one came to nothing.
//!
//! Paths and forms of requests belong here. What a page does with an answer does not.

use crate::json::{read, written};
pub use crate::source::Failure;
use crate::source::{Ended, Link, Pouring, source};
use crate::words::{said, t};
use js_sys::Uint8Array;
use moslim_shared::bringing::{ModelList, Preview, Upload};
use moslim_shared::config::RunConfig;
use moslim_shared::event::{About, RunInfo, TaskInfo};
use moslim_shared::inference::{GenerateEvent, GenerateRequest, ScoreRequest, Scored};
use moslim_shared::listing::{ListQuery, RunsPage};
use moslim_shared::ratings::{RatingsTask, ShownRow, TaskStatistics, UnlikelyLabel};
use moslim_shared::refusal::ApiError;
use moslim_shared::study::{Host, StudyPreset, StudyRequest, StudyResults, StudyState};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cell::Cell;
use std::rc::Rc;
use wasm_bindgen::JsCast;

/// Finished runs that an estimate is made from.
const MOST_MEASURED: usize = 8;

/// What comes back, sooner or later.
type Answer<T> = Result<T, Failure>;

/// A device that the server could compute on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DeviceInfo {
    pub device: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub available: bool,
    #[serde(default)]
    pub chosen: bool,
    #[serde(default)]
    pub reason: String,
}

/// A page of the list of runs.
pub async fn runs(query: &ListQuery) -> Answer<RunsPage> {
    let mut path = format!("/api/v1/runs?filter={}", encoded(&query.filter));
    if !query.sort.is_empty() {
        path.push_str(&format!("&sort={}", encoded(&query.sort)));
    }
    if let Some(after) = &query.after {
        path.push_str(&format!("&after={}", encoded(after)));
    }
    if let Some(limit) = query.limit {
        path.push_str(&format!("&limit={limit}"));
    }
    get(&path).await
}

/// The last finished runs with what they took, as estimates are made from.
pub async fn measured() -> Answer<Vec<RunInfo>> {
    let query = ListQuery { filter: "status:finished".into(), limit: Some(MOST_MEASURED), ..Default::default() };
    let mut measured = Vec::new();
    for row in runs(&query).await?.rows {
        measured.extend(run(&row.id).await.ok().filter(|run| run.summary.is_some()));
    }
    Ok(measured)
}

fn encoded(text: &str) -> String {
    js_sys::encode_uri_component(text).into()
}

/// Everything about a run.
pub async fn run(id: &str) -> Answer<RunInfo> {
    get(&format!("/api/v1/runs/{id}")).await
}

/// Says something of a run.
pub async fn describe(run: &str, about: &About) -> Answer<()> {
    let body = written(about);
    let _: IgnoredAny = ask("PUT", &format!("/api/v1/runs/{run}/about"), Some(body)).await?;
    Ok(())
}

/// Puts a run into the trash.
pub async fn delete(run: &str) -> Answer<()> {
    let path = format!("/api/v1/runs/{run}");
    match source().ask("DELETE", path, None).await? {
        (204, _) => Ok(()),
        (status, text) => Err(refused(status, &text)),
    }
}

/// The task that a configuration names.
pub async fn task(config: &RunConfig) -> Answer<TaskInfo> {
    post("/api/v1/task", &json!({ "config": config })).await
}

/// The devices and why one is chosen.
pub async fn devices() -> Answer<Vec<DeviceInfo>> {
    get("/api/v1/devices").await
}

/// Starts a run, or has it wait for its turn; the answer is its id.
pub async fn start(config: &RunConfig) -> Answer<String> {
    let info: RunInfo = post("/api/v1/runs", &json!({ "config": config, "queue": true })).await?;
    Ok(info.id)
}

/// Asks a run to `cancel`, `pause`, `kill`, `checkpoint`, `resume` or, out of the trash, `restore`.
pub async fn act(run: &str, action: &str) -> Answer<()> {
    let _: IgnoredAny = post(&format!("/api/v1/runs/{run}/{action}"), &json!({})).await?;
    Ok(())
}

/// Everything about a run, as one file that another lab opens.
pub async fn run_file(run: &str) -> Answer<Uint8Array> {
    let (status, answer) = source().carry(format!("/api/v1/runs/{run}/file"), None).await?;
    if status == 200 { Ok(answer.unchecked_into()) } else { Err(refused(status, &answer.as_string().unwrap_or_default())) }
}

/// Adds the run in such a file; the answer is its id.
pub async fn open_run_file(bytes: Uint8Array) -> Answer<String> {
    let (status, answer) = source().carry("/api/v1/run-files".into(), Some(bytes)).await?;
    let text = answer.as_string().unwrap_or_default();
    if status == 201 { understood::<RunInfo>(&text).map(|run| run.id) } else { Err(refused(status, &text)) }
}

/// A run's answers to a question: `heard` is told of each event, `ended` once, when nothing more comes. When what is returned is
/// dropped, the rest is not wanted any more.
pub fn generate(
    run: &str,
    request: &GenerateRequest,
    heard: impl Fn(GenerateEvent) + 'static,
    ended: impl Fn(Answer<()>) + 'static,
) -> Box<dyn Link> {
    let whole = Rc::new(Cell::new(false));
    let last = whole.clone();
    let line = move |line: String| {
        let event = read(&line);
        let failed = |e: serde_json::Error| GenerateEvent::Failed {
            message: said("An answer is not understood (\"{0}\").", &[&e.to_string()]),
        };
        let event: GenerateEvent = event.unwrap_or_else(failed);
        last.set(last.get() || event.is_last());
        heard(event);
    };
    let ended = move |how: Ended| {
        ended(how.and_then(|(status, text)| match status {
            200 if whole.get() => Ok(()),
            200 => Err(Failure::new(t("The answer was cut off: the server has stopped."))),
            _ => Err(refused(status, &text)),
        }));
    };
    let body = written(request);
    source().pour(format!("/api/v1/runs/{run}/generate"), body, Rc::new(Pouring { line: Box::new(line), ended: Box::new(ended) }))
}

/// What a finished run's reward model says of answers.
pub async fn score(run: &str, request: &ScoreRequest) -> Answer<Vec<Scored>> {
    post(&format!("/api/v1/runs/{run}/score"), request).await
}

/// A configuration as TOML.
pub async fn as_toml(config: &RunConfig) -> Answer<String> {
    let answer: Value = post("/api/v1/config/toml", &json!({ "config": config })).await?;
    Ok(answer["toml"].as_str().unwrap_or_default().to_string())
}

/// The configuration that a text holds, TOML.
pub async fn of_toml(text: &str) -> Answer<Value> {
    post("/api/v1/config/read", &json!({ "toml": text })).await
}

/// The imported tasks.
pub async fn tasks() -> Answer<Vec<RatingsTask>> {
    get("/api/v1/tasks").await
}

/// An imported task.
pub async fn imported(name: &str) -> Answer<RatingsTask> {
    get(&format!("/api/v1/tasks/{}", encoded(name))).await
}

/// What can be counted of it.
pub async fn task_statistics(name: &str) -> Answer<TaskStatistics> {
    get(&format!("/api/v1/tasks/{}/stats", encoded(name))).await
}

/// Its rows: `limit` of those that fit, after the first `from`.
pub async fn task_rows(name: &str, from: usize, limit: usize, split: &str, disagreed: bool) -> Answer<Vec<ShownRow>> {
    let split = if split.is_empty() { String::new() } else { format!("&split={}", encoded(split)) };
    get(&format!("/api/v1/tasks/{}/rows?from={from}&limit={limit}&disagreed={disagreed}{split}", encoded(name))).await
}

/// Changes its classes, by a `ChangeRequest`.
pub async fn change_task(name: &str, request: &Value) -> Answer<RatingsTask> {
    post(&format!("/api/v1/tasks/{}/changes", encoded(name)), request).await
}

/// Labels of it that a run's reward model finds unlikely, by a `NoiseRequest`.
pub async fn noise(name: &str, request: &Value) -> Answer<Vec<UnlikelyLabel>> {
    post(&format!("/api/v1/tasks/{}/noise", encoded(name)), request).await
}

/// Sends a file of ratings, and hears what is in it.
pub async fn upload(name: &str, bytes: Uint8Array) -> Answer<Upload> {
    let (status, answer) = source().carry(format!("/api/v1/uploads?name={}", encoded(name)), Some(bytes)).await?;
    let text = answer.as_string().unwrap_or_default();
    if status == 201 { understood(&text) } else { Err(refused(status, &text)) }
}

/// What the first records of such a file would be, by an `ImportRequest`.
pub async fn preview(request: &Value) -> Answer<Preview> {
    post("/api/v1/uploads/preview", request).await
}

/// Makes a task of it, by the same.
pub async fn import(request: &Value) -> Answer<RatingsTask> {
    post("/api/v1/tasks", request).await
}

/// The off-the-shelf models that the lab knows.
pub async fn models() -> Answer<ModelList> {
    get("/api/v1/models").await
}

/// What can be studied.
pub async fn study_presets() -> Answer<Vec<StudyPreset>> {
    get("/api/v1/study-presets").await
}

/// Where studies can be trained.
pub async fn study_hosts() -> Answer<Vec<Host>> {
    get("/api/v1/study-hosts").await
}

/// All studies, newest first.
pub async fn studies() -> Answer<Vec<StudyState>> {
    get("/api/v1/studies").await
}

/// Starts a study.
pub async fn start_study(request: &StudyRequest) -> Answer<StudyState> {
    post("/api/v1/studies", request).await
}

/// How a study stands.
pub async fn study(id: &str) -> Answer<StudyState> {
    get(&format!("/api/v1/studies/{id}")).await
}

/// What a study found; there is nothing before its first run is finished.
pub async fn study_results(id: &str) -> Answer<StudyResults> {
    get(&format!("/api/v1/studies/{id}/results")).await
}

/// Asks a study to `cancel` or `resume`.
pub async fn act_on_study(id: &str, action: &str) -> Answer<StudyState> {
    post(&format!("/api/v1/studies/{id}/{action}"), &json!({})).await
}

async fn get<T: DeserializeOwned>(path: &str) -> Answer<T> {
    ask("GET", path, None).await
}

async fn post<T: DeserializeOwned>(path: &str, body: &impl Serialize) -> Answer<T> {
    ask("POST", path, Some(written(body))).await
}

async fn ask<T: DeserializeOwned>(method: &'static str, path: &str, body: Option<String>) -> Answer<T> {
    let (status, text) = source().ask(method, path.into(), body).await?;
    if (200..300).contains(&status) { understood(&text) } else { Err(refused(status, &text)) }
}

fn understood<T: DeserializeOwned>(text: &str) -> Answer<T> {
    read(text).map_err(|e| Failure::new(said("The answer is not understood (\"{0}\"). Reload the page.", &[&e.to_string()])))
}

fn refused(status: u16, text: &str) -> Failure {
    match read::<ApiError>(text) {
        Ok(error) => Failure { message: error.detail, problems: error.problems },
        Err(_) => Failure::new(said("The server answered with status {0}.", &[&status.to_string()])),
    }
}
