//! PPO's clipped surrogate over tokens, which GRPO, REINFORCE++ and PPO share; they differ in advantages and weights.

use super::rollout::{Prompt, Rollout, groups};
use super::update::{Penalty, PolicyTrainee, Tally, Update, UpdateReport, clip_range, group_gradients, minibatches, tokens};
use crate::model::TrainBackend;
use crate::model::packed::Packed;
use crate::model::transformer::Transformer;
use burn::prelude::*;
use moslim_shared::config::KlLoss;
use rand::rngs::StdRng;

/// The estimate of each token's KL from the reference, with `d = new - reference`: k2 `d^2 / 2`, k3 `exp(-d) - 1 + d`, or k3 times the
/// ratio to the policy that sampled. On samples of the policy, the expected gradient of k2 and of k3 times the ratio is
/// `E[d grad log pi]`, that of the reverse KL; that of k3 is `E[(1 - exp(-d)) grad log pi]`, that of the forward KL, which hardly
/// grows with `d`. All arguments: `[tokens]`.
pub fn kl_estimate<B: Backend>(kind: KlLoss, d: Tensor<B, 1>, ratio: Tensor<B, 1>) -> Tensor<B, 1> {
    let d = d.clamp(-20.0, 20.0);
    let k3 = |d: Tensor<B, 1>| d.clone().neg().exp() - 1.0 + d;
    match kind {
        KlLoss::K2 => d.clone() * d * 0.5,
        KlLoss::K3 => k3(d),
        KlLoss::K3Ratio => k3(d) * ratio,
    }
}

/// `sum_t w_t [ -min(ratio_t A_t, clip(ratio_t, 1 - low, 1 + high) A_t) + beta KL_t ]`. All arguments but the last two: one number
/// a token, `[tokens]`; `reference` is read where there is a penalty. Returns the loss and the log-ratios.
pub fn clipped<B: TrainBackend>(
    new: Tensor<B, 1>,
    old: Vec<f32>,
    reference: Vec<f32>,
    advantages: Vec<f32>,
    weights: Vec<f32>,
    (low, high): (f64, f64),
    penalty: Penalty,
) -> (Tensor<B, 1>, Vec<f32>) {
    let device = new.device();
    let n = old.len();
    let host = |values: Vec<f32>| Tensor::<B, 1>::from_data(TensorData::new(values, [n]), &device);
    let advantage = host(advantages);
    let log_ratio = (new.clone() - host(old)).clamp(-20.0, 20.0);
    let ratio = log_ratio.clone().exp();
    let bounded = ratio.clone().clamp(1.0 - low, 1.0 + high);
    let mut loss = (ratio.clone() * advantage.clone()).min_pair(bounded * advantage).neg();
    if let Some((kind, beta)) = penalty {
        loss = loss + kl_estimate(kind, new - host(reference), ratio) * beta;
    }
    let log_ratios = log_ratio.inner().into_data().to_vec().expect("ratios are f32");
    ((loss * host(weights)).sum(), log_ratios)
}

/// [`clipped`] over all tokens of `rollouts`, in order. `weight(rollout)`: the weight of each of its tokens.
pub fn loss<B: TrainBackend>(
    policy: &Transformer<B>,
    rollouts: &[&Rollout],
    prompts: &[Prompt],
    u: &Update,
    weight: impl Fn(&Rollout) -> f64,
) -> (Tensor<B, 1>, Vec<f32>) {
    let new = policy.answer_log_probs(&Packed::new(&groups(rollouts, prompts)), u.config.temperature as f32);
    let all = |f: &dyn Fn(&Rollout) -> Vec<f32>| rollouts.iter().flat_map(|r| f(r)).collect::<Vec<f32>>();
    clipped(
        new,
        all(&|r| r.answer.log_probs.clone()),
        all(&|r| r.reference_log_probs.clone()),
        all(&Rollout::token_advantages),
        all(&|r| vec![weight(r) as f32; r.answer.tokens.len()]),
        clip_range(u.config),
        u.penalty(),
    )
}

