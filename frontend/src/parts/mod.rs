//! Small shared pieces of pages.

mod backend;
pub mod canvas;
pub mod chart;
pub mod comparison;
pub mod control;
pub mod curves;
pub mod demo;
pub mod field;
pub mod format;
pub mod front;
pub mod learning;
pub mod matrix;
pub mod pick;
pub mod region;
pub mod report;
pub mod runs;
pub mod sample;
pub mod settings;
pub mod stage;
pub mod table;
pub mod targets;
pub mod trade_offs;
