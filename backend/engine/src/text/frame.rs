//! What stands around a question in a prompt: roles and tags of the lab's own, or the chat template that a model brings.

use super::chat::{ChatTemplate, Message};
use super::{ids, library};
use anyhow::{Context, Result, bail, ensure};
use moslim_shared::config::{TargetWording, WishPlace};
use moslim_shared::dialogue::Speaker;
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use serde::{Deserialize, Serialize};

/// How a preference is said in a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manner {
    /// Positions of the objectives in the order in which they are named: a permutation.
    pub order: Vec<usize>,
    pub said: Said,
}

/// In what a preference is said. Words have several wordings; the number chooses one, and the last is kept for testing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Tags,
    Words(usize),
    Both(usize),
}

/// The number of the wording that no training prompt has.
pub const UNSEEN: usize = usize::MAX;

impl Manner {
    /// Tags in the order of `objectives` objectives.
    pub fn plain(objectives: usize) -> Self {
        Self { order: (0..objectives).collect(), said: Said::Tags }
    }
}

/// The template of a model, and the tokens around which it is put; kept with a run as `chat.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatFormat {
    /// Jinja; without one, the lab's own layout of lines.
    pub template: Option<String>,
    pub bos: Option<String>,
    pub eos: String,
    /// Entries that the model's embeddings have.
    pub vocabulary: usize,
    /// Where wishes stand. Runs of old have them in the system message and do not say so.
    #[serde(default = "system")]
    pub wishes: WishPlace,
    /// How training says them, and so how they are said unless somebody wants it otherwise.
    #[serde(default)]
    pub wording: TargetWording,
    /// Whether tags are tokens behind these entries, one for every class; else they are text.
    #[serde(default)]
    pub added_tokens: bool,
}

fn system() -> WishPlace {
    WishPlace::System
}

/// The layout for models without a template.
const PLAIN: &str = "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'user' %}Question: \
    {{ m.content }}\n{% else %}Answer: {{ m.content }}{{ eos_token }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}";

/// What stands for the preference and for the question while a template is taken apart. Templates trim, and join, and never spell.
const BLOCK: &str = "\u{E0A1}preference\u{E0A1}";
const QUESTION: &str = "\u{E0A2}question\u{E0A2}";

/// A chat template taken apart: what stands before the preference, between it and the question, and after that.
#[derive(Clone, Debug)]
pub(super) struct Chat {
    before: String,
    between: String,
    after: Vec<u32>,
    /// What stands before a question without a preference, and after it.
    bare: [Vec<u32>; 2],
    pub wishes: WishPlace,
    said: Said,
    /// Whether tags are tokens.
    added_tokens: bool,
    /// What stands between a user's turn and the assistant's, and the other way round; `None` where the template cannot have several.
    turns: Option<[Vec<u32>; 2]>,
    /// Whether the template takes spaces from around a question.
    pub trims: bool,
    /// Tokens that no text can spell, in order.
    special: Vec<u32>,
    /// Reads special tokens in what the template says.
    framing: tokenizers::Tokenizer,
    objectives: Vec<Objective>,
}

impl Chat {
    /// Takes the template of `format` apart.
    ///
    /// # Errors
    /// When it does not say the question exactly once.
    pub fn new(format: &ChatFormat, framing: &tokenizers::Tokenizer, objectives: &[Objective]) -> Result<Self> {
        let source = format.template.as_deref().unwrap_or(PLAIN);
        let template = ChatTemplate::new(source, format.bos.as_deref(), Some(&format.eos))?;
        let spaced = format!(" {QUESTION} ");
        let user = |content: &str| Message::new("user", content);
        let alone = template.render(&[user(QUESTION)], false)?;
        let trims = !template.render(&[user(&spaced)], false)?.contains(&spaced);
        // Where a template knows no system message, the preference begins the question.
        let together = template
            .render(&[Message::new("system", BLOCK), user(QUESTION)], false)
            .or_else(|_| template.render(&[user(&format!("{BLOCK}\n\n{QUESTION}"))], false))?;
        let [before_question, after_question] = around(&alone, QUESTION)?;
        let [before_block, rest] = around(&together, BLOCK)?;
        let [between, after] = around(&rest, QUESTION)?;
        let turns = between_turns(&template);
        let added = framing.get_added_tokens_decoder().into_iter();
        let mut special: Vec<u32> = added.filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        special.sort_unstable();
        let tokens = |text: &str| ids(framing, text);
        Ok(Self {
            after: tokens(&after)?,
            bare: [tokens(&before_question)?, tokens(&after_question)?],
            turns: turns.map(|[a, b]| Ok::<_, anyhow::Error>([tokens(&a)?, tokens(&b)?])).transpose()?,
            before: before_block,
            wishes: format.wishes,
            special,
            said: match format.wording {
                TargetWording::Tags => Said::Tags,
                TargetWording::Words => Said::Words(0),
                TargetWording::Mixed => Said::Both(0),
            },
            added_tokens: format.added_tokens,
            between,
            trims,
            framing: framing.clone(),
            objectives: objectives.to_vec(),
        })
    }

