//! Stage 2 and 3: train the reward model, calibrate its heads, measure it.

use super::RewardModel;
use super::frozen::{Calibration, all_outputs};
use super::loss::{Weighing, masked_loss};
use crate::model::TrainBackend;
use crate::model::kernels::Kernels;
use crate::model::optimizer::gradients;
use crate::model::packed::{Packed, chunks};
use crate::text::corpus::{Encoded, together};
use burn::module::{ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use moslim_shared::config::ClassWeights;
use moslim_shared::distribution::{argmax, expected_class};
use moslim_shared::memory::COMPARED;
use moslim_shared::metrics::{
    accuracy, confusion, expected_calibration_error, macro_f1, mean_absolute_error, quadratic_weighted_kappa, reliability,
    spearman, within,
};
use moslim_shared::objective::Objective;
use moslim_shared::ordinal::{RewardLoss, thresholds};
use moslim_shared::summary::{RewardHeadReport, RewardModelReport, RewardPartReport};
use std::collections::HashMap;

/// Bins of the calibration error.
const ECE_BINS: usize = 15;

/// Labels of `rows` for the objectives at `heads`.
pub fn labels_of(rows: &[&Encoded], heads: &[usize]) -> Vec<Vec<Option<usize>>> {
    rows.iter().map(|r| heads.iter().map(|&h| r.labels[h]).collect()).collect()
}

/// How a batch is weighed: its answers, and with a weight of their own the beginnings of these, where they count.
pub struct BatchWeighing {
    pub answers: Weighing,
    pub beginnings: Option<(f64, Weighing)>,
}

/// The labels of every beginning of `rows`, which are those of the whole: one for each token of an answer.
pub fn labels_of_beginnings<'a>(rows: &[&Encoded], labels: &[&'a [Option<usize>]]) -> Vec<&'a [Option<usize>]> {
    rows.iter().zip(labels).flat_map(|(row, &labels)| std::iter::repeat_n(labels, row.tokens.len() - row.answer)).collect()
}

/// Share of a batch's loss that `rows` contribute. `heads`: positions of the model's objectives.
pub fn loss<B: Kernels>(model: &RewardModel<B>, rows: &[&Encoded], heads: &[usize], weighing: &BatchWeighing) -> Tensor<B, 1> {
    let (groups, order) = together(rows);
    let rows: Vec<&Encoded> = order.iter().map(|&n| rows[n]).collect();
    let labels = labels_of(&rows, heads);
    let labels: Vec<&[Option<usize>]> = labels.iter().map(Vec::as_slice).collect();
    let packed = Packed::new(&groups);
    let of = |outputs, labels: &[&[Option<usize>]], weighing: &Weighing| {
        masked_loss(model.loss(), outputs, labels, model.classes(), weighing, model.log_variances.val())
    };
    match &weighing.beginnings {
        None => of(model.outputs(&packed), &labels, &weighing.answers),
        Some((weight, begun)) => {
            let [outputs, beginnings] = model.outputs_and_beginnings(&packed);
            of(outputs, &labels, &weighing.answers) + of(beginnings, &labels_of_beginnings(&rows, &labels), begun) * *weight
        }
    }
}

/// Weight of every class, `[head][class]`, from the classes' frequency in `rows`; mean 1 over the rows.
pub fn class_weights(kind: ClassWeights, rows: &[Encoded], heads: &[usize], classes: &[usize]) -> Vec<Vec<f64>> {
    let of = |(&head, &count): (&usize, &usize)| {
        let mut counts = vec![0.0; count];
        rows.iter().filter_map(|r| r.labels[head]).for_each(|y| counts[y] += 1.0);
        let total: f64 = counts.iter().sum::<f64>().max(1.0);
        match kind {
            ClassWeights::Equal => vec![1.0; count],
            ClassWeights::InverseSqrt => {
                let raw: Vec<f64> = counts.iter().map(|c| (total / f64::max(*c, 1.0)).sqrt()).collect();
                let mean: f64 = raw.iter().zip(&counts).map(|(w, c)| w * c / total).sum();
                raw.iter().map(|w| (w / mean.max(1e-9)).clamp(0.3, 3.0)).collect()
            }
        }
    };
    heads.iter().zip(classes).map(of).collect()
}

