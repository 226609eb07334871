//! The HTTP API. Each resource has its own file with its own router; routes carry their whole path, so that they can be
//! found by searching for it.

mod bringing;
mod columns;
mod document;
mod feed;
mod inference;
mod lab;
mod runs;
mod service;
mod studies;
mod tasks;
mod trash;

use crate::access::{Person, admit};
use crate::assets::matches;
use crate::error::{Error, panicked};
use crate::guard::{BODY_LIMIT, guard, secure, typed};
use crate::id::RunId;
use crate::json;
use crate::request::{identify, span};
use crate::state::Shared;
use crate::{assets, stream};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use moslim_engine::keep::bundle::sha256;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::time::Duration;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use tracing::Instrument;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// The whole application: API, websocket and page, behind the guard.
pub fn router(app: Shared) -> Router {
    let (hosts, access) = (app.hosts.clone(), app.access.clone());
    // Layers are listed from the inside out: an answer passes `secure` and `identify` last, also if it is a refusal or a panic.
    let (routes, _) = routes();
    routes
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(assets::serve)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(CatchPanicLayer::custom(panicked))
        // A stranger learns from the next one that it is one, and nothing of what else is wrong.
        .layer(from_fn(typed))
        .layer(from_fn_with_state(access, admit))
        .layer(from_fn_with_state(hosts, guard))
        .layer(from_fn(secure))
        // Every request and how it was answered: RUST_LOG=tower_http=debug shows them.
        .layer(TraceLayer::new_for_http().make_span_with(span))
        // Outside of the others, so that whatever they log stands under the id of its request.
        .layer(from_fn(identify))
        .with_state(app)
}

/// Every route, and what is written about it.
fn routes() -> (Router<Shared>, OpenApi) {
    let all = OpenApiRouter::new()
        .merge(lab::router())
        .merge(runs::router())
        .merge(trash::router())
        .merge(inference::router())
        .merge(studies::router())
        .merge(tasks::router())
        .merge(bringing::router())
        .merge(feed::router())
        .merge(service::router())
        .merge(document::router())
        .merge(stream::router());
    all.split_for_parts()
}

async fn method_not_allowed(uri: Uri) -> Error {
    Error::MethodNotAllowed(format!("{} does not take this method", uri.path()))
}

/// The `{id}` of a path: of a run or a study.
struct Id(RunId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let unknown = |why: String| Error::NotFound(format!("there is nothing of this name: {why}"));
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|e| unknown(e.body_text()))?;
        text.parse().map(Self).map_err(unknown)
    }
}

/// Runs a change to its end even if the client hangs up meanwhile: the handler is dropped then, and a run must not be
/// left recorded but not started. What is logged meanwhile stands under the id of the request.
async fn finish<T: Send + 'static>(change: impl Future<Output = Result<T, Error>> + Send + 'static) -> Result<T, Error> {
    tokio::spawn(change.in_current_span()).await.map_err(|e| Error::Internal(e.into()))?
}

/// As [`finish`], and says in the log what `person` has done.
async fn finish_for<T: Send + 'static>(
    person: Person,
    what: String,
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    finish(async move { change.await.inspect(|_| log_change(&person, what)) }).await
}

/// Says in the log who has done what: a line for each change.
fn log_change(person: &Person, what: impl Display) {
    tracing::info!(person = person.name.as_str(), "{what}");
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

/// Bytes of a file that may be sent here, and the time for it to come.
const LARGEST_FILE: usize = 256 << 20;
const FILE_TIME: Duration = Duration::from_secs(20 * 60);

/// A body that is a file; its route allows bodies of [`LARGEST_FILE`].
///
/// # Errors
/// When it is larger, or does not come.
async fn file_of(request: Request) -> Result<Bytes, Error> {
    let slow = |_| Error::BadRequest(format!("the file did not come within {} minutes", FILE_TIME.as_secs() / 60));
    let bytes = timeout(FILE_TIME, Bytes::from_request(request, &())).await.map_err(slow)?;
    bytes.map_err(|_| Error::TooLarge(format!("the file is larger than {LARGEST_FILE} bytes, or was cut off")))
}

/// Time for a body of JSON to come: it is small.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A body of JSON. Unlike axum's own it refuses in the API's own shape, with the path of the wrong field.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let slow = |_| Error::BadRequest(format!("the body did not come within {} seconds", BODY_TIME.as_secs()));
        let read = timeout(BODY_TIME, Bytes::from_request(request, state)).await.map_err(slow)?;
        let bytes = read.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge(format!("the body is larger than {BODY_LIMIT} bytes")),
            _ => Error::BadRequest("the body could not be read".into()),
        })?;
        Ok(Self(json::read(&bytes)?))
    }
}
