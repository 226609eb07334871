//! MORLHF, linear scalarisation: a policy for every trade-off, each optimised for its own weighted sum of the objectives.
//! Prompts carry no tags; who wants another trade-off takes another policy.

use super::evaluation::behaviour;
use super::moslim::optimise;
use super::optimisation::PolicyTask;
use super::setting::{Outcome, Ready, Setting, Trained, iterations_each};
use crate::evaluate::answer::Route;
use crate::keep::Job;
use crate::model::TrainBackend;
use crate::policy::rollout::Aim;
use crate::progress::Progress;
use anyhow::Result;
use burn::module::AutodiffModule;
use moslim_shared::event::Part;

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
        let task = PolicyTask { aim, iterations, part: Some(Part { index: n + 1, count, name }), start: String::new() };
        let (policy, own) = optimise(job, setting, ready, ready.start.clone(), &task, device, progress)?;
        outcome.add(own, count);
        let policy = policy.valid();
        // Asked for classes, it answers with the policy whose answers are nearest.
        let (means, work) = behaviour::<B>(setting, &ready.reward_model, &policy, &job.config)?;
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
