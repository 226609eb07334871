//! `moslim-lab data crossval`: how well would a reward model agree with the people who rated?

use super::data::opened;
use super::train::{read, stop_on_signal};
use crate::cli::CrossvalArgs;
use crate::commands::{print_json, print_line};
use crate::failure::Failure;
use crate::id::RunId;
use crate::progress::Progress;
use moslim_engine::progress::Stop;
use moslim_engine::run::{RunError, reward_model_alone};
use moslim_shared::config::{DeviceChoice, FOLDS, RunConfig, TaskConfig, TaskKind};
use moslim_shared::metrics::kappa_of;
use moslim_shared::presets;
use moslim_shared::summary::{RewardHeadReport, RewardModelReport, mostly_length};
use serde::Serialize;
use std::sync::Arc;

/// What cross-validation says of a task.
#[derive(Debug, Serialize)]
struct CrossValidation {
    task: String,
    /// The off-the-shelf model; empty for the lab's own.
    model: String,
    objectives: Vec<Head>,
    /// The reward model's report of every fold, first to last.
    folds: Vec<RewardModelReport>,
}

/// One objective over all folds.
#[derive(Debug, Serialize)]
struct Head {
    id: String,
    /// Labelled rows: each was a test row once.
    rows: u64,
    /// Quadratic weighted kappa of the most probable classes with the labels, over the rows of all folds.
    kappa: f64,
    /// The same within each fold.
    kappas: Vec<f64>,
    /// Spearman's rank correlation of expected class and label, mean over the folds.
    spearman: f64,
    /// The same of the answer's number of tokens and the label, its sign left out: what counting alone would reach.
    length: f64,
    accuracy: f64,
    /// What always naming the commonest class would score.
    majority: f64,
    /// Mean quadratic kappa of two raters with each other, where there are several.
    raters: Option<f64>,
}

impl Head {
    fn over(heads: &[&RewardHeadReport], raters: Option<f64>) -> Self {
        let classes = heads[0].confusion.len();
        let sum = |i: usize, j: usize| heads.iter().map(|h| h.confusion[i][j]).sum();
        let all: Vec<Vec<u64>> = (0..classes).map(|i| (0..classes).map(|j| sum(i, j)).collect()).collect();
        let rows: u64 = all.iter().flatten().sum();
        let share = |n: u64| n as f64 / rows.max(1) as f64;
        let mean = |of: fn(&RewardHeadReport) -> f64| heads.iter().map(|h| of(h)).sum::<f64>() / heads.len() as f64;
        Self {
            id: heads[0].objective.clone(),
            rows,
            kappa: kappa_of(&all),
            kappas: heads.iter().map(|h| h.qwk).collect(),
            spearman: mean(|h| h.spearman),
            length: mean(|h| h.label_length_correlation).abs(),
            accuracy: share((0..classes).map(|c| all[c][c]).sum()),
            majority: share(all.iter().map(|row| row.iter().sum()).max().unwrap_or(0)),
            raters,
        }
    }
}

/// Trains a reward model for every fold of a task and measures it on that fold's rows.
///
/// # Errors
/// Bad input names its field; after a stop, what is done of the folds is kept in the cache.
pub fn run(args: &CrossvalArgs) -> Result<(), Failure> {
    let (data, task) = opened(&args.folder, &args.task)?;
    let config = configured(args)?;
    data.create().map_err(Failure::BadInput)?;
    let stop = Arc::new(Stop::default());
    stop_on_signal(stop.clone())?;
    let mut folds = Vec::new();
    for fold in 1..=FOLDS {
        eprintln!("Fold {fold} of {FOLDS}");
        let task = TaskConfig { fold, ..config.task.clone() };
        let job = data.job(&RunId::fresh(), RunConfig { task, ..config.clone() });
        let mut progress = Progress::new();
        let report = reward_model_alone(&job, &stop, &mut |body| progress.observe(body));
        progress.clear();
        folds.push(report.map_err(|error| match error {
            RunError::Stopped(_) => Failure::Failed(format!(
                "stopped in fold {fold}; the same command goes on there: the folds before it are in the cache"
            )),
            RunError::BadInput(message) => Failure::BadInput(message),
            RunError::Failed(error) => Failure::Failed(format!("fold {fold} failed: {error:#}")),
        })?);
    }
    let agreement = data.task_statistics(&task, None, None).map_err(|e| Failure::BadInput(format!("{e:#}")))?.agreement;
    let heads = |at: usize| folds.iter().map(|report| &report.heads[at]).collect::<Vec<_>>();
    let objectives = (0..folds[0].heads.len())
        .map(|at| {
            let heads = heads(at);
            let raters = agreement.iter().find(|a| a.id == heads[0].objective).and_then(|a| a.kappa);
            Head::over(&heads, raters)
        })
        .collect();
    let all = CrossValidation { task: args.task.clone(), model: config.base.model.clone(), objectives, folds };
    if args.json { print_json(&all) } else { print_line(&table(&all)) }
}

