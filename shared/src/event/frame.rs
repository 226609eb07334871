//! What client and server say on the websocket.

use super::{Event, RunInfo};
use serde::de::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which run a client follows, and what it has already; or that it follows the list of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Empty where it is for the list.
    #[serde(default)]
    pub run: String,
    /// Whether it is for the list: the client is told when that has changed, and the rest of this means nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub list: bool,
    /// Sequence number of the last event that the client holds; 0 for none.
    #[serde(default)]
    pub after: u64,
    /// Kinds of events that it wants, as the journal calls them; empty for all.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// Whether steps of the policy are to be shortened (`PolicyStep::shorten`): who draws curves of many runs needs no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brief: bool,
    /// Of the policy's steps that were said before, at most about so many, evenly, and the last; 0 for all. What comes later comes whole.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Hello {
    /// Refuses one that is for nothing, or for two things.
    fn check(&self) -> serde_json::Result<()> {
        let sound = self.list == self.run.is_empty();
        sound.then_some(()).ok_or_else(|| Error::custom("a hello has either \"run\", or \"list\": true"))
    }
}

/// What a client says on a websocket over which it follows several runs, or the list of them, each on a channel that it numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subscription {
    Subscribe { channel: u32, hello: Hello },
    Unsubscribe { channel: u32 },
}

impl Subscription {
    /// Reads what a client says after its first message.
    ///
    /// # Errors
    /// When it is no subscription; the message is for the client.
    pub fn read(text: &str) -> Result<Self, String> {
        let wrong = |e: serde_json::Error| format!("only subscriptions are understood: {e}");
        let said: Self = serde_json::from_str(text).map_err(wrong)?;
        if let Self::Subscribe { hello, .. } = &said {
            hello.check().map_err(wrong)?;
        }
        Ok(said)
    }
}

/// What a client says first on a websocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// The socket is for one run, or for the list alone.
    One(Hello),
    Several(Subscription),
}

impl First {
    /// Reads a client's first message.
    ///
    /// # Errors
    /// When it is neither; the message is for the client, and says what it may be.
    pub fn read(text: &str) -> Result<Self, String> {
        let wrong = |e: serde_json::Error| {
            format!("the first message must be {{\"run\", \"after\"}}, or {{\"subscribe\": {{\"channel\", \"hello\"}}}}: {e}")
        };
        let value: Value = serde_json::from_str(text).map_err(wrong)?;
        let first = match value.get("subscribe").is_some() {
            true => serde_json::from_value(value).map(Self::Several),
            false => serde_json::from_value(value).map(Self::One),
        };
        let first = first.map_err(wrong)?;
        if let Self::One(hello) | Self::Several(Subscription::Subscribe { hello, .. }) = &first {
            hello.check().map_err(wrong)?;
        }
        Ok(first)
    }
}

/// What the server sends on such a websocket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Addressed {
    pub channel: u32,
    /// None: nothing more will come on this channel.
    pub frame: Option<Frame>,
}

/// What the server sends on the websocket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)]
pub enum Frame {
    /// State of the run when the client joined; events up to `info.last_seq` follow in `events` frames.
    Snapshot { info: RunInfo },
    /// Events in sequence, without a gap to what was sent before but for kinds that were not wanted.
    Events { events: Vec<Event> },
    /// The run's state changed (it ended, or was resumed).
    Info { info: RunInfo },
    /// The list of runs may differ from what the client has: how often it has changed since the server began.
    Changed(u64),
    /// Nothing more will come, and why.
    Error { message: String },
}