/// Raw outputs and labels of the labelled rows of one head.
pub struct HeadOutputs {
    pub outputs: Vec<Vec<f64>>,
    pub labels: Vec<usize>,
    /// Position of each row, to find its question and length.
    rows: Vec<usize>,
}

/// Outputs of one shared model, or of several with one head each, `[row][objective]`.
pub fn outputs_of_rows<B: Kernels>(models: &[RewardModel<B>], rows: &[Encoded]) -> Vec<Vec<Vec<f64>>> {
    let (groups, order) = together(&rows.iter().collect::<Vec<_>>());
    let mut out = vec![Vec::new(); rows.len()];
    for (outputs, row) in all_outputs(models, &groups).into_iter().zip(order) {
        out[row] = outputs;
    }
    out
}

/// Runs one shared model, or several with one head each, over `rows` and keeps, per objective, the rows that have a label.
/// `heads`: positions of the objectives.
pub fn outputs<B: Kernels>(models: &[RewardModel<B>], rows: &[Encoded], heads: &[usize]) -> Vec<HeadOutputs> {
    let all = outputs_of_rows(models, rows);
    heads
        .iter()
        .enumerate()
        .map(|(position, &head)| {
            let mut out = HeadOutputs { outputs: Vec::new(), labels: Vec::new(), rows: Vec::new() };
            for (n, (row, outputs)) in rows.iter().zip(&all).enumerate() {
                if let Some(label) = row.labels[head] {
                    out.outputs.push(outputs[position].clone());
                    out.labels.push(label);
                    out.rows.push(n);
                }
            }
            out
        })
        .collect()
}

/// Thresholds per head that give the classes their frequency; empty for heads that need none.
pub fn fit_thresholds(loss: RewardLoss, validation: &[HeadOutputs], classes: &[usize]) -> Vec<Vec<f64>> {
    validation
        .iter()
        .zip(classes)
        .map(|(o, &c)| {
            if loss != RewardLoss::BradleyTerry {
                return Vec::new();
            }
            let scores: Vec<f64> = o.outputs.iter().map(|o| o[0]).collect();
            thresholds(&scores, &o.labels, c)
        })
        .collect()
}

/// Quadratic weighted kappa per head.
pub fn kappas(loss: RewardLoss, outputs: &[HeadOutputs], classes: &[usize]) -> Vec<f64> {
    let cuts = fit_thresholds(loss, outputs, classes);
    outputs
        .iter()
        .zip(classes)
        .zip(&cuts)
        .map(|((o, &c), cuts)| {
            let predicted: Vec<usize> = o.outputs.iter().map(|l| argmax(&loss.distribution(l, c, 1.0, cuts))).collect();
            quadratic_weighted_kappa(&o.labels, &predicted, c)
        })
        .collect()
}

/// A temperature per head, fitted on validation outputs.
pub fn temperatures(loss: RewardLoss, validation: &[HeadOutputs], classes: &[usize], cuts: &[Vec<f64>]) -> Vec<f64> {
    let heads = validation.iter().zip(classes).zip(cuts);
    heads.map(|((o, &c), cuts)| loss.fit_temperature(&o.outputs, &o.labels, c, cuts)).collect()
}

