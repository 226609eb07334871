//! Values derived from signals, of few types: the reactive machinery is compiled anew for each.

use leptos::prelude::*;

/// A text that is derived anew when what it is made of changes, and noticed when it is another one.
pub fn text(f: impl Fn() -> String + Send + Sync + 'static) -> Memo<String> {
    boxed(Box::new(f))
}

/// The same for a condition.
pub fn flag(f: impl Fn() -> bool + Send + Sync + 'static) -> Memo<bool> {
    boxed(Box::new(f))
}

/// The same for a number, such as the revision of something.
pub fn count(f: impl Fn() -> u64 + Send + Sync + 'static) -> Memo<u64> {
    boxed(Box::new(f))
}

#[inline(never)]
fn boxed<T: PartialEq + Send + Sync + 'static>(f: Box<dyn Fn() -> T + Send + Sync>) -> Memo<T> {
    Memo::new(move |_| f())
}

/// A number that grows when `f` says that something has changed.
pub fn changes(f: impl Fn() -> bool + Send + Sync + 'static) -> Memo<u64> {
    growing(Box::new(f))
}

fn growing(f: Box<dyn Fn() -> bool + Send + Sync>) -> Memo<u64> {
    Memo::new(move |old: Option<&u64>| old.copied().unwrap_or(0) + u64::from(f()))
}

/// Runs `f` after the page has been drawn, and again when what it read has changed.
pub fn effect(f: impl FnMut() + 'static) {
    run(Box::new(f));
}

fn run(f: Box<dyn FnMut()>) {
    Effect::new(f);
}
