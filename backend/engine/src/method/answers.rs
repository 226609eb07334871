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
use crate::text::corpus::EncodedQuestion;
use anyhow::{Context, Result};
use moslim_shared::event::{EventBody, Stage};
use moslim_shared::objective::Objective;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use web_time::Instant;

/// Prompts that are answered in one step: so few that a person sees it move, so many that a GPU is busy.
const fn together<B: Kernels>() -> usize {
    if B::THREADED { 32 } else { 256 }
}

/// Of ten answers, one is to a validation question and one to a test question.
const TENTHS: usize = 10;
/// Share of the prompts that wish for nothing.
const PLAIN_SHARE: f64 = 0.15;
/// Share of the others that wish for two things at once. A small model hardly follows more.
const TWO_SHARE: f64 = 0.5;
/// Share of the wishes that an example stands before, where one has what is wished for.
const SHOWN_SHARE: f64 = 0.7;
/// Names the way in which wishes are drawn, for keys of the cache.
const WISHES: &str = "rare classes first, examples, whole sentences";

/// Rows to learn from: answers of the model to questions of every split, under wishes in words, with the labels that the rules give.
/// Classes that are rare so far are wished for more often, so that every head sees each of its own. Wishes and examples are not kept: a row
/// is a question, an answer and its classes. Returns the seconds.
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
    let examples = gold.demonstrations();
    let about = (&setting.task.fingerprint, key, c.task.rows, c.task.seed, device_name, c.base.wishes);
    let inputs = (about, c.base.temperature, c.policy.max_new_tokens, WISHES, &examples);
    let plan = Plan {
        stage: Stage::Answers,
        part: None,
        key: Cache::key("answers", &inputs)?,
        total,
        checkpoint_every: (total / 10).max(1),
        forked: None,
    };
    let began = Instant::now();
    if let Some((_, rows)) = setting.cache.load_sound(&plan.key, progress)? {
        setting.corpus.learn(&from_bytes(&rows)?, &setting.tokenizer)?;
        return Ok(from_cache(Stage::Answers, None, total, began, progress, None));
    }
    let key = plan.key.clone();
    let (mut driver, _) = Driver::begin(job, plan, Vec::<(usize, Row)>::new(), progress)?;
    let corpus = &setting.corpus;
    let shown = |(question, answer): &(&'static str, &'static str)| Shown {
        question,
        answer,
        classes: gold.grade(question, answer).classes,
    };
    let shown: Vec<Shown> = examples.iter().map(shown).collect();
    let splits = [&corpus.train_questions, &corpus.validation_questions, &corpus.test_questions];
    while let Some(step) = driver.next(progress, || Ok(Vec::new()))? {
        let rng = &mut stream(c.task.seed, Stage::Answers, step);
        let rarity = rarity(&setting.objectives, driver.state.iter().map(|(_, row)| row.labels.as_slice()));
        let mut asked = Vec::with_capacity(together);
        let mut prompts = Vec::with_capacity(together);
        for n in 0..together.min(c.task.rows - step * together) {
            let split = (n % TENTHS).saturating_sub(TENTHS - splits.len());
            let question = &splits[split][rng.random_range(0..splits[split].len())];
            prompts.push(prompt(setting, question, (&rarity, &shown), rng)?);
            asked.push((split, question));
        }
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let sampling =
            Sampling { temperature: c.base.temperature, top_p: 1.0, max_new_tokens: c.policy.max_new_tokens, seed: rng.random() };
        for (answer, (split, question)) in generate(trunk, &prompts, 1, setting.tokenizer.eos, &sampling).iter().zip(asked) {
            let text = setting.tokenizer.decode(&answer.tokens)?;
            let text = text.trim();
            let answer = (if answer.ended { text } else { whole_sentences(text) }).to_string();
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

/// The text up to its last sentence or line that is whole; all of it where none is. What was cut off in the middle is no answer that
/// anybody should learn to give.
fn whole_sentences(text: &str) -> &str {
    let end = text.char_indices().rfind(|&(at, c)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + c.len_utf8()..].chars().next());
        // "1." begins an item of a list.
        let stop = matches!(c, '.' | '!' | '?') && !before.is_some_and(|b| b.is_ascii_digit());
        c == '\n' || stop && after.is_none_or(char::is_whitespace)
    });
    end.map_or(text, |(at, c)| text[..at + c.len_utf8()].trim_end())
}

