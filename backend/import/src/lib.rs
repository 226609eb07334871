//! Anybody's ratings: files of many formats, and a mapping that says which of their columns is what, become a task of the lab.
//!
//! Files are read once, record after record, and never held whole: a record becomes samples ([`extract`]), samples go into buckets by
//! their prompt ([`gather`]), and every bucket is put in order and written down. What cannot be used is dropped with its place and the
//! reason, or ends the import, as the caller chose; nothing half-imported stays.

pub mod datum;
pub mod dialogue;
pub mod extract;
mod gather;
pub mod import;
pub mod known;
pub mod making;
pub mod mapping;
pub mod mix;
pub mod path;
pub mod peek;
mod pick;
pub mod records;
pub mod source;
pub mod stats;

pub use import::{Import, import};
pub use making::DROPPED;
pub use mapping::Mapping;
