//! Online direct preference optimisation: of every prompt's samples, the one with the highest score is preferred to the one
//! with the lowest. The loss compares log-ratios to the reference, which is all the KL penalty there is (Rafailov et al. 2023;
//! IPO: Azar et al. 2023).

use super::rloo::sequence_log_probs;
use super::rollout::{Prompt, Rollout};
use super::update::{PolicyTrainee, Tally, Update, UpdateReport, clip_range, group_gradients, minibatches, tokens};
use crate::model::TrainBackend;
use crate::model::transformer::{Transformer, index_tensor};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::activation::log_sigmoid;
use moslim_shared::config::{DpoConfig, PolicyOptimizer};
use rand::rngs::StdRng;

/// Marks what is preferred: 1 for the best of a group, -1 for the worst, 0 for the others. On a tie the first is preferred.
pub fn set_advantages(rollouts: &mut [Rollout]) {
    for group in rollouts.chunk_by_mut(|a, b| a.prompt == b.prompt) {
        group.iter_mut().for_each(|r| r.advantage = 0.0);
        let (best, worst) = extremes(group);
        if best != worst {
            (group[best].advantage, group[worst].advantage) = (1.0, -1.0);
        }
    }
}

/// Positions of the highest and the lowest score; the first highest, and the last lowest.
fn extremes(group: &[Rollout]) -> (usize, usize) {
    let (mut best, mut worst) = (0, 0);
    for (n, r) in group.iter().enumerate() {
        if r.score > group[best].score {
            best = n;
        }
        if r.score <= group[worst].score {
            worst = n;
        }
    }
    (best, worst)
}

/// Loss of pairs with `h = (log pi(y_c) - log pi(y_r)) - (log ref(y_c) - log ref(y_r))`: DPO `-log sigmoid(beta h)` (with label
/// smoothing `e`, `(1 - e) L(h) + e L(-h)`), IPO `(h - 1 / (2 beta))^2`. Log-probabilities are sums over an answer's tokens, or means. `h`: `[pairs]`; returns `[pairs]`.
pub fn pair_loss<B: Backend>(h: Tensor<B, 1>, config: &DpoConfig, squared: bool) -> Tensor<B, 1> {
    if squared {
        let miss = h - 0.5 / config.beta;
        return miss.clone() * miss;
    }
    let h = h * config.beta;
    let e = config.label_smoothing;
    (log_sigmoid(h.clone()) * (1.0 - e) + log_sigmoid(h.neg()) * e).neg()
}

/// The preferred and the other rollout of each group whose scores differ by the margin.
fn pairs<'a>(groups: &[&'a [Rollout]], margin: f64) -> Vec<[&'a Rollout; 2]> {
    groups
        .iter()
        .filter_map(|group| {
            let (best, worst) = extremes(group);
            let pair = [&group[best], &group[worst]];
            (best != worst && pair[0].score - pair[1].score >= margin).then_some(pair)
        })
        .collect()
}

/// What makes the sum of an answer's log-probabilities their mean, or leaves it.
fn scale(rollout: &Rollout, mean: bool) -> f32 {
    if mean { 1.0 / rollout.answer.tokens.len().max(1) as f32 } else { 1.0 }
}

