//! Agreement between classes: of the reward model with labels, and of answers with what was asked for.

use crate::order::places;
use serde::{Deserialize, Serialize};

/// `matrix[truth][prediction]`, counts, for `classes` classes.
///
/// ```
/// use moslim_shared::metrics::confusion;
/// assert_eq!(confusion(&[0, 1, 1], &[0, 1, 0], 2), [[1, 0], [1, 1]]);
/// ```
pub fn confusion(truth: &[usize], predicted: &[usize], classes: usize) -> Vec<Vec<u64>> {
    let mut matrix = vec![vec![0; classes]; classes];
    for (&t, &p) in truth.iter().zip(predicted) {
        matrix[t][p] += 1;
    }
    matrix
}

/// Share of pairs whose difference is at most `distance` classes; 0 for no pairs.
///
/// ```
/// use moslim_shared::metrics::within;
/// assert_eq!(within(&[0, 1, 4, 4], &[0, 2, 2, 4], 1), 0.75);
/// ```
pub fn within(truth: &[usize], predicted: &[usize], distance: usize) -> f64 {
    let hits = truth.iter().zip(predicted).filter(|(t, p)| t.abs_diff(**p) <= distance).count();
    hits as f64 / truth.len().max(1) as f64
}

/// Share of equal pairs.
///
/// ```
/// assert_eq!(moslim_shared::metrics::accuracy(&[0, 1, 2, 2], &[0, 1, 1, 2]), 0.75);
/// ```
pub fn accuracy(truth: &[usize], predicted: &[usize]) -> f64 {
    within(truth, predicted, 0)
}

/// Unweighted mean of the F1 scores of the classes that occur in either list.
///
/// ```
/// use moslim_shared::metrics::macro_f1;
/// // Class 0: precision 1/2, recall 1. Class 1: precision 1, recall 1/2.
/// assert!((macro_f1(&[0, 1, 1], &[0, 1, 0], 2) - 2.0 / 3.0).abs() < 1e-12);
/// ```
pub fn macro_f1(truth: &[usize], predicted: &[usize], classes: usize) -> f64 {
    let m = confusion(truth, predicted, classes);
    let mut scores = Vec::new();
    for c in 0..classes {
        let hit = m[c][c] as f64;
        let row: u64 = m[c].iter().sum();
        let column: u64 = m.iter().map(|r| r[c]).sum();
        if row + column > 0 {
            scores.push(2.0 * hit / (row + column) as f64);
        }
    }
    scores.iter().sum::<f64>() / scores.len().max(1) as f64
}

/// Quadratic weighted kappa (Cohen 1968): 1 for perfect agreement, 0 for chance. 1 where nothing varies and all agree.
///
/// ```
/// use moslim_shared::metrics::quadratic_weighted_kappa;
/// assert_eq!(quadratic_weighted_kappa(&[0, 1, 2], &[0, 1, 2], 3), 1.0);
/// assert_eq!(quadratic_weighted_kappa(&[0, 2], &[2, 0], 3), -1.0);
/// ```
pub fn quadratic_weighted_kappa(truth: &[usize], predicted: &[usize], classes: usize) -> f64 {
    kappa_of(&confusion(truth, predicted, classes))
}

/// Quadratic weighted kappa of a confusion matrix, `[true][predicted]`, counts. Matrices of several folds are added before.
///
/// ```
/// assert_eq!(moslim_shared::metrics::kappa_of(&[vec![2, 0], vec![1, 1]]), 0.5);
/// ```
pub fn kappa_of(m: &[Vec<u64>]) -> f64 {
    let classes = m.len();
    let n = m.iter().flatten().sum::<u64>() as f64;
    let rows: Vec<f64> = m.iter().map(|r| r.iter().sum::<u64>() as f64).collect();
    let columns: Vec<f64> = (0..classes).map(|c| m.iter().map(|r| r[c]).sum::<u64>() as f64).collect();
    let (mut observed, mut expected) = (0.0, 0.0);
    for i in 0..classes {
        for j in 0..classes {
            let weight = (i as f64 - j as f64).powi(2);
            observed += weight * m[i][j] as f64;
            expected += weight * rows[i] * columns[j] / n.max(1.0);
        }
    }
    if expected == 0.0 { f64::from(observed == 0.0) } else { 1.0 - observed / expected }
}

/// Mean absolute difference, in classes.
///
/// ```
/// assert_eq!(moslim_shared::metrics::mean_absolute_error(&[0.0, 4.0], &[1.0, 2.0]), 1.5);
/// ```
pub fn mean_absolute_error(truth: &[f64], predicted: &[f64]) -> f64 {
    truth.iter().zip(predicted).map(|(t, p)| (t - p).abs()).sum::<f64>() / truth.len().max(1) as f64
}

