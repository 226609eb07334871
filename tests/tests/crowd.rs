//! What a crowd can do that says nothing, or is refused, and what a body costs.

use anyhow::{Result, ensure};
use moslim_tests::{LIMIT, Lab, raw, smoke};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// More connections than are let in at a time.
const CROWD: usize = 700;
/// Held by a crowd: two of them in this process are more files than many systems let it open.
static CROWDS: Mutex<()> = Mutex::const_new(());

/// A request of somebody who is known.
fn health(lab: &Lab) -> String {
    format!(
        "GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        lab.port(),
        lab.token()
    )
}

#[tokio::test]
async fn a_crowd_that_says_nothing_keeps_nobody_out_and_is_gone_soon() -> Result<()> {
    let _alone = CROWDS.lock().await;
    let lab = Lab::start().await;
    let began = Instant::now();
    // Some say half of something.
    let mut crowd = Vec::new();
    for n in 0..CROWD {
        let mut stream = TcpStream::connect(("127.0.0.1", lab.port()))?;
        if n % 3 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: loc")?;
        }
        crowd.push(stream);
    }
    let answer = raw(lab.port(), &health(&lab))?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // The last ones are told to go as well, within the time for a head.
    for stream in crowd.iter_mut().rev().take(6) {
        stream.set_read_timeout(Some(LIMIT))?;
        let mut rest = Vec::new();
        // A connection that was reset is gone, too.
        let _ = stream.read_to_end(&mut rest);
    }
    ensure!(began.elapsed() < Duration::from_secs(40), "they were held for {:?}", began.elapsed());
    Ok(())
}

/// The status of the next answer over a connection that stays open.
fn status(stream: &mut TcpStream) -> Result<u16> {
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| anyhow::anyhow!("no status in \"{answer}\""))
}

/// Whether the server has closed a connection.
fn closed(stream: &mut TcpStream) -> Result<bool> {
    stream.set_nonblocking(true)?;
    // A connection that was reset is closed, too.
    Ok(!stream.read_to_end(&mut Vec::new()).is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
}

/// Whoever has no token is refused, whatever is wrong with what it sends, and makes room as one that says nothing does.
#[tokio::test]
async fn a_crowd_that_is_refused_keeps_nobody_out() -> Result<()> {
    let _alone = CROWDS.lock().await;
    let lab = Lab::start().await;
    let (host, origin) = (format!("127.0.0.1:{}", lab.port()), lab.origin());
    let connect = || -> Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", lab.port()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(stream)
    };
    let known = format!("GET /api/v1/health HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\n\r\n", lab.token());
    let mut stays = connect()?;
    stays.write_all(known.as_bytes())?;
    ensure!(status(&mut stays)? == 200, "who is known is not served");
    let wrongs = [
        format!(
            "POST /api/v1/validate HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}"
        ),
        format!("GET /api/v1/nothing HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("PATCH /api/v1/runs HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n"),
    ];
    let mut crowd: Vec<TcpStream> = Vec::new();
    for n in 0..CROWD {
        // Without that it would be no crowd, and nobody would have to make room.
        if n == CROWD - 1 {
            ensure!(closed(&mut crowd[0])?, "the first of the crowd stands, and so there is room for all");
        }
        let mut stream = connect()?;
        stream.write_all(wrongs[n % wrongs.len()].as_bytes())?;
        ensure!(status(&mut stream)? == 401, "number {n} of the crowd");
        crowd.push(stream);
        // Often enough that it is never at rest for long, however slowly they come.
        if n % 100 == 99 {
            stays.write_all(known.as_bytes())?;
            ensure!(status(&mut stays)? == 200, "who is known was displaced by number {n}");
        }
    }
    let answer = raw(lab.port(), &health(&lab))?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stays.write_all(known.as_bytes())?;
    ensure!(status(&mut stays)? == 200, "who is known was displaced");
    Ok(())
}

#[tokio::test]
async fn a_body_costs_no_more_than_its_size() -> Result<()> {
    let lab = Lab::start().await;
    let with = |field: &str, value: Value| {
        let mut config = serde_json::to_value(smoke()).expect("JSON");
        *config.pointer_mut(field).expect("a field") = value;
        json!({ "config": config })
    };
    let names: Vec<String> = (0..60_000).map(|n| format!("o{n}")).collect();
    let weights: Vec<Vec<f64>> = vec![vec![-1.0]; 60_000];
    for (field, value) in [("/targets/objectives", json!(names)), ("/method/weights", json!(weights))] {
        let body = with(field, value);
        let began = Instant::now();
        let response = lab.request(Method::POST, "/api/v1/validate").header("origin", lab.origin()).json(&body).send().await?;
        let (status, text) = (response.status().as_u16(), response.text().await?);
        ensure!(text.len() < 64 << 10, "{field}: {status} with {} bytes", text.len());
        // Twice as long as a quarter of it would allow a cost that grows with the square.
        ensure!(began.elapsed() < Duration::from_secs(5), "{field}: {:?}", began.elapsed());
        let started = lab.post("/api/v1/runs", &body).await;
        ensure!(started.status == 422 || started.status == 400, "{field}: {}", started.status);
        ensure!(started.body.to_string().len() < 64 << 10, "{field}");
    }
    Ok(())
}