/// Updates the policy with [`loss`]. `weight(part, rollout)`: weight of each token of a
/// rollout, for a minibatch.
pub fn update<B: TrainBackend>(
    mut policy: PolicyTrainee<B>,
    rollouts: &[Rollout],
    u: &Update,
    rng: &mut StdRng,
    weight: impl Fn(&[&[Rollout]], &Rollout) -> f64 + Sync,
) -> (PolicyTrainee<B>, UpdateReport) {
    let mut tally = Tally::default();
    for (step, part) in minibatches(rollouts, u.config, rng).into_iter().enumerate() {
        let (_, grads, log_ratios) = group_gradients(&policy.model, &part, u.prompts, |model, groups| {
            let rollouts: Vec<&Rollout> = groups.iter().flat_map(|group| group.iter()).collect();
            loss(model, &rollouts, u.prompts, u, |r| weight(&part, r))
        });
        let grads = u.mix_in(&policy.model, grads, step, &mut tally.work);
        let (next, norm) = policy.step(grads, u.learning_rate);
        policy = next;
        tally.observe(&log_ratios.concat(), clip_range(u.config), norm);
        tally.work.training_tokens += part.iter().map(|g| tokens(g, u.prompts) as u64).sum::<u64>();
    }
    (policy, tally.report())
}

