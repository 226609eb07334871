//! `moslim-lab serve`: starts and stops the server.

use crate::api;
use crate::cli::ServeArgs;
use crate::commands::print_line;
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::follow::Follower;
use crate::guard::Hosts;
use crate::index::Index;
use crate::launch::Local;
use crate::launch::process::lock_file;
use crate::legacy::export_database;
use crate::signals::Signals;
use crate::state::App;
use anyhow::Context;
use axum::serve::ListenerExt;
use std::fs::File;
use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

/// Time for requests in progress to end when the server stops.
const GOODBYE_TIME: Duration = Duration::from_secs(5);

/// Serves until it is told to stop.
///
/// # Errors
/// Bad input: an address that is not allowed, a port that is taken, a folder that cannot be written or is in use.
pub fn run(args: ServeArgs) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let address = SocketAddr::new(read_host(&args.host, args.allow_remote)?, args.port);
    let data = DataFolder::resolve(args.folder.data.clone());
    data.create().map_err(Failure::BadInput)?;
    // Held until the process ends, however it ends: the system releases it.
    let _lock = lock(&data)?;
    tokio::runtime::Runtime::new()?.block_on(serve(address, data, args.open))
}

/// The address to listen on.
fn read_host(host: &str, allow_remote: bool) -> Result<IpAddr, Failure> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = match bare {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => bare.parse().map_err(|_| Failure::field("host", format!("\"{host}\" is no IP address and not localhost")))?,
    };
    if address.is_loopback() {
        return Ok(address);
    }
    if !allow_remote {
        let message = format!(
            "{address} can be reached from other machines, and there is no password; use 127.0.0.1, or add --allow-remote if \
             everybody who can reach it may use it"
        );
        return Err(Failure::field("host", message));
    }
    tracing::warn!("other machines can reach this server; whoever does can start and stop runs");
    Ok(address)
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

async fn serve(address: SocketAddr, data: DataFolder, open: bool) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let listener = TcpListener::bind(address).await.map_err(|e| {
        let hint = "stop what uses it, or name another with --port (0 takes a free one)";
        Failure::field("port", format!("{address} cannot be listened on ({e}); {hint}"))
    })?;
    let bound = listener.local_addr()?;
    export_database(&data).await?;
    let index = Index::open(&data.index()).await.context("the index in the data folder")?;
    let launcher = Arc::new(Local::new()?);
    let follower = {
        let (data, launcher, known) = (data.clone(), launcher.clone(), index.all().await.unwrap_or_default());
        let opened = tokio::task::spawn_blocking(move || Follower::open(data, launcher, known)).await;
        opened.map_err(anyhow::Error::from)??
    };
    let following = tokio::spawn(follower.clone().follow(index.clone()));
    let (stop, stopping) = watch::channel(false);
    let app = App::new((follower.clone(), index.clone()), launcher, data, Hosts::of(bound), stopping.clone());

    // Small frames go out at once instead of waiting to be joined.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let mut told = stopping;
    let goodbye = async move {
        let _ = told.wait_for(|stop| *stop).await;
    };
    let tidying = app.clone();
    let tidying = tokio::spawn(async move { tidying.inference.tidy().await });
    let router = api::router(app);
    let server = tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(goodbye).await });

    let url = page(bound);
    print_line(&format!("MOSLIM Lab is ready at {url}"))?;
    if open {
        open_browser(&url);
    }
    signals.next().await;
    tracing::info!("stopping; once more ends at once");
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(i32::from(crate::failure::RUN_FAILED));
    });
    let _ = stop.send(true);
    let _ = timeout(GOODBYE_TIME, server).await;
    following.abort();
    tidying.abort();
    index.close().await;
    if let Some(run) = follower.training() {
        eprintln!("Run {} goes on training; the next server shows it, or stop it with: moslim-lab stop --run {}", run.id, run.id);
    }
    Ok(())
}

/// Where the page is. An address that means all of them is none to go to.
fn page(bound: SocketAddr) -> String {
    match bound.ip() {
        ip if ip.is_unspecified() => format!("http://127.0.0.1:{}", bound.port()),
        _ => format!("http://{bound}"),
    }
}

/// Opens the page where there is a screen. It is a convenience: that it fails is no failure.
fn open_browser(url: &str) {
    let screen = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if screen("DISPLAY") || screen("WAYLAND_DISPLAY") {
        "xdg-open"
    } else {
        return;
    };
    let mut command = tokio::process::Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(mut child) => {
            tokio::spawn(async move { child.wait().await });
        }
        Err(error) => tracing::warn!("{program} could not be started ({error}); open {url} yourself"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_free() {
        for host in ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.9"] {
            assert!(read_host(host, false).is_ok(), "{host}");
        }
        for host in ["0.0.0.0", "192.168.1.5", "::", "lab.example", ""] {
            assert_eq!(read_host(host, false).unwrap_err().code(), 2, "{host}");
        }
        assert!(read_host("0.0.0.0", true).is_ok());
        assert!(read_host("lab.example", true).is_err());
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
        assert_eq!(page("127.0.0.1:80".parse().unwrap()), "http://127.0.0.1:80");
        assert_eq!(page("[::1]:7".parse().unwrap()), "http://[::1]:7");
        assert_eq!(page("0.0.0.0:7".parse().unwrap()), "http://127.0.0.1:7");
    }
}
