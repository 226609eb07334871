//! A small model hub on this machine, over HTTP, with what the client library asks of one: a listing of a repository with checksums,
//! and files by revision in ranges.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A repository: files by name, and what the hub says of it.
#[derive(Debug, Clone)]
pub struct Repository {
    pub files: BTreeMap<String, Vec<u8>>,
    /// The commit that its branch `main` is at.
    pub commit: String,
    /// The token that it wants to see.
    pub token: Option<String>,
    /// A file whose checksum the hub tells wrongly.
    pub wrong: Option<String>,
}

#[derive(Debug)]
struct Shared {
    id: String,
    repository: Mutex<Repository>,
    asked: Mutex<Vec<String>>,
}

/// A hub with one repository. It ends with its test.
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    port: u16,
}

impl Hub {
    /// Starts one, on a free port.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(id: &str, repository: Repository) -> Self {
        let shared = Arc::new(Shared { id: id.into(), repository: Mutex::new(repository), asked: Mutex::default() });
        let app = Router::new()
            .route("/api/models/{owner}/{name}/revision/{revision}", get(listing))
            .route("/api/datasets/{owner}/{name}/revision/{revision}", get(listing))
            .route("/{owner}/{name}/resolve/{revision}/{file}", get(file))
            .route("/datasets/{owner}/{name}/resolve/{revision}/{file}", get(file))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { shared, port }
    }

    /// Its address, as `HF_ENDPOINT` wants it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Changes the repository.
    ///
    /// # Panics
    /// When a request panicked before.
    pub fn change(&self, how: impl FnOnce(&mut Repository)) {
        how(&mut self.shared.repository.lock().expect("a repository"));
    }

    /// The files that were asked for since the last call, as `revision/name`, each once.
    ///
    /// # Panics
    /// When a request panicked before.
    pub fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.shared.asked.lock().expect("what was asked for"));
        asked.dedup();
        asked
    }
}

/// The repository, if it is this one and the request may see it.
fn visible(shared: &Shared, id: &str, revision: &str, headers: &HeaderMap) -> Result<Repository, StatusCode> {
    let repository = shared.repository.lock().expect("a repository").clone();
    let shown = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "));
    if repository.token.is_some() && repository.token.as_deref() != shown {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let known = id == shared.id && (revision == "main" || revision == repository.commit);
    known.then_some(repository).ok_or(StatusCode::NOT_FOUND)
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

async fn listing(
    State(shared): State<Arc<Shared>>,
    Path((owner, name, revision)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let repository = match visible(&shared, &format!("{owner}/{name}"), &revision, &headers) {
        Ok(repository) => repository,
        Err(status) => return status.into_response(),
    };
    let sibling = |(name, bytes): (&String, &Vec<u8>)| {
        let told = if repository.wrong.as_ref() == Some(name) { checksum(b"another file") } else { checksum(bytes) };
        json!({"rfilename": name, "size": bytes.len(), "lfs": {"sha256": told}})
    };
    let siblings: Vec<_> = repository.files.iter().map(sibling).collect();
    Json(json!({"sha": repository.commit, "siblings": siblings})).into_response()
}

async fn file(
    State(shared): State<Arc<Shared>>,
    Path((owner, name, revision, file)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    shared.asked.lock().expect("what was asked for").push(format!("{revision}/{file}"));
    let repository = match visible(&shared, &format!("{owner}/{name}"), &revision, &headers) {
        Ok(repository) => repository,
        Err(status) => return status.into_response(),
    };
    let Some(bytes) = repository.files.get(&file) else { return StatusCode::NOT_FOUND.into_response() };
    let asked = headers.get(header::RANGE).and_then(|v| v.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let number = |text: &str| text.parse::<usize>().ok();
    let (from, to) = match asked {
        Some((from, to)) => (number(from).unwrap_or(0), number(to).map_or(bytes.len(), |t| (t + 1).min(bytes.len()))),
        None => (0, bytes.len()),
    };
    let headers = [
        ("x-repo-commit", repository.commit.clone()),
        ("etag", format!("\"{}\"", checksum(bytes))),
        ("content-range", format!("bytes {from}-{}/{}", to.saturating_sub(1), bytes.len())),
    ];
    (StatusCode::PARTIAL_CONTENT, headers, bytes[from..to].to_vec()).into_response()
}
