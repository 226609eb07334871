//! Reading of JSON that keeps only what a mapping asks for: the rest is passed over without being kept.

use crate::datum::Datum;
use crate::path::{Path, Step};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Most entries of a list or an object, and most levels: more is a damaged or hostile file.
const MOST_ENTRIES: usize = 100_000;

/// What of a record is wanted: a tree of keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// Everything below.
    whole: bool,
    /// By name; lists and `*` have one for all their entries.
    keys: Vec<(String, Wanted)>,
    each: Option<Box<Wanted>>,
}

impl Wanted {
    /// Everything.
    pub fn everything() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// What `paths` lead to or through.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut out = Self::default();
        for path in paths {
            out.add(&path.0);
        }
        out
    }

    fn add(&mut self, steps: &[Step]) {
        let Some((step, rest)) = steps.split_first() else {
            self.whole = true;
            return;
        };
        match step {
            // Positions in a list are kept by keeping all of them.
            Step::Answer | Step::All | Step::Index(_) => self.each.get_or_insert_default().add(rest),
            Step::Key(key) => {
                let at = self.keys.iter().position(|(k, _)| k == key).unwrap_or_else(|| {
                    self.keys.push((key.clone(), Self::default()));
                    self.keys.len() - 1
                });
                self.keys[at].1.add(rest);
            }
        }
    }

    /// Reads a JSON text, and keeps what is wanted of it.
    ///
    /// # Errors
    /// When it is no JSON, or something follows it.
    pub fn parse(&self, json: &[u8]) -> Result<Datum, serde_json::Error> {
        let mut from = serde_json::Deserializer::from_slice(json);
        let out = self.deserialize(&mut from)?;
        from.end()?;
        Ok(out)
    }

    /// The keys of a record that are named.
    pub fn first_keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(key, _)| key.as_str())
    }

    /// A text, or the JSON in it where something within is wanted: columns of tables may hold lists.
    pub fn of_text(&self, text: &str) -> Datum {
        let within = !self.whole && (!self.keys.is_empty() || self.each.is_some());
        let parsed = within.then(|| self.parse(text.as_bytes()).ok()).flatten();
        parsed.unwrap_or_else(|| Datum::Text(text.into()))
    }

    /// What is wanted of the entry called `key`.
    pub fn of_key(&self, key: &str) -> Option<&Self> {
        if self.whole {
            return Some(self);
        }
        self.keys.iter().find(|(k, _)| k == key).map(|(_, w)| w).or(self.each.as_deref())
    }

    /// What is wanted of the entries of a list.
    pub fn of_each(&self) -> Option<&Self> {
        if self.whole { Some(self) } else { self.each.as_deref() }
    }
}

/// Reads a key, and keeps it where its entry is wanted.
struct Key<'a>(&'a Wanted);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<(String, &'a Wanted)>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Option<(String, &'a Wanted)>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.of_key(key).map(|wanted| (key.to_string(), wanted)))
    }
}

impl<'de> DeserializeSeed<'de> for &Wanted {
    type Value = Datum;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Datum, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Wanted {
    type Value = Datum;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Datum, E> {
        Ok(Datum::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Datum, E> {
        Ok(Datum::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Datum, E> {
        Ok(Datum::Number(v as f64))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Datum, E> {
        Ok(Datum::Number(v as f64))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Datum, E> {
        Ok(Datum::Number(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Datum, E> {
        Ok(self.of_text(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Datum, A::Error> {
        let mut out = Vec::new();
        let Some(wanted) = self.of_each() else {
            while from.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Datum::List(out));
        };
        while let Some(value) = from.next_element_seed(wanted)? {
            if out.len() >= MOST_ENTRIES {
                return Err(A::Error::custom(format!("a list has more than {MOST_ENTRIES} entries")));
            }
            out.push(value);
        }
        Ok(Datum::List(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Datum, A::Error> {
        let mut out: Vec<(String, Datum)> = Vec::new();
        while let Some(known) = from.next_key_seed(Key(self))? {
            match known {
                Some((key, wanted)) => {
                    if out.len() >= MOST_ENTRIES {
                        return Err(A::Error::custom(format!("an object has more than {MOST_ENTRIES} entries")));
                    }
                    out.push((key, from.next_value_seed(wanted)?));
                }
                None => {
                    from.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Datum::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_is_kept() {
        let paths: Vec<Path> = ["a.b", "list.*.x", "whole"].iter().map(|p| p.parse().unwrap()).collect();
        let wanted = Wanted::of(&paths);
        let json =
            br#"{"a": {"c": [1, {"deep": 2}], "b": 1.5}, "list": [{"x": "1", "y": 2}, {"y": 3}], "whole": {"k": null}, "z": 9}"#;
        let got = wanted.parse(json).unwrap();
        let want = br#"{"a": {"b": 1.5}, "list": [{"x": "1"}, {}], "whole": {"k": null}}"#;
        assert_eq!(got, Wanted::everything().parse(want).unwrap());
        assert!(wanted.parse(b"{} {}").is_err() && wanted.parse(b"{\"a\": ").is_err());
        // Nothing is built of what is passed over, however deep.
        assert!(wanted.parse(format!("{{\"z\": {}1{}}}", "[".repeat(100), "]".repeat(100)).as_bytes()).is_ok());
        assert!(wanted.parse(format!("{{\"whole\": {}1{}}}", "[".repeat(500), "]".repeat(500)).as_bytes()).is_err());
    }
}