/// One bin of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ReliabilityBin {
    /// Rows in the bin.
    pub n: usize,
    /// Mean confidence (largest class probability) in the bin.
    pub confidence: f64,
    /// Share of right predictions in the bin.
    pub accuracy: f64,
}

/// Reliability diagram with `bins` equal-width bins over (0, 1].
///
/// ```
/// use moslim_shared::metrics::reliability;
/// let bins = reliability(&[0.5, 1.0], &[false, true], 2);
/// assert_eq!((bins[0].n, bins[0].confidence, bins[0].accuracy), (1, 0.5, 0.0));
/// assert_eq!((bins[1].n, bins[1].confidence, bins[1].accuracy), (1, 1.0, 1.0));
/// ```
pub fn reliability(confidence: &[f64], correct: &[bool], bins: usize) -> Vec<ReliabilityBin> {
    let mut out = vec![ReliabilityBin::default(); bins];
    for (&p, &ok) in confidence.iter().zip(correct) {
        let bin = &mut out[((p * bins as f64).ceil() as usize).clamp(1, bins) - 1];
        bin.n += 1;
        bin.confidence += p;
        bin.accuracy += f64::from(ok);
    }
    for bin in &mut out {
        let n = bin.n.max(1) as f64;
        bin.confidence /= n;
        bin.accuracy /= n;
    }
    out
}

/// Expected calibration error (Guo et al. 2017) over `bins` equal-width bins.
///
/// ```
/// use moslim_shared::metrics::expected_calibration_error;
/// // Sure of itself four times, right three times.
/// assert_eq!(expected_calibration_error(&[1.0; 4], &[true, true, true, false], 10), 0.25);
/// ```
pub fn expected_calibration_error(confidence: &[f64], correct: &[bool], bins: usize) -> f64 {
    let n = confidence.len().max(1) as f64;
    reliability(confidence, correct, bins).iter().map(|b| b.n as f64 / n * (b.accuracy - b.confidence).abs()).sum()
}

/// Ranks starting at 1, ties sharing their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let order = places(values.len(), &|a, b| values[a].total_cmp(&values[b]));
    let mut out = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start;
        while end + 1 < order.len() && values[order[end + 1]] == values[order[start]] {
            end += 1;
        }
        for &i in &order[start..=end] {
            out[i] = (start + end) as f64 / 2.0 + 1.0;
        }
        start = end + 1;
    }
    out
}

/// Spearman's rank correlation; 0 where either side does not vary.
///
/// ```
/// use moslim_shared::metrics::spearman;
/// assert_eq!(spearman(&[1.0, 2.0, 3.0], &[10.0, 20.0, 900.0]), 1.0);
/// assert_eq!(spearman(&[1.0, 2.0, 3.0], &[5.0, 5.0, 5.0]), 0.0);
/// ```
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let n = a.len() as f64;
    let (ma, mb) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(&b) {
        ab += (x - ma) * (y - mb);
        aa += (x - ma) * (x - ma);
        bb += (y - mb) * (y - mb);
    }
    if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

/// Wilson's 95 % interval for a share of `n`; `hits` may be half counts. `[0, 1]` for no trial.
///
/// ```
/// let [low, high] = moslim_shared::metrics::wilson(8.0, 10);
/// assert!((low - 0.4902).abs() < 1e-4 && (high - 0.9433).abs() < 1e-4);
/// ```
pub fn wilson(hits: f64, n: usize) -> [f64; 2] {
    const Z: f64 = 1.959_964;
    if n == 0 {
        return [0.0, 1.0];
    }
    let (n, share) = (n as f64, hits / n as f64);
    let centre = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [(centre - spread) / scale, (centre + spread) / scale]
}

/// The middle 95 % of `values`: bounds of a bootstrap. `values` must not be empty.
///
/// ```
/// let values = (0..=1000).map(f64::from).collect();
/// assert_eq!(moslim_shared::metrics::middle(values), [25.0, 975.0]);
/// ```
pub fn middle(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    [at(0.025), at(0.975)]
}

/// Slope of the least-squares line through `(x, y)`; 0 where `x` does not vary.
///
/// ```
/// assert_eq!(moslim_shared::metrics::slope(&[0.0, 1.0, 2.0], &[1.0, 3.0, 5.0]), 2.0);
/// ```
pub fn slope(x: &[f64], y: &[f64]) -> f64 {
    let n = x.len().max(1) as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let (mut xy, mut xx) = (0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        xy += (x - mx) * (y - my);
        xx += (x - mx) * (x - mx);
    }
    if xx > 0.0 { xy / xx } else { 0.0 }
}