/// Weight with which every class is wished for, `[objective][class]`: one over the answers that have it so far, and one more.
fn rarity<'a>(objectives: &[Objective], rows: impl Iterator<Item = &'a [Option<usize>]>) -> Vec<Vec<f64>> {
    let mut counts: Vec<Vec<f64>> = objectives.iter().map(|o| vec![1.0; o.class_count()]).collect();
    for labels in rows {
        counts.iter_mut().zip(labels).filter_map(|(c, l)| l.map(|l| &mut c[l])).for_each(|c| *c += 1.0);
    }
    counts.into_iter().map(|c| c.into_iter().map(f64::recip).collect()).collect()
}

/// An answer that rules have graded, to be shown to a model.
struct Shown {
    question: &'static str,
    answer: &'static str,
    classes: Vec<usize>,
}

/// A prompt that asks a question and wishes for one or two things or none, in one of the wordings that training may use: where
/// preferences stand, or behind the question, on its line. Before it, often, stands an answer to another question that has what is wished
/// for, or as much of it as any has: small models follow an example better than words.
fn prompt(
    setting: &Setting,
    question: &EncodedQuestion,
    (rarity, shown): (&[Vec<f64>], &[Shown]),
    rng: &mut StdRng,
) -> Result<Vec<u32>> {
    let wishes = match rng.random_bool(PLAIN_SHARE) {
        true => 0,
        false => 1 + usize::from(rng.random_bool(TWO_SHARE)),
    };
    let positions: Vec<usize> = (0..rarity.len()).collect();
    let wished: Vec<(usize, usize)> = positions
        .choose_multiple(rng, wishes)
        .map(|&i| {
            let classes: Vec<usize> = (0..rarity[i].len()).collect();
            (i, classes.choose_weighted(rng, |&c| rarity[i][c]).copied().unwrap_or(0))
        })
        .collect();
    let said = |&(i, class): &(usize, usize)| {
        let objective = &setting.objectives[i];
        objective.said(class, rng.random_range(0..objective.trained_wordings()))
    };
    let words = wished.iter().map(said).collect::<Vec<_>>().join(" ");
    let met = |s: &Shown| wished.iter().filter(|&&(i, class)| s.classes[i] == class).count();
    let most = shown.iter().map(met).max().unwrap_or(0);
    let fit: Vec<&Shown> = shown.iter().filter(|s| met(s) == most).collect();
    let example = fit.choose(rng).filter(|_| most > 0 && rng.random_bool(SHOWN_SHARE));
    let (tokenizer, apart) = (&setting.tokenizer, rng.random_bool(0.5));
    let mut last = question.text.clone();
    if !apart && !words.is_empty() {
        last = format!("{last} {words}");
    }
    let asked = match example {
        Some(s) => format!("\n\nHuman: {}\n\nAssistant: {}\n\nHuman: {last}", s.question, s.answer),
        None => last,
    };
    let asked = tokenizer.question(&asked)?;
    if apart && !words.is_empty() { tokenizer.prompt_after(&words, &asked) } else { Ok(tokenizer.untagged_prompt(&asked)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_were_cut_off_end_with_a_sentence() {
        for (text, whole) in [
            ("Boil it. Then add", "Boil it."),
            ("Is it hot? Then wait! Add 2.5 spoons of", "Is it hot? Then wait!"),
            ("Do this:\n1. Boil it.\n2. Add", "Do this:\n1. Boil it."),
            ("Boil water\nand add", "Boil water"),
            ("Boil the wat", "Boil the wat"),
            ("Boil it.", "Boil it."),
        ] {
            assert_eq!(whole_sentences(text), whole);
        }
    }

    #[test]
    fn what_is_rare_is_wished_for_more() {
        let objectives = [Objective::new("a", "A", "", &["x", "y"]), Objective::new("b", "B", "", &["x", "y", "z"])];
        let rows: [&[Option<usize>]; 3] = [&[Some(0), Some(2)], &[Some(0), None], &[Some(0), Some(2)]];
        assert_eq!(rarity(&objectives, rows.into_iter()), [vec![0.25, 1.0], vec![1.0, 1.0, 1.0 / 3.0]]);
    }
}
