//! Policy optimisation: prompts, rollouts and their rewards, and one file for every optimiser.
//!
//! All optimisers work on the same [`rollout::Rollout`]s. An optimiser's file holds its decisions: where the baseline comes
//! from, where the KL penalty is, how losses of tokens are averaged. The loop around them is a method's.

pub mod beside;
pub mod dapo;
pub mod dpo;
pub mod grpo;
pub mod learner;
pub mod moc;
pub mod ppo;
pub mod reinforce;
pub mod rloo;
pub mod rollout;
pub mod surrogate;
pub mod targets;
pub mod update;
