//! Text: the tokenizer, and how a question, a preference and an answer become tokens.
//!
//! A sequence of the lab's own models is `<user>` tags question `<assistant>` answer `<eos>`. Every preference tag is one token.
//! Tokens that such a model only ever reads (roles, tags) come last in the vocabulary, so the output layer ends before them. An
//! off-the-shelf model has its own tokenizer and chat template, and reads preferences below the question or in the system message: words, and
//! tags that are text, or tokens that are added behind its vocabulary.

mod added;
pub mod chat;
pub mod corpus;
mod frame;
mod numbers;
mod shown;

pub use frame::{ChatFormat, Manner, Said, UNSEEN};

use crate::data::Splits;
use anyhow::{Context, Result, anyhow, ensure};
use frame::Chat;
use moslim_shared::config::WishPlace;
use moslim_shared::dialogue::{Speaker, turns};
use moslim_shared::objective::{Objective, tags};
use moslim_shared::preference::Preference;
use std::str::FromStr;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

const EOS: &str = "<eos>";
const USER: &str = "<user>";
const ASSISTANT: &str = "<assistant>";

/// A Hugging Face tokenizer, and what it puts around questions.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    /// Special tokens in texts stay text.
    inner: tokenizers::Tokenizer,
    pub eos: u32,
    vocabulary: usize,
    outputs: usize,
    frame: Frame,
    added: Vec<Vec<u32>>,
}

#[derive(Clone, Debug)]
enum Frame {
    /// The lab's own.
    Own {
        user: u32,
        assistant: u32,
        /// `tags[objective][class]`
        tags: Vec<Vec<u32>>,
    },
    Chat(Box<Chat>),
}

/// Turns the library's boxed errors into ours.
fn library(error: tokenizers::Error) -> anyhow::Error {
    anyhow!("tokenizer: {error}")
}

