//! What a study takes: memory, operations, and which of its runs have stages in common.

use crate::folder::DataFolder;
use anyhow::Result;
use moslim_engine::run::memory::{available_mib, moments};
use moslim_shared::config::cost::{optimisation, supervised};
use moslim_shared::memory::largest;
use moslim_shared::study::PlannedRun;
use std::collections::HashSet;

/// What decides the stages before the policy.
pub fn shared_stages(run: &PlannedRun) -> Result<String> {
    let c = &run.config;
    Ok(serde_json::to_string(&(
        &c.task,
        c.vocabulary,
        &c.model,
        &c.reward_trunk,
        c.reward_from_sft,
        &c.sft,
        &c.reward_model,
        c.seed,
        c.device,
    ))?)
}

/// How many runs, at most one for each of the cores, which they share, fit into the memory that is free.
pub fn fitting(plan: &[PlannedRun], cores: usize, data: &DataFolder) -> usize {
    let Some(free) = available_mib() else { return 1 };
    let fit = |jobs: &usize| {
        let threads = (cores / jobs).max(1);
        let of = |run: &PlannedRun| largest(moments(&run.config, &[], threads, &|path| data.read(path))).map_or(1, |m| m.mib());
        let each = plan.iter().map(of).max().unwrap_or(1);
        each.saturating_mul(*jobs as u64) <= free
    };
    (1..=cores).rev().find(fit).unwrap_or(1)
}

/// Floating-point operations of a plan, roughly: for an estimate of how long it takes.
pub fn operations(plan: &[PlannedRun], data: &DataFolder) -> f64 {
    let mut known = HashSet::new();
    let mut of = |run: &PlannedRun| {
        let steered = data.objectives(&run.config.task).map_or(0, |o| run.config.steered(&o).len());
        let fresh = shared_stages(run).is_ok_and(|stages| known.insert(stages));
        let before = if fresh { supervised(&run.config) } else { 0.0 };
        before + optimisation(&run.config, steered)
    };
    plan.iter().map(&mut of).sum()
}
