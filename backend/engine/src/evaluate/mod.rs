//! Evaluation on held-out questions: how a method answers, who grades, and what the grades add up to.
//!
//! Here belongs what is asked and how it is counted. Which stages there are before, and what is reported when, is `method/`.

pub mod answer;
pub mod control;
pub mod figures;
pub mod front;
pub mod grader;
pub mod menu;
pub mod plan;
pub mod questions;
