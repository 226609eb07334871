//! A task's rows and questions as tokens, ready to be batched.

use super::Tokenizer;
use crate::data::{Row, Splits, TaskQuestion};
use crate::model::packed::Group;
use anyhow::Result;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::seq::index::sample;
use rayon::prelude::*;
use std::collections::HashMap;
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
    let mut out = by_prompt(rows.iter());
    out.retain(|group| group.len() >= 2);
    out
}

/// Rows that answer the same question, for every question, in the order in which they come first.
fn by_prompt<'a>(rows: impl Iterator<Item = &'a Encoded>) -> Vec<Vec<usize>> {
    let mut place: HashMap<&[u32], usize> = HashMap::new();
    let mut out: Vec<Vec<usize>> = Vec::new();
    for (n, row) in rows.enumerate() {
        let group = *place.entry(&row.tokens[..row.answer]).or_insert_with(|| {
            out.push(Vec::new());
            out.len() - 1
        });
        out[group].push(n);
    }
    out
}

/// Most answers that share one reading of their prompt: a group is never cut, and pieces are to stay small.
const MOST_TOGETHER: usize = 32;

/// Lays out `rows` so that answers to one prompt share its reading; prompts in the order in which they come first. Also returns
/// whose row each answer is: the n-th answer of all groups is that of `rows[order[n]]`.
pub fn together<'a>(rows: &[&'a Encoded]) -> (Vec<Group<'a>>, Vec<usize>) {
    let all = by_prompt(rows.iter().copied());
    let parts: Vec<&[usize]> = all.iter().flat_map(|group| group.chunks(MOST_TOGETHER)).collect();
    let group = |part: &&[usize]| {
        let first = rows[part[0]];
        Group {
            prompt: &first.tokens[..first.answer],
            answers: part.iter().map(|&n| &rows[n].tokens[rows[n].answer..]).collect(),
        }
    };
    (parts.iter().map(group).collect(), parts.concat())
}

/// How the rows of a training batch are drawn. A unit is what must stay together in one piece: rows that answer one prompt.
#[derive(Debug)]
pub enum Draw {
    /// Rows at random, with replacement.
    Rows,
    /// Pairs of answers to one prompt. Holds [`siblings`], which must not be none.
    Pairs(Vec<Vec<usize>>),
    /// A row at random, and `each - 1` further answers to its prompt, or as many as there are: they cost one reading of the prompt
    /// (as Ouyang et al. 2022, section 3.4, take all pairs of a prompt at once). `groups`: rows by their prompt; `of[n]`: the group of
    /// row n.
    Prompts { groups: Vec<Vec<usize>>, of: Vec<usize>, each: usize },
}

impl Draw {
    /// `each` answers of a prompt together; 1: rows.
    pub fn prompts(rows: &[Encoded], each: usize) -> Self {
        if each <= 1 {
            return Self::Rows;
        }
        let groups = by_prompt(rows.iter());
        let mut of = vec![0; rows.len()];
        for (g, group) in groups.iter().enumerate() {
            group.iter().for_each(|&row| of[row] = g);
        }
        Self::Prompts { groups, of, each }
    }

    /// A batch of `batch` of `rows`, unit after unit.
    pub fn batch<'a>(&self, rows: &'a [Encoded], batch: usize, rng: &mut StdRng) -> Vec<Vec<&'a Encoded>> {
        match self {
            Self::Rows => batch_rows(rows, batch, rng).into_iter().map(|row| vec![row]).collect(),
            Self::Pairs(siblings) => {
                let pair = |_| {
                    let group = &siblings[rng.random_range(0..siblings.len())];
                    let first = rng.random_range(0..group.len());
                    let second = (first + rng.random_range(1..group.len())) % group.len();
                    vec![&rows[group[first]], &rows[group[second]]]
                };
                (0..batch / 2).map(pair).collect()
            }
            Self::Prompts { groups, of, each } => {
                let (mut units, mut left) = (Vec::new(), batch);
                while left > 0 {
                    let group = &groups[of[rng.random_range(0..rows.len())]];
                    let count = left.min(*each).min(group.len());
                    units.push(sample(rng, group.len(), count).into_iter().map(|n| &rows[group[n]]).collect());
                    left -= count;
                }
                units
            }
        }
    }
}

