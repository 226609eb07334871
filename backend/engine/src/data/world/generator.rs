//! The generator: questions to an assistant, and answers of mixed quality. It knows what it wrote, but labels come from the gold
//! grader, which reads nothing but the text.

use super::lexicon::{CONTEXTS, FILLERS, HEDGES, NEW_TEMPLATES, PHRASINGS, REFUSALS, TEMPLATES, Topic, WARNINGS};
use super::topics::TOPICS;
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

/// Which answers are written.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Share of answers with points of another topic.
    pub foreign: f64,
    /// Whether phrasings that are kept from reward models may occur.
    pub new_phrasings: bool,
    /// Topics of the world that is written about.
    pub topics: usize,
}

/// Position of a topic among those of its kind.
fn within_kind(topic: usize) -> usize {
    TOPICS[..topic].iter().filter(|t| t.kind == TOPICS[topic].kind).count()
}

/// Whether a topic is part of a world of `topics` topics: the first ones of each kind, in the proportion that all have.
pub fn is_in(topic: usize, topics: usize) -> bool {
    let of_kind = TOPICS.iter().filter(|t| t.kind == TOPICS[topic].kind).count();
    within_kind(topic) < (of_kind * topics).div_ceil(TOPICS.len())
}

/// One topic in this many, of each kind, is new: SFT knows its facts, but no reward model is trained on it and no policy
/// optimised.
const NEW_TOPIC_EVERY: usize = 5;

/// Whether a topic is kept from reward models and policy optimisation.
pub fn is_new(topic: usize) -> bool {
    within_kind(topic) % NEW_TOPIC_EVERY == NEW_TOPIC_EVERY - 1
}

/// Whether the last phrasing of a point is kept from reward models: so it is for every third point.
fn is_new_phrasing(topic: usize, point: usize, phrasing: usize) -> bool {
    phrasing == PHRASINGS - 1 && (topic + point).is_multiple_of(3)
}

/// Questions put in ways that training knows: topic x template x context, in a fixed order.
pub fn questions() -> Vec<Question> {
    all_questions(TEMPLATES)
}

/// Questions put in ways that training does not know.
pub fn new_wordings() -> Vec<Question> {
    all_questions(NEW_TEMPLATES)
}

fn all_questions(templates: &[&str]) -> Vec<Question> {
    let mut out = Vec::new();
    for (topic, t) in TOPICS.iter().enumerate() {
        for (i, template) in templates.iter().enumerate() {
            for context in CONTEXTS {
                let question = template.replace("{}", t.action);
                // Some other topic, not the same for every template.
                let other = TOPICS[(topic + 7 + 11 * i) % TOPICS.len()].action;
                let context = context.replace("{}", other);
                let text = if context.is_empty() { question } else { format!("{context} {question}") };
                out.push(Question { topic, text });
            }
        }
    }
    out
}

/// The question with this text, if it is about a topic of the world: that which it names last. Other texts have no gold class.
pub fn recognise(text: &str) -> Option<Question> {
    let lower = text.to_lowercase();
    let named = TOPICS.iter().enumerate().filter_map(|(topic, t)| Some((lower.rfind(t.action)?, topic)));
    named.max().map(|(_, topic)| Question { topic, text: text.to_string() })
}

/// Kind of a question.
pub fn kind(question: &Question) -> Kind {
    TOPICS[question.topic].kind
}

/// One point of a topic, in a random phrasing.
fn say(topic: usize, point: usize, style: Style, rng: &mut StdRng) -> &'static str {
    loop {
        let phrasing = rng.random_range(0..PHRASINGS);
        if style.new_phrasings || !is_new_phrasing(topic, point, phrasing) {
            return TOPICS[topic].points[point][phrasing];
        }
    }
}

/// Most points and myths of an answer that is written.
const CLAIMS: usize = 6;

/// A random answer of mixed quality.
pub fn answer(question: &Question, style: Style, rng: &mut StdRng) -> String {
    let topic: &Topic = &TOPICS[question.topic];
    let mut own = [0, 1, 2, 3];
    own.shuffle(rng);
    let mut sentences: Vec<&str> =
        own[..rng.random_range(0..=4)].iter().map(|&point| say(question.topic, point, style, rng)).collect();
    if rng.random_bool(0.35) {
        // What is falsely believed about it.
        let count = if rng.random_bool(0.3) { 2 } else { 1 };
        sentences.extend(topic.myths.choose_multiple(rng, count));
    }
    if style.foreign > 0.0 && rng.random_bool(style.foreign) {
        // Points of another topic of the same kind: they sound right and are not.
        let others: Vec<usize> = (0..TOPICS.len())
            .filter(|&t| t != question.topic && TOPICS[t].kind == topic.kind && is_in(t, style.topics))
            .filter(|&t| style.new_phrasings || !is_new(t))
            .collect();
        let other = *others.choose(rng).expect("every kind has several topics");
        let mut points = [0, 1, 2, 3];
        points.shuffle(rng);
        for &point in &points[..rng.random_range(1..=3)] {
            sentences.push(say(other, point, style, rng));
        }
    }
    sentences.shuffle(rng);
    sentences.truncate(CLAIMS);
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
    let no_points = !sentences.iter().any(|s| topic.points.iter().flatten().any(|p| p == s));
    if sentences.is_empty() || (no_points && topic.kind == Kind::Risky && rng.random_bool(0.5)) {
        sentences.insert(0, REFUSALS.choose(rng).expect("not empty"));
    }
    sentences.join(" ")
}
