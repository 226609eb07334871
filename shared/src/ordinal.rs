//! What the outputs of a reward head mean: from raw outputs to a class distribution, for every loss a head can be trained
//! with. Classes are ordered, lowest first.

use crate::distribution::{golden_section, softmax};
use serde::{Deserialize, Serialize};

/// How the heads of a reward model are trained, and with it what they put out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RewardLoss {
    /// Softmax cross-entropy over the classes, as in MOSLIM.
    #[default]
    CrossEntropy,
    /// Squared earth mover's distance between cumulative distributions: near misses cost less than far ones.
    SquaredEmd,
    /// CORAL (Cao et al. 2020): `P(y > t) = sigmoid(w h + b_t)` with one `w` for all thresholds.
    Coral,
    /// CORN (Shi et al. 2021): `P(y > t | y > t - 1)`, a chain of conditional probabilities.
    Corn,
    /// Squared error of a score in class units; classes are read off a normal error around it.
    Regression,
    /// Bradley-Terry on pairs of answers to one question; the unbounded score is cut into classes at thresholds that give
    /// the classes their frequency in the data.
    BradleyTerry,
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Class probabilities from `P(y > t)` for `t = 0 .. C - 2`. Differences that are negative, because the probabilities do not
/// fall, count as 0.
fn from_exceedance(above: &[f64]) -> Vec<f64> {
    let mut p = Vec::with_capacity(above.len() + 1);
    let mut last = 1.0;
    for &next in above {
        p.push(f64::max(last - next, 0.0));
        last = next;
    }
    p.push(last);
    let sum: f64 = p.iter().sum();
    p.into_iter().map(|x| x / sum).collect()
}

impl RewardLoss {
    /// Numbers that a head with `classes` classes puts out.
    ///
    /// ```
    /// use moslim_shared::ordinal::RewardLoss;
    /// assert_eq!([RewardLoss::CrossEntropy, RewardLoss::Corn, RewardLoss::Regression].map(|loss| loss.outputs(5)), [5, 4, 1]);
    /// ```
    pub fn outputs(self, classes: usize) -> usize {
        match self {
            Self::CrossEntropy | Self::SquaredEmd => classes,
            Self::Coral | Self::Corn => classes - 1,
            Self::Regression | Self::BradleyTerry => 1,
        }
    }

    /// Columns of the head's matrix; biases come on top, one per output.
    ///
    /// ```
    /// use moslim_shared::ordinal::RewardLoss;
    /// assert_eq!((RewardLoss::Coral.columns(5), RewardLoss::Coral.outputs(5)), (1, 4));
    /// ```
    pub fn columns(self, classes: usize) -> usize {
        if self == Self::Coral { 1 } else { self.outputs(classes) }
    }

    /// The class distribution that `outputs` stand for, softened by `temperature` (1 leaves it as trained; for
    /// [`RewardLoss::Regression`] it is the deviation of the error, in classes). `thresholds`: `C - 1` rising scores between
    /// the classes, read by [`RewardLoss::BradleyTerry`] alone.
    ///
    /// ```
    /// use moslim_shared::ordinal::RewardLoss;
    /// // CORN: half of the answers get beyond class 0, half of these beyond class 1.
    /// assert_eq!(RewardLoss::Corn.distribution(&[0.0, 0.0], 3, 1.0, &[]), [0.5, 0.25, 0.25]);
    /// ```
    pub fn distribution(self, outputs: &[f64], classes: usize, temperature: f64, thresholds: &[f64]) -> Vec<f64> {
        match self {
            Self::CrossEntropy | Self::SquaredEmd => softmax(outputs, temperature),
            Self::Coral => from_exceedance(&outputs.iter().map(|x| sigmoid(x / temperature)).collect::<Vec<_>>()),
            Self::Corn => {
                let chain = outputs.iter().scan(1.0, |above, x| {
                    *above *= sigmoid(x / temperature);
                    Some(*above)
                });
                from_exceedance(&chain.collect::<Vec<_>>())
            }
            Self::Regression => {
                let logits: Vec<f64> = (0..classes).map(|c| -0.5 * (outputs[0] - c as f64).powi(2)).collect();
                softmax(&logits, temperature * temperature)
            }
            Self::BradleyTerry => {
                from_exceedance(&thresholds.iter().map(|b| sigmoid((outputs[0] - b) / temperature)).collect::<Vec<_>>())
            }
        }
    }

    /// Temperature that minimises the negative log-likelihood of `labels`. Returns 1 when there is no row.
    ///
    /// ```
    /// use moslim_shared::ordinal::RewardLoss;
    /// // Right three times of four, and sure as of 81 to 1: four times too much.
    /// let outputs = vec![vec![4.0 * 3f64.ln(), 0.0]; 4];
    /// let temperature = RewardLoss::CrossEntropy.fit_temperature(&outputs, &[0, 0, 0, 1], 2, &[]);
    /// assert!((temperature - 4.0).abs() < 0.01);
    /// ```
    pub fn fit_temperature(self, outputs: &[Vec<f64>], labels: &[usize], classes: usize, thresholds: &[f64]) -> f64 {
        if labels.is_empty() {
            return 1.0;
        }
        golden_section(|t| {
            let likelihoods = outputs.iter().zip(labels).map(|(o, &y)| self.distribution(o, classes, t, thresholds)[y]);
            -likelihoods.map(|p| p.max(1e-12).ln()).sum::<f64>()
        })
    }
}

