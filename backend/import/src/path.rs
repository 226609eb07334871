//! Where in a record something is: keys and positions, one after the other.
//!
//! `a.b` is the entry `b` of the entry `a`; a key with a dot or a comma in it stands in double quotes. `*` is the answer that a row is
//! about: the first `*` of every path of a mapping stands for the same entry. `@` is all entries: of a text they are joined, of a label
//! each is one rater's.

use crate::datum::Datum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// An entry of an object, or a column.
    Key(String),
    /// An entry of a list, from 0.
    Index(usize),
    /// `*`
    Answer,
    /// `@`
    All,
}

/// A path into a record; empty for the record itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(pub Vec<Step>);

/// Longest path, and deepest.
const LONGEST: usize = 1_000;
const DEEPEST: usize = 32;

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("the path {text:?} {what}"));
        if text.is_empty() {
            return wrong("is empty");
        }
        if text.len() > LONGEST {
            return Err(format!("a path of {} bytes is too long; at most {LONGEST} are allowed", text.len()));
        }
        let (mut steps, mut rest) = (Vec::new(), text);
        loop {
            let (step, after) = if let Some(quoted) = rest.strip_prefix('"') {
                let Some((key, after)) = quoted.split_once('"') else { return wrong("has a double quote that does not end") };
                (Step::Key(key.into()), after)
            } else {
                let end = rest.find('.').unwrap_or(rest.len());
                let (own, after) = rest.split_at(end);
                let step = match own {
                    "" => return wrong("has an empty step"),
                    "*" => Step::Answer,
                    "@" => Step::All,
                    digits if digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() < 10 => {
                        Step::Index(digits.parse().unwrap_or(0))
                    }
                    key => Step::Key(key.into()),
                };
                (step, after)
            };
            steps.push(step);
            match after.strip_prefix('.') {
                Some(more) => rest = more,
                None if after.is_empty() => break,
                None => return wrong("has something behind a double quote; a dot belongs there"),
            }
        }
        if steps.len() > DEEPEST {
            return Err(format!("the path {text:?} has {} steps; at most {DEEPEST} are allowed", steps.len()));
        }
        Ok(Self(steps))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(".")?;
            }
            match step {
                Step::Answer => f.write_str("*")?,
                Step::All => f.write_str("@")?,
                Step::Index(n) => write!(f, "{n}")?,
                Step::Key(key) if key.is_empty() || key.contains(['.', '"']) || ["*", "@"].contains(&key.as_str()) => {
                    write!(f, "\"{key}\"")?;
                }
                Step::Key(key) => f.write_str(key)?,
            }
        }
        Ok(())
    }
}

impl Serialize for Path {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which entry a `*` stands for: a key or a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub position: usize,
    pub key: Option<String>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => f.write_str(key),
            None => write!(f, "{}", self.position),
        }
    }
}

/// The entry of `value` that `step` names, where it is one entry.
fn entry<'a>(value: &'a Datum, step: &Step, own: Option<&Entry>) -> Option<&'a Datum> {
    match (value, step, own) {
        (Datum::Object(_), Step::Key(key), _) => value.get(key),
        // A number may be a key, too.
        (Datum::Object(_), Step::Index(n), _) => value.get(&n.to_string()),
        (Datum::List(list), Step::Index(n), _) => list.get(*n),
        (Datum::Object(_), Step::Answer, Some(Entry { key: Some(key), .. })) => value.get(key),
        // One has keys, the other positions: what belongs together has the same place.
        (Datum::Object(all), Step::Answer, Some(entry)) => all.get(entry.position).map(|(_, v)| v),
        (Datum::List(list), Step::Answer, Some(entry)) => list.get(entry.position),
        _ => None,
    }
}

/// All entries of a value, each with its key.
fn entries(value: &Datum) -> Vec<(Entry, &Datum)> {
    match value {
        Datum::Object(all) => {
            all.iter().enumerate().map(|(position, (k, v))| (Entry { position, key: Some(k.clone()) }, v)).collect()
        }
        Datum::List(list) => list.iter().enumerate().map(|(position, v)| (Entry { position, key: None }, v)).collect(),
        _ => Vec::new(),
    }
}

