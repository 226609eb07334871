//! The trash: runs that were deleted, and their end.

use super::tasks::beside;
use crate::access::Person;
use crate::api::{finish, log_change};
use crate::error::Error;
use crate::folder::{Discarded, Emptied};
use crate::id::RunId;
use crate::state::Shared;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of the trash.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(trash, empty))
}

#[utoipa::path(get, path = "/api/v1/trash", tag = "runs", responses((status = 200, description = "Runs that were deleted and can be had back, the last one first", body = Vec<Discarded>)))]
async fn trash(State(app): State<Shared>) -> Result<Json<Vec<Discarded>>, Error> {
    beside(move || Ok(Json(app.data.discarded()?))).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Only this run; all of them where it is left out.
    run: Option<String>,
}

/// Removes deleted runs for good. Nobody has them back.
#[utoipa::path(delete, path = "/api/v1/trash", tag = "runs", params(Which), responses((status = 200, description = "How many runs are gone, and how many bytes", body = Emptied)))]
async fn empty(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Emptied>, Error> {
    let Query(Which { run }) = which.map_err(|e| Error::BadRequest(format!("run is known: {}", e.body_text())))?;
    let unknown = |run: &str| Error::NotFound(format!("there is no run {run:.64} in the trash"));
    let run = run.map(|text| text.parse::<RunId>().map_err(|_| unknown(&text))).transpose()?;
    finish(async move {
        let wanted = run.clone();
        let emptied = beside(move || {
            let emptied = app.data.empty_trash_of(wanted.as_ref());
            // Also where something stays: the rest is gone. It waits for whoever measures the folder.
            app.starts.measure_again();
            Ok(emptied?)
        })
        .await;
        let missing = || unknown(run.as_ref().map_or("", RunId::as_str));
        let emptied = emptied?.ok_or_else(missing)?;
        log_change(&person, format_args!("{} runs of the trash are gone for good, {} bytes", emptied.runs, emptied.bytes));
        Ok(Json(emptied))
    })
    .await
}
