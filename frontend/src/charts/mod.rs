//! Charts: pure drawings from plain data, and the canvas they are drawn on.

pub mod backend;
pub mod band;
mod frame;
pub mod front;
pub mod line;

use leptos::prelude::{document, window};
use plotters::prelude::*;

/// Objectives that have a colour of their own; more of them start again.
pub const INKS: usize = 7;

/// What a line stands for; the colour follows from it and from the theme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// The quantity that matters most.
    Strong,
    /// A quantity beside it.
    Accent,
    /// An objective, by its position.
    Objective(usize),
}

impl Ink {
    /// The same colour in a style sheet.
    pub fn css(self) -> String {
        match self {
            Self::Strong => "var(--chart-strong)".into(),
            Self::Accent => "var(--chart-accent)".into(),
            Self::Objective(i) => format!("var(--obj-{})", i % INKS),
        }
    }
}

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
}

/// What a line chart has on its x axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Over {
    #[default]
    Steps,
    /// KL from the SFT policy, nats per answer. It goes up and down, so points are not joined.
    Kl,
}

/// Shares of ordered classes over steps, stacked to one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BandPlot {
    /// Position of the objective, for the hue.
    pub objective: usize,
    /// Labels, lowest class first.
    pub classes: Vec<String>,
    /// (step, share per class).
    pub rows: Vec<(f64, Vec<f64>)>,
}

/// A chart's data.
#[derive(Debug, Clone, PartialEq)]
pub enum Plot {
    Lines(LinePlot),
    Bands(BandPlot),
}

impl Plot {
    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Lines(p) => p.series.iter().all(|s| s.points.is_empty()),
            Self::Bands(p) => p.rows.is_empty(),
        }
    }
}

/// Share of the hue in the colour of class `class` of `classes`, lowest class palest.
pub fn ramp(class: usize, classes: usize) -> f64 {
    0.18 + 0.82 * class as f64 / (classes.max(2) - 1) as f64
}

/// Colours and sizes of a drawing.
#[derive(Debug, Clone)]
pub struct Palette {
    pub text: RGBColor,
    pub grid: RGBColor,
    pub surface: RGBColor,
    pub strong: RGBColor,
    pub accent: RGBColor,
    pub objectives: [RGBColor; INKS],
    /// Device pixels per CSS pixel.
    pub ratio: f64,
}

impl Palette {
    /// Reads the style sheet's variables, which depend on the theme.
    pub fn from_page(ratio: f64) -> Self {
        let style = document().document_element().and_then(|root| window().get_computed_style(&root).ok().flatten());
        let read = |name: &str| {
            style
                .as_ref()
                .and_then(|s| s.get_property_value(name).ok())
                .and_then(|t| parse(&t))
                .unwrap_or(RGBColor(120, 120, 120))
        };
        let mut objectives = [RGBColor(0, 0, 0); INKS];
        for (i, color) in objectives.iter_mut().enumerate() {
            *color = read(&format!("--obj-{i}"));
        }
        Self {
            text: read("--chart-text"),
            grid: read("--chart-grid"),
            surface: read("--surface"),
            strong: read("--chart-strong"),
            accent: read("--chart-accent"),
            objectives,
            ratio,
        }
    }

    /// Colour of a line.
    pub fn ink(&self, ink: Ink) -> RGBColor {
        match ink {
            Ink::Strong => self.strong,
            Ink::Accent => self.accent,
            Ink::Objective(i) => self.objectives[i % INKS],
        }
    }

    /// Colour of a class of an objective: one hue, pale to full from low to high.
    pub fn class(&self, objective: usize, class: usize, classes: usize) -> RGBColor {
        let (hue, paper) = (self.ink(Ink::Objective(objective)), self.surface);
        let share = ramp(class, classes);
        let mix = |a: u8, b: u8| (f64::from(a) * share + f64::from(b) * (1.0 - share)).round() as u8;
        RGBColor(mix(hue.0, paper.0), mix(hue.1, paper.1), mix(hue.2, paper.2))
    }

    /// CSS pixels in device pixels.
    pub fn px(&self, css: f64) -> i32 {
        (css * self.ratio).round().max(1.0) as i32
    }
}

/// Reads `#rrggbb`.
fn parse(text: &str) -> Option<RGBColor> {
    let hex = text.trim().strip_prefix('#')?;
    let part = |from: usize| u8::from_str_radix(hex.get(from..from + 2)?, 16).ok();
    Some(RGBColor(part(0)?, part(2)?, part(4)?))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind};

    /// Counts what is drawn and refuses what lies outside of the picture.
    #[derive(Default)]
    pub struct Recorder {
        pub paths: usize,
        pub polygons: usize,
        pub texts: usize,
        pub points: usize,
    }

    impl Recorder {
        fn inside(&self, (x, y): BackendCoord) {
            assert!((-2..=402).contains(&x) && (-2..=242).contains(&y), "({x}, {y}) is outside");
        }
    }

    type Drawn = Result<(), DrawingErrorKind<std::io::Error>>;

    impl DrawingBackend for &mut Recorder {
        type ErrorType = std::io::Error;
        fn get_size(&self) -> (u32, u32) {
            (400, 240)
        }
        fn ensure_prepared(&mut self) -> Drawn {
            Ok(())
        }
        fn present(&mut self) -> Drawn {
            Ok(())
        }
        fn draw_pixel(&mut self, _: BackendCoord, _: BackendColor) -> Drawn {
            Ok(())
        }
        fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, _: &S) -> Drawn {
            self.paths += 1;
            for point in path {
                self.inside(point);
                self.points += 1;
            }
            Ok(())
        }
        fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, _: &S) -> Drawn {
            self.polygons += 1;
            path.into_iter().for_each(|p| self.inside(p));
            Ok(())
        }
        fn draw_text<T: BackendTextStyle>(&mut self, _: &str, _: &T, at: BackendCoord) -> Drawn {
            self.texts += 1;
            self.inside(at);
            Ok(())
        }
    }

    /// Colours for tests.
    pub fn palette() -> Palette {
        let c = RGBColor(10, 20, 30);
        Palette { text: c, grid: c, surface: RGBColor(255, 255, 255), strong: c, accent: c, objectives: [c; INKS], ratio: 1.0 }
    }

    #[test]
    fn colours_are_read_and_ramps_darken() {
        assert_eq!(parse(" #0a14ff "), Some(RGBColor(10, 20, 255)));
        assert_eq!(parse("red"), None);
        let p = palette();
        assert!(p.class(0, 0, 3).0 > p.class(0, 1, 3).0);
        assert_eq!(p.class(0, 2, 3), RGBColor(10, 20, 30));
    }
}
