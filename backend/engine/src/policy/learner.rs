//! A policy under optimisation: which optimiser's advantages and update it gets, and how it is kept.

use super::rollout::Rollout;
use super::update::{PolicyTrainee, Update, UpdateReport, zero_std_groups};
use super::{dpo, grpo, ppo, reinforce, rloo};
use crate::keep::checkpoint::Parts;
use crate::model::TrainBackend;
use crate::model::mixture::mixture;
use crate::model::optimizer::Trainee;
use crate::model::store::{from_safetensors, to_safetensors};
use crate::model::transformer::Transformer;
use anyhow::Result;
use burn::module::AutodiffModule;
use moslim_shared::config::{PolicyConfig, PolicyOptimizer};
use ppo::Critic;
use rand::rngs::StdRng;

/// A policy under optimisation, with its critic where the optimiser has one.
pub struct Learner<B: TrainBackend> {
    pub policy: PolicyTrainee<B>,
    critic: Option<Trainee<B, Critic<B>>>,
    /// Mean of the weights after some iterations, and their number.
    averaged: Option<(Transformer<B::InnerBackend>, u64)>,
}

impl<B: TrainBackend> Learner<B> {
    /// Starts from `policy`; a critic is a copy of its trunk with a value head of 0.
    pub fn new(policy: Transformer<B>, config: &PolicyConfig) -> Self {
        let critic = (config.optimizer == PolicyOptimizer::Ppo)
            .then(|| Trainee::new(Critic::on_trunk(policy.clone()), 0.0, config.max_gradient_norm));
        Self { policy: Trainee::new(policy, 0.0, config.max_gradient_norm), critic, averaged: None }
    }

    /// Models and optimiser states, bit for bit.
    pub fn to_parts(&self) -> Result<Parts> {
        let mut parts = vec![self.policy.to_bytes()?];
        parts.extend(self.critic.as_ref().map(Trainee::to_bytes).transpose()?);
        if let Some((mean, count)) = &self.averaged {
            parts.push((to_safetensors::<B::InnerBackend, _>(mean)?, count.to_le_bytes().to_vec()));
        }
        Ok(parts)
    }

    /// Counts the weights as they are into the mean.
    pub fn average(&mut self) {
        let now = self.policy.model.valid();
        self.averaged = Some(match self.averaged.take() {
            None => (now, 1),
            Some((mean, n)) => {
                let share = 1.0 / (n + 1) as f32;
                (mixture(&[mean, now], &[1.0 - share, share]), n + 1)
            }
        });
    }

    /// Forgets the weights that were counted.
    pub fn forget_average(&mut self) {
        self.averaged = None;
    }

    /// The policy that came out: the mean of the weights that were counted, or the last.
    pub fn into_policy(self) -> Transformer<B> {
        match self.averaged {
            Some((mean, _)) => Transformer::from_inner(mean),
            None => self.policy.model,
        }
    }

    /// Restores what [`Learner::to_parts`] gave for a learner of the same shape.
    pub fn from_parts(self, parts: Parts, device: &B::Device) -> Result<Self> {
        let mut parts = parts.into_iter();
        let mut next = || parts.next().ok_or_else(|| anyhow::anyhow!("the checkpoint holds too few models"));
        let (model, optimizer) = next()?;
        let policy = self.policy.from_bytes(model, optimizer, device)?;
        let critic = match self.critic {
            Some(critic) => {
                let (model, optimizer) = next()?;
                Some(critic.from_bytes(model, optimizer, device)?)
            }
            None => None,
        };
        let averaged = match parts.next() {
            Some((model, count)) => {
                let count =
                    count.try_into().map_err(|_| anyhow::anyhow!("the checkpoint's count of averaged weights is damaged"))?;
                Some((from_safetensors(policy.model.valid(), model)?, u64::from_le_bytes(count)))
            }
            None => None,
        };
        Ok(Self { policy, critic, averaged })
    }

