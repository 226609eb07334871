//! How the figures of a study's runs are put together.

use super::plan::StudyConfig;
use crate::metrics::middle;
use crate::summary::{ChosenFront, ControlFigures, FrontPart, PartReport, RunSummary};
use serde::{Deserialize, Serialize};

/// A figure of a run.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub id: &'static str,
    /// Heading in tables.
    pub title: &'static str,
    pub of: fn(&RunSummary) -> f64,
    /// Its 95 % interval by bootstrap over topics, where it has one.
    pub interval: fn(&RunSummary) -> Option<[f64; 2]>,
}

const fn metric(id: &'static str, title: &'static str, of: fn(&RunSummary) -> f64) -> Metric {
    Metric { id, title, of, interval: |_| None }
}

impl Metric {
    const fn within(self, interval: fn(&RunSummary) -> Option<[f64; 2]>) -> Self {
        Self { interval, ..self }
    }
}

/// Mean over the heads of the reward model.
fn mean_qwk(s: &RunSummary) -> f64 {
    s.reward_model.heads.iter().map(|h| h.qwk).sum::<f64>() / s.reward_model.heads.len().max(1) as f64
}

/// Bounds of a figure of control.
fn control(s: &RunSummary, of: fn(&ControlFigures) -> f64) -> Option<[f64; 2]> {
    s.control.policy.intervals.as_ref().map(|[low, high]| [of(low), of(high)])
}

/// Figures of the best offers for each trade-off.
fn chosen<T>(s: &RunSummary, of: fn(&ChosenFront) -> T) -> Option<T> {
    s.front.chosen.as_ref().map(of)
}

/// The figures that studies compare, in the order of their tables.
pub const METRICS: [Metric; 22] = [
    metric("hypervolume", "hypervolume", |s| s.front.hypervolume).within(|s| Some(s.front.interval)),
    metric("expected_utility", "expected utility", |s| s.front.expected_utility.unwrap_or(0.0))
        .within(|s| Some(s.front.utility_interval)),
    metric("chosen_hypervolume", "hypervolume, best for each", |s| chosen(s, |c| c.hypervolume).unwrap_or(0.0))
        .within(|s| chosen(s, |c| c.interval)),
    metric("chosen_utility", "expected utility, best for each", |s| s.front.served_utility())
        .within(|s| chosen(s, |c| c.utility_interval)),
    metric("spearman", "rank correlation", |s| s.control.policy.mean_spearman()).within(|s| control(s, |f| f.spearman)),
    metric("hit_rate", "hit rate", |s| s.control.policy.mean_hit_rate()).within(|s| control(s, |f| f.hit_rate)),
    metric("joint_hit_rate", "all asked met", |s| s.control.policy.joint_hit_rate).within(|s| control(s, |f| f.joint_hit_rate)),
    metric("held_out_hit_rate", "held-out pairs", |s| s.control.policy.held_out_hit_rate)
        .within(|s| control(s, |f| f.held_out_hit_rate)),
    metric("win_rate", "win rate over SFT", |s| s.control.policy.win_rate).within(|s| control(s, |f| f.win_rate)),
    metric("on_topic", "on topic", |s| s.control.policy.on_topic.unwrap_or(0.0)).within(|s| control(s, |f| f.on_topic)),
    metric("fluency", "fluent", |s| s.control.policy.fluency).within(|s| control(s, |f| f.fluency)),
    metric("unique", "distinct answers", |s| s.control.policy.diversity.unique).within(|s| control(s, |f| f.unique)),
    metric("sft_hit_rate", "SFT: hit rate", |s| s.control.sft.mean_hit_rate()),
    metric("sft_fluency", "SFT: fluent", |s| s.control.sft.fluency),
    metric("kl", "KL, nats", |s| s.policy.kl),
    metric("qwk", "reward model QWK", mean_qwk),
    metric("policy_seconds", "policy seconds", |s| s.compute.policy_seconds),
    metric("mega_passes", "million token passes", |s| s.compute.policy.passes() / 1e6),
    metric("samples", "samples", |s| s.policy.samples as f64),
    metric("models_trained", "models trained", |s| s.compute.models_trained as f64),
    metric("models_kept", "models kept", |s| s.compute.models_kept as f64),
    metric("peak_memory_mib", "peak memory, MiB", |s| s.compute.peak_memory_mib as f64),
];

