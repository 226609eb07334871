//! Tags as tokens of their own, added to the tokenizer of an off-the-shelf model.

use super::ids;
use anyhow::{Result, ensure};
use moslim_shared::objective::Objective;
use tokenizers::{AddedToken, Tokenizer};

/// Adds `tags` as the special tokens from `first` on: behind the embeddings that the model has, so that none of its outputs is one. Where
/// there are more embeddings than tokens, fillers come between, for tokens are numbered without gaps. What is there already stays.
///
/// # Errors
/// When a tag is another token already, or the tokenizer's own numbers have gaps.
pub fn add(inner: &mut Tokenizer, first: usize, tags: &[String]) -> Result<()> {
    if tags.is_empty() {
        return Ok(());
    }
    let used = inner.get_vocab(true).into_values().max().map_or(0, |last| last as usize + 1);
    // GGUF files call them so, too.
    let fillers = (used..first).map(|id| format!("[PAD{id}]"));
    let tokens: Vec<AddedToken> = fillers.chain(tags.iter().cloned()).map(|text| AddedToken::from(text, true)).collect();
    inner.add_special_tokens(&tokens);
    for (id, tag) in (first as u32..).zip(tags) {
        let found = inner.token_to_id(tag).unwrap_or_default();
        ensure!(found == id, "tokenizer: the tag {tag} cannot be added as token {id}: it is token {found}");
    }
    Ok(())
}

/// For the tag of every class, the tokens of what asks for the class in words: its first wording, or its name and label.
///
/// # Errors
/// When there is nothing that asks for a class.
pub fn words(inner: &Tokenizer, objectives: &[Objective]) -> Result<Vec<Vec<u32>>> {
    let classes = objectives.iter().flat_map(|o| (0..o.class_count()).map(move |class| (o, class)));
    let of = |(o, class): (&Objective, usize)| {
        let tokens = ids(inner, &o.said(class, 0))?;
        ensure!(!tokens.is_empty(), "tokenizer: the tag {} has no words to begin as", o.tag(class));
        Ok(tokens)
    };
    classes.map(of).collect()
}

impl super::Tokenizer {
    /// For every tag that was added to an off-the-shelf model's vocabulary, in order, the tokens that its embedding begins as the mean of.
    pub fn added(&self) -> &[Vec<u32>] {
        &self.added
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChatFormat, Manner, Said, Tokenizer};
    use moslim_shared::config::{TargetWording, WishPlace};
    use moslim_shared::objective::Objective;
    use moslim_shared::preference::Preference;

    const TAGS: [&str; 3] = ["<warmth=0>", "<warmth=1>", "<warmth=2>"];

    /// A file of a model with 290 tokens.
    fn file(name: &str) -> String {
        let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/llama3");
        std::fs::read_to_string(fixtures.join(name)).unwrap()
    }

    /// The tokenizer in `json` of that model, if it had 300 embeddings, with tags.
    fn tagged(json: &str, wishes: WishPlace) -> anyhow::Result<Tokenizer> {
        let format = ChatFormat {
            template: Some(file("chat_template.jinja")),
            bos: None,
            eos: "<|im_end|>".into(),
            vocabulary: 300,
            wishes,
            wording: TargetWording::Mixed,
            added_tokens: true,
        };
        let wordings: &[&[&str]] = &[&["Be plain."], &["Be kind.", "Be good."], &["Be warm.", "Be sweet."]];
        let warmth = Objective::new("warmth", "Warmth", "", &["plain", "kind", "warm"]).in_words(wordings);
        Tokenizer::chat(json, &format, &[warmth])
    }

    fn shelf(wishes: WishPlace) -> Tokenizer {
        tagged(&file("tokenizer.json"), wishes).unwrap()
    }

    /// A prompt that asks for a class.
    fn asked(tokenizer: &Tokenizer, question: &str, class: usize, said: Said) -> Vec<u32> {
        let question = tokenizer.question(question).unwrap();
        tokenizer.prompt(&question, &Preference(vec![Some(class)]), &Manner { order: vec![0], said }).unwrap()
    }

    /// Those of some tokens that the model does not have itself.
    fn others(tokens: &[u32]) -> Vec<u32> {
        tokens.iter().copied().filter(|&t| t >= 290).collect()
    }

