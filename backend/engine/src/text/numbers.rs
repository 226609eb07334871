//! Prompts that say numbers as text before the question, one for each objective in the task's order: scores that an answer is to achieve, or
//! how much each objective weighs.

use super::Tokenizer;
use anyhow::Result;

impl Tokenizer {
    /// The prompt with one number for each objective as text, `.` where none is asked for (RiC).
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn scored_prompt(&self, question: &[u32], scores: &[Option<f64>]) -> Result<Vec<u32>> {
        self.numbered_prompt(question, scores, |score| format!("{:.1}", score.clamp(-9.9, 9.9)))
    }

    /// The prompt with the weight of each objective in whole tenths as text, `.` where it is not steered, for example `3 2 5 .`; each is of
    /// at most three tokens of a tokenizer of the lab's own.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn weighed_prompt(&self, question: &[u32], weights: &[Option<f64>]) -> Result<Vec<u32>> {
        self.numbered_prompt(question, weights, |weight| format!("{:.0}", 10.0 * weight))
    }

    /// The prompt with what `said` makes of each number, `.` for those that are not there.
    fn numbered_prompt(&self, question: &[u32], numbers: &[Option<f64>], said: impl Fn(f64) -> String) -> Result<Vec<u32>> {
        let text: Vec<String> = numbers.iter().map(|number| number.map_or(".".into(), &said)).collect();
        self.prompt_after(&text.join(" "), question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Task, world};
    use moslim_shared::config::TaskConfig;

    #[test]
    fn numbers_stand_before_the_question() {
        let splits = Task::load(&TaskConfig { rows: 600, topics: 12, ..Default::default() }, &|_| Ok(None)).unwrap().splits;
        let tokenizer = Tokenizer::train(512, &splits, &world::objectives()).unwrap();
        let question = tokenizer.encode("Boil").unwrap();
        let text = |prompt: Result<Vec<u32>>| tokenizer.spelt(&prompt.unwrap()).unwrap();
        let weighed = |weights: &[Option<f64>]| tokenizer.weighed_prompt(&question, weights);
        assert_eq!(text(weighed(&[Some(0.3), Some(0.2), Some(0.5), Some(0.0)])), "<user> 3 2 5 0 Boil<assistant>");
        // What is not steered has no weight, and what has a weight of nothing has one.
        assert_eq!(text(weighed(&[None, Some(0.7), Some(0.0), Some(0.3)])), "<user> . 7 0 3 Boil<assistant>");
        // No longer than what is reserved for them.
        let bare = tokenizer.untagged_prompt(&question).len();
        for weights in [[Some(1.0), Some(0.0), Some(0.0), Some(0.0)], [Some(0.6), Some(0.1), None, Some(0.3)]] {
            let longer = weighed(&weights).unwrap().len() - bare;
            assert!((4..=3 * 4).contains(&longer), "{longer} tokens");
        }
        let scored = tokenizer.scored_prompt(&question, &[Some(1.26), None, Some(-0.5), Some(20.0)]);
        assert_eq!(text(scored), "<user> 1.3 . -0.5 9.9 Boil<assistant>");
    }
}
