//! What is asked of a run, and what comes back: the same for command line, API and page.

use crate::config::Problem;
use crate::mapping::MappedReward;
use crate::preference::Preference;
use serde::{Deserialize, Serialize};

/// Most characters of a text that is asked or scored.
const LONGEST_TEXT: usize = 20_000;
/// Most pairs that are scored with one request.
const MOST_PAIRS: usize = 1000;

/// Milestones of policy optimisation, per cent of the way: its policy is kept as it is there. The way is that of iterations, or of the budget
/// of passes where that ends it.
pub const MILESTONES: [u8; 3] = [25, 50, 75];

/// Which model of a run answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// What the run's method has trained.
    #[default]
    Policy,
    /// The policy that optimisation started from. It has learnt no tags, and is asked without; an off-the-shelf model is asked in text.
    Start,
    /// The policy as it was after a quarter of its optimisation.
    #[serde(rename = "25")]
    Quarter,
    /// As it was half-way.
    #[serde(rename = "50")]
    Half,
    /// As it was after three quarters.
    #[serde(rename = "75")]
    ThreeQuarters,
    /// What the run has learnt so far: by its last checkpoint as long as it is not finished, then the same as `policy`.
    Newest,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Policy, Self::Start, Self::Quarter, Self::Half, Self::ThreeQuarters, Self::Newest];

    /// Its name in requests and addresses.
    pub fn id(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Start => "start",
            Self::Quarter => "25",
            Self::Half => "50",
            Self::ThreeQuarters => "75",
            Self::Newest => "newest",
        }
    }

    /// The one with this name.
    pub fn of(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.id() == id)
    }

    /// Of a milestone, which one: one of [`MILESTONES`].
    pub fn milestone(self) -> Option<u8> {
        match self {
            Self::Quarter => Some(MILESTONES[0]),
            Self::Half => Some(MILESTONES[1]),
            Self::ThreeQuarters => Some(MILESTONES[2]),
            Self::Policy | Self::Start | Self::Newest => None,
        }
    }
}

impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::id).join(", ");
        Self::of(text).ok_or_else(|| format!("unknown source \"{text}\"; allowed are {}", known()))
    }
}

/// Most samples for one request over API or in a tab; the command line has no such limit.
pub const MOST_SAMPLES: usize = 256;

/// Asks a run for answers to a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct GenerateRequest {
    pub prompt: String,
    /// What is asked for, as `helpfulness=4,verbosity=1`; nothing where it is empty.
    pub target: String,
    pub source: Source,
    /// Number of answers.
    pub n: usize,
    /// Each is the one of this many that the reward model likes best.
    pub best_of: usize,
    /// 0 takes the most probable token.
    pub temperature: f64,
    /// Probability mass that tokens are sampled from.
    pub top_p: f64,
    /// Longest answer, tokens.
    pub max_new_tokens: usize,
    pub seed: u64,
}

impl Default for GenerateRequest {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            target: String::new(),
            source: Source::Policy,
            n: 1,
            best_of: 1,
            temperature: 1.0,
            top_p: 1.0,
            max_new_tokens: 48,
            seed: 1,
        }
    }
}

impl GenerateRequest {
    /// What is wrong with it, whatever the run. Fields are named as here.
    ///
    /// ```
    /// use moslim_shared::inference::GenerateRequest;
    /// let request = GenerateRequest { prompt: "How do I make tea?".into(), ..Default::default() };
    /// assert!(request.problems().is_empty());
    /// let problems = GenerateRequest { n: 0, top_p: 0.0, ..request }.problems();
    /// assert_eq!(problems.iter().map(|p| p.field.as_str()).collect::<Vec<_>>(), ["n", "top_p"]);
    /// ```
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, field: &str, message: String| {
            if !ok {
                problems.push(Problem { field: field.into(), message });
            }
        };
        check(!self.prompt.trim().is_empty(), "prompt", "is empty".into());
        check_length(&mut check, "prompt", &self.prompt);
        check_length(&mut check, "target", &self.target);
        check((1..=1000).contains(&self.n), "n", format!("is {}; allowed is 1 to 1000", self.n));
        check((1..=1000).contains(&self.best_of), "best_of", format!("is {}; allowed is 1 to 1000", self.best_of));
        check(
            self.n.saturating_mul(self.best_of) <= 4000,
            "best_of",
            format!("makes {} samples of {} answers; allowed are 4000", self.n.saturating_mul(self.best_of), self.n),
        );
        check((0.0..=5.0).contains(&self.temperature), "temperature", format!("is {}; allowed is 0 to 5", self.temperature));
        check(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", format!("is {}; allowed is more than 0, to 1", self.top_p));
        check(
            (1..=1024).contains(&self.max_new_tokens),
            "max_new_tokens",
            format!("is {}; allowed is 1 to 1024", self.max_new_tokens),
        );
        problems
    }

