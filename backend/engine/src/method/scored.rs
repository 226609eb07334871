//! Supervised training on scored answers: what Rewards-in-Context, preference SFT and ParetoHqD share.

use super::classes::{Classes, Wish};
use super::driver::{Driver, Plan};
use super::setting::{Ready, Setting};
use super::supervised::WEIGHT_DECAY;
use crate::evaluate::answer::{Ask, Route};
use crate::keep::Job;
use crate::keep::bundle::sha256;
use crate::keep::cache::Cache;
use crate::keep::checkpoint::Exact;
use crate::model::TrainBackend;
use crate::model::generate::{Sampling, generate};
use crate::model::optimizer::{Trainee, cosine, gradients};
use crate::model::packed::{Group, Packed, chunks};
use crate::model::transformer::Transformer;
use crate::policy::rollout::ended_answer;
use crate::policy::targets::{TargetSampler, contains, pair_positions};
use crate::progress::{Progress, stream};
use crate::text::corpus::{Encoded, rehearsed};
use anyhow::Result;
use burn::module::AutodiffModule;
use moslim_shared::config::{RunConfig, TargetWording};
use moslim_shared::distribution::{argmax, expected_class};
use moslim_shared::event::{EventBody, Part, Stage};
use moslim_shared::method::RicConfig;
use moslim_shared::pareto::front;
use moslim_shared::preference::Preference;
use moslim_shared::summary::Work;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Times that the named objectives of a row are drawn again while they contain a pair that is kept out of training.
const MOST_DRAWS: usize = 64;
/// Steps between checkpoints.
const CHECKPOINT_EVERY: usize = 200;

/// An answer with what the reward model says of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scored {
    /// The question's own tokens, without what a prompt puts around them.
    asked: Vec<u32>,
    answer: Vec<u32>,
    /// Expected class per objective.
    expected: Vec<f64>,
    /// Class per objective: as it was labelled, or the most probable one.
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
    place: Place,
    /// Rows that the online stage has made so far.
    online: Vec<Scored>,
    /// Whether the work of labelling is counted.
    labelled: bool,
    pub trial: Trial,
}

/// What is trained on, and how it is asked.
pub enum Lesson<'a> {
    /// Every answer, under a prompt that carries what it has achieved.
    Achieved(&'a Route),
    /// Answers near the front and in the direction of a trade-off, weights of all objectives, without a word of it in the prompt.
    Near(&'a [f64]),
}

impl Lesson<'_> {
    /// What is learnt of rows offline.
    fn first(&self, rows: Vec<Scored>, setting: &Setting, ric: &RicConfig) -> Vec<Scored> {
        match self {
            Self::Achieved(_) => rows,
            Self::Near(_) => self.good(&rows, setting, ric),
        }
    }

    /// What is good of rows: it is kept from the first online round on.
    fn good(&self, rows: &[Scored], setting: &Setting, ric: &RicConfig) -> Vec<Scored> {
        match self {
            Self::Achieved(_) => best(rows, setting, ric.quantile),
            Self::Near(weights) => {
                let utility =
                    |r: &Scored| setting.steered.iter().map(|&i| setting.objectives[i].utility(r.expected[i])).collect();
                let utilities: Vec<Vec<f64>> = rows.iter().map(utility).collect();
                let direction: Vec<f64> = setting.steered.iter().map(|&i| weights[i]).collect();
                let count = ((ric.near_share * rows.len() as f64) as usize).max(1);
                near(&utilities, &direction, count).into_iter().map(|n| rows[n].clone()).collect()
            }
        }
    }
}

/// How long a round of training is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Length {
    Steps(usize),
    /// Until the whole stage has cost this many token passes.
    Passes(f64),
}

/// One round of training, with a cosine decay from `learning_rate`.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    pub length: Length,
    pub learning_rate: f64,
}

/// Where the training stands among its rounds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Place {
    round: usize,
    /// Steps that are done in it.
    within: usize,
    /// Token passes before its first step.
    begun: Exact,
}

