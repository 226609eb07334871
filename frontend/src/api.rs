//! Requests to the server.

use crate::json;
use moslim_shared::config::{Problem, RunConfig};
use moslim_shared::event::{ApiError, RunInfo, WorldInfo};
use moslim_shared::study::{StudyPreset, StudyRequest, StudyResults, StudyState};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::XmlHttpRequest;

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// For people.
    pub message: String,
    /// Problems of a configuration, with the path of each field.
    pub problems: Vec<Problem>,
}

impl Failure {
    fn new(message: String) -> Self {
        Self { message, problems: Vec::new() }
    }
}

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

/// What is done with an answer; it is called once.
type Done = Box<dyn FnOnce(Result<String, Failure>)>;

/// All runs, as the server orders them.
pub fn runs(done: impl FnOnce(Result<Vec<RunInfo>, Failure>) + 'static) {
    ask("GET", "/api/v1/runs", None, parsed(done));
}

/// The built-in world.
pub fn world(done: impl FnOnce(Result<WorldInfo, Failure>) + 'static) {
    ask("GET", "/api/v1/world", None, parsed(done));
}

/// The devices and why one is chosen.
pub fn devices(done: impl FnOnce(Result<Vec<DeviceInfo>, Failure>) + 'static) {
    ask("GET", "/api/v1/devices", None, parsed(done));
}

/// Starts a run; the answer is its id.
pub fn start(config: &RunConfig, done: impl FnOnce(Result<String, Failure>) + 'static) {
    let body = format!("{{\"config\":{}}}", json::to_text(config));
    ask("POST", "/api/v1/runs", Some(&body), parsed(move |answer: Result<RunInfo, Failure>| done(answer.map(|info| info.id))));
}

/// Asks a run to `cancel` or `resume`.
pub fn act(run: &str, action: &str, done: impl FnOnce(Result<(), Failure>) + 'static) {
    let path = format!("/api/v1/runs/{run}/{action}");
    ask("POST", &path, Some("{}"), Box::new(move |answer| done(answer.map(|_| ()))));
}

/// What can be studied.
pub fn study_presets(done: impl FnOnce(Result<Vec<StudyPreset>, Failure>) + 'static) {
    ask("GET", "/api/v1/study-presets", None, parsed(done));
}

/// All studies, newest first.
pub fn studies(done: impl FnOnce(Result<Vec<StudyState>, Failure>) + 'static) {
    ask("GET", "/api/v1/studies", None, parsed(done));
}

/// Starts a study.
pub fn start_study(request: &StudyRequest, done: impl FnOnce(Result<StudyState, Failure>) + 'static) {
    ask("POST", "/api/v1/studies", Some(&json::to_text(request)), parsed(done));
}

/// How a study stands.
pub fn study(id: &str, done: impl FnOnce(Result<StudyState, Failure>) + 'static) {
    ask("GET", &format!("/api/v1/studies/{id}"), None, parsed(done));
}

/// What a study found; there is nothing before its first run is finished.
pub fn study_results(id: &str, done: impl FnOnce(Result<StudyResults, Failure>) + 'static) {
    ask("GET", &format!("/api/v1/studies/{id}/results"), None, parsed(done));
}

/// Asks a study to `cancel` or `resume`.
pub fn act_on_study(id: &str, action: &str, done: impl FnOnce(Result<StudyState, Failure>) + 'static) {
    ask("POST", &format!("/api/v1/studies/{id}/{action}"), Some("{}"), parsed(done));
}

/// Reads an answer before it is passed on.
fn parsed<T: DeserializeOwned>(done: impl FnOnce(Result<T, Failure>) + 'static) -> Done {
    Box::new(move |answer| {
        done(answer.and_then(|text| {
            json::from_text(&text).map_err(|e| Failure::new(format!("The answer is not understood (\"{e}\"). Reload the page.")))
        }));
    })
}

/// Sends a request; `done` is called when there is an answer or none can come any more.
fn ask(method: &str, path: &str, body: Option<&str>, done: Done) {
    let Ok(request) = XmlHttpRequest::new() else { return };
    let asked = request.clone();
    let ended = Closure::<dyn FnMut()>::once_into_js(move || done(outcome(&asked)));
    request.set_onloadend(Some(ended.unchecked_ref()));
    let _ = request.open(method, path);
    if body.is_some() {
        let _ = request.set_request_header("content-type", "application/json");
    }
    let _ = request.send_with_opt_str(body);
}

fn outcome(request: &XmlHttpRequest) -> Result<String, Failure> {
    let status = request.status().unwrap_or(0);
    if status == 0 {
        return Err(Failure::new("The server did not answer. Is moslim-lab still running?".into()));
    }
    let text = request.response_text().ok().flatten().unwrap_or_default();
    if (200..300).contains(&status) {
        return Ok(text);
    }
    Err(match json::from_text::<ApiError>(&text) {
        Ok(error) => Failure { message: error.error, problems: error.problems },
        Err(_) => Failure::new(format!("The server answered with status {status}.")),
    })
}
