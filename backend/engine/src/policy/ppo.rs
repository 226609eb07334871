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
    use crate::model::store::{from_safetensors, to_safetensors};
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::{Autodiff, Flex};
    use moslim_shared::config::ModelConfig;

    type B = Autodiff<Flex, NoCheckpointing>;

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
    }
}
