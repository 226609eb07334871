//! The table of settings: for every field of [`RunConfig`] its path, title, help, unit, what it may be, who uses it, and how deep it
//! is on the form. A field that is added is added here; what a stage does with it is not said here.

mod table;
mod text;

pub use table::{SECTIONS, SETTINGS};
pub use text::{brief, markdown, read, text};

use super::models::AdapterTarget;
use super::policy::PolicyOptimizer;
use super::run::{Problem, RunConfig};
use crate::method::Method;
use crate::ordinal::RewardLoss;
use serde::Serialize;
use serde_json::Value;

/// What a field may be, and how it is edited.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A text of at most this many characters, without control characters.
    Text {
        most: usize,
    },
    /// A whole number.
    Integer {
        low: u64,
        high: u64,
    },
    Number {
        low: f64,
        high: f64,
    },
    /// A number, or nothing.
    Optional {
        low: f64,
        high: f64,
    },
    Toggle,
    /// (value, label).
    Choice(&'static [(&'static str, &'static str)]),
    /// One of all methods.
    Methods,
    /// One of all policy optimisers.
    Optimizers,
    /// A list of numbers, one for each objective; empty for none.
    PerObjective,
    /// A list of such lists.
    WeightVectors,
    /// A list of objectives' ids.
    Objectives,
    /// A list of pairs of targets.
    Pairs,
    /// A list of matrices that have adapters: at least one, none twice.
    Matrices,
}

/// How deep a setting is on the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What everybody may want to choose.
    Basic,
    More,
    /// What is rarely touched.
    All,
}

impl Depth {
    /// All depths, the shallowest first.
    pub const ALL: [Self; 3] = [Self::Basic, Self::More, Self::All];

    /// Name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Basic => "Basic",
            Self::More => "More",
            Self::All => "Everything",
        }
    }
}

/// Settings under one heading.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    pub id: &'static str,
    pub title: &'static str,
    pub intro: &'static str,
}

/// One field of a run's configuration.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Path as problems name it, for example `policy.samples_per_prompt`.
    pub path: &'static str,
    /// Id of its section.
    pub section: &'static str,
    pub title: &'static str,
    pub help: &'static str,
    /// Empty where it has none.
    pub unit: &'static str,
    pub kind: Kind,
    pub depth: Depth,
    /// Who uses it; empty lists stand for all.
    pub methods: &'static [Method],
    pub optimizers: &'static [PolicyOptimizer],
    pub losses: &'static [RewardLoss],
}

