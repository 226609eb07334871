//! What a study takes: memory, operations, and which of its runs have stages in common.

use crate::folder::DataFolder;
use anyhow::Result;
use moslim_shared::study::PlannedRun;
use std::collections::HashSet;

/// Memory that a run needs besides its models, MiB.
const RUN_MEMORY_MIB: u64 = 400;

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
    let largest = plan.iter().map(|r| parameters(&r.config)).fold(0.0, f64::max);
    // Weights, gradients of several threads, two moments, reference and reward model: about twenty numbers a weight.
    let each = RUN_MEMORY_MIB + (largest * 20.0 * 4.0 / f64::from(1 << 20)) as u64;
    free.map_or(1, |kib| (kib / 1024 / each).max(1) as usize)
}

/// Weights of policy and reward model, roughly.
fn parameters(c: &moslim_shared::config::RunConfig) -> f64 {
    let of = |m: &moslim_shared::config::ModelConfig| {
        let d = m.d_model as f64;
        m.layers as f64 * (4.0 * d * d + 3.0 * d * m.d_ff as f64) + c.vocabulary as f64 * d
    };
    of(&c.model) + of(&c.reward_trunk)
}

/// Floating-point operations of a plan, roughly: for an estimate of how long it takes.
pub fn operations(plan: &[PlannedRun], data: &DataFolder) -> f64 {
    let mut known = HashSet::new();
    let mut of = |run: &PlannedRun| {
        let c = &run.config;
        let policies = match c.method.budget {
            moslim_shared::method::Budget::Total => 1,
            moslim_shared::method::Budget::PerPolicy => {
                let steered = data.objectives(&c.task).map_or(0, |o| c.steered(&o).len());
                c.method.kind.policies(steered, c.method.weight_vectors(&(0..steered).collect::<Vec<_>>(), steered).len())
            }
        };
        // About 40 tokens of a row, 25 of an answer and 20 of a prompt.
        let fresh = shared_stages(run).is_ok_and(|stages| known.insert(stages));
        let steps = if fresh { c.sft.steps * c.sft.batch + c.reward_model.steps * c.reward_model.batch } else { 0 };
        let supervised = 3.0 * 40.0 * steps as f64;
        let group = 20.0 + 25.0 * c.policy.samples_per_prompt as f64;
        let untrained = c.method.kind.policies(2, 2) == 0;
        let iterations = group * (c.policy.iterations * c.policy.prompts) as f64 * 6.0;
        let passes = if untrained { 0.0 } else { c.policy.passes.map_or(iterations, |p| p * 1e6) };
        parameters(c) * (supervised + passes * policies as f64)
    };
    plan.iter().map(&mut of).sum()
}
