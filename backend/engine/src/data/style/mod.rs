//! The style task: everyday instructions, and objectives about how an answer is written, which rules can grade in any text. A person
//! with any instruction model and no data sees it steered. The answers to learn from are the model's own.

mod gold;

pub use gold::Rules;

use super::{Splits, Task, TaskQuestion};
use moslim_shared::objective::Objective;

/// Everyday instructions in plain English, ten on each subject, whose name stands before them. None asks for a style: how an answer is
/// to be written is what the objectives ask for.
const INSTRUCTIONS: &str = include_str!("instructions.txt");

/// The questions on every subject.
fn subjects() -> Vec<Vec<&'static str>> {
    let lines = |subject: &'static str| subject.lines().skip(1).filter(|l| !l.is_empty()).collect();
    INSTRUCTIONS.split("# ").skip(1).map(lines).collect()
}

/// Of the subjects, every fifth is kept for testing, and the one after it for validation: nothing about them is trained on.
const EVERY: usize = 5;
/// Of the questions on the other subjects, the last is asked in testing too: a new question on a subject that training knows.
const KEPT: usize = 1;

/// The first question on each of the first few subjects.
pub fn examples() -> Vec<String> {
    subjects().iter().take(4).filter_map(|subject| subject.first().map(|q| q.to_string())).collect()
}

/// The task: questions and rules. Its rows are answers of the model that a run is about.
pub fn task() -> Task {
    Task { name: "style".into(), objectives: objectives(), splits: splits(), gold: Some(Box::new(Rules)) }
}

/// The objectives, in order. Of the wordings of every class, the last is kept for testing.
pub fn objectives() -> Vec<Objective> {
    let length = ["at most 8 words", "9 to 18 words", "19 to 30 words", "31 to 45 words", "more than 45 words"];
    let ease = ["hard", "demanding", "plain", "very easy"];
    let structure = ["one paragraph", "several paragraphs", "a list"];
    let (warmth, asking) = (["plain", "friendly", "warm"], ["no question", "a question"]);
    vec![
        Objective::new("length", "Length", "How many words the answer has.", &length).lower_is_better().in_words(&[
            &["Answer in a few words only.", "Use no more than eight words.", "Reply with just a phrase."],
            &["Answer in one short sentence.", "Use about fifteen words.", "Keep it to a single sentence."],
            &["Answer in two sentences.", "Use about twenty-five words.", "Keep it short: two sentences."],
            &["Answer in three sentences.", "Use about forty words.", "Write a short paragraph of three sentences."],
            &["Answer at length.", "Use more than fifty words.", "Explain it in detail."],
        ]),
        Objective::new("reading_ease", "Reading ease", "How easy it is to read, by Flesch's formula.", &ease).in_words(&[
            &["Use difficult, academic words.", "Write for professors.", "Write like a scientific paper."],
            &["Use formal language.", "Write for educated readers.", "Write like a serious newspaper."],
            &["Use plain language.", "Write for a general reader.", "Write like a friendly guide book."],
            &["Use very simple, short words.", "Write for a small child.", "Use the easiest words there are."],
        ]),
        Objective::new("structure", "Structure", "How it is laid out.", &structure).in_words(&[
            &["Write one paragraph.", "Do not use a list.", "Write it all in one block of text."],
            &["Write several short paragraphs.", "Leave an empty line between your thoughts.", "Split the text into paragraphs."],
            &["Write a list.", "Use bullet points.", "Give the answer as a numbered list."],
        ]),
        Objective::new("warmth", "Warmth", "How warmly it speaks.", &warmth).in_words(&[
            &["Be neutral.", "Show no emotion.", "Be matter-of-fact."],
            &["Be friendly.", "Sound kind.", "Be a little cheerful."],
            &["Be very warm and enthusiastic!", "Be full of joy and encouragement!", "Sound like an excited friend!"],
        ]),
        Objective::new("asking_back", "Asking back", "Whether it asks something in return.", &asking).in_words(&[
            &["Do not ask anything.", "Ask no question.", "Finish without a question."],
            &["End with a question to me.", "Ask me something back.", "Finish by asking what I think."],
        ]),
    ]
}

/// The questions of every split; there are no rows before a model has answered.
pub fn splits() -> Splits {
    let mut splits = Splits { parts: vec!["new questions".into(), "new subjects".into()], ..Default::default() };
    for (topic, questions) in subjects().iter().enumerate() {
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
