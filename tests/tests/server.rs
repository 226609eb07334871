//! The server as programs see it: the API, the guard, the websocket, and what is left when processes die.

use anyhow::{Result, bail, ensure};
use futures_util::SinkExt;
use moslim_shared::config::RunConfig;
use moslim_shared::event::{Addressed, Event, EventBody, Frame, Outcome, RunInfo, RunStatus, Stage};
use moslim_tests::{
    LIMIT, Lab, Process, Socket, endings, heard, long_run, policy_steps, processes, scattered, signal, smoke, soak, text,
    wait_until,
};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Bytes of the whole page as they are sent (brotli).
const PAGE_BUDGET: usize = 700_000;

async fn frame(socket: &mut Socket) -> Result<Frame> {
    read(socket).await
}

async fn read<T: DeserializeOwned>(socket: &mut Socket) -> Result<T> {
    Ok(serde_json::from_str(&heard(socket).await?)?)
}

async fn snapshot(socket: &mut Socket) -> Result<RunInfo> {
    match frame(socket).await? {
        Frame::Snapshot { info } => Ok(info),
        other => bail!("the first frame is no snapshot but {other:?}"),
    }
}

/// Reads events until `enough`, and keeps `info` up to date; fails at a gap after number `after`.
async fn read_events(
    socket: &mut Socket,
    after: u64,
    info: &mut RunInfo,
    enough: impl Fn(&[Event], RunStatus) -> bool,
) -> Result<Vec<Event>> {
    let mut seen: Vec<Event> = Vec::new();
    while !enough(&seen, info.status) {
        match frame(socket).await? {
            Frame::Info { info: new } => *info = new,
            Frame::Events { events } => {
                for event in events {
                    let expected = after + seen.len() as u64 + 1;
                    ensure!(event.seq == expected, "event {} came where {expected} was due", event.seq);
                    seen.push(event);
                }
            }
            other => bail!("this frame was not expected: {other:?}"),
        }
    }
    Ok(seen)
}

/// Whether everything was said: the last event, and the state of a run that is over.
fn over(events: &[Event], status: RunStatus) -> bool {
    ended(events) && status != RunStatus::Running
}

fn ended(events: &[Event]) -> bool {
    matches!(events.last(), Some(Event { body: EventBody::Ended { .. }, .. }))
}

/// A config with a problem in one field.
fn with_problem() -> Value {
    let mut config = smoke();
    config.policy.samples_per_prompt = 1;
    json!({ "config": config })
}

#[tokio::test]
async fn the_api_says_what_there_is_and_what_is_wrong() {
    let lab = Lab::start().await;
    let presets = lab.get("/api/v1/presets").await;
    let ids: Vec<&str> = presets.body.as_array().expect("presets").iter().filter_map(|p| p["id"].as_str()).collect();
    assert_eq!(ids, ["smoke", "quick", "tab", "noisy", "sparse", "biased", "world", "standard", "offtheshelf", "ratings"]);
    let config: RunConfig = serde_json::from_value(presets.body[0]["config"].clone()).expect("a configuration");
    assert_eq!(config.preset, "smoke");

    let world = lab.get("/api/v1/task").await;
    let classes = |o: &Value| (o["id"].as_str().map(str::to_string), o["classes"].as_array().map(Vec::len));
    let found: Vec<_> = world.body["objectives"].as_array().expect("objectives").iter().map(classes).collect();
    let expected = [("helpfulness", 5), ("harmlessness", 4), ("honesty", 3), ("verbosity", 5)];
    assert_eq!(found, expected.map(|(id, n)| (Some(id.to_string()), Some(n))));

    let fine = lab.post("/api/v1/validate", &json!({ "config": config })).await;
    assert_eq!((fine.status, fine.body), (200, json!({ "problems": [] })));
    let bad = lab.post("/api/v1/validate", &with_problem()).await;
    assert_eq!((bad.status, &bad.body["problems"][0]["field"]), (200, &json!("policy.samples_per_prompt")));

    let unknown_field = json!({ "config": { "policy": { "shamples": 1 } } });
    let wrong_type = json!({ "config": { "policy": { "prompts": "many" } } });
    for (body, field) in
        [(with_problem(), "policy.samples_per_prompt"), (unknown_field, "policy.shamples"), (wrong_type, "policy.prompts")]
    {
        let answer = lab.post("/api/v1/runs", &body).await;
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert_eq!(answer.body["problems"][0]["field"], field, "{}", answer.body);
        assert!(answer.body["detail"].as_str().is_some_and(|e| e.starts_with(field)), "{}", answer.body);
    }
    for (path, status) in [
        ("/api/v1/runs/no-such-run", 404),
        ("/api/v1/runs/no-such-run/events", 404),
        ("/api/v1/runs/NO/events", 404),
        ("/api/v1/runs/..%2f..%2fetc", 404),
        ("/api/v1/nothing", 404),
        ("/api/v1/runs/x/events?limit=0", 400),
        ("/api/v1/runs/x/events?after=-1", 400),
        ("/api/v1/runs/x/cancel", 405),
        ("/api/v1/ws", 400),
    ] {
        let answer = lab.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body["detail"].as_str().is_some_and(|e| !e.is_empty()), "{path}: {}", answer.body);
    }
    for action in ["cancel", "resume"] {
        assert_eq!(lab.post(&format!("/api/v1/runs/no-such-run/{action}"), &json!({})).await.status, 404);
    }
    assert_eq!(lab.get("/api/v1/runs").await.body["total"], 0, "nothing was started");
}

