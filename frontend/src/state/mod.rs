//! What the page knows: a fold over the events of a run, and how studies stand.
//!
//! Here belongs what can be tested without a browser: no signal, no view, no request.

pub mod progress;
mod reading;
mod run;
pub mod study;
pub mod toy;
mod verdict;
pub mod what_if;

pub use reading::MATRIX_WINDOW;
pub use run::{RunState, Topic};
