//! A picture as a file: a drawing on paper with title, legend and where it is from, and the buttons that save it.

use crate::parts::save::{save, save_text};
use crate::words::t;
use js_sys::Uint8Array;
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_charts::Palette;
use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, DrawingBackend, IntoDrawingArea, SVGBackend};
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind};
use std::fmt::Write;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, CanvasRenderingContext2d, HtmlCanvasElement, HtmlImageElement};

/// Size of a drawing, and of what stands above and below its axes.
const SIZE: (u32, u32) = (760, 420);
const ABOVE: u32 = 84;
const BELOW: u32 = 46;

/// Buttons that save a picture and its data. `name`: of the files, without an ending; `make`: what a file of a kind (`SVG`, `CSV`, `JSON`)
/// holds.
#[component]
pub fn Save(name: String, make: Callback<&'static str, String>) -> impl IntoView {
    let open = RwSignal::new(false);
    let said = RwSignal::new(String::new());
    let button = move |kind: &'static str| {
        let name = name.clone();
        view! {
            <button
                class="link"
                type="button"
                data-save=kind
                on:click=move |_| {
                    let file = format!("{name}.{}", kind.to_lowercase());
                    let done = if kind == "PNG" {
                        let drawing = make.run("SVG");
                        spawn_local(async move {
                            if save_png(&file, &drawing).await.is_err() {
                                let _ = said.try_set(t("This browser makes no PNG of it; save the SVG.").into());
                            }
                        });
                        Ok(())
                    } else {
                        save_text(&file, &make.run(kind))
                    };
                    said.set(if done.is_err() { t("This browser saves no files.").into() } else { String::new() });
                }
            >
                {kind}
            </button>
        }
    };
    let buttons = ["SVG", "PNG", "CSV", "JSON"].map(button);
    view! {
        <button class="link" type="button" aria-expanded=move || open.get().to_string() on:click=move |_| open.update(|o| *o = !*o)>
            {t("Save")}
        </button>
        <span class="kinds" class:gone=move || !open.get()>{buttons.into_iter().collect_view()}</span>
        <span class="note" role="alert" class:gone=move || said.with(String::is_empty)>{move || said.get()}</span>
    }
}

/// A cell of a line of text in which commas separate.
pub fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

/// What stands around a drawing.
#[derive(Default)]
pub struct Sheet<'a> {
    pub title: &'a str,
    /// Where it is from.
    pub source: &'a str,
    /// The legend: a text, its colour and its marker.
    pub entries: Vec<(String, plotters::style::RGBColor, &'static str)>,
    /// What the axes are about.
    pub y_title: &'a str,
    pub x_title: &'a str,
}

impl Sheet<'_> {
    /// The file. `draw` draws what is between.
    pub fn svg(&self, draw: impl FnOnce(&DrawingArea<Paper<'_>, Shift>, &Palette)) -> String {
        let mut inner = String::new();
        draw(&Paper(SVGBackend::with_string(&mut inner, SIZE)).into_drawing_area(), &Palette::paper());
        let (width, height) = (SIZE.0, SIZE.1 + ABOVE + BELOW);
        let hex = |c: plotters::style::RGBColor| format!("#{:02x}{:02x}{:02x}", c.0, c.1, c.2);
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n<text x=\"12\" y=\"26\" font-size=\"17\" font-weight=\"600\">{}</text>\n",
            escaped(self.title)
        );
        let (mut x, mut y) = (12.0, 50.0);
        for (entry, color, glyph) in &self.entries {
            // A Chinese character is about twice as wide as a letter.
            let chinese = entry.chars().filter(|c| *c >= '\u{2e80}').count();
            let wide = 22.0 + 6.6 * entry.chars().count() as f64 + 6.0 * chinese as f64;
            if x + wide > f64::from(width) && x > 12.0 {
                (x, y) = (12.0, y + 18.0);
            }
            let _ = writeln!(
                text,
                "<text x=\"{x:.0}\" y=\"{y:.0}\" font-size=\"12\"><tspan fill=\"{}\">{glyph}</tspan> {}</text>",
                hex(*color),
                escaped(entry)
            );
            x += wide;
        }
        let _ =
            writeln!(text, "<text x=\"12\" y=\"{}\" font-size=\"11\" fill=\"#555\">{}</text>", ABOVE - 2, escaped(self.y_title));
        // The axes are a drawing within this one.
        let inner = inner.trim_start().trim_start_matches("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").trim_start();
        let _ = writeln!(text, "{}", inner.replacen("<svg ", &format!("<svg y=\"{ABOVE}\" "), 1));
        let foot = SIZE.1 + ABOVE + 14;
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{foot}\" font-size=\"11\" fill=\"#555\" text-anchor=\"end\">{}</text>\n\
             <text x=\"12\" y=\"{}\" font-size=\"10\" fill=\"#777\">MOSLIM Lab {} · {}</text>\n</svg>",
            width - 16,
            escaped(self.x_title),
            foot + 22,
            env!("CARGO_PKG_VERSION"),
            escaped(self.source)
        );
        text
    }
}

