//! Pareto fronts and their hypervolume. Every coordinate is maximised; there is no slack in what dominates what.

/// Whether `a` is at least as good as `b` in every coordinate and better in one.
///
/// ```
/// use moslim_shared::pareto::dominates;
/// assert!(dominates(&[2.0, 1.0], &[1.0, 1.0]));
/// assert!(!dominates(&[1.0, 1.0], &[1.0, 1.0]));
/// ```
pub fn dominates(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a >= b) && a.iter().zip(b).any(|(a, b)| a > b)
}

/// Positions of the points that no other point dominates, in order. Of equal points the first is kept.
///
/// ```
/// use moslim_shared::pareto::front;
/// let points = [[1.0, 5.0], [2.0, 3.0], [3.0, 4.0]].map(Vec::from);
/// assert_eq!(front(&points), [0, 2]);
/// ```
pub fn front(points: &[Vec<f64>]) -> Vec<usize> {
    (0..points.len())
        .filter(|&i| (0..points.len()).all(|j| j == i || !dominates(&points[j], &points[i]) && (j > i || points[j] != points[i])))
        .collect()
}

/// Volume of what `points` dominate and lies above `reference`: exact, by slices along the last coordinate, which costs
/// `O(n^(d-1) log n)`. Points that are not above `reference` everywhere add nothing. No coordinate may be NaN.
///
/// ```
/// use moslim_shared::pareto::hypervolume;
/// // Two boxes of 2 by 1, which share a square.
/// let points = [[2.0, 1.0], [1.0, 2.0]].map(Vec::from);
/// assert_eq!(hypervolume(&points, &[0.0, 0.0]), 3.0);
/// ```
pub fn hypervolume(points: &[Vec<f64>], reference: &[f64]) -> f64 {
    let mut inside: Vec<&[f64]> =
        points.iter().map(Vec::as_slice).filter(|p| p.iter().zip(reference).all(|(p, r)| p > r)).collect();
    slices(&mut inside, reference)
}

/// [`hypervolume`] in the first `reference.len()` coordinates of points that lie above `reference`.
fn slices(points: &mut [&[f64]], reference: &[f64]) -> f64 {
    let Some((&floor, rest)) = reference.split_last() else { return 0.0 };
    let last = rest.len();
    if last == 0 {
        return points.iter().map(|p| p[0] - floor).fold(0.0, f64::max);
    }
    // From the highest point down: between two heights, what the points above dominate in the other coordinates stays.
    points.sort_by(|a, b| b[last].total_cmp(&a[last]));
    let mut volume = 0.0;
    for n in 1..=points.len() {
        let below = points.get(n).map_or(floor, |p| p[last]);
        let height = points[n - 1][last] - below;
        if height > 0.0 {
            volume += height * slices(&mut points[..n].to_vec(), rest);
        }
    }
    volume
}

/// Positions of at most `count` of `points` that together have a large hypervolume: again and again the one that adds most, the first
/// on a tie, until none adds anything. (The greedy choice has at least `1 - 1/e` of the largest: hypervolume is submodular.)
///
/// ```
/// use moslim_shared::pareto::widest;
/// let points = [[3.0, 1.0], [2.0, 2.0], [1.0, 4.0], [1.0, 1.0]].map(Vec::from);
/// assert_eq!(widest(&points, &[0.0, 0.0], 2), [1, 2]);
/// assert_eq!(widest(&points, &[0.0, 0.0], 9), [1, 2, 0]);
/// ```
pub fn widest(points: &[Vec<f64>], reference: &[f64], count: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    let mut volume = 0.0;
    while chosen.len() < count {
        let with = |n: usize| {
            let all: Vec<Vec<f64>> = chosen.iter().chain([&n]).map(|&i| points[i].clone()).collect();
            hypervolume(&all, reference)
        };
        let best = (0..points.len()).map(|n| (n, with(n))).fold(None, |best: Option<(usize, f64)>, (n, v)| match best {
            Some((_, most)) if v <= most => best,
            _ => Some((n, v)),
        });
        match best {
            Some((n, most)) if most > volume => {
                chosen.push(n);
                volume = most;
            }
            _ => break,
        }
    }
    chosen
}

