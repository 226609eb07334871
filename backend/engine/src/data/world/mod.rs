//! The built-in world: questions to an assistant, answers of graded quality, and a gold judge.
//!
//! Three kinds of question make the objectives conflict. A *plain* question has four right points to give. On a *risky*
//! one every helpful point does harm. On an *unknowable* one every point must be invented. The generator knows what it
//! wrote, but labels come from the judge, which reads nothing but the text.

mod judge;
mod lexicon;

pub use judge::Verdict;

use lexicon::{CONTEXTS, FILLERS, HEDGES, REFUSALS, TEMPLATES, TOPICS, WARNINGS};
use moslim_shared::objective::Objective;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use std::sync::OnceLock;

/// What kind of question a topic makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Plain,
    Risky,
    Unknowable,
}

impl Kind {
    /// Name for people and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Risky => "risky",
            Self::Unknowable => "unknowable",
        }
    }
}

/// A question of the world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// Position of the topic in the world's list.
    pub topic: usize,
    pub text: String,
}

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

/// The generator and the gold judge.
#[derive(Debug)]
pub struct World {
    sentences: judge::Sentences,
}

impl World {
    /// The one world.
    pub fn get() -> &'static Self {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(|| World { sentences: judge::Sentences::new() })
    }

    /// Every question: topic x template x context, in a fixed order.
    pub fn questions(&self) -> Vec<Question> {
        let mut out = Vec::new();
        for (topic, t) in TOPICS.iter().enumerate() {
            for template in TEMPLATES {
                for context in CONTEXTS {
                    let question = template.replace("{}", t.action);
                    let text = if context.is_empty() { question } else { format!("{context} {question}") };
                    out.push(Question { topic, text });
                }
            }
        }
        out
    }

    /// The question with this text, if it is about a topic of the world. Other texts have no gold class.
    pub fn recognise(&self, text: &str) -> Option<Question> {
        let lower = text.to_lowercase();
        TOPICS.iter().position(|t| lower.contains(t.action)).map(|topic| Question { topic, text: text.to_string() })
    }

    /// Kind of a question.
    pub fn kind(&self, question: &Question) -> Kind {
        TOPICS[question.topic].kind
    }

    /// Whether an answer to `question` can reach every class of `objective`: where it cannot, control says nothing.
    pub fn can_reach_all(&self, question: &Question, objective: usize) -> bool {
        objective != HARMLESSNESS || self.kind(question) == Kind::Risky
    }

    /// A random answer of mixed quality.
    pub fn answer(&self, question: &Question, rng: &mut StdRng) -> String {
        let topic = &TOPICS[question.topic];
        let mut points = topic.points.to_vec();
        points.shuffle(rng);
        points.truncate(rng.random_range(0..=4));
        if rng.random_bool(0.5) {
            // Points of other topics of the same kind: they sound right and are not.
            let others: Vec<_> =
                TOPICS.iter().enumerate().filter(|(i, t)| *i != question.topic && t.kind == topic.kind).map(|(_, t)| t).collect();
            for _ in 0..rng.random_range(1..=3) {
                let other = others.choose(rng).expect("every kind has several topics");
                let wrong = other.points.choose(rng).expect("a topic has points");
                if !points.contains(wrong) && points.len() < 5 {
                    points.push(wrong);
                }
            }
            points.shuffle(rng);
        }
        let mut sentences = points;
        let mut fillers = FILLERS.to_vec();
        fillers.shuffle(rng);
        for filler in &fillers[..rng.random_range(0..=3)] {
            sentences.insert(rng.random_range(0..=sentences.len()), filler);
        }
        if rng.random_bool(0.35) {
            sentences.insert(0, HEDGES.choose(rng).expect("not empty"));
        }
        if rng.random_bool(if topic.kind == Kind::Risky { 0.4 } else { 0.05 }) {
            sentences.push(WARNINGS.choose(rng).expect("not empty"));
        }
        let no_points = !sentences.iter().any(|s| topic.points.contains(s));
        if sentences.is_empty() || (no_points && topic.kind == Kind::Risky && rng.random_bool(0.5)) {
            sentences.insert(0, REFUSALS.choose(rng).expect("not empty"));
        }
        sentences.join(" ")
    }

    /// The gold classes and the fluency of any text as an answer to `question`.
    pub fn judge(&self, question: &Question, answer: &str) -> Verdict {
        self.sentences.judge(question.topic, answer)
    }
}
