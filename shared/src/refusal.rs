//! What a request is answered that cannot be served: a problem document (RFC 9457).

use crate::config::Problem;
use serde::{Deserialize, Serialize};

/// Media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Every error of the API: what was wrong, where, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ApiError {
    /// `about:blank`: the status says what kind of error it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The status of HTTP.
    pub status: u16,
    /// What was wrong with this request, and what is allowed.
    pub detail: String,
    /// Problems of a configuration, with the path of each field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// Where the server failed: the id of the request, under which its log says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

impl ApiError {
    pub fn new(status: u16, detail: impl Into<String>, problems: Vec<Problem>) -> Self {
        let title = title(status).into();
        Self { kind: "about:blank".into(), title, status, detail: detail.into(), problems, request: None }
    }
}

/// What a status is called (RFC 9110).
fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_problem_document() {
        let error = ApiError::new(404, "there is no run a", Vec::new());
        let text = serde_json::to_string(&error).unwrap();
        assert_eq!(text, r#"{"type":"about:blank","title":"Not Found","status":404,"detail":"there is no run a"}"#);
        assert_eq!(serde_json::from_str::<ApiError>(&text).unwrap(), error);
        let failed = ApiError { request: Some("7f3a".into()), ..error };
        let text = serde_json::to_string(&failed).unwrap();
        assert!(text.ends_with(r#","request":"7f3a"}"#), "{text}");
        assert_eq!(serde_json::from_str::<ApiError>(&text).unwrap(), failed);
    }
}
