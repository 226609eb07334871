//! Runs: list, start, cancel, resume, and their events.

use crate::api::{Body, Id, LARGEST_FILE, file_of, finish};
use crate::assets::matches;
use crate::error::Error;
use crate::id::RunId;
use crate::state::Shared;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use moslim_engine::keep::bundle::sha256;
use moslim_engine::keep::carried;
use moslim_engine::keep::files::Disk;
use moslim_engine::run::memory;
use moslim_shared::config::RunConfig;
use moslim_shared::event::{About, Event, RunInfo, RunStatus};
use moslim_shared::listing::ListQuery;
use serde::Deserialize;

/// Events in one answer: by default, and at most.
const DEFAULT_EVENTS: usize = 1000;
const MOST_EVENTS: usize = 10_000;

/// Routes of runs.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v1/runs", get(list).post(start))
        .route("/api/v1/runs/{id}", get(one).delete(delete))
        .route("/api/v1/runs/{id}/restore", post(restore))
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

/// A request to start a run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartRequest {
    config: RunConfig,
    /// Whether it waits for its turn where another one trains; without, it is refused then.
    #[serde(default)]
    queue: bool,
    /// Of those that wait, the highest goes first.
    #[serde(default)]
    priority: i32,
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

/// A page of the list. Who has it already, and says so by its tag, is told that nothing has changed.
async fn list(
    State(app): State<Shared>,
    headers: HeaderMap,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(query) = query.map_err(|e| Error::BadRequest(format!("filter, after and limit are known: {}", e.body_text())))?;
    let page = app.follower.list(&query).map_err(Error::BadRequest)?;
    Ok(tagged(&headers, serde_json::to_vec(&page).map_err(anyhow::Error::from)?))
}

/// JSON with a tag of its content, or 304 to who has it.
fn tagged(headers: &HeaderMap, body: Vec<u8>) -> Response {
    let tag = format!("\"{}\"", &sha256(&[&body])[..32]);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|v| matches(v, &tag));
    let about = [(header::ETAG, tag), (header::CACHE_CONTROL, "private, no-cache".into())];
    if known {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn one(State(app): State<Shared>, Id(id): Id) -> Result<Json<RunInfo>, Error> {
    let (follower, own) = (app.follower.clone(), id.clone());
    let run = tokio::task::spawn_blocking(move || follower.run(&own)).await.map_err(anyhow::Error::from)?;
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
    if app.follower.known(&id).is_none() {
        return Err(Error::NotFound(format!("there is no run {id}")));
    }
    let read = move || app.follower.events(&id, range.after, limit);
    Ok(Json(tokio::task::spawn_blocking(read).await.map_err(anyhow::Error::from)??))
}

async fn start(State(app): State<Shared>, Body(proposal): Body<StartRequest>) -> Result<(StatusCode, Json<RunInfo>), Error> {
    let objectives = app.data.objectives(&proposal.config.task).map_err(|p| Error::invalid(vec![p]))?;
    let mut problems = proposal.config.problems(&objectives);
    let weights = memory::weights_of(&proposal.config, &|path| app.data.read(path));
    problems.extend(memory::problem(&proposal.config, weights));
    if !problems.is_empty() {
        return Err(Error::invalid(problems));
    }
    let run = finish(async move {
        let StartRequest { config, queue, priority } = proposal;
        let free = app.supervisor.check_free().and(app.studies.check_free().await);
        // Who waits already goes first.
        match free {
            Ok(()) if !queue || app.follower.queued().is_empty() => app.supervisor.start(&config).await,
            Err(error) if !queue => Err(error),
            _ => app.supervisor.queue(&config, priority).await,
        }
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

/// Puts a run into the trash, from which it can be had back for a while.
async fn delete(State(app): State<Shared>, Id(id): Id) -> Result<StatusCode, Error> {
    finish(async move { app.supervisor.delete(&id).await }).await.map(|()| StatusCode::NO_CONTENT)
}

async fn restore(State(app): State<Shared>, Id(id): Id) -> Result<Json<RunInfo>, Error> {
    finish(async move { app.supervisor.restore(&id).await }).await.map(Json)
}

/// Everything about a run that does not train, as one file.
async fn pack(State(app): State<Shared>, Id(id): Id) -> Result<impl IntoResponse, Error> {
    let run = app.follower.known(&id).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))?;
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
async fn open(State(app): State<Shared>, request: Request) -> Result<(StatusCode, Json<RunInfo>), Error> {
    let bytes = file_of(request).await?;
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
