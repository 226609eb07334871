//! Colours and sizes of drawings.

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
    /// A number for dash and marker, so that lines are told apart without colours.
    fn style(self) -> usize {
        match self {
            Self::Strong => 0,
            Self::Accent => 4,
            Self::Objective(i) => i % INKS,
        }
    }

    /// Length of dashes and of what is between them, CSS pixels; `None` for a line without gaps.
    pub fn dash(self) -> Option<(f64, f64)> {
        [None, Some((9.0, 5.0)), Some((3.0, 4.0)), Some((16.0, 5.0)), Some((6.0, 3.0)), Some((2.0, 7.0)), Some((12.0, 9.0))]
            [self.style()]
    }

    /// The marker at the end of its line, as a character.
    pub fn glyph(self) -> &'static str {
        ["●", "■", "▲", "◆", "▼", "✚", "✖"][self.style()]
    }

    /// Corners of the marker around (0, 0), at most 1 away; none for a circle.
    pub fn marker(self) -> &'static [(f64, f64)] {
        const CROSS: [(f64, f64); 12] = [
            (-0.35, -1.0),
            (0.35, -1.0),
            (0.35, -0.35),
            (1.0, -0.35),
            (1.0, 0.35),
            (0.35, 0.35),
            (0.35, 1.0),
            (-0.35, 1.0),
            (-0.35, 0.35),
            (-1.0, 0.35),
            (-1.0, -0.35),
            (-0.35, -0.35),
        ];
        const TURNED: [(f64, f64); 12] = [
            (0.0, -0.5),
            (0.5, -1.0),
            (1.0, -0.5),
            (0.5, 0.0),
            (1.0, 0.5),
            (0.5, 1.0),
            (0.0, 0.5),
            (-0.5, 1.0),
            (-1.0, 0.5),
            (-0.5, 0.0),
            (-1.0, -0.5),
            (-0.5, -1.0),
        ];
        match self.style() {
            1 => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            2 => &[(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)],
            3 => &[(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)],
            4 => &[(0.0, 1.0), (1.0, -0.8), (-1.0, -0.8)],
            5 => &CROSS,
            6 => &TURNED,
            _ => &[],
        }
    }

    /// The same colour in a style sheet.
    pub fn css(self) -> String {
        match self {
            Self::Strong => "var(--chart-strong)".into(),
            Self::Accent => "var(--chart-accent)".into(),
            Self::Objective(i) => format!("var(--obj-{})", i % INKS),
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
    /// Dark ink on white paper, with colours that people with colour blindness can tell apart (Okabe & Ito; yellow is left out).
    pub fn paper() -> Self {
        let objectives = [
            RGBColor(0, 114, 178),
            RGBColor(213, 94, 0),
            RGBColor(0, 158, 115),
            RGBColor(204, 121, 167),
            RGBColor(86, 180, 233),
            RGBColor(230, 159, 0),
            RGBColor(110, 110, 110),
        ];
        let (text, grid) = (RGBColor(40, 40, 40), RGBColor(225, 225, 225));
        Self { text, grid, surface: WHITE, strong: BLACK, accent: RGBColor(140, 70, 20), objectives, ratio: 1.0 }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramps_darken_to_the_full_hue() {
        let p = Palette::paper();
        assert!(p.class(0, 0, 3).0 > p.class(0, 1, 3).0);
        assert_eq!(p.class(0, 2, 3), p.ink(Ink::Objective(0)));
    }

    #[test]
    fn no_two_inks_on_paper_are_alike() {
        let p = Palette::paper();
        let mut all: Vec<RGBColor> = (0..INKS).map(|i| p.ink(Ink::Objective(i))).collect();
        all.extend([p.strong, p.accent, p.surface]);
        for (n, color) in all.iter().enumerate() {
            assert!(!all[..n].contains(color), "{color:?}");
        }
    }
}
