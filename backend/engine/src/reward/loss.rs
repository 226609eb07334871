//! Losses of reward heads. Rows without a label for a head add nothing to it and give it no gradient.

use burn::prelude::*;
use burn::tensor::activation::{log_sigmoid, log_softmax, softmax};
use moslim_shared::ordinal::RewardLoss;

/// How the heads of a batch are weighed; made of the whole batch, so that the losses of its pieces add up to its mean.
#[derive(Debug, Clone, Default)]
pub struct Weighing {
    /// Weight of each class, `[head][class]`.
    pub classes: Vec<Vec<f64>>,
    /// What a head's sum is divided by: the weights of its labelled rows (of its pairs with different labels).
    pub totals: Vec<f64>,
    /// Weight of each head.
    pub heads: Vec<f64>,
    /// Label smoothing.
    pub smoothing: f64,
    /// Whether the heads' weights are learnt.
    pub learned: bool,
    /// Rows of the batch.
    pub rows: usize,
}

impl Weighing {
    /// Weighs a batch with `labels[row][head]`.
    pub fn of(labels: &[&[Option<usize>]], loss: RewardLoss, classes: &[Vec<f64>], heads: &[f64]) -> Self {
        let totals = (0..classes.len())
            .map(|h| {
                if loss == RewardLoss::BradleyTerry {
                    labels.chunks(2).filter(|pair| matches!(pair, [a, b] if ordered(a[h], b[h]).is_some())).count() as f64
                } else {
                    labels.iter().filter_map(|l| l[h]).map(|y| classes[h][y]).sum()
                }
            })
            .collect();
        Self { classes: classes.to_vec(), totals, heads: heads.to_vec(), rows: labels.len(), ..Default::default() }
    }
}

/// 1 when `a` is the higher label, -1 when `b` is; none when one is missing or both are equal.
fn ordered(a: Option<usize>, b: Option<usize>) -> Option<f32> {
    match (a?, b?) {
        (a, b) if a > b => Some(1.0),
        (a, b) if a < b => Some(-1.0),
        _ => None,
    }
}

/// Sum over heads of their weighed mean losses. `outputs`: `[rows, sum of outputs]`; `labels[row][head]`; `log_variances`:
/// `[heads]`, used when weights are learnt. For Bradley-Terry the rows 2n and 2n + 1 are a pair.
pub fn masked_loss<B: Backend>(
    loss: RewardLoss,
    outputs: Tensor<B, 2>,
    labels: &[&[Option<usize>]],
    classes: &[usize],
    weighing: &Weighing,
    log_variances: Tensor<B, 1>,
) -> Tensor<B, 1> {
    let device = outputs.device();
    let mut total = Tensor::zeros([1], &device);
    let mut from = 0;
    let counts =
        |head: usize| labels.iter().any(|l| l[head].is_some()) && weighing.totals[head] > 0.0 && weighing.heads[head] > 0.0;
    for (head, &count) in classes.iter().enumerate() {
        let width = loss.outputs(count);
        if counts(head) {
            let own: Vec<Option<usize>> = labels.iter().map(|l| l[head]).collect();
            let of = outputs.clone().narrow(1, from, width);
            let sum = head_loss(loss, of, &own, count, &weighing.classes[head], weighing.smoothing);
            let mean = sum * (weighing.heads[head] / weighing.totals[head]);
            total = total
                + if weighing.learned {
                    let s = log_variances.clone().narrow(0, head, 1);
                    let share = labels.len() as f64 / weighing.rows.max(1) as f64;
                    s.clone().neg().exp() * mean + s * share
                } else {
                    mean
                };
        }
        from += width;
    }
    let nothing = (0..classes.len()).all(|head| !counts(head));
    // Where labels are few a piece may have none: its loss is a zero that still has a gradient.
    if nothing { outputs.sum() * 0.0 } else { total }
}

