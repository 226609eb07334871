//! A task's rows and questions as tokens, ready to be batched.

use super::Tokenizer;
use crate::data::{Row, Splits, TaskQuestion};
use crate::model::packed::Group;
use anyhow::Result;
use rand::Rng;
use rand::rngs::StdRng;
use rayon::prelude::*;
use std::ops::Range;

/// Of so many training questions, the rows of one are set aside where a reward model grades.
const JUDGING: usize = 3;

/// One row as tokens.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// A prompt that asks for nothing, the answer, and the end of the sequence.
    pub tokens: Vec<u32>,
    /// Where the answer begins.
    pub answer: usize,
    /// Where the question's own tokens are.
    pub question: Range<usize>,
    pub labels: Vec<Option<usize>>,
    /// As [`Row::part`].
    pub part: usize,
}

impl Encoded {
    /// The question's own tokens, without roles.
    pub fn question(&self) -> &[u32] {
        &self.tokens[self.question.clone()]
    }

    /// Question and answer.
    pub fn group(&self) -> Group<'_> {
        let (prompt, answer) = self.tokens.split_at(self.answer);
        Group { prompt, answers: vec![answer] }
    }
}

/// A question with its tokens.
#[derive(Debug, Clone)]
pub struct EncodedQuestion {
    pub text: String,
    pub tokens: Vec<u32>,
    /// As in [`TaskQuestion`].
    pub topic: usize,
    pub part: usize,
}

/// Everything that the stages read.
#[derive(Debug)]
pub struct Corpus {
    /// Training rows with labels: what reward models and everything after them learn from.
    pub train: Vec<Encoded>,
    /// Training rows set aside for a reward model that grades and is not optimised for; none where rules grade.
    pub judging: Vec<Encoded>,
    /// Training rows that SFT alone reads.
    text_only: Vec<Encoded>,
    pub validation: Vec<Encoded>,
    pub test: Vec<Encoded>,
    pub train_questions: Vec<EncodedQuestion>,
    pub validation_questions: Vec<EncodedQuestion>,
    pub test_questions: Vec<EncodedQuestion>,
    /// Names of the parts of the test split.
    pub parts: Vec<String>,
}

impl Corpus {
    /// Encodes all splits.
    pub fn new(splits: &Splits, tokenizer: &Tokenizer) -> Result<Self> {
        let rows = |rows: &[Row]| rows.par_iter().map(|r| encode_row(r, tokenizer)).collect::<Result<Vec<_>>>();
        let question = |q: &TaskQuestion| {
            Ok(EncodedQuestion { text: q.text.clone(), tokens: tokenizer.question(&q.text)?, topic: q.topic, part: q.part })
        };
        let questions = |questions: &[TaskQuestion]| questions.par_iter().map(question).collect::<Result<Vec<_>>>();
        Ok(Self {
            train: rows(&splits.train)?,
            judging: Vec::new(),
            text_only: rows(&splits.text_only)?,
            validation: rows(&splits.validation)?,
            test: rows(&splits.test)?,
            train_questions: questions(&splits.train_questions)?,
            validation_questions: questions(&splits.validation_questions)?,
            test_questions: questions(&splits.test_questions)?,
            parts: splits.parts.clone(),
        })
    }
}

