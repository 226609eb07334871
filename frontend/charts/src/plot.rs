//! What charts are drawn from: plain data.

use crate::palette::Ink;

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub label: String,
    pub ink: Ink,
    pub bold: bool,
    /// (x, y); over steps in ascending order.
    pub points: Vec<(f64, f64)>,
}

/// Lines over steps, or over KL.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LinePlot {
    pub series: Vec<Series>,
    /// Fixed range of y; from the data when absent.
    pub range: Option<(f64, f64)>,
    /// Draws a line at zero and keeps it in sight.
    pub zero: bool,
    /// Labels y in per cent.
    pub percent: bool,
    pub over: Over,
    /// Unit of y, for its axis.
    pub unit: &'static str,
}

/// Unit of lines that are shares, which fill the height.
pub const SHARE: &str = "share";

impl LinePlot {
    /// Lines over steps, with zero in sight.
    pub fn over_steps(series: Vec<Series>, unit: &'static str) -> Self {
        let percent = unit == SHARE;
        Self { series, range: percent.then_some((0.0, 1.0)), zero: true, percent, unit, over: Over::Steps }
    }

    /// Title of the x axis.
    pub fn x_title(&self) -> &'static str {
        if self.over == Over::Kl { "KL, nats per answer" } else { "step" }
    }
}

/// What a line chart has on its x axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Over {
    #[default]
    Steps,
    /// KL from the SFT policy, nats per answer. It goes up and down, so points are not joined.
    Kl,
}

/// How shares of classes over steps are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Bands, stacked to one.
    #[default]
    Stacked,
    /// A row for every class, as full in colour as its share is large.
    Heat,
    /// Outlines over the classes, at a few steps one above the other.
    Ridges,
}

/// Shares of ordered classes over steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BandPlot {
    /// Position of the objective, for the hue.
    pub objective: usize,
    /// Labels, lowest class first.
    pub classes: Vec<String>,
    /// (step, share per class).
    pub rows: Vec<(f64, Vec<f64>)>,
    pub shape: Shape,
}

impl BandPlot {
    /// The class whose shade stands for class `n` in a legend: its own, or the highest one where shades do not tell classes apart.
    pub fn key(&self, n: usize) -> usize {
        if self.shape == Shape::Stacked { n } else { self.classes.len().saturating_sub(1) }
    }
}

/// A chart's data.
#[derive(Debug, Clone, PartialEq)]
pub enum Plot {
    Lines(LinePlot),
    Bands(BandPlot),
}

impl Plot {
    /// Smallest and largest x.
    pub fn extent(&self) -> Option<(f64, f64)> {
        let all: Vec<f64> = match self {
            Self::Lines(p) => p.series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).collect(),
            Self::Bands(p) => p.rows.iter().map(|r| r.0).collect(),
        };
        let low = all.iter().copied().fold(f64::INFINITY, f64::min);
        let high = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (low <= high).then_some((low, high))
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Lines(p) => p.series.iter().all(|s| s.points.is_empty()),
            Self::Bands(p) => p.rows.is_empty(),
        }
    }
}
