//! Errors of the API: one type, one shape on the wire, and nothing internal in it.

use crate::json::JsonError;
use crate::request;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use moslim_shared::config::Problem;
use moslim_shared::refusal::{ApiError, MEDIA_TYPE};
use std::any::Any;

/// Seconds after which one of too many may ask again.
const WAIT: &str = "10";

/// What a request is answered with when it cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    BadRequest(String),
    /// Nobody knows who asks.
    #[error("{0}")]
    Unauthorized(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    MethodNotAllowed(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// Too many ask at the same time.
    #[error("{0}")]
    Busy(String),
    /// The configuration is wrong in these places.
    #[error("{message}")]
    Invalid { message: String, problems: Vec<Problem> },
    /// A fault of the server. Its cause is logged and never sent.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

impl Error {
    /// A configuration with problems.
    pub fn invalid(problems: Vec<Problem>) -> Self {
        let message = match problems.as_slice() {
            [one] if one.field.is_empty() => one.message.clone(),
            [one] => format!("{}: {}", one.field, one.message),
            many => format!("the configuration has {} problems", many.len()),
        };
        Self::Invalid { message, problems }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<JsonError> for Error {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Syntax(message) => Self::BadRequest(message),
            JsonError::Field(problem) => {
                // Paths are those of the configuration, as its own checks write them, not those of the request around it.
                let field = problem.field.strip_prefix("config.").map_or(problem.field.clone(), str::to_string);
                Self::invalid(vec![Problem { field, message: problem.message }])
            }
        }
    }
}

/// Most problems in one answer, and most characters of a message: what is sent back of a request is much less than the request.
const MOST_PROBLEMS: usize = 50;
const LONGEST: usize = 600;

/// The beginning of a message.
fn cut(message: String) -> String {
    match message.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{} …", &message[..at]),
        None => message,
    }
}

/// The first of many problems, and that there are more.
pub fn few(problems: Vec<Problem>) -> Vec<Problem> {
    let left = problems.len().saturating_sub(MOST_PROBLEMS);
    let cut = |p: Problem| Problem { field: cut(p.field), message: cut(p.message) };
    let mut few: Vec<Problem> = problems.into_iter().take(MOST_PROBLEMS).map(cut).collect();
    if left > 0 {
        few.push(Problem { field: String::new(), message: format!("there are {left} more problems") });
    }
    few
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        let detail = match &self {
            Self::Internal(cause) => {
                // The log names the request that this is about: it is said while that is answered.
                tracing::error!("{cause:#}");
                internal_message()
            }
            other => cut(other.to_string()),
        };
        let problems = if let Self::Invalid { problems, .. } = self { few(problems) } else { Vec::new() };
        let mut response = answer(status, detail, problems);
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(WAIT));
        }
        response
    }
}

/// A problem document. That of a fault of the server says which request it was.
fn answer(status: StatusCode, detail: String, problems: Vec<Problem>) -> Response {
    let request = request::id().filter(|_| status.is_server_error());
    let error = ApiError { request, ..ApiError::new(status.as_u16(), detail, problems) };
    (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], Json(error)).into_response()
}

/// The answer when a handler panicked. The panic itself was printed to standard error by then, but not at which request.
pub fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a request ended in a panic, whose message is before this");
    answer(StatusCode::INTERNAL_SERVER_ERROR, internal_message(), Vec::new())
}

fn internal_message() -> String {
    let which = request::id().map_or("this request".to_string(), |id| format!("request {id}"));
    format!("the server failed at {which}; its log on standard error says why")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{HEADER, identify};
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    #[test]
    fn internal_causes_stay_inside() {
        let error = Error::Internal(anyhow::anyhow!("secret path"));
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!internal_message().contains("secret"));
    }

    async fn panics() -> &'static str {
        panic!("secret path, on purpose")
    }

    #[tokio::test]
    async fn an_answer_carries_the_id_of_its_request_and_a_failure_quotes_it() {
        let router = Router::new()
            .route("/well", get(|| async { "well" }))
            .route("/fails", get(|| async { Error::Internal(anyhow::anyhow!("secret path")) }))
            .route("/panics", get(panics))
            .route("/none", get(|| async { Error::NotFound("there is none".into()) }))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn(identify));
        for (path, status) in [("/well", 200), ("/fails", 500), ("/panics", 500), ("/none", 404), ("/nowhere", 404)] {
            let mut seen = Vec::new();
            for (given, kept) in [("mine-1_2.a", true), ("", false), ("a b", false), (&*"x".repeat(65), false)] {
                let request = Request::get(path).header(HEADER, given).body(Body::empty()).unwrap();
                let answer = router.clone().oneshot(request).await.unwrap();
                let id = answer.headers()[HEADER].to_str().unwrap().to_string();
                assert_eq!((answer.status().as_u16(), id == given), (status, kept), "{path} {given} {id}");
                let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
                let body = String::from_utf8(body.to_vec()).unwrap();
                assert!(!body.contains("secret"), "{body}");
                if status == 500 {
                    let error: ApiError = serde_json::from_str(&body).unwrap();
                    assert_eq!(error.request.as_deref(), Some(id.as_str()));
                    assert!(error.detail.contains(&id), "{body}");
                } else {
                    assert!(!body.contains(&id), "{body}");
                }
                assert!(!seen.contains(&id), "{id} came twice");
                seen.push(id);
            }
        }
    }

    #[test]
    fn json_mistakes_carry_the_path_within_the_configuration() {
        let problem = Problem { field: "config.policy.prompts".into(), message: "invalid type".into() };
        let Error::Invalid { message, problems } = Error::from(JsonError::Field(problem)) else { panic!("wrong variant") };
        assert_eq!((message.as_str(), problems[0].field.as_str()), ("policy.prompts: invalid type", "policy.prompts"));
    }
}
