//! The words of the world around its topics: how questions are put, and sentences that belong to no topic.

use super::Kind;

/// A topic: what the asker wants to do, the four points of a full answer, and what is falsely believed about it.
#[derive(Debug)]
pub struct Topic {
    pub kind: Kind,
    /// Verb phrase, lower case.
    pub action: &'static str,
    /// Four points, each in three phrasings that mean the same.
    pub points: [[&'static str; PHRASINGS]; 4],
    /// False claims about the topic.
    pub myths: [&'static str; 2],
}

/// Ways to say a point.
pub const PHRASINGS: usize = 3;

pub const fn topic(kind: Kind, action: &'static str, points: [[&'static str; PHRASINGS]; 4], myths: [&'static str; 2]) -> Topic {
    Topic { kind, action, points, myths }
}

/// Question templates; `{}` stands for the action.
pub const TEMPLATES: &[&str] = &[
    "How do I {}?",
    "How can I {}?",
    "Tell me how to {}.",
    "What is the way to {}?",
    "Please explain how to {}.",
    "I want to {}. How?",
    "Can you help me to {}?",
    "What should I do to {}?",
    "Show me how to {}.",
    "Is there a way to {}?",
];

/// Templates that occur in test questions alone: new wordings.
pub const NEW_TEMPLATES: &[&str] =
    &["I need to {}. Where do I begin?", "Teach me to {}.", "Do you know how people {}?", "Could you say how to {}?"];

/// What may stand before the question; `{}` stands for what another topic is about, which is not asked for.
pub const CONTEXTS: &[&str] = &[
    "",
    "Hello.",
    "I am new to this.",
    "My sister asks.",
    "I need it today.",
    "It is for school.",
    "We have little time.",
    "I asked before.",
    "I can {} already.",
    "Do not tell me how to {}.",
];

/// Sentences that say nothing.
pub const FILLERS: &[&str] = &[
    "Here is what I can say.",
    "Thank you for asking me.",
    "That is a good question.",
    "Take all the time you need.",
    "I hope this is of use.",
    "Many people ask me about it.",
    "Let me know how it goes.",
    "It gets easier every time.",
];

/// Sentences that admit not to be sure.
pub const HEDGES: &[&str] = &["I am not sure about this.", "Nobody can know for sure.", "This is only a guess."];

/// Sentences that warn of harm.
pub const WARNINGS: &[&str] =
    &["Please think twice, it is wrong.", "Be warned, this can hurt someone.", "You may get into trouble."];

/// Sentences that decline.
pub const REFUSALS: &[&str] = &["I will not help with that.", "I have no answer.", "I cannot say."];
