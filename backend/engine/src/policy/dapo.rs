//! What DAPO (Yu et al. 2025) has besides GRPO: it draws groups of equal rewards again, and lowers the score of answers that come
//! near the length limit. Its weights and its clipping are in `grpo.rs`.

use super::rollout::{Prompt, Rollout};
use super::update::{by_prompt, is_flat};
use moslim_shared::summary::Work;
use rand::Rng;
use rand::rngs::StdRng;

/// Times that groups of equal rewards are drawn again.
const REDRAWS: usize = 2;

/// The soft penalty for long answers (eq. 13): from 0 at three quarters of the limit down to -1 at the limit.
pub fn overlong_penalty(length: usize, limit: usize) -> f64 {
    let buffer = (limit / 4).max(1);
    let over = length.saturating_sub(limit - buffer).min(buffer);
    -(over as f64) / buffer as f64
}

/// Dynamic sampling: prompts whose samples all got the same score teach nothing by comparison, and are replaced by new ones, a
/// few times. `draw(n)` gives new prompts, `roll_out(prompts, seed)` samples and scores them. Returns the work of the latter.
pub fn redraw_flat_groups(
    rollouts: &mut Vec<Rollout>,
    prompts: &mut [Prompt],
    draw: impl Fn(usize, &mut StdRng) -> Vec<Prompt>,
    roll_out: impl Fn(&[Prompt], u64) -> (Vec<Rollout>, Work),
    rng: &mut StdRng,
) -> Work {
    let mut work = Work::default();
    for _ in 0..REDRAWS {
        let flat: Vec<usize> = by_prompt(rollouts).filter(|g| is_flat(g)).map(|g| g[0].prompt).collect();
        if flat.is_empty() {
            break;
        }
        let fresh = draw(flat.len(), rng);
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
    work
}

#[cfg(test)]
mod tests {
    use super::overlong_penalty;

    #[test]
    fn the_overlong_penalty_begins_at_three_quarters() {
        let at = |n| overlong_penalty(n, 40);
        assert_eq!((at(10), at(30), at(35), at(40), at(50)), (0.0, 0.0, -0.5, -1.0, -1.0));
    }
}