/// Resamples of the bootstrap over seeds.
const RESAMPLES: usize = 2_000;

/// Mean over seeds, and its 95 % interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Spread {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    /// The mean of a figure over `runs`, which differ in their seed, with a 95 % interval by a bootstrap of two levels: runs are drawn
    /// with replacement, and each value is drawn from a normal distribution as wide as the run's own interval over topics, on each side
    /// as there, so that a share near 1 is not drawn beyond it. With few seeds it is too narrow, as every bootstrap of few is. `runs`:
    /// value and interval of each.
    ///
    /// ```
    /// use moslim_shared::study::Spread;
    /// let spread = Spread::over(&[(0.2, None), (0.4, None)]);
    /// assert_eq!((spread.low, spread.high), (0.2, 0.4));
    /// let one = Spread::over(&[(0.5, Some([0.4, 0.6]))]);
    /// assert!((one.low - 0.4).abs() < 0.01 && (one.high - 0.6).abs() < 0.01);
    /// let lopsided = Spread::over(&[(0.9, Some([0.3, 1.0]))]);
    /// assert!((lopsided.low - 0.3).abs() < 0.06 && (lopsided.high - 1.0).abs() < 0.02);
    /// ```
    pub fn over(runs: &[(f64, Option<[f64; 2]>)]) -> Self {
        let n = runs.len().max(1);
        let mean = runs.iter().map(|(v, _)| v).sum::<f64>() / n as f64;
        if runs.is_empty() || runs.iter().all(|(v, i)| *v == mean && i.is_none()) {
            return Self { mean, low: mean, high: mean };
        }
        let mut rng = Splitmix(0x5EED);
        let draws = (0..RESAMPLES).map(|_| {
            let one = |rng: &mut Splitmix| {
                let (value, interval) = runs[(rng.next() % runs.len() as u64) as usize];
                let [down, up] = interval.map_or([0.0; 2], |[low, high]| match low <= value && value <= high {
                    true => [value - low, high - value],
                    // A value that resampling does not reproduce, as may be with what is not a mean.
                    false => [(high - low) / 2.0; 2],
                });
                let z = rng.normal() / 1.96;
                value + z * if z > 0.0 { up } else { down }
            };
            (0..n).map(|_| one(&mut rng)).sum::<f64>() / n as f64
        });
        let [low, high] = middle(draws.collect());
        Self { mean, low, high }
    }

    /// Whether two intervals have nothing in common.
    ///
    /// ```
    /// use moslim_shared::study::Spread;
    /// let at = |low, high| Spread { mean: 0.0, low, high };
    /// assert!(at(0.1, 0.2).apart(&at(0.3, 0.4)) && !at(0.1, 0.3).apart(&at(0.3, 0.4)));
    /// ```
    pub fn apart(&self, other: &Self) -> bool {
        self.high < other.low || other.high < self.low
    }
}

/// Random numbers that are the same everywhere (Steele et al. 2014).
struct Splitmix(u64);

