//! What differs between two configurations.

use super::run::RunConfig;
use super::settings::brief;
use serde_json::Value;

/// A field whose values differ, both as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub path: String,
    pub old: String,
    pub new: String,
}

/// Every field in which `new` differs from `old`.
pub fn differences(old: &RunConfig, new: &RunConfig) -> Vec<Difference> {
    let mut found = Vec::new();
    let json = |config: &RunConfig| serde_json::to_value(config).unwrap_or_default();
    compare("", &json(old), &json(new), &mut found);
    found
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<Difference>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in b {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&below, a.get(key).unwrap_or(&Value::Null), value, found);
            }
        }
        _ if old == new => {}
        _ => found.push(Difference { path: path.to_string(), old: brief(old), new: brief(new) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_path() {
        let mut new = RunConfig::default();
        new.policy.iterations = 7;
        new.policy.kl_target = Some(2.0);
        let found = differences(&RunConfig::default(), &new);
        let shown: Vec<_> = found.iter().map(|d| (d.path.as_str(), d.old.as_str(), d.new.as_str())).collect();
        assert_eq!(shown, [("policy.iterations", "200", "7"), ("policy.kl_target", "none", "2")]);
        assert!(differences(&new, &new).is_empty());
    }
}
