//! Rewards-in-Context (Yang et al. 2024) and its class-tag twin: nothing is optimised, the policy is trained on prompts that
//! carry the scores which their answer has achieved.
//!
//! Offline, training answers are scored by the reward model and become prompts with scores. Online, the policy is asked for
//! near-Pareto goals, its answers are scored, and the best of them, relabelled with what they achieved, join the training.
//! With numbers the scores are standardised and written as text; the twin writes MOSLIM's class tags, which makes it supervised
//! MOSLIM: same tags, same reward model, no reinforcement learning.

use super::stages::{Outcome, Ready, Setting, Trained};
use crate::evaluate::answer::{Ask, Route};
use crate::model::TrainBackend;
use crate::model::generate::{Sampling, generate};
use crate::model::optimizer::{Trainee, cosine, gradients};
use crate::model::packed::{Group, Packed, chunks};
use crate::model::store::{from_safetensors, to_safetensors};
use crate::model::transformer::Transformer;
use crate::policy::rollout::judged_answer;
use crate::policy::targets::{contains, pair_positions};
use crate::progress::{Progress, Stopped, stream};
use crate::run::cache::{Cache, Entry, sha256};
use crate::run::{Job, checkpoint};
use crate::text::corpus::Encoded;
use anyhow::Result;
use burn::module::AutodiffModule;
use moslim_shared::config::RunConfig;
use moslim_shared::distribution::{argmax, expected_class};
use moslim_shared::event::{EventBody, Stage};
use moslim_shared::method::Method;
use moslim_shared::preference::Preference;
use moslim_shared::summary::Work;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Times that the named objectives of a row are drawn again while they contain a pair that is kept out of training.
const MOST_DRAWS: usize = 64;
/// Weight decay, as in SFT.
const WEIGHT_DECAY: f32 = 0.01;
/// Length of the answers that policy optimisation samples against those of the corpus: tags that ask for little make them
/// shorter. Measured with `quick`; the work that is reported is counted, not estimated.
const SAMPLED_LENGTH: f64 = 0.72;
/// Steps between checkpoints.
const CHECKPOINT_EVERY: usize = 200;

/// An answer with what the reward model says of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Scored {
    /// `<user>` question `<assistant>`, without scores.
    question: Vec<u32>,
    answer: Vec<u32>,
    /// Expected class per objective.
    expected: Vec<f64>,
    /// Most probable class per objective.
    classes: Vec<usize>,
}

/// What supervised training on scored prompts took.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Trial {
    pub work: Work,
    pub seconds: f64,
    /// Answers sampled, and their tokens.
    samples: u64,
    tokens: u64,
}

/// Where the training is, kept in its checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// 0: offline; then the rounds of the online stage.
    round: usize,
    /// The last online round that has sampled; 0: none.
    sampled: usize,
    /// Rows that the online stage has made so far.
    online: Vec<Scored>,
    /// Whether the work of labelling is counted.
    labelled: bool,
    trial: Trial,
}

/// Trains the policy: offline, then online.
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
            let s = &ready.judge.calibration.statistics;
            Route::Scores { mean: s.expected_mean.clone(), std: s.expected_std.clone() }
        }
    };
    // The same number of token passes as the other methods have for policy optimisation.
    let budget = budget_passes(config, setting);
    let rows = &setting.corpus.train;
    let row = mean_tokens(rows) + if config.method.kind == Method::Ric { 4.0 * setting.objectives.len() as f64 } else { 2.0 };
    let label = mean_tokens(rows) * rows.len() as f64;
    let share = if ric.online_rounds > 0 { ric.online_share } else { 0.0 };
    let step = 3.0 * ric.batch as f64 * row;
    let offline = (((1.0 - share) * budget - label) / step).max(1.0) as usize;
    let online_each = if ric.online_rounds > 0 {
        let sampled = 2.0 * ric.online_samples as f64 * row;
        ((share * budget / ric.online_rounds as f64 - sampled) / step).max(1.0) as usize
    } else {
        0
    };
    let mut plan = vec![(offline, ric.learning_rate)];
    plan.extend(std::iter::repeat_n((online_each, ric.online_learning_rate), ric.online_rounds));
    let (policy, trial) = supervise(job, setting, ready, ready.start.clone(), &plan, &route, device, progress)?;
    let mut outcome = Outcome { seconds: trial.seconds, work: trial.work, ..Default::default() };
    (outcome.summary.samples, outcome.summary.tokens) = (trial.samples, trial.tokens);
    Ok(Trained { policies: vec![policy.valid()], route, outcome, policies_trained: 1, policies_kept: 1 })
}

