//! Takes connections and serves them: how many there may be, how long each may take to say what it wants, and TLS where it is asked for.
//!
//! A connection costs a file and memory before anything is known of it, so there is a number of them that is not exceeded. When it is
//! reached, the oldest one goes over which nobody who is known has asked for anything: somebody who opens thousands, and says nothing or is
//! refused, displaces nobody else.

mod answer;
mod patient;

pub use answer::Held;

use answer::{Answer, Requests, rested, stalled};
use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use patient::Patient;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::BufReader;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tower::ServiceExt;

/// How long whoever connects may take.
#[derive(Clone, Copy)]
struct Times {
    /// Time to send the head of a request, from the moment that the connection stands or the last answer was sent; and for TLS. Every
    /// version of HTTP has it: one that pings instead of asking is asked to go.
    head: Duration,
    /// Time in which something of what is sent has to be taken.
    taking: Duration,
}

const TIMES: Times = Times { head: Duration::from_secs(20), taking: Duration::from_secs(60) };
/// Most connections in all, and of one address that is not this machine's own.
const MOST: usize = 512;
const MOST_OF_ONE: usize = 128;
/// Files that the server needs for other things than connections.
const OTHER_FILES: usize = 128;

/// Connections that stand, and answers by the first digit of their status, from 1.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
static ANSWERS: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

/// How many connections stand.
pub fn connections() -> u64 {
    CONNECTIONS.load(Ordering::Relaxed)
}

/// How many answers there were of each kind of status, from 1xx on.
pub fn answers() -> [u64; 5] {
    [0, 1, 2, 3, 4].map(|n| ANSWERS[n].load(Ordering::Relaxed))
}

/// Certificate and key, which can be read anew.
pub struct Tls {
    files: (PathBuf, PathBuf),
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads a certificate chain and its key, both in PEM.
    ///
    /// # Errors
    /// When a file cannot be read, or they do not belong together; the message names the file.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let config = Self::config((certificate, key))?;
        Ok(Self { files: (certificate.into(), key.into()), config: RwLock::new(config) })
    }

    fn config((certificate, key): (&Path, &Path)) -> Result<Arc<ServerConfig>> {
        let open = |path: &Path| File::open(path).map(BufReader::new).with_context(|| format!("reading {}", path.display()));
        let chain: Vec<CertificateDer> = CertificateDer::pem_reader_iter(open(certificate)?)
            .collect::<Result<_, _>>()
            .with_context(|| format!("{} is no certificate in PEM", certificate.display()))?;
        ensure!(!chain.is_empty(), "{} holds no certificate in PEM", certificate.display());
        let own = PrivateKeyDer::from_pem_reader(open(key)?).with_context(|| format!("{} is no key in PEM", key.display()))?;
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, own).with_context(|| {
            format!("the key in {} is not that of the certificate in {}", key.display(), certificate.display())
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Reads the files again; new connections get what is in them.
    ///
    /// # Errors
    /// As [`Tls::read`]; then the old ones stay.
    pub fn reload(&self) -> Result<()> {
        let config = Self::config((&self.files.0, &self.files.1))?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// A connection that stands.
struct Open {
    from: IpAddr,
    /// Whether somebody who is known has asked for something over it.
    proven: Arc<AtomicBool>,
    /// Ends it.
    end: Arc<Notify>,
}

/// What tells one client from another by its address: of version 6, the half that a provider gives out; the other half is the client's own
/// to choose, as often as it likes.
fn who(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        other => other,
    }
}

/// The connections that stand, by the order in which they came.
#[derive(Default)]
struct Register(Mutex<(u64, BTreeMap<u64, Open>)>);

impl Register {
    /// Makes room for another connection from `from`, and enters it; `None` where there is no room.
    fn enter(self: &Arc<Self>, from: IpAddr, most: usize) -> Option<Entered> {
        let from = who(from);
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, open) = &mut *inner;
        let of_one = open.values().filter(|o| o.from == from).count();
        if open.len() >= most || (of_one >= MOST_OF_ONE && !from.is_loopback()) {
            let silent = |o: &Open| !o.proven.load(Ordering::Relaxed) && (open.len() >= most || o.from == from);
            let oldest = open.iter().find(|(_, o)| silent(o)).map(|(&at, _)| at)?;
            if let Some(gone) = open.remove(&oldest) {
                gone.end.notify_one();
            }
        }
        *number += 1;
        CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let (proven, end) = (Arc::<AtomicBool>::default(), Arc::<Notify>::default());
        open.insert(*number, Open { from, proven: proven.clone(), end: end.clone() });
        Some(Entered { register: self.clone(), number: *number, proven, end })
    }
}

/// A place in the register, as long as this lives.
struct Entered {
    register: Arc<Register>,
    number: u64,
    proven: Arc<AtomicBool>,
    end: Arc<Notify>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
        self.register.0.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.number);
    }
}

