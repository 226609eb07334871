//! Pareto fronts: what groups of runs reach in two objectives at once.

use crate::frame::Chart;
use crate::line::short;
use crate::palette::{INKS, Ink, Palette};
use moslim_shared::order::sorted;
use moslim_shared::pareto;
use plotters::coord::Shift;
use plotters::prelude::*;

/// What both axes show: utilities from 0 to 1, with room for a marker that lies on the edge.
const RANGE: (f64, f64) = (-0.04, 1.04);
/// Half the width of a marker, CSS pixels.
const SIZE: f64 = 5.5;
/// Opacity of a point that another one of its group dominates.
const PALE: f64 = 0.35;

/// How a point is drawn, in units of [`SIZE`] around it, y downwards as on a screen.
enum Shape {
    /// Filled or not.
    Circle(bool),
    /// Outline of a filled area.
    Area(&'static [(f64, f64)]),
    /// A line drawn in one go.
    Line(&'static [(f64, f64)]),
}

/// Groups that no two look alike of, so that colour says nothing alone: those of the inks, and two hollow ones.
const LOOKS: usize = INKS + 2;

/// The shape of the `group`th group, with the character that looks like it. The first ones are those at the ends of lines: who has both
/// looks the same in either.
fn look(group: usize) -> (&'static str, Shape) {
    match group % LOOKS {
        INKS => ("○", Shape::Circle(false)),
        n if n > INKS => ("□", Shape::Line(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9), (-0.9, -0.9)])),
        n => {
            let ink = Ink::Objective(n);
            let outline = ink.marker();
            (ink.glyph(), if outline.is_empty() { Shape::Circle(true) } else { Shape::Area(outline) })
        }
    }
}

/// The character that looks like the marker of the `group`th group.
pub fn sign(group: usize) -> &'static str {
    look(group).0
}

/// Colour of the `group`th group, where nothing else decides it.
pub fn ink(group: usize) -> Ink {
    match group % LOOKS {
        INKS => Ink::Strong,
        n if n > INKS => Ink::Accent,
        n => Ink::Objective(n),
    }
}

/// Groups of points in the plane of two objectives, both of which are maximised.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FrontPlot {
    /// Names of the axes.
    pub x: String,
    pub y: String,
    /// Where the area that a group dominates begins: the reference point of the hypervolume.
    pub floor: (f64, f64),
    /// Colour of each group, and its utilities (x, y) in no order.
    pub groups: Vec<(Ink, Vec<(f64, f64)>)>,
}

/// Draws `plot` on `area`: all points of a group in its colour and shape, and its front as a step line.
pub fn draw<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, plot: &FrontPlot, palette: &Palette) -> DrawResult<(), DB> {
    if plot.groups.iter().all(|(_, points)| points.is_empty()) {
        return Ok(());
    }
    let label = TextStyle::from((FontFamily::SansSerif, f64::from(palette.px(12.0)))).color(&palette.text);
    let format = |v: &f64| short(*v, 1);
    let (width, height) = area.estimate_text_size(&format(&0.5), &label)?;
    // Beside the labels lies the name of the axis, on the left turned by a quarter.
    let (width, height) = (width as i32, height as i32);
    let mut chart = ChartBuilder::on(area)
        .margin_top(palette.px(10.0))
        .margin_right(palette.px(10.0))
        .margin_bottom(palette.px(2.0))
        .margin_left(palette.px(2.0))
        .x_label_area_size(2 * height + palette.px(18.0))
        .y_label_area_size(width + height + palette.px(18.0))
        .build_cartesian_2d(RANGE.0..RANGE.1, RANGE.0..RANGE.1)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(6)
        .max_light_lines(1)
        .light_line_style(TRANSPARENT)
        .bold_line_style(palette.grid.mix(1.0))
        .axis_style(palette.grid)
        .label_style(label)
        .set_all_tick_mark_size(palette.px(3.0))
        .x_label_formatter(&format)
        .y_label_formatter(&format)
        .x_desc(plot.x.as_str())
        .y_desc(plot.y.as_str())
        .draw()?;

    // Pale points first and lines before markers, so that what matters more lies above.
    let fronts: Vec<Vec<usize>> = plot.groups.iter().map(|(_, points)| front(points)).collect();
    for (g, (ink, points)) in plot.groups.iter().enumerate() {
        let color = palette.ink(*ink).mix(PALE);
        for (_, at) in points.iter().enumerate().filter(|(p, _)| !fronts[g].contains(p)) {
            mark(&mut chart, g, *at, color, palette)?;
        }
    }
    for (g, (ink, points)) in plot.groups.iter().enumerate() {
        let line = steps(points, &fronts[g], plot.floor);
        if line.is_empty() {
            continue;
        }
        let color = palette.ink(*ink).mix(1.0);
        chart.draw_series(std::iter::once(PathElement::new(line, color.stroke_width(palette.px(1.5) as u32))))?;
        for p in &fronts[g] {
            mark(&mut chart, g, points[*p], color, palette)?;
        }
    }
    Ok(())
}

