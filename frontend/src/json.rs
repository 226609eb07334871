//! Reading and writing JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Error, Value};

/// Reads JSON by way of a value, as everything on this page does: each further way to read a type is kilobytes of what is sent.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str::<Value>(text).and_then(|value| T::deserialize(&value))
}

/// A value as JSON, likewise.
pub fn written(value: &impl Serialize) -> String {
    serde_json::to_value(value).unwrap_or_default().to_string()
}