/// Sum of the pairs' losses divided by `total`, log-ratios to the policy that sampled, and how many pairs are ordered rightly.
fn loss<B: TrainBackend>(
    policy: &Transformer<B>,
    pairs: &[[&Rollout; 2]],
    prompts: &[Prompt],
    u: &Update,
    total: usize,
) -> (Tensor<B, 1>, (Vec<f32>, usize)) {
    let device = policy.device();
    let flat: Vec<&Rollout> = pairs.iter().flatten().copied().collect();
    let new = sequence_log_probs(policy, &flat, prompts, u.config.temperature as f32);
    // Means where they are asked for, so that the distance of two answers does not grow with their length.
    let mean = u.config.dpo.mean_log_probs;
    let scale: Vec<f32> = flat.iter().map(|r| scale(r, mean)).collect();
    let scaled = new.clone() * Tensor::<B, 1>::from_data(TensorData::new(scale.clone(), [flat.len()]), &device);
    let every = |from: usize| index_tensor(&(0..pairs.len()).map(|n| (2 * n + from) as u32).collect::<Vec<_>>(), &device);
    let of = |n: usize| flat[n].reference_log_probs.iter().sum::<f32>() * scale[n];
    let reference: Vec<f32> = (0..pairs.len()).map(|n| of(2 * n) - of(2 * n + 1)).collect();
    let reference = Tensor::<B, 1>::from_data(TensorData::new(reference, [pairs.len()]), &device);
    let h = scaled.clone().select(0, every(0)) - scaled.select(0, every(1)) - reference;
    let right = h.clone().inner().into_data().to_vec::<f32>().expect("log-ratios are f32").iter().filter(|h| **h > 0.0).count();
    let old: Vec<f32> = flat.iter().map(|r| r.answer.log_probs.iter().sum()).collect();
    let new: Vec<f32> = new.inner().into_data().to_vec().expect("log-probabilities are f32");
    let log_ratios = new.iter().zip(old).map(|(n, o)| (n - o).clamp(-20.0, 20.0)).collect();
    let squared = u.config.optimizer == PolicyOptimizer::OnlineIpo;
    (pair_loss(h, &u.config.dpo, squared).sum() / total.max(1) as f32, (log_ratios, right))
}

