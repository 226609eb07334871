//! A canvas whose picture has as many pixels as the screen shows of it.

use crate::charts::Palette;
use crate::charts::backend::CanvasBackend;
use crate::derived;
use leptos::html;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{CanvasRenderingContext2d, HtmlCanvasElement, ResizeObserver};

/// Lets `resized` grow when the size of the element changes.
pub fn observe(canvas: NodeRef<html::Canvas>, resized: RwSignal<u64>) {
    let kept = StoredValue::new_local(None::<(ResizeObserver, Closure<dyn FnMut()>)>);
    derived::effect(move || {
        let Some(element) = canvas.get() else { return };
        let changed = Closure::<dyn FnMut()>::new(move || {
            let _ = resized.try_update(|n| *n = n.wrapping_add(1));
        });
        if let Ok(observer) = ResizeObserver::new(changed.as_ref().unchecked_ref()) {
            observer.observe(&element);
            kept.set_value(Some((observer, changed)));
        }
    });
    on_cleanup(move || {
        let _ = kept.try_update_value(|k| {
            if let Some((observer, _)) = k.take() {
                observer.disconnect();
            }
        });
    });
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
    Some((CanvasBackend::new(context, width, height), Palette::from_page(ratio)))
}
