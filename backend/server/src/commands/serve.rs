//! `moslim-lab serve`: starts and stops the server.

use crate::access::Access;
use crate::access::keys::{self, Keys};
use crate::api;
use crate::cli::{ServeArgs, profile, ray_profile};
use crate::clock::Clock;
use crate::commands::print_line;
use crate::failure::Failure;
use crate::folder::{DataFolder, TRASH_DAYS, write_file};
use crate::follow::Follower;
use crate::guard::{Hosts, parse_host};
use crate::index::Index;
use crate::launch::process::lock_file;
use crate::launch::{Local, Ray, Slurm};
use crate::leftovers;
use crate::legacy::export_database;
use crate::listen::{self, Tls};
use crate::log::say;
use crate::origin::Origin;
use crate::pulse;
use crate::signals::{Signals, Wish};
use crate::starts;
use crate::state::{App, Shared};
use anyhow::Context;
use moslim_shared::study::Host;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Time for requests in progress to end when the server stops.
const GOODBYE_TIME: Duration = Duration::from_secs(5);

/// Serves until it is told to stop.
///
/// # Errors
/// Bad input: an address that is not allowed, a port that is taken, a folder that cannot be written or is in use.
pub fn run(args: ServeArgs) -> Result<(), Failure> {
    let address = SocketAddr::new(read_host(&args.host)?, args.port);
    check_names(&args.names)?;
    let tls = match (&args.certificate, &args.key) {
        (Some(certificate), Some(key)) => {
            Some(Arc::new(Tls::read(certificate, key).map_err(|e| Failure::field("certificate", format!("{e:#}")))?))
        }
        _ => None,
    };
    if !address.ip().is_loopback() {
        if args.no_token {
            let message =
                format!("{address} can be reached from other machines; without a token, whoever does may do everything");
            return Err(Failure::field("no-token", message));
        }
        if tls.is_none() {
            tracing::warn!(
                "other machines can reach this server, and what is sent can be read on the way, tokens included; \
                 add --certificate and --key, or put a proxy with TLS before it"
            );
        }
    }
    let clusters = clusters(&args)?;
    let data = DataFolder::resolve(args.folder.data.clone());
    data.create().map_err(Failure::BadInput)?;
    warn_of_readers(data.root());
    // Held until the process ends, however it ends: the system releases it.
    let _lock = lock(&data)?;
    tokio::runtime::Runtime::new()?.block_on(serve(address, (data, clusters), &args, tls))
}

/// The clusters that studies may be sent to, with their profiles, which can be used; each answers.
fn clusters(args: &ServeArgs) -> Result<Vec<(Host, PathBuf)>, Failure> {
    let mut out = Vec::new();
    let absolute = |field: &str, file: &Path| {
        std::path::absolute(file).map_err(|e| Failure::field(field, format!("{}: {e}", file.display())))
    };
    if let Some(file) = &args.cluster {
        Slurm::new(profile(file)?).map_err(|e| Failure::field("cluster", format!("{e:#}")))?;
        out.push((Host::Slurm, absolute("cluster", file)?));
    }
    if let Some(file) = &args.ray {
        Ray::new(ray_profile(file)?).map_err(|e| Failure::field("ray", format!("{e:#}")))?;
        out.push((Host::Ray, absolute("ray", file)?));
    }
    Ok(out)
}

/// The address to listen on.
fn read_host(host: &str) -> Result<IpAddr, Failure> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => bare.parse().map_err(|_| Failure::field("host", format!("\"{host}\" is no IP address and not localhost"))),
    }
}

/// Makes sure that names are no more than names: one with a port would be no host of any request, for a name is good at any.
fn check_names(names: &[String]) -> Result<(), Failure> {
    let plain = |name: &&String| parse_host(name).is_ok_and(|host| host.as_str() == host.host());
    match names.iter().find(|name| !plain(name)) {
        None => Ok(()),
        Some(name) => {
            let message = format!(
                "\"{name}\" is no host; a name has no port, and is good at any. For the address that is printed name --url \
                 http://localhost:8080, or whatever people use"
            );
            Err(Failure::field("name", message))
        }
    }
}

/// The names that requests may use beside those that the server has by itself.
fn given(args: &ServeArgs) -> Vec<String> {
    args.names.iter().cloned().chain(args.url.as_ref().map(|url| url.host().to_string())).collect()
}

/// Whether browsers come by TLS, to this server or to the proxy before it.
fn by_tls(tls: bool, url: Option<&Origin>) -> bool {
    tls || url.is_some_and(Origin::is_secure)
}

