//! Ridgelines: the shares of ordered classes at a few steps, one step above the other.

use crate::frame::Frame;
use crate::line::short;
use crate::palette::{Ink, Palette};
use crate::plot::BandPlot;
use plotters::coord::Shift;
use plotters::prelude::*;

/// Steps that are shown at most.
const MOST: usize = 7;
/// Height of the tallest outline, in distances between two of them: they overlap a little. With a fraction, by which [`label`] knows the
/// upper end of the axis.
const TALLEST: f64 = 1.6;

/// A step and the shares of its classes.
type Row = (f64, Vec<f64>);

/// Draws `plot` on `area`: the first step at the bottom, the last at the top, all in one scale.
pub fn draw<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, plot: &BandPlot, palette: &Palette) -> DrawResult<(), DB> {
    let rows = picked(&plot.rows);
    let (count, classes) = (rows.len(), plot.classes.len().max(1));
    let format_x = |v: &f64| whole(*v).map(|class| class.to_string()).unwrap_or_default();
    let format_y = |v: &f64| label(&rows, *v);
    let frame = Frame {
        x: (-0.5, classes as f64 - 0.5),
        y: (0.0, count as f64 - 1.0 + TALLEST),
        y_labels: count + 1,
        grid: false,
        format_x: &format_x,
        format_y: &format_y,
    };
    let mut chart = frame.draw(area, palette)?;

    let largest = rows.iter().flat_map(|row| row.1.iter()).copied().fold(0.0, f64::max);
    let scale = if largest > 0.0 { TALLEST / largest } else { 0.0 };
    let hue = palette.ink(Ink::Objective(plot.objective));
    let stroke = hue.stroke_width(palette.px(1.5) as u32);
    // From the top down, so that what stands in front covers what is behind.
    for (n, row) in rows.iter().enumerate().rev() {
        let line = outline(&row.1, classes, n as f64, scale);
        chart.draw_series(std::iter::once(Polygon::new(line.clone(), hue.mix(0.35).filled())))?;
        chart.draw_series(std::iter::once(PathElement::new(line, stroke)))?;
    }
    Ok(())
}

/// A few rows, evenly spaced, with the first and the last.
fn picked(rows: &[Row]) -> Vec<&Row> {
    let shown = rows.len().min(MOST);
    let gaps = shown.saturating_sub(1).max(1);
    (0..shown).map(|n| &rows[(n * (rows.len() - 1) + gaps / 2) / gaps]).collect()
}

/// The number that `v` is, where it is a whole one.
fn whole(v: f64) -> Option<usize> {
    ((v - v.round()).abs() < 0.01).then(|| v.round() as usize)
}

/// The step of the row that stands at `v`. What lies between rows is measured and not written: it is as wide as the last step.
fn label(rows: &[&Row], v: f64) -> String {
    let row = whole(v).map_or(rows.last(), |n| rows.get(n));
    row.map(|row| short(row.0, 0)).unwrap_or_default()
}

/// The line over the classes that stands on `base`, `scale` high for a share of 1, and comes down half a class beyond the ends.
fn outline(shares: &[f64], classes: usize, base: f64, scale: f64) -> Vec<(f64, f64)> {
    let top = |class: usize| (class as f64, base + scale * shares.get(class).copied().unwrap_or(0.0));
    let mut line = vec![(-0.5, base)];
    line.extend((0..classes).map(top));
    line.push((classes as f64 - 0.5, base));
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{Recorder, palette};

    fn drawn(rows: Vec<Row>) -> Recorder {
        let plot = BandPlot { classes: vec!["low".into(), "mid".into(), "high".into()], rows, ..Default::default() };
        let mut recorder = Recorder::default();
        let area = (&mut recorder).into_drawing_area();
        assert!(draw(&area, &plot, &palette()).is_ok());
        drop(area);
        recorder
    }

    fn numbered(count: usize) -> Vec<Row> {
        (0..count).map(|n| (n as f64, vec![0.2, 0.3, 0.5])).collect()
    }

    #[test]
    fn the_steps_are_evenly_spaced_with_both_ends() {
        let steps = |count: usize| picked(&numbered(count)).iter().map(|row| row.0).collect::<Vec<f64>>();
        assert_eq!(steps(13), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
        assert_eq!(steps(900), [0.0, 150.0, 300.0, 450.0, 599.0, 749.0, 899.0]);
        assert_eq!((steps(3), steps(1), steps(0)), (vec![0.0, 1.0, 2.0], vec![0.0], vec![]));
    }

    #[test]
    fn every_outline_is_labelled_with_its_step() {
        let rows = [(1.0, vec![]), (12.0, vec![]), (400.0, vec![])];
        let rows: Vec<&Row> = rows.iter().collect();
        let labels = [0.0, 1.0, 2.0, 3.0, 3.6].map(|v| label(&rows, v));
        assert_eq!(labels, ["1", "12", "400", "", "400"]);
        assert_eq!((whole(-0.5), whole(1.5), whole(1.999_999)), (None, None, Some(2)));
    }

    #[test]
    fn an_outline_stands_on_its_base() {
        assert_eq!(outline(&[0.25, 0.75], 2, 3.0, 2.0), [(-0.5, 3.0), (0.0, 3.5), (1.0, 4.5), (1.5, 3.0)]);
        assert_eq!(outline(&[0.5], 2, 0.0, 1.0)[2], (1.0, 0.0), "a class that has no share");
    }

    #[test]
    fn the_first_step_is_at_the_bottom_and_the_lowest_class_on_the_left() {
        let areas = drawn(vec![(1.0, vec![0.75, 0.25, 0.0]), (9.0, vec![0.0, 0.25, 0.5])]).filled;
        let [(newest, _), (first, _)] = &areas[..] else { panic!("{areas:?}") };
        assert!(newest[0].1 < first[0].1, "{areas:?}");
        // The corner that stands highest, of both ends and three classes between them.
        let highest = |corners: &[(i32, i32)]| (0..corners.len()).min_by_key(|n| corners[*n].1);
        assert_eq!((highest(newest), highest(first)), (Some(3), Some(1)));
        assert!(first[1].0 < first[2].0 && first[2].0 < first[3].0, "{areas:?}");
        // One scale: the share of 0.75 is three times as high as that of 0.25.
        let high = |corners: &[(i32, i32)], n: usize| f64::from(corners[0].1 - corners[n].1);
        assert!((high(first, 1) / high(newest, 2) - 3.0).abs() < 0.15, "{areas:?}");
    }

    #[test]
    fn odd_data_is_drawn_inside_the_picture() {
        assert_eq!((drawn(numbered(900)).polygons, drawn(numbered(1)).polygons), (MOST, 1));
        assert_eq!(drawn(vec![(1.0, vec![0.0; 3]), (2.0, vec![])]).polygons, 2);
    }
}
