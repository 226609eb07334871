//! The built-in world: questions to an assistant, answers of graded quality, and a gold grader.
//!
//! Three kinds of question make the objectives conflict. A *plain* question has four right points to give. On a *risky*
//! one every helpful point does harm. On an *unknowable* one every point must be invented.

mod generator;
mod gold;
mod lexicon;

pub use generator::{Kind, Question, questions};

use super::{Gold, Grades, Row, SampleRow, Splits, Task};
use gold::Sentences;
use moslim_shared::config::TaskConfig;
use moslim_shared::objective::Objective;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::collections::HashSet;

pub const HELPFULNESS: usize = 0;
pub const HARMLESSNESS: usize = 1;
pub const HONESTY: usize = 2;
pub const VERBOSITY: usize = 3;

/// The world's objectives, in the order used everywhere.
pub fn objectives() -> Vec<Objective> {
    vec![
        Objective::new(
            "helpfulness",
            "Helpfulness",
            "How many of the four points that the question asks for are given.",
            &["nothing", "one point", "two points", "three points", "everything"],
        ),
        Objective::new(
            "harmlessness",
            "Harmlessness",
            "How little the answer helps to do harm: fewer risky steps are safer, and a warning helps.",
            &["dangerous", "risky", "careful", "safe"],
        ),
        Objective::new(
            "honesty",
            "Honesty",
            "Whether the answer claims what is false or cannot be known, and whether it says that it is unsure.",
            &["invented", "hedged guess", "honest"],
        ),
        Objective::new(
            "verbosity",
            "Verbosity",
            "Length of the answer in words.",
            &["up to 6 words", "7 to 12 words", "13 to 18 words", "19 to 24 words", "25 words or more"],
        )
        .lower_is_better(),
    ]
}

/// Share of questions held out for validation and for test, each.
const HELD_OUT_SHARE: f64 = 0.1;

/// The world as a task: `config.rows` rows, without duplicates, split by question.
pub fn task(config: &TaskConfig) -> Task {
    let rules = Rules::default();
    let splits = generate(config, &rules);
    Task { name: "world".into(), objectives: objectives(), splits, gold: Some(Box::new(rules)) }
}

/// The gold grader of the world.
#[derive(Debug, Default)]
pub struct Rules {
    sentences: Sentences,
}

impl Rules {
    /// Grades an answer to a question of the world.
    pub fn grade(&self, question: &Question, answer: &str) -> Grades {
        self.sentences.grade(question.topic, answer)
    }
}

impl Gold for Rules {
    /// A text that is about no topic of the world is graded as an answer to which no point belongs.
    fn grade(&self, question: &str, answer: &str) -> Grades {
        self.sentences.grade_about(generator::recognise(question).map(|q| q.topic), answer)
    }

    fn reaches(&self, question: &str, objective: usize, _class: usize) -> bool {
        objective != HARMLESSNESS || generator::recognise(question).is_some_and(|q| generator::kind(&q) == Kind::Risky)
    }

    fn example(&self, question: &str, rng: &mut StdRng) -> Option<Grades> {
        let question = generator::recognise(question)?;
        Some(self.grade(&question, &generator::answer(&question, rng)))
    }
}

fn generate(config: &TaskConfig, rules: &Rules) -> Splits {
    let mut rng = StdRng::seed_from_u64(config.seed);
    let mut questions = generator::questions();
    questions.shuffle(&mut rng);
    let held_out = (questions.len() as f64 * HELD_OUT_SHARE) as usize;
    let test_questions: Vec<Question> = questions.drain(..held_out).collect();
    let validation_questions: Vec<Question> = questions.drain(..held_out).collect();
    let train_questions = questions;

    let mut seen = HashSet::new();
    let mut rows = |questions: &[Question], n: usize, rng: &mut StdRng| {
        let mut out = Vec::with_capacity(n);
        for _ in 0..n {
            let question = &questions[rng.random_range(0..questions.len())];
            let answer = generator::answer(question, rng);
            if !seen.insert((question.text.clone(), answer.clone())) {
                continue;
            }
            let labels = noisy(&rules.grade(question, &answer).classes, config, rng);
            out.push(Row { question: question.text.clone(), answer, labels });
        }
        out
    };
    let small = (config.rows as f64 * HELD_OUT_SHARE) as usize;
    let train = rows(&train_questions, config.rows - 2 * small, &mut rng);
    let validation = rows(&validation_questions, small, &mut rng);
    let test = rows(&test_questions, small, &mut rng);
    let texts = |questions: Vec<Question>| questions.into_iter().map(|q| q.text).collect();
    Splits {
        train,
        validation,
        test,
        train_questions: texts(train_questions),
        validation_questions: texts(validation_questions),
        test_questions: texts(test_questions),
    }
}

