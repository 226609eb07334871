//! Runs: list, start, cancel, resume, and their events.

use crate::api::{Body, Id, finish};
use crate::error::Error;
use crate::state::Shared;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use moslim_engine::data::world;
use moslim_shared::config::RunConfig;
use moslim_shared::event::{Event, RunInfo};
use serde::Deserialize;

/// Events in one answer: by default, and at most.
const DEFAULT_EVENTS: usize = 1000;
const MOST_EVENTS: usize = 10_000;

/// Routes of runs.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v1/runs", get(list).post(start))
        .route("/api/v1/runs/{id}", get(one))
        .route("/api/v1/runs/{id}/events", get(events))
        .route("/api/v1/runs/{id}/cancel", post(cancel))
        .route("/api/v1/runs/{id}/resume", post(resume))
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

async fn list(State(app): State<Shared>) -> Result<Json<Vec<RunInfo>>, Error> {
    Ok(Json(app.store.runs().await?))
}

async fn one(State(app): State<Shared>, Id(id): Id) -> Result<Json<RunInfo>, Error> {
    let run = app.store.run(&id).await?;
    run.map(Json).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))
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
    let events = app.store.events(&id, range.after, limit).await?;
    // Only an empty answer leaves open whether there is such a run.
    if events.is_empty() && app.store.run(&id).await?.is_none() {
        return Err(Error::NotFound(format!("there is no run {id}")));
    }
    Ok(Json(events))
}

async fn start(State(app): State<Shared>, Body(proposal): Body<Proposal>) -> Result<(StatusCode, Json<RunInfo>), Error> {
    let problems = proposal.config.problems(&world::objectives());
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
