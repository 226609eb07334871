//! What a study takes: memory, operations, and which of its runs have stages in common.

use crate::folder::DataFolder;
use anyhow::Result;
use moslim_shared::config::cost::{memory_mib, optimisation, supervised};
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

/// How many runs fit into the memory that is free.
pub fn fitting(plan: &[PlannedRun]) -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = text.lines().find_map(|l| l.strip_prefix("MemAvailable:")?.trim().split(' ').next()?.parse::<u64>().ok());
    let each = plan.iter().map(|r| memory_mib(&r.config)).max().unwrap_or(1).max(1);
    free.map_or(1, |kib| (kib / 1024 / each).max(1) as usize)
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
