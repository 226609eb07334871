//! Small shared pieces of pages.

pub mod chart;
pub mod control;
pub mod curves;
pub mod demo;
pub mod format;
pub mod matrix;
pub mod report;
pub mod runs;
pub mod sample;
pub mod stage;
pub mod targets;
