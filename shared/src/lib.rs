//! The vocabulary and the arithmetic of MOSLIM.
//!
//! Everything here is pure: no files, no network, no tensors. The trainer, the server, the command line and the
//! page (compiled to WebAssembly) share these types, so a rule is written once and a number means the same everywhere.

pub mod advantage;
pub mod agreement;
pub mod bringing;
pub mod config;
pub mod dialogue;
pub mod distribution;
pub mod event;
pub mod inference;
pub mod kl;
pub mod listing;
pub mod mapping;
pub mod memory;
pub mod method;
pub mod metrics;
pub mod moving;
pub mod objective;
pub mod order;
pub mod ordinal;
pub mod pareto;
pub mod preference;
pub mod presets;
pub mod ratings;
pub mod refusal;
pub mod study;
pub mod summary;
pub mod vote;
