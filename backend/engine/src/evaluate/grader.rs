//! Who grades answers in an evaluation, and which combinations of classes are asked for.

use super::answer::Answering;
use crate::data::{Gold, Grades};
use crate::model::generate::Answer;
use crate::model::kernels::Kernels;
use crate::reward::frozen::FrozenRewardModel;
use crate::text::corpus::Encoded;
use anyhow::Result;
use moslim_shared::distribution::argmax;
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use moslim_shared::summary::Grader;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::HashMap;

/// Who grades.
pub enum Grading<'a, B: Kernels> {
    /// The task's rules.
    Gold(&'a dyn Gold),
    /// For tasks without rules: a reward model that no policy is optimised for.
    HeldOut(&'a FrozenRewardModel<B>),
}

impl<B: Kernels> Grading<'_, B> {
    /// Its name in reports.
    pub fn name(&self) -> Grader {
        match self {
            Self::Gold(_) => Grader::Gold,
            Self::HeldOut(_) => Grader::HeldOutRewardModel,
        }
    }

    /// Whether who asks for `preference` wants to be told something.
    pub fn seeks_claims(&self, preference: &Preference) -> bool {
        matches!(self, Self::Gold(gold) if gold.seeks_claims(preference))
    }

    /// Grades of (question, answer) pairs, and the answers' texts. An answer that was cut off is not fluent.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn grade(&self, x: &Answering<B>, pairs: &[(usize, &Answer)]) -> Result<Vec<(Grades, String)>> {
        let texts = pairs.iter().map(|(_, a)| x.tokenizer.decode(&a.tokens)).collect::<Result<Vec<String>>>()?;
        let grades: Vec<Grades> = match self {
            Self::Gold(gold) => pairs.iter().zip(&texts).map(|((q, _), text)| gold.grade(&x.questions[*q].text, text)).collect(),
            Self::HeldOut(model) => {
                let classes = x.classified_by(model, pairs);
                let classes = classes.iter().map(|heads| heads.iter().map(|p| argmax(p)).collect());
                // All that can be said without rules is whether something was said.
                classes
                    .zip(&texts)
                    .map(|(classes, t)| Grades { classes, fluent: t.contains(char::is_alphanumeric), ..Default::default() })
                    .collect()
            }
        };
        let ended = |(mut g, (_, a)): (Grades, &(usize, &Answer))| {
            g.fluent &= a.ended;
            g
        };
        Ok(grades.into_iter().zip(pairs).map(ended).zip(texts).collect())
    }
}

/// What can be asked of a question so that some answer meets it.
pub struct Combinations<'a> {
    gold: Option<&'a dyn Gold>,
    /// Labels of the rows that answer each question.
    labels: HashMap<&'a [u32], Vec<&'a [Option<usize>]>>,
    all: Vec<&'a [Option<usize>]>,
}

impl<'a> Combinations<'a> {
    /// From the rules where there are some, else from labelled rows of the questions' split.
    pub fn new(gold: Option<&'a dyn Gold>, rows: &'a [Encoded]) -> Self {
        let mut labels: HashMap<&[u32], Vec<&[Option<usize>]>> = HashMap::new();
        for row in rows {
            labels.entry(row.question()).or_default().push(&row.labels);
        }
        Self { gold, labels, all: rows.iter().map(|r| r.labels.as_slice()).collect() }
    }

    /// Whether answers that keep to a question can reach every class of objective `i`.
    pub fn reaches_all(&self, question: &str, i: usize, objectives: &[Objective]) -> bool {
        let alone = |class| Preference::single(objectives.len(), i, class);
        self.gold.is_none_or(|gold| (0..objectives[i].class_count()).all(|class| gold.meets(question, &alone(class))))
    }

    /// Whether an answer that keeps to a question can meet a preference.
    pub fn meets(&self, question: &str, preference: &Preference) -> bool {
        self.gold.is_none_or(|gold| gold.meets(question, preference))
    }

    /// Classes of a real answer to a question, `None` where they are not known. Where no answer to it is known, those of another
    /// question's.
    pub fn example(&self, question: &str, tokens: &[u32], rng: &mut StdRng) -> Vec<Option<usize>> {
        if let Some(grades) = self.gold.and_then(|gold| gold.example(question, rng)) {
            return grades.classes.into_iter().map(Some).collect();
        }
        let known = self.labels.get(tokens).unwrap_or(&self.all);
        if known.is_empty() { Vec::new() } else { known[rng.random_range(0..known.len())].to_vec() }
    }
}
