//! What a study varies, and the runs that this makes.

use crate::config::{Problem, RunConfig, settings};
use crate::method::Budget;
use crate::objective::Objective;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;

/// Runs of one study at most.
pub const MOST_RUNS: usize = 2_000;

/// One setting on an axis: changes to the base configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name in tables and plots.
    pub label: String,
    /// Fields and their values; a field is a path such as `policy.optimizer`, and an object sets the fields that it names.
    pub set: std::collections::BTreeMap<String, Value>,
}

/// What is varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// Name in tables and plots.
    pub name: String,
    pub variants: Vec<Variant>,
}

impl Axis {
    /// An axis of one field.
    pub fn field(name: &str, field: &str, values: &[Value]) -> Self {
        let variant = |v: &Value| Variant {
            label: v.as_str().map_or_else(|| v.to_string(), str::to_string),
            set: [(field.to_string(), v.clone())].into(),
        };
        Self { name: name.into(), variants: values.iter().map(variant).collect() }
    }
}

/// A study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StudyConfig {
    /// Name for people.
    pub name: String,
    /// What it is to answer, in one sentence.
    #[serde(default)]
    pub question: String,
    /// What every run has in common.
    pub base: RunConfig,
    pub axes: Vec<Axis>,
    pub seeds: Vec<u64>,
}

/// A run of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct PlannedRun {
    /// Label per axis.
    pub labels: Vec<String>,
    pub config: RunConfig,
}

/// Changes one field of a configuration that was written as JSON.
fn set(config: &mut Value, path: &str, value: &Value) -> Result<(), String> {
    // The task's name before there were other tasks.
    let modern =
        path.strip_prefix("world").filter(|rest| rest.is_empty() || rest.starts_with('.')).map(|rest| format!("task{rest}"));
    let path = modern.as_deref().unwrap_or(path);
    let mut at = &mut *config;
    for (depth, part) in path.split('.').enumerate() {
        let before = path.split('.').take(depth).collect::<Vec<_>>().join(".");
        let Some(fields) = at.as_object_mut() else { return Err(format!("\"{before}\" has no fields")) };
        let known = fields.keys().cloned().collect::<Vec<_>>().join(", ");
        // One that is left out where it is nothing.
        if !fields.contains_key(part) && settings::find(path).is_some() {
            fields.insert(part.to_string(), Value::Null);
        }
        let place = if before.is_empty() { "the configuration".to_string() } else { format!("\"{before}\"") };
        at = fields.get_mut(part).ok_or_else(|| format!("\"{path}\" names no field; {place} has {known}"))?;
    }
    match value {
        Value::Object(values) if at.is_object() => {
            values.iter().try_for_each(|(field, value)| set(config, &format!("{path}.{field}"), value))
        }
        value => {
            *at = value.clone();
            Ok(())
        }
    }
}

impl StudyConfig {
    /// Settings that are compared: the product of the axes.
    pub fn settings(&self) -> usize {
        self.axes.iter().map(|a| a.variants.len()).product()
    }

    /// Every run: the product of the axes, for each seed. Runs whose configurations are the same are planned once.
    ///
    /// # Errors
    /// Every problem, with its place in the study.
    pub fn plan(&self, objectives: &[Objective]) -> Result<Vec<PlannedRun>, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |field: String, message: String| problems.push(Problem { field, message });
        if self.name.trim().is_empty() || self.name.chars().count() > 120 || self.name.chars().any(char::is_control) {
            problem("name".into(), "must have 1 to 120 printable characters".into());
        }
        if self.seeds.is_empty() {
            problem("seeds".into(), "is empty; name at least one".into());
        }
        let mut named = HashSet::new();
        for (n, seed) in self.seeds.iter().enumerate() {
            if !named.insert(seed) {
                problem(format!("seeds[{n}]"), format!("{seed} is named twice"));
            }
        }
        for (a, axis) in self.axes.iter().enumerate() {
            if axis.variants.is_empty() {
                problem(format!("axes[{a}].variants"), "is empty".into());
            }
        }
        let size = self.axes.iter().map(|a| a.variants.len().max(1)).try_fold(self.seeds.len(), usize::checked_mul);
        if size.is_none_or(|n| n > MOST_RUNS) {
            problem("axes".into(), format!("make more than {MOST_RUNS} runs"));
            // Nothing more is done for what is too much.
            return Err(problems);
        }
        let base = serde_json::to_value(&self.base).expect("a configuration can be written");
        for (a, axis) in self.axes.iter().enumerate() {
            for (v, variant) in axis.variants.iter().enumerate() {
                let mut tried = base.clone();
                for (path, value) in &variant.set {
                    if let Err(message) = set(&mut tried, path, value) {
                        problem(format!("axes[{a}].variants[{v}].set"), message);
                    }
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut combinations: Vec<(Vec<String>, Value)> = vec![(Vec::new(), base)];
        for axis in &self.axes {
            combinations = combinations
                .into_iter()
                .flat_map(|(labels, config)| {
                    axis.variants.iter().map(move |variant| {
                        let mut config = config.clone();
                        for (path, value) in &variant.set {
                            set(&mut config, path, value).expect("tried above");
                        }
                        ([labels.as_slice(), std::slice::from_ref(&variant.label)].concat(), config)
                    })
                })
                .collect();
        }
        let mut runs: Vec<PlannedRun> = Vec::new();
        for seed in &self.seeds {
            for (labels, config) in &combinations {
                let mut config: RunConfig = match serde_json::from_value(config.clone()) {
                    Ok(config) => config,
                    Err(e) => {
                        problems.push(Problem { field: format!("axes ({})", labels.join(", ")), message: e.to_string() });
                        continue;
                    }
                };
                config.seed = *seed;
                config.preset = "custom".into();
                config.name =
                    [std::slice::from_ref(&self.name), labels.as_slice()].concat().join(" · ").chars().take(120).collect();
                if config.method.kind.policies(2, 2) < 2 {
                    config.method.budget = Budget::Total;
                }
                for p in config.problems(objectives) {
                    problems.push(Problem { field: format!("{} ({})", p.field, labels.join(", ")), message: p.message });
                }
                let known = |other: &PlannedRun| RunConfig { name: config.name.clone(), ..other.config.clone() } == config;
                if !runs.iter().any(known) {
                    runs.push(PlannedRun { labels: labels.clone(), config });
                }
            }
        }
        problems.dedup();
        if problems.is_empty() { Ok(runs) } else { Err(problems) }
    }
}