/// Scores between classes such that a share of `scores` falls into each class that equals the class's share of `labels`.
///
/// ```
/// use moslim_shared::ordinal::thresholds;
/// // A quarter of the labels is class 0, a quarter class 1.
/// assert_eq!(thresholds(&[0.1, 0.2, 0.3, 0.4], &[2, 0, 1, 2], 3), [0.2, 0.3]);
/// ```
pub fn thresholds(scores: &[f64], labels: &[usize], classes: usize) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    (1..classes)
        .map(|c| {
            let below = labels.iter().filter(|&&y| y < c).count() as f64 / labels.len().max(1) as f64;
            let at = ((below * sorted.len() as f64) as usize).min(sorted.len().saturating_sub(1));
            sorted.get(at).copied().unwrap_or(0.0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::{argmax, expected_class};

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (a, b) in got.iter().zip(want) {
            assert!((a - b).abs() < 1e-5, "{got:?} is not {want:?}");
        }
    }

    #[test]
    fn coral_matches_the_vector() {
        let outputs: Vec<f64> = [2.0, 0.5, -0.5, -2.0].iter().map(|b| 0.4 + b).collect();
        close(&outputs.iter().map(|&x| sigmoid(x)).collect::<Vec<_>>(), &[0.916827, 0.71095, 0.475021, 0.167982]);
        let p = RewardLoss::Coral.distribution(&outputs, 5, 1.0, &[]);
        close(&p, &[0.083173, 0.205878, 0.235929, 0.307039, 0.167982]);
        close(&[expected_class(&p)], &[2.270779]);
        // Two ways to decode that disagree; the lab uses the first.
        assert_eq!((argmax(&p), outputs.iter().filter(|&&x| x > 0.0).count()), (3, 2));
    }

    #[test]
    fn corn_matches_the_vector() {
        let outputs: Vec<f64> = [0.9f64, 0.8, 0.5, 0.2].iter().map(|p| (p / (1.0 - p)).ln()).collect();
        close(&RewardLoss::Corn.distribution(&outputs, 5, 1.0, &[]), &[0.1, 0.18, 0.36, 0.288, 0.072]);
    }

    #[test]
    fn every_head_gives_a_distribution_that_temperature_softens() {
        use RewardLoss::*;
        for (loss, outputs) in [
            (CrossEntropy, vec![0.0, 1.0, 3.0]),
            (SquaredEmd, vec![0.0, 1.0, 3.0]),
            (Coral, vec![2.0, 1.0]),
            // Probabilities that rise are repaired.
            (Coral, vec![-1.0, 1.0]),
            (Corn, vec![2.0, 1.0]),
            (Regression, vec![1.8]),
            (BradleyTerry, vec![2.0]),
        ] {
            assert_eq!(loss.outputs(3), outputs.len());
            let at = |t: f64| loss.distribution(&outputs, 3, t, &[-0.5, 0.5]);
            for t in [0.5, 1.0, 4.0] {
                assert!((at(t).iter().sum::<f64>() - 1.0).abs() < 1e-12 && at(t).iter().all(|&p| p >= 0.0), "{loss:?}");
            }
            let top = |p: Vec<f64>| p.into_iter().fold(0.0, f64::max);
            assert!(top(at(0.5)) >= top(at(4.0)), "{loss:?}");
        }
    }

    #[test]
    fn the_temperature_of_a_regression_is_the_deviation_of_its_error() {
        // Scores that miss their label by one class, half of the time in each direction.
        let labels: Vec<usize> = (0..200).map(|i| 1 + i % 3).collect();
        let outputs: Vec<Vec<f64>> =
            labels.iter().enumerate().map(|(i, &y)| vec![y as f64 + if i / 3 % 2 == 0 { 1.0 } else { -1.0 }]).collect();
        let t = RewardLoss::Regression.fit_temperature(&outputs, &labels, 5, &[]);
        assert!((0.8..1.6).contains(&t), "{t}");
        assert_eq!(RewardLoss::Corn.fit_temperature(&[], &[], 5, &[]), 1.0);
    }

    #[test]
    fn thresholds_give_classes_their_share() {
        let scores: Vec<f64> = (0..100).map(f64::from).collect();
        let labels: Vec<usize> = (0..100)
            .map(|i| {
                if i < 20 {
                    0
                } else if i < 70 {
                    1
                } else {
                    2
                }
            })
            .collect();
        assert_eq!(thresholds(&scores, &labels, 3), [20.0, 70.0]);
        assert_eq!(thresholds(&[], &[], 2), [0.0]);
    }

    #[test]
    fn the_fitted_temperature_undoes_over_confidence() {
        // Labels drawn so that the true distribution is (0.75, 0.25); the logits claim it four times too strongly.
        let logits = vec![vec![4.0 * 3f64.ln(), 0.0]; 400];
        let labels: Vec<usize> = (0..400).map(|i| usize::from(i % 4 == 0)).collect();
        let temperature = RewardLoss::CrossEntropy.fit_temperature(&logits, &labels, 2, &[]);
        assert!((temperature - 4.0).abs() < 0.01, "{temperature}");
        let calibrated = RewardLoss::CrossEntropy.distribution(&logits[0], 2, temperature, &[]);
        assert!((calibrated[0] - 0.75).abs() < 1e-3, "{calibrated:?}");
    }
}
