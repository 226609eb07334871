//! What other software is told: the journal as server-sent events that are left and taken up again, and as columns; and over the
//! websocket when the list of runs has changed.

use anyhow::{Context, Result, bail, ensure};
use futures_util::SinkExt;
use futures_util::future::join_all;
use moslim_shared::event::{Addressed, Event, EventBody, Frame};
use moslim_tests::{LIMIT, Lab, Socket, copy_run, heard, long_run, policy_steps, scattered, signal, smoke, soak};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// The channel of the list.
const LIST: u32 = 7;
/// The channel of a run.
const RUN: u32 = 3;
/// Longer than a change of the list waits to be told.
const QUIET: Duration = Duration::from_secs(2);

/// How often a client leaves and comes back.
fn leaves() -> u64 {
    if soak() > 1 { 20 * soak() } else { 4 }
}

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
    let id = lab.start_run(&long_run(70 * soak() as usize)).await;
    let (mut heard, mut last) = (Vec::new(), None);
    let more = (2..leaves()).map(|n| 1 + scattered(n) as usize % 5);
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

/// A client that is told of the end comes back no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_server_that_stops_does_not_say_that_the_run_has_ended() -> Result<()> {
    let lab = Lab::start().await;
    let id = lab.start_run(&long_run(5_000)).await;
    let mut client = Client::open(&lab, &id, None).await?;
    client.next().await?.context("it has ended at once")?;
    ensure!(signal(lab.pid(), "TERM"), "there is no server");
    // All that it says still, whether it is cut off or ends.
    while let Ok(Some(chunk)) = timeout(LIMIT, client.response.chunk()).await.context("the stream goes on")? {
        client.text += std::str::from_utf8(&chunk)?;
    }
    ensure!(!client.text.contains("event: end"), "a run that goes on is said to have ended");
    ensure!(!lab.workers().is_empty(), "the run has ended; make it longer");
    Ok(())
}

/// A client of the websocket, on a socket for one run, or on a channel of one for several.
struct Listener {
    socket: Socket,
    on_a_channel: bool,
}

impl Listener {
    async fn open(lab: &Lab, id: &str, after: usize, on_a_channel: bool) -> Result<Self> {
        let hello = json!({ "run": id, "after": after });
        let first = if on_a_channel { json!({ "subscribe": { "channel": RUN, "hello": hello } }) } else { hello };
        Ok(Self { socket: saying(lab, &first).await?, on_a_channel })
    }

    /// The next frame.
    async fn next(&mut self) -> Result<Frame> {
        let text = heard(&mut self.socket).await?;
        if !self.on_a_channel {
            return Ok(serde_json::from_str(&text)?);
        }
        match serde_json::from_str(&text)? {
            Addressed { channel: RUN, frame: Some(frame) } => Ok(frame),
            other => bail!("this is no frame of the run: {other:?}"),
        }
    }
}

/// Of what came, a client takes some, and goes: with a goodbye, or without.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_left_and_taken_up_again_misses_nothing() -> Result<()> {
    let lab = Lab::start().await;
    let id = lab.start_run(&long_run(70 * soak() as usize)).await;
    let mut all: Vec<Event> = Vec::new();
    let parts = (0..leaves()).map(|n| 1 + scattered(n) as usize % 5);
    for (n, part) in parts.chain([usize::MAX]).enumerate() {
        let mut client = Listener::open(&lab, &id, all.len(), n % 2 == 1).await?;
        let (mut taken, mut ended) = (0, false);
        while taken < part && !ended {
            let events = match client.next().await? {
                Frame::Events { events } => events,
                Frame::Snapshot { .. } | Frame::Info { .. } => continue,
                other => bail!("this frame was not expected: {other:?}"),
            };
            for event in events.into_iter().take(part - taken) {
                ensure!(event.seq == all.len() as u64 + 1, "event {} came where {} was due", event.seq, all.len() + 1);
                ended = matches!(event.body, EventBody::Ended { .. });
                all.push(event);
                taken += 1;
            }
        }
        ensure!(ended == (part == usize::MAX), "the run ended early, or not at all");
        if n % 4 < 2 {
            client.socket.close(None).await?;
        }
    }
    lab.wait_for_finish(&id).await;
    let written = lab.events(&id).await;
    ensure!(all == written, "{} events heard, {} written", all.len(), written.len());
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
    let last = events.len();
    for (what, status) in [
        ("policy&as=arrow", 200),
        ("nothing", 404),
        ("policy&as=xml", 400),
        ("policy&colour=red", 400),
        // There are such events, and none of them there.
        ("policy&to=1", 200),
        (&format!("policy&from={last}") as &str, 200),
        ("nothing&to=1", 404),
        (&format!("nothing&from={last}") as &str, 404),
        // Who has everything is up to date, whatever it asks for.
        (&format!("nothing&from={}", last + 1) as &str, 200),
    ] {
        ensure!(lab.get(&path(what)).await.status == status, "{what}");
    }
    let none = lab.get(&path(&format!("policy&from={}", last + 1))).await.body;
    ensure!(none == json!({ "columns": ["seq", "time"], "rows": [] }), "{none}");
    Ok(())
}

