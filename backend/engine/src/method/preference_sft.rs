//! Preference SFT: supervised training on answers tagged with the classes that the reward model sees in them, as a start for policy
//! optimisation. The paper claims that it is not needed.

use super::driver::from_cache;
use super::scored::{Length, Lesson, Round, supervise};
use super::setting::{Ready, Setting};
use crate::evaluate::answer::Route;
use crate::keep::Job;
use crate::keep::cache::{Cache, Entry};
use crate::model::TrainBackend;
use crate::model::store::{from_safetensors, to_safetensors};
use crate::model::transformer::Transformer;
use crate::progress::Progress;
use anyhow::Result;
use moslim_shared::config::{RunConfig, WishPlace};
use moslim_shared::event::Stage;
use web_time::Instant;

pub use super::scored::Trial;

/// Names how rows are drawn, for keys of the cache.
const CLASSES: &str = "labelled classes alike";

/// Trains `start`, or takes what came of it from the cache.
///
/// # Errors
/// When it is stopped, or a file cannot be read or written.
pub fn train<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    ready: &Ready<B>,
    start: Transformer<B>,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Transformer<B>, Trial)> {
    let (c, began, stage) = (&job.config, Instant::now(), Stage::PreferenceSft);
    let steps = c.method.preference_sft;
    let rounds = [Round { length: Length::Steps(steps), learning_rate: c.method.ric.learning_rate }];
    let training = (&rounds, c.method.ric.batch, &c.targets, c.policy.max_gradient_norm, c.seed);
    let inputs = (CLASSES, &ready.reward_model.calibration.hash, &ready.origin, &c.from, training);
    // Where prompts say what they ask for as they did before there was a choice, keys are those of then.
    let key = match (c.base.added_tokens, c.base.wishes) {
        (false, WishPlace::Question) => Cache::key("preference-sft", &inputs)?,
        (added, place) => Cache::key("preference-sft", &(inputs, added.then_some("added tokens"), place))?,
    };
    let key = rehearsed_key("preference-sft", key, c)?;
    if let Some((entry, weights)) = setting.cache.load_sound(&key, progress)?
        && let Some(trial) = entry.extra.and_then(|e| serde_json::from_value::<Trial>(e).ok())
    {
        let policy = from_safetensors(start, weights)?;
        from_cache(stage, None, steps, began, progress, None);
        return Ok((policy, trial));
    }
    let (policy, driver) =
        supervise(job, setting, ready, start, (stage, None), &rounds, &Lesson::Achieved(&Route::Tags), device, progress)?;
    let trial = driver.state.trial.clone();
    let entry = Entry { seconds: trial.seconds, extra: Some(serde_json::to_value(&trial)?), ..Default::default() };
    setting.cache.save(&key, &entry, &to_safetensors::<B, _>(&policy)?)?;
    driver.end(progress);
    Ok((policy, trial))
}

/// A key of the cache, `kind`'s, for what [`supervise`] trained: the same as before there was rehearsal, where nothing is rehearsed.
pub fn rehearsed_key(kind: &str, key: String, config: &RunConfig) -> Result<String> {
    match config.method.rehearsal.filter(|&share| share > 0.0) {
        Some(share) => Cache::key(kind, &(key, "rehearsal", share)),
        None => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rehearsed_is_in_the_key_and_nothing_is_not() {
        let key = |share: Option<f64>| {
            let mut config = RunConfig::default();
            config.method.rehearsal = share;
            rehearsed_key("kind", "before".into(), &config).unwrap()
        };
        assert_eq!([key(None), key(Some(0.0))], ["before", "before"]);
        assert!(key(Some(0.25)) != key(Some(0.5)) && key(Some(0.5)) != "before");
    }
}
