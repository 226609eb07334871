//! Line charts over steps or KL.

use crate::frame::{Chart, Frame, geometry};
use crate::palette::{Ink, Palette};
use crate::plot::{LinePlot, Over, Series};
use crate::smooth::{smoothed, spacing};
use crate::view::{Geometry, View, level};
use plotters::coord::Shift;
use plotters::prelude::*;

/// Lines beyond which those that are averaged are drawn without the points themselves: they would hide one another.
const MANY: usize = 16;

/// Draws what `view` shows of `plot` on `area`, and says where it is; nothing where there is nothing to draw. Series are thinned to at most
/// two points per CSS pixel of width, so that no extreme is lost.
pub fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    plot: &LinePlot,
    view: &View,
    palette: &Palette,
) -> DrawResult<Option<Geometry>, DB> {
    let shown: Vec<(&Series, &[(f64, f64)])> = plot
        .series
        .iter()
        .enumerate()
        .filter(|(n, _)| !view.hidden.contains(n))
        .map(|(_, s)| (s, if plot.over == Over::Kl { &s.points[..] } else { view.within(&s.points) }))
        .collect();
    let all = shown.iter().flat_map(|(_, points)| points.iter());
    let Some((x0, x1)) = view.window.or_else(|| extent(all.clone().map(|p| p.0))) else { return Ok(None) };
    let log = view.log && all.clone().all(|p| p.1 > 0.0 || !p.1.is_finite());
    // What is at 0 or below has no place on a logarithmic axis: it begins at what is above.
    let least = all.clone().map(|p| p.0).filter(|x| *x > 0.0 && x.is_finite()).fold(f64::INFINITY, f64::min);
    let log_x = view.log_x && least < x1;
    let x0 = if log_x && x0 <= 0.0 { least } else { x0 };
    let (level_x, level) = (|x: f64| level(x, log_x), |y: f64| level(y, log));
    let Some((y0, y1)) = vertical(plot, log, all.map(|p| level(p.1))) else { return Ok(None) };
    let x1 = if x1 > x0 { x1 } else { x0 + 1.0 };
    let x0 = if plot.over == Over::Kl && !log_x { x0.min(0.0) } else { x0 };
    let range = (x0, x1);
    let (x0, x1) = (level_x(x0), level_x(x1));

    let digits = decimals(y1 - y0);
    let format_y = |v: &f64| match (plot.percent, log) {
        (true, false) => format!("{:.0} %", v * 100.0),
        (true, true) => format!("{} %", short(10f64.powf(*v) * 100.0, 1)),
        (false, true) => short(10f64.powf(*v), 3),
        (false, false) => short(*v, digits),
    };
    let digits_x = if plot.over == Over::Steps && range.1 - range.0 > 4.0 { 0 } else { decimals(range.1 - range.0) };
    let format_x = |v: &f64| match log_x {
        true => short(10f64.powf(*v), decimals(10f64.powf(*v))),
        false => short(*v, digits_x),
    };
    let frame = Frame { x: (x0, x1), y: (y0, y1), y_labels: 5, grid: true, format_x: &format_x, format_y: &format_y };
    let mut chart = frame.draw(area, palette)?;
    if plot.zero && !log {
        let style = palette.text.stroke_width(palette.px(1.0) as u32);
        chart.draw_series(std::iter::once(PathElement::new(vec![(x0, 0.0), (x1, 0.0)], style)))?;
    }

    let (width, height) = chart.plotting_area().dim_in_pixel();
    let scale = ((x1 - x0) / f64::from(width.max(1)), -(y1 - y0) / f64::from(height.max(1)));
    let buckets = ((f64::from(width) / palette.ratio / 2.0) as usize).max(8);
    let inside = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
        thin(points, buckets)
            .into_iter()
            .filter(|p| !log_x || p.0 > 0.0)
            .map(|(x, y)| (level_x(x).clamp(x0, x1), level(y).clamp(y0, y1)))
            .collect()
    };
    // Bold lines last, so that nothing covers them.
    for bold in [false, true] {
        for (series, points) in shown.iter().filter(|(s, _)| s.bold == bold) {
            let stroke = palette.px(if bold { 3.0 } else { 2.0 }) as u32;
            let color = palette.ink(series.ink);
            if plot.over == Over::Kl {
                // KL goes up and down, so a line would cross itself; what came later is drawn fuller.
                let count = points.len().max(1) as f64;
                let size = palette.px(if bold { 4.0 } else { 3.5 });
                for (n, at) in points.iter().filter(|p| p.0.is_finite() && p.1.is_finite() && (!log_x || p.0 > 0.0)).enumerate() {
                    let style = color.mix(0.3 + 0.7 * n as f64 / count).filled();
                    mark(&mut chart, (level_x(at.0), level(at.1).clamp(y0, y1)), series.ink, (size, scale), style)?;
                }
                continue;
            }
            let raw = inside(points);
            let averaged = if view.smoothing > 0.0 && points.len() > 2 {
                // The average knows what lies before the window.
                let whole = smoothed(&series.points, view.smoothing, spacing(&series.points));
                if shown.len() <= MANY {
                    let style = color.mix(0.22).stroke_width(palette.px(1.5) as u32);
                    chart.draw_series(std::iter::once(PathElement::new(raw, style)))?;
                }
                inside(view.within(&whole))
            } else {
                raw
            };
            let Some(&end) = averaged.last() else { continue };
            let style = color.stroke_width(stroke);
            if averaged.len() > 1 {
                match series.ink.dash() {
                    Some((dash, gap)) if !bold => {
                        let (dash, gap) = (palette.px(dash), palette.px(gap));
                        chart.draw_series(std::iter::once(plotters::element::DashedPathElement::new(
                            averaged, dash, gap, style,
                        )))?;
                    }
                    _ => {
                        chart.draw_series(std::iter::once(PathElement::new(averaged, style)))?;
                    }
                }
            }
            mark(&mut chart, end, series.ink, (palette.px(4.0), scale), color.filled())?;
        }
    }
    Ok(Some(Geometry { log_x, ..geometry(&chart, range, (y0, y1)) }))
}