/// Tokens of a text, as `inner` cuts it.
fn ids(inner: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>> {
    Ok(inner.encode(text, false).map_err(library)?.get_ids().to_vec())
}

/// The tokenizer that a `tokenizer.json` describes, for a model with embeddings of `vocabulary` entries.
///
/// # Errors
/// When it cannot be read, or has tokens that the model has no embedding for.
pub fn tokenizer(json: &str, vocabulary: usize) -> Result<tokenizers::Tokenizer> {
    let inner: tokenizers::Tokenizer = json.parse().map_err(library)?;
    let largest = inner.get_vocab(true).into_values().max().unwrap_or(0);
    let fits = (largest as usize) < vocabulary;
    ensure!(fits, "tokenizer: has a token {largest}; the model has embeddings for 0 to {}", vocabulary.saturating_sub(1));
    Ok(inner)
}

impl Tokenizer {
    /// Trains a byte-level BPE of at most `vocabulary` entries on the training rows' texts, and adds the special tokens
    /// and one tag per (objective, class).
    pub fn train(vocabulary: usize, splits: &Splits, objectives: &[Objective]) -> Result<Self> {
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocabulary)
            .min_frequency(2)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        // A prefix space makes a word the same token at the beginning of a text and within it.
        let byte_level = ByteLevel::new(true, true, true);
        let mut inner = TokenizerBuilder::default()
            .with_model(BPE::default())
            .with_normalizer(None::<tokenizers::NormalizerWrapper>)
            .with_pre_tokenizer(Some(byte_level))
            .with_post_processor(Some(byte_level))
            .with_decoder(Some(byte_level))
            .build()
            .map_err(library)?;
        let texts = splits
            .train
            .iter()
            .take(20_000)
            .chain(splits.text_only.iter().take(10_000))
            .flat_map(|r| [r.question.as_str(), r.answer.as_str()]);
        inner.train(&mut trainer, texts.collect::<Vec<_>>().into_iter()).map_err(library)?;
        let json = inner.to_string(false).map_err(library)?;
        let mut inner: tokenizers::Tokenizer = json.parse().map_err(library)?;
        let special = [EOS, USER, ASSISTANT].map(String::from).into_iter().chain(tags(objectives));
        let special: Vec<AddedToken> = special.map(|t| AddedToken::from(t, true)).collect();
        inner.add_special_tokens(&special);
        Self::with_specials(inner, objectives)
    }

    fn with_specials(mut inner: tokenizers::Tokenizer, objectives: &[Objective]) -> Result<Self> {
        // A user's "<eos>" must not end the sequence.
        inner.set_encode_special_tokens(true);
        let id = |token: &str| inner.token_to_id(token).ok_or_else(|| anyhow!("the tokenizer has no token \"{token}\""));
        let tags = objectives
            .iter()
            .map(|o| (0..o.class_count()).map(|c| id(&o.tag(c))).collect::<Result<Vec<_>>>())
            .collect::<Result<Vec<_>>>()?;
        let (eos, vocabulary) = (id(EOS)?, inner.get_vocab_size(true));
        let frame = Frame::Own { user: id(USER)?, assistant: id(ASSISTANT)?, tags };
        // What may be written is everything up to the end-of-sequence token.
        Ok(Self { eos, vocabulary, outputs: eos as usize + 1, frame, inner, added: Vec::new() })
    }

    /// The tokenizer of an off-the-shelf model, with its chat template. `json`: its `tokenizer.json`, or that of a run, in which tags are.
    ///
    /// # Errors
    /// When it cannot be read, does not fit the model, tags cannot be added, or its template cannot be taken apart.
    pub fn chat(json: &str, format: &ChatFormat, objectives: &[Objective]) -> Result<Self> {
        let tags = if format.added_tokens { tags(objectives) } else { Vec::new() };
        let (outputs, vocabulary) = (format.vocabulary, format.vocabulary + tags.len());
        let mut inner = tokenizer(json, vocabulary)?;
        added::add(&mut inner, outputs, &tags)?;
        let eos = &format.eos;
        let eos = inner.token_to_id(eos).with_context(|| format!("tokenizer: has no token \"{eos}\", which ends an answer"))?;
        let frame = Frame::Chat(Box::new(Chat::new(format, &inner, objectives)?));
        inner.set_encode_special_tokens(true);
        let added = if format.added_tokens { added::words(&inner, objectives)? } else { Vec::new() };
        Ok(Self { eos, vocabulary, outputs, frame, inner, added })
    }

    /// Reads the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// When it is damaged, or has no tag for a class.
    pub fn from_json(json: &str, objectives: &[Objective]) -> Result<Self> {
        Self::with_specials(tokenizers::Tokenizer::from_str(json).map_err(library)?, objectives)
    }

    /// The content of a `tokenizer.json`.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(true).map_err(library)
    }

    /// The number of the token that is written like this, if there is one.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// Entries of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The first of them, which a model may write.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Every tag's token of a model of the lab's own, and the token that they are first read like; none of an off-the-shelf model.
    pub fn tag_tokens(&self) -> Option<(Vec<u32>, u32)> {
        match &self.frame {
            Frame::Own { user, tags, .. } => Some((tags.iter().flatten().copied().collect(), *user)),
            Frame::Chat(_) => None,
        }
    }

    /// The tokenizer as others have it, who read special tokens wherever they stand in a text.
    pub fn others(&self) -> tokenizers::Tokenizer {
        let mut inner = self.inner.clone();
        inner.set_encode_special_tokens(false);
        inner
    }

    /// Tokens of plain text. Special tokens that a user wrote into the text stay text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.frame {
            Frame::Chat(chat) if chat.trims => ids(&self.inner, text.trim()),
            _ => ids(&self.inner, text),
        }
    }

    /// Tokens of a question. Turns of a conversation stand in it as they would in any: between roles, or as the template puts them.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn question(&self, text: &str) -> Result<Vec<u32>> {
        let mut turns = turns(text);
        // What a system said begins what the user says: the place of the system is where preferences stand.
        if turns.len() > 1 && turns[0].speaker == Speaker::System {
            let told = turns.remove(0).text;
            turns[0].text = format!("{told}\n\n{}", turns[0].text);
        }
        let mut out = Vec::new();
        for (n, turn) in turns.iter().enumerate() {
            if n > 0 {
                let before = turns[n - 1].speaker;
                match &self.frame {
                    Frame::Own { assistant, .. } if before != Speaker::Assistant => out.push(*assistant),
                    Frame::Own { user, .. } => out.extend([self.eos, *user]),
                    Frame::Chat(chat) => match chat.after_turn(before) {
                        Some(between) => out.extend(between),
                        None => return self.encode(text),
                    },
                }
            }
            out.extend(self.encode(&turn.text)?);
        }
        Ok(out)
    }

    /// Text of answer tokens; stops at the end of the sequence.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let end = tokens.iter().position(|&t| t == self.eos).unwrap_or(tokens.len());
        Ok(self.inner.decode(&tokens[..end], true).map_err(library)?.trim_start().to_string())
    }

    /// The prompt that asks a question for what `preference` says, in that manner.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn prompt(&self, question: &[u32], preference: &Preference, manner: &Manner) -> Result<Vec<u32>> {
        match &self.frame {
            Frame::Chat(chat) => chat.asking(question, preference, manner, &self.inner),
            Frame::Own { user, assistant, tags } => {
                let asked = manner.order.iter().filter_map(|&i| preference.0[i].map(|class| tags[i][class]));
                Ok(std::iter::once(*user).chain(asked).chain(question.iter().copied()).chain([*assistant]).collect())
            }
        }
    }

    /// How a wish of `objectives` objectives is said unless somebody wants it otherwise.
    pub fn manner(&self, objectives: usize) -> Manner {
        match &self.frame {
            Frame::Chat(chat) => chat.manner(),
            Frame::Own { .. } => Manner::plain(objectives),
        }
    }

    /// What a prompt says of a preference, in the manner that training chose; nothing for a model of the lab's own.
    pub fn wish(&self, preference: &Preference) -> Option<String> {
        match &self.frame {
            Frame::Chat(chat) => Some(chat.block(preference, &chat.manner())),
            Frame::Own { .. } => None,
        }
    }

    /// Whether wishes are words, or tags that are text or begin as words do: a model may understand them before it is trained.
    pub fn reads_text(&self) -> bool {
        matches!(self.frame, Frame::Chat(_))
    }

    /// Where wishes stand in prompts of an off-the-shelf model.
    pub fn wishes(&self) -> WishPlace {
        match &self.frame {
            Frame::Chat(chat) => chat.wishes,
            Frame::Own { .. } => WishPlace::System,
        }
    }

    /// The prompt that also says `text`, in the place where preferences stand.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn prompt_after(&self, text: &str, question: &[u32]) -> Result<Vec<u32>> {
        match &self.frame {
            Frame::Chat(chat) => chat.prompt(question, text, false, &self.inner),
            Frame::Own { .. } => Ok(self.untagged_prompt(&[&self.encode(text)?, question].concat())),
        }
    }

    /// The prompt that asks for nothing, as SFT and the reward model see it.
    pub fn untagged_prompt(&self, question: &[u32]) -> Vec<u32> {
        match &self.frame {
            Frame::Chat(chat) => chat.bare(question),
            Frame::Own { user, assistant, .. } => [&[*user], question, &[*assistant]].concat(),
        }
    }

    /// Most tokens by which a preference makes a prompt longer.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn longest_preference(&self, objectives: &[Objective]) -> Result<usize> {
        let Frame::Chat(_) = &self.frame else { return Ok(objectives.len()) };
        let without = self.prompt_after(".", &[])?.len() - 1;
        let mut sum = without.saturating_sub(self.framing());
        for (i, o) in objectives.iter().enumerate() {
            let mut longest = 0;
            for class in 0..o.class_count() {
                for n in 0..=o.wordings.get(class).map_or(0, Vec::len) {
                    let mut preference = Preference::none(objectives.len());
                    preference.0[i] = Some(class);
                    let prompt = self.prompt(&[], &preference, &Manner { order: vec![i], said: Said::Both(n) })?;
                    longest = longest.max(prompt.len());
                }
            }
            sum += longest.saturating_sub(without);
        }
        Ok(sum)
    }

    /// Tokens before the question in a prompt that asks for nothing.
    pub fn before_question(&self) -> usize {
        match &self.frame {
            Frame::Chat(chat) => chat.before_question(),
            Frame::Own { .. } => 1,
        }
    }

    /// Tokens around a question in a prompt that asks for nothing.
    pub fn framing(&self) -> usize {
        self.untagged_prompt(&[]).len()
    }
}