/// Mean of a matrix's diagonal over the rows that have answers.
pub fn diagonal(matrix: &[Vec<f64>]) -> Option<f64> {
    let rows = matrix.iter().enumerate().filter(|(_, row)| row.iter().sum::<f64>() > 0.0);
    let hits: Vec<f64> = rows.filter_map(|(c, row)| row.get(c).copied()).collect();
    (!hits.is_empty()).then(|| hits.iter().sum::<f64>() / hits.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-5, "{a} is not {b}");
    }

    #[test]
    fn the_diagonal_counts_rows_that_have_answers() {
        let matrix = [vec![0.2, 0.8, 0.0], vec![0.0; 3], vec![0.4, 0.0, 0.6]];
        assert!((diagonal(&matrix).unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(diagonal(&[vec![0.0, 0.0], vec![0.0, 0.0]]), None);
    }

    #[test]
    fn class_metrics_match_the_vectors() {
        let truth = [0, 1, 2, 2, 3, 4, 4, 1];
        let predicted = [0, 2, 2, 1, 3, 3, 4, 1];
        close(accuracy(&truth, &predicted), 0.625);
        close(macro_f1(&truth, &predicted, 5), 0.666667);
        close(quadratic_weighted_kappa(&truth, &predicted, 5), 0.888889);
        let real = |v: &[usize]| v.iter().map(|&x| x as f64).collect::<Vec<_>>();
        close(mean_absolute_error(&real(&truth), &real(&predicted)), 0.375);
        close(within(&truth, &predicted, 1), 1.0);
    }

    #[test]
    fn calibration_error_matches_the_vector() {
        let confidence = [0.95, 0.85, 0.65, 0.55, 0.92, 0.61];
        let correct = [true, true, false, true, true, false];
        close(expected_calibration_error(&confidence, &correct, 10), 0.331667);
    }

    #[test]
    fn intervals_and_slopes() {
        // Wilson (1927) for 8 of 10.
        let [low, high] = wilson(8.0, 10);
        close(low, 0.490162);
        close(high, 0.943318);
        assert_eq!(wilson(0.0, 0), [0.0, 1.0]);
        assert_eq!(middle((0..=1000).map(f64::from).rev().collect()), [25.0, 975.0]);
        close(slope(&[0.0, 1.0, 2.0], &[1.0, 3.0, 5.0]), 2.0);
        close(slope(&[1.0, 1.0], &[0.0, 5.0]), 0.0);
    }

    #[test]
    fn uneven_ties_share_their_ranks() {
        close(spearman(&[1.0, 1.0, 2.0, 3.0, 3.0, 3.0], &[2.0, 1.0, 2.0, 3.0, 5.0, 4.0]), 0.89237);
        close(spearman(&[3.0, 1.0, 2.0], &[1.0, 3.0, 2.0]), -1.0);
        assert_eq!(spearman(&[], &[]), 0.0);
    }

    #[test]
    fn kappa_weighs_by_the_square_of_the_distance() {
        // Rows and columns of the confusion matrix differ, so that mixing them up shows: observed 5, expected (4 x 1 + 1 x 5) / 4.
        let (truth, predicted) = ([0, 0, 0, 2], [0, 1, 2, 2]);
        let expected = (3.0 * 1.0 * 1.0 + 3.0 * 2.0 * 4.0 + 1.0 * 1.0 * 4.0 + 1.0 * 1.0 * 1.0) / 4.0;
        close(quadratic_weighted_kappa(&truth, &predicted, 3), 1.0 - 5.0 / expected);
    }

    #[test]
    fn reliability_keeps_the_edges() {
        // 0.5 is the upper edge of the first of two bins; 0 belongs to the first as well.
        let bins = reliability(&[0.0, 0.5, 0.51, 1.0], &[true, false, true, true], 2);
        assert_eq!(bins.iter().map(|b| b.n).collect::<Vec<_>>(), [2, 2]);
        assert_eq!((bins[0].accuracy, bins[1].accuracy, bins[0].confidence), (0.5, 1.0, 0.25));
    }

    #[test]
    fn kappa_knows_perfection_chance_and_reversal() {
        close(quadratic_weighted_kappa(&[0, 1, 2], &[0, 1, 2], 3), 1.0);
        close(quadratic_weighted_kappa(&[0, 0, 2, 2], &[0, 2, 0, 2], 3), 0.0);
        close(quadratic_weighted_kappa(&[0, 2], &[2, 0], 3), -1.0);
        close(quadratic_weighted_kappa(&[1, 1], &[1, 1], 3), 1.0);
    }

    #[test]
    fn rank_correlation_handles_order_ties_and_constants() {
        close(spearman(&[1.0, 2.0, 3.0], &[10.0, 20.0, 900.0]), 1.0);
        close(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), -1.0);
        close(spearman(&[1.0, 2.0, 3.0], &[5.0, 5.0, 5.0]), 0.0);
        // By hand: ranks (1.5, 1.5, 3.5, 3.5) and (1, 2, 3, 4): covariance 4, variances 4 and 5.
        close(spearman(&[0.0, 0.0, 1.0, 1.0], &[1.0, 2.0, 3.0, 4.0]), 4.0 / 20f64.sqrt());
    }
}