#[tokio::test]
async fn strangers_are_refused_and_every_answer_is_guarded() {
    let lab = Lab::start().await;
    let own = lab.origin();
    let start = json!({ "config": smoke() });
    let post = |origin: &str| {
        let request = lab.request(Method::POST, "/api/v1/runs").json(&start);
        if origin.is_empty() { request } else { request.header("origin", origin) }
    };
    let read = || lab.request(Method::GET, "/api/v1/runs");
    let plain = lab.request(Method::POST, "/api/v1/runs").header("origin", &own).header("content-type", "text/plain");
    for (what, request, status) in [
        ("POST without an origin", post(""), 403),
        ("POST from a foreign origin", post("http://evil.example"), 403),
        ("POST from another port", post("http://127.0.0.1:1"), 403),
        ("POST from an opaque origin", post("null"), 403),
        ("POST by a form", plain.body(start.to_string()), 415),
        ("GET for a foreign host", read().header("host", "evil.example"), 403),
        ("GET from a foreign page", read().header("sec-fetch-site", "cross-site"), 403),
        ("DELETE without an origin", lab.request(Method::DELETE, "/api/v1/runs"), 403),
        ("GET", read(), 200),
    ] {
        let answer = lab.send(request).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
    }
    assert_eq!(lab.get("/api/v1/runs").await.body["total"], 0, "nothing was started");

    for origin in [None, Some("http://evil.example"), Some("null")] {
        match lab.socket(origin).await {
            Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), 403, "{origin:?}"),
            other => panic!("a websocket with the origin {origin:?} was not refused: {other:?}"),
        }
    }
    assert!(lab.socket(Some(&own)).await.is_ok());

    for (path, host) in
        [("/", "localhost"), ("/api/v1/runs", "localhost"), ("/api/v1/nothing", "localhost"), ("/", "evil.example")]
    {
        let request = lab.request(Method::GET, path).header("host", format!("{host}:{}", lab.port()));
        let response = request.send().await.expect("an answer");
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
        let policy = header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self' 'wasm-unsafe-eval'", "connect-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(part), "{path} for {host}: {policy}");
        }
        assert!(!policy.contains("unsafe-inline") && !policy.contains('*'), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path} for {host}");
        assert_eq!(header("access-control-allow-origin"), "", "{path} for {host}");
    }
}

#[tokio::test]
async fn the_page_is_sent_packed_and_within_its_budget() {
    let lab = Lab::start().await;
    let mut sizes = Vec::new();
    for name in ["index.html", "boot.js", "style.css", "moslim.js", "moslim_bg.wasm"] {
        let path = if name == "index.html" { "/".to_string() } else { format!("/{name}") };
        // The second is for those who do not take the first.
        for (accepted, sent) in [("br, gzip", "br"), ("gzip", "gzip")] {
            let response = lab.request(Method::GET, &path).header("accept-encoding", accepted).send().await.expect("an answer");
            assert_eq!(response.status().as_u16(), 200, "{name}; is the page built? `cargo lab page` builds it");
            let encoding = response.headers().get("content-encoding").and_then(|v| v.to_str().ok()).map(str::to_string);
            assert_eq!(encoding.as_deref(), Some(sent), "{name}");
            // The client does not unpack, so these are the bytes that were sent.
            let bytes = response.bytes().await.expect("a body");
            match sent {
                "br" => sizes.push((name, bytes.len())),
                _ => assert_eq!(bytes.get(..2), Some([0x1f, 0x8b].as_slice()), "{name} is no gzip"),
            }
        }
    }
    let total: usize = sizes.iter().map(|(_, size)| size).sum();
    assert!(total <= PAGE_BUDGET, "{total} bytes of {PAGE_BUDGET}: {sizes:?}");
}

#[tokio::test]
async fn the_websocket_misses_nothing_and_repeats_nothing() -> Result<()> {
    let lab = Lab::start().await;
    let id = lab.start_run(&long_run(60)).await;
    let second = lab.post("/api/v1/runs", &json!({ "config": smoke() })).await;
    assert_eq!(second.status, 409, "{}", second.body);
    assert!(second.body["detail"].as_str().is_some_and(|e| e.contains(&id)), "{}", second.body);

    let mut socket = lab.follow(&id, 0).await?;
    let mut info = snapshot(&mut socket).await?;
    assert_eq!((info.id.as_str(), info.status), (id.as_str(), RunStatus::Running));
    let mut seen = read_events(&mut socket, 0, &mut info, |events, _| policy_steps(events).len() >= 5).await?;
    assert!(!ended(&seen), "the connection is lost while the run goes on");
    drop(socket);

    let after = seen.len() as u64;
    let mut socket = lab.follow(&id, after).await?;
    let mut info = snapshot(&mut socket).await?;
    seen.extend(read_events(&mut socket, after, &mut info, over).await?);
    assert_eq!((info.id.as_str(), info.status, info.last_seq), (id.as_str(), RunStatus::Finished, seen.len() as u64));

    let stored = lab.events(&id).await;
    assert!(stored == seen, "what was sent is not what is stored");
    assert_eq!(policy_steps(&stored), (1..=60).collect::<Vec<_>>());
    let summary = stored.iter().find_map(|e| if let EventBody::Summary { summary } = &e.body { Some(summary) } else { None });
    assert_eq!(summary, lab.wait_for_finish(&id).await.summary.as_deref());
    assert_eq!(summary, info.summary.as_deref());
    for (query, first, last) in [("after=3&limit=4", 4, 7), ("limit=2", 1, 2), ("after=10&limit=1", 11, 11)] {
        let answer = lab.get(&format!("/api/v1/runs/{id}/events?{query}")).await;
        let events: Vec<Event> = serde_json::from_value(answer.body)?;
        assert_eq!(events, stored[first - 1..last], "{query}");
    }
    let beyond = lab.get(&format!("/api/v1/runs/{id}/events?after={}", stored.len())).await;
    assert_eq!((beyond.status, beyond.body), (200, json!([])));

    // Late viewers: one that knows nothing, and one that knows another journal.
    for claimed in [0, 1_000_000] {
        let mut socket = lab.follow(&id, claimed).await?;
        let mut info = snapshot(&mut socket).await?;
        assert_eq!(info.status, RunStatus::Finished);
        assert!(read_events(&mut socket, 0, &mut info, over).await? == stored, "after={claimed}");
    }
    let mut socket = lab.follow("no-such-run", 0).await?;
    let answer = frame(&mut socket).await?;
    assert!(matches!(&answer, Frame::Error { message } if message.contains("no-such-run")), "{answer:?}");

    for action in ["cancel", "resume"] {
        let answer = lab.post(&format!("/api/v1/runs/{id}/{action}"), &json!({})).await;
        assert_eq!(answer.status, 409, "{action}: {}", answer.body);
    }
    Ok(())
}

