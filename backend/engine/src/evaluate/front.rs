//! What a method reaches over its trade-offs: one point for each offer, by the grader, their hypervolume, and what users with
//! given weights get of them.

use super::answer::{Answering, Ask, Route};
use super::figures::by_topic;
use super::grader::Grading;
use super::menu::Menu;
use crate::model::generate::{Answer, Sampling};
use crate::model::kernels::Kernels;
use anyhow::Result;
use moslim_shared::metrics::middle;
use moslim_shared::pareto::hypervolume;
use moslim_shared::summary::{ChosenFront, FrontPoint, FrontReport, Served, expected_utility};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 400;

/// What an offer reaches on held-out questions.
struct Measured {
    /// Utilities, `[question][steered objective]`.
    rows: Vec<Vec<f64>>,
    fluency: f64,
}

impl Measured {
    /// Mean utility over questions, which may repeat.
    fn mean(&self, questions: &[usize]) -> Vec<f64> {
        let width = self.rows.first().map_or(0, Vec::len);
        let n = questions.len().max(1) as f64;
        (0..width).map(|i| questions.iter().map(|&q| self.rows[q][i]).sum::<f64>() / n).collect()
    }
}

/// Asks `questions` held-out questions for every offer of `menu` that is kept: for the hypervolume, as many as there are trade-offs,
/// and the best for each trade-off. The questions are the same for each and for every method. `steered`: the objectives that count.
///
/// # Errors
/// When the tokenizer fails, or `each`, which is told the number of answers to every offer, stops it.
pub fn front<B: Kernels>(
    (x, grading): (&Answering<B>, &Grading<B>),
    menu: &Menu,
    (steered, trade_offs): (&[usize], &[Vec<f64>]),
    questions: usize,
    sampling: &Sampling,
    task_seed: u64,
    mut each: impl FnMut(usize) -> Result<()>,
) -> Result<FrontReport> {
    let mut rng = StdRng::seed_from_u64(task_seed ^ 0xF207);
    let asked = super::questions::spread(x.questions, questions, &mut rng);
    let all: Vec<usize> = (0..menu.offers.len()).collect();
    let mut kept = menu.widest(steered, trade_offs.len());
    // Where nothing reaches anything in every objective, the best for each trade-off is all there is.
    if kept.is_empty() {
        kept = trade_offs.iter().map(|w| menu.best(&all, w)).collect();
        kept.sort_unstable();
        kept.dedup();
    }
    let best: Vec<usize> = trade_offs.iter().map(|w| menu.best(&all, w)).collect();
    let served: Vec<usize> = trade_offs.iter().map(|w| menu.best(&kept, w)).collect();

    let mut measured: Vec<Option<Measured>> = menu.offers.iter().map(|_| None).collect();
    for &offer in kept.iter().chain(&best) {
        if measured[offer].is_some() {
            continue;
        }
        let asks: Vec<(usize, Ask)> = asked.iter().map(|&q| (q, menu.offers[offer].clone())).collect();
        let own = Sampling { seed: sampling.seed ^ ((offer as u64 + 1) << 40), ..sampling.clone() };
        let answers = x.answer(&asks, &own)?;
        let pairs: Vec<(usize, &Answer)> = asked.iter().copied().zip(&answers).collect();
        let mut fluent = 0usize;
        let mut rows = Vec::with_capacity(asked.len());
        for (grades, _) in grading.grade(x, &pairs)? {
            fluent += usize::from(grades.fluent);
            rows.push(steered.iter().map(|&i| x.objectives[i].utility(grades.classes[i] as f64)).collect::<Vec<f64>>());
        }
        measured[offer] = Some(Measured { rows, fluency: fluent as f64 / asked.len().max(1) as f64 });
        each(asked.len())?;
    }
    let of = |offer: usize| measured[offer].as_ref().expect("every kept offer was asked for");

    // The worst class everywhere. A method that reaches nothing better than the worst class in one objective gains nothing.
    let reference = vec![0.0; steered.len()];
    let volume = |offers: &[usize], questions: &[usize]| {
        hypervolume(&offers.iter().map(|&o| of(o).mean(questions)).collect::<Vec<_>>(), &reference)
    };
    let utility = |serving: &[usize], questions: &[usize]| {
        let reached: Vec<Vec<f64>> = serving.iter().map(|&o| of(o).mean(questions)).collect();
        let pairs: Vec<(&[f64], &[f64])> = trade_offs.iter().map(Vec::as_slice).zip(reached.iter().map(Vec::as_slice)).collect();
        expected_utility(&pairs, steered)
    };
    let every: Vec<usize> = (0..asked.len()).collect();
    let topics: Vec<usize> = asked.iter().map(|&q| x.questions[q].topic).collect();
    let mut draws = [const { Vec::new() }; 4];
    for resample in by_topic(&topics, RESAMPLES, &mut rng) {
        let values = [volume(&kept, &resample), utility(&served, &resample), volume(&best, &resample), utility(&best, &resample)];
        draws.iter_mut().zip(values).for_each(|(all, v)| all.push(v));
    }
    let [interval, utility_interval, chosen_interval, chosen_utility_interval] = draws.map(middle);
    let point = |offer: usize, weights: Option<&Vec<f64>>| {
        let own = menu.offers[offer].offer.and_then(|n| x.offered_weights(n));
        FrontPoint {
            weights: weights.or(own).cloned().unwrap_or_default(),
            asked: matches!(x.route, Route::Tags | Route::Scores { .. }).then(|| menu.offers[offer].preference.clone()),
            utility: of(offer).mean(&every),
            fluency: of(offer).fluency,
        }
    };
    let place = |offer: &usize| kept.iter().position(|k| k == offer).expect("it is served from what is kept");
    Ok(FrontReport {
        objectives: steered.iter().map(|&i| x.objectives[i].id.clone()).collect(),
        points: kept.iter().map(|&o| point(o, None)).collect(),
        hypervolume: volume(&kept, &every),
        interval,
        expected_utility: Some(utility(&served, &every)),
        utility_interval,
        served: trade_offs.iter().zip(&served).map(|(w, o)| Served { weights: w.clone(), point: place(o) }).collect(),
        chosen: Some(ChosenFront {
            points: best.iter().zip(trade_offs).map(|(&o, w)| point(o, Some(w))).collect(),
            hypervolume: volume(&best, &every),
            interval: chosen_interval,
            expected_utility: utility(&best, &every),
            utility_interval: chosen_utility_interval,
        }),
        menu: Some(menu.report),
        reference,
    })
}
