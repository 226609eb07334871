//! MORLHF, linear scalarisation: a policy for every trade-off, each optimised for its own weighted sum of the objectives.
//! Prompts carry no tags; who wants another trade-off takes another policy.

use super::evaluation::nearest;
use super::moslim::optimise;
use super::optimisation::{one_of_several, trade_off_part};
use super::setting::{Outcome, Ready, Setting, Trained};
use crate::keep::Job;
use crate::model::TrainBackend;
use crate::policy::rollout::Aim;
use crate::progress::Progress;
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
    let (config, count) = (&job.config, setting.trade_offs.len());
    let (mut policies, mut outcome) = (Vec::new(), Outcome::default());
    for (n, weights) in setting.trade_offs.iter().enumerate() {
        let part = trade_off_part(n, &setting.trade_offs);
        let task = one_of_several(config, Aim::Weights(weights.clone()), part, &outcome.work);
        let (policy, own) = optimise(job, setting, ready, ready.start.clone(), &task, device, progress)?;
        outcome.add(own, count);
        policies.push(policy.valid());
    }
    // Asked for classes, it answers with the policy whose answers are nearest.
    let route = nearest(setting, ready, &policies, (setting.trade_offs.clone(), false), config, progress)?;
    Ok(Trained { policies, route, outcome, policies_trained: count, policies_kept: count })
}