impl Corpus {
    /// Takes rows to learn from, each with the position of its split: train, validation, test.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn learn(&mut self, rows: &[(usize, Row)], tokenizer: &Tokenizer) -> Result<()> {
        for (split, row) in rows {
            let row = encode_row(row, tokenizer)?;
            [&mut self.train, &mut self.validation, &mut self.test][(*split).min(2)].push(row);
        }
        Ok(())
    }

    /// Training rows that SFT learns from: those without labels, or all where every row has some.
    pub fn texts(&self) -> &[Encoded] {
        if self.text_only.is_empty() { &self.train } else { &self.text_only }
    }

    /// Those of them that may be trained on after SFT, too.
    pub fn known_texts(&self) -> &[Encoded] {
        let texts = self.texts();
        &texts[..texts.iter().take_while(|r| r.part == 0).count()]
    }

    /// Sets the rows of every [`JUDGING`]th training question aside. SFT reads them still.
    pub fn set_aside(&mut self) {
        if self.text_only.is_empty() {
            self.text_only.clone_from(&self.train);
        }
        let mut known: std::collections::HashMap<Vec<u32>, usize> = std::collections::HashMap::new();
        let numbers: Vec<usize> = self
            .train
            .iter()
            .map(|r| {
                let next = known.len();
                *known.entry(r.question().to_vec()).or_insert(next)
            })
            .collect();
        let mut numbers = numbers.into_iter();
        let own = |_: &mut Encoded| numbers.next().is_some_and(|n| n % JUDGING == JUDGING - 1);
        self.judging = self.train.extract_if(.., own).collect();
    }

    /// Leaves out rows longer than `row` tokens and questions longer than `question`. Returns how many rows and questions were there and
    /// are not any more.
    pub fn keep_within(&mut self, row: usize, question: usize) -> [usize; 2] {
        let mut left = [0; 2];
        for rows in [&mut self.train, &mut self.text_only, &mut self.validation, &mut self.test] {
            let before = rows.len();
            rows.retain(|r| r.tokens.len() <= row && r.question.len() <= question);
            left[0] += before - rows.len();
        }
        for questions in [&mut self.train_questions, &mut self.validation_questions, &mut self.test_questions] {
            let before = questions.len();
            questions.retain(|q| q.tokens.len() <= question);
            left[1] += before - questions.len();
        }
        left
    }

    /// Tokens of the longest row of any split.
    pub fn longest_row(&self) -> usize {
        [&self.train, &self.text_only, &self.validation, &self.test]
            .into_iter()
            .flatten()
            .map(|r| r.tokens.len())
            .max()
            .unwrap_or(0)
    }

    /// Tokens of the longest question, without roles and tags.
    pub fn longest_question(&self) -> usize {
        let all = [&self.train_questions, &self.validation_questions, &self.test_questions];
        all.into_iter().flatten().map(|q| q.tokens.len()).max().unwrap_or(0)
    }
}

fn encode_row(row: &Row, tokenizer: &Tokenizer) -> Result<Encoded> {
    let question = tokenizer.question(&row.question)?;
    let mut tokens = tokenizer.untagged_prompt(&question);
    let answer = tokens.len();
    let from = tokenizer.before_question();
    let question = from..from + question.len();
    tokens.extend(tokenizer.encode(&row.answer)?);
    tokens.push(tokenizer.eos);
    Ok(Encoded { tokens, answer, question, labels: row.labels.clone(), part: row.part })
}

/// Rows that answer the same question, for every question with at least two.
pub fn siblings(rows: &[Encoded]) -> Vec<Vec<usize>> {
    let mut place: std::collections::HashMap<&[u32], usize> = std::collections::HashMap::new();
    let mut out: Vec<Vec<usize>> = Vec::new();
    for (n, row) in rows.iter().enumerate() {
        let group = *place.entry(&row.tokens[..row.answer]).or_insert_with(|| {
            out.push(Vec::new());
            out.len() - 1
        });
        out[group].push(n);
    }
    out.retain(|group| group.len() >= 2);
    out
}

/// A training batch of pairs of answers to one question: rows 2n and 2n + 1 belong together. `siblings` must not be empty.
pub fn batch_pairs<'a>(rows: &'a [Encoded], siblings: &[Vec<usize>], batch: usize, rng: &mut StdRng) -> Vec<&'a Encoded> {
    (0..batch / 2)
        .flat_map(|_| {
            let group = &siblings[rng.random_range(0..siblings.len())];
            let first = rng.random_range(0..group.len());
            let second = (first + rng.random_range(1..group.len())) % group.len();
            [&rows[group[first]], &rows[group[second]]]
        })
        .collect()
}

/// Rows of a training batch, drawn at random with replacement.
pub fn batch_rows<'a>(rows: &'a [Encoded], batch: usize, rng: &mut StdRng) -> Vec<&'a Encoded> {
    (0..batch).map(|_| &rows[rng.random_range(0..rows.len())]).collect()
}
