//! The HTTP API. Each resource has its own file with its own router; routes carry their whole path, so that they can be
//! found by searching for it.

mod lab;
mod runs;

use crate::error::{Error, panicked};
use crate::guard::{BODY_LIMIT, guard, secure};
use crate::json;
use crate::state::Shared;
use crate::{assets, stream};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use serde::de::DeserializeOwned;
use tower_http::catch_panic::CatchPanicLayer;

/// The whole application: API, websocket and page, behind the guard.
pub fn router(app: Shared) -> Router {
    let hosts = app.hosts.clone();
    // Layers are listed from the inside out: an answer passes `secure` last, also if it is a refusal or a panic.
    Router::new()
        .merge(runs::router())
        .merge(lab::router())
        .merge(stream::router())
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(assets::serve)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(hosts, guard))
        .layer(from_fn(secure))
        .with_state(app)
}

async fn method_not_allowed(uri: Uri) -> Error {
    Error::MethodNotAllowed(format!("{} does not take this method", uri.path()))
}

/// A body of JSON. Unlike axum's own it refuses in the API's own shape, with the path of the wrong field.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge(format!("the body is larger than {BODY_LIMIT} bytes")),
            _ => Error::BadRequest("the body could not be read".into()),
        })?;
        Ok(Self(json::read(&bytes)?))
    }
}
