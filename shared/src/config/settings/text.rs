//! Settings as people read and type them.

use super::{Kind, SECTIONS, SETTINGS, Setting, get};
use crate::config::{AdapterTarget, RunConfig};
use serde::Deserialize;
use serde_json::{Number, Value};
use std::fmt::Write;

/// A value as an input shows it; lists as JSON, and nothing for an empty one.
pub fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::Array(list)) if list.is_empty() => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(Value::Number(n)) => match (n.as_u64(), n.as_f64()) {
            (None, Some(x)) => x.to_string(),
            _ => n.to_string(),
        },
        Some(other) => other.to_string(),
    }
}

/// A value in a few characters.
pub fn brief(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::Array(list) if list.is_empty() => "none".into(),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            list.iter().map(|name| text(Some(name))).collect::<Vec<_>>().join(", ")
        }
        Value::Array(list) => format!("{} entries", list.len()),
        Value::Number(n) => n.as_f64().map_or_else(|| n.to_string(), |x| x.to_string()),
        other => text(Some(other)),
    }
}

/// Reads what was typed; the error is for people.
///
/// # Errors
/// When it is of another type. Whether it is in its range is said by the configuration's problems.
pub fn read(setting: &Setting, typed: &str) -> Result<Value, String> {
    let typed = typed.trim();
    let number = || typed.parse::<f64>().ok().filter(|x| x.is_finite()).and_then(Number::from_f64).map(Value::Number);
    let list = || {
        let read = serde_json::from_str::<Value>(if typed.is_empty() { "[]" } else { typed }).ok().filter(Value::is_array);
        read.ok_or_else(|| format!("\"{typed}\" is not a list such as {}", example(setting.kind)))
    };
    match setting.kind {
        // The name of another run, and the only text that may be left out.
        Kind::Text { .. } if setting.path == "from" && typed.is_empty() => Ok(Value::Null),
        Kind::Text { .. } | Kind::Choice(_) | Kind::Methods | Kind::Optimizers => Ok(Value::from(typed)),
        Kind::Toggle => Ok(Value::from(typed == "true")),
        Kind::Integer { .. } => {
            typed.parse::<u64>().map(Value::from).map_err(|_| format!("\"{typed}\" is not a whole number of 0 or more"))
        }
        Kind::Optional { .. } if typed.is_empty() => Ok(Value::Null),
        Kind::Number { .. } | Kind::Optional { .. } => number().ok_or_else(|| format!("\"{typed}\" is not a number")),
        Kind::PerObjective | Kind::WeightVectors | Kind::Objectives | Kind::Pairs => list(),
        // No configuration can hold another name.
        Kind::Matrices => {
            let names = list()?;
            let other = names.as_array().into_iter().flatten().find(|name| AdapterTarget::deserialize(*name).is_err()).cloned();
            match other {
                Some(other) => Err(format!("{other} is no matrix that can have an adapter; allowed is {}", setting.allowed())),
                None => Ok(names),
            }
        }
    }
}

/// A list of a kind, as it is typed.
fn example(kind: Kind) -> &'static str {
    match kind {
        Kind::WeightVectors => "[[1, 0], [0.5, 0.5]]",
        Kind::Objectives => "[\"helpfulness\"]",
        Kind::Matrices => "[\"q_proj\", \"v_proj\"]",
        Kind::Pairs => r#"[[{"objective": "a", "class": 1}, {"objective": "b", "class": 0}]]"#,
        _ => "[1, 0.5]",
    }
}

/// The documentation of all settings.
pub fn markdown() -> String {
    let defaults = serde_json::to_value(RunConfig::default()).unwrap_or_default();
    let mut out = String::from(
        "# Settings\n\nEvery field of a run's configuration, as `config.toml` names it. This page is written from the table in \
         `shared/src/config/settings/`;\n`UPDATE_DOCS=1 cargo test -p moslim-shared` writes it anew. Depth says where the form shows a \
         field: basic, more, everything.\n",
    );
    for section in SECTIONS {
        let _ = write!(
            out,
            "\n## {}\n\n{}\n\n| field | what it is | unit | allowed | default | used by | depth |\n|---|---|---|---|---|---|---|\n",
            section.title, section.intro
        );
        for s in SETTINGS.iter().filter(|s| s.section == section.id) {
            let default = get(&defaults, s.path).map_or("none".into(), brief);
            let default = if default.is_empty() { "empty".into() } else { default };
            let who = [
                s.methods.iter().map(|m| m.title()).collect::<Vec<_>>().join(", "),
                s.optimizers.iter().map(|o| o.title()).collect::<Vec<_>>().join(", "),
                s.losses.iter().map(super::variant).collect::<Vec<_>>().join(", "),
            ];
            let who: Vec<String> = who.into_iter().filter(|w| !w.is_empty()).collect();
            let who = if who.is_empty() { "all".into() } else { who.join("; ") };
            let _ = writeln!(
                out,
                "| `{}` | **{}.** {} | {} | {} | {default} | {who} | {} |",
                s.path,
                s.title,
                s.help,
                s.unit,
                s.allowed(),
                s.depth.title().to_lowercase()
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    #[test]
    fn what_is_not_of_its_type_is_refused() {
        let read = |path: &str, typed: &str| read(find(path).unwrap(), typed);
        assert!(read("policy.prompts", "-1").is_err() && read("policy.prompts", "1.5").is_err());
        for typed in ["NaN", "", "inf", "1 2", "0x10", "[1]"] {
            assert!(read("policy.clip", typed).is_err(), "{typed}");
        }
        assert_eq!(read("policy.kl_target", " "), Ok(Value::Null));
        for (typed, value) in [(".5", 0.5), ("1e-3", 0.001), ("+2", 2.0), ("3.", 3.0)] {
            assert_eq!(read("policy.clip", typed), Ok(Value::from(value)), "{typed}");
        }
        assert_eq!(read("mapping.weights", ""), Ok(serde_json::json!([])));
        assert!(read("mapping.weights", "1, 2").unwrap_err().contains("[1, 0.5]"));
        assert_eq!(read("from", ""), Ok(Value::Null));
        assert_eq!(read("base.targets", "[\"q_proj\"]"), Ok(serde_json::json!(["q_proj"])));
        assert!(read("base.targets", "q_proj").unwrap_err().contains("[\"q_proj\", \"v_proj\"]"));
        let other = read("base.targets", "[\"q_proj\", \"lm_head\"]").unwrap_err();
        let all = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj";
        assert!(other.starts_with("\"lm_head\"") && other.ends_with(all), "{other}");
    }

    #[test]
    fn names_are_told_and_other_lists_are_counted() {
        let told = [serde_json::json!(["q_proj", "v_proj"]), serde_json::json!([0.5, 0.5]), serde_json::json!([])];
        assert_eq!(told.map(|list| brief(&list)), ["q_proj, v_proj", "2 entries", "none"]);
    }
}
