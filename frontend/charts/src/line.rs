//! Line charts over steps or KL.

use crate::frame::Frame;
use crate::palette::Palette;
use crate::plot::{LinePlot, Over};
use plotters::coord::Shift;
use plotters::prelude::*;

/// Draws `plot` on `area`. Series are thinned to at most two points per CSS pixel of width.
pub fn draw<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, plot: &LinePlot, palette: &Palette) -> DrawResult<(), DB> {
    let Some((x0, x1)) = extent(plot.series.iter().flat_map(|s| s.points.iter().map(|p| p.0))) else { return Ok(()) };
    let Some((y0, y1)) = vertical(plot) else { return Ok(()) };
    let x1 = if x1 > x0 { x1 } else { x0 + 1.0 };
    let x0 = if plot.over == Over::Kl { x0.min(0.0) } else { x0 };

    let digits = decimals(y1 - y0);
    let format_y = |v: &f64| if plot.percent { format!("{:.0} %", v * 100.0) } else { short(*v, digits) };
    let digits_x = if plot.over == Over::Steps { 0 } else { decimals(x1 - x0) };
    let format_x = |v: &f64| short(*v, digits_x);
    let frame = Frame { x: (x0, x1), y: (y0, y1), y_labels: 5, grid: true, format_x: &format_x, format_y: &format_y };
    let mut chart = frame.draw(area, palette)?;
    if plot.zero {
        let style = palette.text.stroke_width(palette.px(1.0) as u32);
        chart.draw_series(std::iter::once(PathElement::new(vec![(x0, 0.0), (x1, 0.0)], style)))?;
    }

    let (width, _) = chart.plotting_area().dim_in_pixel();
    let buckets = ((f64::from(width) / palette.ratio / 2.0) as usize).max(8);
    // Bold lines last, so that nothing covers them.
    for bold in [false, true] {
        for series in plot.series.iter().filter(|s| s.bold == bold) {
            let stroke = palette.px(if bold { 3.0 } else { 2.0 }) as u32;
            let color = palette.ink(series.ink);
            let points: Vec<(f64, f64)> = thin(&series.points, buckets).into_iter().map(|(x, y)| (x, y.clamp(y0, y1))).collect();
            if plot.over == Over::Kl {
                // KL goes up and down, so a line would cross itself.
                let dots = points.into_iter().map(|at| Circle::new(at, palette.px(if bold { 4.0 } else { 3.0 }), color.filled()));
                chart.draw_series(dots)?;
            } else if let [only] = points[..] {
                chart.draw_series(std::iter::once(Circle::new(only, palette.px(3.0), color.filled())))?;
            } else if !points.is_empty() {
                chart.draw_series(std::iter::once(PathElement::new(points, color.stroke_width(stroke))))?;
            }
        }
    }
    Ok(())
}

/// Range of y: the plot's own, else the data's with a margin.
fn vertical(plot: &LinePlot) -> Option<(f64, f64)> {
    if plot.range.is_some() {
        return plot.range;
    }
    let (mut low, mut high) = extent(plot.series.iter().flat_map(|s| s.points.iter().map(|p| p.1)))?;
    if plot.zero {
        (low, high) = (low.min(0.0), high.max(0.0));
    }
    let span = high - low;
    let margin = if span > 0.0 { span * 0.06 } else { high.abs().max(1.0) * 0.1 };
    Some((low - margin, high + margin))
}

/// Smallest and largest finite value.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((f64::min(low, v), f64::max(high, v))),
    })
}

/// Keeps first, lowest, highest and last point of each bucket; points that are not finite are left out.
pub fn thin(points: &[(f64, f64)], buckets: usize) -> Vec<(f64, f64)> {
    let finite = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite();
    if points.len() <= buckets * 4 {
        return points.iter().filter(finite).copied().collect();
    }
    let size = points.len().div_ceil(buckets);
    let mut kept = Vec::with_capacity(buckets * 4);
    for bucket in points.chunks(size) {
        let bucket: Vec<(f64, f64)> = bucket.iter().filter(finite).copied().collect();
        if bucket.is_empty() {
            continue;
        }
        let (mut low, mut high) = (0, 0);
        for (i, p) in bucket.iter().enumerate() {
            if p.1 < bucket[low].1 {
                low = i;
            }
            if p.1 > bucket[high].1 {
                high = i;
            }
        }
        let picks = [0, low.min(high), low.max(high), bucket.len() - 1];
        for (n, &i) in picks.iter().enumerate() {
            if n == 0 || picks[n - 1] != i {
                kept.push(bucket[i]);
            }
        }
    }
    kept
}

/// Decimals that tell ticks of a range of width `span` apart.
fn decimals(span: f64) -> usize {
    if span <= 0.0 || !span.is_finite() {
        return 2;
    }
    (-(span / 5.0).log10()).ceil().clamp(0.0, 6.0) as usize
}

/// A short label: `12k` above ten thousand.
pub fn short(value: f64, digits: usize) -> String {
    let text = if value.abs() >= 1e6 {
        format!("{:.1}M", value / 1e6)
    } else if value.abs() >= 1e4 {
        format!("{:.0}k", value / 1e3)
    } else {
        format!("{value:.digits$}")
    };
    if text.trim_start_matches(['-', '0', '.']).is_empty() { text.trim_start_matches('-').to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::palette::Ink;
    use crate::plot::Series;
    use crate::recorder::{Recorder, palette};

    fn plot(points: Vec<(f64, f64)>) -> LinePlot {
        let series = Series { label: "reward".into(), ink: Ink::Strong, bold: true, points };
        LinePlot { series: vec![series], zero: true, ..Default::default() }
    }

    fn drawn(plot: &LinePlot) -> Recorder {
        let mut recorder = Recorder::default();
        let area = (&mut recorder).into_drawing_area();
        assert!(draw(&area, plot, &palette()).is_ok());
        drop(area);
        recorder
    }

    #[test]
    fn everything_lies_inside_the_picture() {
        let recorder = drawn(&plot((0..5000).map(|i| (f64::from(i), (f64::from(i) / 90.0).sin() * 1e4)).collect()));
        assert!(recorder.paths > 3 && recorder.texts >= 4);
        assert!(recorder.points < 1000, "{} points are not thinned", recorder.points);
    }

    #[test]
    fn odd_data_is_drawn_or_left_out() {
        assert_eq!(drawn(&plot(vec![])).paths, 0);
        drawn(&plot(vec![(1.0, 2.0)]));
        drawn(&plot(vec![(1.0, f64::NAN), (2.0, 3.0), (3.0, f64::INFINITY)]));
        drawn(&plot(vec![(1.0, 0.0), (2.0, 0.0)]));
    }

    #[test]
    fn thinning_keeps_the_extremes_and_the_order() {
        let mut points: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), 0.0)).collect();
        points[500].1 = 9.0;
        points[501].1 = -9.0;
        let kept = thin(&points, 10);
        assert!(kept.contains(&(500.0, 9.0)) && kept.contains(&(501.0, -9.0)));
        assert!(kept.len() <= 40 && kept.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!((kept[0].0, kept[kept.len() - 1].0), (0.0, 999.0));
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(short(0.05, decimals(0.2)), "0.05");
        assert_eq!(short(-0.0, 1), "0.0");
        assert_eq!(short(20_000.0, 0), "20k");
        assert_eq!(decimals(40.0), 0);
    }
}