/// Says so where other users of this machine can look into the folder, those of its group included.
fn warn_of_readers(root: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::metadata(root).is_ok_and(|m| m.permissions().mode() & 0o077 != 0);
        if open {
            tracing::warn!("other users of this machine can read {root}; close it with: chmod 700 {root}", root = root.display());
        }
    }
}

/// The server's own token, and all that it knows: that one, and those of a group.
fn read_keys(data: &DataFolder, group: Option<&Path>) -> Result<(String, Keys), Failure> {
    let wrong = |e: anyhow::Error| Failure::field("data", format!("{e:#}"));
    let (own, secret) = (keys::kept(&data.token()).map_err(wrong)?, keys::secret(&data.cookie_key()).map_err(wrong)?);
    let group = group.map(keys::group).transpose().map_err(|e| Failure::field("tokens", format!("{e:#}")))?;
    let keys = Keys::new(&own, group.unwrap_or_default(), &secret);
    Ok((own, keys))
}

/// Makes sure that this is the only server of the folder: two would both think that they own its runs.
fn lock(data: &DataFolder) -> Result<File, Failure> {
    let path = data.lock();
    match lock_file(&path, Duration::ZERO) {
        Ok(Some(file)) => Ok(file),
        Ok(None) => {
            let root = data.root().display();
            Err(Failure::field("data", format!("another server uses the folder {root}; stop it, or name another with --data")))
        }
        Err(error) => Err(Failure::field("data", format!("{}: {error}", path.display()))),
    }
}

async fn serve(
    address: SocketAddr,
    (data, clusters): (DataFolder, Vec<(Host, PathBuf)>),
    args: &ServeArgs,
    tls: Option<Arc<Tls>>,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let listener = TcpListener::bind(address).await.map_err(|e| {
        let hint = "stop what uses it, or name another with --port (0 takes a free one)";
        Failure::field("port", format!("{address} cannot be listened on ({e}); {hint}"))
    })?;
    let bound = listener.local_addr()?;
    let (token, keys) = read_keys(&data, args.tokens.as_deref())?;
    let secure = by_tls(tls.is_some(), args.url.as_ref());
    let access = Arc::new(Access::new((!args.no_token).then_some(keys), bound.port(), secure));
    export_database(&data).await?;
    let index = Index::open(&data.index()).await.context("the index in the data folder")?;
    let launcher = Arc::new(Local::new()?.with_memory(args.run_memory));
    let follower = {
        let (data, launcher, known) = (data.clone(), launcher.clone(), index.all().await.unwrap_or_default());
        let opened = tokio::task::spawn_blocking(move || Follower::open(data, launcher, known)).await;
        opened.map_err(anyhow::Error::from)??
    };
    let root = data.root().to_path_buf();
    sweep(root.clone());
    let following = tokio::spawn(follower.clone().follow());
    let telling = tokio::spawn(follower.clone().tell());
    let keeping = tokio::spawn(follower.clone().keep(index.clone()));
    let (stop, stopping) = watch::channel(false);
    let hosts = Hosts::of(bound, &given(args), tls.is_some());
    let (folder, opening) = (data.clone(), data.opening());
    let app = App::new(
        follower.clone(),
        (launcher, args.slots.clone().unwrap_or_default()),
        (data, clusters, args.quota.map(|gib| gib << 30)),
        (hosts, access.clone()),
        stopping.clone(),
    );

    if let Err(error) = app.studies.take_up().await {
        tracing::warn!("what is on a cluster cannot be followed: {error}");
    }
    let turns = tokio::spawn(take_turns(app.clone()));
    let retiring = tokio::spawn(retire(app.clone(), args.keep_days));
    let tidying = app.clone();
    let tidying = tokio::spawn(async move { tidying.inference.tidy().await });
    let router = api::router(app);
    let server = tokio::spawn(listen::serve(listener, router, tls.clone(), stopping));

    let names = (args.url.as_ref(), args.names.first().map(String::as_str));
    let url = page(bound, names, tls.is_some(), (!args.no_token).then_some(token.as_str()));
    print_line(&format!("MOSLIM Lab is ready at {url}"))?;
    if args.url.is_some() {
        // Which the address does not tell.
        say(&format!("It listens on {bound}"));
    }
    // Of a server that was killed before it could take it away.
    let _ = std::fs::remove_file(&opening);
    if args.open {
        open_browser(&opening, &url);
    }
    while signals.next().await == Wish::Reload {
        reload(&access, tls.as_deref(), &folder, args);
    }
    let _ = std::fs::remove_file(&opening);
    tracing::info!("stopping; once more ends at once");
    tokio::spawn(async move {
        signals.end().await;
        std::process::exit(i32::from(crate::failure::RUN_FAILED));
    });
    let _ = stop.send(true);
    let _ = timeout(GOODBYE_TIME, server).await;
    following.abort();
    telling.abort();
    keeping.abort();
    tidying.abort();
    turns.abort();
    retiring.abort();
    // What it was writing is given up, and is read from the runs' folders.
    let _ = keeping.await;
    let changed = follower.changed();
    if !changed.is_empty() && !timeout(GOODBYE_TIME, index.write(&changed)).await.is_ok_and(|written| written.is_ok()) {
        tracing::warn!("the index does not have what has changed last; the next server reads it from the runs' folders");
    }
    index.close().await;
    for (run, _) in follower.training() {
        say(&format!("Run {run} goes on training; the next server shows it, or stop it with: moslim-lab stop --run {run}"));
    }
    Ok(())
}