#[cfg(test)]
mod tests {
    use super::chat::{ChatTemplate, Message};
    use super::*;
    use crate::data::{Task, world};
    use moslim_shared::config::TargetWording;
    use moslim_shared::config::TaskConfig;
    use std::path::Path;

    fn tokenizer() -> (Tokenizer, Splits) {
        let splits = Task::load(&TaskConfig { rows: 4_000, ..Default::default() }, &|_| Ok(None)).unwrap().splits;
        (Tokenizer::train(1_024, &splits, &world::objectives()).unwrap(), splits)
    }

    #[test]
    fn texts_survive_the_round_trip_and_training_is_deterministic() {
        let (tokenizer, splits) = tokenizer();
        assert_eq!(tokenizer.to_json().unwrap(), self::tokenizer().0.to_json().unwrap());
        let mut tokens = 0;
        for row in &splits.test {
            let ids = tokenizer.encode(&row.answer).unwrap();
            tokens += ids.len();
            assert!(ids.iter().all(|&t| (t as usize) < tokenizer.outputs()));
            assert_eq!(tokenizer.decode(&ids).unwrap(), row.answer);
        }
        let words: usize = splits.test.iter().map(|r| r.answer.split_whitespace().count()).sum();
        assert!((tokens as f64) < 1.6 * words as f64, "{tokens} tokens for {words} words");
        let odd = "漢字 \u{1F600} x\ty";
        assert_eq!(tokenizer.decode(&tokenizer.encode(odd).unwrap()).unwrap(), odd);
    }

