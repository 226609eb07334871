//! Runs: list, start, pause, cancel, kill, resume, and their events.

use crate::access::Person;
use crate::api::{Body, Id, LARGEST_FILE, file_of, finish, finish_for, log_change, tagged};
use crate::error::Error;
use crate::id::RunId;
use crate::launch::Launcher;
use crate::offline;
use crate::queue::Priority;
use crate::state::Shared;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use moslim_engine::keep::carried;
use moslim_engine::keep::files::Disk;
use moslim_engine::run::memory;
use moslim_shared::config::{DeviceChoice, Problem, RunConfig};
use moslim_shared::event::{About, Event, RunInfo, RunStatus};
use moslim_shared::listing::{ListQuery, RunsPage};
use moslim_shared::memory::largest;
use moslim_shared::objective::Objective;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

/// Events in one answer: by default, and at most.
const DEFAULT_EVENTS: usize = 1000;
const MOST_EVENTS: usize = 10_000;

/// Routes of runs.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, start))
        .routes(routes!(one, delete))
        .routes(routes!(restore))
        .routes(routes!(events))
        .routes(routes!(pack))
        .routes(routes!(page))
        .routes(routes!(open).layer(DefaultBodyLimit::max(LARGEST_FILE)))
        .routes(routes!(cancel))
        .routes(routes!(pause))
        .routes(routes!(kill))
        .routes(routes!(checkpoint))
        .routes(routes!(resume))
        .routes(routes!(prioritise))
        .routes(routes!(describe))
}

/// A request that carries a configuration.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    pub config: RunConfig,
}

/// A request to start a run.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StartRequest {
    config: RunConfig,
    /// Whether it waits for its turn where its device has no free slot; without, it is refused then.
    #[serde(default)]
    queue: bool,
    /// Of those that wait, the highest goes first; from -100 to 100.
    #[serde(default)]
    #[schema(value_type = i32)]
    priority: Priority,
}

/// A request to give a run that waits another priority.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PriorityRequest {
    /// Of those that wait, the highest goes first; from -100 to 100.
    #[schema(value_type = i32)]
    priority: Priority,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Range {
    /// Number of the last event that is known already.
    #[serde(default)]
    after: u64,
    /// Events at most, 1 to 10,000; 1,000 where nothing is said.
    limit: Option<usize>,
}

/// A page of the list. Who has it already, and says so by its tag, is told that nothing has changed.
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", params(ListQuery), responses((status = 200, description = "A page of the list, in the order that was asked for; its tag is in `ETag`. Rows have what `fields` names alone, where it names something", body = RunsPage), (status = 304, description = "Nothing has changed since the tag in `If-None-Match`")))]
async fn list(
    State(app): State<Shared>,
    headers: HeaderMap,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(query) =
        query.map_err(|e| Error::BadRequest(format!("filter, sort, fields, after and limit are known: {}", e.body_text())))?;
    let wanted = query.wanted().map_err(Error::BadRequest)?;
    let page = app.follower.list(&query).map_err(Error::BadRequest)?;
    let body = if wanted.is_empty() { serde_json::to_vec(&page) } else { narrow(&page, &wanted) };
    Ok(tagged(&headers, body.map_err(anyhow::Error::from)?))
}

/// A page as JSON whose rows have what is wanted, and no more.
fn narrow(page: &RunsPage, wanted: &[&str]) -> serde_json::Result<Vec<u8>> {
    let mut page = serde_json::to_value(page)?;
    for row in page["rows"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        row.retain(|name, _| wanted.contains(&name.as_str()));
    }
    serde_json::to_vec(&page)
}

#[utoipa::path(get, path = "/api/v1/runs/{id}", tag = "runs", params(("id" = String, Path, description = "Which run")), responses((status = 200, description = "The run", body = RunInfo)))]
async fn one(State(app): State<Shared>, Id(id): Id) -> Result<Json<RunInfo>, Error> {
    let (follower, own) = (app.follower.clone(), id.clone());
    let run = tokio::task::spawn_blocking(move || follower.run(&own)).await.map_err(anyhow::Error::from)?;
    run.map(Json).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))
}

#[utoipa::path(get, path = "/api/v1/runs/{id}/events", tag = "runs", params(("id" = String, Path, description = "Which run"), Range), responses((status = 200, description = "Events of its journal, in their order", body = Vec<Event>)))]
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

/// Why a run does not fit into the memory that it may have here. A graphics card has memory of its own; and what a fork needs depends on
/// what it goes on from, which its own process finds out.
async fn too_large(app: &Shared, config: &RunConfig, objectives: &[Objective]) -> Option<Problem> {
    if config.fork.is_some() || app.devices.of(config.device).await != DeviceChoice::Cpu {
        return None;
    }
    let most = memory::available_mib().into_iter().chain(app.launcher.memory()).min()?;
    let threads = app.supervisor.threads(DeviceChoice::Cpu);
    let needed = largest(memory::moments(config, objectives, threads, &|path| app.data.read(path)))?;
    memory::problem(config, &needed, most)
}

