//! Smoothing that knows how far apart points are.

/// The exponential moving average of `points` (x, y), x in ascending order: what lies `spacing` back weighs `factor` times as much, 0 to
/// less than 1. The beginning is not pulled to zero. Points that are not finite are left out.
///
/// ```
/// use moslim_charts::smooth::smoothed;
/// assert_eq!(smoothed(&[(0.0, 1.0), (1.0, 4.0)], 0.5, 1.0), [(0.0, 1.0), (1.0, 3.0)]);
/// // Twice as far apart, the past weighs the square of it.
/// assert_eq!(smoothed(&[(0.0, 1.0), (2.0, 6.0)], 0.5, 1.0), [(0.0, 1.0), (2.0, 5.0)]);
/// ```
pub fn smoothed(points: &[(f64, f64)], factor: f64, spacing: f64) -> Vec<(f64, f64)> {
    let (mut sum, mut weight, mut before) = (0.0, 0.0, None::<f64>);
    let finite = points.iter().filter(|p| p.0.is_finite() && p.1.is_finite());
    finite
        .map(|&(x, y)| {
            let decay = before.map_or(0.0, |b| factor.powf(((x - b) / spacing).max(0.0)));
            before = Some(x);
            sum = sum * decay + y;
            weight = weight * decay + 1.0;
            (x, sum / weight)
        })
        .collect()
}

/// The usual distance of neighbours: the median, 1 where there is none.
pub fn spacing(points: &[(f64, f64)]) -> f64 {
    let mut gaps: Vec<f64> = points.windows(2).map(|w| w[1].0 - w[0].0).filter(|gap| *gap > 0.0).collect();
    if gaps.is_empty() {
        return 1.0;
    }
    let middle = gaps.len() / 2;
    *gaps.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_stays_and_noise_shrinks() {
        let flat: Vec<(f64, f64)> = (0..50).map(|i| (f64::from(i), 3.0)).collect();
        assert!(smoothed(&flat, 0.9, 1.0).iter().all(|p| (p.1 - 3.0).abs() < 1e-12));
        let noisy: Vec<(f64, f64)> = (0..50).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let last = smoothed(&noisy, 0.9, 1.0)[49].1;
        assert!((last - 0.5).abs() < 0.06, "{last}");
        assert_eq!(smoothed(&[(0.0, f64::NAN), (1.0, 2.0)], 0.5, 1.0), [(1.0, 2.0)]);
        assert_eq!(
            (spacing(&noisy), spacing(&[(1.0, 0.0)]), spacing(&[(0.0, 0.0), (5.0, 0.0), (6.0, 0.0), (11.0, 0.0)])),
            (1.0, 1.0, 5.0)
        );
    }
}
