//! What DAPO (Yu et al. 2025) has besides GRPO: it draws groups of equal rewards again, lowers the score of answers that come
//! near the length limit, and leaves out those that were cut off there. Its advantages and its clipping are in `grpo.rs`.
//!
//! The paper's rewards are 0 or 1, so a group teaches nothing when all are equal. Probabilities of classes are never equal to the
//! last digit: here a group is drawn again when its scores deviate by less than `least_deviation`.

use super::rollout::{Prompt, Rollout};
use super::update::by_prompt;
use anyhow::Result;
use moslim_shared::summary::Work;
use rand::Rng;
use rand::rngs::StdRng;

/// Times that groups of equal rewards are drawn again.
const REDRAWS: usize = 2;

/// The soft penalty for long answers (eq. 13): from 0 at `buffer` tokens below the limit down to -1 at the limit.
pub fn overlong_penalty(length: usize, limit: usize, buffer: usize) -> f64 {
    let buffer = buffer.clamp(1, limit.max(1));
    let over = length.saturating_sub(limit.saturating_sub(buffer)).min(buffer);
    -(over as f64) / buffer as f64
}

/// Weight of each token of `rollout` that makes a sum over the tokens of a minibatch their mean; answers that were cut off have none.
pub fn dapo_weight(part: &[&[Rollout]], rollout: &Rollout) -> f64 {
    let ended = part.iter().flat_map(|g| g.iter()).filter(|r| r.answer.ended);
    let tokens: usize = ended.map(|r| r.answer.tokens.len()).sum();
    if rollout.answer.ended { 1.0 / tokens.max(1) as f64 } else { 0.0 }
}

/// Whether the scores of a group deviate by less than `least` from their mean (root mean square).
pub fn is_nearly_flat(group: &[Rollout], least: f64) -> bool {
    let n = group.len().max(1) as f64;
    let mean = group.iter().map(|r| r.score).sum::<f64>() / n;
    let variance = group.iter().map(|r| (r.score - mean).powi(2)).sum::<f64>() / n;
    variance.sqrt() < least.max(1e-9)
}