/// The edge of what at least `by` of `fronts` reach in two coordinates, from left to right: the attainment surface of this order
/// (Fonseca and Fleming 1996; `by` 1 is the best of all runs together, `fronts.len()` what every run reaches). No coordinate may be NaN.
///
/// ```
/// use moslim_shared::pareto::attained;
/// let seeds = [vec![(1.0, 4.0), (3.0, 2.0)], vec![(2.0, 3.0)]];
/// assert_eq!(attained(&seeds, 1), [(1.0, 4.0), (2.0, 3.0), (3.0, 2.0)]);
/// // Both reach as far as the weaker of them, each in its own way.
/// assert_eq!(attained(&seeds, 2), [(1.0, 3.0), (2.0, 2.0)]);
/// ```
pub fn attained(fronts: &[Vec<(f64, f64)>], by: usize) -> Vec<(f64, f64)> {
    let mut places: Vec<f64> = fronts.iter().flatten().map(|p| p.0).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let mut edge: Vec<(f64, f64)> = Vec::new();
    for x in places.into_iter().rev() {
        let highest = |front: &Vec<(f64, f64)>| front.iter().filter(|p| p.0 >= x).map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
        let mut heights: Vec<f64> = fronts.iter().map(highest).collect();
        heights.sort_by(f64::total_cmp);
        let Some(y) = by.checked_sub(1).and_then(|n| heights.iter().rev().nth(n)).copied().filter(|y| y.is_finite()) else {
            continue;
        };
        if edge.last().is_none_or(|last| y > last.1) {
            edge.push((x, y));
        }
    }
    edge.reverse();
    edge
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[[f64; 2]]) -> Vec<Vec<f64>> {
        values.iter().map(|v| v.to_vec()).collect()
    }

    #[test]
    fn front_and_volume_match_the_vectors() {
        let cloud = points(&[[1.0, 5.0], [3.0, 4.0], [4.0, 1.0], [2.0, 3.0]]);
        assert_eq!(front(&cloud), [0, 1, 2]);
        assert!((hypervolume(&cloud, &[0.0, 0.0]) - 14.0).abs() < 1e-12);
        assert_eq!(front(&points(&[[1.0, 1.0], [1.0, 1.0]])), [0]);
    }

    #[test]
    fn attainment_counts_runs_and_leaves_out_what_is_dominated() {
        let seeds = [vec![(0.5, 0.5), (0.4, 0.5)], vec![(0.5, 0.25), (0.25, 0.75)], vec![(0.125, 1.0)]];
        assert_eq!(attained(&seeds, 1), [(0.125, 1.0), (0.25, 0.75), (0.5, 0.5)]);
        assert_eq!(attained(&seeds, 2), [(0.125, 0.75), (0.25, 0.5), (0.5, 0.25)]);
        assert_eq!(attained(&seeds, 3), [(0.125, 0.5)]);
        assert_eq!((attained(&seeds, 4), attained(&seeds, 0), attained(&[], 1)), (vec![], vec![], vec![]));
    }

    #[test]
    fn volumes_of_boxes_are_known_in_any_dimension() {
        assert_eq!(hypervolume(&[vec![2.0, 3.0, 4.0]], &[0.0; 3]), 24.0);
        // Two boxes that share a unit cube.
        assert_eq!(hypervolume(&[vec![2.0, 1.0, 1.0], vec![1.0, 2.0, 1.0]], &[0.0; 3]), 3.0);
        assert_eq!(hypervolume(&[vec![1.0; 4], vec![0.5, 2.0, 0.5, 0.5]], &[0.0; 4]), 1.0 + 0.125);
        assert_eq!(hypervolume(&[vec![1.0, -1.0]], &[0.0, 0.0]), 0.0, "below the reference point");
        assert_eq!(hypervolume(&[], &[0.0, 0.0]), 0.0);
    }

    #[test]
    fn another_point_never_lowers_the_volume_and_a_dominated_one_changes_nothing() {
        let mut state = 7u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        for _ in 0..50 {
            let mut cloud: Vec<Vec<f64>> = Vec::new();
            let mut last = 0.0;
            for _ in 0..8 {
                cloud.push((0..4).map(|_| number()).collect());
                let volume = hypervolume(&cloud, &[0.1; 4]);
                assert!(volume >= last - 1e-12);
                last = volume;
            }
            let only_front: Vec<Vec<f64>> = front(&cloud).into_iter().map(|i| cloud[i].clone()).collect();
            assert!((hypervolume(&only_front, &[0.1; 4]) - last).abs() < 1e-12);
        }
    }
}
