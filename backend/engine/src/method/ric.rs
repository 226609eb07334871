//! Rewards-in-Context (Yang et al. 2024) and its class-tag twin: nothing is optimised, the policy is trained on prompts that
//! carry the scores which their answer has achieved.
//!
//! Offline, training answers are scored by the reward model and become prompts with scores. Online, the policy is asked for
//! near-Pareto goals, its answers are scored, and the best of them, relabelled with what they achieved, join the training.
//! With numbers the scores are standardised and written as text; the twin writes MOSLIM's class tags, which makes it supervised
//! MOSLIM: same tags, same reward model, no reinforcement learning.

use super::scored::{Length, Lesson, Round, mean_tokens, supervise};
use super::setting::{Outcome, Ready, Setting, Trained};
use crate::evaluate::answer::Route;
use crate::keep::Job;
use crate::model::TrainBackend;
use crate::progress::Progress;
use anyhow::Result;
use burn::module::AutodiffModule;
use moslim_shared::config::RunConfig;
use moslim_shared::event::Stage;
use moslim_shared::method::{Method, RicConfig};

/// Length of the answers that policy optimisation samples against those of the corpus: tags that ask for little make them
/// shorter. Measured with `quick`; the work that is reported is counted, not estimated.
const SAMPLED_LENGTH: f64 = 0.72;

/// Trains the policy: offline, then online.
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
    let config = &job.config;
    let ric = &config.method.ric;
    let route = match config.method.kind {
        Method::RicClass => Route::Tags,
        _ => {
            let s = &ready.reward_model.calibration.statistics;
            Route::Scores { mean: s.expected_mean.clone(), std: s.expected_std.clone() }
        }
    };
    // The same number of token passes as the other methods have for policy optimisation: labelling and sampling are part of them.
    let rounds = rounds(ric, budget_passes(config, setting));
    let (start, lesson) = (ready.start.clone(), Lesson::Achieved(&route));
    let (policy, driver) = supervise(job, setting, ready, start, (Stage::Policy, None), &rounds, &lesson, device, progress)?;
    let trial = driver.state.trial.clone();
    driver.end(progress);
    let mut outcome = Outcome { seconds: trial.seconds, work: trial.work, ..Default::default() };
    (outcome.summary.samples, outcome.summary.tokens) = (trial.samples, trial.tokens);
    Ok(Trained { policies: vec![policy.valid()], route, outcome, policies_trained: 1, policies_kept: 1 })
}

/// The offline round and the online ones, which together cost `budget` token passes.
pub fn rounds(ric: &RicConfig, budget: f64) -> Vec<Round> {
    let share = if ric.online_rounds > 0 { ric.online_share } else { 0.0 };
    let offline = Length::Passes((1.0 - share) * budget);
    let online = (1..=ric.online_rounds).map(|n| {
        let end = 1.0 - share + share * n as f64 / ric.online_rounds as f64;
        Round { length: Length::Passes(end * budget), learning_rate: ric.online_learning_rate }
    });
    [Round { length: offline, learning_rate: ric.learning_rate }].into_iter().chain(online).collect()
}

/// Token passes that a method has: the budget that is set, or what policy optimisation by reinforcement takes with this
/// configuration: sampling, reference, reward model and `epochs` updates of prompts with `samples_per_prompt` answers.
pub fn budget_passes(config: &RunConfig, setting: &Setting) -> f64 {
    if let Some(passes) = config.policy.passes {
        return passes * 1e6;
    }
    let rows = setting.corpus.known_texts();
    let n = rows.len().max(1) as f64;
    let prompt = rows.iter().map(|r| r.answer as f64).sum::<f64>() / n;
    let answer = SAMPLED_LENGTH * (mean_tokens(rows) - prompt);
    let c = &config.policy;
    let group = prompt + c.samples_per_prompt as f64 * answer;
    c.iterations as f64 * c.prompts as f64 * group * (3.0 + 3.0 * c.epochs as f64)
}