/// Dynamic sampling: prompts whose samples all got about the same score teach nothing by comparison, and are replaced by new ones, a
/// few times. `draw(n)` gives new prompts, `roll_out(prompts, seed)` samples and scores them. Returns the work of the latter.
///
/// # Errors
/// When `draw` fails.
pub fn redraw_flat_groups(
    rollouts: &mut Vec<Rollout>,
    prompts: &mut [Prompt],
    least_deviation: f64,
    draw: impl Fn(usize, &mut StdRng) -> Result<Vec<Prompt>>,
    roll_out: impl Fn(&[Prompt], u64) -> (Vec<Rollout>, Work),
    rng: &mut StdRng,
) -> Result<Work> {
    let mut work = Work::default();
    for _ in 0..REDRAWS {
        let flat: Vec<usize> = by_prompt(rollouts).filter(|g| is_nearly_flat(g, least_deviation)).map(|g| g[0].prompt).collect();
        if flat.is_empty() {
            break;
        }
        let fresh = draw(flat.len(), rng)?;
        let (new, own) = roll_out(&fresh, rng.random());
        work += own;
        rollouts.retain(|r| !flat.contains(&r.prompt));
        rollouts.extend(new.into_iter().map(|r| Rollout { prompt: flat[r.prompt], ..r }));
        for (&at, prompt) in flat.iter().zip(fresh) {
            prompts[at] = prompt;
        }
        rollouts.sort_by_key(|r| r.prompt);
        rollouts.iter_mut().enumerate().for_each(|(n, r)| r.index = n);
    }
    Ok(work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::update::tests::rollout;

    #[test]
    fn the_overlong_penalty_begins_at_the_buffer() {
        let at = |n| overlong_penalty(n, 40, 10);
        assert_eq!((at(10), at(30), at(35), at(40), at(50)), (0.0, 0.0, -0.5, -1.0, -1.0));
        // A buffer of nothing is one token, and none is longer than the limit.
        assert_eq!([39, 40].map(|n| overlong_penalty(n, 40, 0)), [0.0, -1.0]);
        assert_eq!(overlong_penalty(3, 0, 5), -1.0, "whatever is beyond no room at all");
        assert_eq!([0, 1, 4, 5].map(|n| overlong_penalty(n, 4, 10)), [0.0, -0.25, -1.0, -1.0]);
        // The default leaves the longest answers that are asked for alone.
        assert_eq!((overlong_penalty(40, 48, 6), overlong_penalty(45, 48, 6)), (0.0, -0.5));
    }

    #[test]
    fn cut_off_answers_have_no_weight() {
        let mut cut = rollout(0, 1.0, 6);
        cut.answer.ended = false;
        let group = [rollout(0, 0.0, 2), cut, rollout(0, 0.5, 3)];
        let part: Vec<&[Rollout]> = vec![&group];
        assert_eq!([0, 1, 2].map(|n| dapo_weight(&part, &group[n])), [0.2, 0.0, 0.2]);
    }

    #[test]
    fn nearly_flat_groups_are_drawn_again_and_others_stay() {
        let scores = [[0.50, 0.52], [0.1, 0.3], [0.31, 0.30]];
        let mut rollouts: Vec<Rollout> =
            scores.iter().enumerate().flat_map(|(p, s)| s.map(|score| rollout(p, score, 1))).collect();
        let nothing = moslim_shared::preference::Preference(vec![]);
        let prompt = |question| Prompt { question, preference: nothing.clone(), weights: None, tokens: vec![] };
        let mut prompts: Vec<Prompt> = (0..3).map(prompt).collect();
        let mut rng = rand::SeedableRng::seed_from_u64(1);
        let asked = std::cell::RefCell::new(Vec::new());
        let draw = |n: usize, _: &mut StdRng| Ok((0..n).map(|i| prompt(10 + i)).collect());
        let again = |prompts: &[Prompt], _| {
            asked.borrow_mut().push(prompts.len());
            let new = (0..prompts.len()).flat_map(|p| [0.0, 1.0].map(|score| rollout(p, score, 1))).collect();
            (new, Work { forward_tokens: 7, training_tokens: 0 })
        };
        let work = redraw_flat_groups(&mut rollouts, &mut prompts, 0.05, draw, again, &mut rng).unwrap();
        assert_eq!((asked.into_inner(), work.forward_tokens), (vec![2], 7));
        assert_eq!(prompts.iter().map(|p| p.question).collect::<Vec<_>>(), [10, 1, 11]);
        let seen: Vec<(usize, f64)> = rollouts.iter().map(|r| (r.prompt, r.score)).collect();
        assert_eq!(seen, [(0, 0.0), (0, 1.0), (1, 0.1), (1, 0.3), (2, 0.0), (2, 1.0)]);
        assert!(rollouts.iter().enumerate().all(|(n, r)| r.index == n));
    }

    #[test]
    fn a_group_is_nearly_flat_below_its_root_mean_square() {
        let of = |scores: &[f64]| scores.iter().map(|&score| rollout(0, score, 1)).collect::<Vec<_>>();
        // 0 and 0.5 deviate by a quarter, which is not less than a quarter.
        assert_eq!([0.25, 0.26].map(|least| is_nearly_flat(&of(&[0.0, 0.5]), least)), [false, true]);
        // 0, 0, 0 and 2 deviate by the root of 3/4, 0.866, from a mean of a half.
        assert_eq!([0.86, 0.87].map(|least| is_nearly_flat(&of(&[0.0, 0.0, 0.0, 2.0]), least)), [false, true]);
        // Where nothing is too little, equal scores still are.
        assert_eq!([[0.3, 0.3], [0.3, 0.300_001]].map(|scores| is_nearly_flat(&of(&scores), 0.0)), [true, false]);
    }

    #[test]
    fn what_stays_flat_is_drawn_again_twice() {
        let mut rollouts = vec![rollout(0, 0.0, 1), rollout(0, 1.0, 1), rollout(1, 0.5, 1), rollout(1, 0.5, 1)];
        let nothing = moslim_shared::preference::Preference(vec![]);
        let prompt = |question| Prompt { question, preference: nothing.clone(), weights: None, tokens: vec![] };
        let mut prompts: Vec<Prompt> = (0..2).map(prompt).collect();
        let drawn = std::cell::Cell::new(10usize);
        let draw = |n: usize, _: &mut StdRng| {
            drawn.set(drawn.get() + n);
            Ok((0..n).map(|_| prompt(drawn.get())).collect())
        };
        let flat =
            |_: &[Prompt], _| (vec![rollout(0, 0.7, 1), rollout(0, 0.7, 1)], Work { forward_tokens: 7, training_tokens: 2 });
        let mut rng = rand::SeedableRng::seed_from_u64(1);
        let work = redraw_flat_groups(&mut rollouts, &mut prompts, 0.05, draw, flat, &mut rng).unwrap();
        assert_eq!(work, Work { forward_tokens: 14, training_tokens: 4 });
        assert_eq!(prompts.iter().map(|p| p.question).collect::<Vec<_>>(), [0, 12]);
        assert_eq!(rollouts.iter().map(|r| (r.prompt, r.score)).collect::<Vec<_>>(), [(0, 0.0), (0, 1.0), (1, 0.7), (1, 0.7)]);
    }
}
