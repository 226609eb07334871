//! Runs: list, start, cancel, resume, and their events.

use crate::api::{Body, Id, finish};
use crate::error::Error;
use crate::id::RunId;
use crate::state::Shared;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use moslim_engine::keep::carried;
use moslim_engine::keep::files::Disk;
use moslim_shared::config::RunConfig;
use moslim_shared::event::{About, Event, RunInfo, RunStatus};
use serde::Deserialize;
use std::collections::HashSet;

/// Events in one answer: by default, and at most.
const DEFAULT_EVENTS: usize = 1000;
const MOST_EVENTS: usize = 10_000;

/// Bytes of a run's file that may be sent here.
const LARGEST_FILE: usize = 256 << 20;

/// Routes of runs.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v1/runs", get(list).post(start))
        .route("/api/v1/runs/{id}", get(one))
        .route("/api/v1/runs/{id}/events", get(events))
        .route("/api/v1/runs/{id}/file", get(pack))
        .route("/api/v1/run-files", post(open).layer(DefaultBodyLimit::max(LARGEST_FILE)))
        .route("/api/v1/runs/{id}/cancel", post(cancel))
        .route("/api/v1/runs/{id}/resume", post(resume))
        .route("/api/v1/runs/{id}/about", put(describe))
}

/// A request that carries a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    pub config: RunConfig,
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

#[derive(Deserialize)]
struct Search {
    search: Option<String>,
}

async fn list(State(app): State<Shared>, search: Result<Query<Search>, QueryRejection>) -> Result<Json<Vec<RunInfo>>, Error> {
    let Query(Search { search }) = search.map_err(|e| Error::BadRequest(format!("search is a text: {e}")))?;
    let mut runs = app.follower.runs();
    if let Some(text) = search.filter(|t| !t.is_empty()) {
        let found: HashSet<String> = app.index.search(&text).await?.iter().map(ToString::to_string).collect();
        runs.retain(|run| found.contains(&run.id));
    }
    Ok(Json(runs))
}

async fn one(State(app): State<Shared>, Id(id): Id) -> Result<Json<RunInfo>, Error> {
    app.follower.run(&id).map(Json).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))
}

async fn events(
    State(app): State<Shared>,
    Id(id): Id,
    range: Result<Query<Range>, QueryRejection>,
) -> Result<Json<Vec<Event>>, Error> {
    let Query(range) = range.map_err(|e| Error::BadRequest(format!("after and limit are whole numbers: {e}")))?;
    let limit = range.limit.unwrap_or(DEFAULT_EVENTS);
    if !(1..=MOST_EVENTS).contains(&limit) {
        return Err(Error::BadRequest(format!("limit is {limit}; allowed is 1 to {MOST_EVENTS}")));
    }
    if app.follower.run(&id).is_none() {
        return Err(Error::NotFound(format!("there is no run {id}")));
    }
    let read = move || app.follower.events(&id, range.after, limit);
    Ok(Json(tokio::task::spawn_blocking(read).await.map_err(anyhow::Error::from)??))
}

async fn start(State(app): State<Shared>, Body(proposal): Body<Proposal>) -> Result<(StatusCode, Json<RunInfo>), Error> {
    let objectives = app.data.objectives(&proposal.config.task).map_err(|p| Error::invalid(vec![p]))?;
    let problems = proposal.config.problems(&objectives);
    if !problems.is_empty() {
        return Err(Error::invalid(problems));
    }
    let run = finish(async move {
        app.studies.check_free().await?;
        app.supervisor.start(&proposal.config).await
    })
    .await?;
    Ok((StatusCode::CREATED, Json(run)))
}

async fn cancel(State(app): State<Shared>, Id(id): Id) -> Result<(StatusCode, Json<RunInfo>), Error> {
    let run = finish(async move { app.supervisor.cancel(&id).await }).await?;
    Ok((StatusCode::ACCEPTED, Json(run)))
}

async fn resume(State(app): State<Shared>, Id(id): Id) -> Result<Json<RunInfo>, Error> {
    finish(async move { app.supervisor.resume(&id).await }).await.map(Json)
}

/// Everything about a run that does not train, as one file.
async fn pack(State(app): State<Shared>, Id(id): Id) -> Result<impl IntoResponse, Error> {
    let run = app.follower.run(&id).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))?;
    if run.status == RunStatus::Running {
        return Err(Error::Conflict(format!("run {id} is training; wait for it or cancel it")));
    }
    let name = format!("attachment; filename=\"{id}.{}\"", carried::ENDING);
    let read = move || carried::pack_run(&Disk(app.data.root().into()), id.as_str());
    let bytes = tokio::task::spawn_blocking(read).await.map_err(anyhow::Error::from)??;
    let kind = "application/octet-stream".to_string();
    Ok(([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)], bytes))
}

/// Adds a run that another lab has packed.
async fn open(State(app): State<Shared>, bytes: Result<Bytes, BytesRejection>) -> Result<(StatusCode, Json<RunInfo>), Error> {
    let bytes = bytes.map_err(|_| Error::TooLarge(format!("the file is larger than {LARGEST_FILE} bytes, or was cut off")))?;
    let run = finish(async move {
        let opened = tokio::task::spawn_blocking(move || {
            let id =
                carried::unpack_run(&Disk(app.data.root().into()), &bytes).map_err(|e| Error::BadRequest(format!("{e:#}")))?;
            let id: RunId = id.parse().map_err(Error::BadRequest)?;
            app.follower.look(&id);
            app.follower.run(&id).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))
        });
        opened.await.map_err(anyhow::Error::from)?
    })
    .await?;
    Ok((StatusCode::CREATED, Json(run)))
}

async fn describe(State(app): State<Shared>, Id(id): Id, Body(about): Body<About>) -> Result<Json<RunInfo>, Error> {
    let problems = about.problems();
    if !problems.is_empty() {
        return Err(Error::invalid(problems));
    }
    finish(async move { app.supervisor.describe(&id, about).await }).await.map(Json)
}
