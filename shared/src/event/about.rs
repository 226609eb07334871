//! What a person says of a run.

use crate::config::Problem;
use serde::{Deserialize, Serialize};

/// What a person says of a run; kept in its folder as `about.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct About {
    /// Shown in place of the configuration's name; empty for none.
    pub name: String,
    pub note: String,
    pub tags: Vec<String>,
    /// Whether it was put away: lists leave it out unless it is asked for.
    #[serde(default)]
    pub archived: bool,
}

impl About {
    /// What is wrong with it, with the field.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |field: &str, text: &str, most: usize, lines: bool| {
            let bad = text.chars().any(|c| c.is_control() && !(lines && c == '\n'));
            if text.chars().count() > most || bad {
                let message = format!("is longer than {most} characters, or contains control characters");
                problems.push(Problem { field: field.into(), message });
            }
        };
        check("name", &self.name, 120, false);
        check("note", &self.note, 4000, true);
        self.tags.iter().take(33).enumerate().for_each(|(n, tag)| check(&format!("tags[{n}]"), tag, 40, false));
        if self.tags.len() > 32 {
            problems.push(Problem { field: "tags".into(), message: "are more than 32".into() });
        }
        problems
    }
}
