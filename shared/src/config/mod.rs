//! What a run can be told: one type for form, file, command line, API and worker.
//!
//! Types are in `models`, `policy` and `run`. What every field means, may be, and is used by stands in one table, `settings`, which
//! form, refusals, documentation and [`RunConfig::problems`] read. Rules between fields are in `checks`. What a stage does with a
//! setting belongs elsewhere.

mod checks;
pub mod cost;
mod difference;
mod models;
mod policy;
mod run;
pub mod settings;

pub use difference::{Difference, differences};
pub use models::{
    AdapterTarget, BaseConfig, ClassWeights, DeviceChoice, FOLDS, HeadPooling, ModelConfig, Precision, RewardModelConfig,
    SupervisedConfig, TaskConfig, TaskKind, WishPlace,
};
pub use policy::{
    Aggregation, DapoConfig, DpoConfig, KlLoss, KlPenalty, KlPlacement, PolicyConfig, PolicyOptimizer, PpoConfig, Target,
    TargetConfig, TargetWording,
};
pub use run::{EvaluationConfig, EvaluationSplit, Problem, RunConfig};