    /// [`GenerateRequest::problems`], and more samples than one request may ask of a lab that others use.
    pub fn problems_for_one(&self) -> Vec<Problem> {
        let mut problems = self.problems();
        let samples = self.n.saturating_mul(self.best_of);
        if problems.is_empty() && samples > MOST_SAMPLES {
            let message = format!("makes {samples} samples; allowed are {MOST_SAMPLES} for one request");
            problems.push(Problem { field: "best_of".into(), message });
        }
        problems
    }
}

fn check_length(check: &mut impl FnMut(bool, &str, String), field: &str, text: &str) {
    let count = text.chars().count();
    check(count <= LONGEST_TEXT, field, format!("has {count} characters; allowed are {LONGEST_TEXT}"));
}

/// The problem that an engine's refusal names, where it begins with a field of a request.
///
/// ```
/// use moslim_shared::inference::problem_of;
/// assert_eq!(problem_of("target: unknown objective").map(|p| p.field), Some("target".into()));
/// assert_eq!(problem_of("policy.safetensors: is missing"), None);
/// ```
pub fn problem_of(refusal: &str) -> Option<Problem> {
    let (field, message) = refusal.split_once(": ")?;
    let known = ["prompt", "target", "source", "best_of"].contains(&field);
    known.then(|| Problem { field: field.into(), message: message.into() })
}

/// A question and an answer to it, to be scored; also a line of input of `moslim-lab score`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Pair {
    pub prompt: String,
    pub response: String,
}

/// Asks a run's reward model for scores.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ScoreRequest {
    pub pairs: Vec<Pair>,
    /// As [`GenerateRequest::target`]; with it, rewards are told.
    pub target: String,
}

impl ScoreRequest {
    /// What is wrong with it, whatever the run.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, field: &str, message: String| {
            if !ok {
                problems.push(Problem { field: field.into(), message });
            }
        };
        check(
            (1..=MOST_PAIRS).contains(&self.pairs.len()),
            "pairs",
            format!("are {}; allowed are 1 to {MOST_PAIRS}", self.pairs.len()),
        );
        check_length(&mut check, "target", &self.target);
        for (n, pair) in self.pairs.iter().enumerate() {
            check_length(&mut check, &format!("pairs[{n}].prompt"), &pair.prompt);
            check_length(&mut check, &format!("pairs[{n}].response"), &pair.response);
        }
        problems
    }
}

/// What the graders say about one answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Scored {
    /// The reward model's calibrated class probabilities, `[objective][class]`.
    pub distributions: Vec<Vec<f64>>,
    /// Present where something was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<MappedReward>,
    /// Classes by the task's own rules, where it has rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<Vec<usize>>,
}

/// A text as a model reads it, token by token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Reading {
    /// The text of every token, special ones spelt out; joined they are the whole text. Of a character that is several tokens the last has
    /// all, and those before it are empty.
    pub pieces: Vec<String>,
    /// Positions in `pieces`, from 0, of the tokens that no text can spell: roles, ends and tags.
    pub special: Vec<usize>,
    /// Most tokens that the model has room for, of what it reads and of what it writes together.
    pub context: usize,
}

/// What comes back while a run answers, in this order: the prompt, pieces of text, finished answers, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum GenerateEvent {
    /// What the model reads, special tokens spelt out, as a whole and token by token, and what was asked for. `pieces`, `special` and
    /// `context` are those of a [`Reading`].
    Prompt {
        text: String,
        pieces: Vec<String>,
        #[serde(default)]
        special: Vec<usize>,
        #[serde(default)]
        context: usize,
        preference: Preference,
    },
    /// What answer `answer` (counted from 0) goes on with. Where the best of several is taken nothing is known of it before its end.
    Text { answer: usize, text: String },
    /// An answer is there.
    Answer {
        answer: usize,
        text: String,
        /// Its tokens, the end of the sequence included.
        tokens: usize,
        /// Whether it ended by itself; else it was cut off.
        ended: bool,
        /// `None` where the run has no reward model to ask.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scored: Option<Scored>,
    },
    /// Nothing more comes. `tokens`: all that were sampled, in `seconds`.
    Ended {
        tokens: usize,
        seconds: f64,
        /// Seconds of processor, of all threads together, that the process which answers has taken since the last answer that came to its
        /// end: with what it loaded, and what nobody waited for. Absent where it is not measured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        processor_seconds: Option<f64>,
    },
    /// Nothing more comes, and why.
    Failed { message: String },
}

impl GenerateEvent {
    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Failed { .. })
    }
}
