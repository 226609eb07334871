//! Requests to the server: a function for each, and why one came to nothing.
//!
//! Paths and forms of requests belong here. What a page does with an answer does not.

use gloo_net::http::{Method, RequestBuilder};
use moslim_shared::config::{Problem, RunConfig};
use moslim_shared::event::{ApiError, RunInfo, TaskInfo};
use moslim_shared::study::{StudyPreset, StudyRequest, StudyResults, StudyState};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// For people.
    pub message: String,
    /// Problems of a configuration, with the path of each field.
    pub problems: Vec<Problem>,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), problems: Vec::new() }
    }
}

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

/// All runs, as the server orders them.
pub async fn runs() -> Answer<Vec<RunInfo>> {
    get("/api/v1/runs").await
}

/// The task that a configuration names.
pub async fn task(config: &RunConfig) -> Answer<TaskInfo> {
    post("/api/v1/task", &json!({ "config": config })).await
}

/// The devices and why one is chosen.
pub async fn devices() -> Answer<Vec<DeviceInfo>> {
    get("/api/v1/devices").await
}

/// Starts a run; the answer is its id.
pub async fn start(config: &RunConfig) -> Answer<String> {
    let info: RunInfo = post("/api/v1/runs", &json!({ "config": config })).await?;
    Ok(info.id)
}

/// Asks a run to `cancel` or `resume`.
pub async fn act(run: &str, action: &str) -> Answer<()> {
    let _: IgnoredAny = post(&format!("/api/v1/runs/{run}/{action}"), &json!({})).await?;
    Ok(())
}

/// What can be studied.
pub async fn study_presets() -> Answer<Vec<StudyPreset>> {
    get("/api/v1/study-presets").await
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
    ask::<(), T>(Method::GET, path, None).await
}

async fn post<B: Serialize + ?Sized, T: DeserializeOwned>(path: &str, body: &B) -> Answer<T> {
    ask(Method::POST, path, Some(body)).await
}

async fn ask<B: Serialize + ?Sized, T: DeserializeOwned>(method: Method, path: &str, body: Option<&B>) -> Answer<T> {
    let silent = |_| Failure::new("The server did not answer. Is moslim-lab still running?");
    let request = RequestBuilder::new(path).method(method);
    let request = match body {
        Some(body) => request.json(body),
        None => request.build(),
    };
    let response = request.map_err(|e| Failure::new(format!("The request cannot be made ({e}).")))?.send().await;
    let response = response.map_err(silent)?;
    let text = response.text().await.map_err(silent)?;
    if response.ok() {
        return serde_json::from_str(&text)
            .map_err(|e| Failure::new(format!("The answer is not understood (\"{e}\"). Reload the page.")));
    }
    Err(match serde_json::from_str::<ApiError>(&text) {
        Ok(error) => Failure { message: error.error, problems: error.problems },
        Err(_) => Failure::new(format!("The server answered with status {}.", response.status())),
    })
}