#[tokio::test]
async fn one_socket_follows_several_runs() -> Result<()> {
    let lab = Lab::start().await;
    let finished = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&finished).await;
    let training = lab.start_run(&long_run(400)).await;
    let subscribe = |channel: u32, run: &str, after: u64, kinds: &[&str]| {
        Message::text(
            json!({ "subscribe": { "channel": channel, "hello": { "run": run, "after": after, "kinds": kinds } } }).to_string(),
        )
    };
    let mut socket = lab.socket(Some(&lab.origin())).await?;
    socket.send(subscribe(1, &finished, 0, &[])).await?;
    // Before the second, so that it would have the end first if it were not left.
    socket.send(subscribe(4, &training, 0, &[])).await?;
    socket.send(Message::text(json!({ "unsubscribe": { "channel": 4 } }).to_string())).await?;
    socket.send(subscribe(2, &training, 0, &["policy", "ended"])).await?;
    socket.send(subscribe(3, "no-such-run", 0, &[])).await?;
    let mut seen: BTreeMap<u32, Vec<Event>> = BTreeMap::new();
    let mut frames: BTreeMap<u32, Vec<Option<Frame>>> = BTreeMap::new();
    while !seen.get(&2).is_some_and(|events| ended(events)) {
        let Addressed { channel, frame } = read(&mut socket).await?;
        match frame {
            Some(Frame::Events { events }) => seen.entry(channel).or_default().extend(events),
            other => frames.entry(channel).or_default().push(other),
        }
    }
    assert!(seen[&1] == lab.events(&finished).await, "what a channel brings is what is stored");
    let wanted = |e: &Event| matches!(e.body, EventBody::Policy { .. } | EventBody::Ended { .. });
    let stored: Vec<Event> = lab.events(&training).await.into_iter().filter(wanted).collect();
    assert!(seen[&2] == stored && stored.len() == 401, "only the kinds that were wanted, and all of them");
    assert!(matches!(&frames[&1][..], [Some(Frame::Snapshot { info })] if info.id == finished), "{:?}", frames[&1]);
    assert!(
        matches!(&frames[&3][..], [Some(Frame::Error { message }), None] if message.contains("no-such-run")),
        "{:?}",
        frames[&3]
    );
    assert!(!seen.get(&4).is_some_and(|events| ended(events)), "a channel that was left brings nothing more");

    // A number that is free again, from where it was.
    socket.send(Message::text(json!({ "unsubscribe": { "channel": 2 } }).to_string())).await?;
    let last = lab.run(&training).await.last_seq;
    socket.send(subscribe(2, &training, last - 3, &[])).await?;
    let mut again: Vec<Event> = Vec::new();
    while again.len() < 3 {
        if let Addressed { channel: 2, frame: Some(Frame::Events { events }) } = read(&mut socket).await? {
            again.extend(events);
        }
    }
    assert_eq!(again.iter().map(|e| e.seq).collect::<Vec<_>>(), [last - 2, last - 1, last]);
    // Who draws curves wants no more steps than make them finer.
    let hello = json!({ "run": training, "kinds": ["policy", "ended"], "steps": 10, "brief": true });
    socket.send(Message::text(json!({ "subscribe": { "channel": 6, "hello": hello } }).to_string())).await?;
    let mut few: Vec<Event> = Vec::new();
    while !ended(&few) {
        if let Addressed { channel: 6, frame: Some(Frame::Events { events }) } = read(&mut socket).await? {
            few.extend(events);
        }
    }
    let few = policy_steps(&few);
    assert_eq!(few[..3], [1, 64, 128]);
    assert_eq!(few[few.len() - 50..], (351..=400).collect::<Vec<_>>(), "the newest come whole");
    assert!(few.len() < 200, "{few:?}");
    // One that is not free, and what is no subscription: the server says why, and hangs up.
    for (said, why) in [(subscribe(2, &training, 0, &[]), "open already"), (Message::text("{}"), "only subscriptions")] {
        let mut socket = lab.socket(Some(&lab.origin())).await?;
        socket.send(subscribe(2, &finished, u64::MAX, &["ended"])).await?;
        socket.send(said).await?;
        let error = loop {
            match frame(&mut socket).await {
                Ok(Frame::Error { message }) => break message,
                Ok(_) => bail!("a frame without a channel"),
                Err(error) if error.to_string().contains("closed") => bail!("closed without a reason"),
                // Those with a channel are no frames by themselves.
                Err(_) => {}
            }
        };
        assert!(error.contains(why), "{error}");
        assert!(frame(&mut socket).await.is_err_and(|e| e.to_string().contains("closed the socket")));
    }
    Ok(())
}

