//! Stage 2 and 3: train the reward model, calibrate its heads, measure it.

use super::judge::logits;
use super::{RewardModel, masked_cross_entropy};
use crate::model::kernels::Kernels;
use crate::model::packed::{Group, Packed};
use crate::text::corpus::Encoded;
use burn::prelude::*;
use moslim_shared::distribution::{argmax, fit_temperature, softmax};
use moslim_shared::metrics::{accuracy, confusion, expected_calibration_error, macro_f1, quadratic_weighted_kappa};
use moslim_shared::objective::Objective;
use moslim_shared::summary::{RewardHeadReport, RewardModelReport};

/// Bins of the calibration error.
const ECE_BINS: usize = 15;

/// Share of a batch's loss that `rows` contribute; `labelled`: rows of the whole batch with a label, per head.
pub fn loss<B: Kernels>(model: &RewardModel<B>, rows: &[&Encoded], labelled: &[usize], smoothing: f64) -> Tensor<B, 1> {
    let groups: Vec<Group> = rows.iter().map(|r| r.group()).collect();
    let labels: Vec<&[Option<usize>]> = rows.iter().map(|r| r.labels.as_slice()).collect();
    masked_cross_entropy(model.logits(&Packed::new(&groups)), &labels, labelled, model.classes(), smoothing)
}

/// Logits and labels of the labelled rows, per head.
pub struct HeadOutputs {
    logits: Vec<Vec<f64>>,
    labels: Vec<usize>,
}

/// Runs the model over `rows` and keeps, per head, the rows that have a label.
pub fn outputs<B: Kernels>(model: &RewardModel<B>, rows: &[Encoded]) -> Vec<HeadOutputs> {
    let groups: Vec<Group> = rows.iter().map(Encoded::group).collect();
    let all = logits(model, &groups);
    (0..model.classes().len())
        .map(|head| {
            let mut out = HeadOutputs { logits: Vec::new(), labels: Vec::new() };
            for (row, heads) in rows.iter().zip(&all) {
                if let Some(label) = row.labels[head] {
                    out.logits.push(heads[head].clone());
                    out.labels.push(label);
                }
            }
            out
        })
        .collect()
}

/// Quadratic weighted kappa per head.
pub fn kappas(outputs: &[HeadOutputs], classes: &[usize]) -> Vec<f64> {
    outputs
        .iter()
        .zip(classes)
        .map(|(o, &c)| {
            let predicted: Vec<usize> = o.logits.iter().map(|l| argmax(l)).collect();
            quadratic_weighted_kappa(&o.labels, &predicted, c)
        })
        .collect()
}

/// A temperature per head, fitted on validation outputs.
pub fn temperatures(validation: &[HeadOutputs]) -> Vec<f64> {
    validation.iter().map(|o| fit_temperature(&o.logits, &o.labels)).collect()
}

/// Measures every head on test outputs.
pub fn report(test: &[HeadOutputs], temperatures: &[f64], objectives: &[Objective]) -> RewardModelReport {
    let heads = objectives
        .iter()
        .zip(test)
        .zip(temperatures)
        .map(|((objective, o), &temperature)| {
            let classes = objective.class_count();
            let predicted: Vec<usize> = o.logits.iter().map(|l| argmax(l)).collect();
            let correct: Vec<bool> = predicted.iter().zip(&o.labels).map(|(p, y)| p == y).collect();
            let ece = |t: f64| {
                let confidence: Vec<f64> = o.logits.iter().map(|l| softmax(l, t).into_iter().fold(0.0, f64::max)).collect();
                expected_calibration_error(&confidence, &correct, ECE_BINS)
            };
            let most = (0..classes).map(|c| o.labels.iter().filter(|&&y| y == c).count()).max().unwrap_or(0);
            RewardHeadReport {
                objective: objective.id.clone(),
                classes,
                n: o.labels.len(),
                accuracy: accuracy(&o.labels, &predicted),
                majority: most as f64 / o.labels.len().max(1) as f64,
                macro_f1: macro_f1(&o.labels, &predicted, classes),
                qwk: quadratic_weighted_kappa(&o.labels, &predicted, classes),
                ece: ece(temperature),
                ece_uncalibrated: ece(1.0),
                temperature,
                confusion: confusion(&o.labels, &predicted, classes),
            }
        })
        .collect();
    RewardModelReport { heads }
}
