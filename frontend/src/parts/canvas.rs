//! A canvas whose picture has as many pixels as the screen shows of it.

use crate::parts::backend::CanvasBackend;
use crate::parts::seen::watched;
use leptos::html;
use leptos::prelude::*;
use moslim_charts::{INKS, Palette};
use plotters::style::RGBColor;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{CanvasRenderingContext2d, HtmlCanvasElement, ResizeObserver};

/// Milliseconds of a frame that pictures may take; those that are left are drawn in the next one.
const FRAME_MS: f64 = 6.0;

thread_local! {
    static WAITING: RefCell<VecDeque<Box<dyn FnOnce()>>> = const { RefCell::new(VecDeque::new()) };
    static DRAWN: Cell<f64> = const { Cell::new(0.0) };
}

/// Draws before the next frame is shown, or in one of those that follow where much is to be drawn: a page of many charts moves on meanwhile.
pub fn soon(draw: impl FnOnce() + 'static) {
    let waiting = WAITING.with_borrow_mut(|all| {
        all.push_back(Box::new(draw));
        all.len()
    });
    if waiting == 1 {
        request_animation_frame(paint);
    }
}

/// When the last picture was drawn, milliseconds since the Unix epoch; `None` while some wait for it.
pub fn drawn() -> Option<f64> {
    WAITING.with_borrow(VecDeque::is_empty).then(|| DRAWN.get())
}

fn paint() {
    let began = js_sys::Date::now();
    while let Some(draw) = WAITING.with_borrow_mut(VecDeque::pop_front) {
        draw();
        if js_sys::Date::now() - began >= FRAME_MS {
            break;
        }
    }
    DRAWN.set(js_sys::Date::now());
    if drawn().is_none() {
        request_animation_frame(paint);
    }
}

/// Grows when the size of the element changes.
pub fn resized(canvas: NodeRef<html::Canvas>) -> ReadSignal<u64> {
    let (count, grow) = signal(0u64);
    watched(canvas, move |element| {
        let changed = Closure::<dyn FnMut()>::new(move || {
            let _ = grow.try_update(|n| *n += 1);
        });
        let observer = ResizeObserver::new(changed.as_ref().unchecked_ref()).ok()?;
        observer.observe(element);
        Some(move || {
            observer.disconnect();
            drop(changed);
        })
    });
    count
}

/// An empty picture in device pixels, and the colours of the page; none while the canvas is hidden or too small.
pub fn surface(canvas: &HtmlCanvasElement) -> Option<(CanvasBackend, Palette)> {
    let ratio = window().device_pixel_ratio().clamp(1.0, 4.0);
    let width = (f64::from(canvas.client_width()) * ratio).round() as u32;
    let height = (f64::from(canvas.client_height()) * ratio).round() as u32;
    if f64::from(width) < 120.0 * ratio || f64::from(height) < 80.0 * ratio {
        return None;
    }
    // A canvas that is given its size is emptied, so it is given a new one only.
    if canvas.width() != width {
        canvas.set_width(width);
    }
    if canvas.height() != height {
        canvas.set_height(height);
    }
    let context = canvas.get_context("2d").ok().flatten()?.dyn_into::<CanvasRenderingContext2d>().ok()?;
    Some((CanvasBackend::new(context, width, height), palette(ratio)))
}

/// Reads the style sheet's variables, which depend on the theme.
fn palette(ratio: f64) -> Palette {
    let style = document().document_element().and_then(|root| window().get_computed_style(&root).ok().flatten());
    let read = |name: &str| {
        style.as_ref().and_then(|s| s.get_property_value(name).ok()).and_then(|t| parse(&t)).unwrap_or(RGBColor(120, 120, 120))
    };
    let mut objectives = [RGBColor(0, 0, 0); INKS];
    for (i, color) in objectives.iter_mut().enumerate() {
        *color = read(&format!("--obj-{i}"));
    }
    Palette {
        text: read("--chart-text"),
        grid: read("--chart-grid"),
        surface: read("--surface"),
        strong: read("--chart-strong"),
        accent: read("--chart-accent"),
        objectives,
        ratio,
    }
}

/// Reads `#rrggbb`.
fn parse(text: &str) -> Option<RGBColor> {
    let hex = text.trim().strip_prefix('#')?;
    let part = |from: usize| u8::from_str_radix(hex.get(from..from + 2)?, 16).ok();
    Some(RGBColor(part(0)?, part(2)?, part(4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_read() {
        assert_eq!(parse(" #0a14ff "), Some(RGBColor(10, 20, 255)));
        assert_eq!(parse("red"), None);
    }
}
