//! Studies: a base configuration, axes along which it is varied, and seeds; what came of every run, and of all runs that
//! differ in nothing but their seed.

use crate::config::{PolicyConfig, PolicyOptimizer, Problem, RunConfig};
use crate::method::{Budget, Method};
use crate::objective::Objective;
use crate::presets;
use crate::summary::RunSummary;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Runs of one study at most.
pub const MOST_RUNS: usize = 2_000;

/// One setting on an axis: changes to the base configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name in tables and plots.
    pub label: String,
    /// Fields and their values; a field is a path such as `policy.optimizer`, and an object sets the fields that it names.
    pub set: std::collections::BTreeMap<String, Value>,
}

/// What is varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
pub struct PlannedRun {
    /// Label per axis.
    pub labels: Vec<String>,
    pub config: RunConfig,
}

/// Changes one field of a configuration that was written as JSON.
fn set(config: &mut Value, path: &str, value: &Value) -> Result<(), String> {
    let mut at = config;
    for (depth, part) in path.split('.').enumerate() {
        let before = path.split('.').take(depth).collect::<Vec<_>>().join(".");
        let Some(fields) = at.as_object_mut() else { return Err(format!("\"{before}\" has no fields")) };
        let known = fields.keys().cloned().collect::<Vec<_>>().join(", ");
        let place = if before.is_empty() { "the configuration".to_string() } else { format!("\"{before}\"") };
        at = fields.get_mut(part).ok_or_else(|| format!("\"{path}\" names no field; {place} has {known}"))?;
    }
    match (at, value) {
        (at, Value::Object(values)) if at.is_object() => {
            for (field, value) in values {
                set(at, field, value).map_err(|e| format!("{path}: {e}"))?;
            }
        }
        (at, value) => *at = value.clone(),
    }
    Ok(())
}

