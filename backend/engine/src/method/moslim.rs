//! MOSLIM (arXiv 2505.20336): one reward model that classifies, one policy that reads in its prompt what is asked for.

use super::ric;
use super::stages::{Ready, Setting, Task, Trained, optimise_policy, policy_of};
use crate::evaluate::answer::Route;
use crate::model::TrainBackend;
use crate::policy::rollout::Aim;
use crate::progress::Progress;
use crate::run::Job;
use anyhow::Result;
use burn::module::AutodiffModule;

/// Trains the policy.
pub fn train<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    ready: &Ready<B>,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<Trained<B>> {
    let config = &job.config;
    // Any policy will do to start from; by default it is SFT without any preference data.
    let mut start = ready.start.clone();
    let mut origin = String::new();
    if let Some(run) = &config.from {
        start = policy_of(job, run, start)?;
        origin = format!("the policy of {run}");
    }
    let mut before = ric::Trial::default();
    if config.method.preference_sft > 0 {
        (start, before) = ric::preference_sft(job, setting, ready, start, device, progress)?;
        origin = format!("{origin} after {} steps of preference SFT", config.method.preference_sft);
    }
    // Prompts ask for classes, and the reward model's class distributions are mapped to what the prompt asks for.
    let task = Task { aim: Aim::Preference, iterations: config.policy.iterations, part: None, start: origin };
    let (policy, mut outcome) = optimise_policy(job, setting, ready, start, &task, device, progress)?;
    outcome.work += before.work;
    outcome.seconds += before.seconds;
    Ok(Trained { policies: vec![policy.valid()], route: Route::Tags, outcome, policies_trained: 1, policies_kept: 1 })
}