/// Sum over the labelled rows of one head, each times its class's weight. `outputs`: `[rows, outputs]`.
fn head_loss<B: Backend>(
    loss: RewardLoss,
    outputs: Tensor<B, 2>,
    labels: &[Option<usize>],
    classes: usize,
    weights: &[f64],
    smoothing: f64,
) -> Tensor<B, 1> {
    let device = outputs.device();
    let rows = labels.len();
    // A matrix with `value(row's label, column)` where a row is labelled, else 0.
    let table = |columns: usize, value: &dyn Fn(usize, usize) -> f64| {
        let mut out = vec![0f32; rows * columns];
        for (row, label) in labels.iter().enumerate() {
            if let Some(y) = *label {
                for c in 0..columns {
                    out[row * columns + c] = (weights[y] * value(y, c)) as f32;
                }
            }
        }
        Tensor::<B, 2>::from_data(TensorData::new(out, [rows, columns]), &device)
    };
    let one = |yes: bool| if yes { 1.0 } else { 0.0 };
    match loss {
        RewardLoss::CrossEntropy => {
            let target = |y, c| smoothing / classes as f64 + one(c == y) * (1.0 - smoothing);
            (log_softmax(outputs, 1) * table(classes, &target)).sum().neg()
        }
        RewardLoss::SquaredEmd => {
            // Cumulative sums as a product with an upper triangle of ones.
            let triangle: Vec<f32> = (0..classes * classes).map(|i| one(i / classes <= i % classes) as f32).collect();
            let triangle = Tensor::<B, 2>::from_data(TensorData::new(triangle, [classes, classes]), &device);
            let cumulative = softmax(outputs, 1).matmul(triangle);
            let mask = table(classes, &|_, _| 1.0 / (classes - 1) as f64);
            // Unweighted steps: the weights are in the mask.
            let steps: Vec<f32> =
                labels.iter().flat_map(|l| (0..classes).map(move |c| one(l.is_some_and(|y| y <= c)) as f32)).collect();
            let steps = Tensor::<B, 2>::from_data(TensorData::new(steps, [rows, classes]), &device);
            let miss = cumulative - steps;
            (miss.clone() * miss * mask).sum()
        }
        // CORN asks each threshold only of rows that passed the one before.
        RewardLoss::Coral | RewardLoss::Corn => {
            let above = table(classes - 1, &|y, t| one(y > t));
            let below = table(classes - 1, &|y, t| one(if loss == RewardLoss::Corn { y == t } else { y <= t }));
            (log_sigmoid(outputs.clone()) * above + log_sigmoid(outputs.neg()) * below).sum().neg()
        }
        RewardLoss::Regression => {
            let mask = table(1, &|_, _| 1.0);
            let label: Vec<f32> = labels.iter().map(|l| l.unwrap_or(0) as f32).collect();
            let miss = outputs - Tensor::<B, 2>::from_data(TensorData::new(label, [rows, 1]), &device);
            (miss.clone() * miss * mask).sum()
        }
        RewardLoss::BradleyTerry => {
            let pairs = rows / 2;
            let mut difference = vec![0f32; rows * pairs];
            let mut mask = vec![0f32; pairs];
            for (n, pair) in labels.chunks_exact(2).enumerate() {
                if let Some(sign) = ordered(pair[0], pair[1]) {
                    difference[n * rows + 2 * n] = sign;
                    difference[n * rows + 2 * n + 1] = -sign;
                    mask[n] = 1.0;
                }
            }
            let difference = Tensor::<B, 2>::from_data(TensorData::new(difference, [pairs, rows]), &device);
            let mask = Tensor::<B, 2>::from_data(TensorData::new(mask, [pairs, 1]), &device);
            (log_sigmoid(difference.matmul(outputs)) * mask).sum().neg()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};

    type B = Autodiff<Flex>;

    fn equal(classes: &[usize]) -> Vec<Vec<f64>> {
        classes.iter().map(|&c| vec![1.0; c]).collect()
    }

    fn value(loss: RewardLoss, outputs: &[f32], label: usize, classes: usize) -> f32 {
        let data = TensorData::new(outputs.to_vec(), [1, outputs.len()]);
        let outputs = Tensor::<B, 2>::from_data(data, &Default::default());
        head_loss(loss, outputs, &[Some(label)], classes, &vec![1.0; classes], 0.0).into_scalar()
    }

    #[test]
    fn ordinal_losses_match_the_vectors() {
        let outputs: Vec<f32> = [2.0, 0.5, -0.5, -2.0].iter().map(|b| 0.4 + b).collect();
        assert!((value(RewardLoss::Coral, &outputs, 3, 5) - 1.356_287).abs() < 1e-5);
        // CORN with conditional probabilities 0.9, 0.8, 0.5, 0.2 and label 2: thresholds 0 and 1 passed, 2 not, 3 not asked.
        let logits: Vec<f32> = [0.9f32, 0.8, 0.5, 0.2].iter().map(|p| (p / (1.0 - p)).ln()).collect();
        assert!((value(RewardLoss::Corn, &logits, 2, 5) + (0.9f32 * 0.8 * 0.5).ln()).abs() < 1e-5);
        // The ranked probability score of (0.1, 0.2, 0.4, 0.2, 0.1) for class 3.
        let logits: Vec<f32> = [0.1f32, 0.2, 0.4, 0.2, 0.1].iter().map(|p| p.ln()).collect();
        assert!((value(RewardLoss::SquaredEmd, &logits, 3, 5) - 0.15).abs() < 1e-5);
        assert!((value(RewardLoss::Regression, &[1.5], 3, 5) - 2.25).abs() < 1e-5);
    }

    #[test]
    fn pairs_are_compared_where_their_labels_differ() {
        let outputs = Tensor::<B, 2>::from_data([[1.0], [0.5], [3.0], [0.0]], &Default::default()).require_grad();
        let labels = [Some(0), Some(2), Some(1), Some(1)];
        let loss = head_loss(RewardLoss::BradleyTerry, outputs.clone(), &labels, 3, &[1.0; 3], 0.0);
        let want = (1.0 + 0.5f32.exp()).ln();
        assert!((loss.clone().into_scalar() - want).abs() < 1e-5);
        let grad: Vec<f32> = outputs.grad(&loss.backward()).unwrap().into_data().to_vec().unwrap();
        assert!(grad[0] > 0.0 && grad[1] < 0.0 && grad[2] == 0.0 && grad[3] == 0.0, "{grad:?}");
    }

    #[test]
    fn a_masked_head_gets_no_gradient_with_any_loss() {
        use RewardLoss::*;
        for loss in [CrossEntropy, SquaredEmd, Coral, Corn, Regression, BradleyTerry] {
            let classes = [2, 3];
            let width: usize = classes.iter().map(|&c| loss.outputs(c)).sum();
            let first = loss.outputs(2);
            let values: Vec<f32> = (0..2 * width).map(|i| i as f32 / 7.0 - 0.3).collect();
            let outputs = Tensor::<B, 2>::from_data(TensorData::new(values, [2, width]), &Default::default()).require_grad();
            let labels: [&[Option<usize>]; 2] = [&[Some(1), None], &[Some(0), None]];
            let weighing = Weighing::of(&labels, loss, &equal(&classes), &[1.0, 1.0]);
            let s = Tensor::zeros([2], &Default::default());
            let total = masked_loss(loss, outputs.clone(), &labels, &classes, &weighing, s.clone());
            assert!(total.clone().into_scalar().is_finite());
            let grad: Vec<f32> = outputs.grad(&total.backward()).unwrap().into_data().to_vec().unwrap();
            for row in grad.chunks(width) {
                assert!(row[..first].iter().any(|&g| g != 0.0), "{loss:?} {row:?}");
                assert!(row[first..].iter().all(|&g| g == 0.0), "{loss:?} {row:?}");
            }
            let nothing: [&[Option<usize>]; 2] = [&[None, None], &[None, None]];
            let weighing = Weighing::of(&nothing, loss, &equal(&classes), &[1.0, 1.0]);
            let none = masked_loss(loss, outputs.clone(), &nothing, &classes, &weighing, s);
            assert_eq!(none.clone().into_scalar(), 0.0);
            let grad: Vec<f32> = outputs.grad(&none.backward()).unwrap().into_data().to_vec().unwrap();
            assert!(grad.iter().all(|&g| g == 0.0), "{loss:?}: a piece without labels teaches nothing, and fails nowhere");
        }
    }

    #[test]
    fn pieces_add_up_and_weights_count() {
        let logits = Tensor::<B, 2>::from_data([[0.0, 3f32.ln()], [1.0, 1.0], [5.0, 0.0]], &Default::default());
        let labels: [&[Option<usize>]; 3] = [&[Some(1)], &[Some(0)], &[None]];
        let s = || Tensor::zeros([1], &Default::default());
        let weighing = Weighing::of(&labels, RewardLoss::CrossEntropy, &equal(&[2]), &[1.0]);
        let of = |from: usize, n: usize, w: &Weighing| {
            let part = logits.clone().narrow(0, from, n);
            masked_loss(RewardLoss::CrossEntropy, part, &labels[from..from + n], &[2], w, s()).into_scalar()
        };
        let (a, b) = (-(0.75f32.ln()), -(0.5f32.ln()));
        assert!((of(0, 3, &weighing) - (a + b) / 2.0).abs() < 1e-6);
        assert!((of(0, 3, &weighing) - of(0, 1, &weighing) - of(1, 2, &weighing)).abs() < 1e-6);
        // Class 1 three times as heavy as class 0; the head twice.
        let heavy = Weighing::of(&labels, RewardLoss::CrossEntropy, &[vec![1.0, 3.0]], &[2.0]);
        assert!((of(0, 3, &heavy) - 2.0 * (3.0 * a + b) / 4.0).abs() < 1e-5);
        // At s = 0 a learnt weight is 1.
        let learned = Weighing { learned: true, ..weighing };
        assert!((of(0, 3, &learned) - (a + b) / 2.0).abs() < 1e-6);
    }

    /// Outputs row after row.
    fn outputs(rows: &[&[f32]]) -> Tensor<B, 2> {
        Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), rows[0].len()]), &Default::default())
    }

    fn logs(p: &[f32]) -> Vec<f32> {
        p.iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn labels_are_smoothed_over_all_classes() {
        let logits = logs(&[0.2, 0.3, 0.5]);
        let at =
            |weights: &[f64]| head_loss(RewardLoss::CrossEntropy, outputs(&[&logits]), &[Some(2)], 3, weights, 0.3).into_scalar();
        // A tenth for every class, and 0.7 more for the labelled one.
        let want = -(0.1 * 0.2f32.ln() + 0.1 * 0.3f32.ln() + 0.8 * 0.5f32.ln());
        assert!((at(&[1.0; 3]) - want).abs() < 1e-5);
        assert!((at(&[1.0, 1.0, 2.0]) - 2.0 * want).abs() < 1e-5);
    }

    /// Three rows, of which the second has no label.
    #[test]
    fn rows_weigh_what_their_class_does_with_every_loss() {
        let weights = [2.0, 3.0, 0.5];
        let near = |loss, rows: [&[f32]; 3], labels: [usize; 2], want: f32| {
            let labels = [Some(labels[0]), None, Some(labels[1])];
            let got = head_loss(loss, outputs(&rows), &labels, 3, &weights, 0.0).into_scalar();
            assert!((got - want).abs() < 1e-4, "{loss:?}: {got}, not {want}");
        };
        let (quarter, three) = (0.25f32.ln(), 0.75f32.ln());
        // Of classes with (0.1, 0.2, 0.7) and (0.5, 0.25, 0.25), labelled 0 and 2.
        let rows = [logs(&[0.1, 0.2, 0.7]), vec![9.0, -9.0, 0.0], logs(&[0.5, 0.25, 0.25])];
        let rows = [&rows[0][..], &rows[1], &rows[2]];
        near(RewardLoss::CrossEntropy, rows, [0, 2], -2.0 * 0.1f32.ln() - 0.5 * quarter);
        // Cumulative (0.1, 0.3, 1) from (1, 1, 1), and (0.5, 0.75, 1) from (0, 0, 1); half of the squares.
        near(RewardLoss::SquaredEmd, rows, [0, 2], 2.0 * (0.81 + 0.49) / 2.0 + 0.5 * (0.25 + 0.5625) / 2.0);
        // Thresholds that are passed with 3/4 and with 1/4; label 1 is above the one and below the other, 0 below both, of which CORN asks
        // the first alone.
        let thresholds = [3f32.ln(), -(3f32.ln())];
        let rows: [&[f32]; 3] = [&thresholds, &[9.0, 9.0], &thresholds];
        near(RewardLoss::Coral, rows, [1, 0], -3.0 * 2.0 * three - 2.0 * (quarter + three));
        near(RewardLoss::Corn, rows, [1, 0], -3.0 * 2.0 * three - 2.0 * quarter);
        // 1.5 misses 2 by a half and 0 by 1.5.
        near(RewardLoss::Regression, [&[1.5], &[9.0], &[1.5]], [2, 0], 0.5 * 0.25 + 2.0 * 2.25);
    }

    #[test]
    fn the_higher_of_a_pair_is_preferred_wherever_it_stands() {
        // Higher first; equal; higher last; and one of a pair that has no label.
        let rows: [&[f32]; 8] = [&[1.0], &[0.5], &[3.0], &[0.0], &[0.25], &[1.25], &[9.0], &[-9.0]];
        let labels = [Some(2), Some(0), Some(1), Some(1), Some(0), Some(1), None, Some(1)].map(|label| [label]);
        let labels: Vec<&[Option<usize>]> = labels.iter().map(|label| &label[..]).collect();
        let s = || Tensor::zeros([1], &Default::default());
        let of = |outputs: Tensor<B, 2>, labels: &[&[Option<usize>]]| {
            let weighing = Weighing::of(labels, RewardLoss::BradleyTerry, &equal(&[3]), &[1.0]);
            let loss = masked_loss(RewardLoss::BradleyTerry, outputs, labels, &[3], &weighing, s());
            (loss, weighing.totals[0])
        };
        let (loss, pairs) = of(outputs(&rows), &labels);
        // The preferred are ahead by 0.5 and by 1; a mean over two pairs.
        let want = ((1.0 + (-0.5f32).exp()).ln() + (1.0 + (-1f32).exp()).ln()) / 2.0;
        assert!((loss.into_scalar() - want).abs() < 1e-5 && pairs == 2.0);
        // Of equal ones nothing is learnt, and nothing divided by.
        let tied = outputs(&rows[2..4]).require_grad();
        let (loss, pairs) = of(tied.clone(), &labels[2..4]);
        let grad: Vec<f32> = tied.grad(&loss.backward()).unwrap().into_data().to_vec().unwrap();
        assert_eq!((loss.into_scalar(), pairs, grad), (0.0, 0.0, vec![0.0; 2]));
    }

    #[test]
    fn every_head_reads_its_own_outputs() {
        let logits = [vec![0.0, 3f32.ln()], logs(&[0.2, 0.3, 0.5])].concat();
        let labels: [&[Option<usize>]; 1] = [&[Some(1), Some(2)]];
        let weighing = Weighing::of(&labels, RewardLoss::CrossEntropy, &equal(&[2, 3]), &[2.0, 0.5]);
        let s = Tensor::zeros([2], &Default::default());
        let loss = masked_loss(RewardLoss::CrossEntropy, outputs(&[&logits]), &labels, &[2, 3], &weighing, s);
        assert!((loss.into_scalar() + 2.0 * 0.75f32.ln() + 0.5 * 0.5f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn learnt_weights_are_those_of_the_heads_and_their_price_is_shared_by_the_pieces() {
        // The first head weighs nothing; the second is labelled in the first two of three rows.
        let rows: [&[f32]; 3] = [&[4.0, 0.0, 0.0, 3f32.ln()], &[4.0, 0.0, 1.0, 1.0], &[4.0, 0.0, 5.0, 0.0]];
        let labels: [&[Option<usize>]; 3] = [&[Some(1), Some(1)], &[Some(1), Some(0)], &[Some(1), None]];
        let weighing = Weighing::of(&labels, RewardLoss::CrossEntropy, &equal(&[2, 2]), &[0.0, 1.0]);
        let weighing = Weighing { learned: true, ..weighing };
        let of = |from: usize, to: usize| {
            let s = Tensor::<B, 1>::from_data([9.0, 0.5], &Default::default()).require_grad();
            let (part, labels) = (outputs(&rows[from..to]), &labels[from..to]);
            let loss = masked_loss(RewardLoss::CrossEntropy, part, labels, &[2, 2], &weighing, s.clone());
            let grad: Vec<f32> = s.grad(&loss.backward()).unwrap().into_data().to_vec().unwrap();
            (loss.into_scalar(), grad)
        };
        // exp(-s) times the mean, and s.
        let mean = -(0.75f32.ln() + 0.5f32.ln()) / 2.0;
        let (whole, grad) = of(0, 3);
        assert!((whole - (-0.5f32).exp() * mean - 0.5).abs() < 1e-5, "{whole}");
        assert!(grad[0] == 0.0 && (grad[1] - (1.0 - (-0.5f32).exp() * mean)).abs() < 1e-5, "{grad:?}");
        assert!((of(0, 1).0 + of(1, 3).0 - whole).abs() < 1e-5);
        assert!((of(0, 1).0 + (-0.5f32).exp() * 0.75f32.ln() / 2.0 - 0.5 / 3.0).abs() < 1e-5, "a third of the rows");
    }
}
