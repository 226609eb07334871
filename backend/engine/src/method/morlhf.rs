//! MORLHF, linear scalarisation: a policy for every trade-off, each optimised for its own weighted sum of the objectives.
//! Prompts carry no tags; who wants another trade-off takes another policy.

use super::stages::{Outcome, Ready, Setting, Task, Trained, behaviour, iterations_each, optimise_policy};
use crate::evaluate::answer::Route;
use crate::model::TrainBackend;
use crate::policy::rollout::Aim;
use crate::progress::Progress;
use crate::run::Job;
use anyhow::Result;
use burn::module::AutodiffModule;

/// Trains a policy for every trade-off.
pub fn train<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    ready: &Ready<B>,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<Trained<B>> {
    let count = setting.trade_offs.len();
    let iterations = iterations_each(&job.config, count);
    let (mut policies, mut behaviours, mut outcome) = (Vec::new(), Vec::new(), Outcome::default());
    for (n, weights) in setting.trade_offs.iter().enumerate() {
        let name = weights.iter().map(|w| format!("{w:.2}")).collect::<Vec<_>>().join(" / ");
        let aim = Aim::Weights(weights.clone());
        let task = Task { aim, iterations, part: Some((n + 1, count, name)), start: String::new() };
        let (policy, own) = optimise_policy(job, setting, ready, ready.start.clone(), &task, device, progress)?;
        outcome.add(own, count);
        let policy = policy.valid();
        // Asked for classes, it answers with the policy whose answers are nearest.
        let (means, work) = behaviour::<B>(setting, &ready.judge, &policy, &job.config)?;
        outcome.work += work;
        behaviours.push(means);
        policies.push(policy);
    }
    Ok(Trained {
        policies,
        route: Route::Nearest { behaviour: behaviours },
        outcome,
        policies_trained: count,
        policies_kept: count,
    })
}
