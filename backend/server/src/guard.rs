//! Who may talk to the server: checks of host and origin before anything else, of what a body is once it is known who asks, and headers on
//! every answer.
//!
//! The threat is any web page that the user visits: it can send requests to this machine. A page cannot forge `Host` or
//! `Origin`, so an allow-list of hosts stops DNS rebinding, and an exact origin on everything that changes state, and on
//! the websocket, stops cross-site requests. Nothing is allowed by default for a method: only GET and HEAD are reads.

use crate::error::Error;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{self, Method, Version};
use axum::middleware::Next;
use axum::response::Response;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Where files are sent to, as they are.
const FILES: [&str; 2] = ["/api/v1/run-files", "/api/v1/uploads"];

/// Largest request body, bytes.
pub const BODY_LIMIT: usize = 1 << 20;

const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; \
         font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// The hosts that a request may name.
#[derive(Debug, Clone)]
pub struct Hosts {
    names: Vec<String>,
    port: u16,
    /// Whether any IP address is good, which is so when the server listens on all of them.
    any_address: bool,
    /// Names that a person has given, at any port: those of a reverse proxy, or of this machine elsewhere.
    given: Vec<String>,
    /// Whether the server speaks TLS itself.
    secure: bool,
}

impl Hosts {
    /// The loopback names, the address that the server is bound to, and the names `given`.
    pub fn of(bound: SocketAddr, given: &[String], secure: bool) -> Self {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "[::1]"].map(String::from).to_vec();
        let address = match bound.ip() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        if !names.contains(&address) {
            names.push(address);
        }
        let given = given.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { names, port: bound.port(), any_address: bound.ip().is_unspecified(), given, secure }
    }

    fn is_given(&self, authority: &Authority) -> bool {
        self.given.iter().any(|name| name.eq_ignore_ascii_case(authority.host()))
    }

    /// Whether a page comes from here that names this origin. What stands before a given name may speak TLS for this server.
    fn is_own(&self, origin: &str, host: &str, authority: &Authority) -> bool {
        let own = |scheme: &str| origin.strip_prefix(scheme).is_some_and(|rest| rest.eq_ignore_ascii_case(host));
        own(self.scheme()) || (self.is_given(authority) && own("https://"))
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "https://" } else { "http://" }
    }

    /// Whether `authority` is allowed. Browsers leave out the port where it is that of the scheme.
    fn allow(&self, authority: &Authority) -> bool {
        let host = authority.host().to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        // Rebinding needs a name whose address the attacker can change; a literal address cannot be rebound.
        let known = self.names.contains(&host) || (self.any_address && bare.parse::<IpAddr>().is_ok());
        let usual = if self.secure { 443 } else { 80 };
        self.is_given(authority) || (known && authority.port_u16().unwrap_or(usual) == self.port)
    }
}

/// Checks a request by its head.
///
/// # Errors
/// 400 for a malformed head, 403 for a stranger.
pub fn check<B>(hosts: &Hosts, request: &http::Request<B>) -> Result<(), Error> {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let host = match (single(headers, &header::HOST)?, uri.authority()) {
        (Some(host), _) => host,
        // HTTP/2 names the host with the method and the path. A Host header beside it is of whoever translated the request.
        (None, Some(authority)) if request.version() >= Version::HTTP_2 => authority.as_str(),
        (None, _) => return Err(Error::BadRequest("the Host header is missing".into())),
    };
    let authority = parse_host(host)?;
    if uri.authority().is_some_and(|a| a != &authority) {
        return Err(Error::BadRequest("the request line names another host than the Host header".into()));
    }
    if !hosts.allow(&authority) {
        return Err(Error::Forbidden(format!("this server does not answer for the host {host}")));
    }

    let reads = method == Method::GET || method == Method::HEAD;
    // HTTP/2 has a method for what HTTP/1 has a header for.
    let upgrade = headers.contains_key(header::UPGRADE) || method == Method::CONNECT;
    let origin = single(headers, &header::ORIGIN)?;
    let own = format!("{}{}", hosts.scheme(), host.to_ascii_lowercase());
    if !reads || upgrade {
        match origin {
            Some(origin) if hosts.is_own(origin, host, &authority) => {}
            Some(_) => return Err(Error::Forbidden(format!("the Origin header must be {own}"))),
            None => {
                return Err(Error::Forbidden(format!(
                    "the Origin header is missing; browsers send it by themselves, scripts must send \"Origin: {own}\""
                )));
            }
        }
    }

    let api = uri.path() == "/api" || uri.path().starts_with("/api/");
    // Browsers disagree on what they send for websockets, whose origin was checked above, which is stronger.
    if api
        && !upgrade
        && let Some(site) = single(headers, &HeaderName::from_static("sec-fetch-site"))?
        && !matches!(site, "same-origin" | "none")
    {
        return Err(Error::Forbidden("requests to the API must come from this server's own page".into()));
    }
    Ok(())
}