/// Measures every head on the outputs of test `rows`.
pub fn report(test: &[HeadOutputs], calibration: &Calibration, rows: &[Encoded], objectives: &[Objective]) -> RewardModelReport {
    let heads = objectives.iter().zip(test).enumerate().map(|(h, (objective, o))| {
        let classes = objective.class_count();
        let distribution =
            |outputs: &[f64], t: f64| calibration.loss.distribution(outputs, classes, t, &calibration.thresholds[h]);
        let temperature = calibration.temperatures[h];
        let p: Vec<Vec<f64>> = o.outputs.iter().map(|l| distribution(l, temperature)).collect();
        let predicted: Vec<usize> = p.iter().map(|p| argmax(p)).collect();
        let correct: Vec<bool> = predicted.iter().zip(&o.labels).map(|(p, y)| p == y).collect();
        let top = |p: &[f64]| p.iter().copied().fold(0.0, f64::max);
        let confidence: Vec<f64> = p.iter().map(|p| top(p)).collect();
        let before: Vec<f64> = o.outputs.iter().map(|l| top(&distribution(l, 1.0))).collect();
        let histogram: Vec<u64> = (0..classes).map(|c| o.labels.iter().filter(|&&y| y == c).count() as u64).collect();
        let n = o.labels.len().max(1) as f64;
        let expected: Vec<f64> = p.iter().map(|p| expected_class(p)).collect();
        let labels: Vec<f64> = o.labels.iter().map(|&y| y as f64).collect();
        let lengths: Vec<f64> = o.rows.iter().map(|&r| (rows[r].tokens.len() - rows[r].answer) as f64).collect();
        let miss =
            |p: &[f64], y: usize| p.iter().enumerate().map(|(c, p)| (p - f64::from(u8::from(c == y))).powi(2)).sum::<f64>();
        RewardHeadReport {
            objective: objective.id.clone(),
            classes,
            n: o.labels.len(),
            accuracy: accuracy(&o.labels, &predicted),
            majority: histogram.iter().copied().max().unwrap_or(0) as f64 / n,
            macro_f1: macro_f1(&o.labels, &predicted, classes),
            qwk: quadratic_weighted_kappa(&o.labels, &predicted, classes),
            ece: expected_calibration_error(&confidence, &correct, ECE_BINS),
            ece_uncalibrated: expected_calibration_error(&before, &correct, ECE_BINS),
            temperature,
            within_one: within(&o.labels, &predicted, 1),
            mae: mean_absolute_error(&labels, &expected),
            spearman: spearman(&labels, &expected),
            nll: p.iter().zip(&o.labels).map(|(p, &y)| -p[y].max(1e-12).ln()).sum::<f64>() / n,
            brier: p.iter().zip(&o.labels).map(|(p, &y)| miss(p, y)).sum::<f64>() / n,
            pairwise_accuracy: pairwise_accuracy(o, &expected, rows),
            length_correlation: spearman(&expected, &lengths),
            label_length_correlation: spearman(&labels, &lengths),
            histogram,
            reliability: reliability(&confidence, &correct, ECE_BINS),
            confusion: confusion(&o.labels, &predicted, classes),
        }
    });
    RewardModelReport { heads: heads.collect(), gradient_cosines: Vec::new(), parts: Vec::new() }
}

/// Kappa of every head on each of `parts` of test `rows`; none where the split is of one piece.
pub fn by_part(
    test: &[HeadOutputs],
    calibration: &Calibration,
    rows: &[Encoded],
    parts: &[String],
    objectives: &[Objective],
) -> Vec<RewardPartReport> {
    let kappa = |h: usize, part: usize| {
        let (o, classes) = (&test[h], objectives[h].class_count());
        let own = (0..o.rows.len()).filter(|&i| rows[o.rows[i]].part == part);
        let predict = |i: usize| {
            let p =
                calibration.loss.distribution(&o.outputs[i], classes, calibration.temperatures[h], &calibration.thresholds[h]);
            (o.labels[i], argmax(&p))
        };
        let (labels, predicted): (Vec<usize>, Vec<usize>) = own.map(predict).unzip();
        quadratic_weighted_kappa(&labels, &predicted, classes)
    };
    let one = |(part, name): (usize, &String)| RewardPartReport {
        part: name.clone(),
        n: rows.iter().filter(|r| r.part == part).count(),
        qwk: (0..objectives.len()).map(|h| kappa(h, part)).collect(),
    };
    parts.iter().enumerate().map(one).collect()
}