impl Path {
    /// The way to an entry of an entry, and so on.
    pub fn of_keys(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).into())).collect())
    }

    /// How many `*` it has.
    pub fn answers(&self) -> usize {
        self.0.iter().filter(|s| **s == Step::Answer).count()
    }

    /// Whether it has an `@`.
    pub fn has_all(&self) -> bool {
        self.0.contains(&Step::All)
    }

    /// What it leads to, with `own` for its `*`, one after the other; `None` where there is nothing, or where it has an `@`.
    pub fn one<'a>(&self, record: &'a Datum, own: &[Entry]) -> Option<&'a Datum> {
        let mut stars = own.iter();
        self.0.iter().try_fold(record, |value, step| {
            let star = if *step == Step::Answer { stars.next() } else { None };
            entry(value, step, star)
        })
    }

    /// Everything that it leads to: for every `@` all entries, with the last `@`'s entry.
    pub fn all<'a>(&self, record: &'a Datum, own: &[Entry]) -> Vec<(Option<Entry>, &'a Datum)> {
        let mut found: Vec<(Option<Entry>, &Datum)> = vec![(None, record)];
        let mut stars = own.iter();
        for step in &self.0 {
            let star = if *step == Step::Answer { stars.next() } else { None };
            found = found
                .into_iter()
                .flat_map(|(from, value)| match step {
                    Step::All => entries(value).into_iter().map(|(e, v)| (Some(e), v)).collect(),
                    step => entry(value, step, star).map(|v| (from, v)).into_iter().collect::<Vec<_>>(),
                })
                .collect();
        }
        found
    }

    /// Every way in which its `*` can be filled: one for each answer of the record.
    pub fn fillings(&self, record: &Datum) -> Vec<Vec<Entry>> {
        let mut found: Vec<(Vec<Entry>, &Datum)> = vec![(Vec::new(), record)];
        for step in &self.0 {
            found = found
                .into_iter()
                .flat_map(|(own, value)| match step {
                    Step::Answer => entries(value).into_iter().map(|(e, v)| ([own.as_slice(), &[e]].concat(), v)).collect(),
                    step => entry(value, step, None).map(|v| (own, v)).into_iter().collect::<Vec<_>>(),
                })
                .collect();
        }
        found.into_iter().map(|(own, _)| own).collect()
    }

    /// The same, with `{name}` in its keys replaced by `with`.
    pub fn filled(&self, name: &str, with: &str) -> Self {
        let step = |step: &Step| match step {
            Step::Key(key) => Step::Key(key.replace(name, with)),
            other => other.clone(),
        };
        Self(self.0.iter().map(step).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    #[test]
    fn paths_are_read_and_written() {
        for text in ["a", "a.b.0", "summaries.*.dimensions.Fluency", "fl.*.@", "category.\"drug_abuse,weapons.x\""] {
            assert_eq!(path(text).to_string(), text);
        }
        assert_eq!(path("\"*\".*").0, [Step::Key("*".into()), Step::Answer]);
        for (text, words) in
            [("", "is empty"), ("a..b", "an empty step"), ("\"a", "does not end"), ("\"a\"b", "behind a double quote")]
        {
            assert!(text.parse::<Path>().unwrap_err().contains(words), "{text}");
        }
        assert!("a.".repeat(40).trim_end_matches('.').parse::<Path>().unwrap_err().contains("at most 32"));
    }

    #[test]
    fn a_star_is_the_same_answer_everywhere_and_an_at_is_everything() {
        let text = |t: &str| Datum::Text(t.into());
        let object = |all: &[(&str, Datum)]| Datum::Object(all.iter().map(|(k, v)| (k.to_string(), v.clone())).collect());
        let numbers = |all: [f64; 2]| Datum::List(all.map(Datum::Number).to_vec());
        let record = object(&[
            ("texts", object(&[("y", text("first")), ("x", text("second"))])),
            ("marks", Datum::List(vec![numbers([1.0, 2.0]), numbers([3.0, 4.0])])),
            ("by", object(&[("y", object(&[("fluent", Datum::Number(5.0))]))])),
        ]);
        let own = path("texts.*").fillings(&record);
        assert_eq!(own.iter().map(|o| o[0].to_string()).collect::<Vec<_>>(), ["y", "x"], "in the order of the file");
        assert_eq!(path("texts.*").one(&record, &own[1]), Some(&Datum::Text("second".into())));
        // A list beside an object: by position.
        let marks: Vec<_> = path("marks.*.@").all(&record, &own[1]).into_iter().map(|(e, v)| (e.unwrap().position, v)).collect();
        assert_eq!(marks, [(0, &Datum::Number(3.0)), (1, &Datum::Number(4.0))]);
        assert_eq!(path("by.*.fluent").one(&record, &own[0]), Some(&Datum::Number(5.0)));
        assert_eq!(path("by.*.fluent").one(&record, &own[1]), None);
        assert_eq!(path("marks.1.0").one(&record, &[]), Some(&Datum::Number(3.0)));
        assert_eq!(path("texts.@").all(&record, &[]).len(), 2);
        assert!(path("texts.@").one(&record, &[]).is_none());
        assert_eq!(path("response_{n}").filled("{n}", "1"), path("response_1"));
    }
}
