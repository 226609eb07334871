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
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::{Autodiff, Flex};

    type B = Autodiff<Flex, NoCheckpointing>;

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
}