/// The run whose reward model is trained.
fn configured(args: &CrossvalArgs) -> Result<RunConfig, Failure> {
    let mut config = match &args.config {
        Some(path) => read("config", path)?,
        None => presets::find("ratings").map(|p| p.config).unwrap_or_default(),
    };
    (config.task.kind, config.task.name) = (TaskKind::Ratings, args.task.clone());
    if let Some(model) = &args.model {
        config.base.model.clone_from(model);
    }
    if let Some(seed) = args.seed {
        config.seed = seed;
    }
    if args.device != DeviceChoice::Auto {
        config.device = args.device;
    }
    Ok(config)
}

fn table(all: &CrossValidation) -> String {
    let mut out = vec![format!(
        "{:<24} {:>5} {:>7} {:>14} {:>12} {:>9} {:>12} {:>12} {:>13}",
        "objective", "rows", "kappa", "in the folds", "two raters", "accuracy", "always one", "correlation", "length alone"
    )];
    for head in &all.objectives {
        let least = head.kappas.iter().copied().fold(f64::INFINITY, f64::min);
        let most = head.kappas.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let raters = head.raters.map_or("-".into(), |kappa| format!("{kappa:.2}"));
        out.push(format!(
            "{:<24} {:>5} {:>7.2} {:>14} {:>12} {:>9.2} {:>12.2} {:>12.2} {:>13.2}",
            head.id,
            head.rows,
            head.kappa,
            format!("{least:.2} to {most:.2}"),
            raters,
            head.accuracy,
            head.majority,
            head.spearman,
            head.length
        ));
    }
    out.push(String::from(
        "kappa: quadratic weighted, of the reward model with the labels, every row tested once by a model that never saw its prompt",
    ));
    out.push("correlation: rank correlation with the labels, of the expected class, and of the answer's length alone".into());
    let counts: Vec<&str> =
        all.objectives.iter().filter(|h| mostly_length(h.spearman, h.length)).map(|h| h.id.as_str()).collect();
    if !counts.is_empty() {
        out.push(format!(
            "hardly more than length: {}; longer answers were rated higher (or lower), and a policy would learn to write them so",
            counts.join(", ")
        ));
    }
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_added_before_they_are_judged() {
        let head = |confusion: Vec<Vec<u64>>, qwk: f64, spearman: f64| RewardHeadReport {
            objective: "tone".into(),
            confusion,
            qwk,
            spearman,
            label_length_correlation: -spearman,
            ..Default::default()
        };
        // Two folds of one class each, of which a kappa alone says nothing.
        let (a, b) = (head(vec![vec![4, 0], vec![0, 0]], 1.0, 0.5), head(vec![vec![0, 0], vec![1, 3]], 0.0, 0.1));
        let all = Head::over(&[&a, &b], Some(0.6));
        assert_eq!((all.rows, all.kappas), (8, vec![1.0, 0.0]));
        assert_eq!((all.kappa, all.spearman, all.length, all.accuracy, all.majority), (0.75, 0.3, 0.3, 7.0 / 8.0, 0.5));
        let told = |length: f64| {
            let head = Head { length, ..Head::over(&[&a, &b], None) };
            table(&CrossValidation { task: "t".into(), model: String::new(), objectives: vec![head], folds: Vec::new() })
        };
        assert!(told(0.31).contains("hardly more than length: tone") && !told(0.29).contains("hardly more"));
    }
}
