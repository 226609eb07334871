//! The fields of a run's configuration: how each is named, shown, read and compared. Which there are is in
//! `settings`.

use moslim_shared::config::{PolicyOptimizer, RunConfig};
use moslim_shared::method::Method;
use serde::Serialize;
use serde_json::{Number as JsonNumber, Value, json};

/// How a field is edited.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Text,
    /// A whole number, 0 or more.
    Integer,
    Number,
    /// A number, or nothing.
    Optional,
    Toggle,
    /// (value, label).
    Choice(&'static [(&'static str, &'static str)]),
    /// One of all methods.
    Methods,
    /// One of all policy optimisers.
    Optimizers,
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field {
    /// Path as problems name it, for example `policy.samples_per_prompt`.
    pub path: &'static str,
    pub label: &'static str,
    pub help: &'static str,
    pub kind: Kind,
}

/// Fields under one heading.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    pub id: &'static str,
    pub title: &'static str,
    pub intro: &'static str,
    pub fields: &'static [Field],
}

/// A field, written on one line.
pub const fn f(path: &'static str, label: &'static str, kind: Kind, help: &'static str) -> Field {
    Field { path, label, help, kind }
}

/// Values and labels of a choice; none for a field that is typed or ticked.
pub fn options(kind: Kind) -> Vec<(String, &'static str)> {
    match kind {
        Kind::Choice(list) => list.iter().map(|(value, label)| (value.to_string(), *label)).collect(),
        Kind::Methods => Method::ALL.iter().map(|m| (variant(m), m.title())).collect(),
        Kind::Optimizers => PolicyOptimizer::ALL.iter().map(|o| (variant(o), o.title())).collect(),
        _ => Vec::new(),
    }
}

/// What JSON calls a variant.
fn variant<T: Serialize>(value: &T) -> String {
    json!(value).as_str().unwrap_or_default().to_string()
}

/// The element that edits `path`; a problem inside of a list leads to the list.
pub fn element_id(path: &str) -> String {
    let head = path.split('[').next().unwrap_or(path);
    format!("field-{}", head.replace('.', "-"))
}

/// The JSON pointer of a path.
fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}

/// The value at `path`.
pub fn get<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    value.pointer(&pointer(path))
}

/// Puts `new` at `path`.
pub fn set(value: &mut Value, path: &str, new: Value) {
    if let Some(place) = value.pointer_mut(&pointer(path)) {
        *place = new;
    }
}

/// A value as an input shows it.
pub fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(Value::Bool(b)) => b.to_string(),
        Some(Value::Number(n)) => match (n.as_u64(), n.as_f64()) {
            (Some(n), _) => n.to_string(),
            (None, x) => x.map(|x| x.to_string()).unwrap_or_default(),
        },
        // These have editors of their own.
        Some(Value::Array(_) | Value::Object(_)) => String::new(),
    }
}

/// Reads what was typed; the error is for people.
pub fn read(kind: Kind, typed: &str) -> Result<Value, String> {
    let typed = typed.trim();
    match kind {
        Kind::Text | Kind::Choice(_) | Kind::Methods | Kind::Optimizers => Ok(Value::from(typed)),
        Kind::Toggle => Ok(Value::from(typed == "true")),
        Kind::Integer => {
            typed.parse::<u64>().map(Value::from).map_err(|_| format!("\"{typed}\" is not a whole number of 0 or more"))
        }
        Kind::Optional if typed.is_empty() => Ok(Value::Null),
        Kind::Number | Kind::Optional => decimal(typed).ok_or_else(|| format!("\"{typed}\" is not a number")),
    }
}

/// Reads a decimal number, also one that JSON wants written otherwise, such as `.5`.
fn decimal(typed: &str) -> Option<Value> {
    // What is not finite has no form in JSON.
    JsonNumber::from_f64(typed.parse().ok()?).map(Value::Number)
}

/// Paths whose values differ, with both values as text.
pub fn differences(old: &RunConfig, new: &RunConfig) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    compare("", &json!(old), &json!(new), &mut found);
    found
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<(String, String, String)>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in b {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&below, a.get(key).unwrap_or(&Value::Null), value, found);
            }
        }
        _ if old == new => {}
        _ => found.push((path.to_string(), brief(old), brief(new))),
    }
}

fn brief(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::Array(list) => format!("{} entries", list.len()),
        other => text(Some(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_refused() {
        assert!(read(Kind::Integer, "-1").is_err());
        assert!(read(Kind::Integer, "1.5").is_err());
        assert!(read(Kind::Number, "NaN").is_err());
        assert!(read(Kind::Number, "").is_err());
        assert_eq!(read(Kind::Optional, " "), Ok(Value::Null));
        assert_eq!(read(Kind::Number, "1e-3"), Ok(Value::from(0.001)));
        for (typed, value) in [(".5", 0.5), ("-.5", -0.5), ("+2", 2.0), ("3.", 3.0), ("00.25", 0.25), ("0", 0.0), ("7E2", 700.0)]
        {
            assert_eq!(read(Kind::Number, typed), Ok(Value::from(value)), "{typed}");
        }
        for typed in [".", "-", "e5", "--1", "1..", "inf", "1 2", "0x10", "[1]"] {
            assert!(read(Kind::Number, typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn differences_name_the_path() {
        let mut new = RunConfig::default();
        new.policy.iterations = 7;
        new.policy.kl_target = Some(2.0);
        let found = differences(&RunConfig::default(), &new);
        assert_eq!(
            found,
            [
                ("policy.iterations".to_string(), "200".to_string(), "7".to_string()),
                ("policy.kl_target".to_string(), "none".to_string(), "2".to_string()),
            ]
        );
    }

    #[test]
    fn methods_and_optimisers_are_offered_as_the_trainer_names_them() {
        let all = options(Kind::Methods);
        assert_eq!((all.len(), all[0].clone()), (Method::ALL.len(), ("moslim".to_string(), "MOSLIM")));
        assert!(options(Kind::Optimizers).contains(&("reinforce_plus_plus".to_string(), "REINFORCE++")));
        assert!(options(Kind::Number).is_empty());
    }

    #[test]
    fn problems_lead_to_elements() {
        assert_eq!(element_id("policy.samples_per_prompt"), "field-policy-samples_per_prompt");
        assert_eq!(element_id("targets.held_out[0][1].class"), "field-targets-held_out");
    }
}