/// Draws one point of the `group`th group.
fn mark<DB: DrawingBackend>(
    chart: &mut Chart<'_, DB>,
    group: usize,
    at: (f64, f64),
    color: RGBAColor,
    palette: &Palette,
) -> DrawResult<(), DB> {
    let (width, height) = chart.plotting_area().dim_in_pixel();
    let size = palette.px(SIZE);
    // A marker is as large in pixels on both axes, whatever their scale is.
    let unit = f64::from(size) * (RANGE.1 - RANGE.0);
    let (dx, dy) = (unit / f64::from(width), unit / f64::from(height));
    let around = |outline: &[(f64, f64)]| placed(outline, at, (dx, dy));
    let stroke = color.stroke_width(palette.px(2.0) as u32);
    match look(group).1 {
        Shape::Circle(filled) => {
            let style = if filled { color.filled() } else { stroke };
            chart.draw_series(std::iter::once(Circle::new(at, size, style)))?;
        }
        Shape::Area(outline) => {
            chart.draw_series(std::iter::once(Polygon::new(around(outline), color.filled())))?;
        }
        Shape::Line(line) => {
            chart.draw_series(std::iter::once(PathElement::new(around(line), stroke)))?;
        }
    }
    Ok(())
}

/// An outline around a point of the plane, whose y points upwards. `unit`: the outline's, on both axes.
fn placed(outline: &[(f64, f64)], at: (f64, f64), unit: (f64, f64)) -> Vec<(f64, f64)> {
    outline.iter().map(|(x, y)| (at.0 + x * unit.0, at.1 - y * unit.1)).collect()
}

/// Draws on `area` what the markers stand for, one name below the other; the page writes its legends as text instead.
pub fn legend<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, names: &[String], palette: &Palette) -> DrawResult<(), DB> {
    let label = TextStyle::from((FontFamily::SansSerif, f64::from(palette.px(13.0)))).color(&palette.text);
    let (size, line) = (palette.px(SIZE), palette.px(26.0));
    for (group, name) in names.iter().enumerate() {
        let (x, y) = (palette.px(14.0), line * (group as i32 + 1));
        let around = |outline: &[(f64, f64)]| {
            let pixel = |from: i32, by: f64| from + (by * f64::from(size)).round() as i32;
            outline.iter().map(|(dx, dy)| (pixel(x, *dx), pixel(y, *dy))).collect::<Vec<_>>()
        };
        let color = palette.ink(ink(group));
        let stroke = color.stroke_width(palette.px(2.0) as u32);
        match look(group).1 {
            Shape::Circle(filled) => area.draw(&Circle::new((x, y), size, if filled { color.filled() } else { stroke }))?,
            Shape::Area(outline) => area.draw(&Polygon::new(around(outline), color.filled()))?,
            Shape::Line(outline) => area.draw(&PathElement::new(around(outline), stroke))?,
        }
        area.draw(&Text::new(name.clone(), (x + palette.px(14.0), y - palette.px(7.0)), label.clone()))?;
    }
    Ok(())
}

/// Positions of the points that no other one dominates, from left to right.
pub fn front(points: &[(f64, f64)]) -> Vec<usize> {
    let vectors: Vec<Vec<f64>> = points.iter().map(|p| vec![p.0, p.1]).collect();
    sorted(pareto::front(&vectors), |a, b| points[*a].0.total_cmp(&points[*b].0))
}

