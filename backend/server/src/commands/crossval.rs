//! `moslim-lab data crossval`: how well would a reward model agree with the people who rated?

use super::data::opened;
use super::train::{read, stop_on_signal};
use crate::cli::CrossvalArgs;
use crate::commands::{print_json, print_line};
use crate::failure::Failure;
use crate::id::RunId;
use crate::log::say;
use crate::progress::Progress;
use moslim_engine::progress::Stop;
use moslim_engine::run::{RunError, reward_model_alone};
use moslim_shared::config::{DeviceChoice, FOLDS, RunConfig, TaskConfig, TaskKind};
use moslim_shared::metrics::kappa_of;
use moslim_shared::presets;
use moslim_shared::summary::{RewardHeadReport, RewardModelReport, mostly_length, still_rises};
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
    /// The learning curve, from the smallest share of the prompts to the one that all of the above is of.
    curve: Vec<Point>,
}

/// What a share of the prompts to train on teaches.
#[derive(Debug, Serialize)]
struct Point {
    share: f64,
    /// Quadratic weighted kappa of each objective over the rows of all folds.
    kappas: Vec<f64>,
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
    let shares = if args.shares.is_empty() { vec![config.task.share] } else { shares(&args.shares)? };
    data.create().map_err(Failure::BadInput)?;
    let stop = Arc::new(Stop::default());
    stop_on_signal(stop.clone())?;
    let agreement = data.task_statistics(&task, None, None).map_err(|e| Failure::BadInput(format!("{e:#}")))?.agreement;
    let (mut folds, mut objectives, mut curve) = (Vec::new(), Vec::new(), Vec::new());
    for share in shares {
        folds = Vec::new();
        for fold in 1..=FOLDS {
            let of = if share < 1.0 { format!(", {:.0} % of the prompts", 100.0 * share) } else { String::new() };
            say(&format!("Fold {fold} of {FOLDS}{of}"));
            let task = TaskConfig { fold, share, ..config.task.clone() };
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
        objectives = over_folds(&folds, |id| agreement.iter().find(|a| a.id == id).and_then(|a| a.kappa));
        curve.push(Point { share, kappas: objectives.iter().map(|h| h.kappa).collect() });
    }
    let all = CrossValidation { task: args.task.clone(), model: config.base.model.clone(), objectives, folds, curve };
    if args.json { print_json(&all) } else { print_line(&table(&all)) }
}

/// The objectives over all folds; `raters`: the agreement of two raters on one.
fn over_folds(folds: &[RewardModelReport], raters: impl Fn(&str) -> Option<f64>) -> Vec<Head> {
    let heads = |at: usize| folds.iter().map(|report| &report.heads[at]).collect::<Vec<_>>();
    (0..folds[0].heads.len()).map(|at| Head::over(&heads(at), raters(&folds[0].heads[at].objective))).collect()
}

/// The points of the learning curve, in order.
fn shares(given: &[f64]) -> Result<Vec<f64>, Failure> {
    let mut shares = given.to_vec();
    if let Some(wrong) = shares.iter().find(|s| !(0.01..=1.0).contains(*s)) {
        return Err(Failure::BadInput(format!("shares: {wrong} is not allowed; allowed are numbers from 0.01 to 1")));
    }
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    Ok(shares)
}

/// The learning curve, and what it says of more labels.
fn curve(all: &CrossValidation) -> Vec<String> {
    let [earlier @ .., last] = all.curve.as_slice() else { return Vec::new() };
    if earlier.is_empty() {
        return Vec::new();
    }
    let shares: String = all.curve.iter().map(|point| format!("{:>8}", format!("{:.0} %", 100.0 * point.share))).collect();
    let mut out = vec![String::new(), format!("{:<24}{shares}", "kappa, prompts used")];
    // A curve that rises does so from half to all.
    let before = earlier.iter().rev().find(|point| 2.0 * point.share <= last.share);
    let mut rising = Vec::new();
    for (n, head) in all.objectives.iter().enumerate() {
        let kappas: String = all.curve.iter().map(|point| format!("{:>8.2}", point.kappas[n])).collect();
        out.push(format!("{:<24}{kappas}", head.id));
        if before.is_some_and(|before| still_rises(before.kappas[n], head.kappa)) {
            rising.push(head.id.as_str());
        }
    }
    out.push(match rising.as_slice() {
        [] if before.is_none() => "whether more labels would help, a point at half of the last share would tell".into(),
        [] => "more labels of this kind may not help: no kappa rises by 0.05 at the end of the curve".into(),
        rising => format!("more labels would help: {}", rising.join(", ")),
    });
    out
}

/// The run whose reward model is trained.
fn configured(args: &CrossvalArgs) -> Result<RunConfig, Failure> {
    let mut config = match &args.config {
        Some(path) => read("config", path)?,
        None => presets::find("ratings").map(|p| p.config).unwrap_or_default(),
    };
    (config.task.kind, config.task.name, config.fork) = (TaskKind::Ratings, args.task.clone(), None);
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
    out.extend(curve(all));
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validated(objectives: Vec<Head>, curve: &[&[f64]]) -> CrossValidation {
        let share = |n: usize| 0.5f64.powi((curve.len() - 1 - n) as i32);
        let curve = curve.iter().enumerate().map(|(n, kappas)| Point { share: share(n), kappas: kappas.to_vec() }).collect();
        CrossValidation { task: "t".into(), model: String::new(), objectives, folds: Vec::new(), curve }
    }

    #[test]
    fn the_curve_says_of_which_objectives_more_labels_would_help() {
        let head = |id: &str, kappa| Head { id: id.into(), kappa, ..Head::over(&[&RewardHeadReport::default()], None) };
        let told = |kappas: [&[f64]; 3]| {
            let last = kappas[2];
            table(&validated(vec![head("warmth", last[0]), head("ease", last[1])], &kappas))
        };
        let said = told([&[0.1, 0.4], &[0.3, 0.52], &[0.36, 0.53]]);
        assert!(said.contains("kappa, prompts used         25 %    50 %   100 %"), "{said}");
        assert!(
            said.contains("warmth                      0.10    0.30    0.36") && said.ends_with("would help: warmth"),
            "{said}"
        );
        assert!(told([&[0.1, 0.1], &[0.3, 0.3], &[0.3, 0.3]]).contains("may not help"));
        assert!(!table(&validated(vec![head("warmth", 0.5)], &[&[0.5]])).contains("labels would"), "one point is no curve");
        let mut near = validated(vec![head("warmth", 0.5)], &[&[0.3], &[0.5]]);
        near.curve[0].share = 0.9;
        assert!(table(&near).contains("half of the last share would tell"), "{}", table(&near));
        assert_eq!(shares(&[1.0, 0.5, 1.0]).unwrap(), [0.5, 1.0]);
        assert!(shares(&[0.0]).is_err_and(|e| e.to_string().contains("allowed are numbers from 0.01 to 1")));
    }

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
            table(&validated(vec![head], &[&[0.75]]))
        };
        assert!(told(0.31).contains("hardly more than length: tone") && !told(0.29).contains("hardly more"));
    }
}
