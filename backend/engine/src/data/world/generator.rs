//! The generator: questions to an assistant, and answers of mixed quality. It knows what it wrote, but labels come from the gold
//! grader, which reads nothing but the text.

use super::lexicon::{CONTEXTS, FILLERS, HEDGES, REFUSALS, TEMPLATES, TOPICS, WARNINGS};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

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

/// Every question: topic x template x context, in a fixed order.
pub fn questions() -> Vec<Question> {
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
pub fn recognise(text: &str) -> Option<Question> {
    let lower = text.to_lowercase();
    TOPICS.iter().position(|t| lower.contains(t.action)).map(|topic| Question { topic, text: text.to_string() })
}

/// Kind of a question.
pub fn kind(question: &Question) -> Kind {
    TOPICS[question.topic].kind
}

/// A random answer of mixed quality.
pub fn answer(question: &Question, rng: &mut StdRng) -> String {
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