    #[test]
    fn tags_are_single_tokens_that_no_text_can_forge() {
        let (tokenizer, _) = tokenizer();
        let question = tokenizer.encode("make tea <helpfulness=4> <eos>").unwrap();
        assert!(question.iter().all(|&t| t < tokenizer.eos));
        assert_eq!(tokenizer.decode(&question).unwrap(), "make tea <helpfulness=4> <eos>");
        let preference = Preference(vec![Some(4), None, None, Some(0)]);
        let asked = |order: [usize; 4]| {
            tokenizer.prompt(&question, &preference, &Manner { order: order.to_vec(), said: Said::Tags }).unwrap()
        };
        let (a, b) = (asked([0, 1, 2, 3]), asked([3, 2, 1, 0]));
        assert_eq!(a.len(), question.len() + 4);
        assert_eq!((a[1], a[2]), (b[2], b[1]));
        assert_eq!(tokenizer.untagged_prompt(&question).len(), question.len() + 2);
        let (hi, yes) = (tokenizer.encode("Hi").unwrap(), tokenizer.encode("Yes?").unwrap());
        let Frame::Own { user, assistant, .. } = tokenizer.frame else { panic!("it is the lab's own") };
        let talk = tokenizer.question("\n\nSystem: Hi\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Hi").unwrap();
        let told = tokenizer.encode("Hi\n\nHi").unwrap();
        assert_eq!(talk, [&told[..], &[assistant], &yes, &[tokenizer.eos, user], &hi].concat());
    }

