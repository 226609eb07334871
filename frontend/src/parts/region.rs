//! Parts of a page that are drawn anew when what they read has changed.

use leptos::prelude::*;

/// A part of a page. Whatever it shows, it is of one type: the machinery behind it is compiled once.
pub fn region(draw: impl Fn() -> AnyView + Send + Sync + 'static) -> AnyView {
    boxed(Box::new(draw))
}

#[inline(never)]
fn boxed(draw: Box<dyn Fn() -> AnyView + Send + Sync>) -> AnyView {
    (move || draw()).into_any()
}