    /// Gives the rollouts their advantages and updates the policy on them. Samples of one prompt are neighbours.
    pub fn update(self, rollouts: &mut [Rollout], u: &Update, rng: &mut StdRng) -> (Self, UpdateReport) {
        let flat = zero_std_groups(rollouts);
        let Self { policy, critic, averaged } = self;
        let (policy, critic, mut report) = match u.config.optimizer {
            PolicyOptimizer::Rloo => {
                rloo::set_advantages(rollouts, u);
                let (policy, report) = rloo::update(policy, rollouts, u, rng);
                (policy, critic, report)
            }
            PolicyOptimizer::Grpo | PolicyOptimizer::DrGrpo | PolicyOptimizer::Dapo => {
                grpo::set_advantages(rollouts, u);
                let (policy, report) = grpo::update(policy, rollouts, u, rng);
                (policy, critic, report)
            }
            PolicyOptimizer::ReinforcePlusPlus => {
                reinforce::set_advantages(rollouts, u);
                let (policy, report) = reinforce::update(policy, rollouts, u, rng);
                (policy, critic, report)
            }
            PolicyOptimizer::Ppo => {
                let critic = critic.expect("PPO has a critic");
                let (values, read) = ppo::set_advantages(&critic, rollouts, u);
                let (policy, critic, mut report) = ppo::update(policy, critic, rollouts, &values, u, rng);
                report.work.forward_tokens += read;
                (policy, Some(critic), report)
            }
            PolicyOptimizer::OnlineDpo | PolicyOptimizer::OnlineIpo => {
                dpo::set_advantages(rollouts);
                let (policy, report) = dpo::update(policy, rollouts, u, rng);
                (policy, critic, report)
            }
        };
        report.zero_std_groups = flat;
        (Self { policy, critic, averaged }, report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::generate::{Sampling, generate};
    use crate::model::packed::Group;
    use crate::policy::rollout::Prompt;
    use crate::policy::rollout::answer_log_probs;
    use crate::policy::update::Supervised;
    use crate::policy::update::tests::{B, batch, policy, told};
    use moslim_shared::config::PolicyConfig;
    use moslim_shared::config::{Aggregation, KlPenalty};
    use moslim_shared::preference::Preference;
    use rand::SeedableRng;

    const EOS: u32 = 0;

    fn prompts() -> Vec<Prompt> {
        let tokens = [[13, 1, 2], [13, 3, 4], [13, 5, 6], [13, 7, 8]];
        let prompt = |tokens: &[u32; 3]| Prompt {
            question: 0,
            preference: Preference(vec![Some(0)]),
            weights: None,
            tokens: tokens.to_vec(),
        };
        tokens.iter().map(prompt).collect()
    }

    /// Answers of `policy`; the score of an answer is the share of token 5 in it.
    fn rollouts(policy: &Transformer<B>, prompts: &[Prompt], samples: usize, seed: u64) -> Vec<Rollout> {
        let inputs: Vec<&[u32]> = prompts.iter().map(|p| p.tokens.as_slice()).collect();
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: 8, seed };
        let answers = generate(&policy.valid(), &inputs, samples, EOS, &sampling);
        answers
            .into_iter()
            .enumerate()
            .map(|(n, answer)| {
                let score = answer.tokens.iter().filter(|&&t| t == 5).count() as f64 / answer.tokens.len() as f64;
                Rollout {
                    index: n,
                    prompt: n / samples,
                    distributions: vec![],
                    contributions: vec![score],
                    penalty: 0.0,
                    score,
                    kl: 0.0,
                    reward: score,
                    reference_log_probs: answer.log_probs.clone(),
                    asked: vec![true],
                    expected: vec![],
                    advantage: 0.0,
                    per_token: None,
                    answer,
                }
            })
            .collect()
    }

    fn config(optimizer: PolicyOptimizer) -> PolicyConfig {
        let mut config = PolicyConfig { optimizer, learning_rate: 5e-3, max_new_tokens: 8, ..Default::default() };
        config.ppo.critic_warm_up = 0;
        config.dpo.margin = 0.01;
        config
    }

    /// Mean score over fresh samples.
    fn mean_score(policy: &Transformer<B>) -> f64 {
        let all = rollouts(policy, &prompts(), 64, 99);
        all.iter().map(|r| r.score).sum::<f64>() / all.len() as f64
    }

    #[test]
    fn every_optimiser_starts_at_ratio_one_and_raises_the_reward() {
        let mut cases: Vec<PolicyConfig> = PolicyOptimizer::ALL.map(config).to_vec();
        let gdpo = PolicyConfig { aggregation: Aggregation::NormaliseThenSum, ..config(PolicyOptimizer::Grpo) };
        for kl_penalty in [KlPenalty::K1Reward, KlPenalty::K2Loss, KlPenalty::K3Loss, KlPenalty::K3RatioLoss] {
            cases.extend([PolicyOptimizer::Rloo, PolicyOptimizer::Grpo].map(|o| PolicyConfig { kl_penalty, ..config(o) }));
        }
        let mut mean = config(PolicyOptimizer::OnlineIpo);
        mean.dpo.mean_log_probs = true;
        cases.push(mean);
        cases.extend(
            [PolicyOptimizer::Rloo, PolicyOptimizer::Grpo]
                .map(|o| PolicyConfig { aggregation: Aggregation::MinNorm, ..config(o) }),
        );
        let epochs = PolicyConfig { epochs: 2, minibatches: 2, ..config(PolicyOptimizer::Ppo) };
        cases.extend([gdpo, epochs]);
        let before = mean_score(&policy());
        for config in cases {
            let mut learner = Learner::<B>::new(policy(), &config);
            let mut rng = StdRng::seed_from_u64(1);
            let prompts = prompts();
            for iteration in 0..12 {
                let mut batch = rollouts(&learner.policy.model, &prompts, 16, iteration as u64);
                let rate = config.learning_rate;
                let update =
                    Update { prompts: &prompts, config: &config, beta: 0.01, learning_rate: rate, iteration, supervised: &[] };
                let (next, report) = learner.update(&mut batch, &update, &mut rng);
                learner = next;
                let name = config.optimizer.title();
                assert!((report.first_ratio - 1.0).abs() < 1e-4, "{name}: first ratio {}", report.first_ratio);
                assert!(report.gradient_norm.is_finite() && report.work.training_tokens > 0, "{name}");
                if config.epochs * config.minibatches == 1 {
                    assert!(report.approx_kl < 1e-8 && report.clip_fraction == 0.0, "{name}: nothing has moved yet");
                }
                assert_eq!(report.value_loss.is_some(), config.optimizer == PolicyOptimizer::Ppo);
            }
            let after = mean_score(&learner.policy.model);
            assert!(after > before + 0.05, "{:?} {:?}: {before} to {after}", config.optimizer, config.aggregation);
        }
    }

    #[test]
    fn a_learner_comes_back_bit_for_bit_with_its_critic() {
        let config = config(PolicyOptimizer::Ppo);
        let prompts = prompts();
        let step = |learner: Learner<B>, seed: u64| {
            let mut batch = rollouts(&learner.policy.model, &prompts, 4, seed);
            let update =
                Update { prompts: &prompts, config: &config, beta: 0.01, learning_rate: 5e-3, iteration: 9, supervised: &[] };
            learner.update(&mut batch, &update, &mut StdRng::seed_from_u64(seed)).0
        };
        let once = step(Learner::new(policy(), &config), 1);
        let parts = once.to_parts().unwrap();
        assert_eq!(parts.len(), 2);
        let back = Learner::new(policy(), &config).from_parts(parts.clone(), &Default::default()).unwrap();
        // Records of optimisers have no fixed order; what they lead to has.
        let weights = |learner: Learner<B>| {
            let policy: Vec<f32> = learner.policy.model.embedding.val().into_data().to_vec().unwrap();
            let critic: Vec<f32> = learner.critic.unwrap().model.head.val().into_data().to_vec().unwrap();
            assert!(critic.iter().any(|&w| w != 0.0));
            (policy, critic)
        };
        assert!(weights(step(once, 2)) == weights(step(back, 2)));
        let half = Learner::<B>::new(policy(), &config).from_parts(parts[..1].to_vec(), &Default::default());
        assert!(half.is_err_and(|e| e.to_string().contains("too few models")));
    }

    #[test]
    fn averaged_weights_are_the_mean_of_what_was_counted_and_come_back() {
        let config = config(PolicyOptimizer::Rloo);
        let prompts = prompts();
        let weights = |model: &Transformer<B>| -> Vec<f32> { model.embedding.val().into_data().to_vec().unwrap() };
        let mut learner = Learner::<B>::new(policy(), &config);
        let mut seen = Vec::new();
        for n in 0..3 {
            let mut batch = rollouts(&learner.policy.model, &prompts, 4, n);
            let update =
                Update { prompts: &prompts, config: &config, beta: 0.0, learning_rate: 5e-3, iteration: 0, supervised: &[] };
            learner = learner.update(&mut batch, &update, &mut StdRng::seed_from_u64(n)).0;
            learner.average();
            seen.push(weights(&learner.policy.model));
            let parts = learner.to_parts().unwrap();
            assert_eq!(parts.len(), 2);
            learner = Learner::new(policy(), &config).from_parts(parts, &Default::default()).unwrap();
        }
        let mut other = Learner::new(policy(), &config).from_parts(learner.to_parts().unwrap(), &Default::default()).unwrap();
        other.forget_average();
        assert!(
            other.to_parts().unwrap().len() == 1 && weights(&other.into_policy()) == seen[2],
            "the last, where the mean is let go"
        );
        let mean = weights(&learner.into_policy());
        for (i, m) in mean.iter().enumerate() {
            let want = (seen[0][i] + seen[1][i] + seen[2][i]) / 3.0;
            assert!((m - want).abs() < 1e-5, "{m} {want}");
        }
        assert!(seen[0] != seen[1]);
    }

    #[test]
    fn rows_beside_the_samples_become_more_likely() {
        let config = config(PolicyOptimizer::Rloo);
        let prompts = prompts();
        let row = |weight| Supervised { prompt: vec![13, 1, 2], answer: vec![9, 9, EOS], weight };
        let likelihood = |rows: &[Supervised]| {
            let mut learner = Learner::<B>::new(policy(), &config);
            let mut work = 0;
            for n in 0..6 {
                let mut batch = rollouts(&learner.policy.model, &prompts, 4, n);
                let update =
                    Update { prompts: &prompts, config: &config, beta: 0.0, learning_rate: 5e-3, iteration: 0, supervised: rows };
                let (next, report) = learner.update(&mut batch, &update, &mut StdRng::seed_from_u64(n));
                (learner, work) = (next, report.work.training_tokens);
            }
            let group = Group { prompt: &[13, 1, 2], answers: vec![&[9, 9, EOS]] };
            let own = answer_log_probs(&learner.policy.model.valid(), &[group], 1.0);
            (own[0].iter().sum::<f32>(), work)
        };
        let (without, with) = (likelihood(&[]), likelihood(&[row(1.0), row(1.0)]));
        assert!(with.0 > without.0 + 0.3, "{without:?} {with:?}");
        assert!(likelihood(&[row(0.0)]).0 < with.0 - 0.3);
    }

    #[test]
    fn log_probs_of_generation_are_those_of_the_model() {
        let (policy, prompts) = (policy(), prompts());
        let batch = rollouts(&policy, &prompts, 2, 7);
        let groups: Vec<Group> = batch
            .chunks(2)
            .map(|g| Group {
                prompt: &prompts[g[0].prompt].tokens,
                answers: g.iter().map(|r| r.answer.tokens.as_slice()).collect(),
            })
            .collect();
        for (r, own) in batch.iter().zip(answer_log_probs(&policy.valid(), &groups, 1.0)) {
            assert_eq!(own.len(), r.answer.tokens.len());
            for (a, b) in own.iter().zip(&r.answer.log_probs) {
                assert!((a - b).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn work_of_critic_and_rows_is_counted_and_so_are_groups_that_teach_nothing() {
        let prompts = crate::policy::update::tests::prompts();
        let row = Supervised { prompt: vec![13, 1], answer: vec![9, 9, EOS], weight: 1.0 };
        for optimizer in PolicyOptimizer::ALL {
            let config = PolicyConfig { epochs: 2, ..config(optimizer) };
            let updated = |supervised: &[Supervised]| {
                let mut batch = batch(&policy(), 1.0);
                // The first group is flat, and so is the second, of one answer.
                batch.iter_mut().zip([0.5, 0.5, 0.1, 0.2, 0.9, 0.4]).for_each(|(r, score)| r.score = score);
                batch.iter_mut().for_each(|r| (r.contributions, r.asked) = (vec![r.score], vec![true]));
                let u = Update { supervised, ..told(&prompts, &config) };
                Learner::<B>::new(policy(), &config).update(&mut batch, &u, &mut StdRng::seed_from_u64(1)).1
            };
            let [without, with] = [updated(&[]), updated(std::slice::from_ref(&row))];
            assert_eq!((without.zero_std_groups, with.zero_std_groups), (2.0 / 3.0, 2.0 / 3.0));
            // The row's five tokens in each of two steps.
            assert_eq!(with.work.training_tokens - without.work.training_tokens, 2 * 5, "{optimizer:?}");
            assert_ne!(with.gradient_norm, without.gradient_norm, "{optimizer:?}");
            // 21 tokens are read by the policy and by the critic, which is asked once before; of pairs, two answers of the last group.
            let (read, asked) = match optimizer {
                PolicyOptimizer::Ppo => (4 * 21, 21),
                PolicyOptimizer::OnlineDpo | PolicyOptimizer::OnlineIpo => (2 * (2 + 1 + 2), 0),
                _ => (2 * 21, 0),
            };
            assert_eq!((without.work.training_tokens, without.work.forward_tokens), (read, asked), "{optimizer:?}");
        }
    }

    #[test]
    fn equal_scores_move_no_weight() {
        let prompts = crate::policy::update::tests::prompts();
        for optimizer in
            [PolicyOptimizer::Rloo, PolicyOptimizer::Grpo, PolicyOptimizer::DrGrpo, PolicyOptimizer::ReinforcePlusPlus]
        {
            let config = config(optimizer);
            let mut batch = batch(&policy(), 1.0);
            batch.iter_mut().for_each(|r| r.score = 0.5);
            let u = Update { beta: 0.0, learning_rate: 0.1, ..told(&prompts, &config) };
            let (learner, report) = Learner::<B>::new(policy(), &config).update(&mut batch, &u, &mut StdRng::seed_from_u64(1));
            let weights = |policy: &Transformer<B>| policy.embedding.val().into_data().to_vec::<f32>().unwrap();
            // Nothing is learnt, and nothing decays.
            assert!(weights(&learner.policy.model) == weights(&policy()) && report.gradient_norm == 0.0, "{optimizer:?}");
        }
    }
}