impl Place {
    /// Steps of the round, as far as that is known when the stage has cost `spent` token passes; `each`: of one step, roughly, where
    /// none was made yet.
    fn steps(&self, length: Length, spent: f64, each: f64) -> usize {
        match length {
            Length::Steps(steps) => steps,
            Length::Passes(end) => {
                let each = if self.within == 0 { each } else { (spent - self.begun.0) / self.within as f64 };
                (self.within + ((end - spent) / each.max(1.0)).round().max(0.0) as usize).max(1)
            }
        }
    }
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
    (stage, part): (Stage, Option<Part>),
    rounds: &[Round],
    lesson: &Lesson,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Transformer<B>, Driver<'a, State>)> {
    let config = &job.config;
    let ric = &config.method.ric;
    let asked = match lesson {
        Lesson::Achieved(route) => serde_json::to_vec(route)?,
        Lesson::Near(weights) => serde_json::to_vec(weights)?,
    };
    let key = sha256(&[
        Cache::key("ric", &(&ready.reward_model.calibration.hash, &ready.origin, rounds, asked, config.seed))?.as_bytes(),
        &serde_json::to_vec(&config.method)?,
    ]);
    let seed = config.seed ^ 0x21C ^ part.as_ref().map_or(0, |p| (p.index as u64) << 32);
    // What several policies learn from is labelled once.
    let labels = part.as_ref().is_none_or(|p| p.index == 1);
    let rows = setting.corpus.known_texts();
    let each = 3.0 * config.method.ric.batch as f64 * (mean_tokens(rows) + 4.0);
    // Steps of this round, and those of the rounds after it.
    let ahead = |place: &Place, spent: f64| {
        let this = place.steps(rounds[place.round].length, spent, each);
        let mut end = spent + this.saturating_sub(place.within) as f64 * each;
        let later = rounds[place.round + 1..].iter().map(|r| {
            let steps = Place { begun: Exact(end), ..Default::default() }.steps(r.length, end, each);
            end += steps as f64 * each;
            steps
        });
        (this, later.sum::<usize>())
    };
    let (first, later) = ahead(&Place::default(), 0.0);
    let plan = Plan { stage, part, key, total: first + later, checkpoint_every: CHECKPOINT_EVERY, forked: None };
    let (mut driver, parts) = Driver::begin(job, plan, State::default(), progress)?;
    let left = |state: &State| {
        let (steps, later) = ahead(&state.place, state.trial.work.passes());
        steps.saturating_sub(state.place.within) + later
    };
    // What was estimated before the first step may be less than what a checkpoint has done.
    let known = left(&driver.state);
    driver.set_left(known);
    let mut trainee = Trainee::new(start, WEIGHT_DECAY, config.policy.max_gradient_norm);
    if let Some((model, optimizer)) = parts.and_then(|p| p.into_iter().next()) {
        trainee = trainee.from_bytes(model, optimizer, device)?;
    }
    // SFT's answers, which keep to their subject, as the reward model sees them where they have no labels. Made anew after a resumption,
    // which changes nothing.
    let pairs = rows.iter().map(|r| (r.question().to_vec(), r.tokens[r.answer..].to_vec()));
    let mut scored = score(setting, ready, pairs);
    scored.iter_mut().zip(rows).for_each(|(scored, row)| scored.labelled(&row.labels));
    let mut offline = lesson.first(scored, setting, ric);
    // Labelled answers of an off-the-shelf model are mostly of one kind: every class is to be asked for as often as any other.
    let labelled = rows.iter().any(|r| r.labels.iter().any(Option::is_some));
    let classes = (stage == Stage::PreferenceSft && labelled)
        .then(|| Classes::of(offline.iter().map(|r| r.classes.as_slice()), &setting.steered));
    if !std::mem::replace(&mut driver.state.labelled, true) && labels {
        driver.state.trial.work.forward_tokens += rows.iter().map(|r| r.tokens.len() as u64).sum::<u64>();
    }
    // From the first online round on, what is good of the old rows is trained on beside the new ones.
    let narrow = |rows: Vec<Scored>| match lesson {
        Lesson::Achieved(_) => lesson.good(&rows, setting, ric),
        Lesson::Near(_) => rows,
    };
    if driver.state.sampled > 0 {
        offline = narrow(offline);
    }
    let rehearsal = config.method.rehearsal.unwrap_or(0.0);
    let (mut sum, mut count) = (0.0, 0);
    while let Some(step) = driver.next(progress, || Ok(vec![trainee.to_bytes()?]))? {
        let Place { round, within, .. } = driver.state.place;
        let learning_rate = rounds[round].learning_rate;
        if round > driver.state.sampled {
            // Sample answers, and keep what is good of them, with what it achieved.
            let mut rng = stream(seed, stage, round);
            let policies = driver.part().map_or(1, |p| p.count);
            let count = (ric.online_samples / policies).max(1);
            let policy = trainee.model.valid();
            let sampled = sample(setting, ready, &policy, (lesson, count), config, &mut driver.state.trial, &mut rng)?;
            if driver.state.sampled == 0 {
                offline = narrow(offline);
            }
            let kept = lesson.good(&sampled, setting, ric);
            let (all, good, old) = (sampled.len(), kept.len(), offline.len());
            let text = format!("online round {round}: {good} of {all} answers are kept and trained on with {old} old ones");
            progress.emit(EventBody::Note { text });
            driver.state.online.extend(kept);
            driver.state.sampled = round;
        }
        let mut rng = stream(seed, stage, (round + 1) * 10_000_000 + within);
        let batch = (0..config.method.ric.batch)
            .map(|_| {
                if let Some(row) = rehearsed(setting.corpus.texts(), rehearsal, &mut rng) {
                    return Ok(row);
                }
                let (n, wish) = match &classes {
                    Some(classes) => classes.draw(&mut rng),
                    None => (rng.random_range(0..offline.len() + driver.state.online.len()), None),
                };
                let row = offline.get(n).unwrap_or_else(|| &driver.state.online[n - offline.len()]);
                match lesson {
                    Lesson::Achieved(route) => scored_prompt((row, wish), setting, route, config, &mut rng),
                    Lesson::Near(_) => Ok((setting.tokenizer.untagged_prompt(&row.asked), row.answer.as_slice())),
                }
            })
            .collect::<Result<Vec<(Vec<u32>, &[u32])>>>()?;
        let answered: usize = batch.iter().map(|(_, a)| a.len()).sum();
        let groups: Vec<Group> = batch.iter().map(|(p, a)| Group { prompt: p, answers: vec![a] }).collect();
        let read = groups.iter().map(|g| g.tokens() as u64).sum::<u64>();
        let (loss, grads, _) = gradients(&trainee.model, chunks::<B, _>(&groups, Group::tokens), |model, groups| {
            (model.answer_log_probs(&Packed::new(groups), 1.0).sum().neg() / answered as f32, ())
        });
        let (steps, _) = ahead(&driver.state.place, driver.state.trial.work.passes());
        driver.state.trial.work.training_tokens += read;
        (trainee, _) = trainee.step(grads, cosine(learning_rate, within, steps));
        (sum, count) = (sum + loss, count + 1);
        driver.state.place.within += 1;
        let spent = driver.state.trial.work.passes();
        let (steps, _) = ahead(&driver.state.place, spent);
        let known = left(&driver.state);
        let total = driver.set_left(known);
        let over = within + 1 >= steps;
        if (within + 1) % (total / 100).max(1) == 0 || over {
            driver.report_loss(step + 1, sum / f64::from(count), progress);
            (sum, count) = (0.0, 0);
        }
        if over && round + 1 < rounds.len() {
            driver.state.place = Place { round: round + 1, within: 0, begun: Exact(spent) };
        }
    }
    driver.state.trial.seconds = driver.seconds();
    Ok((trainee.model, driver))
}

