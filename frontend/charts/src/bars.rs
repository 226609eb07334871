//! Bars with ranges: some figures of several groups.

use crate::palette::{Ink, Palette};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Height of the title, of a figure's own title with its margin, and of a bar with the gap below it, CSS pixels.
const HEIGHTS: (u32, u32, u32) = (44, 60, 24);
/// Where bars begin, and the length of the longest one.
const LEFT: f64 = 200.0;
const LONGEST: f64 = 300.0;
/// Most characters of a group's name.
const NAME: usize = 30;

/// Mean, lowest and highest value of a group.
pub type Spread = (f64, f64, f64);

/// Figures side by side, two in a row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BarPlot {
    pub title: String,
    /// Names of the groups.
    pub groups: Vec<String>,
    /// Title of each figure, and its value for every group.
    pub figures: Vec<(String, Vec<Spread>)>,
}

impl BarPlot {
    /// Height of a picture that has room for everything, CSS pixels.
    pub fn height(&self) -> u32 {
        let rows = self.figures.len().div_ceil(2) as u32;
        HEIGHTS.0 + 16 + rows * (HEIGHTS.1 + HEIGHTS.2 * self.groups.len() as u32)
    }
}

/// Draws `plot` on `area`: for every group a bar as long as the mean, and a line from the lowest value to the highest.
pub fn draw<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, plot: &BarPlot, palette: &Palette) -> DrawResult<(), DB> {
    let text = |size: f64| TextStyle::from((FontFamily::SansSerif, f64::from(palette.px(size)))).color(&palette.text);
    let px = |css: f64| palette.px(css);
    area.draw(&Text::new(plot.title.clone(), (px(16.0), px(14.0)), text(16.0)))?;
    let (_, rest) = area.split_vertically(px(f64::from(HEIGHTS.0)));
    let cells = rest.split_evenly((plot.figures.len().div_ceil(2).max(1), 2));
    for (cell, (title, spreads)) in cells.iter().zip(&plot.figures) {
        let top = spreads.iter().map(|s| s.2).filter(|v| v.is_finite()).fold(0.0, f64::max);
        let scale = if top > 0.0 { LONGEST / top } else { 0.0 };
        let x = |value: f64| px(LEFT + value.max(0.0) * scale);
        cell.draw(&Text::new(title.clone(), (px(16.0), px(8.0)), text(14.0)))?;
        for (n, (name, (mean, low, high))) in plot.groups.iter().zip(spreads.iter().copied()).enumerate() {
            let y = px(36.0 + f64::from(HEIGHTS.2) * n as f64);
            let label = text(12.0).pos(Pos::new(HPos::Right, VPos::Center));
            cell.draw(&Text::new(shorten(name), (px(LEFT - 8.0), y), label))?;
            let color = palette.ink(Ink::Objective(n)).mix(0.75);
            let corners = [(px(LEFT), y - px(8.0)), (x(mean).max(px(LEFT) + 1), y + px(8.0))];
            cell.draw(&Rectangle::new(corners, color.filled()))?;
            cell.draw(&PathElement::new(vec![(x(low), y), (x(high), y)], palette.text.stroke_width(px(2.0) as u32)))?;
            cell.draw(&Text::new(format!("{mean:.3}"), (x(high) + px(6.0), y - px(7.0)), text(12.0)))?;
        }
    }
    Ok(())
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= NAME { text.to_string() } else { text.chars().take(NAME - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_of_every_figure_has_a_name_a_bar_a_range_and_a_number() {
        let spread = (0.5, 0.25, 0.75);
        let plot = BarPlot {
            title: "methods".into(),
            groups: vec!["one".into(), "two".into()],
            figures: vec![("hits".into(), vec![spread; 2]), ("fluent".into(), vec![(f64::NAN, f64::NAN, f64::NAN), spread])],
        };
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (1180, plot.height())).into_drawing_area();
            draw(&area, &plot, &Palette::paper()).unwrap();
        }
        let count = |what: &str| svg.matches(what).count();
        assert_eq!((count("<rect"), count("<polyline"), count("<text")), (4, 4, 1 + 2 + 4 + 4));
        assert!(svg.contains("0.500"));
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(shorten("short"), "short");
        assert_eq!(shorten(&"x".repeat(40)).chars().count(), NAME);
    }
}
