//! Reads JSON and TOML so that a mistake is told with the path of its field.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use moslim_shared::config::Problem;
use serde::de::DeserializeOwned;

/// What axum writes before the part that is of use.
const DATA_PREFIX: &str = "Failed to deserialize the JSON body into the target type: ";
const SYNTAX_PREFIX: &str = "Failed to parse the request body as JSON: ";

/// Why a text is not what was expected.
#[derive(Debug, PartialEq, Eq)]
pub enum JsonError {
    /// It is not JSON, or not TOML.
    Syntax(String),
    /// It is JSON, and a field is wrong. The field is empty when the document as a whole is.
    Field(Problem),
}

/// Reads a value. axum's reader is used (for files too) because it is the one at hand that keeps field paths.
///
/// # Errors
/// See [`JsonError`].
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    Json::<T>::from_bytes(bytes).map(|Json(value)| value).map_err(|rejection| {
        let text = rejection.body_text();
        if let JsonRejection::JsonDataError(_) = rejection {
            return JsonError::Field(problem(text.strip_prefix(DATA_PREFIX).unwrap_or(&text)));
        }
        JsonError::Syntax(format!("this is not valid JSON: {}", text.strip_prefix(SYNTAX_PREFIX).unwrap_or(&text)))
    })
}

/// Reads a value from TOML, with the same messages.
///
/// # Errors
/// See [`JsonError`].
pub fn read_toml<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let syntax = |e: String| JsonError::Syntax(format!("this is not valid TOML: {e}"));
    let text = std::str::from_utf8(bytes).map_err(|e| syntax(e.to_string()))?;
    let value: serde_json::Value = toml::from_str(text).map_err(|e| syntax(e.to_string()))?;
    read(&serde_json::to_vec(&value).map_err(|e| syntax(e.to_string()))?)
}

/// Splits `policy.prompts: invalid type ...` into field and message. A message without a path has a space before its
/// first colon, or no colon.
fn problem(text: &str) -> Problem {
    let is_path = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "_.[]?-".contains(c));
    match text.split_once(": ").filter(|(path, _)| is_path(path)) {
        Some((path, message)) => Problem { field: path.to_string(), message: message.to_string() },
        None => Problem { field: String::new(), message: text.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::config::RunConfig;

    #[test]
    fn mistakes_name_their_field() {
        let Err(JsonError::Field(problem)) = read::<RunConfig>(br#"{"policy": {"prompts": "many"}}"#) else {
            panic!("a field error was expected")
        };
        assert_eq!(problem.field, "policy.prompts");
        assert!(problem.message.starts_with("invalid type"), "{}", problem.message);
        let Err(JsonError::Field(problem)) = read::<RunConfig>(br#"{"base": {"targets": ["q_proj", "lm_head"]}}"#) else {
            panic!("a field error was expected")
        };
        assert_eq!(problem.field, "base.targets[1]");
        assert!(problem.message.contains("lm_head") && problem.message.contains("`q_proj`, `k_proj`"), "{}", problem.message);
        assert!(matches!(read::<RunConfig>(b"{"), Err(JsonError::Syntax(_))));
        assert!(matches!(read::<RunConfig>(b"3"), Err(JsonError::Field(_))));
        assert_eq!(read::<RunConfig>(b"{}"), Ok(RunConfig::default()));
    }
}
