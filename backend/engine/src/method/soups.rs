//! Rewarded Soups (Ramé et al. 2023): one expert for every objective, all from the same SFT weights; a trade-off is served by
//! the weighted mean of the experts' weights, without training.

use super::evaluation::nearest;
use super::moslim::optimise;
use super::optimisation::one_of_several;
use super::setting::{Outcome, Ready, Setting, Trained};
use crate::keep::Job;
use crate::model::TrainBackend;
use crate::policy::rollout::Aim;
use crate::progress::Progress;
use anyhow::Result;
use burn::module::AutodiffModule;
use moslim_shared::event::Part;
use moslim_shared::method::{MethodConfig, lattice};

/// Most mixtures of the lattice that are offered.
const MIXTURES: usize = 90;

/// Trains the experts and mixes them for every trade-off.
pub fn train<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    ready: &Ready<B>,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<Trained<B>> {
    let (config, count) = (&job.config, setting.steered.len());
    let (mut experts, mut outcome) = (Vec::new(), Outcome::default());
    for (n, &objective) in setting.steered.iter().enumerate() {
        let mut weights = vec![0.0; setting.objectives.len()];
        weights[objective] = 1.0;
        let part = Part { index: n + 1, count, name: setting.objectives[objective].id.clone() };
        let task = one_of_several(config, Aim::Weights(weights), part, &outcome.work);
        let (expert, own) = optimise(job, setting, ready, ready.start.clone(), &task, device, progress)?;
        outcome.add(own, count);
        experts.push(expert.valid());
    }
    // Any mixture is free: the trade-offs themselves, and a lattice of others.
    let all = setting.objectives.len();
    let mut mixtures = setting.trade_offs.clone();
    let all_of_them = MethodConfig { weights: lattice(count, MIXTURES), ..Default::default() };
    for weights in all_of_them.weight_vectors(&setting.steered, all) {
        if !mixtures.contains(&weights) {
            mixtures.push(weights);
        }
    }
    let route = nearest(setting, ready, &experts, (mixtures, true), config, progress)?;
    Ok(Trained { policies: experts, route, outcome, policies_trained: count, policies_kept: count })
}
