//! Sequences laid end to end: no padding, and what several sequences begin with is there once.
//!
//! A group is a prompt followed by answers to it. Every answer attends to the prompt and to itself, never to its
//! neighbours, so eight answers to one prompt cost one reading of the prompt.

use super::architecture::Architecture;
use super::kernels::Kernels;
use super::span::Span;
use crate::ranks;
use rayon::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A prompt and answers to it, as tokens.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    pub prompt: &'a [u32],
    /// An answer may be empty.
    pub answers: Vec<&'a [u32]>,
}

impl Group<'_> {
    /// Tokens of prompt and answers.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.answers.iter().map(|a| a.len()).sum::<usize>()
    }
}

/// Groups laid end to end.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    pub tokens: Vec<u32>,
    pub spans: Vec<Span>,
}

impl Packed {
    /// Lays out `groups`. Prompts must not be empty.
    pub fn new(groups: &[Group]) -> Self {
        let mut packed = Self::default();
        for group in groups {
            assert!(!group.prompt.is_empty(), "a prompt has at least one token");
            let prompt = packed.push(group.prompt);
            let answers = group.answers.iter().map(|a| packed.push(a)).collect();
            packed.spans.push(Span { prompt, answers });
        }
        packed
    }

    /// For every answer token, answer after answer: the position it is predicted from, and the token itself.
    pub fn answer_tokens(&self) -> (Vec<u32>, Vec<u32>) {
        let (mut positions, mut targets) = (Vec::new(), Vec::new());
        for span in &self.spans {
            for answer in span.answers.iter().filter(|a| !a.is_empty()) {
                // The first token follows the prompt, each other one its neighbour.
                positions.push((span.prompt.end - 1) as u32);
                positions.extend((answer.start..answer.end - 1).map(|t| t as u32));
                targets.extend_from_slice(&self.tokens[answer.clone()]);
            }
        }
        (positions, targets)
    }

    fn push(&mut self, tokens: &[u32]) -> Range<usize> {
        let from = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        from..self.tokens.len()
    }
}

/// Tokens of a piece on devices with a memory of their own; 0 until [`fit_pieces`] has set it.
static FITTED: AtomicUsize = AtomicUsize::new(0);

/// Most tokens of a piece.
fn piece_tokens<B: Kernels>() -> usize {
    match FITTED.load(Ordering::Relaxed) {
        // Pieces of the CPU fit into a cache, not into memory.
        n if n > 0 && !B::THREADED => n,
        _ => B::CHUNK_TOKENS,
    }
}

/// Answers that are sampled at once on such devices; 0 until [`fit_pieces`] has set it.
static FITTED_ROWS: AtomicUsize = AtomicUsize::new(0);

/// Most answers that are sampled at once; on the CPU, by one thread.
pub fn rows_together<B: Kernels>() -> usize {
    match FITTED_ROWS.load(Ordering::Relaxed) {
        n if n > 0 && !B::THREADED => n,
        _ => B::CHUNK_ROWS,
    }
}

/// Makes pieces so large that training the largest of `models`, which read at most `context` tokens, on one takes at most half of `free`
/// bytes of the device's memory, and sampling no more; tells how many tokens and how many answers; `None` on the CPU. Powers of
/// two, so that a little more or less free memory changes nothing. For the whole process: it trains one run.
pub fn fit_pieces<B: Kernels>(models: &[Architecture], context: usize, free: u64) -> Option<[usize; 2]> {
    if B::THREADED {
        return None;
    }
    let fitted = |bytes: fn(&Architecture, usize) -> usize, least: usize, most: usize| {
        let largest = models.iter().map(|model| bytes(model, context)).max()?;
        Some(1 << (free as usize / 2 / largest).clamp(least, most).ilog2())
    };
    let tokens = fitted(training_bytes, SMALLEST_PIECE, LARGEST_PIECE)?;
    let rows = fitted(sampling_bytes, FEWEST_ROWS, MOST_ROWS)?;
    FITTED.store(tokens, Ordering::Relaxed);
    FITTED_ROWS.store(rows, Ordering::Relaxed);
    Some([tokens, rows])
}

/// Fewest and most tokens of a fitted piece.
const SMALLEST_PIECE: usize = 512;
const LARGEST_PIECE: usize = 1 << 17;

/// Fewest and most answers that are sampled at once on a device with a memory of its own.
const FEWEST_ROWS: usize = 8;
const MOST_ROWS: usize = 4096;

/// Bytes that one token takes while a model is trained with burn's own operations, roughly: what every operation keeps for
/// its gradient. The gradients on their way, weights and optimiser have the other half of the memory.
fn training_bytes(model: &Architecture, context: usize) -> usize {
    // Scores before and after the mask and after the softmax, for keys that fill half the context.
    let scores = 3 * model.heads * context / 2;
    let layer = 10 * model.d_model + 4 * model.qkv_dim() + 8 * model.d_ff + scores;
    4 * (model.layers * layer + 3 * model.outputs)
}

/// Bytes that one answer takes while it is sampled, roughly: keys and values of a whole context, which are copied as they grow, and
/// the scores of the next token.
fn sampling_bytes(model: &Architecture, context: usize) -> usize {
    let keys_and_values = 2 * model.kv_heads * model.head_dim * context;
    4 * (2 * model.layers * keys_and_values + 3 * model.outputs)
}

