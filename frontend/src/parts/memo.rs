//! What follows signals: values that are computed again only when what they are made of has changed, and work that is done then. The code
//! behind them is shared by all closures here; that of [`Memo::new`] and [`Effect::new`] is there once for each, which made the page larger.

use leptos::prelude::*;

/// A [`Memo`] of what `value` gives.
pub fn memo<T: PartialEq + Send + Sync + 'static>(value: impl Fn() -> T + Send + Sync + 'static) -> Memo<T> {
    fn of<T: PartialEq + Send + Sync + 'static>(value: Box<dyn Fn() -> T + Send + Sync>) -> Memo<T> {
        Memo::new(move |_| value())
    }
    of(Box::new(value))
}

/// An [`Effect`] that does `work`.
pub fn effect(work: impl FnMut() + 'static) {
    fn of(mut work: Box<dyn FnMut()>) {
        Effect::new(move |_| work());
    }
    of(Box::new(work));
}
