//! Proximal policy optimisation (Schulman et al. 2017) with the details of RLHF (Huang et al. 2024): the KL penalty is
//! subtracted token by token, a critic of its own gives every token a baseline, advantages are whitened over the batch and
//! value targets are not.

use super::reinforce::give_tokens;
use super::rollout::{Rollout, groups};
use super::surrogate::{self, mean_over_tokens};
use super::update::{PolicyTrainee, Tally, Update, UpdateReport, by_prompt, clip_range, group_gradients, minibatches, tokens};
use crate::model::TrainBackend;
use crate::model::kernels::Kernels;
use crate::model::optimizer::Trainee;
use crate::model::packed::{Packed, chunks, share};
use crate::model::transformer::{Transformer, index_tensor};
use burn::module::{AutodiffModule, Param};
use burn::prelude::*;
use moslim_shared::advantage::{gae, token_rewards, whiten};
use rand::rngs::StdRng;

/// Predicts, before each token of an answer, the rewards that are still to come. It reads the tagged prompt: what is asked for
/// decides what can be earned.
#[derive(Module, Debug)]
pub struct Critic<B: Backend> {
    trunk: Transformer<B>,
    /// `[d_model, 1]`, 0 at first.
    pub(super) head: Param<Tensor<B, 2>>,
    /// `[1]`
    bias: Param<Tensor<B, 1>>,
}

impl<B: Kernels> Critic<B> {
    /// A value head of 0 on a trunk.
    pub fn on_trunk(trunk: Transformer<B>) -> Self {
        let device = trunk.device();
        let d_model = trunk.embedding.dims()[1];
        Self {
            head: Param::from_tensor(Tensor::zeros([d_model, 1], &device)),
            bias: Param::from_tensor(Tensor::zeros([1], &device)),
            trunk,
        }
    }

    /// The value before every answer token, answer after answer: `[tokens]`.
    pub fn values(&self, packed: &Packed) -> Tensor<B, 1> {
        let hidden = self.trunk.hidden(packed);
        let (positions, _) = packed.answer_tokens();
        let device = hidden.device();
        let n = positions.len();
        (hidden.select(0, index_tensor(&positions, &device)).matmul(self.head.val()) + self.bias.val().unsqueeze()).reshape([n])
    }
}

/// What the critic says before each token of a rollout, and what it is trained towards.
#[derive(Debug, Clone, Default)]
pub struct Values {
    old: Vec<f32>,
    returns: Vec<f32>,
}

/// Fills in the whitened advantages of all tokens. Returns the values of every rollout, and the number of tokens that the
/// critic read.
pub fn set_advantages<B: TrainBackend>(
    critic: &Trainee<B, Critic<B>>,
    rollouts: &mut [Rollout],
    u: &Update,
) -> (Vec<Values>, u64) {
    let work: Vec<&[Rollout]> = by_prompt(rollouts).collect();
    let pieces = chunks::<B::InnerBackend, _>(&work, |group| tokens(group, u.prompts));
    let read = work.iter().map(|g| tokens(g, u.prompts) as u64).sum();
    let predicted = share::<B::InnerBackend, _, _, _>(&critic.model.valid(), pieces, |critic, piece| {
        let rollouts: Vec<&Rollout> = piece.iter().flat_map(|g| g.iter()).collect();
        critic.values(&Packed::new(&groups(&rollouts, u.prompts))).into_data().to_vec::<f32>().expect("values are f32")
    })
    .concat();
    let (mut all, mut values, mut rest) = (Vec::new(), Vec::with_capacity(rollouts.len()), predicted.as_slice());
    for r in rollouts.iter() {
        let (own, tail) = rest.split_at(r.answer.tokens.len());
        rest = tail;
        let predicted: Vec<f64> = own.iter().map(|&v| f64::from(v)).collect();
        let rewards = token_rewards(r.score, &r.log_ratios(), u.reward_beta());
        let (advantages, returns) = gae(&rewards, &predicted, u.config.ppo.gamma, u.config.ppo.lambda);
        all.extend(advantages);
        values.push(Values { old: own.to_vec(), returns: returns.iter().map(|&x| x as f32).collect() });
    }
    whiten(&mut all);
    give_tokens(rollouts, &all);
    (values, read)
}

