//! The websocket: the tail of one run's journal. It is read-only; whatever is lost on it can be had from the API.

use crate::error::Error;
use crate::follow::{Follower, News};
use crate::id::RunId;
use crate::listen::Held;
use crate::state::Shared;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseCode, CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use axum::routing::connect;
use moslim_shared::event::{Event, Frame, Hello, RunInfo};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Largest message of a client, bytes.
const MESSAGE_LIMIT: usize = 16 << 10;
/// Most events and bytes of a frame. A single event may be larger and then is a frame of its own.
const FRAME_EVENTS: usize = 200;
const FRAME_BYTES: usize = 256 << 10;
/// Time for the client's first message.
const HELLO_TIME: Duration = Duration::from_secs(5);
/// Events of this time share a frame.
const GATHER_TIME: Duration = Duration::from_millis(25);
const PING_EVERY: Duration = Duration::from_secs(15);
/// A client that has been silent (not even a pong) or has not taken a frame for this long is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// Close codes of our own: no hello in time, and no such run.
const HELLO_TIMEOUT: CloseCode = 4408;
const UNKNOWN_RUN: CloseCode = 4404;

/// The route of the websocket.
pub fn router() -> OpenApiRouter<Shared> {
    // HTTP/2 opens a websocket by CONNECT.
    OpenApiRouter::new().routes(routes!(upgrade)).route("/api/v1/ws", connect(upgrade))
}

#[utoipa::path(get, path = "/api/v1/ws", tag = "runs", responses((status = 101, description = "Every run as it trains, by the protocol of docs/protocol.md")))]
async fn upgrade(
    State(app): State<Shared>,
    held: Option<Extension<Held>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Error> {
    // Host, origin and person were checked before the upgrade.
    let upgrade = upgrade.map_err(|rejection| Error::BadRequest(format!("this is for websockets: {rejection}")))?;
    let upgrade = upgrade.max_message_size(MESSAGE_LIMIT).max_frame_size(MESSAGE_LIMIT);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _held = held;
        let mut viewer = Viewer { socket, follower: app.follower.clone(), stopping: app.stopping.clone(), heard: Instant::now() };
        let served = viewer.serve().await;
        if let Err(goodbye) = served {
            viewer.close(goodbye).await;
        }
    }))
}

/// Why a socket is closed.
enum Goodbye {
    /// The client went away; there is nobody to tell.
    Gone,
    /// Close with this code and reason.
    Close(CloseCode, &'static str),
    /// Send an error frame, then close with this code.
    Error(CloseCode, String),
}

impl From<anyhow::Error> for Goodbye {
    fn from(error: anyhow::Error) -> Self {
        tracing::error!("a websocket ends: {error:#}");
        Self::Close(close_code::ERROR, "the server failed; its log says why")
    }
}

struct Viewer {
    socket: WebSocket,
    follower: Follower,
    stopping: watch::Receiver<bool>,
    /// When the client last sent anything.
    heard: Instant,
}

/// The run with its summary, which is on the disk.
fn whole(follower: &Follower, id: &RunId) -> impl Future<Output = Result<Option<RunInfo>, Goodbye>> + use<> {
    let (follower, id) = (follower.clone(), id.clone());
    async move { Ok(tokio::task::spawn_blocking(move || follower.run(&id)).await.map_err(anyhow::Error::from)?) }
}

impl Viewer {
    /// Serves until the client leaves (`Ok`) or must be sent away.
    async fn serve(&mut self) -> Result<(), Goodbye> {
        let hello = self.hello().await?;
        let unknown = || Goodbye::Error(UNKNOWN_RUN, format!("there is no run {:.64}", hello.run));
        let run: RunId = hello.run.parse().map_err(|_| unknown())?;
        // Listen first, then read: an event that comes between the two is announced, and none is missed.
        let mut news = self.follower.listen();
        let mut info = whole(&self.follower, &run).await?.ok_or_else(unknown)?;
        // A client that knows more than the journal saw another journal, and starts again when it sees the snapshot.
        let mut sent = if hello.after > info.last_seq { 0 } else { hello.after };
        self.send_frame(&Frame::Snapshot { info: info.clone() }).await?;
        self.send_events(&run, &mut sent).await?;
        // A long journal takes a while to send, and the client was not listened to meanwhile.
        self.heard = Instant::now();

        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        loop {
            tokio::select! {
                message = self.socket.recv() => if self.hear(message)? { return Ok(()) },
                first = news.recv() => {
                    let Some(mut state_changed) = about(first, &run)? else { continue };
                    sleep(GATHER_TIME).await;
                    state_changed |= gather(&mut news, &run)?;
                    self.send_events(&run, &mut sent).await?;
                    if state_changed {
                        self.send_info(&run, &mut info).await?;
                    }
                }
                _ = ping.tick() => {
                    if self.heard.elapsed() > SILENCE {
                        return Err(Goodbye::Gone);
                    }
                    self.send(Message::Ping(Bytes::new())).await?;
                }
                () = stopped(&mut self.stopping) => {
                    return Err(Goodbye::Close(close_code::AWAY, "the server stops"));
                }
            }
        }
    }