impl StudyConfig {
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
        for (n, seed) in self.seeds.iter().enumerate() {
            if self.seeds[..n].contains(seed) {
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
        }
        let base = serde_json::to_value(&self.base).expect("a configuration can be written");
        for (a, axis) in self.axes.iter().enumerate() {
            for (v, variant) in axis.variants.iter().enumerate() {
                for (path, value) in &variant.set {
                    if let Err(message) = set(&mut base.clone(), path, value) {
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

/// Ids of the shipped studies.
pub const PRESETS: [&str; 5] = ["methods", "optimisers", "mappings", "reward-size", "stages"];

/// A shipped study over `base`, if `id` is one of [`PRESETS`].
pub fn preset(id: &str, base: RunConfig, seeds: Vec<u64>) -> Option<StudyConfig> {
    let variant = |label: &str, field: &str, value: Value| Variant { label: label.into(), set: [(field.into(), value)].into() };
    let (question, axes) = match id {
        "methods" => {
            let mut kinds = Method::ALL.map(|m| Variant { label: m.title().into(), set: suited(m, &base) }).to_vec();
            kinds.insert(1, after_preference_sft(&base, base.sft.steps));
            let budgets = [("equal in total", Budget::Total), ("equal per policy", Budget::PerPolicy)];
            (
                "Does one tag-steered policy beat the methods that train many, at an equal budget?",
                vec![
                    Axis { name: "method".into(), variants: kinds },
                    Axis {
                        name: "budget".into(),
                        variants: budgets.map(|(label, b)| variant(label, "method.budget", json!(b))).to_vec(),
                    },
                ],
            )
        }
        "optimisers" => {
            let variants = PolicyOptimizer::ALL.map(|o| variant(o.title(), "policy", tuned(o, &base.policy)));
            (
                "Which policy optimiser gets furthest on the same samples?",
                vec![Axis { name: "optimiser".into(), variants: variants.to_vec() }],
            )
        }
        "mappings" => {
            let variants = [
                ("p[t]", json!({"function": "moslim"})),
                ("p[t], one deviation a head", json!({"function": "moslim", "pooling": "head"})),
                ("p[t], running", json!({"function": "moslim", "pooling": "running"})),
                ("p[t], group", json!({"function": "moslim", "pooling": "group"})),
                ("p[t], divided by k", json!({"function": "moslim", "divisor": "objectives"})),
                ("log p[t]", json!({"function": "log"})),
                ("expected class", json!({"function": "expected"})),
                ("ranked probability", json!({"function": "ranked_probability"})),
                ("argmax", json!({"function": "argmax"})),
            ];
            let variants = variants.map(|(label, value)| variant(label, "mapping", value));
            (
                "How should class distributions become one scalar?",
                vec![Axis { name: "mapping".into(), variants: variants.to_vec() }],
            )
        }
        "reward-size" => {
            let sizes = [
                ("16 wide", 1, 16, 2, 1, 32),
                ("32 wide", 1, 32, 2, 1, 64),
                ("64 wide", 2, 64, 4, 2, 172),
                ("96 wide", 2, 96, 4, 2, 256),
            ];
            let variants = sizes.map(|(label, layers, d_model, heads, kv_heads, d_ff)| {
                let trunk = json!({"layers": layers, "d_model": d_model, "heads": heads, "kv_heads": kv_heads, "d_ff": d_ff});
                Variant {
                    label: label.into(),
                    set: [("reward_from_sft".into(), json!(false)), ("reward_trunk".into(), trunk)].into(),
                }
            });
            (
                "Does a bigger reward model give a better policy?",
                vec![Axis { name: "reward model".into(), variants: variants.to_vec() }],
            )
        }
        "stages" => {
            let steps = base.sft.steps;
            let variants = [
                variant("no preference SFT", "method.preference_sft", json!(0)),
                Variant { label: "preference SFT first".into(), ..after_preference_sft(&base, steps) },
            ];
            let rewards = [
                ("shared classifier", json!({})),
                ("one model each", json!({"separate": true})),
                ("regression", json!({"loss": "regression"})),
            ];
            let rewards = rewards.map(|(label, value)| variant(label, "reward_model", value));
            (
                "Is preference SFT worth its share of the budget, and is one classifying reward model as good as several or as regression?",
                vec![
                    Axis { name: "SFT".into(), variants: variants.to_vec() },
                    Axis { name: "reward model".into(), variants: rewards.to_vec() },
                ],
            )
        }
        _ => return None,
    };
    Some(StudyConfig { name: id.into(), question: question.into(), base, axes, seeds })
}

/// MOSLIM after `steps` of preference SFT, for about as many token passes as without.
fn after_preference_sft(base: &RunConfig, steps: usize) -> Variant {
    // Fewer steps where the budget is small: two fifths of it are for policy optimisation.
    let affordable = (0..=steps).rev().find(|&s| 5 * spent(base, s) <= 3 * budget(base, 25)).unwrap_or(0);
    let set = [
        ("method.kind", json!(Method::Moslim)),
        ("method.preference_sft", json!(affordable)),
        ("policy.iterations", json!(iterations_left(base, affordable))),
    ];
    let set = set.map(|(field, value)| (field.to_string(), value)).into();
    Variant { label: "MOSLIM after preference SFT".into(), set }
}

/// Token passes of policy optimisation whose answers have this many tokens.
fn budget(base: &RunConfig, answer: usize) -> usize {
    let c = &base.policy;
    c.iterations * c.prompts * (20 + answer * c.samples_per_prompt) * (3 + 3 * c.epochs)
}

/// Token passes of `steps` of preference SFT, with the reward model's reading of every training row.
fn spent(base: &RunConfig, steps: usize) -> usize {
    if steps == 0 { 0 } else { steps * base.method.ric.batch * 45 * 3 + base.world.rows * 4 / 5 * 45 }
}

/// Iterations that `steps` of preference SFT leave of a budget. Tokens are guesses that fit what `quick` takes: 45 in a row;
/// answers of 25 in policy optimisation that begins with SFT, of 39 in one that begins with preference SFT.
fn iterations_left(base: &RunConfig, steps: usize) -> usize {
    if steps == 0 {
        return base.policy.iterations;
    }
    let left = budget(base, 25).saturating_sub(spent(base, steps));
    (left * base.policy.iterations / budget(base, 39).max(1)).max(1)
}

/// What suits a method best at the size of `quick`: of the eight settings that each method was tried with, on validation
/// questions with seed 4 (`docs/studies/tuning.json`), the one with the highest mean of hit rate and expected utility (with chosen prompts).
fn suited(method: Method, base: &RunConfig) -> std::collections::BTreeMap<String, Value> {
    let c = &base.policy;
    let own: Vec<(&str, Value)> = match method {
        Method::Moslim => vec![("targets.active_probability", json!(0.35))],
        Method::Morlhf => vec![
            ("policy.prompts", json!((c.prompts / 2).max(1))),
            ("policy.iterations", json!(c.iterations * 2)),
            ("policy.minibatches", json!(c.minibatches.min((c.prompts / 2).max(1)))),
        ],
        Method::RewardedSoups => vec![("policy.learning_rate", json!(c.learning_rate / 2.0))],
        Method::Ric | Method::RicClass => vec![("method.ric.batch", json!((base.method.ric.batch / 2).max(1)))],
        Method::TaggedSft | Method::BestOfN => Vec::new(),
    };
    std::iter::once(("method.kind", json!(method))).chain(own).map(|(field, value)| (field.to_string(), value)).collect()
}

/// Settings in which an optimiser differs from the base, which was chosen for RLOO: GRPO's advantages are about 2.5 times as
/// large, and its KL coefficient with them; DAPO has no KL to hold it; the preference losses are steeper, and spend the same
/// samples on two answers to each of more prompts.
fn tuned(optimizer: PolicyOptimizer, base: &PolicyConfig) -> Value {
    use PolicyOptimizer::{Dapo, DrGrpo, Grpo, OnlineDpo, OnlineIpo, Ppo, ReinforcePlusPlus, Rloo};
    let prompts = (base.prompts * base.samples_per_prompt / 2).max(1);
    match optimizer {
        Rloo => json!({"optimizer": "rloo"}),
        Grpo => json!({"optimizer": "grpo", "learning_rate": 5e-4, "kl_coefficient": 0.125}),
        DrGrpo => json!({"optimizer": "dr_grpo", "learning_rate": 5e-4}),
        Dapo => json!({"optimizer": "dapo", "clip_high": 0.28, "learning_rate": 3e-4}),
        ReinforcePlusPlus => json!({"optimizer": "reinforce_plus_plus"}),
        Ppo => json!({"optimizer": "ppo"}),
        OnlineDpo => json!({
            "optimizer": "online_dpo", "prompts": prompts, "samples_per_prompt": 2, "learning_rate": 5e-4, "dpo": {"beta": 0.3}
        }),
        OnlineIpo => json!({"optimizer": "online_ipo", "prompts": prompts, "samples_per_prompt": 2, "dpo": {"beta": 0.1}}),
    }
}

/// Every shipped study, for lists.
pub fn preset_list() -> Vec<StudyPreset> {
    let base = presets::find("quick").expect("a shipped preset").config;
    let studies = PRESETS.iter().filter_map(|id| preset(id, base.clone(), vec![1]));
    studies.map(|s| StudyPreset { id: s.name, question: s.question }).collect()
}

/// A figure of a run.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub id: &'static str,
    /// Heading in tables.
    pub title: &'static str,
    pub of: fn(&RunSummary) -> f64,
}

/// Mean over the heads of the reward model.
fn mean_qwk(s: &RunSummary) -> f64 {
    s.reward_model.heads.iter().map(|h| h.qwk).sum::<f64>() / s.reward_model.heads.len().max(1) as f64
}

/// The figures that studies compare, in the order of their tables.
pub const METRICS: [Metric; 18] = [
    Metric { id: "hypervolume", title: "hypervolume", of: |s| s.front.hypervolume },
    Metric { id: "expected_utility", title: "expected utility", of: |s| s.front.expected_utility.unwrap_or(0.0) },
    Metric { id: "served_utility", title: "expected utility, chosen prompts", of: |s| s.front.served_utility() },
    Metric { id: "spearman", title: "rank correlation", of: |s| s.control.policy.mean_spearman() },
    Metric { id: "hit_rate", title: "hit rate", of: |s| s.control.policy.mean_hit_rate() },
    Metric { id: "joint_hit_rate", title: "all asked met", of: |s| s.control.policy.joint_hit_rate },
    Metric { id: "held_out_hit_rate", title: "held-out pairs", of: |s| s.control.policy.held_out_hit_rate },
    Metric { id: "win_rate", title: "win rate over SFT", of: |s| s.control.policy.win_rate },
    Metric { id: "fluency", title: "fluent", of: |s| s.control.policy.fluency },
    Metric { id: "unique", title: "unique answers", of: |s| s.control.policy.diversity.unique },
    Metric { id: "kl", title: "KL, nats", of: |s| s.policy.kl },
    Metric { id: "qwk", title: "reward model QWK", of: mean_qwk },
    Metric { id: "policy_seconds", title: "policy seconds", of: |s| s.compute.policy_seconds },
    Metric { id: "mega_passes", title: "million token passes", of: |s| s.compute.policy.passes() / 1e6 },
    Metric { id: "samples", title: "samples", of: |s| s.policy.samples as f64 },
    Metric { id: "models_trained", title: "models trained", of: |s| s.compute.models_trained as f64 },
    Metric { id: "models_kept", title: "models kept", of: |s| s.compute.models_kept as f64 },
    Metric { id: "peak_memory_mib", title: "peak memory, MiB", of: |s| s.compute.peak_memory_mib as f64 },
];

/// Mean and range over seeds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// Runs that differ in their seed alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StudyGroup {
    /// Label per axis.
    pub labels: Vec<String>,
    pub seeds: Vec<u64>,
    /// In the order of [`METRICS`].
    pub metrics: Vec<Spread>,
    /// Points of the front, averaged over the seeds: `[point][objective]`, utilities.
    pub front: Vec<Vec<f64>>,
}

/// What a study found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StudyResults {
    pub name: String,
    pub question: String,
    /// Names of the axes.
    pub axes: Vec<String>,
    /// Headings of the metrics.
    pub metrics: Vec<String>,
    /// Objectives of the fronts' coordinates, and the reference point of their hypervolume.
    pub objectives: Vec<String>,
    pub reference: Vec<f64>,
    pub groups: Vec<StudyGroup>,
    /// Run, labels, seed, metrics.
    pub runs: Vec<StudyRow>,
}

/// One finished run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StudyRow {
    pub run: String,
    pub labels: Vec<String>,
    pub seed: u64,
    /// Hash of the frozen reward model.
    pub reward_hash: String,
    pub metrics: Vec<f64>,
    /// 95 % interval of the hypervolume by bootstrap over questions.
    pub hypervolume_interval: [f64; 2],
    pub front: Vec<Vec<f64>>,
}

/// Puts runs together. `runs`: labels and summary of each finished run, in the order of the plan.
pub fn aggregate(config: &StudyConfig, runs: &[(Vec<String>, &RunSummary)]) -> StudyResults {
    let rows: Vec<StudyRow> = runs
        .iter()
        .map(|(labels, s)| StudyRow {
            run: s.run.clone(),
            labels: labels.clone(),
            seed: s.seed,
            reward_hash: s.reward_hash.clone(),
            metrics: METRICS.iter().map(|m| (m.of)(s)).collect(),
            hypervolume_interval: s.front.interval,
            front: s.front.points.iter().map(|p| p.utility.clone()).collect(),
        })
        .collect();
    let mut order: Vec<&[String]> = Vec::new();
    let mut members: std::collections::HashMap<&[String], Vec<&StudyRow>> = std::collections::HashMap::new();
    for row in &rows {
        let group = members.entry(&row.labels).or_default();
        if group.is_empty() {
            order.push(&row.labels);
        }
        group.push(row);
    }
    let groups = order
        .into_iter()
        .map(|labels| {
            let rows = &members[labels];
            let spread = |m: usize| {
                let values = || rows.iter().map(|r| r.metrics[m]);
                Spread {
                    mean: values().sum::<f64>() / rows.len() as f64,
                    low: values().fold(f64::INFINITY, f64::min),
                    high: values().fold(f64::NEG_INFINITY, f64::max),
                }
            };
            let mut front = rows[0].front.clone();
            for (p, point) in front.iter_mut().enumerate() {
                for (i, x) in point.iter_mut().enumerate() {
                    let values: Vec<f64> = rows.iter().filter_map(|r| r.front.get(p)?.get(i).copied()).collect();
                    *x = values.iter().sum::<f64>() / values.len() as f64;
                }
            }
            StudyGroup {
                labels: labels.to_vec(),
                seeds: rows.iter().map(|r| r.seed).collect(),
                metrics: (0..METRICS.len()).map(spread).collect(),
                front,
            }
        })
        .collect();
    let first = runs.iter().map(|(_, s)| &s.front).find(|f| !f.points.is_empty());
    StudyResults {
        name: config.name.clone(),
        question: config.question.clone(),
        axes: config.axes.iter().map(|a| a.name.clone()).collect(),
        metrics: METRICS.iter().map(|m| m.title.to_string()).collect(),
        objectives: first.map(|f| f.objectives.clone()).unwrap_or_default(),
        reference: first.map(|f| f.reference.clone()).unwrap_or_default(),
        groups,
        runs: rows,
    }
}

impl StudyResults {
    /// One line per run, comma-separated, with a heading. Cells that a spreadsheet would run as a formula are quoted.
    pub fn to_csv(&self) -> String {
        let cell = |text: &str| {
            let guarded = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_string() };
            if guarded.contains([',', '"', '\n']) { format!("\"{}\"", guarded.replace('"', "\"\"")) } else { guarded }
        };
        let ids = METRICS.iter().map(|m| m.id.to_string());
        let tail = ["hypervolume_low", "hypervolume_high", "reward_hash"].map(String::from);
        let heading: Vec<String> = ["run".to_string(), "seed".to_string()]
            .into_iter()
            .chain(self.axes.iter().map(|a| cell(a)))
            .chain(ids)
            .chain(tail)
            .collect();
        let mut out = heading.join(",") + "\n";
        for r in &self.runs {
            let cells: Vec<String> = [r.run.clone(), r.seed.to_string()]
                .into_iter()
                .chain(r.labels.iter().map(|l| cell(l)))
                .chain(r.metrics.iter().chain(&r.hypervolume_interval).map(f64::to_string))
                .chain([r.reward_hash.clone()])
                .collect();
            out += &(cells.join(",") + "\n");
        }
        out
    }
}

/// A run of a study as its progress shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StudyRunStatus {
    Waiting,
    Running,
    Finished,
    Failed,
}

