//! Worlds, models, reward modelling and policy optimisation on burn. No HTTP, no SQL.
//!
//! One direction of flow: `data`, `text`, `model`, `reward`, `policy`, `evaluate`, `method`, `run`; each uses the ones
//! before it, except that methods keep their stages and checkpoints through `run`.

pub mod bench;
pub mod data;
pub mod evaluate;
pub mod method;
pub mod model;
pub mod policy;
pub mod progress;
pub mod reward;
pub mod run;
pub mod text;
