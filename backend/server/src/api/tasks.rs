//! Imported tasks: what there are, their rows, and what can be counted of them.

use crate::error::Error;
use crate::state::Shared;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use moslim_engine::data::ratings::kept::SPLITS;
use moslim_engine::data::ratings::{check_name, find};
use moslim_shared::ratings::{RatingsTask, RowFilter, ShownRow, TaskStatistics};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Rows of an answer, if nothing else is asked for, and at most.
const ROWS: usize = 20;
const MOST_ROWS: usize = 500;

/// Routes of imported tasks.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one)).routes(routes!(rows)).routes(routes!(stats))
}

/// Work on files, off the threads that answer.
pub async fn beside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(anyhow::Error::from)?
}

#[utoipa::path(get, path = "/api/v1/tasks", tag = "ratings", responses((status = 200, description = "Imported tasks; one whose file is damaged is left out, and the log names it", body = Vec<RatingsTask>)))]
async fn list(State(app): State<Shared>) -> Result<Json<Vec<RatingsTask>>, Error> {
    beside(move || {
        let known = app.data.tasks()?;
        known.damaged.iter().for_each(|error| tracing::warn!("a task is left out of the list: {error}"));
        Ok(Json(known.tasks))
    })
    .await
}

/// The task called `name`, or that there is none.
pub fn opened(app: &Shared, name: &str) -> Result<RatingsTask, Error> {
    let unknown = || Error::NotFound("there is no task of this name".into());
    check_name(name).map_err(|_| unknown())?;
    find(name, &|path| app.data.read(path))?.ok_or_else(unknown)
}

#[utoipa::path(get, path = "/api/v1/tasks/{name}", tag = "ratings", params(("name" = String, Path, description = "Which task")), responses((status = 200, description = "The task", body = RatingsTask)))]
async fn one(State(app): State<Shared>, Path(name): Path<String>) -> Result<Json<RatingsTask>, Error> {
    beside(move || opened(&app, &name).map(Json)).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Rows that are passed over.
    #[serde(default)]
    from: usize,
    /// Rows at most, 1 to 500; 20 where nothing is said.
    limit: Option<usize>,
    /// train, validation or test.
    split: Option<String>,
    /// Only those whose raters disagreed.
    #[serde(default)]
    disagreed: bool,
}

#[utoipa::path(get, path = "/api/v1/tasks/{name}/rows", tag = "ratings", params(("name" = String, Path, description = "Which task"), Asked), responses((status = 200, description = "Its rows", body = Vec<ShownRow>)))]
async fn rows(
    State(app): State<Shared>,
    Path(name): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Vec<ShownRow>>, Error> {
    let Query(asked) =
        asked.map_err(|e| Error::BadRequest(format!("from, limit, split and disagreed are known: {}", e.body_text())))?;
    let limit = asked.limit.unwrap_or(ROWS);
    if !(1..=MOST_ROWS).contains(&limit) {
        return Err(Error::BadRequest(format!("limit is {limit}; allowed is 1 to {MOST_ROWS}")));
    }
    let split = match &asked.split {
        None => None,
        Some(name) => match SPLITS.iter().position(|s| s == name) {
            None => return Err(Error::BadRequest(format!("split is {name}; allowed are {}", SPLITS.join(", ")))),
            at => at,
        },
    };
    let filter = RowFilter { from: asked.from, limit, split, disagreed: asked.disagreed };
    beside(move || Ok(Json(app.data.task_rows(&opened(&app, &name)?, &filter)?))).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Counted {
    /// Tokens that a model reads; without, nothing is said of rows that are longer.
    context: Option<usize>,
}

#[utoipa::path(get, path = "/api/v1/tasks/{name}/stats", tag = "ratings", params(("name" = String, Path, description = "Which task"), Counted), responses((status = 200, description = "What can be counted of it", body = TaskStatistics)))]
async fn stats(
    State(app): State<Shared>,
    Path(name): Path<String>,
    asked: Result<Query<Counted>, QueryRejection>,
) -> Result<Json<TaskStatistics>, Error> {
    let Query(asked) = asked.map_err(|e| Error::BadRequest(format!("context is known: {}", e.body_text())))?;
    beside(move || Ok(Json(app.data.task_statistics(&opened(&app, &name)?, None, asked.context)?))).await
}