    #[test]
    fn tags_are_single_tokens_behind_the_models_own_wherever_wishes_stand() {
        for wishes in [WishPlace::Question, WishPlace::System] {
            let tokenizer = shelf(wishes);
            assert_eq!((tokenizer.outputs(), tokenizer.vocabulary()), (300, 303));
            assert_eq!(TAGS.map(|tag| tokenizer.token(tag)), [Some(300), Some(301), Some(302)]);
            for (said, block) in [(Said::Tags, "<warmth=2>"), (Said::Both(0), "<warmth=2>\nBe warm.")] {
                let tokens = asked(&tokenizer, "What is tea?", 2, said);
                assert_eq!(others(&tokens), [302], "{said:?}");
                // As others cut it, who are given the whole text.
                let (system, below) = match wishes {
                    WishPlace::System => (block, String::new()),
                    WishPlace::Question => ("You help.", format!("\n\n{block}")),
                };
                let text = format!(
                    "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nWhat is tea?{below}<|im_end|>\n\
                     <|im_start|>assistant\n"
                );
                assert_eq!(tokens, super::ids(&tokenizer.others(), &text).unwrap(), "{text}");
            }
            assert!(others(&asked(&tokenizer, "What is tea?", 2, Said::Words(0))).is_empty(), "words have none");
            assert_eq!(tokenizer.wish(&Preference(vec![Some(1)])).unwrap(), "<warmth=1>\nBe kind.");
            let words = ["Be plain.", "Be kind.", "Be warm."].map(|text| tokenizer.encode(text).unwrap());
            assert_eq!(tokenizer.added(), &words[..]);
            // A run's file has the tags, and is read as it was.
            let again = tagged(&tokenizer.to_json().unwrap(), wishes).unwrap();
            let both = [&again, &tokenizer].map(|t| asked(t, "What is tea?", 1, Said::Both(0)));
            assert_eq!(both[0], both[1]);
        }
    }

    #[test]
    fn a_prompt_is_shown_token_by_token() {
        let tokenizer = shelf(WishPlace::Question);
        let tokens = asked(&tokenizer, "What is tea \u{1F375}, <|im_end|>?", 2, Said::Both(0));
        let read = tokenizer.reading(&tokens, 64).unwrap();
        assert_eq!((read.pieces.len(), read.context), (tokens.len(), 64));
        let text = "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nWhat is tea \u{1F375}, <|im_end|>?\n\n\
                    <warmth=2>\nBe warm.<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!((read.pieces.concat(), tokenizer.spelt(&tokens).unwrap()), (text.to_string(), text.to_string()));
        // The end that somebody wrote is none of them.
        let special: Vec<&str> = read.special.iter().map(|&n| read.pieces[n].as_str()).collect();
        let roles = ["<|im_start|>", "<|im_end|>", "<|im_start|>"];
        assert_eq!(special, [&roles[..], &["<warmth=2>", "<|im_end|>", "<|im_start|>"]].concat());
    }

    #[test]
    fn what_people_write_is_never_a_tag() {
        let tokenizer = shelf(WishPlace::Question);
        let text = "Make tea <warmth=2> and [PAD295]";
        let question = tokenizer.question(text).unwrap();
        assert_eq!((others(&question), tokenizer.decode(&question).unwrap()), (vec![], text.to_string()));
        assert_eq!(others(&asked(&tokenizer, text, 1, Said::Tags)), [301], "the one that was asked for");
        let talk = tokenizer.question("\n\nHuman: Hi <warmth=0>\n\nAssistant: <warmth=1>\n\nHuman: Tea?").unwrap();
        assert!(others(&talk).is_empty(), "{talk:?}");
    }

    #[test]
    fn a_tag_that_is_a_token_already_is_refused() {
        let mut other: serde_json::Value = serde_json::from_str(&file("tokenizer.json")).unwrap();
        let mut token = other["added_tokens"][0].clone();
        (token["id"], token["content"]) = (serde_json::json!(290), serde_json::json!("<warmth=1>"));
        other["added_tokens"].as_array_mut().unwrap().push(token);
        let error = tagged(&other.to_string(), WishPlace::Question).unwrap_err().to_string();
        assert!(error.contains("the tag <warmth=1> cannot be added as token 301: it is token 290"), "{error}");
    }
}
