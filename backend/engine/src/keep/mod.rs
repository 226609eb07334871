//! What a run keeps: its folder, its journal, its checkpoints, and the cache of finished stages that runs share.
//!
//! Here belongs everything that decides what a file is called and how it stays whole. What is in a model does not.

pub mod above;
pub mod bundle;
pub mod cache;
pub mod carried;
pub mod checkpoint;
pub mod files;
pub mod fork;
mod job;
pub mod journal;
pub mod log;
pub mod models;
pub mod sums;

pub use crate::sums::read_checked;
pub use files::{write_atomically, write_patiently};
pub use job::{CALIBRATION, CONFIG, Job, ROUTE, START, TRAINED, config_hash, milestone_file, model_file, read_config};