    /// Waits for the first message.
    async fn hello(&mut self) -> Result<Hello, Goodbye> {
        let late = Goodbye::Close(HELLO_TIMEOUT, "no hello within 5 seconds");
        match timeout(HELLO_TIME, self.socket.recv()).await.map_err(|_| late)? {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).map_err(|error| {
                Goodbye::Error(close_code::POLICY, format!("the first message must be {{\"run\", \"after\"}}: {error}"))
            }),
            Some(Ok(Message::Close(_))) | None => Err(Goodbye::Gone),
            Some(_) => Err(Goodbye::Close(close_code::POLICY, "the first message must be a hello")),
        }
    }

    /// Takes a message of the client after its hello; true when it is leaving.
    fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<bool, Goodbye> {
        self.heard = Instant::now();
        match message {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(false),
            Some(Ok(Message::Close(_))) | None => Ok(true),
            // An error is a broken connection or a message that is too large or malformed; only in the latter cases there
            // is still somebody to read the reason.
            Some(Ok(_) | Err(_)) => Err(Goodbye::Close(close_code::POLICY, "this socket only sends")),
        }
    }

    /// Sends what the journal holds after `sent`, and advances it.
    async fn send_events(&mut self, run: &RunId, sent: &mut u64) -> Result<(), Goodbye> {
        loop {
            let (follower, id, after) = (self.follower.clone(), run.clone(), *sent);
            let read = move || -> anyhow::Result<_> {
                let events = follower.events(&id, after, FRAME_EVENTS)?;
                Ok((events.last().map(|e| e.seq), events.len(), frames(&events)?))
            };
            let (last, count, frames) = tokio::task::spawn_blocking(read).await.map_err(anyhow::Error::from)??;
            let Some(last) = last else { return Ok(()) };
            *sent = last;
            for frame in frames {
                self.send(Message::Text(frame.into())).await?;
            }
            if count < FRAME_EVENTS {
                return Ok(());
            }
        }
    }

    /// Sends the run's state if it differs from what the client knows.
    async fn send_info(&mut self, run: &RunId, known: &mut RunInfo) -> Result<(), Goodbye> {
        let Some(info) = whole(&self.follower, run).await? else { return Ok(()) };
        let differs = (info.status, &info.message, &info.summary, &info.about)
            != (known.status, &known.message, &known.summary, &known.about);
        *known = info;
        if differs { self.send_frame(&Frame::Info { info: known.clone() }).await } else { Ok(()) }
    }

    async fn send_frame(&mut self, frame: &Frame) -> Result<(), Goodbye> {
        let text = serde_json::to_string(frame).map_err(anyhow::Error::from)?;
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Goodbye> {
        match timeout(SILENCE, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Goodbye::Gone),
        }
    }