/// The edge of what a group dominates, from the left of the picture to its bottom; `front` as [`front`] gives it. Between two
/// points it falls at once and then goes on level: nothing says that there is anything on the straight line between them.
pub fn steps(points: &[(f64, f64)], front: &[usize], floor: (f64, f64)) -> Vec<(f64, f64)> {
    let mut line: Vec<(f64, f64)> = Vec::new();
    let mut left = floor.0;
    for (x, y) in front.iter().map(|p| points[*p]) {
        line.extend([(left, y), (x, y)]);
        left = x;
    }
    if !line.is_empty() {
        line.push((left, floor.1));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::{Recorder, palette};

    fn drawn(groups: Vec<Vec<(f64, f64)>>) -> Recorder {
        let groups = groups.into_iter().enumerate().map(|(g, points)| (ink(g), points)).collect();
        let plot = FrontPlot { x: "helpfulness".into(), y: "honesty".into(), floor: (0.0, 0.0), groups };
        let mut recorder = Recorder::default();
        let area = (&mut recorder).into_drawing_area();
        assert!(draw(&area, &plot, &palette()).is_ok());
        drop(area);
        recorder
    }

    #[test]
    fn only_what_is_dominated_leaves_the_front() {
        let points = [(0.5, 0.5), (0.2, 0.9), (0.9, 0.1), (0.4, 0.5), (0.9, 0.1)];
        assert_eq!(front(&points), [1, 0, 2]);
        assert_eq!(front(&[]), [0usize; 0]);
    }

    #[test]
    fn the_line_keeps_to_what_is_reached() {
        let points = [(0.75, 0.25), (0.25, 0.5)];
        let line = steps(&points, &front(&points), (0.0, 0.0));
        assert_eq!(line, [(0.0, 0.5), (0.25, 0.5), (0.25, 0.25), (0.75, 0.25), (0.75, 0.0)]);
        // Every corner is dominated by a point, or is one.
        assert!(line.iter().all(|c| points.iter().any(|p| c.0 <= p.0 && c.1 <= p.1)));
        assert!(steps(&[], &[], (0.0, 0.0)).is_empty());
    }

    #[test]
    fn every_group_has_its_own_shape_and_colour() {
        let looks: Vec<(&str, Ink)> = (0..LOOKS).map(|g| (sign(g), ink(g))).collect();
        for (n, (sign, ink)) in looks.iter().enumerate() {
            assert!(looks[..n].iter().all(|(s, i)| s != sign && i != ink), "group {n}");
        }
        assert_eq!(sign(LOOKS), sign(0));
        let Shape::Area(outline) = look(2).1 else { panic!("a triangle is an area") };
        let top = placed(outline, (0.5, 0.5), (0.1, 0.1)).into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        assert!(sign(2) == "▲" && top.0 == 0.5, "its one corner is above");
        // As on the chips and at the ends of lines.
        assert!((0..INKS).all(|g| sign(g) == ink(g).glyph()));
    }

    #[test]
    fn a_legend_has_a_marker_and_a_name_for_every_group() {
        let mut recorder = Recorder::default();
        let area = (&mut recorder).into_drawing_area();
        assert!(legend(&area, &["one".into(), "two".into(), "three".into()], &palette()).is_ok());
        drop(area);
        assert_eq!((recorder.texts, recorder.polygons, recorder.paths), (3, 2, 0), "a circle is neither");
    }

    #[test]
    fn everything_lies_inside_the_picture() {
        let nothing = drawn(vec![vec![], vec![]]);
        assert_eq!((nothing.paths, nothing.polygons, nothing.texts), (0, 0, 0));
        // Two points at the edges and one that they dominate.
        let points = vec![(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)];
        assert!(drawn(vec![points.clone(); LOOKS]).points > 0);
        // What is drawn for the group at a position, when those before it are empty.
        let only = |group: usize| {
            let mut groups = vec![vec![]; group];
            groups.push(points.clone());
            drawn(groups)
        };
        let (hollow, triangle) = (only(INKS + 1), only(2));
        assert_eq!((hollow.polygons, triangle.polygons), (0, 3));
        assert_eq!(hollow.paths - triangle.paths, 3, "beside axes, ticks and one step line");
        assert!(triangle.texts >= 6, "labels, and the names of both axes");
    }
}
