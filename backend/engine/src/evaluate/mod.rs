//! Evaluation on held-out questions.

pub mod control;
