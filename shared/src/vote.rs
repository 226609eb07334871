//! Votes between two answers, given without knowing whose they are: what the lab writes, and can import again.

use serde::{Deserialize, Serialize};

/// The mapping that imports a file of votes.
pub const MAPPING: &str = "title = \"Votes given in the lab\"\nlicence = \"\"\nprompt = \"prompt\"\nresponse = \"response_{each}\"\n\
    each = [\"a\", \"b\"]\nrater = \"rater\"\n\n[[objectives]]\nid = \"preferred\"\nname = \"Preferred\"\ndescription = \"Which of two \
    answers a person preferred, without knowing whose they are.\"\npreferred_at = \"preferred\"\n";

/// One of the two answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Side {
    A,
    B,
}

/// A vote; a line of a file of votes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Vote {
    pub prompt: String,
    pub response_a: String,
    pub response_b: String,
    /// `None` where neither is better.
    pub preferred: Option<Side>,
    /// Who answered: a run, or what of it.
    pub run_a: String,
    pub run_b: String,
    /// What was asked for.
    pub target: String,
    pub rater: String,
}