/// `1/2 mean_t max((V_t - R_t)^2, (clip(V_t, V_old - eps, V_old + eps) - R_t)^2)`; `total`: tokens of the minibatch. Returns the
/// loss and the new values.
pub fn value_loss<B: TrainBackend>(
    new: Tensor<B, 1>,
    old: Vec<f32>,
    returns: Vec<f32>,
    clip: f64,
    total: usize,
) -> (Tensor<B, 1>, Vec<f32>) {
    let device = new.device();
    let n = old.len();
    let host = |values: Vec<f32>| Tensor::<B, 1>::from_data(TensorData::new(values, [n]), &device);
    let (old, returns) = (host(old), host(returns));
    let bounded = old.clone() + (new.clone() - old).clamp(-clip, clip);
    let square = |x: Tensor<B, 1>| x.clone() * x;
    let loss = square(new.clone() - returns.clone()).max_pair(square(bounded - returns)).sum() * 0.5 / total.max(1) as f32;
    (loss, new.inner().into_data().to_vec().expect("values are f32"))
}

/// Updates policy and critic on a batch of rollouts, whose `values` are those of [`set_advantages`]; in the first iterations
/// only the critic.
pub fn update<B: TrainBackend>(
    mut policy: PolicyTrainee<B>,
    mut critic: Trainee<B, Critic<B>>,
    rollouts: &[Rollout],
    values: &[Values],
    u: &Update,
    rng: &mut StdRng,
) -> (PolicyTrainee<B>, Trainee<B, Critic<B>>, UpdateReport) {
    let config = &u.config.ppo;
    // The critic's learning rate follows the policy's schedule.
    let rate = config.critic_learning_rate * u.learning_rate / u.config.learning_rate;
    let (mut tally, mut losses, mut clipped, mut seen) = (Tally::default(), Vec::new(), 0usize, 0usize);
    for (step, part) in minibatches(rollouts, u.config, rng).into_iter().enumerate() {
        let read = part.iter().map(|g| tokens(g, u.prompts) as u64).sum::<u64>();
        let answered: usize = part.iter().flat_map(|g| g.iter()).map(|r| r.answer.tokens.len()).sum();
        if u.iteration >= config.critic_warm_up {
            let weight = mean_over_tokens(&part);
            let (_, grads, log_ratios) = group_gradients(&policy.model, &part, u.prompts, |model, part| {
                let rollouts: Vec<&Rollout> = part.iter().flat_map(|g| g.iter()).collect();
                surrogate::loss(model, &rollouts, u.prompts, u, |_| weight)
            });
            let grads = u.mix_in(&policy.model, grads, step, &mut tally.work);
            let (next, norm) = policy.step(grads, u.learning_rate);
            policy = next;
            tally.observe(&log_ratios.concat(), clip_range(u.config), norm);
            tally.work.training_tokens += read;
        }
        let (loss, grads, outside) = group_gradients(&critic.model, &part, u.prompts, |model, part| {
            let rollouts: Vec<&Rollout> = part.iter().flat_map(|g| g.iter()).collect();
            let new = model.values(&Packed::new(&groups(&rollouts, u.prompts)));
            let old: Vec<f32> = rollouts.iter().flat_map(|r| values[r.index].old.clone()).collect();
            let returns = rollouts.iter().flat_map(|r| values[r.index].returns.clone()).collect();
            let (loss, new) = value_loss(new, old.clone(), returns, config.value_clip, answered);
            (loss, new.iter().zip(&old).filter(|(n, o)| f64::from((*n - *o).abs()) > config.value_clip).count())
        });
        critic = critic.step(grads, rate).0;
        tally.work.training_tokens += read;
        losses.push(loss);
        clipped += outside.iter().sum::<usize>();
        seen += answered;
    }
    let mut report = tally.report();
    report.value_loss = Some(losses.iter().sum::<f64>() / losses.len().max(1) as f64);
    report.value_clip_fraction = Some(clipped as f64 / seen.max(1) as f64);
    let all = |f: fn(&Values) -> &[f32]| values.iter().flat_map(|v| f(v).to_vec()).collect::<Vec<f32>>();
    report.explained_variance = Some(explained_variance(&all(|v| &v.returns), &all(|v| &v.old)));
    (policy, critic, report)
}

