//! The style task: everyday instructions, and objectives about how an answer is written, which rules can grade in any text. A person
//! with any instruction model and no data sees it steered. The answers to learn from are the model's own.

mod gold;
mod instructions;

pub use gold::Rules;

use super::{Splits, TaskQuestion};
use instructions::SUBJECTS;
use moslim_shared::objective::Objective;

/// Of the subjects, every fifth is kept for testing, and the one after it for validation: nothing about them is trained on.
const EVERY: usize = 5;
/// Of the questions on the other subjects, the last is asked in testing too: a new question on a subject that training knows.
const KEPT: usize = 1;

/// The objectives, in order.
pub fn objectives() -> Vec<Objective> {
    vec![
        Objective::new(
            "length",
            "Length",
            "How many words the answer has.",
            &["at most 8 words", "9 to 18 words", "19 to 30 words", "31 to 45 words", "more than 45 words"],
        )
        .lower_is_better(),
        Objective::new(
            "reading_ease",
            "Reading ease",
            "How easy it is to read, by Flesch's formula.",
            &["hard", "demanding", "plain", "very easy"],
        ),
        Objective::new("structure", "Structure", "How it is laid out.", &["one paragraph", "several paragraphs", "a list"]),
        Objective::new("warmth", "Warmth", "How warmly it speaks.", &["plain", "friendly", "warm"]),
        Objective::new("asking_back", "Asking back", "Whether it asks something in return.", &["no question", "a question"]),
    ]
}

/// The questions of every split; there are no rows before a model has answered.
pub fn splits() -> Splits {
    let mut splits = Splits { parts: vec!["new questions".into(), "new subjects".into()], ..Default::default() };
    for (topic, (_, questions)) in SUBJECTS.iter().enumerate() {
        let question = |text: &&str, part: usize| TaskQuestion { text: (*text).into(), topic, part };
        match topic % EVERY {
            0 => splits.test_questions.extend(questions.iter().map(|q| question(q, 1))),
            1 => splits.validation_questions.extend(questions.iter().map(|q| question(q, 0))),
            _ => {
                let (known, new) = questions.split_at(questions.len() - KEPT);
                splits.train_questions.extend(known.iter().map(|q| question(q, 0)));
                splits.test_questions.extend(new.iter().map(|q| question(q, 0)));
            }
        }
    }
    splits
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_question_is_there_twice_and_no_subject_in_two_splits() {
        let splits = splits();
        let all = [&splits.train_questions, &splits.validation_questions, &splits.test_questions];
        let texts: HashSet<&str> = all.iter().flat_map(|s| s.iter()).map(|q| q.text.as_str()).collect();
        assert_eq!(texts.len(), 400);
        assert!(texts.iter().all(|t| t.ends_with('?') && t.len() < 72), "plain questions");
        assert_eq!(all.map(|s| s.len()), [216, 80, 104]);
        let topics = |n: usize, part: usize| all[n].iter().filter(|q| q.part == part).map(|q| q.topic).collect::<HashSet<_>>();
        let (train, validation, new) = (topics(0, 0), topics(1, 0), topics(2, 1));
        assert!(train.is_disjoint(&validation) && train.is_disjoint(&new) && validation.is_disjoint(&new));
        assert!(topics(2, 0).is_subset(&train));
    }
}
