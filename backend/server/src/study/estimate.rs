//! What a study takes: memory, operations, and which of its runs have stages in common.

use crate::folder::DataFolder;
use anyhow::Result;
use moslim_engine::run::memory::{available_mib, moments, problem};
use moslim_shared::config::cost::{optimisation, supervised};
use moslim_shared::config::{DeviceChoice, Problem};
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

/// Why a plan cannot be trained on this machine: the first of its runs that would not fit into its memory, of which a run may have `limit`
/// MiB, however few train at a time, with both figures. `jobs`: runs at a time, where somebody has said so. `computes_here`: whether a
/// device is the processor, for a graphics card has memory of its own; it is asked of runs that would not fit, and of no other. What a
/// fork needs depends on what it goes on from, which its own process finds out.
pub fn too_large(
    plan: &[PlannedRun],
    data: &DataFolder,
    (jobs, limit): (Option<usize>, Option<u64>),
    computes_here: &dyn Fn(DeviceChoice) -> bool,
) -> Option<Problem> {
    let most = available_mib().into_iter().chain(limit).min()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = jobs.unwrap_or_else(|| fitting(plan, cores, data)).clamp(1, plan.len().max(1));
    let unfit = |run: &PlannedRun| {
        let config = &run.config;
        let needed = largest(moments(config, &[], (cores / jobs).max(1), &|path| data.read(path)))?;
        let Problem { field, message } = problem(config, &needed, most)?;
        let field = if run.labels.is_empty() { field } else { format!("{field} ({})", run.labels.join(", ")) };
        computes_here(config.device).then_some(Problem { field, message })
    };
    plan.iter().filter(|run| run.config.fork.is_none()).find_map(unfit)
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

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::presets;

    #[test]
    fn a_plan_of_which_one_run_is_too_large_is_refused_with_both_figures() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::resolve(Some(folder.path().into()));
        let small = presets::find("smoke").unwrap().config;
        let mut large = small.clone();
        // Thirteen billion weights.
        (large.model.layers, large.model.d_model, large.model.d_ff) = (64, 4096, 16_384);
        large.reward_trunk = large.model.clone();
        let plan = [("narrow", small), ("wide", large)].map(|(label, config)| PlannedRun { labels: vec![label.into()], config });
        let unfit = |plan: &[PlannedRun], limit: Option<u64>, here: bool| too_large(plan, &data, (None, limit), &|_| here);
        // Where the system does not tell what there is, a limit is known all the same.
        let found = unfit(&plan, Some(200_000), true).unwrap();
        assert_eq!(found.field, "model.d_model (wide)");
        assert!(found.message.contains("the run needs about") && found.message.contains("may have"), "{}", found.message);
        assert_eq!(unfit(&plan, Some(200_000), false), None, "a graphics card has memory of its own");
        assert_eq!(unfit(&plan[..1], Some(200_000), true), None);
        assert!(unfit(&plan[..1], Some(1), true).is_some());
    }
}
