//! How far raters agree.

use crate::metrics::quadratic_weighted_kappa;

/// Krippendorff's alpha with squared differences (interval data; Krippendorff 2011). `units`: what raters said of each unit, any number
/// of them; units of fewer than two say nothing. `None` where nothing can be compared, or all numbers are the same.
pub fn krippendorff_alpha(units: &[Vec<f64>]) -> Option<f64> {
    let units: Vec<&Vec<f64>> = units.iter().filter(|u| u.len() > 1).collect();
    let n = units.iter().map(|u| u.len()).sum::<usize>() as f64;
    // The sum of all squared differences of a set, each pair twice: 2 (m sum v^2 - (sum v)^2).
    let spread = |values: &mut dyn Iterator<Item = f64>| {
        let (mut m, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for v in values {
            (m, sum, squares) = (m + 1.0, sum + v, squares + v * v);
        }
        2.0 * (m * squares - sum * sum)
    };
    let observed = units.iter().map(|u| spread(&mut u.iter().copied()) / (u.len() - 1) as f64).sum::<f64>() / n;
    let expected = spread(&mut units.iter().flat_map(|u| u.iter().copied())) / (n * (n - 1.0));
    (expected > 1e-12).then(|| 1.0 - observed / expected)
}

/// Mean quadratic weighted kappa of all pairs of raters who rated at least `least` units in common, and the number of pairs. `units`: of
/// each unit, pairs of a rater's number and a class.
pub fn mean_kappa(units: &[Vec<(usize, usize)>], classes: usize, least: usize) -> Option<(f64, usize)> {
    let mut common: std::collections::BTreeMap<(usize, usize), [Vec<usize>; 2]> = Default::default();
    for unit in units {
        for (n, &(a, first)) in unit.iter().enumerate() {
            for &(b, second) in &unit[n + 1..] {
                if a != b {
                    let (key, values) = if a < b { ((a, b), [first, second]) } else { ((b, a), [second, first]) };
                    let own = common.entry(key).or_default();
                    own[0].push(values[0]);
                    own[1].push(values[1]);
                }
            }
        }
    }
    let kappas: Vec<f64> =
        common.values().filter(|[a, _]| a.len() >= least).map(|[a, b]| quadratic_weighted_kappa(a, b, classes)).collect();
    (!kappas.is_empty()).then(|| (kappas.iter().sum::<f64>() / kappas.len() as f64, kappas.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_is_that_of_krippendorffs_own_example() {
        // Four observers, twelve units; 0 for no label. Krippendorff 2011: nominal 0.743, ordinal 0.815, interval 0.849.
        let observers: [[u8; 12]; 4] = [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ];
        let unit = |u: usize| observers.iter().map(|o| o[u]).filter(|v| *v > 0).map(f64::from).collect::<Vec<_>>();
        let units: Vec<Vec<f64>> = (0..12).map(unit).collect();
        let alpha = krippendorff_alpha(&units).unwrap();
        assert!((alpha - 0.849).abs() < 5e-4, "{alpha}");
        assert_eq!(krippendorff_alpha(&[vec![1.0, 1.0], vec![1.0]]), None);
        assert_eq!(krippendorff_alpha(&[vec![0.0, 0.0], vec![1.0, 1.0]]), Some(1.0));
    }

    #[test]
    fn kappa_is_taken_over_what_two_raters_rated_both() {
        let units = vec![vec![(0, 0), (1, 0), (2, 1)], vec![(1, 2), (0, 2)], vec![(0, 1), (1, 1)], vec![(2, 0)]];
        let (mean, pairs) = mean_kappa(&units, 3, 2).unwrap();
        assert_eq!((mean, pairs), (1.0, 1), "raters 0 and 1 alone have two units in common");
        assert_eq!(mean_kappa(&units, 3, 4), None);
    }
}
