//! Evaluation on held-out questions.

pub mod answer;
pub mod control;
pub mod front;
pub mod goals;
