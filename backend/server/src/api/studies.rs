//! Studies: list, start, stop, resume, and their results.

use crate::api::{Body, Id, finish};
use crate::error::Error;
use crate::state::Shared;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use moslim_shared::config::Problem;
use moslim_shared::presets;
use moslim_shared::study::{Host, StudyPreset, StudyRequest, StudyResults, StudyState, preset, preset_list};

/// Files of a study that can be had, and their types.
const FILES: [(&str, &str); 4] = [
    ("results.csv", "text/csv; charset=utf-8"),
    ("results.json", "application/json"),
    ("front.svg", "image/svg+xml"),
    ("figures.svg", "image/svg+xml"),
];

/// Routes of studies.
pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v1/study-presets", get(list_presets))
        .route("/api/v1/study-hosts", get(list_hosts))
        .route("/api/v1/studies", get(list).post(start))
        .route("/api/v1/studies/{id}", get(one))
        .route("/api/v1/studies/{id}/results", get(results))
        .route("/api/v1/studies/{id}/files/{name}", get(file))
        .route("/api/v1/studies/{id}/cancel", post(cancel))
        .route("/api/v1/studies/{id}/resume", post(resume))
}

async fn list_presets() -> Json<Vec<StudyPreset>> {
    Json(preset_list())
}

async fn list_hosts(State(app): State<Shared>) -> Json<Vec<Host>> {
    Json(app.studies.hosts())
}

async fn list(State(app): State<Shared>) -> Result<Json<Vec<StudyState>>, Error> {
    Ok(Json(app.studies.list().await?))
}

async fn one(State(app): State<Shared>, Id(id): Id) -> Result<Json<StudyState>, Error> {
    Ok(Json(app.studies.state(&id).await?))
}

async fn results(State(app): State<Shared>, Id(id): Id) -> Result<Json<StudyResults>, Error> {
    let results = app.studies.results(&id).await?;
    results
        .map(Json)
        .ok_or_else(|| Error::NotFound(format!("study {id} has no results yet; they come with its first finished run")))
}

async fn file(State(app): State<Shared>, Path((id, name)): Path<(String, String)>) -> Result<Response, Error> {
    let id = id.parse().map_err(|why| Error::NotFound(format!("there is no such study: {why}")))?;
    let Some((name, kind)) = FILES.iter().find(|(n, _)| *n == name) else {
        let known = FILES.map(|(n, _)| n).join(", ");
        return Err(Error::NotFound(format!("a study has no file {name}; there are {known}")));
    };
    let bytes = app.studies.file(&id, name).await?;
    let headers = [
        (header::CONTENT_TYPE, (*kind).to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}-{name}\"")),
    ];
    Ok((headers, Bytes::from(bytes)).into_response())
}

async fn start(State(app): State<Shared>, Body(request): Body<StudyRequest>) -> Result<(StatusCode, Json<StudyState>), Error> {
    let problem = |field: &str, message: String| Error::invalid(vec![Problem { field: field.into(), message }]);
    let base = presets::find(&request.base).ok_or_else(|| problem("base", format!("unknown preset \"{}\"", request.base)))?;
    let config = preset(&request.preset, base.config, request.seeds)
        .ok_or_else(|| problem("preset", format!("unknown study \"{}\"", request.preset)))?;
    let state = finish(async move { app.studies.start(&app.supervisor, config, request.on).await }).await?;
    Ok((StatusCode::CREATED, Json(state)))
}

async fn cancel(State(app): State<Shared>, Id(id): Id) -> Result<(StatusCode, Json<StudyState>), Error> {
    let state = finish(async move { app.studies.cancel(&id).await }).await?;
    Ok((StatusCode::ACCEPTED, Json(state)))
}

async fn resume(State(app): State<Shared>, Id(id): Id) -> Result<Json<StudyState>, Error> {
    finish(async move { app.studies.resume(&app.supervisor, &id).await }).await.map(Json)
}
