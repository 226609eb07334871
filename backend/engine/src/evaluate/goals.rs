//! What to ask for when a user weighs the objectives: chosen on training questions, with the reward model.
//!
//! A policy that reads classes in its prompt has to be asked for some. The fixed map of [`moslim_shared::method::goal`] asks
//! for a middle class where a weight is small, and a policy that obeys delivers the middle class, where a better one may cost
//! nothing. Here the policy itself is tried: of all combinations of high classes the one is asked for whose answers have the
//! highest weighted utility. That is what MORLHF maximises for the same weights, with prompts in place of policies. It serves
//! users whose utility is linear; the points it leads to lie close together, so their hypervolume may be smaller.

use super::answer::{Answering, Ask};
use crate::model::generate::{Answer, Sampling};
use crate::model::kernels::Kernels;
use anyhow::Result;
use moslim_shared::distribution::expected_class;
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use moslim_shared::summary::Work;

/// Questions on which every combination is tried.
const QUESTIONS: usize = 64;
/// Most combinations.
const CANDIDATES: usize = 256;

/// Answers that [`choose`] samples, at most.
pub fn trials(objectives: &[Objective], steered: &[usize]) -> usize {
    candidates(objectives, steered).len() * QUESTIONS
}

/// One preference for each of `x.trade_offs`, and the work that the choice took. `x.questions` must be training questions.
///
/// # Errors
/// When the tokenizer fails, or `each`, which is told the number of answers to every combination, stops it.
pub fn choose<B: Kernels>(
    x: &Answering<B>,
    steered: &[usize],
    sampling: &Sampling,
    mut each: impl FnMut(usize) -> Result<()>,
) -> Result<(Vec<Preference>, Work)> {
    let n = x.questions.len().min(QUESTIONS);
    let chosen: Vec<usize> = (0..n).map(|q| q * (x.questions.len() / n.max(1))).collect();
    let candidates = candidates(x.objectives, steered);
    let mut work = Work::default();
    // Mean utility, `[candidate][objective]`.
    let mut reached: Vec<Vec<f64>> = Vec::with_capacity(candidates.len());
    for candidate in &candidates {
        let asks: Vec<(usize, Ask)> = chosen.iter().map(|&q| (q, Ask::of(candidate.clone()))).collect();
        // The same random numbers for every combination.
        let answers = x.answer(&asks, sampling)?;
        let pairs: Vec<(usize, &Answer)> = chosen.iter().copied().zip(&answers).collect();
        let mut means = vec![0.0; x.objectives.len()];
        for heads in x.classified(&pairs) {
            for ((mean, p), objective) in means.iter_mut().zip(heads).zip(x.objectives) {
                *mean += objective.utility(expected_class(&p)) / n as f64;
            }
        }
        // The policy reads roles, tags and question, the reward model the same without tags; both read the answer.
        let question = |q: usize| x.questions[q].tokens.len() + 2;
        let read = pairs.iter().map(|(q, a)| 2 * question(*q) + candidate.active() + 2 * a.tokens.len());
        work.forward_tokens += read.sum::<usize>() as u64;
        reached.push(means);
        each(QUESTIONS)?;
    }
    Ok((x.trade_offs.iter().map(|weights| candidates[best(&reached, weights)].clone()).collect(), work))
}

/// Position of the highest weighted utility; the first on a tie.
fn best(reached: &[Vec<f64>], weights: &[f64]) -> usize {
    let score = |n: usize| reached[n].iter().zip(weights).map(|(u, w)| u * w).sum::<f64>();
    (0..reached.len()).fold(0, |best, n| if score(n) > score(best) { n } else { best })
}

/// Every combination of: not asked for, the best class, the second best (where there are three or more, and where that is not
/// too many), over the steered objectives.
fn candidates(objectives: &[Objective], steered: &[usize]) -> Vec<Preference> {
    let second =
        steered.len() < usize::BITS as usize && 3usize.checked_pow(steered.len() as u32).is_some_and(|n| n <= CANDIDATES);
    let mut out = vec![Preference::none(objectives.len())];
    for &i in steered {
        let o = &objectives[i];
        let class = |from_best: usize| if o.higher_is_better { o.class_count() - 1 - from_best } else { from_best };
        let mut options = vec![Some(class(0))];
        if second && o.class_count() > 2 {
            options.push(Some(class(1)));
        }
        if 2 * out.len() > CANDIDATES {
            // Too many objectives to leave any of the rest out.
            out.iter_mut().for_each(|p| p.0[i] = options[0]);
            continue;
        }
        let with = |p: &Preference, option: &Option<usize>| {
            let mut p = p.clone();
            p.0[i] = *option;
            p
        };
        let more: Vec<Preference> = out.iter().flat_map(|p| options.iter().map(move |o| with(p, o))).collect();
        out.extend(more);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::world::objectives;

    #[test]
    fn combinations_of_high_classes_are_tried() {
        let objectives = objectives();
        let all = candidates(&objectives, &[0, 1, 2, 3]);
        assert_eq!((all.len(), all[0].active()), (81, 0));
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), 81);
        // Brevity counts: the lowest classes of verbosity are its best.
        assert!(all.iter().all(|p| p.0[3].is_none_or(|c| c <= 1) && p.0[0].is_none_or(|c| c >= 3)));
        assert_eq!(candidates(&objectives, &[2]).len(), 3);
        let many: Vec<Objective> = (0..12).map(|n| Objective::new(&format!("o{n}"), "", "", &["0", "1", "2"])).collect();
        let all = candidates(&many, &(0..12).collect::<Vec<_>>());
        assert_eq!(all.len(), 256);
        assert!(all.iter().all(|p| p.0[11] == Some(2)));
    }

    #[test]
    fn the_highest_weighted_utility_wins() {
        let reached = [vec![0.2, 0.9], vec![0.8, 0.5], vec![0.9, 0.1], vec![0.8, 0.5]];
        for (weights, want) in [([1.0, 0.0], 2), ([0.0, 1.0], 0), ([0.5, 0.5], 1)] {
            assert_eq!(best(&reached, &weights), want);
        }
    }
}
