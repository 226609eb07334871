//! The websocket: the tails of runs' journals, and when the list of runs has changed. Nothing is changed over it, and whatever is lost on
//! it can be had from the API.

mod frames;

use self::frames::{addressed, frames};

use crate::access::Pass;
use crate::error::Error;
use crate::follow::Follower;
use crate::id::RunId;
use crate::listen::{Held, stopped};
use crate::ready::{Batch, Key, Ready, Thinned, Told, Wanted};
use crate::state::Shared;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseCode, CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use axum::routing::connect;
use moslim_shared::event::{Addressed, First, Frame, Hello, Subscription};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Largest message of a client, bytes.
const MESSAGE_LIMIT: usize = 16 << 10;
/// What is read of a socket at once: clients say little, and there is one of this size for each.
const READ_BUFFER: usize = 4 << 10;
/// Most events of a frame.
const FRAME_EVENTS: usize = 200;
/// Time for the client's first message.
const HELLO_TIME: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(15);
/// A client that has been silent (not even a pong) or has not taken a frame for this long is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// What a client may follow over one socket: runs, and the list.
const MOST_CHANNELS: usize = 128;
/// Changes of the list within this time are told as one: all who show it ask for it then, and of ten thousand runs each takes milliseconds.
const LIST_REST: Duration = Duration::from_secs(1);
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
    Extension(pass): Extension<Pass>,
    held: Option<Extension<Held>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Error> {
    // Host, origin and person were checked before the upgrade.
    let upgrade = upgrade.map_err(|rejection| Error::BadRequest(format!("this is for websockets: {rejection}")))?;
    let upgrade = upgrade.max_message_size(MESSAGE_LIMIT).max_frame_size(MESSAGE_LIMIT).read_buffer_size(READ_BUFFER);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _held = held;
        let mut viewer = Viewer {
            socket,
            follower: app.follower.clone(),
            ready: app.ready.clone(),
            stopping: app.stopping.clone(),
            pass,
            heard: Instant::now(),
            channels: Vec::new(),
            lists: Vec::new(),
            list_changes: app.follower.list_changes(),
            list_rests: Instant::now(),
        };
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

/// Whose token was taken away while the socket stood, or has a role now that does not reach.
const NOT_LET_IN: Goodbye = Goodbye::Close(close_code::POLICY, "the token of this socket lets nobody in any more");

impl From<anyhow::Error> for Goodbye {
    fn from(error: anyhow::Error) -> Self {
        tracing::error!("a websocket ends: {error:#}");
        Self::Close(close_code::ERROR, "the server failed; its log says why")
    }
}

struct Viewer {
    socket: WebSocket,
    follower: Follower,
    ready: Arc<Ready>,
    stopping: watch::Receiver<bool>,
    /// What the client was let in with.
    pass: Pass,
    /// When the client last sent anything.
    heard: Instant,
    channels: Vec<Channel>,
    /// Numbers of the channels on which it follows the list.
    lists: Vec<Option<u32>>,
    list_changes: watch::Receiver<u64>,
    /// Until when no further change of the list is told.
    list_rests: Instant,
}

/// A run that a client follows.
struct Channel {
    /// Its number; none where the socket is for one run alone.
    number: Option<u32>,
    run: RunId,
    /// Which events are sent, and how.
    wanted: Wanted,
    /// Number of the last event that was sent, or passed over.
    sent: u64,
    /// The run as the client knows it.
    print: u64,
}

impl Viewer {
    /// Serves until the client leaves (`Ok`) or must be sent away.
    async fn serve(&mut self) -> Result<(), Goodbye> {
        let first = self.first().await?;
        // Listen first, then read: an event that comes between the two is announced, and none is missed.
        let mut news = self.follower.listen();
        match first {
            First::One(hello) => {
                let refused = self.open(None, hello).await?;
                refused.map_or(Ok(()), |why| Err(Goodbye::Error(UNKNOWN_RUN, why)))?;
            }
            First::Several(wish) => self.take(wish).await?,
        }
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        loop {
            tokio::select! {
                message = self.socket.recv() => match self.hear(message)? {
                    Heard::Nothing => {}
                    Heard::Wish(wish) => self.take(wish).await?,
                    Heard::Leaving => return Ok(()),
                },
                touched = news.recv() => {
                    let touched = touched.ok_or(Goodbye::Close(close_code::AWAY, "the server stops"))?;
                    for n in 0..self.channels.len() {
                        let Some(state_changed) = touched.of(&self.channels[n].run) else { continue };
                        self.send_events(n).await?;
                        if state_changed {
                            self.send_info(n).await?;
                        }
                    }
                    // It was not listened to meanwhile.
                    self.heard = Instant::now();
                }
                () = changed(&mut self.list_changes, self.list_rests), if !self.lists.is_empty() => {
                    self.list_rests = Instant::now() + LIST_REST;
                    self.tell_lists().await?;
                }
                _ = ping.tick() => {
                    if self.heard.elapsed() > SILENCE {
                        return Err(Goodbye::Gone);
                    }
                    self.send(Message::Ping(Bytes::new())).await?;
                }
                () = self.pass.over() => return Err(NOT_LET_IN),
                () = stopped(&mut self.stopping) => {
                    return Err(Goodbye::Close(close_code::AWAY, "the server stops"));
                }
            }
        }
    }

    /// Waits for the first message.
    async fn first(&mut self) -> Result<First, Goodbye> {
        let late = Goodbye::Close(HELLO_TIMEOUT, "no hello within 5 seconds");
        match timeout(HELLO_TIME, self.socket.recv()).await.map_err(|_| late)? {
            Some(Ok(Message::Text(text))) => First::read(&text).map_err(|why| Goodbye::Error(close_code::POLICY, why)),
            Some(Ok(Message::Close(_))) | None => Err(Goodbye::Gone),
            Some(_) => Err(Goodbye::Close(close_code::POLICY, "the first message must be a hello")),
        }
    }

    /// Takes a message of the client after its first.
    fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<Heard, Goodbye> {
        self.heard = Instant::now();
        let several = self.numbers().all(|number| number.is_some());
        match message {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Heard::Nothing),
            Some(Ok(Message::Close(_))) | None => Ok(Heard::Leaving),
            Some(Ok(Message::Text(text))) if several => {
                Subscription::read(&text).map(Heard::Wish).map_err(|why| Goodbye::Error(close_code::POLICY, why))
            }
            // An error is a broken connection or a message that is too large or malformed; only in the latter cases there
            // is still somebody to read the reason.
            Some(Ok(_) | Err(_)) => Err(Goodbye::Close(close_code::POLICY, "this socket only sends")),
        }
    }

    /// Numbers of its channels, those of lists included.
    fn numbers(&self) -> impl Iterator<Item = Option<u32>> {
        self.channels.iter().map(|channel| channel.number).chain(self.lists.iter().copied())
    }

    /// Begins or ends a channel. One that cannot be is told why, and ended; the others go on.
    async fn take(&mut self, wish: Subscription) -> Result<(), Goodbye> {
        let (channel, hello) = match wish {
            Subscription::Unsubscribe { channel } => {
                self.channels.retain(|c| c.number != Some(channel));
                self.lists.retain(|number| *number != Some(channel));
                return Ok(());
            }
            Subscription::Subscribe { channel, hello } => (channel, hello),
        };
        let refused = if self.numbers().any(|number| number == Some(channel)) {
            return Err(Goodbye::Error(close_code::POLICY, format!("channel {channel} is open already")));
        } else if self.numbers().count() >= MOST_CHANNELS {
            Some(format!("a socket has at most {MOST_CHANNELS} channels"))
        } else {
            self.open(Some(channel), hello).await?
        };
        if let Some(message) = refused {
            self.send_frame(Some(channel), &Frame::Error { message }).await?;
            let end = serde_json::to_string(&Addressed { channel, frame: None }).map_err(anyhow::Error::from)?;
            self.send(Message::Text(end.into())).await?;
        }
        Ok(())
    }

    /// Begins to send a run, from what the client knows already, or to tell of the list; says why where it cannot.
    async fn open(&mut self, number: Option<u32>, hello: Hello) -> Result<Option<String>, Goodbye> {
        if hello.list {
            self.lists.push(number);
            // What the client has of it may be old by now.
            return self.tell_lists().await.map(|()| None);
        }
        let unknown = Some(format!("there is no run {:.64}", hello.run));
        let Ok(run) = hello.run.parse::<RunId>() else { return Ok(unknown) };
        let Some(told) = self.told(run.clone()).await? else { return Ok(unknown) };
        // A client that knows more than the journal saw another journal, and starts again when it sees the snapshot.
        let sent = if hello.after > told.last_seq { 0 } else { hello.after };
        self.send_told(number, "snapshot", &told).await?;
        // The newest come whole: what is said of a run is said of its last steps.
        let behind = usize::try_from(told.last_seq - sent).unwrap_or(usize::MAX);
        let whole = told.last_seq.saturating_sub(FRAME_EVENTS as u64);
        let thinned = Thinned::to(hello.steps, told.steps.min(behind), whole);
        let wanted = Wanted { kinds: hello.kinds, brief: hello.brief, thinned };
        self.channels.push(Channel { number, run, wanted, sent, print: told.print });
        self.send_events(self.channels.len() - 1).await?;
        // A long journal takes a while to send, and the client was not listened to meanwhile.
        self.heard = Instant::now();
        Ok(None)
    }

    /// Sends what the journal of a channel's run holds after what was sent, and advances it.
    async fn send_events(&mut self, n: usize) -> Result<(), Goodbye> {
        loop {
            let Channel { number, run, wanted, sent, .. } = &self.channels[n];
            let extent = self.follower.extent(run).map(|(extent, _)| extent);
            let Some(extent) = extent.filter(|extent| extent.last_seq > *sent) else { return Ok(()) };
            // Beyond what is thinned all who follow are sent the same.
            let wanted = Wanted { thinned: wanted.thinned.filter(|thinned| *sent < thinned.until), ..wanted.clone() };
            let key = Key { run: run.clone(), extent, after: *sent, wanted, channel: *number };
            let follower = self.follower.clone();
            let batch = self.ready.batch(key, move |key| batch(&follower, key)).await?;
            let Batch { last: Some(last), count, ref frames } = *batch else { return Ok(()) };
            self.channels[n].sent = last;
            for frame in frames {
                self.send(Message::Text(frame.clone())).await?;
            }
            if count < FRAME_EVENTS {
                return Ok(());
            }
        }
    }

    /// A run as a whole, if there is one.
    async fn told(&mut self, run: RunId) -> anyhow::Result<Option<Arc<Told>>> {
        let Some(extent) = self.follower.extent(&run) else { return Ok(None) };
        let (follower, id) = (self.follower.clone(), run.clone());
        self.ready.run((run, extent), move || follower.run(&id)).await
    }

    /// Sends the state of a channel's run if it differs from what the client knows.
    async fn send_info(&mut self, n: usize) -> Result<(), Goodbye> {
        let Some(told) = self.told(self.channels[n].run.clone()).await? else { return Ok(()) };
        let Channel { number, print, .. } = &mut self.channels[n];
        let differs = std::mem::replace(print, told.print) != told.print;
        let number = *number;
        if differs { self.send_told(number, "info", &told).await } else { Ok(()) }
    }

    /// Says how often the list has changed by now.
    async fn tell_lists(&mut self) -> Result<(), Goodbye> {
        let changes = *self.list_changes.borrow_and_update();
        for n in 0..self.lists.len() {
            self.send_frame(self.lists[n], &Frame::Changed(changes)).await?;
        }
        Ok(())
    }

    /// [`Frame::Snapshot`] or [`Frame::Info`], whose JSON is there already.
    async fn send_told(&mut self, number: Option<u32>, kind: &str, told: &Told) -> Result<(), Goodbye> {
        let text = format!(r#"{{"{kind}":{{"info":{}}}}}"#, told.info);
        self.send(Message::Text(addressed(text, number).into())).await
    }

    async fn send_frame(&mut self, number: Option<u32>, frame: &Frame) -> Result<(), Goodbye> {
        let text = serde_json::to_string(frame).map_err(anyhow::Error::from)?;
        self.send(Message::Text(addressed(text, number).into())).await
    }

    /// Sends to who is still let in: a long journal takes a while.
    async fn send(&mut self, message: Message) -> Result<(), Goodbye> {
        if self.pass.is_over() { Err(NOT_LET_IN) } else { self.put(message).await }
    }

    async fn put(&mut self, message: Message) -> Result<(), Goodbye> {
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
                if self.send_frame(None, &Frame::Error { message }).await.is_err() {
                    return;
                }
                (code, "see the error before this")
            }
        };
        let _ = self.put(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
        // Closing a connection with unread input resets it, and the client may then not see the reason. So what it still
        // sends is read for a moment.
        let _ = timeout(Duration::from_secs(1), async { while let Some(Ok(_)) = self.socket.recv().await {} }).await;
    }
}

/// What the journal holds after what was sent; blocks on the disk.
fn batch(follower: &Follower, key: &Key) -> anyhow::Result<Batch> {
    let events = follower.events(&key.run, key.after, FRAME_EVENTS)?;
    let (last, count) = (events.last().map(|e| e.seq), events.len());
    let frames = frames(events, &key.wanted, key.channel)?;
    Ok(Batch { last, count, frames: frames.into_iter().map(Into::into).collect() })
}

/// Waits until the list has changed since it was told last, and may be told again.
async fn changed(list: &mut watch::Receiver<u64>, rests: Instant) {
    sleep_until(rests.into()).await;
    // An error would say that nobody follows the runs any more, and the viewer has one who does.
    let _ = list.changed().await;
}

/// What a client says after its first message.
enum Heard {
    Nothing,
    Wish(Subscription),
    Leaving,
}
