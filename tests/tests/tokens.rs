//! What a token opens beyond a request: the cookie that a browser is given for it, and what lasts when it is taken away.

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use moslim_tests::{LIMIT, Lab, Socket, heard, invite, long_run, signal, text};
use reqwest::{Method, Response};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// The cookie that a browser is given which comes with a token, by its value.
async fn cookie(lab: &Lab, token: &str) -> Result<String> {
    let answer = lab.stranger(Method::GET, &format!("/?token={token}")).send().await?;
    ensure!(answer.status().as_u16() == 303, "{}", answer.status());
    let set = answer.headers()["set-cookie"].to_str()?;
    let value = set.split(';').next().and_then(|pair| pair.split_once('='));
    Ok(value.with_context(|| format!("no cookie in {set}"))?.1.to_string())
}

/// How a browser with this cookie is answered.
async fn by_cookie(lab: &Lab, value: &str) -> Result<u16> {
    let cookie = format!("moslim-lab-{}={value}", lab.port());
    Ok(lab.stranger(Method::GET, "/api/v1/runs").header("cookie", cookie).send().await?.status().as_u16())
}

async fn by_token(lab: &Lab, token: &str) -> Result<u16> {
    Ok(lab.stranger(Method::GET, "/api/v1/runs").bearer_auth(token).send().await?.status().as_u16())
}

/// A group's file is read by the group, and kept where others may read it.
#[tokio::test]
async fn who_reads_the_groups_file_cannot_make_a_cookie_of_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("group.toml");
    let (token, lines) = invite("Ada", "admin")?;
    fs::write(&file, &lines)?;
    let mut lab = Lab::start_with(&["--tokens", text(&file)]).await;
    let digest: [u8; 32] = Sha256::digest(&token).into();
    let written = hex(digest);
    ensure!(lines.contains(&written), "{lines}");
    let with = |parts: &[&[u8]]| hex(Sha256::digest(parts.concat()));
    for made in [
        written.clone(),
        with(&[&digest]),
        with(&[b"moslim-lab cookie", &digest]),
        with(&[b"moslim-lab cookie", written.as_bytes()]),
        with(&[&digest, &digest]),
        with(&[&Sha256::digest(b""), &digest]),
        token.clone(),
        String::new(),
    ] {
        ensure!(by_cookie(&lab, &made).await? == 401, "{made} opens");
    }
    let own = cookie(&lab, &token).await?;
    ensure!(by_cookie(&lab, &own).await? == 200, "a browser that has come with the token is not let in");
    // It is good for as long as the server keeps what it is made with, and for no other server.
    lab.restart().await;
    ensure!(by_cookie(&lab, &own).await? == 200, "the next server of the folder does not know the cookie");
    let other = Lab::start_with(&["--tokens", text(&file)]).await;
    ensure!(by_cookie(&other, &own).await? == 401, "a cookie of another server opens");
    fs::remove_file(lab.data().join("cookie-key"))?;
    signal(lab.pid(), "HUP");
    let began = Instant::now();
    while by_cookie(&lab, &own).await? != 401 {
        ensure!(began.elapsed() < LIMIT, "a cookie is still known whose key is gone");
    }
    ensure!(by_token(&lab, &token).await? == 200, "the token has gone with the cookie");
    Ok(())
}

/// Opens a socket that follows the list of runs, and hears of it.
async fn follows(lab: &Lab, token: &str) -> Result<Socket> {
    let mut socket = lab.socket_of(token, Some(&lab.origin())).await?;
    subscribe(&mut socket, 1).await?;
    Ok(socket)
}

/// Subscribes to the list of runs, and hears of it: the socket is served.
async fn subscribe(socket: &mut Socket, channel: u32) -> Result<()> {
    socket.send(Message::text(json!({ "subscribe": { "channel": channel, "hello": { "list": true } } }).to_string())).await?;
    let number = format!("\"channel\":{channel},");
    while !heard(socket).await?.contains(&number) {}
    Ok(())
}

