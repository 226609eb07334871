//! Stacked bands: how the mass of ordered classes moves over steps. What has another shape is drawn by its own file.

use crate::frame::{Frame, geometry};
use crate::heat;
use crate::line::short;
use crate::palette::Palette;
use crate::plot::{BandPlot, Shape};
use crate::ridges;
use crate::view::{Geometry, View};
use plotters::coord::Shift;
use plotters::prelude::*;

/// Draws `plot` on `area` in its shape; stacked: the lowest class at the bottom, each class in its shade.
///
/// Says where it is; nothing where there is nothing to draw, or where x is no step.
pub fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    plot: &BandPlot,
    view: &View,
    palette: &Palette,
) -> DrawResult<Option<Geometry>, DB> {
    let (Some(first), Some(last)) = (plot.rows.first(), plot.rows.last()) else { return Ok(None) };
    let (x0, x1) = view.window.unwrap_or((first.0, if last.0 > first.0 { last.0 } else { first.0 + 1.0 }));
    let seen: Vec<(f64, Vec<f64>)> = plot.rows.iter().filter(|r| r.0 >= x0 && r.0 <= x1).cloned().collect();
    if seen.is_empty() {
        return Ok(None);
    }
    let plot = &BandPlot { objective: plot.objective, classes: plot.classes.clone(), rows: seen, shape: plot.shape };
    match plot.shape {
        Shape::Stacked => {}
        Shape::Heat => return heat::draw(area, plot, (x0, x1), palette),
        Shape::Ridges => return ridges::draw(area, plot, palette).map(|()| None),
    }
    let format_y = |v: &f64| format!("{:.0} %", v * 100.0);
    let frame = Frame { x: (x0, x1), y: (0.0, 1.0), y_labels: 3, grid: false, format_x: &|v| short(*v, 0), format_y: &format_y };
    let mut chart = frame.draw(area, palette)?;

    let (width, _) = chart.plotting_area().dim_in_pixel();
    let columns = columns(plot, ((f64::from(width) / palette.ratio) as usize).max(8), x1);
    let classes = plot.classes.len();
    // From the highest class down, each from the ground up: what is drawn later covers, so no seams show.
    for class in (0..classes).rev() {
        let mut outline: Vec<(f64, f64)> = columns.iter().map(|(x, sums)| (*x, sums[class])).collect();
        outline.push((x1, 0.0));
        outline.push((x0, 0.0));
        let color = palette.class(plot.objective, class, classes);
        chart.draw_series(std::iter::once(Polygon::new(outline, color.filled())))?;
    }
    Ok(Some(geometry(&chart, (x0, x1), (0.0, 1.0))))
}

/// Cumulative shares at no more than `limit` steps; a lone step becomes a column up to `x1`.
fn columns(plot: &BandPlot, limit: usize, x1: f64) -> Vec<(f64, Vec<f64>)> {
    let stride = plot.rows.len().div_ceil(limit).max(1);
    let last = plot.rows.len() - 1;
    let mut columns: Vec<(f64, Vec<f64>)> = plot
        .rows
        .iter()
        .enumerate()
        .filter(|(i, _)| i % stride == 0 || *i == last)
        .map(|(_, (x, shares))| {
            let total: f64 = shares.iter().sum();
            let mut sum = 0.0;
            let sums = (0..plot.classes.len())
                .map(|c| {
                    sum += shares.get(c).copied().unwrap_or(0.0);
                    if total > 0.0 { (sum / total).clamp(0.0, 1.0) } else { 0.0 }
                })
                .collect();
            (*x, sums)
        })
        .collect();
    if columns.len() == 1 {
        let sums = columns[0].1.clone();
        columns.push((x1, sums));
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{Recorder, palette};

    fn drawn(rows: Vec<(f64, Vec<f64>)>) -> Recorder {
        shaped(Shape::Stacked, rows).0
    }

    fn shaped(shape: Shape, rows: Vec<(f64, Vec<f64>)>) -> (Recorder, Option<Geometry>) {
        let plot = BandPlot { objective: 0, classes: vec!["low".into(), "mid".into(), "high".into()], rows, shape };
        let mut recorder = Recorder::default();
        let area = (&mut recorder).into_drawing_area();
        let geometry = draw(&area, &plot, &View::default(), &palette());
        assert!(geometry.is_ok());
        let geometry = geometry.ok().flatten();
        drop(area);
        (recorder, geometry)
    }

    #[test]
    fn a_plot_is_drawn_in_its_shape_and_steps_are_found_where_x_is_steps() {
        let of = |shape: Shape| {
            let (recorder, geometry) = shaped(shape, vec![(3.0, vec![0.2, 0.3, 0.5]), (8.0, vec![0.5, 0.3, 0.2])]);
            (recorder.polygons, geometry.map(|g| g.x))
        };
        let steps = Some((3.0, 8.0));
        let key = |shape: Shape| BandPlot { classes: vec![String::new(); 3], shape, ..Default::default() }.key(1);
        assert_eq!([key(Shape::Stacked), key(Shape::Heat), key(Shape::Ridges)], [1, 2, 2]);
        assert_eq!([of(Shape::Stacked), of(Shape::Heat), of(Shape::Ridges)], [(3, steps), (6, steps), (2, None)]);
    }

    #[test]
    fn one_polygon_per_class() {
        assert_eq!(drawn(vec![]).polygons, 0);
        assert_eq!(drawn(vec![(1.0, vec![0.2, 0.3, 0.5])]).polygons, 3);
        assert_eq!(drawn((1..900).map(|i| (f64::from(i), vec![0.2, 0.3, 0.5])).collect()).polygons, 3);
    }

    #[test]
    fn shares_are_cumulative_and_end_at_one() {
        let plot = BandPlot {
            objective: 0,
            classes: vec!["a".into(), "b".into()],
            rows: (0..100).map(|i| (f64::from(i), vec![1.0, 3.0])).collect(),
            ..Default::default()
        };
        let columns = columns(&plot, 10, 99.0);
        assert_eq!(columns[0].1, [0.25, 1.0]);
        assert_eq!(columns[columns.len() - 1].0, 99.0);
        assert!(columns.len() <= 11);
    }
}