    /// The prompt with `block` where preferences stand; without one, with nothing there. Below a question it is one text with it, cut into
    /// tokens as others would who were given both in one message. `plain`: cuts what people write, and reads no special token in it; the
    /// block has some where it begins with `tags` that are tokens.
    pub fn prompt(&self, question: &[u32], block: &str, tags: bool, plain: &tokenizers::Tokenizer) -> Result<Vec<u32>> {
        match self.wishes {
            _ if block.is_empty() => Ok(self.bare(question)),
            WishPlace::System => {
                let before = ids(&self.framing, &[&self.before, block, &self.between].concat())?;
                Ok([&before, question, &self.after].concat())
            }
            WishPlace::Question => {
                let (turns, text) = question.split_at(self.last_text(question));
                let asked = format!("{}\n\n", plain.decode(text, false).map_err(library)?);
                // A token cuts a text where it stands.
                let (own, said) = if tags { (asked, ids(&self.framing, block)?) } else { (asked + block, Vec::new()) };
                let own = match self.trims {
                    true if tags => own.trim_start(),
                    true => own.trim(),
                    false => own.as_str(),
                };
                Ok(self.bare(&[turns, &ids(plain, own)?, &said].concat()))
            }
        }
    }

    /// The prompt that asks for what `preference` says, in that manner. `plain`: as for [`Self::prompt`].
    pub fn asking(
        &self,
        question: &[u32],
        preference: &Preference,
        manner: &Manner,
        plain: &tokenizers::Tokenizer,
    ) -> Result<Vec<u32>> {
        let tags = self.added_tokens && !matches!(manner.said, Said::Words(_));
        self.prompt(question, &self.block(preference, manner), tags, plain)
    }

    /// Objectives in their order, said as training says them.
    pub fn manner(&self) -> Manner {
        Manner { said: self.said, ..Manner::plain(self.objectives.len()) }
    }

    /// Where in a question its last text begins, behind what parts the turns of a conversation.
    pub fn last_text(&self, question: &[u32]) -> usize {
        question.iter().rposition(|token| self.special.binary_search(token).is_ok()).map_or(0, |n| n + 1)
    }

    /// What stands between two turns of a conversation, the first of which is `speaker`'s; nothing where they cannot be told apart.
    pub fn after_turn(&self, speaker: Speaker) -> Option<&[u32]> {
        let [user, assistant] = self.turns.as_ref()?;
        Some(if speaker == Speaker::Assistant { assistant } else { user })
    }

    /// The prompt that asks for nothing.
    pub fn bare(&self, question: &[u32]) -> Vec<u32> {
        [&self.bare[0], question, &self.bare[1]].concat()
    }

    /// Tokens before a question that asks for nothing.
    pub fn before_question(&self) -> usize {
        self.bare[0].len()
    }

    /// The preference in tags, in words, or in both.
    pub fn block(&self, preference: &Preference, manner: &Manner) -> String {
        let asked = || manner.order.iter().filter_map(|&i| preference.0[i].map(|class| (&self.objectives[i], class)));
        let tag = |(o, class): (&Objective, usize)| match self.added_tokens {
            true => o.tag(class),
            false => format!("{}={}/{}", o.id, class, o.class_count() - 1),
        };
        let tags = || asked().map(tag).collect::<Vec<_>>().join(if self.added_tokens { "" } else { " " });
        let words = |n: usize| asked().map(|(o, class)| o.said(class, n)).collect::<Vec<_>>().join(" ");
        match manner.said {
            _ if preference.active() == 0 => String::new(),
            Said::Tags => tags(),
            Said::Words(n) => words(n),
            Said::Both(n) => format!("{}\n{}", tags(), words(n)),
        }
    }
}

/// What a template puts between a user's turn and the assistant's, and between that and the user's next.
fn between_turns(template: &ChatTemplate) -> Option<[String; 2]> {
    const SAID: [&str; 3] = ["\u{E0A3}first\u{E0A3}", "\u{E0A4}second\u{E0A4}", "\u{E0A5}third\u{E0A5}"];
    let messages = [Message::new("user", SAID[0]), Message::new("assistant", SAID[1]), Message::new("user", SAID[2])];
    let text = template.render(&messages, false).ok()?;
    let [_, rest] = around(&text, SAID[0]).ok()?;
    let [first, rest] = around(&rest, SAID[1]).ok()?;
    let [second, _] = around(&rest, SAID[2]).ok()?;
    Some([first, second])
}

/// What stands before and after `mark`, which is there once.
fn around(text: &str, mark: &str) -> Result<[String; 2]> {
    let (before, after) = text.split_once(mark).context("the chat template leaves out what it is given")?;
    ensure!(!after.contains(mark), "the chat template says twice what it is given");
    if before.is_empty() && after.is_empty() {
        bail!("the chat template adds nothing to a question");
    }
    Ok([before.into(), after.into()])
}