/// A run in the lab with so many steps of loss, a note after every hundredth, and at the end as many notes of a long text each.
async fn written_run(lab: &Lab, id: &str, steps: usize, texts: usize) -> Result<()> {
    let like = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&like).await;
    let event = |body: Value| json!({ "time": 1_700_000_000_000_u64, "body": body }).to_string() + "\n";
    let mut journal = String::new();
    for step in 1..=steps {
        journal += &event(json!({ "loss": { "stage": "sft", "step": step, "total": steps, "loss": 1.5, "rate": 2.0 } }));
        if step % 100 == 0 {
            journal += &event(json!({ "note": { "text": "well" } }));
        }
    }
    for _ in 0..texts {
        journal += &event(json!({ "note": { "text": "x".repeat(1 << 20) } }));
    }
    copy_run(&lab.data().join("runs").join(like), &lab.data().join("runs").join(id), &journal)?;
    let began = Instant::now();
    while lab.get(&format!("/api/v1/runs/{id}")).await.body["last_seq"] != steps + steps / 100 + texts {
        ensure!(began.elapsed() < LIMIT, "the run is not read to its end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The numbers of the events that are in an answer, and the number to ask from then.
async fn series(lab: &Lab, id: &str, asked: &str) -> Result<(Vec<u64>, u64)> {
    let answer = lab.request(Method::GET, &format!("/api/v1/runs/{id}/series?{asked}")).send().await?;
    ensure!(answer.status() == 200, "{asked}: {}", answer.status());
    let next = answer.headers().get("x-next").context("no x-next")?.to_str()?.parse()?;
    let body: Value = answer.json().await?;
    let columns = body["columns"].as_array().context("columns")?;
    let seq = columns.iter().position(|name| name == "seq").context("no seq")?;
    let rows = body["rows"].as_array().context("rows")?;
    Ok((rows.iter().filter_map(|row| row[seq].as_u64()).collect(), next))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_series_comes_in_parts_and_nothing_is_cut_silently() -> Result<()> {
    let lab = Lab::start().await;
    let (steps, texts) = (20_050, 20);
    written_run(&lab, "long", steps, texts).await?;
    let (mut all, mut from, mut parts) = (Vec::new(), 0, Vec::new());
    loop {
        let (rows, next) = series(&lab, "long", &format!("what=loss&from={from}")).await?;
        let Some(last) = rows.last() else { break };
        ensure!(next > from && *last < next, "{last}, {next} after {from}");
        parts.push(rows.len());
        all.extend(rows);
        from = next;
    }
    ensure!(parts == [20_000, 50], "{parts:?}");
    ensure!(all.windows(2).all(|two| two[0] < two[1]), "an event came twice");
    // It says so in every form.
    let first = series(&lab, "long", "what=loss").await?.1.to_string();
    for form in ["csv", "arrow"] {
        let path = format!("/api/v1/runs/long/series?what=loss&as={form}");
        let answer = lab.request(Method::GET, &path).send().await?;
        ensure!(answer.headers()["x-next"] == first.as_str(), "{form}: {:?}", answer.headers());
    }
    // Long texts: an answer ends before it is large.
    let (mut count, mut from, mut most) = (0, steps as u64 + steps as u64 / 100 + 1, 0);
    loop {
        let (rows, next) = series(&lab, "long", &format!("what=note&from={from}")).await?;
        if rows.is_empty() {
            break;
        }
        (count, most, from) = (count + rows.len(), most.max(rows.len()), next);
    }
    ensure!(count == texts && most == 8, "{count} of {texts}, {most} at once");
    // More at a time than are read at once are all answered.
    let many = (0..12).map(|_| series(&lab, "long", "what=loss&from=20000"));
    for answer in join_all(many).await {
        ensure!(answer?.0.len() > 100);
    }
    Ok(())
}

/// Opens a websocket and says something.
async fn saying(lab: &Lab, first: &Value) -> Result<Socket> {
    let mut socket = lab.socket(Some(&lab.origin())).await?;
    socket.send(Message::text(first.to_string())).await?;
    Ok(socket)
}

fn subscribe(hello: &Value) -> Value {
    json!({ "subscribe": { "channel": LIST, "hello": hello } })
}

/// Waits until the list is said to have changed; how often it has.
async fn notice(socket: &mut Socket) -> Result<u64> {
    let told: Addressed = serde_json::from_str(&heard(socket).await?)?;
    match told {
        Addressed { channel: LIST, frame: Some(Frame::Changed(changes)) } => Ok(changes),
        other => bail!("this is no change of the list: {other:?}"),
    }
}

/// What is said of the list until it is quiet.
async fn notices(socket: &mut Socket) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    while let Ok(next) = timeout(QUIET, notice(socket)).await {
        all.push(next?);
    }
    Ok(all)
}

/// Who shows the list is told when to ask for it again, at once and not too often, and has the newest one then.
#[tokio::test(flavor = "multi_thread")]
async fn who_follows_the_list_is_told_that_it_has_changed() -> Result<()> {
    let lab = Lab::start().await;
    let run = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&run).await;
    let change = |method: Method, path: &str| lab.request(method, &format!("/api/v1/runs/{path}")).header("origin", lab.origin());
    let rename = async |name: &str| {
        let request = change(Method::PUT, &format!("{run}/about")).json(&json!({ "name": name }));
        assert_eq!(lab.send(request).await.status, 200);
    };
    let newest = async || lab.get("/api/v1/runs").await.body["rows"][0].clone();

    let mut socket = saying(&lab, &subscribe(&json!({ "list": true }))).await?;
    let at_first = notice(&mut socket).await?;
    let said = notices(&mut socket).await?;
    ensure!(said.is_empty(), "nothing has changed, and yet {said:?} is said");

    rename("Tea").await;
    let changes = notice(&mut socket).await?;
    ensure!(changes > at_first && newest().await["title"] == "Tea", "{at_first} {changes}");
    // Two changes at once may be told as one, and no more than two are.
    rename("Green tea").await;
    rename("White tea").await;
    let said = notices(&mut socket).await?;
    ensure!((1..=2).contains(&said.len()) && said.iter().all(|n| *n > changes), "{said:?} after {changes}");

    let second = lab.start_run(&smoke()).await;
    notice(&mut socket).await?;
    ensure!(newest().await["id"] == second, "it is told of a run that is not in the list yet");
    // Who asks when it is told, and only then, sees how the run ends.
    while newest().await["status"] != "finished" {
        notice(&mut socket).await?;
    }
    notices(&mut socket).await?;
    assert_eq!(lab.send(change(Method::DELETE, &second)).await.status, 204);
    notice(&mut socket).await?;
    ensure!(newest().await["id"] == run, "it is told of a run that is still in the list");
    notices(&mut socket).await?;

    socket.send(Message::text(json!({ "unsubscribe": { "channel": LIST } }).to_string())).await?;
    // The answer to a later message says that this one was heard.
    socket.send(Message::text(subscribe(&json!({ "run": "none" })).to_string())).await?;
    for _ in ["why", "the end"] {
        heard(&mut socket).await?;
    }
    rename("Black tea").await;
    let said = timeout(QUIET, heard(&mut socket)).await;
    ensure!(said.is_err(), "a channel that was left says {said:?}");

    // A socket of its own for the list alone, whose frames have no channel around them.
    let mut alone = saying(&lab, &json!({ "list": true })).await?;
    let frame: Frame = serde_json::from_str(&heard(&mut alone).await?)?;
    ensure!(matches!(frame, Frame::Changed(n) if n > changes), "{frame:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_is_for_nothing_or_for_two_things_is_refused() -> Result<()> {
    let lab = Lab::start().await;
    for hello in [json!({}), json!({ "list": false }), json!({ "list": "all" }), json!({ "list": true, "run": "a" })] {
        for first in [hello.clone(), subscribe(&hello)] {
            let mut socket = saying(&lab, &first).await?;
            let frame: Frame = serde_json::from_str(&heard(&mut socket).await?)?;
            ensure!(matches!(&frame, Frame::Error { message } if message.contains("the first message must be")), "{frame:?}");
            let end = heard(&mut socket).await;
            ensure!(end.is_err_and(|e| e.to_string().contains("closed the socket")), "it goes on after {first}");
        }
    }
    Ok(())
}
