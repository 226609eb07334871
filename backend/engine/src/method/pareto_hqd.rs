//! ParetoHqD (Gu et al. 2025): a trade-off is a direction in the space of the objectives, and for each a policy is trained, supervised,
//! on the few answers near the Pareto front that lie nearest to its direction; then on such answers of its own.
//!
//! Prompts carry no tags; who wants another trade-off takes another policy, as with MORLHF. The authors' code was not at hand: how
//! far from the front and from the direction an answer may be (`method.ric.near_share`) is a choice of ours, as are batch and
//! learning rates, which are RiC's.

use super::evaluation::nearest;
use super::optimisation::{own_passes, trade_off_part};
use super::preference_sft::rehearsed_key;
use super::ric::{budget_passes, rounds};
use super::scored::{Lesson, Trial, supervise};
use super::setting::{Outcome, Ready, Setting, Trained};
use crate::keep::Job;
use crate::keep::cache::{Cache, Entry};
use crate::method::driver::from_cache;
use crate::model::TrainBackend;
use crate::model::store::{from_safetensors, to_safetensors};
use crate::progress::Progress;
use anyhow::Result;
use burn::module::AutodiffModule;
use moslim_shared::event::Stage;
use web_time::Instant;

/// Trains a policy for every trade-off.
///
/// # Errors
/// When it is stopped, or a file cannot be read or written.
pub fn train<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    ready: &Ready<B>,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<Trained<B>> {
    let (config, count, stage) = (&job.config, setting.trade_offs.len(), Stage::Policy);
    let budget = budget_passes(config, setting);
    let (mut policies, mut outcome) = (Vec::new(), Outcome::default());
    for (n, weights) in setting.trade_offs.iter().enumerate() {
        let part = trade_off_part(n, &setting.trade_offs);
        let own = own_passes(config, budget, &part, &outcome.work);
        let (rounds, began) = (rounds(&config.method.ric, own), Instant::now());
        let training = (&rounds, &config.method.ric, config.policy.max_new_tokens, config.policy.max_gradient_norm, config.seed);
        let key = Cache::key("pareto-hqd", &(&ready.reward_model.calibration.hash, &ready.origin, weights, n, training))?;
        let key = rehearsed_key("pareto-hqd", key, config)?;
        let kept = setting
            .cache
            .load_sound(&key, progress)?
            .and_then(|(entry, weights)| Some((serde_json::from_value::<Trial>(entry.extra?).ok()?, weights)));
        let (policy, trial) = match kept {
            Some((trial, weights)) => {
                from_cache(stage, Some(&part), 1, began, progress, None);
                (from_safetensors(ready.start.clone(), weights)?, trial)
            }
            None => {
                let (start, lesson) = (ready.start.clone(), Lesson::Near(weights));
                let (policy, driver) =
                    supervise(job, setting, ready, start, (stage, Some(part)), &rounds, &lesson, device, progress)?;
                let trial = driver.state.trial.clone();
                let entry = Entry { seconds: trial.seconds, extra: Some(serde_json::to_value(&trial)?), ..Default::default() };
                setting.cache.save(&key, &entry, &to_safetensors::<B, _>(&policy)?)?;
                driver.end(progress);
                (policy, trial)
            }
        };
        outcome.work += trial.work;
        outcome.seconds += trial.seconds;
        outcome.summary.samples += trial.samples;
        outcome.summary.tokens += trial.tokens;
        policies.push(policy.valid());
    }
    let route = nearest(setting, ready, &policies, (setting.trade_offs.clone(), false), config, progress)?;
    Ok(Trained { policies, route, outcome, policies_trained: count, policies_kept: count })
}