/// Removes what killed processes have left in the data folder, beside everything else that is done.
fn sweep(root: PathBuf) {
    tokio::task::spawn_blocking(move || match leftovers::sweep(&root) {
        0 => {}
        gone => tracing::info!("{gone} files are gone that processes were writing when they were killed"),
    });
}

/// Time between two looks at whose turn it is.
const TURN_EVERY: Duration = Duration::from_millis(500);
/// Time after a run that could not be started.
const TURN_AGAIN: Duration = Duration::from_secs(10);

/// Starts whose turn it is, for ever. A study that trains here has the whole machine.
async fn take_turns(app: Shared) {
    loop {
        sleep(TURN_EVERY).await;
        pulse::TURNS.beat();
        if app.follower.queued().is_empty() || app.studies.check_free().await.is_err() {
            continue;
        }
        if let Err(error) = app.supervisor.take_turn().await {
            tracing::error!("a run that waited cannot be started: {error:#}");
            sleep(TURN_AGAIN).await;
        }
    }
}

/// Time between two looks at what nobody wants any more.
const RETIRE_EVERY: Duration = Duration::from_secs(3600);

/// For ever: puts runs into the trash that were made `days` ago and have ended, of which no person has said anything; and empties the trash,
/// where the clock that tells ages has gone steadily since the last look: what a wrong clock puts into the trash comes back, and what it takes
/// out does not.
async fn retire(app: Shared, days: Option<u64>) {
    let age = days.map(|days| Duration::from_secs(days * 24 * 3600));
    let mut clock = Clock::new();
    loop {
        let kept = app.studies.list().await.unwrap_or_default();
        let in_study = |id: &str| kept.iter().any(|s| s.runs.iter().any(|r| r.run == id));
        for id in age.map_or(Vec::new(), |age| starts::outdated(app.follower.ended().into_iter(), age)) {
            if in_study(id.as_str()) {
                continue;
            }
            match app.supervisor.delete(&id).await {
                Ok(()) => tracing::info!("run {id} is {} days old, and is in the trash now", days.unwrap_or_default()),
                Err(error) => tracing::warn!("run {id} is to be kept no longer, and cannot be moved: {error:#}"),
            }
        }
        if clock.steady() >= RETIRE_EVERY {
            empty_trash(app.data.clone()).await;
        }
        sleep(RETIRE_EVERY).await;
    }
}

/// Removes for good what has been in the trash for long.
async fn empty_trash(data: DataFolder) {
    let gone = move || data.empty_trash(Duration::from_secs(TRASH_DAYS * 24 * 3600));
    match tokio::task::spawn_blocking(gone).await {
        Ok(Ok(0)) | Err(_) => {}
        Ok(Ok(gone)) => tracing::info!("{gone} runs that were deleted {TRASH_DAYS} days ago are gone for good"),
        Ok(Err(error)) => tracing::warn!("the trash cannot be emptied: {error:#}"),
    }
}

/// Reads tokens and certificate anew. What cannot be read stays as it was, and that is said.
fn reload(access: &Access, tls: Option<&Tls>, data: &DataFolder, args: &ServeArgs) {
    if !args.no_token {
        match read_keys(data, args.tokens.as_deref()) {
            Ok((_, keys)) => access.replace(keys),
            Err(error) => tracing::error!("the tokens stay as they were: {error}"),
        }
    }
    if let Some(Err(error)) = tls.map(Tls::reload) {
        tracing::error!("the certificate stays as it was: {error:#}");
    }
}