/// Connections at a time: fewer where the system allows few open files.
fn most() -> usize {
    #[cfg(unix)]
    {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = files.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        MOST.min(files.saturating_sub(OTHER_FILES).max(16))
    }
    #[cfg(not(unix))]
    MOST
}

/// Waits until the server stops. A function of its own, because the guard that `wait_for` returns must not outlive it.
pub async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Serves until `stopping` becomes true, and then until what is being answered is.
pub async fn serve(listener: TcpListener, router: Router, tls: Option<Arc<Tls>>, stopping: watch::Receiver<bool>) {
    serve_at_most(most(), listener, router, tls, stopping).await;
}

/// The same, for so many connections at a time.
async fn serve_at_most(
    most: usize,
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<Tls>>,
    mut stopping: watch::Receiver<bool>,
) {
    let register = Arc::new(Register::default());
    // Nothing is sent over it: it is closed when no connection has a sender any more.
    let (stands, mut standing) = mpsc::channel(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stopping) => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of files, most likely; some will be closed in a moment.
                tracing::warn!("a connection could not be taken: {error}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(entered) = register.enter(from.ip(), most) else { continue };
        // Small frames go out at once instead of waiting to be joined.
        let _ = stream.set_nodelay(true);
        let (router, lasts) = (router.clone(), (stopping.clone(), stands.clone()));
        match tls.as_ref().map(|tls| tls.acceptor()) {
            None => drop(tokio::spawn(connection(stream, entered, router, lasts, TIMES))),
            Some(acceptor) => drop(tokio::spawn(async move {
                let shaken = tokio::select! {
                    shaken = timeout(TIMES.head, acceptor.accept(stream)) => shaken,
                    () = entered.end.notified() => return,
                };
                if let Ok(Ok(stream)) = shaken {
                    connection(stream, entered, router, lasts, TIMES).await;
                }
            })),
        }
    }
    drop(stands);
    let _ = standing.recv().await;
}