/// With which code the server closes a socket.
async fn closed(socket: &mut Socket) -> Result<CloseCode> {
    loop {
        match timeout(LIMIT, socket.next()).await.context("the socket stays open")?.context("it is closed without a word")?? {
            Message::Close(Some(frame)) => return Ok(frame.code),
            Message::Close(None) => bail!("the server does not say why"),
            _ => {}
        }
    }
}

/// What is left of a stream, to its end.
async fn rest(mut stream: Response) -> Result<String> {
    let mut all = Vec::new();
    while let Some(chunk) = timeout(LIMIT, stream.chunk()).await.context("the stream goes on")?? {
        all.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_taken_away_takes_its_sockets_and_streams_along() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("group.toml");
    let [(vera, vera_lines), (rob, rob_lines), (_, veras_next)] =
        [invite("Vera", "view")?, invite("Rob", "run")?, invite("Vera", "view")?];
    fs::write(&file, format!("{vera_lines}\n{rob_lines}"))?;
    let lab = Lab::start_with(&["--tokens", text(&file)]).await;
    // One that does not end meanwhile.
    let run = lab.start_run(&long_run(5_000)).await;
    let stream = async |token: &str| -> Result<Response> {
        let mut stream = lab.stranger(Method::GET, &format!("/api/v1/runs/{run}/stream")).bearer_auth(token).send().await?;
        ensure!(stream.status().as_u16() == 200, "{}", stream.status());
        timeout(LIMIT, stream.chunk()).await??.context("the stream says nothing")?;
        Ok(stream)
    };
    let [mut viewer, mut runner, mut own] =
        [follows(&lab, &vera).await?, follows(&lab, &rob).await?, follows(&lab, lab.token()).await?];
    let (watched, taken) = (stream(&rob).await?, stream(&vera).await?);

    // Vera's token is replaced: it is the old one's socket that goes, though her name stays.
    fs::write(&file, format!("{veras_next}\n{rob_lines}"))?;
    signal(lab.pid(), "HUP");
    ensure!(closed(&mut viewer).await? == CloseCode::Policy);
    let said = rest(taken).await?;
    ensure!(!said.contains("event: end"), "a run that goes on is said to have ended");
    ensure!(by_token(&lab, &vera).await? == 401);
    // Who is still known stays, with a lesser role, too, as long as it is enough.
    fs::write(&file, format!("{veras_next}\n{}", rob_lines.replace("\"run\"", "\"view\"")))?;
    signal(lab.pid(), "HUP");
    let began = Instant::now();
    let stop = || lab.stranger(Method::POST, "/api/v1/runs/none/cancel").header("origin", lab.origin()).bearer_auth(&rob);
    while lab.send(stop()).await.status != 403 {
        ensure!(began.elapsed() < LIMIT, "Rob has his role still");
    }
    for socket in [&mut runner, &mut own] {
        subscribe(socket, 2).await?;
    }

    // Rob goes altogether, and the server's own token with him.
    fs::write(&file, veras_next)?;
    fs::write(lab.data().join("token"), "f".repeat(32))?;
    signal(lab.pid(), "HUP");
    for socket in [&mut runner, &mut own] {
        ensure!(closed(socket).await? == CloseCode::Policy);
    }
    let said = rest(watched).await?;
    ensure!(!said.contains("event: end"), "a run that goes on is said to have ended");
    ensure!((by_token(&lab, lab.token()).await?, by_token(&lab, &"f".repeat(32)).await?) == (401, 200));
    Ok(())
}

/// Files that cannot be used leave everybody as they were.
#[tokio::test]
async fn a_token_that_cannot_be_read_anew_stays_as_it_was() -> Result<()> {
    let lab = Lab::start().await;
    let mut socket = follows(&lab, lab.token()).await?;
    fs::write(lab.data().join("token"), "short")?;
    signal(lab.pid(), "HUP");
    let began = Instant::now();
    while !lab.stderr().contains("the tokens stay as they were") {
        ensure!(began.elapsed() < LIMIT, "nothing is said");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ensure!(by_token(&lab, lab.token()).await? == 200);
    subscribe(&mut socket, 2).await
}