/// Cuts `items` into consecutive chunks of nearly equal size, at most about a piece's tokens each (`tokens(item)`).
/// An even number of them, so that two threads end together. The cut does not depend on the number of threads.
pub fn chunks<B: Kernels, T>(items: &[T], tokens: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let total: usize = items.iter().map(&tokens).sum();
    let wanted = even_pieces::<B>(total, piece_tokens::<B>());
    let mut out = Vec::new();
    let (mut from, mut sum) = (0, 0);
    for (i, item) in items.iter().enumerate() {
        let size = tokens(item);
        // An item belongs to the piece in which its middle lies.
        if i > from && (sum + size / 2) * wanted >= total * (out.len() + 1) {
            out.push(&items[from..i]);
            from = i;
        }
        sum += size;
    }
    if from < items.len() {
        out.push(&items[from..]);
    }
    out
}

/// Into how many pieces of at most `most` to cut work of size `total`.
pub fn even_pieces<B: Kernels>(total: usize, most: usize) -> usize {
    let pieces = total.div_ceil(most).max(1);
    if B::THREADED { pieces.next_multiple_of(2) } else { pieces.next_multiple_of(ranks::size()) }
}

/// Applies `f` to every piece of work, in order; on the CPU each piece is computed by one thread, several at a time.
///
/// Small models are computed fastest like this: a piece of a few hundred tokens stays in a core's cache from the
/// embedding to the gradient, and threads meet only at the end. `model` is cloned for each piece (weights are shared).
pub fn map<B: Kernels, M: Clone + Send, T: Send, R: Send>(model: &M, work: Vec<T>, f: impl Fn(M, T) -> R + Sync) -> Vec<R> {
    if B::THREADED {
        let work: Vec<(M, T)> = work.into_iter().map(|piece| (model.clone(), piece)).collect();
        work.into_par_iter().map(|(model, piece)| f(model, piece)).collect()
    } else {
        work.into_iter().map(|piece| f(model.clone(), piece)).collect()
    }
}

/// [`map`] by all ranks that train together: each computes its part of the work, and gets the results of all, in order.
pub fn share<B: Kernels, M: Clone + Send, T: Send, R: Send + Serialize + DeserializeOwned>(
    model: &M,
    mut work: Vec<T>,
    f: impl Fn(M, T) -> R + Sync,
) -> Vec<R> {
    let (count, own) = (work.len(), ranks::own(work.len()));
    work.truncate(own.end);
    ranks::all(map::<B, _, _, _>(model, work.split_off(own.start), f), count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use moslim_shared::config::ModelConfig;

    #[test]
    fn groups_are_laid_end_to_end() {
        let groups = [Group { prompt: &[1, 2], answers: vec![&[3], &[], &[4, 5]] }, Group { prompt: &[6], answers: Vec::new() }];
        let packed = Packed::new(&groups);
        assert_eq!(packed.tokens, [1, 2, 3, 4, 5, 6]);
        assert_eq!(packed.spans[0], Span { prompt: 0..2, answers: vec![2..3, 3..3, 3..5] });
        assert_eq!((packed.spans[0].last(0), packed.spans[0].last(1), packed.spans[0].last(2)), (2, 1, 4));
        assert_eq!((packed.spans[0].all(), packed.spans[1].all()), (0..5, 5..6));
    }

    #[test]
    fn pieces_are_as_large_as_memory_allows() {
        let small = Architecture::own(&ModelConfig::default(), 640, 640);
        let config =
            ModelConfig { layers: 30, d_model: 576, heads: 9, kv_heads: 3, d_ff: 1536, context: 256, ..Default::default() };
        let large = Architecture::own(&config, 49_152, 49_152);
        assert!(training_bytes(&large, 256) > 20 * training_bytes(&small, 256));
        // 8 x 256 tokens of 135 M weights fit into half of 16 GiB.
        assert!(2048 * training_bytes(&large, 256) < 8 << 30, "{}", training_bytes(&large, 256));
        // Keys and values of 256 tokens in 30 layers, three heads of 64 each, f32, twice, beside three times the scores.
        assert_eq!(sampling_bytes(&large, 256), 2 * 4 * 30 * 2 * 3 * 64 * 256 + 3 * 4 * 49_152);
        assert_eq!(fit_pieces::<Flex>(&[small], 256, 1 << 34), None, "the CPU keeps its pieces");
    }

    /// What is estimated of a run's memory before it starts counts on it.
    #[test]
    fn equal_items_are_cut_as_estimates_of_memory_have_it() {
        for (items, tokens) in [(1, 20), (1, 900), (4, 40), (6, 704), (10, 80), (16, 145), (32, 64), (400, 40)] {
            let items = vec![tokens; items];
            let cut = chunks::<Flex, _>(&items, |&t: &usize| t);
            let largest = cut.iter().map(|piece| piece.len()).max().unwrap_or(0);
            let (pieces, most) = moslim_shared::memory::pieces(items.len() as f64, tokens as f64);
            assert_eq!((cut.len() as f64, largest as f64), (pieces, most), "{} of {tokens}", items.len());
        }
    }

    #[test]
    fn chunks_hold_everything_once() {
        let sizes: Vec<usize> = (0..200).map(|i| i * 37 % 90).collect();
        let cut = chunks::<Flex, _>(&sizes, |&s| s);
        assert_eq!(cut.concat(), sizes);
        let pieces: Vec<usize> = cut.iter().map(|c| c.iter().sum()).collect();
        assert!(cut.len() > 5 && cut.len().is_multiple_of(2));
        // Off by half an item at most on either side.
        assert!(pieces.iter().all(|p| p.abs_diff(sizes.iter().sum::<usize>() / cut.len()) <= 90), "{pieces:?}");
        assert_eq!(chunks::<Flex, _>(&[100_000usize, 1], |&s| s).len(), 2);
        assert_eq!(chunks::<Flex, _>(&[5usize], |&s| s).len(), 1);
        assert!(chunks::<Flex, _>(&[], |&s: &usize| s).is_empty());
    }
}