    /// Says goodbye, as far as anybody listens.
    async fn close(mut self, goodbye: Goodbye) {
        let (code, reason) = match goodbye {
            Goodbye::Gone => return,
            Goodbye::Close(code, reason) => (code, reason),
            Goodbye::Error(code, message) => {
                if self.send_frame(&Frame::Error { message }).await.is_err() {
                    return;
                }
                (code, "see the error before this")
            }
        };
        let _ = self.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
        // Closing a connection with unread input resets it, and the client may then not see the reason. So what it still
        // sends is read for a moment.
        let _ = timeout(Duration::from_secs(1), async { while let Some(Ok(_)) = self.socket.recv().await {} }).await;
    }
}

/// Waits until the server stops. A function of its own, because the guard that `wait_for` returns must not outlive it.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Whether news is about `run`, and if so whether its state changed. A listener that fell behind cannot know, and looks.
fn about(news: Result<News, RecvError>, run: &RunId) -> Result<Option<bool>, Goodbye> {
    match news {
        Ok(news) => Ok((&news.run == run).then_some(news.state_changed)),
        Err(RecvError::Lagged(_)) => Ok(Some(true)),
        Err(RecvError::Closed) => Err(Goodbye::Close(close_code::AWAY, "the server stops")),
    }
}

/// Takes all news that is there; true when the state of `run` changed.
fn gather(news: &mut Receiver<News>, run: &RunId) -> Result<bool, Goodbye> {
    let mut changed = false;
    loop {
        let next = match news.try_recv() {
            Ok(next) => Ok(next),
            Err(TryRecvError::Empty) => return Ok(changed),
            Err(TryRecvError::Lagged(n)) => Err(RecvError::Lagged(n)),
            Err(TryRecvError::Closed) => Err(RecvError::Closed),
        };
        changed |= about(next, run)? == Some(true);
    }
}

/// [`Frame::Events`] as text, split by size. Each event is written once, and the frame is put together around it.
fn frames(events: &[Event]) -> anyhow::Result<Vec<String>> {
    const HEAD: &str = r#"{"events":{"events":["#;
    let mut frames = Vec::new();
    let mut frame = String::new();
    for event in events {
        let text = serde_json::to_string(event)?;
        if !frame.is_empty() && frame.len() + text.len() + 3 > FRAME_BYTES {
            frames.push(std::mem::take(&mut frame) + "]}}");
        }
        frame.push_str(if frame.is_empty() { HEAD } else { "," });
        frame.push_str(&text);
    }
    if !frame.is_empty() {
        frames.push(frame + "]}}");
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::event::EventBody;

    fn event(seq: u64, size: usize) -> Event {
        Event { seq, time: 0, body: EventBody::Note { text: "x".repeat(size) } }
    }

    #[test]
    fn frames_hold_all_events_in_order_and_keep_to_the_limit() {
        let events: Vec<Event> = (1..=50).map(|seq| event(seq, if seq == 9 { 2 * FRAME_BYTES } else { 10_000 })).collect();
        let frames = frames(&events).unwrap();
        let mut seen = Vec::new();
        for text in &frames {
            let Frame::Events { events } = serde_json::from_str(text).unwrap() else { panic!("an events frame was expected") };
            assert!(text.len() <= FRAME_BYTES || events.len() == 1, "{}", text.len());
            seen.extend(events);
        }
        assert_eq!(seen, events);
        assert!(frames.len() < 10, "{}", frames.len());
    }

    #[test]
    fn a_listener_that_fell_behind_looks_at_everything() {
        let run: RunId = "a".parse().unwrap();
        let (sender, mut news) = tokio::sync::broadcast::channel(2);
        for _ in 0..5 {
            let other = "b".parse().unwrap();
            sender.send(News { run: other, state_changed: true }).unwrap();
        }
        assert!(gather(&mut news, &run).is_ok_and(|changed| changed));
        sender.send(News { run: "b".parse().unwrap(), state_changed: true }).unwrap();
        sender.send(News { run: run.clone(), state_changed: false }).unwrap();
        assert!(gather(&mut news, &run).is_ok_and(|changed| !changed));
    }
}