/// Weight that makes a sum over the tokens of a minibatch their mean.
pub fn mean_over_tokens(part: &[&[Rollout]]) -> f64 {
    let tokens: usize = part.iter().flat_map(|g| g.iter()).map(|r| r.answer.tokens.len()).sum();
    1.0 / tokens.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::update::tests::{
        B, batch, for_tokens, near, norm, policy, prompts, rollout, said, sampled, told, trainee,
    };
    use moslim_shared::config::{KlPenalty, PolicyConfig, PolicyOptimizer};
    use rand::SeedableRng;

    fn tensor(values: &[f32]) -> Tensor<B, 1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Default::default())
    }

    const RANGE: (f64, f64) = (0.2, 0.2);

    #[test]
    fn the_clipped_loss_matches_the_vectors() {
        for (ratio, advantage, want) in [(1.3f32, 1.0f32, -1.2f32), (1.3, -1.0, 1.3), (0.7, 1.0, -0.7), (0.7, -1.0, 0.8)] {
            let (loss, _) = clipped(tensor(&[ratio.ln()]), vec![0.0], vec![0.0], vec![advantage], vec![1.0], RANGE, None);
            assert!((loss.into_scalar() - want).abs() < 1e-5, "ratio {ratio}, advantage {advantage}");
        }
        // Clip-higher leaves more room upwards alone.
        for (ratio, advantage, want) in [(1.3f32, 1.0f32, -1.28f32), (0.7, -1.0, 0.8)] {
            let (loss, _) = clipped(tensor(&[ratio.ln()]), vec![0.0], vec![0.0], vec![advantage], vec![1.0], (0.2, 0.28), None);
            assert!((loss.into_scalar() - want).abs() < 1e-5);
        }
        // Weights are of single tokens.
        let (loss, _) = clipped(tensor(&[0.0, 0.0]), vec![0.0; 2], vec![0.0; 2], vec![2.0, 5.0], vec![0.5, 0.25], RANGE, None);
        assert!((loss.into_scalar() + 2.25).abs() < 1e-6);
    }

    #[test]
    fn estimates_in_the_loss_match_the_vectors() {
        let (new, reference) = ([-1.0, -0.5, -2.0], vec![-1.2, -0.4, -1.5]);
        // The policy that sampled gave the first token half the probability: its ratio is 2.
        let old = vec![-1.0 - std::f32::consts::LN_2, -0.5, -2.0];
        for (kind, want) in [
            (KlLoss::K2, 0.02 + 0.005 + 0.125),
            (KlLoss::K3, 0.018731 + 0.005171 + 0.148721),
            (KlLoss::K3Ratio, 2.0 * 0.018731 + 0.005171 + 0.148721),
        ] {
            let penalty = Some((kind, 2.0));
            let (loss, _) =
                clipped(tensor(&new), old.clone(), reference.clone(), vec![0.0; 3], vec![1.0; 3], (9.0, 9.0), penalty);
            assert!((loss.into_scalar() - 2.0 * want).abs() < 1e-5, "{kind:?}");
        }
    }

    /// KL from `q` to `p` over a few tokens.
    fn kl(p: &[f64], q: &[f64]) -> f64 {
        p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
    }

    fn softmax(logits: &[f64]) -> Vec<f64> {
        let sum: f64 = logits.iter().map(|l| l.exp()).sum();
        logits.iter().map(|l| l.exp() / sum).collect()
    }

    /// Numerical gradient of `f` of the policy by its logits.
    fn numerical(logits: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        let at = |i: usize, h: f64| {
            let mut moved = logits.to_vec();
            moved[i] += h;
            f(&softmax(&moved))
        };
        (0..logits.len()).map(|i| (at(i, 1e-5) - at(i, -1e-5)) / 2e-5).collect()
    }

    /// Expected gradients over all tokens that the policy may sample, weighed by their probability.
    #[test]
    fn expected_gradients_are_those_of_the_kl_that_is_named() {
        let logits = [1.5, -0.5, 0.3, -2.0];
        let (pi, reference) = (softmax(&logits), softmax(&[-1.0, 0.5, 1.0, 0.2]));
        let reverse = numerical(&logits, |p| kl(p, &reference));
        let forward = numerical(&logits, |p| kl(&reference, p));
        let log = |p: &[f64]| p.iter().map(|p| p.ln() as f32).collect::<Vec<f32>>();
        let weights: Vec<f32> = pi.iter().map(|&p| p as f32).collect();
        let gradient = |advantages: Vec<f32>, penalty: Penalty| -> Vec<f32> {
            let theta = tensor(&logits.map(|l| l as f32)).require_grad();
            let new = burn::tensor::activation::log_softmax(theta.clone(), 0);
            let (loss, _) = clipped(new, log(&pi), log(&reference), advantages, weights.clone(), RANGE, penalty);
            theta.grad(&loss.backward()).unwrap().into_data().to_vec().unwrap()
        };
        let zeros = || vec![0.0; 4];
        // k1 in the reward: a token's advantage is minus its log-ratio.
        let k1: Vec<f32> = pi.iter().zip(&reference).map(|(p, q)| -(p / q).ln() as f32).collect();
        for (name, got, want) in [
            ("k1 in the reward", gradient(k1, None), &reverse),
            ("k2", gradient(zeros(), Some((KlLoss::K2, 1.0))), &reverse),
            ("k3 times the ratio", gradient(zeros(), Some((KlLoss::K3Ratio, 1.0))), &reverse),
            ("k3", gradient(zeros(), Some((KlLoss::K3, 1.0))), &forward),
        ] {
            for (g, w) in got.iter().zip(want) {
                assert!((f64::from(*g) - w).abs() < 1e-4, "{name}: {got:?}, not {want:?}");
            }
        }
        assert!(reverse.iter().zip(&forward).any(|(r, f)| (r - f).abs() > 0.1));
    }

    #[test]
    fn k3_alone_hardly_pulls_where_the_policy_has_gone_far() {
        // A token with probability 0.05 now, and 0.001 under the reference.
        let pull = |kind| {
            let new = tensor(&[0.05f32.ln()]).require_grad();
            let old = vec![0.05f32.ln()];
            let (loss, _) = clipped(new.clone(), old, vec![0.001f32.ln()], vec![0.0], vec![1.0], RANGE, Some((kind, 1.0)));
            new.grad(&loss.backward()).unwrap().into_scalar()
        };
        assert!((pull(KlLoss::K3) - 0.98).abs() < 1e-3);
        assert!((pull(KlLoss::K2) - 3.912).abs() < 1e-3 && (pull(KlLoss::K3Ratio) - 3.912).abs() < 1e-3);
    }

    #[test]
    fn log_ratios_are_limited_at_both_ends() {
        for (d, limit) in [(30.0f32, 20.0f32), (-30.0, -20.0)] {
            let at = |kind| kl_estimate(kind, tensor(&[d]), tensor(&[3.0])).into_scalar();
            // 20^2 / 2; exp(-20) - 1 + 20 is 19, exp(20) - 1 - 20 is what follows.
            let k3 = if limit > 0.0 { 19.0 } else { 485_165_174.4 };
            assert_eq!(at(KlLoss::K2), 200.0);
            assert!(near(at(KlLoss::K3).into(), k3) && near(at(KlLoss::K3Ratio).into(), 3.0 * k3), "{d}");
            let (_, log_ratios) = clipped(tensor(&[d]), vec![0.0], vec![0.0], vec![1.0], vec![1.0], RANGE, None);
            assert_eq!(log_ratios, [limit]);
        }
        // What is told is the ratio as it is, neither clipped nor weighed.
        let (_, log_ratios) =
            clipped(tensor(&[-1.0, 2.0]), vec![-2.0, 2.5], vec![0.0; 2], vec![0.0; 2], vec![0.1; 2], RANGE, None);
        assert_eq!(log_ratios, [1.0, -0.5]);
    }

    #[test]
    fn a_minibatch_is_averaged_over_all_its_tokens() {
        let groups = [vec![rollout(0, 0.0, 3), rollout(0, 0.0, 2)], vec![rollout(1, 0.0, 4)]];
        let part: Vec<&[Rollout]> = groups.iter().map(Vec::as_slice).collect();
        assert_eq!((mean_over_tokens(&part), mean_over_tokens(&part[1..]), mean_over_tokens(&[])), (1.0 / 9.0, 0.25, 1.0));
    }

    #[test]
    fn every_token_gets_what_belongs_to_it() {
        let (policy, prompts) = (policy(), prompts());
        let config = PolicyConfig {
            optimizer: PolicyOptimizer::Grpo,
            kl_penalty: KlPenalty::K2Loss,
            clip_high: Some(0.3),
            temperature: 0.5,
            ..Default::default()
        };
        let mut all = [said(2, &[6, 0]), said(2, &[1]), said(0, &[5, 3, 0])];
        sampled(&policy, &mut all, 0.5);
        // Ratios of 1.5 and 0.5 to the policy that sampled; log-ratios of 0.2, -0.4 and 1 to the reference.
        all[0].answer.log_probs[0] -= 1.5f32.ln();
        all[1].answer.log_probs[0] += 2f32.ln();
        all[0].reference_log_probs[0] -= 0.2;
        all[0].reference_log_probs[1] += 0.4;
        all[2].reference_log_probs[1] -= 1.0;
        (all[0].advantage, all[1].advantage, all[2].advantage) = (2.0, -1.0, 9.0);
        all[2].per_token = Some(vec![1.0, -2.0, 0.5]);
        // Weights of the answers' tokens.
        (all[0].score, all[1].score, all[2].score) = (0.5, 1.0, 0.25);
        let rollouts: Vec<&Rollout> = all.iter().collect();
        let (loss, log_ratios) = loss(&policy, &rollouts, &prompts, &told(&prompts, &config), |r| r.score);
        // Of the first answer -1.3 * 2 and -2, of the second 0.8, of the third -1 + 2 - 0.5; half of d^2 / 2 of each comes on top.
        let want = 0.5 * (-2.6 - 2.0 + 0.01 + 0.04) + 0.8 + 0.25 * (-1.0 + 2.0 - 0.5 + 0.25);
        assert!((loss.into_scalar() - want).abs() < 1e-4);
        for (got, want) in log_ratios.iter().zip([1.5f32.ln(), 0.0, 0.5f32.ln(), 0.0, 0.0, 0.0]) {
            assert!((got - want).abs() < 1e-4, "{log_ratios:?}");
        }
        assert_eq!(log_ratios.len(), 6);
    }

    #[test]
    fn an_update_follows_the_weighed_sum_and_counts_what_it_reads() {
        let (policy, prompts) = (policy(), prompts());
        let config = PolicyConfig { optimizer: PolicyOptimizer::Grpo, epochs: 2, ..Default::default() };
        let mut all = batch(&policy, 1.0);
        let advantages = [1.0, -1.0, 0.5, 2.0, -1.5, 0.25];
        all.iter_mut().zip(advantages).for_each(|(r, advantage)| r.advantage = advantage);
        // The reference is where the policy is, so that its penalty pulls nowhere.
        let weight = |part: &[&[Rollout]], r: &Rollout| mean_over_tokens(part) * (r.index + 1) as f64;
        let rng = &mut StdRng::seed_from_u64(1);
        let (_, report) = update(trainee(&policy), &all, &told(&prompts, &config), rng, weight);
        let each: Vec<f64> = advantages.iter().zip(1..).map(|(a, n)| a * f64::from(n) / 15.0).collect();
        assert!(near(report.gradient_norm, norm(&policy, &all, &for_tokens(&all, &each), 1.0)));
        assert_eq!(report.work.training_tokens, 2 * 21);
        assert!(near(report.first_ratio, 1.0) && report.clip_fraction == 0.0);
    }
}