/// The offline stage with class tags alone, as a start for policy optimisation.
pub fn preference_sft<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    ready: &Ready<B>,
    start: Transformer<B>,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Transformer<B>, Trial)> {
    let method = &job.config.method;
    let plan = [(method.preference_sft, method.ric.learning_rate)];
    // What it ends with is kept, because policy optimisation has the same checkpoint file.
    let from = job.config.from.as_deref();
    let c = &job.config;
    let training = (&plan, method.ric.batch, &c.targets, c.policy.max_gradient_norm, c.seed);
    let inputs = (&ready.judge.calibration.hash, &ready.origin, from, training);
    let key = Cache::key("preference-sft", &inputs)?;
    if let Some((entry, weights)) = setting.cache.load_sound(&key, progress)?
        && let Some(trial) = entry.extra.and_then(|e| serde_json::from_value::<Trial>(e).ok())
    {
        return Ok((from_safetensors(start, weights)?, trial));
    }
    let (policy, trial) = supervise(job, setting, ready, start, &plan, &Route::Tags, device, progress)?;
    let entry = Entry { seconds: trial.seconds, extra: Some(serde_json::to_value(&trial)?), ..Default::default() };
    let weights = to_safetensors::<B, _>(&policy)?;
    setting.cache.save(&key, entry, &weights)?;
    Ok((policy, trial))
}

/// Tokens of a row, on average.
fn mean_tokens(rows: &[Encoded]) -> f64 {
    rows.iter().map(|r| r.tokens.len() as f64).sum::<f64>() / rows.len().max(1) as f64
}

/// Token passes that policy optimisation by reinforcement takes with this configuration: sampling, reference, reward model and
/// `epochs` updates of prompts with `samples_per_prompt` answers.
pub fn budget_passes(config: &RunConfig, setting: &Setting) -> f64 {
    let rows = &setting.corpus.train;
    let n = rows.len().max(1) as f64;
    let prompt = rows.iter().map(|r| r.answer as f64).sum::<f64>() / n;
    let answer = SAMPLED_LENGTH * (mean_tokens(rows) - prompt);
    let c = &config.policy;
    let group = prompt + c.samples_per_prompt as f64 * answer;
    c.iterations as f64 * c.prompts as f64 * group * (3.0 + 3.0 * c.epochs as f64)
}

