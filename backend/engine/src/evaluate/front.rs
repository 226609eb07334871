//! What a method reaches over its trade-offs: one point for each, by the grader, and their hypervolume.

use super::answer::{Answering, Ask};
use super::grader::Grading;
use crate::model::generate::{Answer, Sampling};
use crate::model::kernels::Kernels;
use anyhow::Result;
use moslim_shared::metrics::middle;
use moslim_shared::pareto::hypervolume;
use moslim_shared::preference::Preference;
use moslim_shared::summary::{FrontPoint, FrontReport, expected_utility};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Resamples of the bootstrap over questions.
const RESAMPLES: usize = 400;

/// Asks `questions` held-out questions for every trade-off, the same for each and for every method. `steered`: the objectives
/// that count; `goals`: what is asked for at each trade-off.
///
/// # Errors
/// When the tokenizer fails, or `each` stops the evaluation.
pub fn front<B: Kernels>(
    (x, grading): (&Answering<B>, &Grading<B>),
    steered: &[usize],
    goals: &[Preference],
    questions: usize,
    sampling: &Sampling,
    task_seed: u64,
    mut each: impl FnMut() -> Result<()>,
) -> Result<FrontReport> {
    let mut rng = StdRng::seed_from_u64(task_seed ^ 0xF207);
    let chosen: Vec<usize> = (0..questions).map(|_| rng.random_range(0..x.questions.len())).collect();
    // Utilities, `[trade-off][question][steered objective]`.
    let mut utilities: Vec<Vec<Vec<f64>>> = Vec::new();
    let mut points = Vec::new();
    for (t, weights) in x.trade_offs.iter().enumerate() {
        let ask = Ask { trade_off: Some(t), ..Ask::of(goals[t].clone()) };
        let asks: Vec<(usize, Ask)> = chosen.iter().map(|&q| (q, ask.clone())).collect();
        let own = Sampling { seed: sampling.seed ^ ((t as u64 + 1) << 40), ..sampling.clone() };
        let mut fluent = 0usize;
        let mut rows = Vec::with_capacity(questions);
        let answers = x.answer(&asks, &own)?;
        let pairs: Vec<(usize, &Answer)> = chosen.iter().copied().zip(&answers).collect();
        for (grades, _) in grading.grade(x, &pairs)? {
            fluent += usize::from(grades.fluent);
            rows.push(steered.iter().map(|&i| x.objectives[i].utility(grades.classes[i] as f64)).collect::<Vec<f64>>());
        }
        let all: Vec<usize> = (0..questions).collect();
        points.push(FrontPoint {
            weights: weights.clone(),
            asked: (!x.route.wordings().is_empty()).then(|| goals[t].clone()),
            utility: mean(&rows, &all),
            fluency: fluent as f64 / questions.max(1) as f64,
        });
        utilities.push(rows);
        each()?;
    }
    // The worst class everywhere. A method that reaches nothing better than the worst class in one objective gains nothing.
    let reference = vec![0.0; steered.len()];
    let volume =
        |questions: &[usize]| hypervolume(&utilities.iter().map(|rows| mean(rows, questions)).collect::<Vec<_>>(), &reference);
    let all: Vec<usize> = (0..questions).collect();
    let resampled =
        (0..RESAMPLES).map(|_| volume(&(0..questions).map(|_| rng.random_range(0..questions)).collect::<Vec<_>>())).collect();
    let all_together = volume(&all);
    Ok(FrontReport {
        objectives: steered.iter().map(|&i| x.objectives[i].id.clone()).collect(),
        hypervolume: all_together,
        interval: middle(resampled),
        expected_utility: Some(expected_utility(&points, steered)),
        points,
        reference,
        chosen: None,
    })
}

/// Mean row of `rows` at `positions`.
fn mean(rows: &[Vec<f64>], positions: &[usize]) -> Vec<f64> {
    let width = rows.first().map_or(0, Vec::len);
    let n = positions.len().max(1) as f64;
    (0..width).map(|i| positions.iter().map(|&p| rows[p][i]).sum::<f64>() / n).collect()
}
