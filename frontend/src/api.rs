//! Requests to the server.

use gloo_net::http::{Request, Response};
use moslim_shared::config::{Problem, RunConfig};
use moslim_shared::event::{ApiError, RunInfo, WorldInfo};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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

#[derive(Serialize)]
struct Create<'a> {
    config: &'a RunConfig,
}

/// All runs, as the server orders them.
pub async fn runs() -> Result<Vec<RunInfo>, Failure> {
    get("/api/v1/runs").await
}

/// The built-in world.
pub async fn world() -> Result<WorldInfo, Failure> {
    get("/api/v1/world").await
}

/// The devices and why one is chosen.
pub async fn devices() -> Result<Vec<DeviceInfo>, Failure> {
    get("/api/v1/devices").await
}

/// Starts a run.
pub async fn start(config: &RunConfig) -> Result<RunInfo, Failure> {
    let text = post("/api/v1/runs", &Create { config }).await?;
    parse(&text)
}

/// Asks a run to `cancel` or `resume`.
pub async fn act(run: &str, action: &str) -> Result<(), Failure> {
    post(&format!("/api/v1/runs/{run}/{action}"), &serde_json::json!({})).await.map(|_| ())
}

async fn get<T: DeserializeOwned>(path: &str) -> Result<T, Failure> {
    let text = read(Request::get(path).send().await).await?;
    parse(&text)
}

async fn post<B: Serialize>(path: &str, body: &B) -> Result<String, Failure> {
    let request = Request::post(path).json(body).map_err(|e| Failure::new(format!("The request could not be written: {e}")))?;
    read(request.send().await).await
}

async fn read(sent: Result<Response, gloo_net::Error>) -> Result<String, Failure> {
    let response = sent.map_err(|_| Failure::new("The server did not answer. Is moslim-lab still running?".into()))?;
    let (ok, status) = (response.ok(), response.status());
    let text = response.text().await.map_err(|_| Failure::new("The answer broke off. Try again.".into()))?;
    if ok {
        return Ok(text);
    }
    Err(match serde_json::from_str::<ApiError>(&text) {
        Ok(error) => Failure { message: error.error, problems: error.problems },
        Err(_) => Failure::new(format!("The server answered with status {status}.")),
    })
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|e| Failure::new(format!("The answer is not understood ({e}). Reload the page.")))
}

/// A value as JSON. It goes through text: one JSON reader and one writer are enough for the whole page, and the module
/// stays small.
pub fn to_value<T: serde::Serialize>(value: &T) -> Option<serde_json::Value> {
    serde_json::from_str(&serde_json::to_string(value).ok()?).ok()
}

/// The reverse of [`to_value`].
pub fn from_value<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> Option<T> {
    serde_json::from_str(&value.to_string()).ok()
}