/// Updates the policy on the pairs of a batch of rollouts.
pub fn update<B: TrainBackend>(
    mut policy: PolicyTrainee<B>,
    rollouts: &[Rollout],
    u: &Update,
    rng: &mut StdRng,
) -> (PolicyTrainee<B>, UpdateReport) {
    let mut tally = Tally::default();
    let (mut right, mut seen, mut left_out) = (0, 0, 0);
    for (step, part) in minibatches(rollouts, u.config, rng).into_iter().enumerate() {
        let groups = part.len();
        let part: Vec<&[Rollout]> = part.into_iter().filter(|g| !pairs(&[g], u.config.dpo.margin).is_empty()).collect();
        left_out += groups - part.len();
        if part.is_empty() && u.supervised.is_empty() {
            continue;
        }
        let total = part.len();
        // Where no scores differ, supervised rows are what is left.
        let (grads, reports) = if part.is_empty() {
            (GradientsParams::new(), Vec::new())
        } else {
            let (_, grads, reports) = group_gradients(&policy.model, &part, u.prompts, |model, groups| {
                loss(model, &pairs(groups, u.config.dpo.margin), u.prompts, u, total)
            });
            (grads, reports)
        };
        let (log_ratios, ordered): (Vec<_>, Vec<_>) = reports.into_iter().unzip();
        let grads = u.mix_in(&policy.model, grads, step, &mut tally.work);
        let (next, norm) = policy.step(grads, u.learning_rate);
        policy = next;
        tally.observe(&log_ratios.concat(), clip_range(u.config), norm);
        right += ordered.iter().sum::<usize>();
        seen += total;
        // Two answers of each prompt are read.
        let read = |g: &&[Rollout]| {
            let (best, worst) = extremes(g);
            tokens(&g[best..=best], u.prompts) + g[worst].answer.tokens.len()
        };
        tally.work.training_tokens += part.iter().map(|g| read(g) as u64).sum::<u64>();
    }
    let mut report = tally.report();
    // Nothing is clipped.
    report.clip_fraction = 0.0;
    report.preference_accuracy = Some(right as f64 / f64::max(seen as f64, 1.0));
    report.pairs_left_out = Some(left_out as f64 / f64::max((seen + left_out) as f64, 1.0));
    (policy, report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::update::Supervised;
    use crate::policy::update::tests::{batch, for_tokens, near, norm, policy, prompts, rollout, said, sampled, told, trainee};
    use burn::backend::Flex;
    use moslim_shared::config::PolicyConfig;
    use rand::SeedableRng;

    fn at(h: f32, config: &DpoConfig, squared: bool) -> f32 {
        pair_loss(Tensor::<Flex, 1>::from_data([h], &Default::default()), config, squared).into_scalar()
    }

    #[test]
    fn answers_are_summed_or_averaged_and_close_pairs_left_out() {
        let group = [rollout(0, 0.5, 4), rollout(0, 0.9, 2), rollout(0, 0.1, 0)];
        assert_eq!([&group[0], &group[1], &group[2]].map(|r| scale(r, true)), [0.25, 0.5, 1.0]);
        assert_eq!(scale(&group[0], false), 1.0);
        // The best against the worst; not where they are too close, nor where all are equal.
        let scores = |margin| pairs(&[&group], margin).iter().map(|[c, r]| (c.score, r.score)).collect::<Vec<_>>();
        assert_eq!((scores(0.8), scores(0.81).len()), (vec![(0.9, 0.1)], 0));
        let equal = [rollout(0, 0.5, 1), rollout(0, 0.5, 1)];
        let mut marked = equal.to_vec();
        set_advantages(&mut marked);
        assert_eq!([marked[0].advantage, marked[1].advantage], [1.0, -1.0]);
        assert!(pairs(&[&equal], 0.05).is_empty());
    }

    #[test]
    fn pair_losses_match_the_vectors() {
        // Policy (-10, -12), reference (-11, -11.5): h = 2 - 0.5.
        let h = (-10.0 + 12.0) - (-11.0 + 11.5);
        let config = DpoConfig { beta: 0.1, ..Default::default() };
        assert!((at(h, &config, false) - 0.620957).abs() < 1e-5);
        assert!((at(h, &config, true) - (1.5f32 - 5.0).powi(2)).abs() < 1e-5);
        let smooth = DpoConfig { label_smoothing: 0.1, ..config.clone() };
        let want = 0.9 * at(h, &config, false) + 0.1 * at(-h, &config, false);
        assert!((at(h, &smooth, false) - want).abs() < 1e-5);
    }

    #[test]
    fn the_first_best_and_the_last_worst_of_a_group_are_marked() {
        let scores = [(0, 0.2), (0, 0.9), (0, 0.9), (0, 0.1), (0, 0.1), (0, 0.5), (1, 0.5)];
        let mut all = scores.map(|(prompt, score)| Rollout { advantage: 7.0, ..rollout(prompt, score, 1) });
        set_advantages(&mut all);
        assert_eq!(all.each_ref().map(|r| r.advantage), [0.0, 1.0, 0.0, 0.0, -1.0, 0.0, 0.0]);
        // One answer is no pair, however small the margin.
        assert!(pairs(&[&all[6..]], 0.0).is_empty());
        assert_eq!(pairs(&[&all[..6], &all[6..], &all[2..5]], 0.0).len(), 2);
    }

    #[test]
    fn pairs_are_measured_from_the_reference() {
        let (policy, prompts) = (policy(), prompts());
        // Two pairs, the preferred answer first.
        let mut all = [said(0, &[5, 3, 0]), said(0, &[7, 0]), said(2, &[6, 0]), said(2, &[8, 8, 0])];
        sampled(&policy, &mut all, 0.5);
        // Log-ratios to the reference of 1 and 0.4, 0 and 0.8; of the first answer to the policy that sampled 0.25.
        all[0].reference_log_probs[0] -= 1.0;
        all[1].reference_log_probs[1] -= 0.4;
        all[3].reference_log_probs[2] -= 0.8;
        all[0].answer.log_probs[1] -= 0.25;
        let at = |optimizer, mean_log_probs| {
            let mut config = PolicyConfig { optimizer, temperature: 0.5, ..Default::default() };
            (config.dpo.beta, config.dpo.mean_log_probs) = (0.5, mean_log_probs);
            let pairs = [[&all[0], &all[1]], [&all[2], &all[3]]];
            let (loss, (log_ratios, right)) = loss(&policy, &pairs, &prompts, &told(&prompts, &config), 5);
            assert_eq!((log_ratios.len(), right), (4, 1));
            assert!(log_ratios.iter().zip([0.25, 0.0, 0.0, 0.0]).all(|(got, want)| (got - want).abs() < 1e-4), "{log_ratios:?}");
            f64::from(loss.into_scalar())
        };
        // h is 1 - 0.4 and 0 - 0.8; with means 1 / 3 - 0.4 / 2 and 0 - 0.8 / 3. Of five pairs these are two.
        let dpo = |h: f64| (1.0 + (-0.5 * h).exp()).ln();
        let ipo = |h: f64| (h - 1.0).powi(2);
        let [sums, means] = [[0.6, -0.8], [1.0 / 3.0 - 0.2, -0.8 / 3.0]];
        for (optimizer, mean, want) in [
            (PolicyOptimizer::OnlineDpo, false, (dpo(sums[0]) + dpo(sums[1])) / 5.0),
            (PolicyOptimizer::OnlineDpo, true, (dpo(means[0]) + dpo(means[1])) / 5.0),
            (PolicyOptimizer::OnlineIpo, false, (ipo(sums[0]) + ipo(sums[1])) / 5.0),
            (PolicyOptimizer::OnlineIpo, true, (ipo(means[0]) + ipo(means[1])) / 5.0),
        ] {
            let got = at(optimizer, mean);
            assert!((got - want).abs() < 1e-4, "{optimizer:?} {mean}: {got}, not {want}");
        }
    }

    #[test]
    fn an_update_reads_the_pairs_and_tells_what_was_left_out() {
        let (policy, prompts) = (policy(), prompts());
        let mut all = batch(&policy, 1.0);
        all.iter_mut().zip([0.9, 0.1, 0.4, 0.5, 0.2, 0.8]).for_each(|(r, score)| r.score = score);
        // h is 1 for the first group, which is right, and -1 for the third, which is wrong; the second is one answer.
        all[0].reference_log_probs[0] -= 1.0;
        all[4].reference_log_probs[0] -= 1.0;
        // The preferred answers have become more likely, by more than the range; nothing is clipped.
        all[0].answer.log_probs[0] -= 0.5;
        all[5].answer.log_probs[0] -= 0.5;
        let mut config = PolicyConfig { optimizer: PolicyOptimizer::OnlineDpo, epochs: 2, ..Default::default() };
        (config.dpo.beta, config.dpo.margin) = (0.5, 0.5);
        let updated = |config: &PolicyConfig| {
            let rng = &mut StdRng::seed_from_u64(1);
            update(trainee(&policy), &all, &told(&prompts, config), rng).1
        };
        let report = updated(&config);
        assert_eq!((report.preference_accuracy, report.pairs_left_out), (Some(0.5), Some(1.0 / 3.0)));
        assert_eq!(report.clip_fraction, 0.0);
        // Prompts of three and two tokens with answers of three and two, three and one; twice.
        assert_eq!(report.work.training_tokens, 2 * (3 + 3 + 2 + 2 + 3 + 1));
        // Of each pair beta sigmoid(-beta h), half of it for a mean of two: up for one answer, down for the other.
        let pull = |h: f64| 0.5 * 0.5 / (1.0 + (0.5 * h).exp());
        let each = [pull(1.0), -pull(1.0), 0.0, 0.0, -pull(-1.0), pull(-1.0)];
        assert!(near(report.gradient_norm, norm(&policy, &all, &for_tokens(&all, &each), 1.0)), "{}", report.gradient_norm);
        // The margin leaves out the third group, whose scores are 0.6 apart, and then the first.
        config.dpo.margin = 0.7;
        let report = updated(&config);
        assert_eq!((report.preference_accuracy, report.pairs_left_out), (Some(1.0), Some(2.0 / 3.0)));
        config.dpo.margin = 2.0;
        let report = updated(&config);
        assert_eq!((report.preference_accuracy, report.pairs_left_out), (Some(0.0), Some(1.0)));
        assert_eq!((report.work.training_tokens, report.gradient_norm), (0, 0.0));
        // Supervised rows are learnt from all the same.
        let rows = [Supervised { prompt: vec![3, 4], answer: vec![5, 6, 7], weight: 1.0 }];
        let with_rows = Update { supervised: &rows, ..told(&prompts, &config) };
        let report = update(trainee(&policy), &all, &with_rows, &mut StdRng::seed_from_u64(1)).1;
        assert_eq!((report.work.training_tokens, report.pairs_left_out), (2 * (2 + 3), Some(1.0)));
        assert!(report.gradient_norm > 0.0 && report.first_ratio == 1.0, "{report:?}");
    }
}