/// Rows of a training batch, drawn at random with replacement.
pub fn batch_rows<'a>(rows: &'a [Encoded], batch: usize, rng: &mut StdRng) -> Vec<&'a Encoded> {
    (0..batch).map(|_| &rows[rng.random_range(0..rows.len())]).collect()
}

/// With probability `share` one of `rows`, prompt and answer. Nothing is drawn for a share of 0.
pub fn rehearsed<'a>(rows: &'a [Encoded], share: f64, rng: &mut StdRng) -> Option<(Vec<u32>, &'a [u32])> {
    let row = (share > 0.0 && rng.random_bool(share)).then(|| rows.choose(rng)).flatten()?;
    Some((row.tokens[..row.answer].to_vec(), &row.tokens[row.answer..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::HashSet;

    /// A row whose prompt is the token `prompt`, and whose answer is `answer`.
    fn row(prompt: u32, answer: u32) -> Encoded {
        Encoded { tokens: vec![prompt, answer, 0], answer: 1, question: 0..1, labels: vec![Some(answer as usize)], part: 0 }
    }

    #[test]
    fn answers_to_one_prompt_share_its_reading() {
        let rows = [row(7, 1), row(8, 2), row(7, 3), row(9, 4), row(8, 5)];
        let (groups, order) = together(&rows.iter().collect::<Vec<_>>());
        assert_eq!(order, [0, 2, 1, 4, 3]);
        let told: Vec<(u32, Vec<u32>)> = groups.iter().map(|g| (g.prompt[0], g.answers.iter().map(|a| a[0]).collect())).collect();
        assert_eq!(told, [(7, vec![1, 3]), (8, vec![2, 5]), (9, vec![4])]);
        let many: Vec<Encoded> = (0..70).map(|n| row(7, n)).collect();
        let (groups, order) = together(&many.iter().collect::<Vec<_>>());
        assert_eq!(groups.iter().map(|g| g.answers.len()).collect::<Vec<_>>(), [32, 32, 6], "a group stays small");
        assert_eq!(order, (0..70).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_takes_answers_of_a_prompt_together() {
        // Prompts with 5, 2 and 1 answers, mixed.
        let rows: Vec<Encoded> = [1, 1, 2, 1, 3, 1, 2, 1].iter().zip(10..).map(|(&p, n)| row(p, n)).collect();
        let draw = Draw::prompts(&rows, 3);
        let mut seen: HashMap<u32, usize> = HashMap::new();
        for seed in 0..200 {
            let units = draw.batch(&rows, 16, &mut StdRng::seed_from_u64(seed));
            assert_eq!(units.iter().map(Vec::len).sum::<usize>(), 16);
            for (n, unit) in units.iter().enumerate() {
                let prompt = unit[0].tokens[0];
                assert!(unit.iter().all(|r| r.tokens[0] == prompt));
                let answers: HashSet<u32> = unit.iter().map(|r| r.tokens[1]).collect();
                assert_eq!(answers.len(), unit.len(), "an answer came twice");
                let full = [3, 2, 1][prompt as usize - 1];
                assert!(unit.len() == full || n + 1 == units.len() && unit.len() < full, "{prompt} {}", unit.len());
                answers.iter().for_each(|&a| *seen.entry(a).or_default() += 1);
            }
        }
        // Every row is drawn, and none of a prompt more than its neighbours: 3200 draws of which the five share most.
        assert_eq!(seen.len(), rows.len());
        let five: Vec<usize> = [10, 11, 13, 15, 17].iter().map(|a| seen[a]).collect();
        assert!(five.iter().all(|&n| n.abs_diff(five.iter().sum::<usize>() / 5) < 60), "{five:?}");
        assert!(matches!(Draw::prompts(&rows, 1), Draw::Rows));
    }

    #[test]
    fn a_share_of_the_rows_is_rehearsed() {
        let rows = [row(1, 9), row(2, 9)];
        let mut rng = StdRng::seed_from_u64(7);
        let drawn: Vec<_> = (0..4000).map(|_| rehearsed(&rows, 0.25, &mut rng)).collect();
        for prompt in [1, 2] {
            let of = drawn.iter().flatten().filter(|(p, answer)| *p == [prompt] && **answer == [9, 0]).count();
            assert!((400..600).contains(&of), "{of} of 500");
        }
        let mut other = rng.clone();
        assert_eq!(rehearsed(&rows, 0.0, &mut other), None);
        assert_eq!(rng, other, "nothing was drawn");
    }
}