/// Tokens of a row, on average.
pub fn mean_tokens(rows: &[Encoded]) -> f64 {
    rows.iter().map(|r| r.tokens.len() as f64).sum::<f64>() / rows.len().max(1) as f64
}

impl Scored {
    /// Takes the classes that people or rules have given in place of those that the reward model finds most probable.
    fn labelled(&mut self, labels: &[Option<usize>]) {
        self.classes.iter_mut().zip(labels).for_each(|(class, label)| *class = label.unwrap_or(*class));
    }
}

/// What the reward model says of answers to questions that are asked without a wish. `pairs`: a question's own tokens, and an answer's.
fn score<B: TrainBackend>(setting: &Setting, ready: &Ready<B>, pairs: impl Iterator<Item = (Vec<u32>, Vec<u32>)>) -> Vec<Scored> {
    let pairs: Vec<(Vec<u32>, Vec<u32>)> = pairs.collect();
    let ended: Vec<Vec<u32>> = pairs.iter().map(|(_, a)| ended_answer(a, setting.tokenizer.eos)).collect();
    let prompts: Vec<Vec<u32>> = pairs.iter().map(|(q, _)| setting.tokenizer.untagged_prompt(q)).collect();
    let groups: Vec<Group> = prompts.iter().zip(&ended).map(|(q, a)| Group { prompt: q, answers: vec![a] }).collect();
    let distributions = ready.reward_model.distributions(&groups);
    pairs
        .into_iter()
        .zip(distributions)
        .map(|((asked, answer), heads)| Scored {
            asked,
            answer,
            expected: heads.iter().map(|p| expected_class(p)).collect(),
            classes: heads.iter().map(|p| argmax(p)).collect(),
        })
        .collect()
}

