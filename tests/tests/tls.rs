//! TLS without a proxy, and HTTP/2, which browsers then speak: the same answers as to HTTP/1, and the same refusals.

use anyhow::{Context, Result, ensure};
use axum::body::{Body, to_bytes};
use futures_util::{SinkExt, StreamExt, stream};
use hyper::client::conn::http2::{self, Connection, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use moslim_tests::{Browser, LIMIT, Process, binary, heard, invite, raw, signal, smoke, text, wait_until};
use serde_json::json;
use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A server with a certificate for `localhost`.
struct Secured {
    server: Process,
    folder: TempDir,
    certificate: CertificateDer<'static>,
    port: u16,
    token: String,
    /// The token of somebody who may look.
    viewer: String,
}

/// Writes a new certificate and its key.
fn certify(folder: &TempDir) -> Result<CertificateDer<'static>> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    fs::write(folder.path().join("server.crt"), made.cert.pem())?;
    fs::write(folder.path().join("server.key"), made.signing_key.serialize_pem())?;
    Ok(CertificateDer::from_pem_slice(made.cert.pem().as_bytes())?)
}

impl Secured {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let certificate = certify(&folder)?;
        let [data, chain, key, group] = ["data", "server.crt", "server.key", "group.toml"].map(|name| folder.path().join(name));
        let (viewer, lines) = invite("Vera", "view")?;
        fs::write(&group, lines)?;
        let files = ["--certificate", text(&chain), "--key", text(&key), "--tokens", text(&group)];
        let server = Process::start(&binary(), &[&["serve", "--port", "0", "--data", text(&data)], &files[..]].concat(), "");
        let (port, token) = wait_until("the server to be ready", || {
            let said = server.stdout();
            let (port, token) = said.strip_suffix('\n')?.split_once("https://127.0.0.1:")?.1.split_once("/?token=")?;
            Some((port.parse().ok()?, token.to_string()))
        })
        .await;
        Ok(Self { server, folder, certificate, port, token, viewer })
    }

    fn origin(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Connects, trusting one certificate alone, and offers these protocols.
    async fn connect(&self, trusted: &CertificateDer<'static>, protocols: &[&str]) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone())?;
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, stream).await?)
    }

    /// A connection by HTTP/2, as a browser has it: the server chooses it of what is offered.
    async fn http2(&self) -> Result<(SendRequest<Body>, Http2)> {
        let stream = self.connect(&self.certificate, &["h2", "http/1.1"]).await?;
        ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2".as_slice()), "the server does not choose HTTP/2");
        Ok(http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?)
    }

    /// A request of HTTP/2, which has no Host header.
    fn asks(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        Request::builder().method(method).uri(format!("{}{path}", self.origin()))
    }
}

/// What moves the bytes of a connection by HTTP/2.
type Http2 = Connection<TokioIo<TlsStream<TcpStream>>, Body, TokioExecutor>;

