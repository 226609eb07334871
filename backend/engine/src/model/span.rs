//! Where a prompt and its answers lie in a packed row.

use std::ops::Range;

/// Where a group stands in a packed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Positions of the prompt; never empty.
    pub prompt: Range<usize>,
    /// Positions of each answer; they follow the prompt without gaps.
    pub answers: Vec<Range<usize>>,
}

impl Span {
    /// Position of the last token of answer `n`, or of the prompt when that answer is empty.
    pub fn last(&self, n: usize) -> usize {
        let answer = &self.answers[n];
        if answer.is_empty() { self.prompt.end - 1 } else { answer.end - 1 }
    }

    /// All positions of the group.
    pub fn all(&self) -> Range<usize> {
        self.prompt.start..self.answers.last().map_or(self.prompt.end, |a| a.end)
    }
}