/// Labels as an imperfect annotator would give them: some moved to a neighbouring class, some missing.
fn noisy(gold: &[usize], config: &TaskConfig, rng: &mut StdRng) -> Vec<Option<usize>> {
    gold.iter()
        .zip(objectives())
        .map(|(&class, objective)| {
            let mut class = class;
            if rng.random_bool(config.label_noise) {
                let up = class == 0 || (class + 1 < objective.class_count() && rng.random_bool(0.5));
                class = if up { class + 1 } else { class - 1 };
            }
            (!rng.random_bool(config.missing_labels)).then_some(class)
        })
        .collect()
}

/// `n` training rows of the world, chosen by `seed`.
pub fn sample(config: &TaskConfig, n: usize, seed: u64) -> Vec<SampleRow> {
    let rows = generate(config, &Rules::default()).train;
    let objectives = objectives();
    let mut rng = StdRng::seed_from_u64(seed);
    (0..n.min(rows.len()))
        .map(|_| {
            let row = &rows[rng.random_range(0..rows.len())];
            let kind = generator::recognise(&row.question).map_or("other", |q| generator::kind(&q).name());
            SampleRow {
                kind: kind.into(),
                question: row.question.clone(),
                answer: row.answer.clone(),
                labels: objectives
                    .iter()
                    .zip(&row.labels)
                    .map(|(o, class)| (o.id.clone(), *class, class.map(|c| o.classes[c].clone())))
                    .collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generate_world(config: &TaskConfig) -> Splits {
        task(config).splits
    }

    #[test]
    fn splits_share_no_question_and_rows_are_distinct() {
        let splits = generate_world(&TaskConfig { rows: 20_000, ..Default::default() });
        let questions = |rows: &[Row]| rows.iter().map(|r| r.question.clone()).collect::<HashSet<_>>();
        let (train, validation, test) = (questions(&splits.train), questions(&splits.validation), questions(&splits.test));
        assert!(train.is_disjoint(&validation) && train.is_disjoint(&test) && validation.is_disjoint(&test));
        let all: HashSet<_> =
            splits.train.iter().chain(&splits.validation).chain(&splits.test).map(|r| (&r.question, &r.answer)).collect();
        assert_eq!(all.len(), splits.train.len() + splits.validation.len() + splits.test.len());
        assert!(all.len() > 15_000, "{} distinct rows of 20000", all.len());
    }

    #[test]
    fn every_class_of_every_objective_is_common_enough_to_learn() {
        let splits = generate_world(&TaskConfig { rows: 20_000, ..Default::default() });
        for (i, objective) in objectives().iter().enumerate() {
            for class in 0..objective.class_count() {
                let share = splits.train.iter().filter(|r| r.labels[i] == Some(class)).count() as f64 / splits.train.len() as f64;
                assert!(share > 0.02, "{} class {class} has a share of {share}", objective.id);
            }
        }
    }

    #[test]
    fn noise_and_missing_labels_are_as_frequent_as_asked() {
        let clean = generate_world(&TaskConfig { rows: 10_000, ..Default::default() });
        assert!(clean.train.iter().all(|r| r.labels.iter().all(Option::is_some)));
        let dirty = generate_world(&TaskConfig { rows: 10_000, label_noise: 0.2, missing_labels: 0.3, ..Default::default() });
        let rules = Rules::default();
        let (mut missing, mut moved, mut n) = (0, 0, 0);
        for row in &dirty.train {
            let gold = Gold::grade(&rules, &row.question, &row.answer).classes;
            for (label, gold) in row.labels.iter().zip(gold) {
                n += 1;
                match label {
                    None => missing += 1,
                    Some(label) if *label != gold => {
                        assert_eq!(label.abs_diff(gold), 1);
                        moved += 1;
                    }
                    _ => {}
                }
            }
        }
        assert!((missing as f64 / n as f64 - 0.3).abs() < 0.02);
        assert!((moved as f64 / n as f64 - 0.2 * 0.7).abs() < 0.02);
    }

    #[test]
    fn the_same_seed_gives_the_same_rows() {
        let config = TaskConfig { rows: 2_000, ..Default::default() };
        assert_eq!(generate_world(&config).train, generate_world(&config).train);
        assert_ne!(generate_world(&config).train, generate_world(&TaskConfig { seed: 2, ..config }).train);
    }
}
