//! How a plot is looked at, and where on the picture its data are.

/// What of a plot is shown, and how.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// The range of x; all of it when absent.
    pub window: Option<(f64, f64)>,
    /// How much of the past an averaged line keeps from point to point: 0 draws the points themselves.
    pub smoothing: f64,
    /// Positions of series that are not drawn.
    pub hidden: Vec<usize>,
    /// Whether y is logarithmic; only where all of it is positive.
    pub log: bool,
    /// Whether x is, which only lines have; what is not positive is left out.
    pub log_x: bool,
}

impl View {
    /// What of `points` lies in the window, with a neighbour on either side, so that lines reach the edge.
    pub fn within<'a>(&self, points: &'a [(f64, f64)]) -> &'a [(f64, f64)] {
        let Some((from, to)) = self.window else { return points };
        let first = points.partition_point(|p| p.0 < from).saturating_sub(1);
        let end = (points.partition_point(|p| p.0 <= to) + 1).min(points.len());
        &points[first.min(end)..end]
    }

    /// The window after a turn of the wheel at `x`: `factor` times as wide, within `all`; everything when it is as wide as that. On a
    /// logarithmic axis as it is seen.
    pub fn zoomed(window: (f64, f64), all: (f64, f64), x: f64, factor: f64, log: bool) -> Option<(f64, f64)> {
        if log {
            // Such an axis has no place for 0: where everything begins there, a window goes no further down than it is.
            let all = (if all.0 > 0.0 { all.0 } else { window.0 }, all.1);
            let levels = |range: (f64, f64)| (range.0.log10(), range.1.log10());
            let seen = Self::zoomed(levels(window), levels(all), x.log10(), factor, false)?;
            return Some((10f64.powf(seen.0), 10f64.powf(seen.1)));
        }
        let width = (window.1 - window.0) * factor;
        if width >= all.1 - all.0 {
            return None;
        }
        let share = (x - window.0) / (window.1 - window.0);
        let from = (x - width * share).clamp(all.0, all.1 - width);
        Some((from, from + width))
    }
}

/// Where data are on a picture: device pixels of the plotting area, and the ranges that it shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    pub x: (f64, f64),
    pub y: (f64, f64),
    /// Whether x is logarithmic.
    pub log_x: bool,
}

impl Geometry {
    /// The value of x at a pixel, within the range.
    pub fn x_at(&self, pixel: f64) -> f64 {
        let share = ((pixel - self.left) / (self.right - self.left).max(1.0)).clamp(0.0, 1.0);
        let (from, to) = (level(self.x.0, self.log_x), level(self.x.1, self.log_x));
        let place = from + share * (to - from);
        if self.log_x { 10f64.powf(place) } else { place }
    }

    /// The pixel of a value of x.
    pub fn pixel(&self, x: f64) -> f64 {
        let [from, to, x] = [self.x.0, self.x.1, x].map(|x| level(x, self.log_x));
        self.left + (x - from) / (to - from) * (self.right - self.left)
    }
}

/// Where a value stands on an axis.
pub(crate) fn level(value: f64, log: bool) -> f64 {
    if log { value.log10() } else { value }
}

/// The point nearest to `x` of points with ascending x.
pub fn nearest(points: &[(f64, f64)], x: f64) -> Option<(f64, f64)> {
    let after = points.partition_point(|p| p.0 < x);
    let candidates = [after.checked_sub(1), Some(after)];
    let near = candidates.into_iter().flatten().filter_map(|i| points.get(i));
    near.min_by(|a, b| (a.0 - x).abs().total_cmp(&(b.0 - x).abs())).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_keeps_what_lies_in_it_and_a_neighbour() {
        let points: Vec<(f64, f64)> = (0..10).map(|i| (f64::from(i), 0.0)).collect();
        let view = |window| View { window, ..View::default() };
        let ends = |view: View| {
            let kept = view.within(&points);
            (kept[0].0, kept[kept.len() - 1].0)
        };
        assert_eq!(ends(view(None)), (0.0, 9.0));
        assert_eq!(ends(view(Some((3.5, 5.0)))), (3.0, 6.0));
        assert_eq!(ends(view(Some((0.0, 20.0)))), (0.0, 9.0));
        assert!(view(Some((1.0, 2.0))).within(&[]).is_empty());
    }

    #[test]
    fn the_wheel_zooms_where_it_points_and_ends_at_the_edges() {
        assert_eq!(View::zoomed((0.0, 100.0), (0.0, 100.0), 50.0, 0.5, false), Some((25.0, 75.0)));
        assert_eq!(View::zoomed((0.0, 100.0), (0.0, 100.0), 0.0, 0.5, false), Some((0.0, 50.0)));
        assert_eq!(View::zoomed((0.0, 50.0), (0.0, 100.0), 0.0, 1.5, false), Some((0.0, 75.0)));
        assert_eq!(View::zoomed((25.0, 75.0), (0.0, 100.0), 50.0, 3.0, false), None);
        assert_eq!(View::zoomed((60.0, 100.0), (0.0, 100.0), 60.0, 1.5, false), Some((40.0, 100.0)));
        // Half as wide around 100 of 1 to 10,000, as it is seen: a decade on either side.
        let (from, to) = View::zoomed((1.0, 1e4), (1.0, 1e4), 100.0, 0.5, true).unwrap();
        assert!((from - 10.0).abs() < 1e-9 && (to - 1e3).abs() < 1e-6, "{from} {to}");
        assert_eq!(View::zoomed((10.0, 1e3), (0.0, 1e3), 100.0, 2.0, true), None);
    }

    #[test]
    fn pixels_and_values_are_one_anothers_inverse() {
        let g = Geometry { left: 40.0, right: 240.0, top: 0.0, bottom: 100.0, x: (10.0, 20.0), y: (0.0, 1.0), log_x: false };
        assert_eq!((g.x_at(140.0), g.pixel(15.0)), (15.0, 140.0));
        let log = Geometry { x: (1.0, 100.0), log_x: true, ..g };
        assert!((log.x_at(140.0) - 10.0).abs() < 1e-9 && (log.pixel(10.0) - 140.0).abs() < 1e-9, "ten is half the way");
        assert_eq!((g.x_at(0.0), g.x_at(999.0)), (10.0, 20.0));
        let points = [(1.0, 5.0), (4.0, 6.0), (9.0, 7.0)];
        assert_eq!(nearest(&points, 6.0), Some((4.0, 6.0)));
        assert_eq!((nearest(&points, -3.0), nearest(&points, 99.0)), (Some((1.0, 5.0)), Some((9.0, 7.0))));
        assert_eq!(nearest(&[], 1.0), None);
    }
}