/// Serves one connection to its end.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    entered: Entered,
    router: Router,
    (mut stopping, _stands): (watch::Receiver<bool>, mpsc::Sender<()>),
    times: Times,
) {
    let (end, place) = (entered.end.clone(), Arc::new(entered));
    let (asking, mut requests) = watch::channel(Requests::default());
    let (sending, answers) = (Arc::<AtomicBool>::default(), requests.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let held = Held::new(place.clone(), &asking);
        let router = router.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(held.clone());
            let response = router.oneshot(request).await?;
            if let Some(count) = ANSWERS.get(usize::from(response.status().as_u16() / 100).wrapping_sub(1)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Infallible>(response.map(|body| Body::new(Answer::new(body, held))))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(times.head);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(times.head).max_concurrent_streams(64).enable_connect_protocol();
    let stream = TokioIo::new(Patient::new(stream, times.taking, sending.clone()));
    let mut serving = pin!(builder.serve_connection_with_upgrades(stream, service).into_owned());
    let mut leaving = false;
    loop {
        tokio::select! {
            // Whatever ends it, there is nobody to tell.
            _ = serving.as_mut() => return,
            () = end.notified() => return,
            () = stalled(&answers, &sending, times) => return,
            () = rested(&mut requests, &sending, times.head) => {
                // Who has never asked is not owed a goodbye, and nobody is owed two.
                if leaving || !requests.borrow().any() {
                    return;
                }
            }
            () = stopped(&mut stopping), if !leaving => {}
        }
        leaving = true;
        serving.as_mut().graceful_shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use futures_util::StreamExt;
    use futures_util::stream::{iter, pending};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpStream;

    #[test]
    fn who_says_nothing_makes_room_and_who_was_answered_stays() {
        let register = Arc::new(Register::default());
        let at = |n: u8| IpAddr::from([10, 0, 0, n]);
        let asked = register.enter(at(1), 3).unwrap();
        asked.proven.store(true, Ordering::Relaxed);
        let silent = [register.enter(at(2), 3).unwrap(), register.enter(at(3), 3).unwrap()];
        let open = || register.0.lock().unwrap().1.values().map(|o| o.from).collect::<Vec<_>>();
        let fourth = register.enter(at(4), 3).unwrap();
        assert_eq!(open(), [at(1), at(3), at(4)], "the oldest that has said nothing went");
        fourth.proven.store(true, Ordering::Relaxed);
        silent[1].proven.store(true, Ordering::Relaxed);
        assert!(register.enter(at(5), 3).is_none(), "everybody was answered, and nobody goes");
        drop((asked, silent));
        assert_eq!(open(), [at(4)]);
    }

    #[test]
    fn one_address_does_not_take_all_the_room_but_this_machine_may() {
        let register = Arc::new(Register::default());
        let (one, own) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([127, 0, 0, 1]));
        let mut held: Vec<Entered> = (0..MOST_OF_ONE).map(|_| register.enter(one, MOST).unwrap()).collect();
        held.iter().for_each(|e| e.proven.store(true, Ordering::Relaxed));
        assert!(register.enter(one, MOST).is_none());
        held.extend((0..MOST_OF_ONE + 1).map(|_| register.enter(own, MOST).unwrap()));
        assert_eq!(register.0.lock().unwrap().1.len(), 2 * MOST_OF_ONE + 1);
    }

    #[test]
    fn a_client_has_one_address_however_many_it_gives_itself() {
        let whose = |address: &str| who(address.parse().unwrap()).to_string();
        assert_eq!(whose("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_ne!(whose("2001:db8:1:3::6"), whose("2001:db8:1:2::6"));
        assert_eq!([whose("::1"), whose("::ffff:10.0.0.1"), whose("10.0.0.1")], ["::1", "10.0.0.1", "10.0.0.1"]);
    }

    #[tokio::test]
    async fn a_connection_that_is_displaced_is_closed_and_others_are_served() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let router = Router::new().route("/", get(|| async { "ok" }));
        let most = 16;
        let serving = tokio::spawn(serve_at_most(most, listener, router, None, stopping));
        let mut silent = Vec::new();
        for _ in 0..most + 8 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut asks = TcpStream::connect(address).await.unwrap();
        asks.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        asks.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
        let mut rest = Vec::new();
        assert_eq!(silent[0].read_to_end(&mut rest).await.unwrap_or(0), 0, "the first one has gone");
        stop.send(true).unwrap();
        timeout(Duration::from_secs(5), serving).await.expect("it ends although connections stand").unwrap();
    }

    /// Bytes of the answer at `/all`, and time that its reader takes for a part of it.
    const ALL: usize = 2 << 20;
    const PART: (usize, Duration) = (64 << 10, Duration::from_millis(50));

    /// The client's end of a connection that is served, and what stops the server.
    fn served(times: Times) -> (DuplexStream, watch::Sender<bool>) {
        let router = Router::new()
            .route("/all", get(|| async { vec![0_u8; ALL] }))
            .route("/short", get(|| async { "ok" }))
            .route("/stays", get(|| async { Body::from_stream(iter([Ok::<_, Infallible>("one")]).chain(pending())) }));
        let (near, far) = duplex(16 << 10);
        let entered = Arc::new(Register::default()).enter(IpAddr::from([127, 0, 0, 1]), 1).unwrap();
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(connection(near, entered, router, (stopping, mpsc::channel(1).0), times));
        (far, stop)
    }

    #[tokio::test]
    async fn a_large_answer_that_is_taken_slowly_is_sent_to_its_end() {
        let (mut far, _stop) = served(Times { head: Duration::from_millis(100), taking: Duration::from_secs(20) });
        far.write_all(b"GET /all HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let (mut answer, mut part) = (Vec::new(), vec![0; PART.0]);
        loop {
            sleep(PART.1).await;
            let mut filled = 0;
            while filled < part.len() {
                match far.read(&mut part[filled..]).await.unwrap() {
                    0 => break,
                    read => filled += read,
                }
            }
            answer.extend_from_slice(&part[..filled]);
            if filled < part.len() {
                break;
            }
        }
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(answer.len() - head, ALL, "it was cut off");
        let head = String::from_utf8_lossy(&answer[..head]).to_lowercase();
        assert!(head.contains(&format!("content-length: {ALL}\r\n")), "{head}");
    }

    /// A request by HTTP/2 of somebody who takes so many bytes of an answer at first.
    fn by_http_2(window: u32, path: &str) -> Vec<u8> {
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // A frame of settings with one of them, the first window of a stream.
        sent.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4]);
        sent.extend(window.to_be_bytes());
        // The only frame of the first stream's request: GET, http, the path, and the authority "a".
        let mut head = vec![0x82, 0x86, 0x44, path.len() as u8];
        head.extend(path.bytes());
        head.extend([0x41, 1, b'a']);
        sent.extend([0, 0, head.len() as u8, 1, 5, 0, 0, 0, 1]);
        sent.extend(head);
        sent
    }

    #[tokio::test]
    async fn who_takes_nothing_by_http_2_is_given_up_and_who_is_told_nothing_is_not() {
        let times = Times { head: Duration::from_millis(100), taking: Duration::from_millis(300) };
        for (window, path, stays) in [(0, "/all", false), (0, "/short", false), (0, "/stays", false), (65_535, "/stays", true)] {
            let (mut far, _stop) = served(times);
            far.write_all(&by_http_2(window, path)).await.unwrap();
            let limit = Duration::from_secs(if stays { 2 } else { 10 });
            let mut said = Vec::new();
            let ended = timeout(limit, far.read_to_end(&mut said)).await.is_ok();
            assert_eq!(ended, !stays, "{path} with a window of {window}");
            assert_eq!(said.windows(3).any(|part| part == b"one"), stays, "{path} with a window of {window}");
        }
    }
}
