//! The page: files of `dist`, which the program holds; it is built after them.

use crate::error::Error;
use axum::body::Body;
use axum::extract::OriginalUri;
use axum::http::header::{self, HeaderMap};
use axum::http::{Method, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

/// The built page. It may be missing: the API and the command line work without it.
#[derive(RustEmbed)]
#[folder = "../../dist"]
#[allow_missing = true]
struct Page;

const INDEX: &str = "index.html";
/// Encodings that the build writes beside a file, best first: name in HTTP, ending of the file.
const ENCODINGS: [(&str, &str); 2] = [("br", ".br"), ("gzip", ".gz")];
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>MOSLIM Lab</title></head>\
    <body><h1>MOSLIM Lab</h1><p>The server runs, but its page was not built. Run <code>cargo lab</code> in the project's \
    folder: it builds the page and starts the server.</p></body></html>";

/// Answers everything that no route of the API takes.
///
/// # Errors
/// 404 where nothing is, as JSON under `/api`; 405 for a method that does not read.
pub async fn serve(method: Method, OriginalUri(uri): OriginalUri, headers: HeaderMap) -> Result<Response, Error> {
    let path = uri.path();
    if path == "/api" || path.starts_with("/api/") {
        return Err(Error::NotFound(format!("the API has no {path:.200}")));
    }
    if method != Method::GET && method != Method::HEAD {
        return Err(Error::MethodNotAllowed(format!("{path:.200} can only be read")));
    }
    let name = path.trim_start_matches('/');
    if name.split(['/', '\\']).any(|part| part == "..") {
        return Err(Error::NotFound("there is nothing above the page".into()));
    }
    // The page has routes of its own; only what looks like a file is one.
    let name = if name.contains('.') { name } else { INDEX };
    match Page::get(name) {
        Some(file) => Ok(answer(name, file, &headers)),
        None if name == INDEX => Ok((StatusCode::SERVICE_UNAVAILABLE, Html(NOT_BUILT)).into_response()),
        None => Err(Error::NotFound(format!("there is no {path:.200}"))),
    }
}

/// The smallest variant that the client takes, or 304 if it has that already.
fn answer(name: &str, plain: EmbeddedFile, headers: &HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let packed = ENCODINGS
        .iter()
        .filter(|(encoding, _)| accepts(accepted, encoding))
        .find_map(|(encoding, ending)| Page::get(&format!("{name}{ending}")).map(|file| (Some(*encoding), file)));
    let (encoding, file) = packed.unwrap_or((None, plain));

    let hash: String = file.metadata.sha256_hash().iter().map(|b| format!("{b:02x}")).collect();
    let tag = format!("\"{hash}\"");
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|v| matches(v, &tag));
    let response = Response::builder()
        // The names do not change from build to build, so a browser has to ask; thanks to the tag it is told quickly.
        .header(header::CACHE_CONTROL, "no-cache")
        .header(header::VARY, "Accept-Encoding")
        .header(header::ETAG, tag);
    let response = match encoding {
        Some(encoding) if !known => response.header(header::CONTENT_ENCODING, encoding),
        _ => response,
    };
    let response = if known {
        response.status(StatusCode::NOT_MODIFIED).body(Body::empty())
    } else {
        response.header(header::CONTENT_TYPE, content_type(name)).body(Body::from(file.data))
    };
    response.unwrap_or_else(|e| Error::Internal(e.into()).into_response())
}

/// Whether an `Accept-Encoding` takes `encoding`: named, and not with a weight of zero.
fn accepts(accepted: &str, encoding: &str) -> bool {
    accepted.split(',').any(|part| {
        let mut parts = part.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding));
        let weight = parts.find_map(|p| p.strip_prefix("q=")).map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0));
        named && weight > 0.0
    })
}

/// Whether an `If-None-Match` names `tag`. Weak tags are compared like strong ones, as the standard asks.
pub fn matches(condition: &str, tag: &str) -> bool {
    condition.split(',').map(str::trim).any(|c| c == "*" || c.trim_start_matches("W/") == tag)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "wasm" => "application/wasm",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_negotiated() {
        for (accepted, br) in
            [("gzip, deflate, br, zstd", true), ("br;q=0", false), ("br;q=0.0, gzip", false), ("BR ; q=0.5", true), ("", false)]
        {
            assert_eq!(accepts(accepted, "br"), br, "{accepted}");
        }
    }

    #[test]
    fn tags_are_compared_whole() {
        for (condition, known) in [("\"ab\"", true), ("\"x\", W/\"ab\"", true), ("*", true), ("\"a\"", false), ("ab", false)] {
            assert_eq!(matches(condition, "\"ab\""), known, "{condition}");
        }
    }

    #[tokio::test]
    async fn the_api_never_answers_with_the_page() {
        for (method, path, status) in [
            (Method::GET, "/api/v1/nothing", StatusCode::NOT_FOUND),
            (Method::GET, "/api", StatusCode::NOT_FOUND),
            (Method::GET, "/missing.css", StatusCode::NOT_FOUND),
            (Method::GET, "/../Cargo.toml", StatusCode::NOT_FOUND),
            (Method::POST, "/", StatusCode::METHOD_NOT_ALLOWED),
        ] {
            let uri = OriginalUri(path.parse().unwrap());
            let answer = serve(method, uri, HeaderMap::new()).await.into_response();
            assert_eq!(answer.status(), status, "{path}");
        }
    }
}
