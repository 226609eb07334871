//! Every request has an id, so that an answer, and what the log says of it, can be brought together.

use axum::extract::Request;
use axum::http::{HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::Response;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use tracing::{Instrument, Span};

/// Header of every answer with the id of its request; a request that has one may say so in the same header.
pub const HEADER: &str = "x-request-id";
/// Longest id.
const LONGEST: usize = 64;
/// Name of the token in an address.
const TOKEN: &str = "token";

tokio::task_local! {
    /// Id of the request that is being answered.
    static ID: String;
}

/// The id of the request that is being answered; `None` where none is.
pub fn id() -> Option<String> {
    ID.try_with(String::clone).ok()
}

/// Middleware: every answer carries the id of its request, the one that the client has given it or a fresh one. What is logged while
/// the request is answered stands under that id.
pub async fn identify(request: Request, next: Next) -> Response {
    let given = request.headers().get(HEADER).and_then(|value| value.to_str().ok()).filter(|id| is_id(id));
    let id = given.map_or_else(fresh, str::to_string);
    let span = tracing::error_span!("request", id = %id);
    let mut response = ID.scope(id.clone(), next.run(request)).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

/// What requests are logged under where `RUST_LOG=tower_http=debug` asks for all: as that library does it, but for tokens.
pub fn span(request: &Request) -> Span {
    tracing::debug_span!(
        target: "tower_http::trace",
        "request",
        method = %request.method(),
        uri = %shown(request.uri()),
        version = ?request.version(),
    )
}

/// An address for the log. The address that a server prints has a token, which opens the server to whoever reads it.
fn shown(uri: &Uri) -> String {
    let text = uri.to_string();
    let Some((path, query)) = text.split_once('?') else { return text };
    let masked = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.eq_ignore_ascii_case(TOKEN) => format!("{name}=***"),
        _ => pair.to_string(),
    };
    format!("{path}?{}", query.split('&').map(masked).collect::<Vec<_>>().join("&"))
}

/// Whether a text can be an id. It is sent back and logged as it is.
fn is_id(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// An id that no other request has.
fn fresh() -> String {
    // The standard library's hash keys are random in every thread, and differ from one hasher to the next within it.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_logged() {
        for (uri, logged) in [
            ("/?token=0123456789abcdef", "/?token=***"),
            ("/runs/a?tab=2&token=0123&a=b", "/runs/a?tab=2&token=***&a=b"),
            ("/?Token=0123&token=4567", "/?Token=***&token=***"),
            ("/api/v1/runs?filter=token&limit=3", "/api/v1/runs?filter=token&limit=3"),
            ("/?token", "/?token"),
            ("/", "/"),
        ] {
            assert_eq!(shown(&uri.parse().unwrap()), logged);
        }
    }

    #[test]
    fn an_id_is_short_and_plain() {
        for good in ["a", "7f3a.B_c-9", &"x".repeat(64), &fresh()] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", "a b", "a\nb", "a/b", "ä", "a\"", "{}", &"x".repeat(65)] {
            assert!(!is_id(bad), "{bad:?}");
        }
        assert_ne!(fresh(), fresh());
        assert_eq!(id(), None, "nothing is being answered");
    }
}
