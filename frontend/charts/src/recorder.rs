//! A backend for tests: it counts what is drawn.

use crate::palette::{INKS, Palette};
use plotters::prelude::*;
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind};

/// Counts what is drawn and refuses what lies outside of the picture.
#[derive(Default)]
pub struct Recorder {
    pub paths: usize,
    pub polygons: usize,
    pub texts: usize,
    pub points: usize,
    /// Corners of every polygon, and how opaque it is.
    pub filled: Vec<(Vec<BackendCoord>, f64)>,
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
    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn {
        self.polygons += 1;
        let corners: Vec<BackendCoord> = path.into_iter().collect();
        corners.iter().for_each(|p| self.inside(*p));
        self.filled.push((corners, style.color().alpha));
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