/// Draws a marker; `scale` is what one pixel to the right and one down are in data.
fn mark<DB: DrawingBackend>(
    chart: &mut Chart<DB>,
    at: (f64, f64),
    ink: Ink,
    (size, scale): (i32, (f64, f64)),
    style: ShapeStyle,
) -> DrawResult<(), DB> {
    let size_in_data = (f64::from(size) * scale.0, f64::from(size) * scale.1);
    let corners: Vec<(f64, f64)> =
        ink.marker().iter().map(|(x, y)| (at.0 + x * size_in_data.0, at.1 + y * size_in_data.1)).collect();
    if corners.is_empty() {
        chart.draw_series(std::iter::once(Circle::new(at, size, style)))?;
    } else {
        chart.draw_series(std::iter::once(Polygon::new(corners, style)))?;
    }
    Ok(())
}

/// Range of y: the plot's own, else the data's with a margin.
fn vertical(plot: &LinePlot, log: bool, values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (mut low, mut high) = extent(values)?;
    if plot.range.is_some() && !log {
        return plot.range;
    }
    if plot.zero && !log {
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
    use crate::recorder::{Recorder, palette};

    fn plot(points: Vec<(f64, f64)>) -> LinePlot {
        let series = Series { label: "reward".into(), ink: Ink::Strong, bold: true, points };
        LinePlot { series: vec![series], zero: true, ..Default::default() }
    }

    fn drawn(plot: &LinePlot) -> Recorder {
        let mut recorder = Recorder::default();
        let area = (&mut recorder).into_drawing_area();
        assert!(draw(&area, plot, &View::default(), &palette()).is_ok());
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
    fn a_view_says_what_is_drawn_and_where_it_is() {
        let two = |view: View| {
            let mut both = plot((0..100).map(|i| (f64::from(i), f64::from(i + 1))).collect());
            both.series.push(Series {
                ink: Ink::Objective(1),
                points: vec![(0.0, 500.0), (99.0, 1000.0)],
                ..both.series[0].clone()
            });
            let mut recorder = Recorder::default();
            let area = (&mut recorder).into_drawing_area();
            let geometry = draw(&area, &both, &view, &palette()).ok().flatten();
            drop(area);
            (geometry, recorder.points)
        };
        let (all, points) = two(View::default());
        let all = all.expect("something is drawn");
        assert_eq!(all.x, (0.0, 99.0));
        assert!(all.left > 0.0 && all.right > all.left && all.y.0 < 0.0 && all.y.1 > 1000.0, "{all:?}");
        // A window is what is seen; a series that is hidden does not stretch the axis.
        let (some, fewer) = two(View { window: Some((10.0, 20.0)), hidden: vec![1], ..View::default() });
        assert!(some.is_some_and(|g| g.x == (10.0, 20.0) && g.y.1 < 30.0), "{some:?}");
        assert!(fewer < points, "{fewer} of {points} points");
        // The logarithm of what is positive alone; zero has none.
        let (log, _) = two(View { log: true, ..View::default() });
        assert!(log.is_some_and(|g| g.y.0 > -0.5 && g.y.1 < 3.5), "{log:?}");
        // Such an axis begins at what is above 0.
        let across = |from: f64| {
            let view = View { log_x: true, window: Some((from, 50.0)), hidden: vec![1], ..View::default() };
            two(view).0.map(|g| (g.x.0, g.log_x))
        };
        assert_eq!([across(0.0), across(2.0)], [Some((1.0, true)), Some((2.0, true))]);
        assert_eq!(two(View { hidden: vec![0, 1], ..View::default() }).0, None);
        // The average is drawn over the points themselves.
        assert!(two(View { smoothing: 0.9, ..View::default() }).1 > points);
        // Of very many lines the average alone.
        let lines = |count: usize, smoothing: f64| {
            let mut many = plot((0..100).map(|i| (f64::from(i), f64::from(i + 1))).collect());
            many.series = vec![many.series[0].clone(); count];
            let mut recorder = Recorder::default();
            let area = (&mut recorder).into_drawing_area();
            assert!(draw(&area, &many, &View { smoothing, ..View::default() }, &palette()).is_ok());
            drop(area);
            recorder.paths
        };
        assert_eq!((lines(MANY, 0.9) - lines(MANY, 0.0), lines(MANY + 1, 0.9) - lines(MANY + 1, 0.0)), (MANY, 0));
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
