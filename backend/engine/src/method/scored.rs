//! Supervised training on prompts that carry what their answer has achieved: what Rewards-in-Context and preference SFT share.

use super::driver::{Driver, Plan};
use super::setting::{Ready, Setting};
use super::supervised::WEIGHT_DECAY;
use crate::evaluate::answer::{Ask, Route};
use crate::keep::Job;
use crate::keep::bundle::sha256;
use crate::keep::cache::Cache;
use crate::model::TrainBackend;
use crate::model::generate::{Sampling, generate};
use crate::model::optimizer::{Trainee, cosine, gradients};
use crate::model::packed::{Group, Packed, chunks};
use crate::model::transformer::Transformer;
use crate::policy::rollout::ended_answer;
use crate::policy::targets::{contains, pair_positions};
use crate::progress::{Progress, stream};
use anyhow::Result;
use burn::module::AutodiffModule;
use moslim_shared::config::RunConfig;
use moslim_shared::distribution::{argmax, expected_class};
use moslim_shared::event::{EventBody, Stage};
use moslim_shared::preference::Preference;
use moslim_shared::summary::Work;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

/// Times that the named objectives of a row are drawn again while they contain a pair that is kept out of training.
const MOST_DRAWS: usize = 64;
/// Steps between checkpoints.
const CHECKPOINT_EVERY: usize = 200;

/// An answer with what the reward model says of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scored {
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
    pub samples: u64,
    pub tokens: u64,
}

/// Where the training is, kept in its checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// The last online round that has sampled; 0: none.
    sampled: usize,
    /// Rows that the online stage has made so far.
    online: Vec<Scored>,
    /// Whether the work of labelling is counted.
    labelled: bool,
    pub trial: Trial,
}

/// One round of training: `steps` with a cosine decay from `learning_rate`.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    pub steps: usize,
    pub learning_rate: f64,
}

/// Trains on scored prompts: `rounds[0]` on training answers alone, every further one after the policy has sampled answers.
/// What the driver's state was at the end is in the trial; the caller keeps the policy, then ends the driver.
///
/// # Errors
/// When it is stopped, or a file cannot be read or written.
#[allow(clippy::too_many_arguments)]
pub fn supervise<'a, B: TrainBackend>(
    job: &'a Job,
    setting: &Setting,
    ready: &Ready<B>,
    start: Transformer<B>,
    stage: Stage,
    rounds: &[Round],
    route: &Route,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Transformer<B>, Driver<'a, State>)> {
    let config = &job.config;
    let quantile = config.method.ric.quantile;
    let key = sha256(&[
        Cache::key("ric", &(&ready.reward_model.calibration.hash, &ready.origin, rounds, route, config.seed))?.as_bytes(),
        &serde_json::to_vec(&config.method)?,
    ]);
    let total: usize = rounds.iter().map(|r| r.steps).sum();
    let plan = Plan { stage, part: None, key, total, checkpoint_every: CHECKPOINT_EVERY };
    let (mut driver, parts) = Driver::begin(job, plan, State::default(), progress)?;
    let mut trainee = Trainee::new(start, WEIGHT_DECAY, config.policy.max_gradient_norm);
    if let Some((model, optimizer)) = parts.and_then(|p| p.into_iter().next()) {
        trainee = trainee.from_bytes(model, optimizer, device)?;
    }
    // Training answers as the reward model sees them. Made anew after a resumption, which changes nothing.
    let pairs = setting.corpus.train.iter().map(|r| (r.tokens[..r.answer].to_vec(), r.tokens[r.answer..].to_vec()));
    let mut offline = score(setting, ready, pairs);
    if !std::mem::replace(&mut driver.state.labelled, true) {
        driver.state.trial.work.forward_tokens += setting.corpus.train.iter().map(|r| r.tokens.len() as u64).sum::<u64>();
    }
    // From the first online round on, what is good of the old rows is trained on beside the new ones.
    if driver.state.sampled > 0 {
        offline = best(&offline, setting, quantile);
    }
    let (mut sum, mut count) = (0.0, 0);
    while let Some(step) = driver.next(progress, || Ok(vec![trainee.to_bytes()?]))? {
        let (round, within) = place(rounds, step);
        let Round { steps, learning_rate } = rounds[round];
        if round > driver.state.sampled {
            // Ask for near-Pareto goals, and keep what is good in at least one objective, with what it achieved.
            let mut rng = stream(config.seed ^ 0x21C, stage, round);
            let sampled = sample(setting, ready, &trainee.model.valid(), route, config, &mut driver.state.trial, &mut rng)?;
            if driver.state.sampled == 0 {
                offline = best(&offline, setting, quantile);
            }
            let kept = best(&sampled, setting, quantile);
            let (all, good, old) = (sampled.len(), kept.len(), offline.len());
            let text = format!("online round {round}: {good} of {all} answers are kept and trained on with {old} old ones");
            progress.emit(EventBody::Note { text });
            driver.state.online.extend(kept);
            driver.state.sampled = round;
        }
        let mut rng = stream(config.seed ^ 0x21C, stage, (round + 1) * 10_000_000 + within);
        let batch = (0..config.method.ric.batch)
            .map(|_| {
                let n = rng.random_range(0..offline.len() + driver.state.online.len());
                let row = offline.get(n).unwrap_or_else(|| &driver.state.online[n - offline.len()]);
                scored_prompt(row, setting, route, config, &mut rng)
            })
            .collect::<Result<Vec<(Vec<u32>, &[u32])>>>()?;
        let answered: usize = batch.iter().map(|(_, a)| a.len()).sum();
        let groups: Vec<Group> = batch.iter().map(|(p, a)| Group { prompt: p, answers: vec![a] }).collect();
        let read = groups.iter().map(|g| g.tokens() as u64).sum::<u64>();
        let (loss, grads, _) = gradients(&trainee.model, chunks::<B, _>(&groups, Group::tokens), |model, groups| {
            (model.answer_log_probs(&Packed::new(groups), 1.0).sum().neg() / answered as f32, ())
        });
        driver.state.trial.work.training_tokens += read;
        (trainee, _) = trainee.step(grads, cosine(learning_rate, within, steps));
        (sum, count) = (sum + loss, count + 1);
        if (within + 1) % (total / 100).max(1) == 0 || within + 1 == steps {
            driver.report_loss(step + 1, sum / f64::from(count), progress);
            (sum, count) = (0.0, 0);
        }
    }
    driver.state.trial.seconds = driver.seconds();
    Ok((trainee.model, driver))
}

/// The round of a step, and the step within it.
fn place(rounds: &[Round], step: usize) -> (usize, usize) {
    let mut within = step;
    for (n, round) in rounds.iter().enumerate() {
        if within < round.steps {
            return (n, within);
        }
        within -= round.steps;
    }
    (rounds.len() - 1, within)
}

/// What the reward model says of answers to untagged questions.
fn score<B: TrainBackend>(setting: &Setting, ready: &Ready<B>, pairs: impl Iterator<Item = (Vec<u32>, Vec<u32>)>) -> Vec<Scored> {
    let pairs: Vec<(Vec<u32>, Vec<u32>)> = pairs.collect();
    let ended: Vec<Vec<u32>> = pairs.iter().map(|(_, a)| ended_answer(a, setting.tokenizer.eos)).collect();
    let groups: Vec<Group> = pairs.iter().zip(&ended).map(|((q, _), a)| Group { prompt: q, answers: vec![a] }).collect();
    let distributions = ready.reward_model.distributions(&groups);
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
