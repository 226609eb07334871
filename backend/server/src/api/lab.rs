//! What the laboratory offers: presets, the world, devices, and checks of configurations.

use crate::api::Body;
use crate::api::runs::Proposal;
use crate::error::Error;
use crate::state::Shared;
use anyhow::{Context, ensure};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use moslim_engine::data::world::objectives;
use moslim_shared::config::Problem;
use moslim_shared::event::{PresetInfo, WorldInfo};
use serde::Serialize;
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// Time to look for devices. Drivers can take long to wake.
const DEVICE_TIME: Duration = Duration::from_secs(60);

/// Routes of the laboratory.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v1/health", get(health))
        .route("/api/v1/presets", get(presets))
        .route("/api/v1/world", get(world))
        .route("/api/v1/devices", get(devices))
        .route("/api/v1/validate", post(validate))
}

#[derive(Serialize)]
struct Health {
    name: &'static str,
    version: &'static str,
}

async fn health() -> Json<Health> {
    Json(Health { name: "moslim-lab", version: env!("CARGO_PKG_VERSION") })
}

async fn presets() -> Json<Vec<PresetInfo>> {
    Json(moslim_shared::presets::all())
}

async fn world() -> Json<WorldInfo> {
    Json(WorldInfo { objectives: objectives() })
}

#[derive(Serialize)]
struct Verdict {
    problems: Vec<Problem>,
}

async fn validate(Body(proposal): Body<Proposal>) -> Json<Verdict> {
    Json(Verdict { problems: proposal.config.problems(&objectives()) })
}

async fn devices(State(app): State<Shared>) -> Result<Json<Value>, Error> {
    let devices = app.devices.get_or_try_init(look_for_devices).await?;
    Ok(Json(devices.clone()))
}

/// Asks a child process (`devices --json`), because looking for a device loads its driver, and a driver that aborts takes
/// its process with it.
async fn look_for_devices() -> anyhow::Result<Value> {
    let program = std::env::current_exe().context("finding this program")?;
    let child = Command::new(program).args(["devices", "--json"]).stdin(Stdio::null()).kill_on_drop(true).output();
    let output =
        timeout(DEVICE_TIME, child).await.context("looking for devices took too long")?.context("looking for devices")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "looking for devices failed ({}): {errors:.500}", output.status);
    serde_json::from_slice(&output.stdout).context("reading the list of devices")
}
