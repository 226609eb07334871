//! Tasks, models, reward modelling and policy optimisation on burn. No HTTP, no SQL.
//!
//! One direction of flow: `sums`, `data`, `text`, `model`, `reward`, `keep`, `policy`, `evaluate`, `method`, `run`, `bench`; each
//! uses only the ones before it.

pub mod bench;
pub mod data;
pub mod evaluate;
pub mod keep;
pub mod method;
pub mod model;
pub mod policy;
pub mod progress;
pub mod ranks;
pub mod reward;
pub mod run;
pub mod sums;
pub mod text;