/// The steps of policy optimisation that a run began (again) after.
fn beginnings(events: &[Event]) -> Vec<usize> {
    let from = |event: &Event| match event.body {
        EventBody::StageBegan { stage: Stage::Policy, from, .. } => Some(from),
        _ => None,
    };
    events.iter().filter_map(from).collect()
}

#[tokio::test]
async fn a_cancelled_run_can_go_on() {
    let lab = Lab::start().await;
    let id = lab.start_run(&long_run(100)).await;
    lab.wait_for_policy(&id, 3).await;
    let answer = lab.post(&format!("/api/v1/runs/{id}/cancel"), &json!({})).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let run = lab.wait_for_end(&id).await;
    assert_eq!(run.status, RunStatus::Cancelled, "{}", run.message);
    assert!(run.summary.is_none());
    assert_eq!(lab.workers(), Vec::<u32>::new(), "its worker is gone");
    let reached = policy_steps(&lab.events(&id).await).len();
    assert!((3..100).contains(&reached), "{reached}");

    lab.resume(&id).await;
    lab.wait_for_finish(&id).await;
    let events = lab.events(&id).await;
    assert_eq!(endings(&events), [Outcome::Cancelled, Outcome::Finished]);
    assert_eq!(beginnings(&events), [0, reached], "a cancelled run stops at a checkpoint");
    assert_eq!(policy_steps(&events), (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_checkpoint_is_kept_when_it_is_asked_for() {
    let lab = Lab::start().await;
    let mut config = long_run(400);
    config.policy.checkpoint_every = 10_000;
    let id = lab.start_run(&config).await;
    lab.wait_for_policy(&id, 3).await;
    let wanted = lab.post(&format!("/api/v1/runs/{id}/checkpoint"), &json!({})).await;
    assert_eq!(wanted.status, 202, "{}", wanted.body);
    let kept_at = |events: &[Event]| {
        let at = |event: &Event| match &event.body {
            EventBody::Checkpoint { stage: Stage::Policy, step, .. } => Some(*step),
            _ => None,
        };
        events.iter().filter_map(at).collect::<Vec<_>>()
    };
    let asked = std::time::Instant::now();
    while kept_at(&lab.events(&id).await).is_empty() {
        assert!(asked.elapsed() < LIMIT, "no checkpoint is kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for pid in lab.workers() {
        signal(pid, "KILL");
    }
    lab.wait_for_end(&id).await;
    let refused = lab.post(&format!("/api/v1/runs/{id}/checkpoint"), &json!({})).await;
    assert!(refused.status == 409 && refused.body["detail"].as_str().unwrap().contains("is not running"), "{}", refused.body);
    let events = lab.events(&id).await;
    let at = kept_at(&events);
    assert!(at.len() == 1 && at[0] >= 3, "one wish, one checkpoint: {at:?}");
    lab.resume(&id).await;
    lab.wait_for_policy(&id, policy_steps(&events).len() + 1).await;
    assert_eq!(beginnings(&lab.events(&id).await), [0, at[0]], "it goes on from there");
    assert_eq!(kept_at(&lab.events(&id).await), at, "a wish that was heard is forgotten");

    // A fork waits for its turn, with the checkpoint that it has taken over.
    let mut fork = RunConfig { fork: Some(id.clone()), ..config.clone() };
    fork.policy.kl_coefficient = 0.5;
    let unknown = RunConfig { fork: Some("nothing".into()), ..config.clone() };
    for (wrong, field) in [(unknown, "fork"), (RunConfig { seed: 99, ..fork.clone() }, "seed")] {
        let refused = lab.post("/api/v1/runs", &json!({ "config": wrong, "queue": true })).await;
        assert_eq!((refused.status, refused.body["problems"][0]["field"].as_str()), (422, Some(field)), "{}", refused.body);
    }
    let waits = lab.post("/api/v1/runs", &json!({ "config": fork, "queue": true })).await;
    assert_eq!((waits.status, waits.body["status"].as_str()), (201, Some("queued")), "{}", waits.body);
    let forked = waits.body["id"].as_str().unwrap().to_string();
    let listed = lab.get("/api/v1/runs").await.body["total"].as_u64();
    assert_eq!(listed, Some(2), "nothing is left of what was refused");
    assert_eq!(lab.post(&format!("/api/v1/runs/{id}/cancel"), &json!({})).await.status, 202);
    let asked = std::time::Instant::now();
    while lab.run(&forked).await.status == RunStatus::Queued {
        assert!(asked.elapsed() < LIMIT, "its turn does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lab.wait_for_policy(&forked, 1).await;
    assert_eq!(beginnings(&lab.events(&forked).await), at, "it goes on from where the first run was then");
    assert_eq!(lab.post(&format!("/api/v1/runs/{forked}/cancel"), &json!({})).await.status, 202);
}

#[tokio::test]
async fn a_killed_worker_fails_its_run_and_nothing_else() {
    let lab = Lab::start().await;
    let config = long_run(100);
    let id = lab.start_run(&config).await;
    // The iteration after a checkpoint: by then the checkpoint is written.
    lab.wait_for_policy(&id, config.policy.checkpoint_every + 1).await;
    let workers = processes(&["worker", &id, text(lab.data())]);
    assert_eq!(workers.len(), 1, "{workers:?}");
    assert!(signal(workers[0], "KILL"));
    let run = lab.wait_for_end(&id).await;
    assert_eq!(run.status, RunStatus::Failed, "{}", run.message);
    assert!(run.message.contains("killed by signal 9") && run.message.contains("resume"), "{}", run.message);

    lab.resume(&id).await;
    let run = lab.wait_for_finish(&id).await;
    assert_eq!(run.message, "");
    let events = lab.events(&id).await;
    // The process that was killed said nothing more, and nobody speaks for it.
    assert_eq!(endings(&events), [Outcome::Finished]);
    let beginnings = beginnings(&events);
    assert_eq!((beginnings.len(), beginnings[0]), (2, 0));
    assert!(beginnings[1] >= config.policy.checkpoint_every, "it went on from a checkpoint: {beginnings:?}");
    assert_eq!(policy_steps(&events), (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_killed_server_leaves_its_worker_training_and_the_next_one_finds_it() {
    let mut lab = Lab::start().await;
    let id = lab.start_run(&long_run(400)).await;
    lab.wait_for_policy(&id, 3).await;
    let before = lab.events(&id).await;
    let workers = lab.workers();
    assert_eq!(workers.len(), 1);
    lab.kill();
    assert_eq!(lab.workers(), workers, "the worker goes on");

    lab.restart().await;
    assert_eq!(lab.run(&id).await.status, RunStatus::Running);
    let second = lab.post("/api/v1/runs", &json!({ "config": smoke() })).await;
    assert_eq!(second.status, 409, "{}", second.body);
    let seen = policy_steps(&before).len();
    lab.wait_for_policy(&id, seen + 3).await;
    assert_eq!(lab.workers(), workers, "no worker is lost, none doubled");

    let answer = lab.post(&format!("/api/v1/runs/{id}/cancel"), &json!({})).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(lab.wait_for_end(&id).await.status, RunStatus::Cancelled);
    assert_eq!(lab.workers(), Vec::<u32>::new());
    let events = lab.events(&id).await;
    assert!(events.starts_with(&before));
    assert_eq!(endings(&events), [Outcome::Cancelled]);
    let reached = policy_steps(&events);
    assert_eq!(reached, (1..=reached.len()).collect::<Vec<_>>(), "no step is missing");
}

/// In short what `cargo lab soak` does again and again: the server dies at any moment, and no step is missing.
#[tokio::test]
async fn a_server_that_is_killed_again_and_again_loses_nothing() {
    let kills = 4 * soak();
    let mut lab = Lab::start().await;
    let steps = 100 * kills as usize;
    let id = lab.start_run(&long_run(steps)).await;
    let mut known: Vec<Event> = Vec::new();
    for n in 0..kills {
        // Moments that differ from kill to kill, and are the same in every run of this test.
        tokio::time::sleep(std::time::Duration::from_millis(100 + n * 7919 % 700)).await;
        let events = lab.events(&id).await;
        assert!(events.starts_with(&known), "what was seen is gone after kill {n}");
        known = events;
        let over = matches!(known.last(), Some(Event { body: EventBody::Ended { .. }, .. }));
        lab.restart().await;
        assert!(over || lab.workers().len() <= 1, "a worker was doubled");
    }
    lab.wait_for_finish(&id).await;
    let events = lab.events(&id).await;
    assert!(events.starts_with(&known));
    assert_eq!(policy_steps(&events), (1..=steps).collect::<Vec<_>>(), "no step is missing, none came twice");
    let text = std::fs::read_to_string(lab.data().join("runs").join(&id).join("events.jsonl")).unwrap();
    assert_eq!(text.lines().count(), events.len());
}

/// The same where a worker dies, and a person has the run go on.
#[tokio::test]
async fn a_worker_that_is_killed_again_and_again_loses_nothing() {
    let kills = 2 * soak();
    let lab = Lab::start().await;
    let steps = 100 * kills as usize;
    let id = lab.start_run(&long_run(steps)).await;
    let mut known: Vec<Event> = Vec::new();
    for n in 0..kills {
        let last = policy_steps(&known).last().copied().unwrap_or(0);
        // A fast machine is through before it was killed as often.
        if !lab.reaches_policy(&id, last + 1).await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(scattered(n) % 500)).await;
        for pid in lab.workers() {
            signal(pid, "KILL");
        }
        lab.wait_for_end(&id).await;
        let events = lab.events(&id).await;
        assert!(events.starts_with(&known), "what was seen is gone after kill {n}");
        known = events;
        if lab.run(&id).await.status == RunStatus::Finished {
            break;
        }
        lab.resume(&id).await;
    }
    lab.wait_for_finish(&id).await;
    assert_eq!(policy_steps(&lab.events(&id).await), (1..=steps).collect::<Vec<_>>(), "no step is missing, none came twice");
}

/// A rebuild puts another file in the place of the program that serves: what it starts is still the program that it is.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_whose_file_is_replaced_starts_what_it_was_started_from() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;
    let folder = tempfile::tempdir()?;
    let [program, rebuilt, marker] = ["moslim-lab", "rebuilt", "marker"].map(|name| folder.path().join(name));
    // Copied by another process: a file that this one has open for writing while another test starts a child cannot be started.
    ensure!(Command::new("cp").arg(moslim_tests::binary()).arg(&program).status()?.success(), "the program cannot be copied");
    let lab = Lab::start_from(&program).await;
    std::fs::write(&rebuilt, format!("#!/bin/sh\necho started >> '{}'\n", text(&marker)))?;
    std::fs::set_permissions(&rebuilt, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&rebuilt, &program)?;

    let id = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&id).await;
    let devices = lab.get("/api/v1/devices").await;
    ensure!(devices.status == 200, "{}", devices.body);
    ensure!(!marker.exists(), "the new file was started");
    // It would have been seen.
    ensure!(Command::new(&program).status()?.success() && marker.exists(), "the new file says nothing when it is started");
    Ok(())
}

#[tokio::test]
async fn a_run_from_the_command_line_is_shown_live() {
    let lab = Lab::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = moslim_tests::write_config(folder.path(), &long_run(200));
    let mut train = Process::lab(&["train", "--run", "mine", "--config", text(&file), "--data", text(lab.data())]);
    wait_until("the run in the list", || {
        assert!(train.running(), "{}", train.stderr());
        lab.data().join("runs/mine/events.jsonl").exists().then_some(())
    })
    .await;
    let began = std::time::Instant::now();
    while lab.get("/api/v1/runs/mine").await.status != 200 {
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "the run is not shown");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(lab.run("mine").await.status, RunStatus::Running);
    lab.wait_for_policy("mine", 2).await;
    let about = json!({"name": "My own", "note": "a note\nof two lines", "tags": ["tea"], "archived": false});
    let answer = lab.send(lab.request(Method::PUT, "/api/v1/runs/mine/about").header("origin", lab.origin()).json(&about)).await;
    assert_eq!((answer.status, &answer.body["about"]), (200, &about), "{}", answer.body);
    let bad = json!({"tags": ["x".repeat(99)]});
    let answer = lab.send(lab.request(Method::PUT, "/api/v1/runs/mine/about").header("origin", lab.origin()).json(&bad)).await;
    assert_eq!((answer.status, &answer.body["problems"][0]["field"]), (422, &json!("tags[0]")), "{}", answer.body);
    assert_eq!(lab.post("/api/v1/runs/mine/cancel", &json!({})).await.status, 202, "whoever started it");
    assert_eq!(lab.wait_for_end("mine").await.status, RunStatus::Cancelled);
    assert_eq!(train.wait().code, Some(1));
    for (filter, found) in
        [("tea", 1), ("my own", 1), ("tag:tea status:cancelled", 1), ("coffee", 0), ("seed>1", 0), ("is:archived", 0)]
    {
        let list = lab.send(lab.request(Method::GET, "/api/v1/runs").query(&[("filter", filter)])).await;
        assert_eq!((list.status, &list.body["total"]), (200, &json!(found)), "{filter}: {}", list.body);
    }
    for (query, said) in [
        ("filter=mood%3Agood", "filter: There is no field"),
        ("limit=0", "limit: is 0"),
        ("sort=best", "sort: is best; allowed is newest"),
        ("after=b", "after: there is no run b"),
        ("fields=id,name", "fields: has \"name\"; allowed is id, title, "),
        ("x=1", "are known"),
    ] {
        let list = lab.get(&format!("/api/v1/runs?{query}")).await;
        assert_eq!(list.status, 400, "{query}");
        assert!(list.body["detail"].as_str().unwrap_or_default().contains(said), "{}", list.body);
    }
    // Who has the list is told that it has not changed, in a few bytes.
    let first = lab.request(Method::GET, "/api/v1/runs").send().await.unwrap();
    let tag = first.headers()["etag"].clone();
    let again = lab.request(Method::GET, "/api/v1/runs").header("if-none-match", &tag).send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.bytes().await.unwrap().len()), (304, 0));
    // Rows have what is asked for, whatever its order, and what is another answer has another tag.
    let few =
        lab.request(Method::GET, "/api/v1/runs?fields=title,about,id,hit").header("if-none-match", tag).send().await.unwrap();
    assert_eq!(few.status(), 200);
    let few: Value = few.json().await.unwrap();
    let row = json!({ "id": "mine", "title": "My own", "about": about, "hit": null });
    assert_eq!(few, json!({ "rows": [row], "total": 1, "next": null }));
    assert_eq!(lab.get("/api/v1/runs?fields=").await.body["rows"][0]["seed"], 1);
}

#[tokio::test]
async fn the_index_can_be_thrown_away() {
    let mut lab = Lab::start().await;
    let id = lab.start_run(&smoke()).await;
    let before = lab.wait_for_finish(&id).await;
    let events = lab.events(&id).await;
    lab.kill();
    let output = Process::lab(&["reindex", "--json", "--data", text(lab.data())]).wait();
    assert_eq!((output.code, output.stdout.trim()), (Some(0), r#"{"runs":1}"#), "{}", output.stderr);
    std::fs::write(lab.data().join("index.db"), "this is no database").unwrap();
    // A torn last line, as a power cut leaves it.
    let journal = lab.data().join("runs").join(&id).join("events.jsonl");
    let mut text = std::fs::read_to_string(&journal).unwrap();
    text.push_str("{\"time\":1,\"bod");
    std::fs::write(&journal, text).unwrap();
    lab.restart().await;
    assert_eq!(lab.run(&id).await, before);
    assert_eq!(lab.events(&id).await, events);
}

#[tokio::test]
async fn an_occupied_port_or_folder_is_told() {
    let lab = Lab::start().await;
    let folder = tempfile::tempdir().unwrap();
    let port = lab.port().to_string();
    let output = Process::lab(&["serve", "--port", &port, "--data", text(folder.path())]).wait();
    assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""), "{}", output.stderr);
    assert!(output.stderr.contains("port: ") && output.stderr.contains(&port), "{}", output.stderr);
    let output = Process::lab(&["serve", "--port", "0", "--data", text(lab.data())]).wait();
    assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""), "{}", output.stderr);
    assert!(output.stderr.contains("data: another server uses"), "{}", output.stderr);
    assert_eq!(lab.get("/api/v1/health").await.status, 200, "the first one is well");
}

#[tokio::test]
async fn runs_wait_their_turn_and_the_urgent_ones_go_first() {
    let lab = Lab::start().await;
    let first = lab.start_run(&long_run(5_000)).await;
    let refused = lab.post("/api/v1/runs", &json!({ "config": smoke() })).await;
    assert_eq!(refused.status, 409, "who does not want to wait is refused");
    let queue = async |name: &str, priority: i32| {
        let config = RunConfig { name: name.into(), ..smoke() };
        let answer = lab.post("/api/v1/runs", &json!({ "config": config, "queue": true, "priority": priority })).await;
        assert_eq!((answer.status, answer.body["status"].as_str()), (201, Some("queued")), "{}", answer.body);
        answer.body["id"].as_str().unwrap().to_string()
    };
    let (calm, unwanted, urgent) = (queue("calm", 0).await, queue("unwanted", 0).await, queue("urgent", 5).await);
    assert_eq!(lab.get("/api/v1/runs?filter=status%3Aqueued").await.body["total"], 3);
    let queued = lab.get("/api/v1/runs?filter=status%3Aqueued&sort=name").await.body;
    assert_eq!([0_usize, 1, 2].map(|n| queued["rows"][n]["title"].clone()), ["calm", "unwanted", "urgent"]);
    assert_eq!(lab.post(&format!("/api/v1/runs/{unwanted}/cancel"), &json!({})).await.status, 202);
    assert_eq!(lab.run(&unwanted).await.status, RunStatus::Cancelled);
    // The queue is on the disk: another server goes on with it.
    let mut lab = lab;
    lab.restart().await;
    assert_eq!(lab.run(&calm).await.status, RunStatus::Queued);
    assert_eq!(lab.post(&format!("/api/v1/runs/{first}/cancel"), &json!({})).await.status, 202);
    let began = std::time::Instant::now();
    while lab.run(&calm).await.status != RunStatus::Finished {
        assert!(began.elapsed() < LIMIT, "its turn does not come: {:?}", lab.run(&calm).await.status);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let started = async |id: &str| lab.events(id).await[0].time;
    assert!(started(&urgent).await < started(&calm).await, "the urgent one went first");
    assert_eq!(lab.run(&unwanted).await.last_seq, 0, "what was taken out was not started");
}

#[tokio::test]
async fn a_start_that_is_sent_twice_starts_once() {
    let mut lab = Lab::start().await;
    let send = async |lab: &Lab, path: &str, key: &str, body: &Value| {
        let sent = lab
            .request(Method::POST, path)
            .header("origin", lab.origin())
            .header("idempotency-key", key)
            .json(body)
            .send()
            .await
            .unwrap();
        (sent.status().as_u16(), sent.json::<Value>().await.unwrap())
    };
    let body = json!({ "config": smoke() });
    let [(a, first), (b, second)] =
        [send(&lab, "/api/v1/runs", "k-1", &body).await, send(&lab, "/api/v1/runs", "k-1", &body).await];
    assert_eq!((a, b, &first["id"]), (201, 200, &second["id"]), "{first} {second}");
    // Without the key it is another one, for which there is no room.
    assert_eq!(lab.post("/api/v1/runs", &body).await.status, 409);
    let (status, said) = send(&lab, "/api/v1/runs", "k-1", &json!({ "config": smoke(), "queue": true })).await;
    assert_eq!(status, 409);
    assert!(said["detail"].as_str().unwrap().contains("Idempotency-Key"), "{said}");
    assert_eq!(send(&lab, "/api/v1/runs", "no spaces", &body).await.0, 400);
    // What is refused leaves its key free.
    assert_eq!(send(&lab, "/api/v1/runs", "k-2", &body).await.0, 409);
    lab.restart().await;
    assert_eq!(send(&lab, "/api/v1/runs", "k-1", &body).await.1["id"], first["id"], "it is known after a crash");
    lab.wait_for_end(first["id"].as_str().unwrap()).await;
    let (status, fresh) = send(&lab, "/api/v1/runs", "k-2", &body).await;
    assert_eq!(status, 201);
    assert_ne!(fresh["id"], first["id"]);
    lab.wait_for_end(fresh["id"].as_str().unwrap()).await;
    let study = json!({ "preset": "methods", "base": "smoke", "seeds": [1] });
    let [(a, first), (b, second)] =
        [send(&lab, "/api/v1/studies", "k-1s", &study).await, send(&lab, "/api/v1/studies", "k-1s", &study).await];
    assert_eq!((a, b, &first["id"]), (201, 200, &second["id"]), "{first} {second}");
    let cancelled = lab.post(&format!("/api/v1/studies/{}/cancel", first["id"].as_str().unwrap()), &json!({})).await;
    assert_eq!(cancelled.status, 202);
}

#[tokio::test]
async fn who_starts_too_often_has_to_wait() {
    let lab = Lab::start().await;
    let (mut refused, mut told) = (0, String::new());
    for _ in 0..64 {
        let body = json!({ "config": smoke(), "queue": true });
        let answer = lab.request(Method::POST, "/api/v1/runs").header("origin", lab.origin()).json(&body).send().await.unwrap();
        if answer.status() == 429 {
            assert_eq!(answer.headers()["retry-after"], "10");
            told = answer.json::<Value>().await.unwrap()["detail"].as_str().unwrap().into();
            refused += 1;
        }
    }
    assert!(refused > 0 && told.contains("try again in"), "{refused} {told}");
}

/// What a lab may hold, how long it keeps what nobody wants, and what a run may take.
#[tokio::test]
async fn a_lab_keeps_within_what_it_was_given() {
    let mut lab = Lab::start_with(&["--quota", "1", "--keep-days", "2", "--run-memory", "300"]).await;
    // A run of which it is known that it needs more than it may have does not start.
    let mut large = smoke();
    (large.model.layers, large.model.d_model, large.model.d_ff) = (4, 512, 2048);
    large.reward_trunk = large.model.clone();
    let refused = lab.post("/api/v1/runs", &json!({ "config": large })).await;
    let problem = refused.body["problems"][0].clone();
    assert_eq!((refused.status, problem["field"].as_str()), (422, Some("model.d_model")), "{}", refused.body);
    let said = problem["message"].as_str().unwrap();
    assert!(said.contains("MiB of memory") && said.contains("may have 300 MiB here"), "{said}");
    // One that is there already, and takes more, fails, and says of what.
    let written = lab.post("/api/v1/config/toml", &json!({ "config": large })).await.body["toml"].as_str().unwrap().to_string();
    let run = "large".to_string();
    std::fs::create_dir_all(lab.data().join("runs").join(&run)).unwrap();
    std::fs::write(lab.data().join("runs").join(&run).join("config.toml"), written).unwrap();
    lab.restart().await;
    lab.resume(&run).await;
    let body = json!({ "config": smoke() });
    let ended = lab.wait_for_end(&run).await;
    assert_eq!(ended.status, RunStatus::Failed);
    assert!(ended.message.contains("memory"), "{}", ended.message);
    // Of two runs of three days ago, somebody has named one.
    let config = std::fs::read(lab.data().join("runs").join(&run).join("config.toml")).unwrap();
    let days_ago = std::time::SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    for id in ["old", "named"] {
        let folder = lab.data().join("runs").join(id);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.toml"), &config).unwrap();
        std::fs::File::options().append(true).open(folder.join("config.toml")).unwrap().set_modified(days_ago).unwrap();
    }
    std::fs::write(lab.data().join("runs/named/about.json"), r#"{"name":"keep me"}"#).unwrap();
    // A file with a hole counts as long as it says it is.
    std::fs::File::create(lab.data().join("large")).unwrap().set_len(1 << 30).unwrap();
    lab.restart().await;
    wait_until("the old run to be put away", || lab.data().join("trash/old").is_dir().then_some(())).await;
    assert!(lab.data().join("runs/named").is_dir() && lab.data().join("runs").join(&run).is_dir());
    let answer = lab.post("/api/v1/runs", &body).await;
    assert_eq!(answer.status, 409);
    assert!(answer.body["detail"].as_str().unwrap().contains("1024 MiB are what it may hold"), "{}", answer.body);
    std::fs::remove_file(lab.data().join("large")).unwrap();
}

#[tokio::test]
async fn a_line_beyond_all_measure_makes_no_server_grow() {
    let lab = Lab::start().await;
    let run = lab.post("/api/v1/runs", &json!({ "config": smoke() })).await.body["id"].as_str().unwrap().to_string();
    lab.wait_for_end(&run).await;
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", lab.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let (before, last) = (resident(), lab.run(&run).await.last_seq);
    let path = lab.data().join("runs").join(&run).join("events.jsonl");
    {
        use std::io::Write;
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        let piece = vec![b'x'; 1 << 20];
        (0..300).for_each(|_| file.write_all(&piece).unwrap());
        file.write_all(b"\n{\"time\":1,\"body\":{\"note\":{\"text\":\"after it\"}}}\n").unwrap();
    }
    let mut seen = 0;
    for _ in 0..600 {
        seen = lab.run(&run).await.last_seq;
        if seen == last + 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(seen, last + 2, "both lines are known");
    let events = lab.get(&format!("/api/v1/runs/{run}/events?after={last}")).await.body;
    assert!(events[0]["body"]["note"]["text"].as_str().unwrap().contains("damaged"), "{events}");
    assert_eq!(events[1]["body"]["note"]["text"], "after it");
    let grown = resident() - before;
    assert!(grown < 100, "the server grew by {grown} MiB");
}