    /// The tokenizer of a fixture, whose tokens for two conversations transformers has written down.
    #[test]
    fn a_prompt_in_pieces_is_the_prompt_of_the_template() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/llama3");
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let format = ChatFormat {
            template: Some(text("chat_template.jinja")),
            bos: Some("<|im_start|>".into()),
            eos: "<|im_end|>".into(),
            vocabulary: 300,
            wishes: WishPlace::System,
            wording: TargetWording::Tags,
            added_tokens: false,
        };
        let objectives =
            [Objective::new("warmth", "Warmth", "", &["plain", "warm"]).in_words(&[&["Be plain."], &["Be warm.", "Be kind."]])];
        let tokenizer = Tokenizer::chat(&text("tokenizer.json"), &format, &objectives).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&text("expected.json")).unwrap();
        let chats = expected["chats"].as_array().unwrap();
        // The first is plain; in the second someone has written what ends an answer, and it stays text.
        let plain = tokenizer.untagged_prompt(&tokenizer.encode(chats[0]["question"].as_str().unwrap()).unwrap());
        assert_eq!(serde_json::json!(plain), chats[0]["tokens"]);
        let odd = tokenizer.encode(chats[1]["question"].as_str().unwrap()).unwrap();
        assert!(!odd.contains(&tokenizer.eos) && tokenizer.decode(&odd).unwrap() == "Say <|im_end|> and {{ this }}");
        let question = tokenizer.encode("What is tea?").unwrap();
        let said = |class, said| {
            let manner = Manner { order: vec![0], said };
            let tokens = tokenizer.prompt(&question, &Preference(vec![class]), &manner).unwrap();
            tokenizer.inner.decode(&tokens, false).unwrap()
        };
        // A conversation stands in the prompt as the template would put it.
        let talk = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: What is tea?";
        let several = tokenizer.untagged_prompt(&tokenizer.question(talk).unwrap());
        let template = ChatTemplate::new(format.template.as_deref().unwrap(), Some("<|im_start|>"), Some("<|im_end|>")).unwrap();
        let messages = [("user", "Hi"), ("assistant", "Yes?"), ("user", "What is tea?")].map(|(r, c)| Message::new(r, c));
        let rendered = template.render(&messages, false).unwrap();
        let ids = super::tokenizer(&self::tests_json(&folder), 300).unwrap().encode(rendered, false).unwrap().get_ids().to_vec();
        assert_eq!(several, ids);
        assert_eq!(tokenizer.question("What is tea?").unwrap(), question);
        let whole = |block: &str| {
            format!("<|im_start|>system\n{block}<|im_end|>\n<|im_start|>user\nWhat is tea?<|im_end|>\n<|im_start|>assistant\n")
        };
        let decoded = |text: String| {
            let Frame::Chat(_) = &tokenizer.frame else { panic!("it has a template") };
            let ids = super::tokenizer(&self::tests_json(&folder), 300).unwrap().encode(text, false).unwrap().get_ids().to_vec();
            tokenizer.inner.decode(&ids, false).unwrap()
        };
        assert_eq!(said(Some(1), Said::Tags), decoded(whole("warmth=1/1")));
        assert_eq!(said(Some(1), Said::Words(0)), decoded(whole("Be warm.")));
        assert_eq!(said(Some(1), Said::Words(UNSEEN)), decoded(whole("Be kind.")));
        assert_eq!(said(Some(0), Said::Both(0)), decoded(whole("warmth=0/1\nBe plain.")));
        // Below the question, and in the words of training.
        let format = ChatFormat { wishes: WishPlace::Question, wording: TargetWording::Words, ..format };
        let below = Tokenizer::chat(&text("tokenizer.json"), &format, &objectives).unwrap();
        let prompt = below.prompt(&question, &Preference(vec![Some(1)]), &below.manner(1)).unwrap();
        assert_eq!(
            below.inner.decode(&prompt, false).unwrap(),
            decoded("<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nWhat is tea?\n\nBe warm.<|im_end|>\n<|im_start|>assistant\n".into())
        );
        assert_eq!(below.prompt(&question, &Preference(vec![None]), &below.manner(1)).unwrap(), below.untagged_prompt(&question));
        // What a card or a person is told is what a prompt says.
        let warm = Preference(vec![Some(1)]);
        let mixed = Tokenizer::chat(
            &text("tokenizer.json"),
            &ChatFormat { wording: TargetWording::Mixed, ..format.clone() },
            &objectives,
        );
        let wishes = [&tokenizer, &below, &mixed.unwrap()].map(|t| t.wish(&warm).unwrap());
        assert_eq!(wishes, ["warmth=1/1", "Be warm.", "warmth=1/1\nBe warm."]);
        assert_eq!((tokenizer.manner(1).said, below.wishes()), (Said::Tags, WishPlace::Question));
        assert_eq!(said(None, Said::Words(0)), tokenizer.inner.decode(&tokenizer.untagged_prompt(&question), false).unwrap());
    }

    fn tests_json(folder: &Path) -> String {
        std::fs::read_to_string(folder.join("tokenizer.json")).unwrap()
    }

    #[test]
    fn a_saved_tokenizer_is_the_same() {
        let (tokenizer, _) = tokenizer();
        let loaded = Tokenizer::from_json(&tokenizer.to_json().unwrap(), &world::objectives()).unwrap();
        assert_eq!(loaded.encode("Boil fresh water.").unwrap(), tokenizer.encode("Boil fresh water.").unwrap());
        assert!(Tokenizer::from_json("{}", &world::objectives()).is_err());
        let tagged = tokenizer.untagged_prompt(&tokenizer.encode("Boil").unwrap());
        assert_eq!(tokenizer.spelt(&tagged).unwrap(), "<user> Boil<assistant>");
        // A character of four bytes is several tokens, of which the last has all of it.
        let strange = tokenizer.untagged_prompt(&tokenizer.encode("Boil \u{1F375} now").unwrap());
        let pieces = tokenizer.reading(&strange, 64).unwrap().pieces;
        assert_eq!((pieces.len(), pieces.concat()), (strange.len(), tokenizer.spelt(&strange).unwrap()));
        assert!(pieces.contains(&"<assistant>".into()) && pieces.iter().any(String::is_empty), "{pieces:?}");
        // Of what people write nothing is marked as special, whatever it looks like.
        let question = tokenizer.encode("Boil <verbosity=0> <eos>").unwrap();
        let preference = Preference(vec![Some(4), None, None, Some(0)]);
        let asked = tokenizer.prompt(&question, &preference, &tokenizer.manner(4)).unwrap();
        let read = tokenizer.reading(&asked, 64).unwrap();
        assert_eq!((read.pieces.concat(), read.context), (tokenizer.spelt(&asked).unwrap(), 64));
        assert_eq!(read.special, [0, 1, 2, asked.len() - 1]);
        let special = read.special.iter().map(|&n| read.pieces[n].as_str()).collect::<Vec<_>>();
        assert_eq!(special, ["<user>", "<helpfulness=4>", "<verbosity=0>", "<assistant>"]);
    }
}