/// Starts a run. A request that is sent again, because nobody knows whether the first one arrived, starts no second run where both carry
/// the same `Idempotency-Key`.
#[utoipa::path(post, path = "/api/v1/runs", tag = "runs", params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible characters; remembered for a day")), request_body = StartRequest, responses((status = 201, description = "The run that was started or waits", body = RunInfo), (status = 200, description = "The run that an earlier request with this key has started", body = RunInfo)))]
async fn start(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    headers: HeaderMap,
    Body(proposal): Body<StartRequest>,
) -> Result<(StatusCode, Json<RunInfo>), Error> {
    let objectives = app.data.objectives(&proposal.config.task).map_err(|p| Error::invalid(vec![p]))?;
    let mut problems = proposal.config.problems(&objectives);
    problems.extend(too_large(&app, &proposal.config, &objectives).await);
    if !problems.is_empty() {
        return Err(Error::invalid(problems));
    }
    finish(async move {
        let StartRequest { config, queue, priority } = &proposal;
        let find = |id| std::future::ready(app.follower.known(&id));
        let start = async |id| {
            let free = app.supervisor.check_slot(config).await.and(app.studies.check_free().await);
            // Who waits already goes first.
            let at_once = free.is_ok() && (!queue || app.supervisor.goes_at_once(config).await);
            match free {
                Ok(()) if at_once => app.supervisor.start(id, config).await,
                Err(error) if !queue => Err(error),
                _ => app.supervisor.queue(id, config, *priority).await,
            }
        };
        let (status, run) = app.starts.once((&headers, &person), &proposal, find, start).await?;
        // One that an earlier request has started was logged then.
        if status == StatusCode::CREATED {
            let what = if run.status == RunStatus::Queued { "waits for its turn" } else { "is started" };
            log_change(&person, format_args!("run {} {what}", run.id));
        }
        Ok((status, run))
    })
    .await
}

#[utoipa::path(post, path = "/api/v1/runs/{id}/cancel", tag = "runs", params(("id" = String, Path, description = "Which run")), responses((status = 202, description = "The run, which stops at its next step", body = RunInfo)))]
async fn cancel(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    Id(id): Id,
) -> Result<(StatusCode, Json<RunInfo>), Error> {
    let run = finish_for(person, format!("run {id} is cancelled"), async move { app.supervisor.cancel(&id).await }).await?;
    Ok((StatusCode::ACCEPTED, Json(run)))
}

/// Has a run keep what it has and leave its slot to others, until it is resumed.
#[utoipa::path(post, path = "/api/v1/runs/{id}/pause", tag = "runs", params(("id" = String, Path, description = "Which run")), responses((status = 202, description = "The run, which keeps a checkpoint at its next step and is paused then", body = RunInfo)))]
async fn pause(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    Id(id): Id,
) -> Result<(StatusCode, Json<RunInfo>), Error> {
    let run = finish_for(person, format!("run {id} is paused"), async move { app.supervisor.pause(&id).await }).await?;
    Ok((StatusCode::ACCEPTED, Json(run)))
}

/// Ends the process of a run at once: for one that does not end when it is told to.
#[utoipa::path(post, path = "/api/v1/runs/{id}/kill", tag = "runs", params(("id" = String, Path, description = "Which run")), responses((status = 202, description = "The run, which is interrupted then, and can be resumed from its last checkpoint", body = RunInfo)))]
async fn kill(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    Id(id): Id,
) -> Result<(StatusCode, Json<RunInfo>), Error> {
    let run = finish_for(person, format!("run {id} is killed"), async move { app.supervisor.kill(&id).await }).await?;
    Ok((StatusCode::ACCEPTED, Json(run)))
}