/// State of a run of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyRunState {
    pub run: String,
    pub labels: Vec<String>,
    pub seed: u64,
    pub status: StudyRunStatus,
    /// Why it failed, or what it does now; empty otherwise.
    pub message: String,
}

/// How a study stands, as it is kept on disk and told by the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyState {
    pub id: String,
    pub name: String,
    pub question: String,
    /// Milliseconds since the Unix epoch.
    pub created: u64,
    /// Whether a process works on it.
    pub active: bool,
    pub runs: Vec<StudyRunState>,
    /// Estimate of what is left, seconds; none before the first run is finished.
    pub seconds_left: Option<f64>,
}

impl StudyState {
    /// Runs with a status.
    pub fn count(&self, status: StudyRunStatus) -> usize {
        self.runs.iter().filter(|r| r.status == status).count()
    }
}

/// A shipped study as the API lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyPreset {
    pub id: String,
    pub question: String,
}

/// What the API needs to start a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyRequest {
    /// One of [`PRESETS`].
    pub preset: String,
    /// Run preset that it varies.
    pub base: String,
    pub seeds: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::{FrontPoint, FrontReport};

    fn objectives() -> Vec<Objective> {
        ["helpfulness", "harmlessness", "honesty", "verbosity"]
            .iter()
            .zip([5, 4, 3, 5])
            .map(|(id, c)| Objective::new(id, "", "", &["0", "1", "2", "3", "4"][..c]))
            .collect()
    }

    fn base() -> RunConfig {
        presets::find("quick").unwrap().config
    }

    fn study(axes: Vec<Axis>) -> StudyConfig {
        StudyConfig { name: "s".into(), question: String::new(), base: base(), axes, seeds: vec![1, 2] }
    }

    #[test]
    fn shipped_studies_can_be_planned() {
        for id in PRESETS {
            let study = preset(id, base(), vec![1, 2, 3]).unwrap();
            let runs = study.plan(&objectives()).unwrap();
            assert!(runs.len() >= 6 && runs.len().is_multiple_of(3), "{id}: {}", runs.len());
        }
        // Seven methods, one of them in two ways, two planned for both budgets.
        assert_eq!(preset("methods", base(), vec![1]).unwrap().plan(&objectives()).unwrap().len(), 10);
        assert!(preset("everything", base(), vec![1]).is_none());
    }

    #[test]
    fn axes_change_the_fields_they_name_and_nothing_else() {
        let axes = vec![
            Axis::field("optimiser", "policy.optimizer", &[json!("rloo"), json!("ppo")]),
            Axis::field("policy", "policy", &[json!({"prompts": 16, "clip": 0.3})]),
        ];
        let runs = study(axes).plan(&objectives()).unwrap();
        assert_eq!(runs.len(), 4);
        let ppo = runs.iter().find(|r| r.labels[0] == "ppo" && r.config.seed == 2).unwrap();
        assert_eq!((ppo.config.policy.optimizer, ppo.config.policy.prompts), (PolicyOptimizer::Ppo, 16));
        let mut back = ppo.config.clone();
        back.policy = base().policy;
        (back.seed, back.name, back.preset) = (base().seed, base().name, base().preset);
        assert_eq!(back, base());
    }

    #[test]
    fn refusals_name_the_place() {
        let refuse = |axes: Vec<Axis>| {
            let problems = study(axes).plan(&objectives()).unwrap_err();
            format!("{}: {}", problems[0].field, problems[0].message)
        };
        let text = refuse(vec![Axis::field("x", "policy.optimiser", &[json!("ppo")])]);
        assert!(text.starts_with("axes[0].variants[0].set: ") && text.contains("names no field") && text.contains("optimizer"));
        assert!(refuse(vec![Axis::field("x", "policy.optimizer", &[json!("sgd")])]).contains("unknown variant"));
        let text = refuse(vec![Axis::field("x", "policy.samples_per_prompt", &[json!(1)])]);
        assert!(text.starts_with("policy.samples_per_prompt (1)"), "{text}");
        assert!(refuse(vec![Axis { name: "x".into(), variants: vec![] }]).contains("is empty"));
        let mut twice = study(vec![]);
        twice.seeds = vec![1, 1];
        assert!(twice.plan(&objectives()).unwrap_err()[0].field.contains("seeds[1]"));
    }

    #[test]
    fn seeds_are_put_together() {
        let summary = |run: &str, seed: u64, hypervolume: f64| RunSummary {
            run: run.into(),
            seed,
            front: FrontReport {
                objectives: vec!["a".into()],
                points: vec![FrontPoint { utility: vec![hypervolume], ..Default::default() }],
                hypervolume,
                ..Default::default()
            },
            ..Default::default()
        };
        let label = |l: &str| vec![l.to_string()];
        let runs =
            [(label("x,y"), summary("r1", 1, 0.2)), (label("=z"), summary("r2", 1, 0.5)), (label("x,y"), summary("r3", 2, 0.4))];
        let runs: Vec<(Vec<String>, &RunSummary)> = runs.iter().map(|(labels, s)| (labels.clone(), s)).collect();
        let results = aggregate(&study(vec![Axis::field("axis", "seed", &[])]), &runs);
        assert_eq!(results.groups.len(), 2);
        let group = &results.groups[0];
        assert_eq!(group.seeds, [1, 2]);
        let spread = group.metrics[0];
        assert!((spread.mean - 0.3).abs() < 1e-12 && (spread.low, spread.high) == (0.2, 0.4));
        assert!((group.front[0][0] - 0.3).abs() < 1e-12);
        let csv = results.to_csv();
        assert_eq!(csv.lines().count(), 4);
        assert!(csv.contains("r1,1,\"x,y\",0.2,") && csv.contains("'=z"), "{csv}");
    }
}
