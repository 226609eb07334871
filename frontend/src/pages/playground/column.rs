//! Who answers in a column: a run's policy, the one that it started from, or one from its way, at once or as the best of several.

use crate::words::t;
use moslim_shared::inference::Source;
use std::fmt;
use std::str::FromStr;

/// Answers among which the best is chosen, where that is chosen.
pub const BEST_OF: usize = 8;

/// Who answers in a column. In the page's address it is `RUN`, `RUN:start`, `RUN:25`, `RUN:best8` or `RUN:start:best8`.
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
        let best = self.best_of > 1;
        HOW.iter().filter(|own| own.1 == self.source).min_by_key(|own| own.2 != best).map_or("policy", |own| own.0)
    }

    /// The same run, another of its models.
    pub fn with_how(&self, how: &str) -> Self {
        let &(_, source, best) = HOW.iter().find(|own| own.0 == how).unwrap_or(&HOW[0]);
        Self { run: self.run.clone(), source, best_of: if best { self.best_of.max(BEST_OF) } else { 1 } }
    }
}

/// A name, who answers, and whether it is the best of several.
type How = (&'static str, Source, bool);

/// What can answer.
pub const HOW: [How; 8] = [
    ("policy", Source::Policy, false),
    ("newest", Source::Newest, false),
    ("start", Source::Start, false),
    ("25", Source::Quarter, false),
    ("50", Source::Half, false),
    ("75", Source::ThreeQuarters, false),
    ("policy-best", Source::Policy, true),
    ("start-best", Source::Start, true),
];

/// What one of [`HOW`] is called.
pub fn called(how: &str) -> &'static str {
    match how {
        "newest" => t("what it has learnt so far"),
        "start" => t("what it started from (SFT)"),
        "25" => t("after a quarter"),
        "50" => t("half-way"),
        "75" => t("after three quarters"),
        "policy-best" => t("trained policy, best of 8"),
        "start-best" => t("SFT, best of 8"),
        _ => t("the trained policy"),
    }
}

/// Whether a run has somebody who answers. `known`: whether it is finished, and its milestones; of one of which nothing is known, that is
/// tried.
pub fn is_offered(source: Source, known: Option<&(bool, Vec<u8>)>) -> bool {
    let Some((finished, milestones)) = known else { return true };
    match source.milestone() {
        Some(share) => milestones.contains(&share),
        None => (source == Source::Newest) != *finished,
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.run)?;
        if self.source != Source::Policy {
            write!(f, ":{}", self.source.id())?;
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
            match (Source::of(part), part.strip_prefix("best")) {
                (Some(source), _) => column.source = source,
                (None, Some(count)) => column.best_of = count.parse().ok().filter(|n| (1..=64).contains(n)).ok_or(())?,
                (None, None) => return Err(()),
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
        for text in ["a-1", "a-1:start", "a-1:25", "a-1:75", "a-1:newest", "a-1:best8", "a-1:start:best16", "a-1:50:best8"] {
            assert_eq!(text.parse::<Column>().unwrap().to_string(), text);
        }
        for text in ["", ":start", "a:stop", "a:20", "a:best0", "a:best999", "a:bestx"] {
            assert_eq!(text.parse::<Column>(), Err(()), "{text}");
        }
        let best: Column = "a:best16".parse().unwrap();
        assert_eq!((best.how(), best.with_how("start").to_string().as_str()), ("policy-best", "a:start"));
        assert_eq!(Column::start_of("a").with_how("start-best").to_string(), "a:start:best8");
        for (how, ..) in HOW {
            assert_eq!(best.with_how(how).how(), how);
        }
        assert_eq!(["a:50:best8", "a:newest:best8"].map(|text| text.parse::<Column>().unwrap().how()), ["50", "newest"]);
    }

    #[test]
    fn a_run_is_offered_what_it_has() {
        let offered = |known: Option<(bool, Vec<u8>)>| {
            let has = |how: &&How| is_offered(how.1, known.as_ref());
            HOW.iter().filter(has).map(|how| how.0).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(offered(Some((true, vec![25, 50, 75]))), "policy start 25 50 75 policy-best start-best");
        assert_eq!(offered(Some((true, vec![]))), "policy start policy-best start-best");
        assert_eq!(offered(Some((false, vec![25]))), "newest 25");
        assert_eq!(offered(None).split(' ').count(), HOW.len());
    }
}