/// Trains on scored prompts: `plan[0]` offline, every further entry one online round; `(steps, peak learning rate)` each.
#[allow(clippy::too_many_arguments)]
fn supervise<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    ready: &Ready<B>,
    start: Transformer<B>,
    plan: &[(usize, f64)],
    route: &Route,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Transformer<B>, Trial)> {
    let begun = Instant::now();
    let config = &job.config;
    let stage = Stage::Policy;
    let key = sha256(&[
        Cache::key("ric", &(&ready.judge.calibration.hash, &ready.origin, plan, route, config.seed))?.as_bytes(),
        &serde_json::to_vec(&config.method)?,
    ]);
    let mut trainee = Trainee::new(start, WEIGHT_DECAY, config.policy.max_gradient_norm);
    let mut state = State::default();
    let mut first = 0;
    if let Some(loaded) = checkpoint::load::<State>(&job.folder(), stage, &key)? {
        let (model, optimizer) = loaded.parts.into_iter().next().unwrap_or_default();
        trainee = trainee.from_bytes(model, optimizer, device)?;
        (first, state) = (loaded.header.step, loaded.header.extra);
    }
    let before = state.trial.seconds;
    let total: usize = plan.iter().map(|(steps, _)| steps).sum();
    progress.emit(EventBody::StageBegan {
        stage,
        from: plan[..state.round].iter().map(|(s, _)| s).sum::<usize>() + first,
        total,
    });

    // Training answers as the reward model sees them. Made anew after a resumption, which changes nothing.
    let mut offline = score(
        setting,
        ready,
        setting.corpus.train.iter().map(|r| {
            let (question, answer) = r.tokens.split_at(r.answer);
            (question.to_vec(), answer.to_vec())
        }),
    );
    if !std::mem::replace(&mut state.labelled, true) {
        state.trial.work.forward_tokens += setting.corpus.train.iter().map(|r| r.tokens.len() as u64).sum::<u64>();
    }
    // From the first online round on, what is good of the old rows is trained on beside the new ones.
    if state.sampled > 0 {
        offline = best(&offline, setting, config.method.ric.quantile);
    }
    while state.round < plan.len() {
        let (steps, rate) = plan[state.round];
        if state.round > state.sampled {
            // Ask for near-Pareto goals, and keep what is good in at least one objective, with what it achieved.
            let mut rng = stream(config.seed ^ 0x21C, stage, state.round);
            let sampled = sample(setting, ready, &trainee.model.valid(), route, config, &mut state.trial, &mut rng)?;
            if state.sampled == 0 {
                offline = best(&offline, setting, config.method.ric.quantile);
            }
            let kept = best(&sampled, setting, config.method.ric.quantile);
            let (all, good) = (sampled.len(), kept.len());
            progress.emit(EventBody::Note {
                text: format!(
                    "online round {}: {good} of {all} answers are kept and trained on with {} old ones",
                    state.round,
                    offline.len()
                ),
            });
            state.online.extend(kept);
            state.sampled = state.round;
        }
        let rows: Vec<&Scored> = offline.iter().chain(&state.online).collect();
        let done: usize = plan[..state.round].iter().map(|(s, _)| s).sum();
        let (mut sum, mut count) = (0.0, 0);
        for step in first..steps {
            if progress.stopped() {
                state.trial.seconds = before + begun.elapsed().as_secs_f64();
                checkpoint::save(&job.folder(), stage, step, &key, state.trial.seconds, &state, &[trainee.to_bytes()?])?;
                progress.emit(EventBody::Checkpoint { stage, step: done + step });
                return Err(Stopped.into());
            }
            let mut rng = stream(config.seed ^ 0x21C, stage, (state.round + 1) * 10_000_000 + step);
            let batch = (0..config.method.ric.batch)
                .map(|_| scored_prompt(rows[rng.random_range(0..rows.len())], setting, route, config, &mut rng))
                .collect::<Result<Vec<(Vec<u32>, &[u32])>>>()?;
            let answered: usize = batch.iter().map(|(_, a)| a.len()).sum();
            let groups: Vec<Group> = batch.iter().map(|(p, a)| Group { prompt: p, answers: vec![a] }).collect();
            state.trial.work.training_tokens += groups.iter().map(|g| g.tokens() as u64).sum::<u64>();
            let (loss, grads, _) = gradients(&trainee.model, chunks::<B, _>(&groups, Group::tokens), |model, groups| {
                (model.answer_log_probs(&Packed::new(groups), 1.0).sum().neg() / answered as f32, ())
            });
            (trainee, _) = trainee.step(grads, cosine(rate, step, steps));
            (sum, count) = (sum + loss, count + 1);
            if (step + 1) % (total / 100).max(1) == 0 || step + 1 == steps {
                let speed = (step + 1 - first) as f64 / begun.elapsed().as_secs_f64();
                progress.emit(EventBody::Loss { stage, step: done + step + 1, total, loss: sum / count as f64, rate: speed });
                (sum, count) = (0.0, 0);
            }
            if (step + 1) % CHECKPOINT_EVERY == 0 && step + 1 < steps {
                state.trial.seconds = before + begun.elapsed().as_secs_f64();
                checkpoint::save(&job.folder(), stage, step + 1, &key, state.trial.seconds, &state, &[trainee.to_bytes()?])?;
                progress.emit(EventBody::Checkpoint { stage, step: done + step + 1 });
            }
        }
        state.round += 1;
        first = 0;
    }
    state.trial.seconds = before + begun.elapsed().as_secs_f64();
    progress.emit(EventBody::StageEnded { stage, seconds: state.trial.seconds, cached: false });
    Ok((trainee.model, state.trial))
}

/// What the reward model says of answers to untagged questions.
fn score<B: TrainBackend>(setting: &Setting, ready: &Ready<B>, pairs: impl Iterator<Item = (Vec<u32>, Vec<u32>)>) -> Vec<Scored> {
    let pairs: Vec<(Vec<u32>, Vec<u32>)> = pairs.collect();
    let judged: Vec<Vec<u32>> = pairs.iter().map(|(_, a)| judged_answer(a, setting.tokenizer.eos)).collect();
    let groups: Vec<Group> = pairs.iter().zip(&judged).map(|((q, _), a)| Group { prompt: q, answers: vec![a] }).collect();
    let distributions = ready.judge.distributions(&groups);
    pairs
        .into_iter()
        .zip(distributions)
        .map(|((question, answer), heads)| Scored {
            question,
            answer,
            expected: heads.iter().map(|p| expected_class(p)).collect(),
            classes: heads.iter().map(|p| argmax(p)).collect(),
        })
        .collect()
}