/// The status of an answer, and its body.
async fn read(answer: Response<hyper::body::Incoming>) -> Result<(u16, String)> {
    let status = answer.status().as_u16();
    let body = timeout(LIMIT, to_bytes(Body::new(answer.into_body()), usize::MAX)).await??;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[tokio::test]
async fn a_server_with_a_certificate_speaks_tls_and_takes_a_new_one() -> Result<()> {
    let lab = Secured::start().await?;
    let ask = async |trusted: &CertificateDer<'static>| -> Result<String> {
        let mut stream = lab.connect(trusted, &[]).await?;
        let request = format!(
            "GET /api/v1/health HTTP/1.1\r\nHost: localhost:{}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            lab.port, lab.token
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer = ask(&lab.certificate).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let plain = raw(lab.port, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap_or_default();
    ensure!(!plain.contains("HTTP"), "it also speaks without TLS: {plain}");
    let second = certify(&lab.folder)?;
    signal(lab.server.pid(), "HUP");
    let began = Instant::now();
    while ask(&second).await.is_err() {
        ensure!(began.elapsed() < LIMIT, "the new certificate is not taken");
    }
    ensure!(ask(&lab.certificate).await.is_err(), "the old certificate is still shown");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_answered_as_http_1_is() -> Result<()> {
    let lab = Secured::start().await?;
    let (mut sender, connection) = lab.http2().await?;
    tokio::spawn(connection);
    let (bearer, own) = (format!("Bearer {}", lab.token), lab.origin());
    let get = |path: &str| lab.asks(Method::GET, path);
    let known = |path: &str| get(path).header("authorization", &bearer);
    let elsewhere =
        |host: &str| Request::builder().uri(format!("https://{host}:{}/api/v1/runs", lab.port)).header("authorization", &bearer);
    let post =
        |origin: &str| lab.asks(Method::POST, "/api/v1/validate").header("authorization", &bearer).header("origin", origin);
    let config = json!({ "config": smoke() }).to_string();
    let change = |origin: &str| post(origin).header("content-type", "application/json").body(Body::from(config.clone()));
    // Without a length, as only HTTP/2 can send a body.
    let pieces = || Body::from_stream(stream::iter([Ok::<_, Infallible>("{}")]));
    let nobodys = lab.asks(Method::POST, "/api/v1/validate").header("authorization", &bearer);
    let plain = |request: hyper::http::request::Builder| request.body(Body::empty());
    for (what, request, status) in [
        ("with a token", plain(known("/api/v1/runs")), 200),
        ("without one", plain(get("/api/v1/runs")), 401),
        ("with a wrong one", plain(get("/api/v1/runs").header("authorization", "Bearer x")), 401),
        ("for a foreign host", plain(elsewhere("evil.example")), 403),
        ("for a host that is its own, too", plain(elsewhere("127.0.0.1")), 200),
        ("with a header for another", plain(known("/api/v1/runs").header("host", format!("127.0.0.1:{}", lab.port))), 400),
        ("with a header for the same", plain(known("/api/v1/runs").header("host", format!("localhost:{}", lab.port))), 200),
        ("from a foreign page", plain(known("/api/v1/runs").header("sec-fetch-site", "cross-site")), 403),
        ("with a change", change(&own), 200),
        ("with a change of a foreign page", change("https://evil.example"), 403),
        ("with a change of nobody's page", plain(nobodys), 403),
        ("with text in place of JSON", post(&own).header("content-type", "text/plain").body(pieces()), 415),
        ("for the page", plain(get(&format!("/?token={}", lab.token))), 303),
    ] {
        let (answered, body) = read(timeout(LIMIT, sender.send_request(request?)).await??).await?;
        ensure!(answered == status, "{what}: {answered} in place of {status}: {body:.300}");
    }
    Ok(())
}

/// A websocket by HTTP/2 shares a connection with other requests, which is there as long as it is needed and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_stands_over_http_2_and_a_connection_at_rest_does_not() -> Result<()> {
    let lab = Secured::start().await?;
    let (mut resting, connection) = lab.http2().await?;
    let rests = tokio::spawn(connection);
    let health = lab.asks(Method::GET, "/api/v1/health").header("authorization", format!("Bearer {}", lab.viewer));
    let (status, body) = read(resting.send_request(health.body(Body::empty())?).await?).await?;
    ensure!(status == 200, "{status} {body}");
    let began = Instant::now();

    let (mut sender, connection) = lab.http2().await?;
    let asked = Instant::now();
    while !connection.is_extended_connect_protocol_enabled() {
        ensure!(asked.elapsed() < LIMIT, "the server takes no websockets over HTTP/2");
        sleep(Duration::from_millis(10)).await;
    }
    tokio::spawn(connection);
    let upgrade = |origin: Option<&str>| {
        let request = lab
            .asks(Method::CONNECT, "/api/v1/ws")
            .extension(hyper::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .header("authorization", format!("Bearer {}", lab.viewer));
        origin.iter().fold(request, |request, origin| request.header("origin", *origin)).body(Body::empty())
    };
    for origin in [None, Some("https://evil.example")] {
        let (status, body) = read(sender.send_request(upgrade(origin)?).await?).await?;
        ensure!(status == 403, "of the origin {origin:?}: {status} {body}");
    }
    let answer = sender.send_request(upgrade(Some(&lab.origin()))?).await?;
    ensure!(answer.status().as_u16() == 200, "{}", answer.status());
    let upgraded = TokioIo::new(hyper::upgrade::on(answer).await?);
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;
    let subscribe =
        |channel: u32| Message::text(json!({ "subscribe": { "channel": channel, "hello": { "list": true } } }).to_string());
    socket.send(subscribe(1)).await?;
    let said = heard(&mut socket).await?;
    ensure!(said.contains("changed"), "{said}");

    // It answers pings, and is asked for nothing else.
    let _ = timeout(LIMIT, rests).await.context("a connection at rest stands for ever")??;
    ensure!(began.elapsed() < Duration::from_secs(40), "a connection at rest stands for {:?}", began.elapsed());
    ensure!(resting.is_closed(), "it can still be asked over");
    socket.send(subscribe(2)).await?;
    // Who follows the list twice is told on both channels.
    while !heard(&mut socket).await.context("the socket's connection went, too")?.contains("\"channel\":2,") {}
    socket.close(None).await?;
    // Until the server says goodbye.
    while let Some(Ok(_)) = timeout(LIMIT, socket.next()).await? {}
    Ok(())
}

#[tokio::test]
async fn a_browser_shows_a_run_live_without_a_proxy() -> Result<()> {
    const STATUS: &str = "document.querySelector('#run-status')?.dataset.status";
    let lab = Secured::start().await?;
    // The certificate is nobody's whom the browser trusts.
    let browser = Browser::open_with(&["--ignore-certificate-errors"]).await?;
    browser.goto(&format!("{}/?token={}&preset=smoke", lab.origin(), lab.token)).await?;
    browser.wait("document.querySelector('#demo-preset')?.textContent.startsWith('Preset smoke')").await?;
    ensure!(browser.js("location.search").await? == "?preset=smoke", "the token stays in the address");
    let spoken = browser.js("performance.getEntriesByType('navigation')[0].nextHopProtocol").await?;
    ensure!(spoken == "h2", "the browser speaks {spoken}");
    browser.click("#start-demo").await?;
    browser.wait("location.pathname.startsWith('/runs/')").await?;
    browser.wait("document.querySelector('#connection')?.dataset.connection === 'live'").await?;
    browser.wait(&format!("{STATUS} === 'finished'")).await?;
    let errors = browser.errors().await?;
    ensure!(errors.is_empty(), "{errors:?}");
    browser.quit().await
}