impl Setting {
    /// Whom it is of no use to, as the configuration stands; `None` when it is used.
    pub fn unused_by(&self, config: &RunConfig) -> Option<&'static str> {
        let (method, optimizer) = (config.method.kind, config.policy.optimizer);
        if !self.methods.is_empty() && !self.methods.contains(&method) {
            Some(method.title())
        } else if !self.optimizers.is_empty() && !self.optimizers.contains(&optimizer) {
            Some(optimizer.title())
        } else if !self.losses.is_empty() && !self.losses.contains(&config.reward_model.loss) {
            Some("this loss")
        } else {
            None
        }
    }

    /// Values and labels of a choice; none for a field that is typed or ticked.
    pub fn options(&self) -> Vec<(String, &'static str)> {
        match self.kind {
            Kind::Choice(list) => list.iter().map(|(value, label)| (value.to_string(), *label)).collect(),
            Kind::Methods => Method::ALL.iter().map(|m| (variant(m), m.title())).collect(),
            Kind::Optimizers => PolicyOptimizer::ALL.iter().map(|o| (variant(o), o.title())).collect(),
            _ => Vec::new(),
        }
    }

    /// What it may be, in words; empty where any value of its type will do.
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Integer { low, high } => format!("{low} to {high}"),
            Kind::Number { low, high } => format!("{low} to {high}"),
            Kind::Optional { low, high } => format!("{low} to {high}, or nothing"),
            Kind::Text { most } => format!("at most {most} characters"),
            Kind::Choice(_) | Kind::Methods | Kind::Optimizers => {
                self.options().into_iter().map(|(value, _)| value).collect::<Vec<_>>().join(", ")
            }
            Kind::Toggle => "true, false".into(),
            Kind::PerObjective => "one number for each objective, or none".into(),
            Kind::WeightVectors => "lists with one number for each steered objective, not negative, sum 1".into(),
            Kind::Objectives => "ids of objectives, or none for all".into(),
            Kind::Pairs => "pairs of targets".into(),
            Kind::Matrices => format!("one or more of {}", AdapterTarget::ALL.map(AdapterTarget::id).join(", ")),
        }
    }

    /// What is wrong with a value by itself.
    fn fault(&self, value: &Value) -> Option<String> {
        let range = |ok: bool, shown: String| (!ok).then(|| format!("is {shown}; allowed is {}", self.allowed()));
        match (self.kind, value) {
            (Kind::Integer { low, high }, v) => {
                let n = v.as_u64();
                range(n.is_some_and(|n| (low..=high).contains(&n)), n.map_or("no whole number".into(), |n| n.to_string()))
            }
            (Kind::Optional { .. }, Value::Null) => None,
            (Kind::Number { low, high } | Kind::Optional { low, high }, v) => {
                // JSON knows no NaN and no infinity, and has nothing in their place.
                let x = v.as_f64();
                range(x.is_some_and(|x| x >= low && x <= high), x.map_or("not a number".into(), |x| x.to_string()))
            }
            (Kind::Text { most }, Value::String(text)) if text.chars().count() > most => {
                Some(format!("is longer than {most} characters"))
            }
            (Kind::Text { .. }, Value::String(text)) if text.chars().any(char::is_control) => {
                Some("contains control characters".into())
            }
            (Kind::Matrices, Value::Array(list)) if list.is_empty() => Some(format!("is empty; allowed is {}", self.allowed())),
            (Kind::Matrices, Value::Array(list)) => {
                let twice = list.iter().enumerate().find(|(n, name)| list[..*n].contains(name));
                twice.map(|(_, name)| format!("names {} twice", text(Some(name))))
            }
            _ => None,
        }
    }
}

/// What JSON calls a variant.
fn variant(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_string)).unwrap_or_default()
}

/// The setting at `path`.
pub fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.path == path)
}

/// Every field of `config` that is wrong by itself.
pub fn problems(config: &RunConfig) -> Vec<Problem> {
    let value = serde_json::to_value(config).unwrap_or_default();
    let fault = |s: &Setting| {
        let message = s.fault(get(&value, s.path).unwrap_or(&Value::Null))?;
        Some(Problem { field: s.path.into(), message })
    };
    SETTINGS.iter().filter_map(fault).collect()
}

/// The JSON pointer of a path.
fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}

/// The value at `path` of a configuration as JSON.
pub fn get<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    value.pointer(&pointer(path))
}