/// A prompt with the scores that `row`'s answer achieved, for a random choice of objectives, as MOSLIM's prompts name a random
/// choice; combinations that are kept out of training are kept out here, too.
fn scored_prompt<'a>(
    row: &'a Scored,
    setting: &Setting,
    route: &Route,
    config: &RunConfig,
    rng: &mut StdRng,
) -> Result<(Vec<u32>, &'a [u32])> {
    let held_out: Vec<_> = config.targets.held_out.iter().filter_map(|p| pair_positions(p, &setting.objectives)).collect();
    let mut draws = 0;
    let preference = loop {
        let mut preference = Preference::none(setting.objectives.len());
        for &i in &setting.steered {
            preference.0[i] = rng.random_bool(config.targets.active_probability).then_some(row.classes[i]);
        }
        if preference.active() == 0 {
            let &i = setting.steered.choose(rng).expect("something is steered");
            preference.0[i] = Some(row.classes[i]);
        }
        draws += 1;
        let found: Vec<_> = held_out.iter().filter(|pair| contains(&preference, pair)).collect();
        if found.is_empty() {
            break preference;
        }
        // Where everything is always named, the row's own classes come again and again: half of every pair is left out.
        if draws == MOST_DRAWS {
            found.iter().for_each(|pair| preference.0[pair[0].0] = None);
            break preference;
        }
    };
    let question = &row.question[1..row.question.len() - 1];
    let prompt = match route {
        Route::Scores { mean, std } => {
            let z = |(i, t): (usize, &Option<usize>)| t.map(|_| (row.expected[i] - mean[i]) / std[i].max(1e-3));
            let scores: Vec<Option<f64>> = preference.0.iter().enumerate().map(z).collect();
            setting.tokenizer.scored_prompt(question, &scores)?
        }
        _ => route.prompt(question, &Ask::of(preference), &setting.tokenizer, &setting.objectives)?,
    };
    Ok((prompt, &row.answer))
}

/// Samples answers to random training questions for near-Pareto goals: the best class of every objective but one, which gets a
/// random class. Answers without end or without a word are dropped.
fn sample<B: TrainBackend>(
    setting: &Setting,
    ready: &Ready<B>,
    policy: &Transformer<B::InnerBackend>,
    route: &Route,
    config: &RunConfig,
    trial: &mut Trial,
    rng: &mut StdRng,
) -> Result<Vec<Scored>> {
    let questions = &setting.corpus.train_questions;
    let mut asked = Vec::new();
    let mut prompts = Vec::new();
    for _ in 0..config.method.ric.online_samples {
        let question = &questions[rng.random_range(0..questions.len())];
        let &free = setting.steered.choose(rng).expect("something is steered");
        let mut preference = Preference::none(setting.objectives.len());
        for &i in &setting.steered {
            let o = &setting.objectives[i];
            let best = if o.higher_is_better { o.class_count() - 1 } else { 0 };
            preference.0[i] = Some(if i == free { rng.random_range(0..o.class_count()) } else { best });
        }
        prompts.push(route.prompt(&question.tokens, &Ask::of(preference), &setting.tokenizer, &setting.objectives)?);
        asked.push(setting.tokenizer.untagged_prompt(&question.tokens));
    }
    let inputs: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: config.policy.max_new_tokens, seed: rng.random() };
    let answers = generate(policy, &inputs, 1, setting.tokenizer.eos, &sampling);
    trial.samples += answers.len() as u64;
    trial.tokens += answers.iter().map(|a| a.tokens.len() as u64).sum::<u64>();
    let read: usize = prompts.iter().zip(&asked).zip(&answers).map(|((p, q), a)| p.len() + q.len() + 2 * a.tokens.len()).sum();
    trial.work.forward_tokens += read as u64;
    let good = asked.into_iter().zip(answers).filter(|(_, a)| a.ended && a.tokens.len() > 1).map(|(q, a)| (q, a.tokens));
    Ok(score(setting, ready, good))
}

/// Rows that reach the quantile of at least one objective.
fn best(rows: &[Scored], setting: &Setting, quantile: f64) -> Vec<Scored> {
    let utility = |row: &Scored, i: usize| setting.objectives[i].utility(row.expected[i]);
    let limits: Vec<f64> = setting
        .steered
        .iter()
        .map(|&i| {
            let mut all: Vec<f64> = rows.iter().map(|r| utility(r, i)).collect();
            all.sort_by(f64::total_cmp);
            all.get((quantile * all.len() as f64) as usize).copied().unwrap_or(0.0)
        })
        .collect();
    let good = |row: &&Scored| setting.steered.iter().zip(&limits).any(|(&i, &limit)| utility(row, i) >= limit);
    rows.iter().filter(good).cloned().collect()
}
