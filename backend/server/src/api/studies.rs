//! Studies: list, start, stop, resume, and their results.

use crate::access::Person;
use crate::api::{Body, Id, finish, finish_for, log_change, tagged};
use crate::error::Error;
use crate::state::Shared;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use moslim_shared::config::Problem;
use moslim_shared::presets;
use moslim_shared::study::{Host, StudyPreset, StudyRequest, StudyResults, StudyState, preset, preset_list};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Files of a study that can be had, and their types.
const FILES: [(&str, &str); 5] = [
    ("results.csv", "text/csv; charset=utf-8"),
    ("results.json", "application/json"),
    ("front.svg", "image/svg+xml"),
    ("figures.svg", "image/svg+xml"),
    ("overview.svg", "image/svg+xml"),
];

/// Routes of studies.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list_presets))
        .routes(routes!(list_hosts))
        .routes(routes!(list, start))
        .routes(routes!(one))
        .routes(routes!(results))
        .routes(routes!(file))
        .routes(routes!(cancel))
        .routes(routes!(resume))
}

#[utoipa::path(get, path = "/api/v1/study-presets", tag = "studies", responses((status = 200, description = "Studies that can be started", body = Vec<StudyPreset>)))]
async fn list_presets() -> Json<Vec<StudyPreset>> {
    Json(preset_list())
}

#[utoipa::path(get, path = "/api/v1/study-hosts", tag = "studies", responses((status = 200, description = "Where a study can train", body = Vec<Host>)))]
async fn list_hosts(State(app): State<Shared>) -> Json<Vec<Host>> {
    Json(app.studies.hosts())
}

/// All studies. Who has the list already, and says so by its tag, is told that nothing has changed.
#[utoipa::path(get, path = "/api/v1/studies", tag = "studies", responses((status = 200, description = "All studies, newest first; the tag of the list is in `ETag`", body = Vec<StudyState>), (status = 304, description = "Nothing has changed since the tag in `If-None-Match`")))]
async fn list(State(app): State<Shared>, headers: HeaderMap) -> Result<Response, Error> {
    let studies = app.studies.list().await?;
    let shown: Vec<&StudyState> = studies.iter().map(|study| &**study).collect();
    Ok(tagged(&headers, serde_json::to_vec(&shown).map_err(anyhow::Error::from)?))
}

#[utoipa::path(get, path = "/api/v1/studies/{id}", tag = "studies", params(("id" = String, Path, description = "Which study")), responses((status = 200, description = "The study and its runs", body = StudyState)))]
async fn one(State(app): State<Shared>, Id(id): Id) -> Result<Json<StudyState>, Error> {
    Ok(Json(app.studies.state(&id).await?))
}

#[utoipa::path(get, path = "/api/v1/studies/{id}/results", tag = "studies", params(("id" = String, Path, description = "Which study")), responses((status = 200, description = "What its runs found", body = StudyResults)))]
async fn results(State(app): State<Shared>, Id(id): Id) -> Result<Json<StudyResults>, Error> {
    let results = app.studies.results(&id).await?;
    results
        .map(Json)
        .ok_or_else(|| Error::NotFound(format!("study {id} has no results yet; they come with its first finished run")))
}

#[utoipa::path(get, path = "/api/v1/studies/{id}/files/{name}", tag = "studies", params(("id" = String, Path, description = "Which study"), ("name" = String, Path, description = "results.csv, results.json, front.svg, figures.svg or overview.svg")), responses((status = 200, description = "A file of its results", content((String = "text/csv"), (Object = "application/json"), (String = "image/svg+xml")))))]
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

#[utoipa::path(post, path = "/api/v1/studies", tag = "studies", params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible characters; remembered for a day")), request_body = StudyRequest, responses((status = 201, description = "The study that was started", body = StudyState), (status = 200, description = "The study that an earlier request with this key has started", body = StudyState)))]
async fn start(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    headers: HeaderMap,
    Body(request): Body<StudyRequest>,
) -> Result<(StatusCode, Json<StudyState>), Error> {
    let problem = |field: &str, message: String| Error::invalid(vec![Problem { field: field.into(), message }]);
    let base = presets::find(&request.base).ok_or_else(|| problem("base", format!("unknown preset \"{}\"", request.base)))?;
    let config = preset(&request.preset, base.config, request.seeds.clone())
        .ok_or_else(|| problem("preset", format!("unknown study \"{}\"", request.preset)))?;
    finish(async move {
        let find = async |id| app.studies.state(&id).await.ok();
        let start = async |id| app.studies.start(&app.supervisor, (id, config.clone()), request.on).await;
        let (status, study) = app.starts.once((&headers, &person), &request, find, start).await?;
        if status == StatusCode::CREATED {
            log_change(&person, format_args!("study {} is started", study.id));
        }
        Ok((status, study))
    })
    .await
}

#[utoipa::path(post, path = "/api/v1/studies/{id}/cancel", tag = "studies", params(("id" = String, Path, description = "Which study")), responses((status = 202, description = "The study, whose runs stop", body = StudyState)))]
async fn cancel(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    Id(id): Id,
) -> Result<(StatusCode, Json<StudyState>), Error> {
    let state = finish_for(person, format!("study {id} is stopped"), async move { app.studies.cancel(&id).await }).await?;
    Ok((StatusCode::ACCEPTED, Json(state)))
}

#[utoipa::path(post, path = "/api/v1/studies/{id}/resume", tag = "studies", params(("id" = String, Path, description = "Which study")), responses((status = 200, description = "The study, which goes on", body = StudyState)))]
async fn resume(State(app): State<Shared>, Extension(person): Extension<Person>, Id(id): Id) -> Result<Json<StudyState>, Error> {
    finish_for(person.clone(), format!("study {id} is resumed"), async move {
        app.starts.admit(&person).await?;
        app.studies.resume(&app.supervisor, &id).await
    })
    .await
    .map(Json)
}