/// Where the page is, with the token that opens it: where people say that it is, else at the port of this server. An address that means all
/// of them is none to go to.
fn page(bound: SocketAddr, (url, name): (Option<&Origin>, Option<&str>), tls: bool, token: Option<&str>) -> String {
    let host = match (name, bound.ip()) {
        (Some(name), _) => format!("{name}:{}", bound.port()),
        (None, ip) if ip.is_unspecified() => format!("127.0.0.1:{}", bound.port()),
        (None, _) => bound.to_string(),
    };
    let scheme = if tls { "https" } else { "http" };
    let origin = url.map_or(format!("{scheme}://{host}"), Origin::to_string);
    token.map_or(origin.clone(), |token| format!("{origin}/?token={token}"))
}

/// Time for a browser to start and to read the file that it is given.
const OPENING: Duration = Duration::from_secs(60);

/// Opens the page where there is a screen. It is a convenience: that it fails is no failure. Everybody may read what a program is called
/// with, so the browser is given a file that sends it to the address, token included, and is there for no longer than that takes.
fn open_browser(file: &Path, url: &str) {
    let screen = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if screen("DISPLAY") || screen("WAYLAND_DISPLAY") {
        "xdg-open"
    } else {
        return;
    };
    let page = format!("<!doctype html><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"0;url={url}\">");
    if let Err(error) = write_file(file, page.as_bytes()) {
        return tracing::warn!("{error:#}; open the address that was printed yourself");
    }
    let mut command = tokio::process::Command::new(program);
    command.arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(mut child) => {
            tokio::spawn(async move { child.wait().await });
        }
        Err(error) => tracing::warn!("{program} could not be started ({error}); open the address that was printed yourself"),
    }
    let file = file.to_path_buf();
    tokio::spawn(async move {
        sleep(OPENING).await;
        let _ = std::fs::remove_file(file);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (host, address) in [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("[::1]", "::1"), ("0.0.0.0", "0.0.0.0")]
        {
            assert_eq!(read_host(host).unwrap().to_string(), address);
        }
        for host in ["lab.example", "", "127.0.0.1:80"] {
            assert_eq!(read_host(host).unwrap_err().code(), 2, "{host}");
        }
    }

    #[test]
    fn a_folder_has_one_server() {
        let folder = std::env::temp_dir().join(format!("moslim-lock-{}", std::process::id()));
        let data = DataFolder::resolve(Some(folder.clone()));
        data.create().unwrap();
        let held = lock(&data).unwrap();
        let failure = lock(&data).unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().contains("another server"), "{failure}");
        drop(held);
        assert!(lock(&data).is_ok());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_page_can_be_gone_to() {
        let page = |bound: &str, name, tls, token| page(bound.parse().unwrap(), (None, name), tls, token);
        assert_eq!(page("127.0.0.1:80", None, false, None), "http://127.0.0.1:80");
        assert_eq!(page("[::1]:7", None, false, Some("T")), "http://[::1]:7/?token=T");
        assert_eq!(page("0.0.0.0:7", None, true, Some("T")), "https://127.0.0.1:7/?token=T");
        assert_eq!(page("0.0.0.0:7", Some("lab.example"), true, None), "https://lab.example:7");
    }

    #[test]
    fn where_people_reach_the_server_is_printed_and_says_whether_they_come_by_tls() {
        let origin = |text: &str| text.parse::<Origin>().unwrap();
        let (proxy, container) = (origin("https://lab.example.org"), origin("http://localhost:8080"));
        let bound: SocketAddr = "127.0.0.1:7878".parse().unwrap();
        let printed = |url, name, tls, token| page(bound, (Some(url), name), tls, token);
        assert_eq!(printed(&proxy, None, false, Some("T")), "https://lab.example.org/?token=T");
        assert_eq!(printed(&proxy, Some("lab.example"), false, None), "https://lab.example.org");
        assert_eq!(printed(&container, None, true, Some("T")), "http://localhost:8080/?token=T");
        for (tls, url, secure) in [
            (false, None, false),
            (true, None, true),
            (false, Some(&proxy), true),
            (false, Some(&container), false),
            (true, Some(&container), true),
        ] {
            assert_eq!(by_tls(tls, url), secure, "{tls} {url:?}");
        }
    }

    #[test]
    fn a_name_is_a_host_without_a_port() {
        for name in ["lab.example.org", "localhost", "[::1]", "192.168.1.5"] {
            assert!(check_names(&[name.into()]).is_ok(), "{name}");
        }
        for name in ["lab.example.org:8080", "https://lab.example.org", "lab.example.org/", "", "a b", "ada@lab"] {
            let failure = check_names(&["localhost".into(), name.into()]).unwrap_err();
            assert_eq!(failure.code(), 2);
            assert!(failure.to_string().starts_with("name: ") && failure.to_string().contains("--url"), "{failure}");
        }
    }
}
