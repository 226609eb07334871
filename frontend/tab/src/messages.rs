//! What desk, trainer and page tell each other. Every message is text, JSON; where bytes belong to one, it is a list of both.

use js_sys::{Array, Uint8Array};
use moslim_shared::config::RunConfig;
use moslim_shared::event::{Frame, Hello};
use moslim_shared::inference::{GenerateEvent, GenerateRequest, ScoreRequest, Scored};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::MessageEvent;

/// What the page asks of the desk.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// As a request of the API; the answer carries the same number.
    Request {
        number: u64,
        method: String,
        path: String,
        #[serde(default)]
        body: String,
    },
    /// Sends what a run says, as the websocket does, until the page leaves.
    Follow {
        hello: Hello,
    },
    Leave {
        run: String,
    },
    /// The answer to this request is not wanted any more.
    Drop {
        number: u64,
    },
}

/// What the desk tells the page.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
// It is read and used up at once.
#[allow(clippy::large_enum_variant)]
pub enum Told {
    /// It answers from now on. `note`: what people should know of the place where runs are kept.
    Ready {
        note: String,
    },
    /// It cannot work here, and why.
    Failed {
        message: String,
    },
    Answer {
        number: u64,
        status: u16,
        text: String,
    },
    /// A line of an answer that comes line by line; its [`Told::Answer`] ends it.
    Line {
        number: u64,
        text: String,
    },
    Frame {
        run: String,
        frame: Frame,
    },
}

/// What the desk tells the trainer; with the bytes of `files`.
#[derive(Serialize, Deserialize)]
pub struct Training {
    pub run: String,
    pub config: RunConfig,
    pub files: Vec<String>,
}

/// What the trainer tells the desk; bytes belong to [`Kept::Write`] and [`Kept::Append`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// It listens.
    Ready,
    Write {
        path: String,
    },
    Append {
        path: String,
    },
    Remove {
        path: String,
    },
    /// It cannot go on, and why.
    Failed {
        message: String,
    },
    /// The run has ended; how is in its journal.
    Ended,
}

/// What the desk asks of the assistant.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// With the bytes of the files: those of the run that is asked from now on.
    Load {
        run: String,
        files: Vec<String>,
    },
    Generate {
        number: u64,
        request: GenerateRequest,
    },
    Score {
        number: u64,
        request: ScoreRequest,
    },
}

/// What the assistant tells the desk.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Ready,
    /// It cannot begin, and why.
    Failed {
        message: String,
    },
    Event {
        number: u64,
        event: GenerateEvent,
    },
    Scores {
        number: u64,
        scores: Vec<Scored>,
    },
    Refused {
        number: u64,
        message: String,
    },
}

/// A message as it is sent.
pub fn pack(message: &impl Serialize, bytes: &[&[u8]]) -> JsValue {
    let text = JsValue::from(serde_json::to_string(message).unwrap_or_default());
    if bytes.is_empty() {
        return text;
    }
    let all = Array::of1(&text);
    for own in bytes {
        all.push(&Uint8Array::from(*own));
    }
    all.into()
}

/// A message as it comes, and its bytes.
///
/// # Errors
/// When it is none of the kind.
pub fn unpack<T: DeserializeOwned>(event: &MessageEvent) -> Result<(T, Vec<Vec<u8>>), String> {
    let data = event.data();
    let (text, bytes) = match data.dyn_ref::<Array>() {
        Some(all) => (all.get(0).as_string(), all.iter().skip(1).map(|b| b.unchecked_into::<Uint8Array>().to_vec()).collect()),
        None => (data.as_string(), Vec::new()),
    };
    let text = text.ok_or("a message without text")?;
    serde_json::from_str(&text).map(|message| (message, bytes)).map_err(|e| format!("a message was not understood: {e}"))
}
