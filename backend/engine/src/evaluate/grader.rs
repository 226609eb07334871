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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Claims;
    use crate::evaluate::answer::Route;
    use crate::evaluate::little::{ByWord, Little, objectives, reward_model};
    use rand::SeedableRng;

    /// Answers to the questions "red" and "green grey": of two words that end, the same cut off, one that ends but is not fluent there, and none.
    #[test]
    fn rules_grade_the_text_and_who_is_cut_off_is_not_fluent() {
        let lab = Little::new();
        let policies = [lab.policy(&[], 64)];
        let x = lab.answering(&policies, &Route::Untagged);
        let [red, green, grey, eos] = ["red", "green", "grey", "<eos>"].map(|word| lab.id(word));
        let said = |tokens: &[u32], ended: bool| Answer { tokens: tokens.to_vec(), ended, ..Default::default() };
        let answers = [said(&[green, red, eos], true), said(&[green, red], false), said(&[grey, eos], true), said(&[eos], true)];
        let pairs: Vec<(usize, &Answer)> = [1, 1, 0, 0].into_iter().zip(&answers).collect();
        let rules = Grading::Gold(&ByWord);
        let graded = rules.grade(&x, &pairs).unwrap();
        assert_eq!(graded.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["green red", "green red", "grey", ""]);
        let grades = |classes: [usize; 3], fluent: bool, own: usize, all: usize| Grades {
            classes: classes.to_vec(),
            fluent,
            claims: Claims { own, all },
        };
        let want = [
            grades([1, 2, 4], true, 1, 2),
            grades([1, 2, 4], false, 1, 2),
            grades([0, 0, 0], false, 0, 1),
            grades([0, 0, 0], true, 0, 1),
        ];
        assert_eq!(graded.into_iter().map(|(grades, _)| grades).collect::<Vec<_>>(), want);
        assert_eq!(rules.name(), Grader::Gold);
        let seeks = |classes: [Option<usize>; 3]| rules.seeks_claims(&Preference(classes.to_vec()));
        assert_eq!([seeks([Some(1), None, None]), seeks([Some(0), Some(2), None])], [true, false]);
    }

    /// It is not the model that policies are optimised for, which sees (0, 2, 4) in red and (1, 0, 1) in green.
    #[test]
    fn without_rules_another_model_grades() {
        let lab = Little::new();
        let policies = [lab.policy(&[], 64)];
        let x = lab.answering(&policies, &Route::Untagged);
        let other = reward_model(&lab.tokenizer, &lab.objectives, [[1, 0, 2], [0, 1, 3], [0; 3], [0; 3]]);
        let grading = Grading::HeldOut(&other);
        let tokens = |text: &str| [lab.tokenizer.encode(text).unwrap(), vec![lab.tokenizer.eos]].concat();
        let said = |text: &str, ended: bool| Answer { tokens: tokens(text), ended, ..Default::default() };
        let answers = [said("red", true), said("green", true), said("green", false), said("...", true)];
        let pairs: Vec<(usize, &Answer)> = [0, 1, 0, 1].into_iter().zip(&answers).collect();
        let graded = grading.grade(&x, &pairs).unwrap();
        let classes: Vec<Vec<usize>> = graded.iter().map(|(grades, _)| grades.classes.clone()).collect();
        assert_eq!(classes, [[1, 0, 2], [0, 1, 3], [0, 1, 3], [0, 0, 0]]);
        // Whether something was said, and to the end.
        assert_eq!(graded.iter().map(|(grades, _)| grades.fluent).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(graded.iter().all(|(grades, _)| grades.claims == Claims::default()));
        assert_eq!((grading.name(), grading.seeks_claims(&Preference(vec![Some(1); 3]))), (Grader::HeldOutRewardModel, false));
    }

    /// Of "low" questions the highest class of the second objective is out of reach, and of those alone it knows an answer.
    struct Low;

    impl Gold for Low {
        fn grade(&self, _question: &str, _answer: &str) -> Grades {
            Grades::default()
        }

        fn meets(&self, question: &str, preference: &Preference) -> bool {
            question != "low" || preference.0[1] != Some(2)
        }

        fn example(&self, question: &str, _rng: &mut StdRng) -> Option<Grades> {
            (question == "low").then(|| Grades { classes: vec![1, 0, 3], ..Default::default() })
        }
    }

    fn row(question: &[u32], labels: [Option<usize>; 3]) -> Encoded {
        let tokens = [&[90][..], question, &[91, 5, 92]].concat();
        Encoded { tokens, answer: question.len() + 2, question: 1..question.len() + 1, labels: labels.to_vec(), part: 0 }
    }

    #[test]
    fn what_can_be_asked_is_what_rules_say_or_rows_have() {
        let objectives = objectives();
        let known = [[Some(1), None, Some(4)], [Some(0), Some(2), None], [None, Some(1), Some(0)]];
        let rows = [row(&[1, 2], known[0]), row(&[1], known[1]), row(&[1, 2], known[2])];
        let (ruled, alone) = (Combinations::new(Some(&Low), &rows), Combinations::new(None, &rows));
        // Not every class of the second objective can be reached where it is low.
        let reached = |c: &Combinations, question: &str| [0, 1, 2].map(|i| c.reaches_all(question, i, &objectives));
        assert_eq!((reached(&ruled, "low"), reached(&ruled, "high")), ([true, false, true], [true; 3]));
        assert_eq!(reached(&alone, "low"), [true; 3]);
        let high = Preference(vec![Some(0), Some(2), None]);
        assert_eq!([ruled.meets("low", &high), ruled.meets("high", &high), alone.meets("low", &high)], [false, true, true]);
        // Rules make an example where they can; else it is a row of the question, and where there is none a row of any.
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(ruled.example("low", &[1], &mut rng), [Some(1), Some(0), Some(3)]);
        assert_eq!(ruled.example("high", &[1], &mut rng), known[1]);
        let mut seen = |tokens: &[u32]| {
            let drawn: Vec<_> = (0..60).map(|_| alone.example("low", tokens, &mut rng)).collect();
            known.map(|labels| drawn.iter().any(|d| *d == labels))
        };
        assert_eq!(seen(&[1, 2]), [true, false, true]);
        assert_eq!(seen(&[2]), [true; 3]);
        assert!(Combinations::new(None, &[]).example("low", &[1], &mut rng).is_empty());
    }
}
