//! How the server is: for whoever watches over it, a person or a program.

use crate::error::Error;
use crate::listen;
use crate::pulse;
use crate::state::Shared;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use moslim_engine::run::memory::available_mib;
use serde::Serialize;
use std::fmt::Write;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes for who watches.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(metrics))
}

#[derive(Serialize, ToSchema)]
struct Wellness {
    ok: bool,
    /// What is wrong; empty where all is well.
    problems: Vec<String>,
    /// What does not work as it should, and no run needs.
    degraded: Vec<String>,
    disk_free_mib: Option<u64>,
    memory_free_mib: Option<u64>,
}

/// 200 where everything works that a run needs, and 503 with the reasons where something does not: the data folder is there, a
/// file is written into it and read back, the folder of runs is read, the disk is asked for its room, and what follows runs and
/// starts those that wait has given a sign of life within a minute. An index that cannot be written is told, and is no reason for
/// 503: the folders are the truth.
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, description = "Everything works that a run needs", body = Wellness), (status = 503, description = "Something does not, and what", body = Wellness)))]
async fn health(State(app): State<Shared>) -> Result<(StatusCode, Json<Wellness>), Error> {
    let look = move || {
        let mut problems = pulse::stopped();
        problems.extend(app.data.check().err());
        let list = std::fs::read_dir(app.data.runs());
        problems.extend(list.err().filter(|e| e.kind() != std::io::ErrorKind::NotFound).map(|e| format!("runs: {e}")));
        let room = app.data.room();
        problems.extend(room.as_ref().and_then(|room| room.problem()));
        let health = Wellness {
            ok: problems.is_empty(),
            problems,
            degraded: pulse::behind(),
            disk_free_mib: room.map(|room| room.free >> 20),
            memory_free_mib: available_mib(),
        };
        let status = if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(health))
    };
    Ok(tokio::task::spawn_blocking(look).await.map_err(anyhow::Error::from)?)
}

/// Figures in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "service", responses((status = 200, description = "Figures in the text format of Prometheus", body = String, content_type = "text/plain")))]
async fn metrics(State(app): State<Shared>) -> Result<impl IntoResponse, Error> {
    let look = move || {
        let mut text = String::new();
        let mut figure = |name: &str, help: &str, kind: &str, values: &[(String, u64)]| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP moslim_{name} {help}\n# TYPE moslim_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "moslim_{name}{labels} {value}");
            }
        };
        let (statuses, events) = app.follower.counts();
        let label = |name: &str, value: &str| format!("{{{name}=\"{value}\"}}");
        let statuses: Vec<(String, u64)> = statuses.iter().map(|(status, n)| (label("status", status), *n)).collect();
        figure("runs", "Runs in the data folder.", "gauge", &statuses);
        figure("events", "Events in the journals of all runs.", "gauge", &[(String::new(), events)]);
        figure("connections", "Open connections.", "gauge", &[(String::new(), listen::connections())]);
        let answers: Vec<(String, u64)> =
            listen::answers().iter().enumerate().map(|(n, count)| (label("status", &format!("{}xx", n + 1)), *count)).collect();
        figure("answers_total", "Answers by their status.", "counter", &answers);
        if let Some(room) = app.data.room() {
            figure("disk_free_bytes", "Room on the disk of the data folder.", "gauge", &[(String::new(), room.free)]);
        }
        if let Some(mib) = available_mib() {
            figure("memory_available_bytes", "Memory that programs can have.", "gauge", &[(String::new(), mib << 20)]);
        }
        text
    };
    let text = tokio::task::spawn_blocking(look).await.map_err(anyhow::Error::from)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
