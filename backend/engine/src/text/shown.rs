//! What people are shown of tokens: the text of all of them, and of each.

use super::{Tokenizer, library};
use anyhow::Result;
use moslim_shared::inference::Reading;

impl Tokenizer {
    /// Text of all tokens, special ones spelt out, as people are shown what a model reads.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn spelt(&self, tokens: &[u32]) -> Result<String> {
        self.inner.decode(tokens, false).map_err(library)
    }

    /// The same text, cut where a token ends, for a model with room for `context` tokens. A token that ends within a character has
    /// nothing, and the one that ends it all of it.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn reading(&self, tokens: &[u32], context: usize) -> Result<Reading> {
        let mut stream = self.inner.decode_stream(false);
        let pieces: Result<Vec<String>> =
            tokens.iter().map(|&token| Ok(stream.step(token).map_err(library)?.unwrap_or_default())).collect();
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let is_special = |token: u32| added.get(&token).is_some_and(|own| own.special);
        let special = (0..tokens.len()).filter(|&n| is_special(tokens[n])).collect();
        Ok(Reading { pieces: pieces?, special, context })
    }
}
