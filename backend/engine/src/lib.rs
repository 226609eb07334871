//! Worlds, models, reward modelling and policy optimisation on burn. No HTTP, no SQL.
//!
//! One direction of flow: `data`, `text`, `model`, `reward`, `policy`, `method`, `evaluate`, `run`; each knows only the
//! ones before it.

pub mod data;
pub mod model;
pub mod text;
