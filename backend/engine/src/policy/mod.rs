//! Policy optimisation: which preferences are trained on, what the policy says, and how it learns from it.

pub mod rloo;
pub mod rollout;
pub mod targets;
