//! Finished runs that are asked over the API.

use crate::Lab;
use moslim_shared::inference::{GenerateEvent, Scored};
use serde_json::Value;

/// The events that answer a request.
///
/// # Panics
/// When it is refused.
pub async fn generate(lab: &Lab, run: &str, request: Value) -> Vec<GenerateEvent> {
    let answer = lab.post(&format!("/api/v1/runs/{run}/generate"), &request).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let lines = answer.body.as_str().expect("lines of JSON").lines();
    lines.map(|line| serde_json::from_str(line).expect("an event")).collect()
}

/// Texts and scores of the answers.
///
/// # Panics
/// When one has no scores.
pub fn answers(events: &[GenerateEvent]) -> Vec<(String, Scored)> {
    let answer = |event: &GenerateEvent| match event {
        GenerateEvent::Answer { text, scored, .. } => Some((text.clone(), scored.clone().expect("scores"))),
        _ => None,
    };
    events.iter().filter_map(answer).collect()
}
