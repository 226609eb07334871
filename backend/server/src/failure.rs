//! How a command fails: the exit codes are a contract.

use moslim_shared::config::Problem;

/// Exit code of a command whose input was good and whose work failed.
pub const RUN_FAILED: u8 = 1;
/// Exit code of a command whose input was bad.
pub const BAD_INPUT: u8 = 2;

/// Why a command failed, in words for people.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The input is at fault; the message names the field.
    #[error("{0}")]
    BadInput(String),
    /// The work itself failed.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// Bad input in one field.
    pub fn field(field: &str, message: impl std::fmt::Display) -> Self {
        Self::BadInput(format!("{field}: {message}"))
    }

    /// Bad input in several fields, one per line.
    pub fn problems(problems: &[Problem]) -> Self {
        let lines: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect();
        Self::BadInput(lines.join("\n"))
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::BadInput(_) => BAD_INPUT,
            Self::Failed(_) => RUN_FAILED,
        }
    }
}

/// A message for a terminal: what a file or a request has put into it moves no cursor and paints nothing.
pub fn printable(message: &str) -> String {
    if !message.contains(acts) {
        return message.to_string();
    }
    let mut shown = String::with_capacity(message.len());
    for c in message.chars() {
        if acts(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Whether a terminal does something at a character, beyond showing it and going to the next line or column.
fn acts(c: char) -> bool {
    let turns = ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c);
    turns || (c.is_control() && c != '\n' && c != '\t')
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(format!("a result could not be written as JSON: {error}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(format!("input or output failed: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn no_message_reaches_the_terminal_as_a_command() {
        let (escape, back) = ('\u{1b}', '\u{202e}');
        assert_eq!(printable(&format!("field {escape}[2Jx{back}:\n\tté")), "field \\u{1b}[2Jx\\u{202e}:\n\tté");
    }
}
