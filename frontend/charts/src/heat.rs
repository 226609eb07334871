//! A heat map: how the shares of ordered classes move over steps, a row for every class.

use crate::frame::{Frame, geometry};
use crate::line::short;
use crate::palette::{Ink, Palette};
use crate::plot::BandPlot;
use crate::view::Geometry;
use plotters::coord::Shift;
use plotters::prelude::*;

/// Width of the narrowest column, CSS pixels.
const NARROWEST: f64 = 4.0;

/// Draws `plot` on `area` from `x0` to `x1`: the lowest class at the bottom, the hue of the objective as full as the share is large.
pub fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    plot: &BandPlot,
    (x0, x1): (f64, f64),
    palette: &Palette,
) -> DrawResult<Option<Geometry>, DB> {
    let classes = plot.classes.len().max(1);
    // Every class has its number at the middle of its row.
    let y = (-0.5, classes as f64 - 0.5);
    let format = |v: &f64| short(*v, 0);
    let frame = Frame { x: (x0, x1), y, y_labels: classes, grid: false, format_x: &format, format_y: &format };
    let mut chart = frame.draw(area, palette)?;

    let (width, _) = chart.plotting_area().dim_in_pixel();
    let most = ((f64::from(width) / palette.ratio / NARROWEST) as usize).max(8);
    let hue = palette.ink(Ink::Objective(plot.objective));
    for (from, to, shares) in columns(&plot.rows, classes, most, (x0, x1)) {
        for (class, share) in shares.iter().enumerate() {
            let (low, high) = (class as f64 - 0.5, class as f64 + 0.5);
            let corners = vec![(from, low), (to, low), (to, high), (from, high)];
            let color = hue.mix(share.clamp(0.0, 1.0));
            chart.draw_series(std::iter::once(Polygon::new(corners, color.filled())))?;
        }
    }
    Ok(Some(geometry(&chart, (x0, x1), y)))
}

/// No more than `most` columns: where each begins and ends, and the mean share of every class there. A column reaches half the way to the
/// steps beside it, those at the ends to the edge.
fn columns(rows: &[(f64, Vec<f64>)], classes: usize, most: usize, (x0, x1): (f64, f64)) -> Vec<(f64, f64, Vec<f64>)> {
    let size = rows.len().div_ceil(most).max(1);
    let edge = |row: usize| match row {
        0 => x0,
        row if row >= rows.len() => x1,
        row => (rows[row - 1].0 + rows[row].0) / 2.0,
    };
    let column = |(n, rows): (usize, &[(f64, Vec<f64>)])| {
        let mean = |class: usize| rows.iter().filter_map(|row| row.1.get(class)).sum::<f64>() / rows.len() as f64;
        (edge(n * size), edge(n * size + rows.len()), (0..classes).map(mean).collect::<Vec<f64>>())
    };
    rows.chunks(size).enumerate().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{Recorder, palette};

    fn drawn(rows: Vec<(f64, Vec<f64>)>, x: (f64, f64)) -> Recorder {
        let plot = BandPlot { classes: vec!["low".into(), "mid".into(), "high".into()], rows, ..Default::default() };
        let mut recorder = Recorder::default();
        let area = (&mut recorder).into_drawing_area();
        let geometry = draw(&area, &plot, x, &palette()).ok().flatten();
        drop(area);
        assert!(geometry.is_some_and(|g| g.x == x && g.y == (-0.5, 2.5)), "{geometry:?}");
        recorder
    }

    #[test]
    fn columns_meet_between_steps_and_hold_means() {
        let rows = [(0.0, vec![1.0, 0.0]), (2.0, vec![0.75, 0.25]), (6.0, vec![0.25, 0.75])];
        let single = columns(&rows, 2, 8, (0.0, 6.0));
        assert_eq!(single, [(0.0, 1.0, vec![1.0, 0.0]), (1.0, 4.0, vec![0.75, 0.25]), (4.0, 6.0, vec![0.25, 0.75])]);
        let joined = columns(&rows, 2, 2, (0.0, 6.0));
        assert_eq!(joined, [(0.0, 4.0, vec![0.875, 0.125]), (4.0, 6.0, vec![0.25, 0.75])]);
        assert_eq!(columns(&rows[..1], 3, 8, (0.0, 1.0)), [(0.0, 1.0, vec![1.0, 0.0, 0.0])]);
        assert!(columns(&[], 2, 8, (0.0, 1.0)).is_empty());
    }

    #[test]
    fn the_lowest_class_is_at_the_bottom_and_the_first_step_on_the_left() {
        let cells = drawn(vec![(1.0, vec![0.25, 0.0, 0.75]), (2.0, vec![0.5, 0.125, 0.375])], (1.0, 2.0)).filled;
        let shades: Vec<f64> = cells.iter().map(|cell| cell.1).collect();
        assert_eq!(shades, [0.25, 0.0, 0.75, 0.5, 0.125, 0.375]);
        let left = |n: usize| cells[n].0.iter().map(|corner| corner.0).min();
        let low = |n: usize| cells[n].0.iter().map(|corner| corner.1).max();
        assert!(low(0) > low(1) && low(1) > low(2), "{cells:?}");
        assert!(left(0) == left(2) && left(2) < left(3), "{cells:?}");
    }

    #[test]
    fn long_runs_have_no_more_columns_than_there_is_room_for() {
        let rows = |count: i32| (0..count).map(|i| (f64::from(i), vec![0.2, 0.3, 0.5])).collect::<Vec<_>>();
        assert_eq!(drawn(rows(1), (0.0, 1.0)).filled.len(), 3);
        let many = drawn(rows(900), (0.0, 899.0)).filled.len();
        assert!(many > 3 * 40 && many <= 3 * 100, "{many}");
    }
}
