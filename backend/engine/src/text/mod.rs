//! Text: the tokenizer, and how a question, tags and an answer become tokens.
//!
//! A sequence is `<user>` tags question `<assistant>` answer `<eos>`. Every preference tag is one token. Tokens that a
//! model only ever reads (roles, tags) come last in the vocabulary, so the output layer ends before them.

pub mod chat;
pub mod corpus;

use crate::data::Splits;
use anyhow::{Context, Result, anyhow, ensure};
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use std::path::Path;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

const EOS: &str = "<eos>";
const USER: &str = "<user>";
const ASSISTANT: &str = "<assistant>";

/// A Hugging Face tokenizer with the special tokens of the lab.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pub eos: u32,
    pub user: u32,
    assistant: u32,
    /// `tags[objective][class]`
    tags: Vec<Vec<u32>>,
}

/// Turns the library's boxed errors into ours.
fn library(error: tokenizers::Error) -> anyhow::Error {
    anyhow!("tokenizer: {error}")
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
        let tags = objectives.iter().flat_map(|o| (0..o.class_count()).map(|c| o.tag(c)));
        let special: Vec<AddedToken> =
            [EOS, USER, ASSISTANT].map(String::from).into_iter().chain(tags).map(|t| AddedToken::from(t, true)).collect();
        inner.add_special_tokens(&special);
        Self::with_specials(inner, objectives)
    }

    fn with_specials(inner: tokenizers::Tokenizer, objectives: &[Objective]) -> Result<Self> {
        let id = |token: &str| inner.token_to_id(token).ok_or_else(|| anyhow!("the tokenizer has no token \"{token}\""));
        let tags = objectives
            .iter()
            .map(|o| (0..o.class_count()).map(|c| id(&o.tag(c))).collect::<Result<Vec<_>>>())
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { eos: id(EOS)?, user: id(USER)?, assistant: id(ASSISTANT)?, tags, inner })
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When it is missing or damaged, or has no tag for a class; the message names the file.
    pub fn load(file: &Path, objectives: &[Objective]) -> Result<Self> {
        let inner =
            tokenizers::Tokenizer::from_file(file).map_err(library).with_context(|| format!("reading {}", file.display()))?;
        Self::with_specials(inner, objectives).with_context(|| format!("reading {}", file.display()))
    }

    /// The content of a `tokenizer.json`.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(true).map_err(library)
    }

    /// Entries of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Entries that a model may write: everything up to the end-of-sequence token.
    pub fn outputs(&self) -> usize {
        self.eos as usize + 1
    }

    /// Every tag's token.
    pub fn tag_tokens(&self) -> impl Iterator<Item = u32> + '_ {
        self.tags.iter().flatten().copied()
    }

    /// Tokens of plain text. Special tokens that a user wrote into the text stay text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        // A user's "<eos>" must not end the sequence: break the pattern of special tokens, which all start with '<'.
        let safe = text.replace('<', "< ");
        Ok(self.inner.encode(safe.as_str(), false).map_err(library)?.get_ids().to_vec())
    }

    /// Text of answer tokens; stops at the end of the sequence.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let end = tokens.iter().position(|&t| t == self.eos).unwrap_or(tokens.len());
        Ok(self.inner.decode(&tokens[..end], true).map_err(library)?.trim_start().to_string())
    }

    /// `<user>` tags question `<assistant>`. The tags stand in the order of `order`, a permutation of the objectives.
    pub fn prompt(&self, question: &[u32], preference: &Preference, order: &[usize]) -> Vec<u32> {
        let mut out = vec![self.user];
        out.extend(order.iter().filter_map(|&i| preference.0[i].map(|class| self.tags[i][class])));
        out.extend_from_slice(question);
        out.push(self.assistant);
        out
    }

    /// `<user>` scores question `<assistant>`: one number for each objective as text, `.` where none is asked for (RiC).
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn scored_prompt(&self, question: &[u32], scores: &[Option<f64>]) -> Result<Vec<u32>> {
        let text: Vec<String> = scores.iter().map(|s| s.map_or(".".into(), |s| format!("{:.1}", s.clamp(-9.9, 9.9)))).collect();
        let mut out = vec![self.user];
        out.extend(self.encode(&text.join(" "))?);
        out.extend_from_slice(question);
        out.push(self.assistant);
        Ok(out)
    }

    /// `<user>` question `<assistant>`, as SFT and the reward model see it.
    pub fn untagged_prompt(&self, question: &[u32]) -> Vec<u32> {
        self.prompt(question, &Preference(Vec::new()), &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Task, world};
    use moslim_shared::config::TaskConfig;

    fn tokenizer() -> (Tokenizer, Splits) {
        let splits = Task::load(&TaskConfig { rows: 4_000, ..Default::default() }).unwrap().splits;
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
        let preference = Preference(vec![Some(4), None, None, Some(0)]);
        let a = tokenizer.prompt(&question, &preference, &[0, 1, 2, 3]);
        let b = tokenizer.prompt(&question, &preference, &[3, 2, 1, 0]);
        assert_eq!(a.len(), question.len() + 4);
        assert_eq!((a[1], a[2]), (b[2], b[1]));
        assert_eq!(tokenizer.untagged_prompt(&question).len(), question.len() + 2);
    }

    #[test]
    fn a_saved_tokenizer_is_the_same() {
        let (tokenizer, _) = tokenizer();
        let file = std::env::temp_dir().join(format!("moslim-tokenizer-{}.json", std::process::id()));
        std::fs::write(&file, tokenizer.to_json().unwrap()).unwrap();
        let loaded = Tokenizer::load(&file, &world::objectives()).unwrap();
        std::fs::write(&file, "{}").unwrap();
        let error = format!("{:#}", Tokenizer::load(&file, &world::objectives()).unwrap_err());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(loaded.encode("Boil fresh water.").unwrap(), tokenizer.encode("Boil fresh water.").unwrap());
        assert!(error.contains("moslim-tokenizer"), "{error}");
    }
}
