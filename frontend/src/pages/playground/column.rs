//! Who answers in a column: a run's policy, or the one that it started from, at once or as the best of several.

use crate::words::t;
use moslim_shared::inference::Source;
use std::fmt;
use std::str::FromStr;

/// Answers among which the best is chosen, where that is chosen.
pub const BEST_OF: usize = 8;

/// Who answers in a column. In the page's address it is `RUN`, `RUN:start`, `RUN:best8` or `RUN:start:best8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub run: String,
    pub source: Source,
    pub best_of: usize,
}

impl Column {
    /// A run's policy.
    pub fn of(run: &str) -> Self {
        Self { run: run.into(), source: Source::Policy, best_of: 1 }
    }

    /// The policy that a run started from.
    pub fn start_of(run: &str) -> Self {
        Self { source: Source::Start, ..Self::of(run) }
    }

    /// Who answers, as one of [`HOW`].
    pub fn how(&self) -> &'static str {
        match (self.source, self.best_of > 1) {
            (Source::Policy, false) => HOW[0],
            (Source::Start, false) => HOW[1],
            (Source::Policy, true) => HOW[2],
            (Source::Start, true) => HOW[3],
        }
    }

    /// The same run, another of its models.
    pub fn with_how(&self, how: &str) -> Self {
        let source = if how.starts_with("start") { Source::Start } else { Source::Policy };
        let best_of = if !how.ends_with("best") { 1 } else { self.best_of.max(BEST_OF) };
        Self { run: self.run.clone(), source, best_of }
    }
}

/// What can answer.
pub const HOW: [&str; 4] = ["policy", "start", "policy-best", "start-best"];

/// What one of [`HOW`] is called.
pub fn called(how: &str) -> &'static str {
    match how {
        "start" => t("what it started from (SFT)"),
        "policy-best" => t("trained policy, best of 8"),
        "start-best" => t("SFT, best of 8"),
        _ => t("the trained policy"),
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.run)?;
        if self.source == Source::Start {
            f.write_str(":start")?;
        }
        if self.best_of > 1 { write!(f, ":best{}", self.best_of) } else { Ok(()) }
    }
}

impl FromStr for Column {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(':');
        let run = parts.next().filter(|run| !run.is_empty()).ok_or(())?;
        let mut column = Self::of(run);
        for part in parts {
            match part.strip_prefix("best") {
                _ if part == "start" => column.source = Source::Start,
                Some(count) => column.best_of = count.parse().ok().filter(|n| (1..=64).contains(n)).ok_or(())?,
                None => return Err(()),
            }
        }
        Ok(column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_stands_in_the_address() {
        for text in ["a-1", "a-1:start", "a-1:best8", "a-1:start:best16"] {
            assert_eq!(text.parse::<Column>().unwrap().to_string(), text);
        }
        for text in ["", ":start", "a:stop", "a:best0", "a:best999", "a:bestx"] {
            assert_eq!(text.parse::<Column>(), Err(()), "{text}");
        }
        let best: Column = "a:best16".parse().unwrap();
        assert_eq!((best.how(), best.with_how("start").to_string().as_str()), ("policy-best", "a:start"));
        assert_eq!(Column::start_of("a").with_how("start-best").to_string(), "a:start:best8");
    }
}
