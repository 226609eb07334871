//! The journal for other software: server-sent events that are left and taken up again, and figures as columns.

use anyhow::{Context, Result, ensure};
use moslim_tests::{LIMIT, Lab, long_run, policy_steps, scattered, smoke, soak};
use reqwest::{Method, Response};
use serde_json::{Value, json};

/// A client of server-sent events.
struct Client {
    response: Response,
    text: String,
}

impl Client {
    async fn open(lab: &Lab, id: &str, last: Option<u64>) -> Result<Self> {
        let request = lab.request(Method::GET, &format!("/api/v1/runs/{id}/stream"));
        let request = match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        };
        let response = request.send().await?;
        ensure!(response.status() == 200, "{}", response.status());
        ensure!(response.headers()["content-type"] == "text/event-stream", "{:?}", response.headers());
        Ok(Self { response, text: String::new() })
    }

    /// The next event's number and itself; `None` when the run has ended.
    async fn next(&mut self) -> Result<Option<(u64, Value)>> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_string(), rest.to_string());
                self.text = rest;
                let field = |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
                match (field("event:"), field("id:"), field("data:")) {
                    (Some("end"), ..) => return Ok(None),
                    (_, Some(id), Some(data)) => return Ok(Some((id.parse()?, serde_json::from_str(data)?))),
                    // A comment that keeps the connection.
                    _ => continue,
                }
            }
            let chunk = tokio::time::timeout(LIMIT, self.response.chunk()).await??.context("the stream was cut off")?;
            self.text += std::str::from_utf8(&chunk)?;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_left_and_taken_up_again_misses_nothing() -> Result<()> {
    let lab = Lab::start().await;
    let id = lab.start_run(&long_run(60 * soak() as usize)).await;
    let (mut heard, mut last) = (Vec::new(), None);
    let more = (0..20 * (soak() - 1)).map(|n| 1 + scattered(n) as usize % 5);
    for part in [7, 40].into_iter().chain(more).chain([usize::MAX]) {
        let mut client = Client::open(&lab, &id, last).await?;
        let mut ended = false;
        for _ in 0..part {
            let Some((seq, event)) = client.next().await? else {
                ended = true;
                break;
            };
            ensure!(event["seq"] == seq, "{event}");
            heard.push(event);
            last = Some(seq);
        }
        ensure!(ended == (part == usize::MAX), "the stream ended early, or not at all");
    }
    lab.wait_for_finish(&id).await;
    let all = serde_json::to_value(lab.events(&id).await)?;
    ensure!(json!(heard) == all, "{} events heard, {} written", heard.len(), all.as_array().map_or(0, Vec::len));
    // One who has everything already is told that it has ended.
    ensure!(Client::open(&lab, &id, last).await?.next().await?.is_none());
    for (path, status) in [("/api/v1/runs/none/stream", 404), (&format!("/api/v1/runs/{id}/stream?before=3") as &str, 400)] {
        ensure!(lab.get(path).await.status == status, "{path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_had_as_columns() -> Result<()> {
    let lab = Lab::start().await;
    let id = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&id).await;
    let events = lab.events(&id).await;
    let path = |more: &str| format!("/api/v1/runs/{id}/series?what={more}");
    let series = lab.get(&path("policy")).await.body;
    let columns: Vec<&str> = series["columns"].as_array().context("columns")?.iter().filter_map(Value::as_str).collect();
    let at = |name: &str| columns.iter().position(|c| *c == name).with_context(|| format!("no {name} in {columns:?}"));
    let rows = series["rows"].as_array().context("rows")?;
    let steps: Vec<usize> = rows.iter().filter_map(|r| r[at("step.step").ok()?].as_u64()).map(|n| n as usize).collect();
    ensure!(steps == policy_steps(&events) && !steps.is_empty(), "{steps:?}");
    // The same as a table, and a part of it.
    let table = lab.get(&path("policy&as=csv")).await.body;
    let lines: Vec<&str> = table.as_str().context("a text")?.lines().collect();
    ensure!(lines.len() == rows.len() + 1 && lines[0].split(',').eq(columns.iter().copied()), "{}", lines[0]);
    let (first, second) = (rows[0][at("seq")?].as_u64().context("seq")?, rows[1][at("seq")?].as_u64().context("seq")?);
    let part = lab.get(&path(&format!("policy&from={first}&to={}", second - 1))).await.body;
    ensure!(part["rows"] == json!([rows[0]]), "{part}");
    for (what, status) in [("policy&as=arrow", 200), ("nothing", 404), ("policy&as=xml", 400), ("policy&colour=red", 400)] {
        ensure!(lab.get(&path(what)).await.status == status, "{what}");
    }
    Ok(())
}