/// Share of pairs of answers to one question, with different labels, that `expected` orders like the labels; ties count half.
fn pairwise_accuracy(o: &HeadOutputs, expected: &[f64], rows: &[Encoded]) -> f64 {
    let mut questions: HashMap<&[u32], Vec<usize>> = HashMap::new();
    for (i, &row) in o.rows.iter().enumerate() {
        questions.entry(&rows[row].tokens[..rows[row].answer]).or_default().push(i);
    }
    let (mut right, mut pairs) = (0.0, 0.0);
    for same in questions.values() {
        for (n, &a) in same.iter().enumerate() {
            for &b in &same[n + 1..] {
                if o.labels[a] != o.labels[b] {
                    pairs += 1.0;
                    let order = (expected[a] - expected[b]) * (o.labels[a] as f64 - o.labels[b] as f64);
                    right += if order > 0.0 {
                        1.0
                    } else if order == 0.0 {
                        0.5
                    } else {
                        0.0
                    };
                }
            }
        }
    }
    if pairs > 0.0 { right / pairs } else { 0.0 }
}

/// Products of the heads' gradients on the trunk.
struct Products<'a> {
    heads: &'a [GradientsParams],
    products: Vec<Vec<f64>>,
}

impl<B: TrainBackend> ModuleVisitor<B> for Products<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let values: Vec<Vec<f32>> = self
            .heads
            .iter()
            .map(|g| {
                let grad = g.get::<B::InnerBackend, D>(param.id);
                grad.map_or(Vec::new(), |g| g.into_data().to_vec().expect("gradients are f32"))
            })
            .collect();
        for (a, row) in values.iter().zip(&mut self.products) {
            for (b, product) in values.iter().zip(row) {
                *product += a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            }
        }
    }
}