/// Puts `new` at `path`.
pub fn set(value: &mut Value, path: &str, new: Value) {
    if let Some(place) = value.pointer_mut(&pointer(path)) {
        *place = new;
    } else if let Some((parent, field)) = path.rsplit_once('.').or(Some(("", path)))
        && let Some(Value::Object(fields)) = if parent.is_empty() { Some(value) } else { value.pointer_mut(&pointer(parent)) }
    {
        // A field that is left out when it is nothing.
        fields.insert(field.into(), new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A configuration in which nothing is left out.
    fn full() -> Value {
        let mut config = RunConfig { from: Some("a".into()), ..Default::default() };
        (config.policy.clip_high, config.policy.kl_target) = (Some(0.3), Some(2.0));
        (config.mapping.tchebycheff, config.method.rehearsal) = (Some(0.5), Some(0.5));
        config.targets.weighted_share = Some(0.5);
        serde_json::to_value(config).unwrap()
    }

    fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    leaves(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, found);
                }
            }
            _ => {
                found.insert(path.to_string());
            }
        }
    }

    #[test]
    fn every_field_has_one_row_and_every_row_a_field() {
        let mut fields = BTreeSet::new();
        leaves(&full(), "", &mut fields);
        let rows: BTreeSet<String> = SETTINGS.iter().map(|s| s.path.to_string()).collect();
        assert_eq!(rows.len(), SETTINGS.len(), "a path stands twice");
        assert_eq!(fields.difference(&rows).collect::<Vec<_>>(), Vec::<&String>::new(), "fields without a row");
        assert_eq!(rows.difference(&fields).collect::<Vec<_>>(), Vec::<&String>::new(), "rows without a field");
        for s in SETTINGS {
            assert!(SECTIONS.iter().any(|section| section.id == s.section), "{} has no section", s.path);
            assert!(!s.title.is_empty() && s.help.ends_with('.'), "{}", s.path);
        }
    }

    #[test]
    fn every_value_survives_its_own_text_and_every_choice_is_accepted() {
        let value = full();
        for s in SETTINGS {
            let mut copy = value.clone();
            set(&mut copy, s.path, read(s, &text(get(&value, s.path))).unwrap_or_else(|e| panic!("{}: {e}", s.path)));
            assert_eq!(copy, value, "{}", s.path);
            for (option, _) in s.options() {
                set(&mut copy, s.path, Value::from(option.as_str()));
                assert!(serde_json::from_value::<RunConfig>(copy.clone()).is_ok(), "{} = {option}", s.path);
            }
        }
    }

    #[test]
    fn both_ends_of_a_range_are_allowed_and_nothing_beyond() {
        for s in SETTINGS {
            let ends = match s.kind {
                Kind::Integer { low, high } => vec![(low.into(), true), (high.into(), true), ((high + 1).into(), false)],
                Kind::Number { low, high } | Kind::Optional { low, high } => {
                    vec![
                        (low.into(), true),
                        (high.into(), true),
                        ((high * 1.001 + 1e-9).into(), false),
                        ((low - 1e-9).into(), false),
                    ]
                }
                _ => continue,
            };
            for (value, good) in ends {
                assert_eq!(s.fault(&value).is_none(), good, "{} = {value}", s.path);
            }
        }
        let mut config = RunConfig::default();
        config.policy.learning_rate = f64::NAN;
        assert_eq!(problems(&config).iter().map(|p| p.field.as_str()).collect::<Vec<_>>(), ["policy.learning_rate"]);
    }

    /// The paths that are of no use with the defaults, changed by `change`.
    fn unused(change: impl Fn(&mut RunConfig)) -> Vec<&'static str> {
        let mut config = RunConfig::default();
        change(&mut config);
        SETTINGS.iter().filter(|s| s.unused_by(&config).is_some()).map(|s| s.path).collect()
    }

    #[test]
    fn what_a_choice_leaves_without_use_is_known() {
        let rloo = unused(|_| {});
        assert!(rloo.contains(&"policy.ppo.gamma") && rloo.contains(&"policy.dpo.beta") && rloo.contains(&"method.budget"));
        assert!(!rloo.contains(&"policy.clip") && !rloo.contains(&"mapping.function"));
        let dpo = unused(|c| c.policy.optimizer = PolicyOptimizer::OnlineDpo);
        assert!(dpo.contains(&"policy.clip") && dpo.contains(&"policy.kl_coefficient") && !dpo.contains(&"policy.dpo.beta"));
        let grpo = unused(|c| c.policy.optimizer = PolicyOptimizer::Grpo);
        assert!(!grpo.contains(&"policy.aggregation") && !grpo.contains(&"policy.kl_coefficient"));
        let ric = unused(|c| c.method.kind = Method::Ric);
        assert!(ric.contains(&"policy.optimizer") && !ric.contains(&"policy.iterations") && !ric.contains(&"method.ric.batch"));
        let corn = unused(|c| c.reward_model.loss = RewardLoss::Corn);
        assert!(corn.contains(&"reward_model.class_weights") && corn.contains(&"reward_model.label_smoothing"));
    }

    #[test]
    fn the_page_of_settings_is_what_the_table_says() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
        let wanted = markdown();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(file, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(file).unwrap_or_default();
        assert!(found == wanted, "docs/settings.md is stale; UPDATE_DOCS=1 cargo test -p moslim-shared writes it");
    }
}