/// Plotters measures text by putting it into the page, whose rules forbid that; here its width is guessed, as on paper anywhere else.
pub struct Paper<'a>(SVGBackend<'a>);

type Drawn<'a> = Result<(), DrawingErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

impl<'a> DrawingBackend for Paper<'a> {
    type ErrorType = <SVGBackend<'a> as DrawingBackend>::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        self.0.get_size()
    }

    fn ensure_prepared(&mut self) -> Drawn<'a> {
        self.0.ensure_prepared()
    }

    fn present(&mut self) -> Drawn<'a> {
        self.0.present()
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> Drawn<'a> {
        self.0.draw_pixel(point, color)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn<'a> {
        self.0.draw_line(from, to, style)
    }

    fn draw_rect<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S, fill: bool) -> Drawn<'a> {
        self.0.draw_rect(from, to, style, fill)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn<'a> {
        self.0.draw_path(path, style)
    }

    fn draw_circle<S: BackendStyle>(&mut self, center: BackendCoord, radius: u32, style: &S, fill: bool) -> Drawn<'a> {
        self.0.draw_circle(center, radius, style, fill)
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, corners: I, style: &S) -> Drawn<'a> {
        self.0.fill_polygon(corners, style)
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, at: BackendCoord) -> Drawn<'a> {
        self.0.draw_text(text, style, at)
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Self::ErrorType>> {
        let wide = text.chars().count() as f64 * style.size() * 0.56;
        Ok((wide.ceil() as u32, style.size().ceil() as u32))
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Draws a drawing at twice its size, and gives the person the pixels.
async fn save_png(name: &str, drawing: &str) -> Result<(), JsValue> {
    let image = HtmlImageElement::new()?;
    image.set_src(&format!("data:image/svg+xml;charset=utf-8,{}", String::from(js_sys::encode_uri_component(drawing))));
    JsFuture::from(image.decode()).await?;
    let canvas: HtmlCanvasElement = document().create_element("canvas")?.unchecked_into();
    canvas.set_width(SIZE.0 * 2);
    canvas.set_height((SIZE.1 + ABOVE + BELOW) * 2);
    let context: CanvasRenderingContext2d = canvas.get_context("2d")?.ok_or(JsValue::NULL)?.unchecked_into();
    context.draw_image_with_html_image_element_and_dw_and_dh(
        &image,
        0.0,
        0.0,
        f64::from(canvas.width()),
        f64::from(canvas.height()),
    )?;
    let made = js_sys::Promise::new(&mut |resolve, _| {
        let _ = canvas.to_blob(&resolve);
    });
    let blob: Blob = JsFuture::from(made).await?.dyn_into()?;
    let bytes = JsFuture::from(blob.array_buffer()).await?;
    save(name, &Uint8Array::new(&bytes))
}