#[utoipa::path(put, path = "/api/v1/runs/{id}/priority", tag = "runs", params(("id" = String, Path, description = "Which run")), request_body = PriorityRequest, responses((status = 200, description = "The run, which waits with this priority", body = RunInfo)))]
async fn prioritise(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    Id(id): Id,
    Body(PriorityRequest { priority }): Body<PriorityRequest>,
) -> Result<Json<RunInfo>, Error> {
    let what = format!("run {id} waits with priority {}", i32::from(priority));
    finish_for(person, what, async move { app.supervisor.prioritise(&id, priority).await }).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/runs/{id}/checkpoint", tag = "runs", params(("id" = String, Path, description = "Which run")), responses((status = 202, description = "The run, which keeps a checkpoint after the step it is in", body = RunInfo)))]
async fn checkpoint(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    Id(id): Id,
) -> Result<(StatusCode, Json<RunInfo>), Error> {
    let what = format!("run {id} is asked for a checkpoint");
    let run = finish_for(person, what, async move { app.supervisor.checkpoint(&id).await }).await?;
    Ok((StatusCode::ACCEPTED, Json(run)))
}

#[utoipa::path(post, path = "/api/v1/runs/{id}/resume", tag = "runs", params(("id" = String, Path, description = "Which run")), responses((status = 200, description = "The run, which goes on from its last checkpoint, or does so when its turn comes", body = RunInfo)))]
async fn resume(State(app): State<Shared>, Extension(person): Extension<Person>, Id(id): Id) -> Result<Json<RunInfo>, Error> {
    finish_for(person.clone(), format!("run {id} is resumed"), async move {
        app.starts.admit(&person).await?;
        let may = app.studies.check_free().await.is_ok();
        app.supervisor.resume(&id, may).await
    })
    .await
    .map(Json)
}

/// Puts a run into the trash, from which it can be had back for a while.
#[utoipa::path(delete, path = "/api/v1/runs/{id}", tag = "runs", params(("id" = String, Path, description = "Which run")), responses((status = 204, description = "It is in the trash")))]
async fn delete(State(app): State<Shared>, Extension(person): Extension<Person>, Id(id): Id) -> Result<StatusCode, Error> {
    let what = format!("run {id} is put into the trash");
    finish_for(person, what, async move { app.supervisor.delete(&id).await }).await.map(|()| StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/api/v1/runs/{id}/restore", tag = "runs", params(("id" = String, Path, description = "Which run")), responses((status = 200, description = "The run, which is in the list again", body = RunInfo)))]
async fn restore(State(app): State<Shared>, Extension(person): Extension<Person>, Id(id): Id) -> Result<Json<RunInfo>, Error> {
    let what = format!("run {id} is taken out of the trash");
    finish_for(person, what, async move { app.supervisor.restore(&id).await }).await.map(Json)
}

/// Everything about a run that does not train, as one file.
#[utoipa::path(get, path = "/api/v1/runs/{id}/file", tag = "runs", params(("id" = String, Path, description = "Which run")), responses((status = 200, description = "Everything about it, as one file", body = Vec<u8>, content_type = "application/octet-stream")))]
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

/// A run as one HTML file that needs nothing else.
#[utoipa::path(get, path = "/api/v1/runs/{id}/page", tag = "runs", params(("id" = String, Path, description = "Which run")), responses((status = 200, description = "Its matrices, figures, curves, answers and configuration, as one HTML file", body = String, content_type = "text/html")))]
async fn page(State(app): State<Shared>, Id(id): Id) -> Result<impl IntoResponse, Error> {
    let name = format!("attachment; filename=\"{id}.html\"");
    let unknown = Error::NotFound(format!("there is no run {id}"));
    let made = tokio::task::spawn_blocking(move || offline::page(&app.follower, &id)).await.map_err(anyhow::Error::from)??;
    let html = made.ok_or(unknown)?;
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8".to_string()), (header::CONTENT_DISPOSITION, name)], html))
}

/// Adds a run that another lab has packed.
#[utoipa::path(post, path = "/api/v1/run-files", tag = "runs", request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses((status = 201, description = "The run that the file holds", body = RunInfo)))]
async fn open(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Result<(StatusCode, Json<RunInfo>), Error> {
    app.data.check_room().map_err(Error::Conflict)?;
    let bytes = file_of(request).await?;
    let run = finish(async move {
        let opened = tokio::task::spawn_blocking(move || {
            let id =
                carried::unpack_run(&Disk(app.data.root().into()), &bytes).map_err(|e| Error::BadRequest(format!("{e:#}")))?;
            let id: RunId = id.parse().map_err(Error::BadRequest)?;
            app.follower.look(&id);
            app.follower.run(&id).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))
        });
        let run = opened.await.map_err(anyhow::Error::from)??;
        log_change(&person, format_args!("run {} is opened from a file", run.id));
        Ok(run)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(run)))
}

#[utoipa::path(put, path = "/api/v1/runs/{id}/about", tag = "runs", params(("id" = String, Path, description = "Which run")), request_body = About, responses((status = 200, description = "The run, under its new name", body = RunInfo)))]
async fn describe(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    Id(id): Id,
    Body(about): Body<About>,
) -> Result<Json<RunInfo>, Error> {
    let problems = about.problems();
    if !problems.is_empty() {
        return Err(Error::invalid(problems));
    }
    let what = format!("run {id} has another name, note or tags");
    finish_for(person, what, async move { app.supervisor.describe(&id, about).await }).await.map(Json)
}
