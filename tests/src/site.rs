//! The site that `cargo lab site` writes, on a plain server of static files, in a sub-folder.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::path::PathBuf;
use tokio::task::JoinHandle;

/// The folder that the site lies in on the server.
const FOLDER: &str = "/some/folder/";

/// A server of static files. It ends when this is dropped.
pub struct Site {
    port: u16,
    serving: JoinHandle<()>,
}

/// The folder with the site's files.
fn folder() -> PathBuf {
    let named = std::env::var_os("MOSLIM_LAB_SITE").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/site")));
    let missing = "is missing; run the tests with `cargo lab test`, or write it with `cargo lab site --to target/site`";
    assert!(folder.join("index.html").is_file(), "the site, {}, {missing}", folder.display());
    folder
}

/// The site's folder, and the trained run beside it.
type Served = (PathBuf, Option<Vec<u8>>);

async fn file(State((folder, example)): State<Served>, path: Option<UrlPath<String>>) -> Response {
    let name = path.map(|UrlPath(path)| path).unwrap_or_default();
    let name = if name.is_empty() { "index.html".to_string() } else { name };
    match (name.as_str(), example) {
        ("example.moslim-run", Some(bytes)) => return bytes.into_response(),
        ("index.html", Some(_)) => {
            // As `cargo lab learn` writes it.
            let page = std::fs::read_to_string(folder.join(name)).expect("the page");
            return ([(header::CONTENT_TYPE, "text/html")], page.replacen("<html ", "<html data-example ", 1)).into_response();
        }
        _ => {}
    }
    let kind = match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html",
        Some("js") => "text/javascript",
        Some("wasm") => "application/wasm",
        Some("css") => "text/css",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    match std::fs::read(folder.join(&name)) {
        Ok(bytes) => ([(header::CONTENT_TYPE, kind)], Body::from(bytes)).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Site {
    /// The folder with its files.
    ///
    /// # Panics
    /// When there is none.
    pub fn folder() -> PathBuf {
        folder()
    }

    /// Serves the site on a free port.
    ///
    /// # Panics
    /// When there is no site, or no port.
    pub async fn start() -> Self {
        Self::with(None).await
    }

    /// Serves it with a trained run beside it.
    ///
    /// # Panics
    /// When there is no site, or no port.
    pub async fn with(example: Option<Vec<u8>>) -> Self {
        let router = Router::new()
            .route(FOLDER, get(file))
            .route(&format!("{FOLDER}{{*path}}"), get(file))
            .with_state((folder(), example));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { port, serving }
    }

    /// The address of a page of the lab; its path begins without a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{FOLDER}{path}", self.port)
    }

    /// Nobody answers any more.
    pub async fn stop(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