/// Checks whether a body is of a type that is taken. None of them is one that a form of another page could send.
///
/// # Errors
/// 400 for a malformed head, 415 for a body that is neither JSON nor, where files are sent to, a file.
pub fn check_body<B: HttpBody>(request: &http::Request<B>) -> Result<(), Error> {
    let (method, headers) = (request.method(), request.headers());
    let body = match single(headers, &header::CONTENT_LENGTH)? {
        Some(length) => length.trim() != "0" || headers.contains_key(header::TRANSFER_ENCODING),
        // HTTP/2 needs no header to send a body.
        None => !request.body().is_end_stream(),
    };
    let kind = single(headers, &header::CONTENT_TYPE)?;
    let fits = is(kind, "application/json") || FILES.contains(&request.uri().path()) && is(kind, "application/octet-stream");
    if method != Method::GET && method != Method::HEAD && body && !fits {
        return Err(Error::UnsupportedMediaType("the body must be JSON, sent as Content-Type: application/json".into()));
    }
    Ok(())
}

/// The only value of a header. Two values are refused: which one counts is where proxies and servers disagree.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    text.map(Some).ok_or_else(|| Error::BadRequest(format!("the {name} header is malformed or sent twice")))
}

/// Reads a host with the port that it may have, and nothing else.
///
/// # Errors
/// 400 where it is something else.
pub fn parse_host(host: &str) -> Result<Authority, Error> {
    let malformed = || Error::BadRequest("the Host header is malformed".into());
    let authority: Authority = host.parse().map_err(|_| malformed())?;
    // An authority may also hold a user, an empty port or one that is no number; a Host header may not.
    let plain = match host.strip_prefix(authority.host()) {
        Some("") => true,
        Some(rest) => {
            rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok())
        }
        None => false,
    };
    if plain && !authority.host().is_empty() { Ok(authority) } else { Err(malformed()) }
}