/// `1 - Var(R - V) / Var(R)`; 0 where the returns do not vary.
fn explained_variance(returns: &[f32], values: &[f32]) -> f64 {
    let variance = |v: &[f64]| {
        let mean = v.iter().sum::<f64>() / v.len().max(1) as f64;
        v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / v.len().max(1) as f64
    };
    let all: Vec<f64> = returns.iter().map(|&r| f64::from(r)).collect();
    let miss: Vec<f64> = returns.iter().zip(values).map(|(r, v)| f64::from(r - v)).collect();
    let total = variance(&all);
    if total > 0.0 { 1.0 - variance(&miss) / total } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::adapter::AdapterConfig;
    use crate::model::packed::Group;
    use crate::model::store::{from_safetensors, to_safetensors};
    use crate::policy::update::tests::{B, batch, near, norm, policy, prompts, rollout, told, trainee};
    use moslim_shared::config::{ModelConfig, PolicyConfig, PolicyOptimizer};
    use rand::SeedableRng;

    /// A critic that expects 0.5 of everything.
    fn critic() -> Trainee<B, Critic<B>> {
        let mut critic = Critic::on_trunk(policy());
        critic.bias = Param::from_tensor(Tensor::full([1], 0.5, &Default::default()));
        Trainee::new(critic, 0.0, 1.0)
    }

    fn config() -> PolicyConfig {
        let mut config = PolicyConfig { optimizer: PolicyOptimizer::Ppo, epochs: 2, temperature: 0.5, ..Default::default() };
        (config.ppo.gamma, config.ppo.lambda, config.ppo.value_clip) = (0.9, 0.8, 0.25);
        config
    }

    /// The head of a critic on an adapted model is trained, whatever the head of a decoder is called.
    #[test]
    fn a_checkpoint_of_an_adapted_critic_has_its_head() {
        let config = ModelConfig { d_model: 24, d_ff: 40, context: 64, tied_embeddings: false, ..Default::default() };
        let trunk = Transformer::<B>::new(&config, 50, 40, 3, &Default::default()).adapted(&AdapterConfig::default(), 7);
        let mut taught = Critic::on_trunk(trunk.clone());
        (taught.head, taught.bias) = (taught.head.map(|head| head + 0.5), taught.bias.map(|bias| bias - 2.0));
        let kept = to_safetensors::<B, _>(&taught).unwrap();
        let back = from_safetensors::<B, _>(Critic::on_trunk(trunk), kept.clone()).unwrap();
        assert_eq!(back.head.val().into_data().to_vec::<f32>().unwrap(), [0.5; 24]);
        assert_eq!(back.bias.val().into_data().to_vec::<f32>().unwrap(), [-2.0]);
        let names = String::from_utf8_lossy(&kept[8..]).into_owned();
        assert!(!names.contains("trunk.head") && !names.contains("trunk.embedding") && names.contains("trunk.adapters."));
    }

    #[test]
    fn the_value_loss_matches_the_vector() {
        let new = Tensor::<B, 1>::from_data([1.0], &Default::default());
        let (loss, values) = value_loss(new, vec![0.5], vec![0.9], 0.2, 1);
        assert!((loss.into_scalar() - 0.02).abs() < 1e-6);
        assert_eq!(values, [1.0]);
    }

    #[test]
    fn explained_variance_knows_perfection_and_ignorance() {
        let returns = [1.0, 2.0, 3.0];
        assert!((explained_variance(&returns, &returns) - 1.0).abs() < 1e-9);
        assert!(explained_variance(&returns, &[5.0; 3]).abs() < 1e-9);
        assert_eq!(explained_variance(&[1.0; 3], &[0.0; 3]), 0.0);
        // Of returns that vary by 4 it misses 0 and 2, which vary by 1; whoever misses all by the same explains all.
        assert!((explained_variance(&[0.0, 4.0], &[0.0, 2.0]) - 0.75).abs() < 1e-9);
        assert!((explained_variance(&[0.0, 4.0], &[3.0, 7.0]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_value_loss_is_clipped_at_both_ends() {
        let new = Tensor::<B, 1>::from_data([1.0, 0.2, 0.6, 0.6, 1.0], &Default::default());
        let (loss, values) = value_loss(new, vec![0.5; 5], vec![0.9, 0.0, 0.9, 0.0, 0.1], 0.2, 10);
        // At the upper end 0.7 misses 0.9 by more than 1 does, at the lower end 0.3 misses 0 by more than 0.2; within the range nothing changes;
        // and 1 misses 0.1 by more than 0.7 does. Of ten tokens these are five.
        assert!((loss.into_scalar() - 0.5 * (0.04 + 0.09 + 0.09 + 0.36 + 0.81) / 10.0).abs() < 1e-6);
        assert_eq!(values, [1.0, 0.2, 0.6, 0.6, 1.0]);
    }

    #[test]
    fn values_are_read_before_each_token() {
        let mut critic = Critic::on_trunk(policy());
        critic.head = Param::from_tensor(Tensor::full([24, 1], 0.5, &Default::default()));
        critic.bias = Param::from_tensor(Tensor::full([1], -2.0, &Default::default()));
        let groups =
            [Group { prompt: &[13, 1], answers: vec![&[5, 3, 0], &[7, 0]] }, Group { prompt: &[13], answers: vec![&[4]] }];
        let packed = Packed::new(&groups);
        let hidden: Vec<f32> = critic.trunk.hidden(&packed).into_data().to_vec().unwrap();
        let got: Vec<f32> = critic.values(&packed).into_data().to_vec().unwrap();
        // Two tokens of the first prompt, three and two of its answers, one of the second prompt, one of its answer.
        assert_eq!((hidden.len(), got.len()), (9 * 24, 6));
        for (got, place) in got.iter().zip([1, 2, 3, 1, 5, 7]) {
            let want = 0.5 * hidden[place * 24..(place + 1) * 24].iter().sum::<f32>() - 2.0;
            assert!((got - want).abs() < 1e-4, "{got} is not {want}");
        }
    }

    #[test]
    fn advantages_are_estimated_answer_by_answer_and_whitened_together() {
        let (prompts, config) = (prompts(), config());
        let mut all = [rollout(0, 1.0, 2), rollout(0, -2.0, 1), rollout(2, 0.5, 3)];
        // Log-probabilities are -1: half of a k1 of 0.5 is subtracted from the first answer's score.
        all[0].reference_log_probs[1] = -1.5;
        let (values, read) = set_advantages(&critic(), &mut all, &told(&prompts, &config));
        // Prompts of three and of two tokens.
        assert_eq!(read, 3 + 2 + 1 + 2 + 3);
        // Rewards 0, 0.75; -2; 0, 0, 0.5 with values of 0.5 everywhere, gamma 0.9 and gamma lambda 0.72: advantages 0.13, 0.25; -2.5; -0.086, -0.05,
        // 0, and with the values the returns. The advantages' mean is -0.376.
        let returns: [&[f32]; 3] = [&[0.63, 0.75], &[-2.0], &[0.414, 0.45, 0.5]];
        let want: [&[f64]; 3] = [&[0.482846, 0.597354], &[-2.026806], &[0.276730, 0.311082, 0.358794]];
        for (n, r) in all.iter().enumerate() {
            let near =
                |got: &[f32], want: &[f32]| got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-5) && got.len() == want.len();
            assert!(near(&values[n].returns, returns[n]) && values[n].old == vec![0.5; returns[n].len()], "{:?}", values[n]);
            let whitened: Vec<f32> = want[n].iter().map(|&w| w as f32).collect();
            assert!(near(&r.token_advantages(), &whitened), "{:?}", r.per_token);
            assert!((r.advantage - want[n].iter().sum::<f64>() / want[n].len() as f64).abs() < 1e-5);
        }
    }

    #[test]
    fn an_update_follows_both_losses_and_tells_of_them() {
        let (policy, prompts, mut config) = (policy(), prompts(), config());
        let mut all = batch(&policy, 0.5);
        let advantages: Vec<f64> = (0..15).map(|t| f64::from(t - 5) / 4.0).collect();
        give_tokens(&mut all, &advantages);
        // The critic says 0.5 as before, but of the first answer, where it had said 0.9 and 0.1 of two tokens, and of the fourth, where it had said
        // 0.25, which is within the range of 0.25.
        let mut values: Vec<Values> =
            all.iter().map(|r| vec![0.5; r.answer.tokens.len()]).map(|v| Values { old: v.clone(), returns: v }).collect();
        values[0] = Values { old: vec![0.5, 0.9, 0.1], returns: vec![1.0, 0.5, 0.5] };
        values[3].old = vec![0.25; 2];
        let updated = |config: &PolicyConfig| {
            let rng = &mut StdRng::seed_from_u64(1);
            update(trainee(&policy), critic(), &all, &values, &told(&prompts, config), rng).2
        };
        config.ppo.critic_warm_up = 0;
        let report = updated(&config);
        // 0.5 is missed by 0.5 once, and twice 0.15 are left between the end of the range and 0.5; of fifteen tokens.
        let value_loss = 0.5 * (0.25 + 2.0 * 0.0225) / 15.0;
        assert!(near(report.value_loss.unwrap(), value_loss), "{:?}", report.value_loss);
        assert_eq!(report.value_clip_fraction, Some(2.0 / 15.0));
        // Returns vary by 0.0156 around 8/15; what they are above the old values, 0.5, -0.4, 0.4 and twice 0.25, by 0.0419.
        let explained = 1.0 - (0.695 / 15.0 - 1.0 / 225.0) / (4.5 / 15.0 - 64.0 / 225.0);
        assert!(near(report.explained_variance.unwrap(), explained), "{:?}", report.explained_variance);
        let coefficients: Vec<f32> = advantages.iter().map(|a| (a / 15.0) as f32).collect();
        assert!(near(report.gradient_norm, norm(&policy, &all, &coefficients, 0.5)), "{}", report.gradient_norm);
        // Policy and critic read 21 tokens each, twice; while it warms up only the critic does.
        assert_eq!(report.work.training_tokens, 4 * 21);
        config.ppo.critic_warm_up = 1;
        let report = updated(&config);
        assert_eq!((report.work.training_tokens, report.gradient_norm, report.first_ratio), (2 * 21, 0.0, 1.0));
        assert!(near(report.value_loss.unwrap(), value_loss));
    }

    #[test]
    fn the_critic_follows_the_schedule_and_the_policy_waits_for_it() {
        let (policy, prompts, mut config) = (policy(), prompts(), config());
        let mut all = batch(&policy, 0.5);
        give_tokens(&mut all, &[1.0, -1.0, 0.5, 0.0, 2.0].repeat(3));
        // More comes than the critic says.
        let one = |r: &Rollout| Values { old: vec![0.5; r.answer.tokens.len()], returns: vec![1.0; r.answer.tokens.len()] };
        let values: Vec<Values> = all.iter().map(one).collect();
        (config.epochs, config.learning_rate, config.ppo.critic_learning_rate, config.ppo.critic_warm_up) = (1, 0.01, 0.004, 2);
        for iteration in [1, 2] {
            let u = Update { iteration, learning_rate: 0.005, ..told(&prompts, &config) };
            let (moved, critic, _) = update(trainee(&policy), critic(), &all, &values, &u, &mut StdRng::seed_from_u64(1));
            let weights = |policy: &Transformer<B>| policy.embedding.val().into_data().to_vec::<f32>().unwrap();
            assert_eq!(weights(&moved.model) != weights(&policy), iteration == 2);
            // Adam's first step is as long as the learning rate, which is half of its peak.
            let bias = critic.model.bias.val().into_data().to_vec::<f32>().unwrap()[0];
            assert!((bias - 0.502).abs() < 1e-5, "{bias}");
        }
    }
}
