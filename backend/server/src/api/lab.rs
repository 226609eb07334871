//! What the laboratory offers: presets, tasks, devices, and checks of configurations.

use crate::api::Body;
use crate::api::runs::Proposal;
use crate::error::{Error, few};
use crate::state::Shared;
use anyhow::Context;
use axum::Json;
use axum::extract::State;
use axum::routing::get;
use moslim_engine::data::Task;
use moslim_shared::config::{Problem, RunConfig};
use moslim_shared::event::{PresetInfo, TaskInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of the laboratory.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(presets))
        .routes(routes!(task, task_of))
        // Its name before tasks were values.
        .route("/api/v1/world", get(task))
        .routes(routes!(devices))
        .routes(routes!(validate))
        .routes(routes!(written))
        .routes(routes!(read))
}

#[derive(Serialize, ToSchema)]
struct Health {
    name: &'static str,
    version: &'static str,
}

#[utoipa::path(get, path = "/api/v1/health", tag = "lab", responses((status = 200, description = "The server is there", body = Health)))]
async fn health() -> Json<Health> {
    Json(Health { name: "moslim-lab", version: env!("CARGO_PKG_VERSION") })
}

#[utoipa::path(get, path = "/api/v1/presets", tag = "lab", responses((status = 200, description = "Configurations to begin with", body = Vec<PresetInfo>)))]
async fn presets() -> Json<Vec<PresetInfo>> {
    Json(moslim_shared::presets::all())
}

/// The task of a run of which nothing else is said.
#[utoipa::path(get, path = "/api/v1/task", tag = "lab", responses((status = 200, description = "The task of the default configuration", body = TaskInfo)))]
async fn task(app: State<Shared>) -> Result<Json<TaskInfo>, Error> {
    task_of(app, Body(Proposal { config: RunConfig::default() })).await
}

#[utoipa::path(post, path = "/api/v1/task", tag = "lab", request_body = Proposal, responses((status = 200, description = "The task of a configuration", body = TaskInfo)))]
async fn task_of(State(app): State<Shared>, Body(proposal): Body<Proposal>) -> Result<Json<TaskInfo>, Error> {
    let task = &proposal.config.task;
    app.data.objectives(task).map_err(|p| Error::invalid(vec![p]))?;
    Ok(Json(Task::info(task, &|path| app.data.read(path))?))
}

#[derive(Serialize, ToSchema)]
struct Verdict {
    problems: Vec<Problem>,
}

#[utoipa::path(post, path = "/api/v1/validate", tag = "lab", request_body = Proposal, responses((status = 200, description = "What is wrong with a configuration", body = Verdict)))]
async fn validate(State(app): State<Shared>, Body(proposal): Body<Proposal>) -> Result<Json<Verdict>, Error> {
    let problems = match app.data.objectives(&proposal.config.task) {
        Ok(objectives) => proposal.config.problems(&objectives),
        Err(problem) => vec![problem],
    };
    Ok(Json(Verdict { problems: few(problems) }))
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Toml {
    toml: String,
}

/// Largest configuration that is translated, bytes: ten times a long one.
const LARGEST_CONFIG: usize = 48 << 10;

fn small(bytes: usize) -> Result<(), Error> {
    let large = || Error::TooLarge(format!("the configuration is larger than {LARGEST_CONFIG} bytes"));
    (bytes <= LARGEST_CONFIG).then_some(()).ok_or_else(large)
}

/// A configuration as TOML, as a run's folder has it.
#[utoipa::path(post, path = "/api/v1/config/toml", tag = "lab", request_body = Proposal, responses((status = 200, description = "The configuration as TOML", body = Toml)))]
async fn written(Body(proposal): Body<Proposal>) -> Result<Json<Toml>, Error> {
    let too_long = proposal.config.too_long();
    if !too_long.is_empty() {
        return Err(Error::invalid(too_long));
    }
    // A number may be a few bytes as JSON and hundreds as TOML: the one says whether the other is worth writing.
    let json = serde_json::to_vec(&proposal.config).context("writing a configuration")?;
    small(json.len())?;
    let toml = toml::to_string(&proposal.config).context("writing a configuration")?;
    small(toml.len())?;
    Ok(Json(Toml { toml }))
}

/// The configuration that TOML holds; fields that it leaves out have their defaults.
#[utoipa::path(post, path = "/api/v1/config/read", tag = "lab", request_body = Toml, responses((status = 200, description = "The configuration that TOML holds", body = RunConfig)))]
async fn read(Body(Toml { toml }): Body<Toml>) -> Result<Json<RunConfig>, Error> {
    small(toml.len())?;
    Ok(Json(crate::json::read_toml(toml.as_bytes())?))
}

#[utoipa::path(get, path = "/api/v1/devices", tag = "lab", responses((status = 200, description = "Devices that can train", body = Vec<Object>)))]
async fn devices(State(app): State<Shared>) -> Result<Json<Value>, Error> {
    Ok(Json(app.devices.list().await?.clone()))
}