impl Splitmix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Box and Muller 1958.
    fn normal(&mut self) -> f64 {
        let (a, b) = (self.uniform(), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

/// Runs that differ in their seed alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
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
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
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
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct StudyRow {
    pub run: String,
    pub labels: Vec<String>,
    pub seed: u64,
    /// Hash of the frozen reward model.
    pub reward_hash: String,
    pub metrics: Vec<f64>,
    /// 95 % interval of each by bootstrap over topics, where it has one.
    #[serde(default)]
    pub intervals: Vec<Option<[f64; 2]>>,
    /// Control on parts of the test split.
    #[serde(default)]
    pub parts: Vec<PartReport>,
    pub front: Vec<Vec<f64>>,
    /// The front on parts of the test split.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub front_parts: Vec<FrontPart>,
}

impl StudyRow {
    /// The interval of the `m`th figure, where it has one.
    fn interval(&self, m: usize) -> Option<[f64; 2]> {
        self.intervals.get(m).copied().flatten()
    }

    /// The figures of a finished run.
    pub fn of(labels: &[String], s: &RunSummary) -> Self {
        Self {
            run: s.run.clone(),
            labels: labels.to_vec(),
            seed: s.seed,
            reward_hash: s.reward_hash.clone(),
            metrics: METRICS.iter().map(|m| (m.of)(s)).collect(),
            intervals: METRICS.iter().map(|m| (m.interval)(s)).collect(),
            parts: s.control.policy.parts.clone(),
            front: s.front.points.iter().map(|p| p.utility.clone()).collect(),
            front_parts: s.front.parts.clone(),
        }
    }
}

/// What the coordinates of fronts are: objectives, and the reference point of the hypervolume.
pub type FrontAxes = (Vec<String>, Vec<f64>);

/// Those of a run, where it has a front.
pub fn front_axes(s: &RunSummary) -> Option<FrontAxes> {
    (!s.front.points.is_empty()).then(|| (s.front.objectives.clone(), s.front.reference.clone()))
}

/// Puts runs together. `runs`: labels and summary of each finished run, in the order of the plan.
pub fn aggregate(config: &StudyConfig, runs: &[(Vec<String>, &RunSummary)]) -> StudyResults {
    let rows = runs.iter().map(|(labels, s)| StudyRow::of(labels, s)).collect();
    StudyResults::of(config, rows, runs.iter().find_map(|(_, s)| front_axes(s)).unwrap_or_default())
}

/// Means over the seeds of `rows`, setting by setting, in the order in which they come.
fn groups(rows: &[StudyRow]) -> Vec<StudyGroup> {
    let mut order: Vec<&[String]> = Vec::new();
    let mut members: std::collections::HashMap<&[String], Vec<&StudyRow>> = std::collections::HashMap::new();
    for row in rows {
        let group = members.entry(&row.labels).or_default();
        if group.is_empty() {
            order.push(&row.labels);
        }
        group.push(row);
    }
    order
        .into_iter()
        .map(|labels| {
            let rows = &members[labels];
            let spread = |m: usize| {
                let values: Vec<_> = rows.iter().map(|r| (r.metrics[m], r.interval(m))).collect();
                Spread::over(&values)
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
        .collect()
}

impl StudyResults {
    /// What `rows` say, in the order of the plan.
    pub fn of(config: &StudyConfig, rows: Vec<StudyRow>, (objectives, reference): FrontAxes) -> Self {
        Self {
            name: config.name.clone(),
            question: config.question.clone(),
            axes: config.axes.iter().map(|a| a.name.clone()).collect(),
            metrics: METRICS.iter().map(|m| m.title.to_string()).collect(),
            objectives,
            reference,
            groups: groups(&rows),
            runs: rows,
        }
    }

    /// Whether every run of the plan is there.
    pub fn is_complete(&self, config: &StudyConfig) -> bool {
        self.runs.len() == config.seeds.len() * config.settings()
    }

    /// One line per run, comma-separated, with a heading. Cells that a spreadsheet would run as a formula are quoted.
    pub fn to_csv(&self) -> String {
        let cell = |text: &str| {
            let guarded = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_string() };
            if guarded.contains([',', '"', '\n']) { format!("\"{}\"", guarded.replace('"', "\"\"")) } else { guarded }
        };
        let ids = METRICS.iter().map(|m| m.id.to_string());
        let bounds = METRICS.iter().enumerate().filter(|(m, _)| self.runs.iter().any(|r| r.interval(*m).is_some()));
        let bounded: Vec<(usize, &str)> = bounds.map(|(m, metric)| (m, metric.id)).collect();
        let tail = bounded.iter().flat_map(|(_, id)| [format!("{id}_low"), format!("{id}_high")]).chain(["reward_hash".into()]);
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
                .chain(r.metrics.iter().map(f64::to_string))
                .chain(bounded.iter().flat_map(|(m, _)| r.interval(*m).unwrap_or([f64::NAN; 2]).map(|x| x.to_string())))
                .chain([r.reward_hash.clone()])
                .collect();
            out += &(cells.join(",") + "\n");
        }
        out
    }
}