/// Cosines between the gradients that the heads send into the shared trunk, over some of `rows`: negative ones interfere.
pub fn gradient_cosines<B: TrainBackend>(model: &RewardModel<B>, rows: &[Encoded]) -> Vec<Vec<f64>> {
    let rows: Vec<&Encoded> = rows.iter().take(COMPARED).collect();
    let classes = model.classes().to_vec();
    let heads: Vec<usize> = (0..classes.len()).collect();
    let weights: Vec<Vec<f64>> = classes.iter().map(|&c| vec![1.0; c]).collect();
    let labels = labels_of(&rows, &heads);
    let labels: Vec<&[Option<usize>]> = labels.iter().map(Vec::as_slice).collect();
    let units: Vec<&[&Encoded]> = rows.chunks(2).collect();
    let grads: Vec<GradientsParams> = heads
        .iter()
        .map(|&head| {
            let only: Vec<f64> = heads.iter().map(|&h| if h == head { 1.0 } else { 0.0 }).collect();
            let weighing = BatchWeighing { answers: Weighing::of(&labels, model.loss(), &weights, &only), beginnings: None };
            let pieces = chunks::<B, _>(&units, |unit| unit.iter().map(|r| r.tokens.len()).sum());
            gradients(model, pieces, |model, units| (loss(model, &units.concat(), &heads, &weighing), ())).1
        })
        .collect();
    let mut visitor = Products { heads: &grads, products: vec![vec![0.0; heads.len()]; heads.len()] };
    Module::<B>::visit(&model.trunk, &mut visitor);
    let p = visitor.products;
    let cosine = |a: usize, b: usize| if p[a][a] > 0.0 && p[b][b] > 0.0 { p[a][b] / (p[a][a] * p[b][b]).sqrt() } else { 0.0 };
    heads.iter().map(|&a| heads.iter().map(|&b| cosine(a, b)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use moslim_shared::config::ModelConfig;

    #[test]
    fn a_row_gets_the_same_outputs_among_others_of_its_prompt() {
        let config = ModelConfig { layers: 2, d_model: 16, heads: 2, kv_heads: 1, d_ff: 24, context: 32, ..Default::default() };
        let model = RewardModel::<Flex>::new(&config, 50, &[3, 2], &Default::default(), 5, &Default::default());
        let row = |prompt: &[u32], answer: &[u32]| Encoded {
            tokens: [prompt, answer].concat(),
            answer: prompt.len(),
            question: 0..prompt.len(),
            labels: vec![Some(0), None],
            part: 0,
        };
        let (a, b): (&[u32], &[u32]) = (&[3, 9, 27, 31], &[4, 16]);
        let rows = [row(a, &[5, 1]), row(b, &[6, 36, 12, 1]), row(a, &[7, 49, 1]), row(b, &[8, 1]), row(a, &[2, 1])];
        let all = outputs_of_rows(std::slice::from_ref(&model), &rows);
        for (n, row) in rows.iter().enumerate() {
            let alone = all_outputs(std::slice::from_ref(&model), &[row.group()]);
            for (one, other) in all[n].iter().flatten().zip(alone[0].iter().flatten()) {
                assert!((one - other).abs() < 1e-5, "row {n}: {:?} {:?}", all[n], alone[0]);
            }
        }
        assert!((all[0][0][0] - all[2][0][0]).abs() > 1e-3, "the rows differ");
    }

    /// The loss over beginnings is the mean of one row for each of them, whose answer ends there and is not closed.
    #[test]
    fn beginnings_have_the_labels_of_their_answers() {
        let config = ModelConfig { layers: 1, d_model: 16, heads: 2, kv_heads: 1, d_ff: 24, context: 32, ..Default::default() };
        let model = RewardModel::<Flex>::new(&config, 50, &[3, 2], &Default::default(), 5, &Default::default());
        let row = |prompt: &[u32], answer: &[u32], labels: [Option<usize>; 2]| Encoded {
            tokens: [prompt, answer].concat(),
            answer: prompt.len(),
            question: 0..prompt.len(),
            labels: labels.to_vec(),
            part: 0,
        };
        let whole = [row(&[3, 9], &[5, 7, 1], [Some(2), None]), row(&[4], &[6, 1], [Some(0), Some(1)])];
        let begun = [
            row(&[3, 9], &[], [Some(2), None]),
            row(&[3, 9], &[5], [Some(2), None]),
            row(&[3, 9], &[5, 7], [Some(2), None]),
            row(&[4], &[], [Some(0), Some(1)]),
            row(&[4], &[6], [Some(0), Some(1)]),
        ];
        let weights = [vec![1.0, 1.0, 3.0], vec![1.0, 1.0]];
        let loss_of = |rows: &[Encoded], share: Option<f64>| {
            let rows: Vec<&Encoded> = rows.iter().collect();
            let labels = labels_of(&rows, &[0, 1]);
            let labels: Vec<&[Option<usize>]> = labels.iter().map(Vec::as_slice).collect();
            let weigh = |labels: &[&[Option<usize>]]| Weighing::of(labels, model.loss(), &weights, &[1.0, 0.5]);
            let beginnings = share.map(|share| (share, weigh(&labels_of_beginnings(&rows, &labels))));
            let weighing = BatchWeighing { answers: weigh(&labels), beginnings };
            f64::from(loss(&model, &rows, &[0, 1], &weighing).into_scalar())
        };
        let want = loss_of(&whole, None) + 0.25 * loss_of(&begun, None);
        assert!((loss_of(&whole, Some(0.25)) - want).abs() < 1e-5);
        assert!((loss_of(&whole, Some(0.0)) - want).abs() > 1e-3);
    }
}
