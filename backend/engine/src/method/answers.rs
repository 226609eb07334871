//! What the reward model of an off-the-shelf model learns from: answers of the model's own, sampled under varied wishes and graded by
//! rules.

use super::driver::{Driver, Plan, from_cache};
use super::setting::Setting;
use crate::data::Row;
use crate::keep::Job;
use crate::keep::cache::{Cache, Entry};
use crate::model::TrainBackend;
use crate::model::generate::{Sampling, generate};
use crate::model::kernels::Kernels;
use crate::model::transformer::Transformer;
use crate::progress::{Progress, Unfit, stream};
use crate::text::{Manner, Said};
use anyhow::{Context, Result};
use moslim_shared::event::{EventBody, Stage};
use moslim_shared::preference::Preference;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use web_time::Instant;

/// Prompts that are answered in one step: so few that a person sees it move, so many that a GPU is busy.
const fn together<B: Kernels>() -> usize {
    if B::THREADED { 32 } else { 256 }
}

/// Of ten answers, one is to a validation question and one to a test question.
const TENTHS: usize = 10;
/// Share of the prompts that wish for nothing.
const PLAIN_SHARE: f64 = 0.2;

/// Rows to learn from: answers of the model to questions of every split, under wishes in words that are drawn at random, with the
/// labels that the rules give. The wishes are not kept: a row is a question, an answer and its classes. Returns the seconds.
///
/// # Errors
/// When the task has no rules, when it is stopped, or a file cannot be read or written.
pub fn answers<B: TrainBackend>(
    job: &Job,
    setting: &mut Setting,
    (trunk, key): (&Transformer<B::InnerBackend>, &str),
    device_name: &str,
    progress: &mut Progress,
) -> Result<f64> {
    let c = &job.config;
    let Some(gold) = setting.gold.as_deref() else {
        return Err(Unfit(format!("task.kind: {} has neither rows nor rules to grade answers", setting.task.name)).into());
    };
    let together = together::<B>();
    let total = c.task.rows.div_ceil(together);
    let inputs =
        (&setting.task.fingerprint, key, c.task.rows, c.task.seed, c.base.temperature, c.policy.max_new_tokens, device_name);
    let plan = Plan {
        stage: Stage::Answers,
        part: None,
        key: Cache::key("answers", &inputs)?,
        total,
        checkpoint_every: (total / 10).max(1),
    };
    let began = Instant::now();
    if let Some((_, rows)) = setting.cache.load_sound(&plan.key, progress)? {
        setting.corpus.learn(&from_bytes(&rows)?, &setting.tokenizer)?;
        return Ok(from_cache(Stage::Answers, None, total, began, progress, None));
    }
    let key = plan.key.clone();
    let (mut driver, _) = Driver::begin(job, plan, Vec::<(usize, Row)>::new(), progress)?;
    let corpus = &setting.corpus;
    let splits = [&corpus.train_questions, &corpus.validation_questions, &corpus.test_questions];
    while let Some(step) = driver.next(progress, || Ok(Vec::new()))? {
        let rng = &mut stream(c.task.seed, Stage::Answers, step);
        let mut asked = Vec::with_capacity(together);
        let mut prompts = Vec::with_capacity(together);
        for n in 0..together.min(c.task.rows - step * together) {
            let split = (n % TENTHS).saturating_sub(TENTHS - splits.len());
            let question = &splits[split][rng.random_range(0..splits[split].len())];
            let (preference, manner) = wish(setting, rng);
            prompts.push(setting.tokenizer.prompt(&question.tokens, &preference, &manner)?);
            asked.push((split, question));
        }
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let sampling =
            Sampling { temperature: c.base.temperature, top_p: 1.0, max_new_tokens: c.policy.max_new_tokens, seed: rng.random() };
        for (answer, (split, question)) in generate(trunk, &prompts, 1, setting.tokenizer.eos, &sampling).iter().zip(asked) {
            let answer = setting.tokenizer.decode(&answer.tokens)?.trim().to_string();
            if !answer.is_empty() {
                let labels = gold.grade(&question.text, &answer).classes.into_iter().map(Some).collect();
                driver.state.push((split, Row { question: question.text.clone(), answer, labels, part: question.part }));
            }
        }
        progress.emit(EventBody::Answering { done: ((step + 1) * together).min(c.task.rows), total: c.task.rows });
    }
    let rows = std::mem::take(&mut driver.state);
    let entry = Entry { seconds: driver.seconds(), ..Default::default() };
    setting.cache.save(&key, &entry, &serde_json::to_vec(&rows)?)?;
    setting.corpus.learn(&rows, &setting.tokenizer)?;
    Ok(driver.end(progress))
}

fn from_bytes(bytes: &[u8]) -> Result<Vec<(usize, Row)>> {
    serde_json::from_slice(bytes).context("reading the answers to learn from")
}

/// What a prompt wishes for, in one of the wordings that training may use.
fn wish(setting: &Setting, rng: &mut StdRng) -> (Preference, Manner) {
    let objectives = &setting.objectives;
    let mut preference = Preference::none(objectives.len());
    if !rng.random_bool(PLAIN_SHARE) {
        for (asked, objective) in preference.0.iter_mut().zip(objectives) {
            if rng.random_bool(0.5) {
                *asked = Some(rng.random_range(0..objective.class_count()));
            }
        }
    }
    let mut manner = Manner::plain(objectives.len());
    manner.order.shuffle(rng);
    let wordings = objectives.iter().map(|o| o.trained_wordings()).min().unwrap_or(1);
    manner.said = Said::Words(rng.random_range(0..wordings));
    (preference, manner)
}