fn is(content_type: Option<&str>, wanted: &str) -> bool {
    let kind = content_type.and_then(|c| c.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case(wanted)
}

/// Middleware: [`check`] on every request.
///
/// # Errors
/// Those of [`check`].
pub async fn guard(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Result<Response, Error> {
    check(&hosts, &request)?;
    Ok(next.run(request).await)
}

/// Middleware: [`check_body`] on every request of somebody who is known. Whoever is not learns that, and nothing else, first.
///
/// # Errors
/// Those of [`check_body`].
pub async fn typed(request: Request, next: Next) -> Result<Response, Error> {
    check_body(&request)?;
    Ok(next.run(request).await)
}

/// Middleware: security headers on every answer, refusals included. There are no CORS headers, on purpose.
pub async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        // A page with a form says so itself.
        headers.entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    }
    // What the API says is true for a moment only.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::middleware::{from_fn, from_fn_with_state};
    use axum::response::IntoResponse;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Serves one route behind the guard; returns its port.
    async fn serve() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bound = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(|| async { "ok" })
            .layer(from_fn(typed))
            .layer(from_fn_with_state(Arc::new(Hosts::of(bound, &[], false)), guard))
            .layer(from_fn(secure));
        tokio::spawn(async move { axum::serve(listener, router).await });
        bound.port()
    }

    /// Sends a raw request; returns the whole answer.
    async fn ask(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A refusal may reset the connection after the answer; what was read until then counts.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn status(answer: &str) -> u16 {
        answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    #[tokio::test]
    async fn strangers_are_refused() {
        let p = serve().await;
        let own = format!("Host: localhost:{p}\r\n");
        let json = "Content-Type: application/json\r\nContent-Length: 2\r\n";
        let origin = format!("Origin: http://localhost:{p}\r\n");
        let absolute = format!("GET http://localhost:{p}/");
        let table: Vec<(&str, String, u16)> = vec![
            ("GET /", own.clone(), 200),
            ("GET /", format!("Host: LOCALHOST:{p}\r\n"), 200),
            ("GET /", format!("Host: 127.0.0.1:{p}\r\n"), 200),
            ("GET /", format!("Host: [::1]:{p}\r\n"), 200),
            ("GET /", format!("Host: evil.example:{p}\r\n"), 403),
            ("GET /", format!("Host: localhost.evil.example:{p}\r\n"), 403),
            ("GET /", format!("Host: 127.0.0.2:{p}\r\n"), 403),
            ("GET /", "Host: localhost:1\r\n".into(), 403),
            ("GET /", "Host: localhost\r\n".into(), 403),
            ("GET /", String::new(), 400),
            ("GET /", format!("{own}{own}"), 400),
            ("GET /", "Host: a b\r\n".into(), 400),
            ("GET /", format!("Host: user@localhost:{p}\r\n"), 400),
            ("GET /", format!("Host: localhost:{p}x\r\n"), 400),
            ("GET /", "Host: localhost:99999\r\n".into(), 400),
            ("GET http://evil.example/", own.clone(), 400),
            (absolute.as_str(), own.clone(), 200),
            (absolute.as_str(), String::new(), 400),
            ("GET /api/v1/runs", own.clone(), 200),
            ("GET /api/v1/runs", format!("{own}Sec-Fetch-Site: same-origin\r\n"), 200),
            ("GET /api/v1/runs", format!("{own}Sec-Fetch-Site: none\r\n"), 200),
            ("GET /api/v1/runs", format!("{own}Sec-Fetch-Site: cross-site\r\n"), 403),
            ("GET /api/v1/runs", format!("{own}Sec-Fetch-Site: same-site\r\n"), 403),
            ("GET /", format!("{own}Sec-Fetch-Site: cross-site\r\n"), 200),
            ("GET /api/v1/ws", format!("{own}Upgrade: websocket\r\n"), 403),
            ("GET /api/v1/ws", format!("{own}Upgrade: websocket\r\nOrigin: http://evil.example\r\n"), 403),
            ("GET /api/v1/ws", format!("{own}Upgrade: websocket\r\nOrigin: null\r\n"), 403),
            ("GET /api/v1/ws", format!("{own}{origin}Upgrade: websocket\r\n"), 200),
            ("POST /api/v1/runs", format!("{own}{json}"), 403),
            ("POST /api/v1/runs", format!("{own}{json}Origin: null\r\n"), 403),
            ("POST /api/v1/runs", format!("{own}{json}Origin: https://localhost:{p}\r\n"), 403),
            ("POST /api/v1/runs", format!("{own}{json}Origin: http://localhost\r\n"), 403),
            ("POST /api/v1/runs", format!("{own}{json}Origin: http://127.0.0.1:{p}\r\n"), 403),
            ("POST /api/v1/runs", format!("{own}{json}{origin}{origin}"), 400),
            ("POST /api/v1/runs", format!("{own}{json}{origin}"), 200),
            ("POST /api/v1/runs", format!("{own}{origin}"), 200),
            ("POST /api/v1/runs", format!("{own}{origin}Content-Length: 2\r\n"), 415),
            ("POST /api/v1/runs", format!("{own}{origin}Content-Type: text/plain\r\nContent-Length: 2\r\n"), 415),
            ("DELETE /api/v1/runs", own.clone(), 403),
            ("PATCH /api/v1/runs", own.clone(), 403),
            ("OPTIONS /api/v1/runs", format!("{own}Origin: http://evil.example\r\n"), 403),
        ];
        for (line, headers, expected) in table {
            let body = if headers.contains("Content-Length: 2") { "{}" } else { "" };
            let answer = ask(p, &format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n{body}")).await;
            assert_eq!(status(&answer), expected, "{line}\n{headers}\n{answer}");
        }
    }

    #[tokio::test]
    async fn every_answer_carries_the_headers() {
        let p = serve().await;
        for host in [format!("localhost:{p}"), "evil.example".to_string()] {
            let answer = ask(p, &format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await.to_lowercase();
            for (name, value) in HEADERS {
                assert!(answer.contains(&format!("{name}: {}", value.to_lowercase())), "{name} in {answer}");
            }
            assert!(!answer.contains("access-control-"), "{answer}");
        }
    }

    #[test]
    fn listening_on_all_addresses_allows_addresses_but_no_names() {
        let hosts = Hosts::of("0.0.0.0:80".parse().unwrap(), &[], false);
        for (host, allowed) in [("192.168.1.5", true), ("[fe80::1]:80", true), ("lab.local", false), ("192.168.1.5:81", false)] {
            assert_eq!(hosts.allow(&host.parse().unwrap()), allowed, "{host}");
        }
    }

    #[test]
    fn a_given_name_is_good_at_any_port_and_by_tls() {
        let hosts = Hosts::of("127.0.0.1:7878".parse().unwrap(), &["Lab.example".into()], false);
        for (host, origin, good) in [
            ("lab.example", "https://lab.example", true),
            ("lab.example", "http://lab.example", true),
            ("LAB.example:8443", "https://lab.example:8443", true),
            ("lab.example", "https://lab.example:8443", false),
            ("lab.example", "https://evil.example", false),
            ("localhost:7878", "http://localhost:7878", true),
            ("localhost:7878", "https://localhost:7878", false),
            ("localhost:443", "https://localhost:443", false),
            ("evil.example", "https://evil.example", false),
        ] {
            let request = http::Request::post("/api/v1/runs").header("host", host).header("origin", origin);
            let checked = check(&hosts, &request.body(()).unwrap());
            assert_eq!(checked.is_ok(), good, "{host} {origin} {checked:?}");
        }
        let tls = Hosts::of("127.0.0.1:443".parse().unwrap(), &[], true);
        let request = |origin: &str| http::Request::post("/api/v1/runs").header("host", "localhost").header("origin", origin);
        let check = |origin: &str| check(&tls, &request(origin).body(()).unwrap()).is_ok();
        assert!(check("https://localhost") && !check("http://localhost"));
    }

    #[test]
    fn http_2_names_the_host_without_a_header_and_a_header_beside_it_must_agree() {
        let hosts = Hosts::of("127.0.0.1:443".parse().unwrap(), &[], true);
        let (old, new, own) = (Version::HTTP_11, Version::HTTP_2, "https://localhost");
        for (method, uri, version, headers, status) in [
            (Method::GET, "https://localhost/", new, vec![], 200),
            (Method::GET, "https://localhost/", new, vec![("host", "LOCALHOST")], 200),
            // Each of the two would be good alone.
            (Method::GET, "https://localhost/", new, vec![("host", "127.0.0.1")], 400),
            (Method::GET, "https://localhost/", new, vec![("host", "evil.example")], 400),
            (Method::GET, "https://evil.example/", new, vec![("host", "localhost")], 400),
            (Method::GET, "https://evil.example/", new, vec![], 403),
            (Method::GET, "https://localhost:8443/", new, vec![], 403),
            (Method::GET, "https://user@localhost/", new, vec![], 400),
            (Method::GET, "/", new, vec![], 400),
            (Method::GET, "/", new, vec![("host", "localhost")], 200),
            (Method::GET, "https://localhost/", old, vec![], 400),
            (Method::POST, "https://localhost/api/v1/runs", new, vec![], 403),
            (Method::POST, "https://localhost/api/v1/runs", new, vec![("origin", own)], 200),
            (Method::POST, "https://localhost/api/v1/runs", new, vec![("origin", "https://evil.example")], 403),
            (Method::CONNECT, "https://localhost/api/v1/ws", new, vec![], 403),
            (Method::CONNECT, "https://localhost/api/v1/ws", new, vec![("origin", "https://evil.example")], 403),
            (Method::CONNECT, "https://localhost/api/v1/ws", new, vec![("origin", own)], 200),
        ] {
            let mut request = http::Request::builder().method(&method).uri(uri).version(version);
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            let checked = check(&hosts, &request.body(()).unwrap());
            let answered = checked.map_or_else(|refusal| refusal.into_response().status().as_u16(), |()| 200);
            assert_eq!(answered, status, "{method} {uri} {version:?} {headers:?}");
        }
    }

    #[test]
    fn a_body_is_looked_at_whether_or_not_its_length_is_said() {
        for (method, headers, body, good) in [
            (Method::POST, vec![], "", true),
            (Method::POST, vec![("content-length", "0")], "", true),
            (Method::POST, vec![], "{}", false),
            (Method::POST, vec![("content-type", "text/plain")], "{}", false),
            (Method::POST, vec![("content-type", "text/plain"), ("content-length", "2")], "{}", false),
            (Method::POST, vec![("content-type", "application/json")], "{}", true),
            (Method::GET, vec![("content-type", "text/plain")], "{}", true),
        ] {
            let mut request = http::Request::builder().method(&method).uri("/api/v1/runs");
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            let checked = check_body(&request.body(axum::body::Body::from(body)).unwrap());
            assert_eq!(checked.is_ok(), good, "{method} {headers:?} {body}");
        }
    }
}