/// A prompt with the scores that `row`'s answer achieved, for a random choice of objectives, as MOSLIM's prompts name a random
/// choice, and say it, in words too where they do; `wish` is named in any case. Combinations that are kept out of training are kept out here, too.
fn scored_prompt<'a>(
    (row, wish): (&'a Scored, Option<Wish>),
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
        if let Some(Wish { objective, alone }) = wish {
            if alone {
                preference = Preference::none(setting.objectives.len());
            }
            preference.0[objective] = Some(row.classes[objective]);
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
    let question = &row.asked;
    let prompt = match route {
        Route::Scores { mean, std } => {
            let z = |(i, t): (usize, &Option<usize>)| t.map(|_| (row.expected[i] - mean[i]) / std[i].max(1e-3));
            let scores: Vec<Option<f64>> = preference.0.iter().enumerate().map(z).collect();
            setting.tokenizer.scored_prompt(question, &scores)?
        }
        Route::Tags if config.targets.wording != TargetWording::Tags => {
            let targets = TargetSampler::new(config, &setting.objectives, std::iter::empty());
            setting.tokenizer.prompt(question, &preference, &targets.manner(rng))?
        }
        _ => route.prompt(question, &Ask::of(preference), &setting.tokenizer, &setting.objectives)?,
    };
    Ok((prompt, &row.answer))
}

/// Samples answers to random training questions; where prompts carry what is to be achieved, for near-Pareto goals that they can meet:
/// the best class of every objective but one, which gets a random class. Answers without end or without a word are dropped.
fn sample<B: TrainBackend>(
    setting: &Setting,
    ready: &Ready<B>,
    policy: &Transformer<B::InnerBackend>,
    (lesson, count): (&Lesson, usize),
    config: &RunConfig,
    trial: &mut Trial,
    rng: &mut StdRng,
) -> Result<Vec<Scored>> {
    let questions = &setting.corpus.train_questions;
    // Goals near the front are drawn whatever the frequency of the classes.
    let targets = TargetSampler::new(config, &setting.objectives, std::iter::empty());
    let mut asked = Vec::new();
    let mut prompts = Vec::new();
    for _ in 0..count {
        let question = &questions[rng.random_range(0..questions.len())];
        prompts.push(match lesson {
            Lesson::Achieved(route) => {
                let preference = targets.draw_near_front(&question.text, setting.gold.as_deref(), rng);
                route.prompt(&question.tokens, &Ask::of(preference), &setting.tokenizer, &setting.objectives)?
            }
            Lesson::Near(_) => setting.tokenizer.untagged_prompt(&question.tokens),
        });
        asked.push(question.tokens.clone());
    }
    let inputs: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: config.policy.max_new_tokens, seed: rng.random() };
    let answers = generate(policy, &inputs, 1, setting.tokenizer.eos, &sampling);
    trial.samples += answers.len() as u64;
    trial.tokens += answers.iter().map(|a| a.tokens.len() as u64).sum::<u64>();
    let around = setting.tokenizer.framing();
    let read: usize =
        prompts.iter().zip(&asked).zip(&answers).map(|((p, q), a)| p.len() + q.len() + around + 2 * a.tokens.len()).sum();
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

/// Positions of the `count` of `utilities` that are nearest to `direction`, by angle, among those of the first fronts: points that none
/// dominates, then those that none of the rest dominates, and so on until there are four times as many. Utilities are rounded to
/// tenths, so that noise makes no fronts.
fn near(utilities: &[Vec<f64>], direction: &[f64], count: usize) -> Vec<usize> {
    let rounded = |u: &Vec<f64>| u.iter().map(|x| (x * 10.0).round() as i64).collect::<Vec<i64>>();
    let mut places: BTreeMap<Vec<i64>, Vec<usize>> = BTreeMap::new();
    utilities.iter().enumerate().for_each(|(n, u)| places.entry(rounded(u)).or_default().push(n));
    let mut pool: Vec<usize> = Vec::new();
    while pool.len() < 4 * count && !places.is_empty() {
        let points: Vec<Vec<i64>> = places.keys().cloned().collect();
        let values: Vec<Vec<f64>> = points.iter().map(|p| p.iter().map(|&x| x as f64).collect()).collect();
        for n in front(&values) {
            pool.extend(places.remove(&points[n]).unwrap_or_default());
        }
    }
    let cosine = |n: &usize| {
        let (u, norm) = (&utilities[*n], |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt());
        let along: f64 = u.iter().zip(direction).map(|(a, b)| a * b).sum();
        along / (norm(u) * norm(direction)).max(1e-12)
    };
    pool.sort_by(|a, b| cosine(b).total_cmp(&cosine(a)).then(a.cmp(b)));
    pool.truncate(count);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_near_the_front_and_the_direction_are_taken() {
        let utilities = [[1.0, 0.1], [0.1, 1.0], [0.7, 0.7], [0.5, 0.5], [0.9, 0.2], [0.0, 0.0]].map(Vec::from);
        // The first front has three points; (0.5, 0.5) lies in the right direction and is dominated.
        assert_eq!(near(&utilities, &[0.5, 0.5], 1), [2]);
        assert_eq!(near(&utilities, &[1.0, 0.0], 1), [0]);
        assert_eq!(near(&utilities, &[0.0, 2.0], 1), [1]);
        // Where more are wanted, further fronts are opened.
        assert_eq!(near(&utilities, &[0.5, 0.5], 2), [2, 3]);
        assert_eq!(near(&utilities, &[1.0, 0.0], 9).len(), 6);
    }

    #[test]
    fn labels_go_before_what_the_reward_model_sees() {
        let mut row = Scored { asked: vec![7], answer: vec![8], expected: vec![0.4, 2.0], classes: vec![0, 2] };
        row.labelled(&[Some(1), None]);
        assert_eq!((row.classes, row.expected), (vec![1, 2], vec![0.4, 2.0]));
    }

    #[test]
    fn rounds_are_as_long_as_their_steps_or_their_passes() {
        let place = |within, begun| Place { round: 0, within, begun: Exact(begun) };
        assert_eq!(place(3, 0.0).steps(Length::Steps(10), 500.0, 100.0), 10);
        // Nothing is done yet: by the guess. Later: by what the steps have cost.
        assert_eq!(place(0, 200.0).steps(Length::Passes(1_200.0), 200.0, 100.0), 10);
        assert_eq!(place(4, 200.0).steps(Length::Passes(1_200.0), 1_000.0, 100.0), 5);
        assert_eq!(place(5, 200.0).steps(Length::Passes(1_200.0), 1_250.0, 100.0), 5);
    }
}
