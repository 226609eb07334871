//! What client and server say on the websocket.

use super::{Event, RunInfo};
use serde::{Deserialize, Serialize};

/// First message of a websocket client: which run, and what it has already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub run: String,
    /// Sequence number of the last event that the client holds; 0 for none.
    #[serde(default)]
    pub after: u64,
}

/// What the server sends on the websocket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)]
pub enum Frame {
    /// State of the run when the client joined; events up to `info.last_seq` follow in `events` frames.
    Snapshot { info: RunInfo },
    /// Events in sequence, without a gap to what was sent before.
    Events { events: Vec<Event> },
    /// The run's state changed (it ended, or was resumed).
    Info { info: RunInfo },
    /// Nothing more will come, and why.
    Error { message: String },
}
