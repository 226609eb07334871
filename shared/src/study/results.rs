//! How the figures of a study's runs are put together.

use super::plan::StudyConfig;
use crate::summary::RunSummary;
use serde::{Deserialize, Serialize};

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
