//! A plotters backend on a canvas: integer device pixels, measured text, no elements inserted anywhere.

use plotters::prelude::DrawingBackend;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind, FontTransform};
use std::cell::RefCell;
use std::f64::consts::{FRAC_PI_2, PI};
use web_sys::CanvasRenderingContext2d;

/// Drawing on a canvas does not fail; plotters wants a type for it.
#[derive(Debug)]
pub struct CanvasError;

impl std::fmt::Display for CanvasError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the canvas refused to draw")
    }
}

impl std::error::Error for CanvasError {}

type Drawn = Result<(), DrawingErrorKind<CanvasError>>;

thread_local! {
    /// Texts that were measured lately: font size (tenths of a pixel), text and width.
    static WIDTHS: RefCell<Vec<(u32, String, u32)>> = const { RefCell::new(Vec::new()) };
}

/// Draws into a canvas whose backing store is `width` x `height` device pixels.
pub struct CanvasBackend {
    context: CanvasRenderingContext2d,
    width: u32,
    height: u32,
}

impl CanvasBackend {
    /// Wraps the context and clears the picture.
    pub fn new(context: CanvasRenderingContext2d, width: u32, height: u32) -> Self {
        context.clear_rect(0.0, 0.0, f64::from(width), f64::from(height));
        context.set_line_join("round");
        context.set_line_cap("butt");
        Self { context, width, height }
    }

    fn stroke<S: BackendStyle>(&self, style: &S) {
        self.context.set_stroke_style_str(&css(style.color()));
        self.context.set_line_width(f64::from(style.stroke_width().max(1)));
        self.context.stroke();
    }

    /// Starts a path through `points`; odd stroke widths are sharp on half pixels.
    fn trace(&self, points: impl IntoIterator<Item = BackendCoord>, shift: f64) -> usize {
        self.context.begin_path();
        let mut count = 0;
        for (x, y) in points {
            let (x, y) = (f64::from(x) + shift, f64::from(y) + shift);
            if count == 0 {
                self.context.move_to(x, y);
            } else {
                self.context.line_to(x, y);
            }
            count += 1;
        }
        count
    }

    fn set_font(&self, size: f64) {
        self.context.set_font(&format!("{size:.1}px system-ui, sans-serif"));
    }
}

fn css(color: BackendColor) -> String {
    let (r, g, b) = color.rgb;
    format!("rgba({r},{g},{b},{})", color.alpha)
}

fn half<S: BackendStyle>(style: &S) -> f64 {
    if style.stroke_width() % 2 == 1 { 0.5 } else { 0.0 }
}

impl DrawingBackend for CanvasBackend {
    type ErrorType = CanvasError;

    fn get_size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> Drawn {
        if color.alpha > 0.0 {
            self.context.set_fill_style_str(&css(color));
            self.context.fill_rect(f64::from(point.0), f64::from(point.1), 1.0, 1.0);
        }
        Ok(())
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn {
        if style.color().alpha > 0.0 {
            self.trace([from, to], half(style));
            self.stroke(style);
        }
        Ok(())
    }

    fn draw_rect<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S, fill: bool) -> Drawn {
        if style.color().alpha == 0.0 {
            return Ok(());
        }
        let (x, y) = (f64::from(from.0), f64::from(from.1));
        let (w, h) = (f64::from(to.0) - x, f64::from(to.1) - y);
        if fill {
            self.context.set_fill_style_str(&css(style.color()));
            self.context.fill_rect(x, y, w, h);
        } else {
            self.context.set_stroke_style_str(&css(style.color()));
            self.context.set_line_width(f64::from(style.stroke_width().max(1)));
            self.context.stroke_rect(x + half(style), y + half(style), w, h);
        }
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn {
        if style.color().alpha > 0.0 && self.trace(path, half(style)) > 1 {
            self.stroke(style);
        }
        Ok(())
    }

    fn draw_circle<S: BackendStyle>(&mut self, center: BackendCoord, radius: u32, style: &S, fill: bool) -> Drawn {
        if style.color().alpha == 0.0 {
            return Ok(());
        }
        self.context.begin_path();
        let _ = self.context.arc(f64::from(center.0), f64::from(center.1), f64::from(radius), 0.0, 2.0 * PI);
        if fill {
            self.context.set_fill_style_str(&css(style.color()));
            self.context.fill();
        } else {
            self.stroke(style);
        }
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, vert: I, style: &S) -> Drawn {
        if style.color().alpha > 0.0 && self.trace(vert, 0.0) > 2 {
            self.context.close_path();
            self.context.set_fill_style_str(&css(style.color()));
            self.context.fill();
        }
        Ok(())
    }

    fn draw_text<T: BackendTextStyle>(&mut self, text: &str, style: &T, pos: BackendCoord) -> Drawn {
        if style.color().alpha == 0.0 {
            return Ok(());
        }
        self.set_font(style.size());
        self.context.set_fill_style_str(&css(style.color()));
        self.context.set_text_align(match style.anchor().h_pos {
            HPos::Left => "left",
            HPos::Right => "right",
            HPos::Center => "center",
        });
        self.context.set_text_baseline(match style.anchor().v_pos {
            VPos::Top => "top",
            VPos::Center => "middle",
            VPos::Bottom => "bottom",
        });
        let (x, y) = (f64::from(pos.0), f64::from(pos.1));
        let angle = match style.transform() {
            FontTransform::None => 0.0,
            FontTransform::Rotate90 => FRAC_PI_2,
            FontTransform::Rotate180 => PI,
            FontTransform::Rotate270 => -FRAC_PI_2,
        };
        if angle == 0.0 {
            let _ = self.context.fill_text(text, x, y);
        } else {
            self.context.save();
            let _ = self.context.translate(x, y);
            let _ = self.context.rotate(angle);
            let _ = self.context.fill_text(text, 0.0, 0.0);
            self.context.restore();
        }
        Ok(())
    }

    fn estimate_text_size<T: BackendTextStyle>(
        &self,
        text: &str,
        style: &T,
    ) -> Result<(u32, u32), DrawingErrorKind<CanvasError>> {
        let size = style.size();
        let tenths = (size * 10.0) as u32;
        let known = WIDTHS.with(|w| w.borrow().iter().find(|w| w.0 == tenths && w.1 == text).map(|w| w.2));
        let width = known.unwrap_or_else(|| {
            self.set_font(size);
            let measured = self.context.measure_text(text).map_or(0.6 * size * text.len() as f64, |m| m.width());
            let width = measured.ceil() as u32;
            WIDTHS.with(|w| {
                let mut widths = w.borrow_mut();
                // Labels repeat; a table that keeps growing means that they do not, and starts again.
                if widths.len() > 200 {
                    widths.clear();
                }
                widths.push((tenths, text.to_string(), width));
            });
            width
        });
        Ok((width, size.ceil() as u32))
    }

    fn blit_bitmap(&mut self, _: BackendCoord, _: (u32, u32), _: &[u8]) -> Drawn {
        Ok(())
    }
}
