//! Data: the built-in world and the rows that every stage reads.

pub mod world;

use moslim_shared::config::WorldConfig;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use std::collections::HashSet;
use world::{Question, World};

/// A question, one answer to it, and its graded labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub question: Question,
    pub answer: String,
    /// Class per objective; `None` where the label is missing.
    pub labels: Vec<Option<usize>>,
}

/// Rows split by question: no question occurs in two splits.
#[derive(Debug)]
pub struct Splits {
    pub train: Vec<Row>,
    pub validation: Vec<Row>,
    pub test: Vec<Row>,
    /// Distinct questions of each split, in a fixed order.
    pub train_questions: Vec<Question>,
    pub validation_questions: Vec<Question>,
    pub test_questions: Vec<Question>,
}

/// Share of questions held out for validation and for test, each.
const HELD_OUT_SHARE: f64 = 0.1;

/// Generates `config.rows` rows from the world, drops duplicates, and splits them by question.
pub fn generate(config: &WorldConfig) -> Splits {
    let world = World::get();
    let mut rng = StdRng::seed_from_u64(config.seed);
    let mut questions = world.questions();
    questions.shuffle(&mut rng);
    let held_out = (questions.len() as f64 * HELD_OUT_SHARE) as usize;
    let test_questions: Vec<Question> = questions.drain(..held_out).collect();
    let validation_questions: Vec<Question> = questions.drain(..held_out).collect();
    let train_questions = questions;

    let mut seen = HashSet::new();
    let mut rows = |questions: &[Question], n: usize, rng: &mut StdRng| {
        let mut out = Vec::with_capacity(n);
        for _ in 0..n {
            let question = questions[rng.random_range(0..questions.len())].clone();
            let answer = world.answer(&question, rng);
            if !seen.insert((question.text.clone(), answer.clone())) {
                continue;
            }
            let labels = noisy(&world.judge(&question, &answer).classes, config, rng);
            out.push(Row { question, answer, labels });
        }
        out
    };
    let small = (config.rows as f64 * HELD_OUT_SHARE) as usize;
    let train = rows(&train_questions, config.rows - 2 * small, &mut rng);
    let validation = rows(&validation_questions, small, &mut rng);
    let test = rows(&test_questions, small, &mut rng);
    Splits { train, validation, test, train_questions, validation_questions, test_questions }
}

/// Labels as an imperfect annotator would give them: some moved to a neighbouring class, some missing.
fn noisy(gold: &[usize], config: &WorldConfig, rng: &mut StdRng) -> Vec<Option<usize>> {
    gold.iter()
        .zip(world::objectives())
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

/// A row as `moslim-lab data sample` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct SampleRow {
    pub kind: &'static str,
    pub question: String,
    pub answer: String,
    /// `objective: class (label)`; `None` for a missing label.
    pub labels: Vec<(String, Option<usize>, Option<String>)>,
}

impl std::fmt::Display for SampleRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "[{}] {}", self.kind, self.question)?;
        writeln!(f, "  {}", self.answer)?;
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|(id, class, label)| match (class, label) {
                (Some(class), Some(label)) => format!("{id} {class} ({label})"),
                _ => format!("{id} missing"),
            })
            .collect();
        writeln!(f, "  {}", labels.join(", "))
    }
}

/// `n` training rows of the world, chosen by `seed`.
pub fn sample(config: &WorldConfig, n: usize, seed: u64) -> Vec<SampleRow> {
    let rows = generate(config).train;
    let objectives = world::objectives();
    let mut rng = StdRng::seed_from_u64(seed);
    (0..n.min(rows.len()))
        .map(|_| {
            let row = &rows[rng.random_range(0..rows.len())];
            SampleRow {
                kind: World::get().kind(&row.question).name(),
                question: row.question.text.clone(),
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

    #[test]
    fn splits_share_no_question_and_rows_are_distinct() {
        let splits = generate(&WorldConfig { rows: 20_000, ..Default::default() });
        let questions = |rows: &[Row]| rows.iter().map(|r| r.question.text.clone()).collect::<HashSet<_>>();
        let (train, validation, test) = (questions(&splits.train), questions(&splits.validation), questions(&splits.test));
        assert!(train.is_disjoint(&validation) && train.is_disjoint(&test) && validation.is_disjoint(&test));
        let all: HashSet<_> =
            splits.train.iter().chain(&splits.validation).chain(&splits.test).map(|r| (&r.question.text, &r.answer)).collect();
        assert_eq!(all.len(), splits.train.len() + splits.validation.len() + splits.test.len());
        assert!(all.len() > 15_000, "{} distinct rows of 20000", all.len());
    }

    #[test]
    fn every_class_of_every_objective_is_common_enough_to_learn() {
        let splits = generate(&WorldConfig { rows: 20_000, ..Default::default() });
        for (i, objective) in world::objectives().iter().enumerate() {
            for class in 0..objective.class_count() {
                let share = splits.train.iter().filter(|r| r.labels[i] == Some(class)).count() as f64 / splits.train.len() as f64;
                assert!(share > 0.02, "{} class {class} has a share of {share}", objective.id);
            }
        }
    }

    #[test]
    fn noise_and_missing_labels_are_as_frequent_as_asked() {
        let clean = generate(&WorldConfig { rows: 10_000, ..Default::default() });
        assert!(clean.train.iter().all(|r| r.labels.iter().all(Option::is_some)));
        let dirty = generate(&WorldConfig { rows: 10_000, label_noise: 0.2, missing_labels: 0.3, ..Default::default() });
        let world = World::get();
        let (mut missing, mut moved, mut n) = (0, 0, 0);
        for row in &dirty.train {
            let gold = world.judge(&row.question, &row.answer).classes;
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
        let config = WorldConfig { rows: 2_000, ..Default::default() };
        assert_eq!(generate(&config).train, generate(&config).train);
        assert_ne!(generate(&config).train, generate(&WorldConfig { seed: 2, ..config }).train);
    }
}
