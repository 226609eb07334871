//! What every optimiser's update is made of: what it is told, minibatches, gradients, and what it reports.

use super::rollout::{Prompt, Rollout};
use crate::model::TrainBackend;
use crate::model::optimizer::{Trainee, add, gradients};
use crate::model::packed::{Group, Packed, chunks};
use crate::model::transformer::Transformer;
use burn::optim::GradientsParams;
use burn::prelude::*;
use moslim_shared::config::{KlLoss, KlPlacement, PolicyConfig};
use moslim_shared::summary::Work;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What an update reports, under the field's standard names; see [`moslim_shared::event::PolicyStep`].
#[derive(Debug, Clone, Default)]
pub struct UpdateReport {
    /// Share of groups whose rewards are all equal, from which nothing can be learnt by comparison.
    pub zero_std_groups: f64,
    /// Mean ratio of the first minibatch.
    pub first_ratio: f64,
    /// Share of ratios outside the clipping range, over all minibatches.
    pub clip_fraction: f64,
    pub approx_kl: f64,
    /// Largest gradient norm before limiting.
    pub gradient_norm: f64,
    pub value_loss: Option<f64>,
    pub explained_variance: Option<f64>,
    pub value_clip_fraction: Option<f64>,
    pub preference_accuracy: Option<f64>,
    /// Share of pairs that were left out because their scores are too close.
    pub pairs_left_out: Option<f64>,
    pub work: Work,
}

/// A prompt with the answer that is to become more likely.
#[derive(Debug, Clone)]
pub struct Supervised {
    pub prompt: Vec<u32>,
    pub answer: Vec<u32>,
    /// Factor of its mean log-likelihood in the loss.
    pub weight: f64,
}

/// A KL penalty within the loss: which estimate, and its coefficient.
pub type Penalty = Option<(KlLoss, f64)>;

/// A policy with its optimiser.
pub type PolicyTrainee<B> = Trainee<B, Transformer<B>>;

/// What an update needs to know besides its rollouts.
pub struct Update<'a> {
    pub prompts: &'a [Prompt],
    pub config: &'a PolicyConfig,
    /// Current KL coefficient.
    pub beta: f64,
    /// Current learning rate of the policy.
    pub learning_rate: f64,
    /// Iteration, from 0.
    pub iteration: usize,
    /// Rows that are trained on beside the samples, shared by the update's steps.
    pub supervised: &'a [Supervised],
}

impl Update<'_> {
    /// The KL coefficient within the reward.
    pub fn reward_beta(&self) -> f64 {
        if self.config.kl_placement() == KlPlacement::Reward { self.beta } else { 0.0 }
    }

    /// The KL penalty within the loss.
    pub fn penalty(&self) -> Penalty {
        self.config.kl_loss().map(|kind| (kind, self.beta))
    }

    /// Adds the gradients of the supervised rows of optimiser step `step`, from 0, to `grads`, and counts their work:
    /// `- sum_rows weight / rows * mean_t log pi(y_t | x)`, over the step's share of the rows.
    pub fn mix_in<B: TrainBackend>(
        &self,
        model: &Transformer<B>,
        grads: GradientsParams,
        step: usize,
        work: &mut Work,
    ) -> GradientsParams {
        let share = self.supervised.len().div_ceil(self.config.minibatches).max(1);
        let Some(rows) = self.supervised.chunks(share).nth(step % self.config.minibatches) else { return grads };
        // A row, and the weight of each of its answer's tokens.
        let unit = |r: &'_ Supervised| (r.weight / (r.answer.len().max(1) * rows.len()) as f64) as f32;
        let units: Vec<(Group, f32)> =
            rows.iter().map(|r| (Group { prompt: &r.prompt, answers: vec![&r.answer] }, unit(r))).collect();
        work.training_tokens += units.iter().map(|(g, _)| g.tokens() as u64).sum::<u64>();
        let pieces = chunks::<B, _>(&units, |(group, _)| group.tokens());
        let (_, own, _) = gradients(model, pieces, |model, units| {
            let groups: Vec<Group> = units.iter().map(|(g, _)| g.clone()).collect();
            let weights: Vec<f32> = units.iter().flat_map(|(g, w)| std::iter::repeat_n(*w, g.answers[0].len())).collect();
            let n = weights.len();
            let weights = Tensor::<B, 1>::from_data(TensorData::new(weights, [n]), &model.device());
            ((model.answer_log_probs(&Packed::new(&groups), 1.0) * weights).sum().neg(), ())
        });
        add(model, [grads, own])
    }
}

/// Rollouts that answer the same prompt, in order.
pub fn by_prompt(rollouts: &[Rollout]) -> impl Iterator<Item = &[Rollout]> {
    rollouts.chunk_by(|a, b| a.prompt == b.prompt)
}

/// Whether all samples of a prompt got the same score: comparing them teaches nothing.
pub fn is_flat(group: &[Rollout]) -> bool {
    group.iter().all(|r| (r.score - group[0].score).abs() < 1e-9)
}

/// Share of groups whose samples all got the same score.
pub fn zero_std_groups(rollouts: &[Rollout]) -> f64 {
    let (mut flat, mut groups) = (0, 0);
    for group in by_prompt(rollouts) {
        groups += 1;
        flat += usize::from(is_flat(group));
    }
    flat as f64 / f64::max(f64::from(groups), 1.0)
}

/// Parts of the rollouts for each optimiser step: `epochs` passes over `minibatches` parts in random order, all samples of a
/// prompt in the same part.
pub fn minibatches<'a>(rollouts: &'a [Rollout], config: &PolicyConfig, rng: &mut StdRng) -> Vec<Vec<&'a [Rollout]>> {
    let mut order: Vec<&[Rollout]> = by_prompt(rollouts).collect();
    let size = order.len().div_ceil(config.minibatches).max(1);
    let mut out = Vec::new();
    for _ in 0..config.epochs {
        order.shuffle(rng);
        out.extend(order.chunks(size).map(<[_]>::to_vec));
    }
    out
}

/// Tokens of a prompt and its answers.
pub fn tokens(group: &[Rollout], prompts: &[Prompt]) -> usize {
    prompts[group[0].prompt].tokens.len() + group.iter().map(|r| r.answer.tokens.len()).sum::<usize>()
}

/// Sums up what the minibatches of an update report.
#[derive(Default)]
pub struct Tally {
    first_ratio: Option<f64>,
    clipped: usize,
    ratios: usize,
    squares: f64,
    gradient_norm: f64,
    pub work: Work,
}

impl Tally {
    /// Log-ratios of one minibatch, and the clipping range of the ratios.
    pub fn observe(&mut self, log_ratios: &[f32], (low, high): (f64, f64), norm: f64) {
        let ratio = |&l: &f32| f64::from(l).exp();
        let n = log_ratios.len();
        if n > 0 {
            self.first_ratio.get_or_insert_with(|| log_ratios.iter().map(ratio).sum::<f64>() / n as f64);
        }
        self.clipped += log_ratios.iter().map(ratio).filter(|r| *r < 1.0 - low || *r > 1.0 + high).count();
        self.squares += log_ratios.iter().map(|&l| f64::from(l).powi(2)).sum::<f64>();
        self.ratios += n;
        self.gradient_norm = self.gradient_norm.max(norm);
    }

    /// What the update reports.
    pub fn report(self) -> UpdateReport {
        let n = self.ratios.max(1) as f64;
        UpdateReport {
            first_ratio: self.first_ratio.unwrap_or(1.0),
            clip_fraction: self.clipped as f64 / n,
            approx_kl: 0.5 * self.squares / n,
            gradient_norm: self.gradient_norm,
            work: self.work,
            ..Default::default()
        }
    }
}

/// Clipping range below and above 1.
pub fn clip_range(config: &PolicyConfig) -> (f64, f64) {
    (config.clip, config.clip_high.unwrap_or(config.clip))
}

/// Gradients of `loss` over the groups of a minibatch, computed in pieces; `loss` gets all groups of a piece.
pub fn group_gradients<B: TrainBackend, M: burn::module::AutodiffModule<B>, R: Send + Serialize + DeserializeOwned>(
    model: &M,
    part: &[&[Rollout]],
    prompts: &[Prompt],
    loss: impl Fn(&M, &[&[Rollout]]) -> (Tensor<B, 1>, R) + Sync,
) -> (f64, burn::optim::GradientsParams, Vec<R>) {
    let pieces = chunks::<B, _>(part, |group| tokens(group, prompts));
    gradients(model, pieces, loss)
}

/// Warm-up over the first twentieth, then constant, then a linear decay over the last quarter. `step` counts from 0.
pub fn learning_rate(peak: f64, step: usize, total: usize) -> f64 {
    let warm_up = ((step + 1) as f64 / (total as f64 / 20.0).max(1.0)).min(1.0);
    let left = total.saturating_sub(step) as f64 / (total as f64 / 4.0).max(1.0);
    peak * warm_up.min(left.min(1.0))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::generate::Answer;
    use crate::policy::rollout::{answer_log_probs, groups};
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::{Autodiff, Flex};
    use burn::module::AutodiffModule;
    use moslim_shared::config::{KlPenalty, ModelConfig, PolicyOptimizer};
    use moslim_shared::preference::Preference;

    pub type B = Autodiff<Flex, NoCheckpointing>;

    /// A policy that reads 14 tokens and writes 12 of them.
    pub fn policy() -> Transformer<B> {
        let config = ModelConfig {
            layers: 1,
            d_model: 24,
            heads: 2,
            kv_heads: 1,
            d_ff: 40,
            context: 48,
            tied_embeddings: true,
            ..Default::default()
        };
        Transformer::new(&config, 14, 12, 3, &Default::default())
    }

    pub fn trainee(policy: &Transformer<B>) -> PolicyTrainee<B> {
        Trainee::new(policy.clone(), 0.0, 1.0)
    }

    /// Prompts of three tokens, of one and of two.
    pub fn prompts() -> Vec<Prompt> {
        let all: [&[u32]; 3] = [&[13, 1, 2], &[13], &[13, 3]];
        let of = |tokens: &[u32]| Prompt {
            question: 0,
            preference: Preference(vec![Some(0)]),
            weights: None,
            tokens: tokens.to_vec(),
        };
        all.into_iter().map(of).collect()
    }

    /// What an update is told; the learning rate is 0, so that every step finds the same policy.
    pub fn told<'a>(prompts: &'a [Prompt], config: &'a PolicyConfig) -> Update<'a> {
        Update { prompts, config, beta: 0.5, learning_rate: 0.0, iteration: 0, supervised: &[] }
    }

    /// The answer `tokens` to `prompt`.
    pub fn said(prompt: usize, tokens: &[u32]) -> Rollout {
        let mut said = rollout(prompt, 0.0, tokens.len());
        said.answer.tokens = tokens.to_vec();
        said
    }

    /// Gives answers to [`prompts`] the log-probabilities that `policy` has for them, as those of the policy that sampled and of the reference.
    pub fn sampled(policy: &Transformer<B>, rollouts: &mut [Rollout], temperature: f32) {
        let prompts = prompts();
        let all: Vec<&Rollout> = rollouts.iter().collect();
        let own = answer_log_probs(&policy.valid(), &groups(&all, &prompts), temperature);
        for (rollout, own) in rollouts.iter_mut().zip(own) {
            (rollout.answer.log_probs, rollout.reference_log_probs) = (own.clone(), own);
        }
    }

    /// Two answers to the first of [`prompts`], one to the second and three to the third. They have 3, 2, 4, 2, 1 and 3 tokens, 15 together;
    /// with their prompts' six, 21 are read.
    pub fn batch(policy: &Transformer<B>, temperature: f32) -> Vec<Rollout> {
        let answers: [(usize, &[u32]); 6] =
            [(0, &[5, 3, 0]), (0, &[7, 0]), (1, &[4, 2, 9, 0]), (2, &[6, 0]), (2, &[1]), (2, &[8, 8, 0])];
        let mut all: Vec<Rollout> = answers.iter().enumerate().map(|(index, (p, a))| Rollout { index, ..said(*p, a) }).collect();
        sampled(policy, &mut all, temperature);
        all
    }

    /// One number for each answer, as often as it has tokens.
    pub fn for_tokens(rollouts: &[Rollout], each: &[f64]) -> Vec<f32> {
        let of = |(r, &x): (&Rollout, &f64)| vec![x as f32; r.answer.tokens.len()];
        rollouts.iter().zip(each).flat_map(of).collect()
    }

    /// The gradient of `- sum_t coefficients[t] log pi(token t)` over the tokens of all answers: what an update's must be, whose losses are
    /// weighed sums of log-probabilities where the policy is the one that sampled.
    pub fn gradient(
        policy: &Transformer<B>,
        prompts: &[Prompt],
        rollouts: &[Rollout],
        coefficients: &[f32],
        temperature: f32,
    ) -> GradientsParams {
        let all: Vec<&Rollout> = rollouts.iter().collect();
        let packed = Packed::new(&groups(&all, prompts));
        let loss = |model: &Transformer<B>, packed: &Packed| {
            let n = coefficients.len();
            let coefficients = Tensor::<B, 1>::from_data(TensorData::new(coefficients.to_vec(), [n]), &model.device());
            ((model.answer_log_probs(packed, temperature) * coefficients).sum().neg(), ())
        };
        gradients(policy, vec![&packed], loss).1
    }

    /// The norm of [`gradient`] for [`prompts`].
    pub fn norm(policy: &Transformer<B>, rollouts: &[Rollout], coefficients: &[f32], temperature: f32) -> f64 {
        let grads = gradient(policy, &prompts(), rollouts, coefficients, temperature);
        Trainee::<B, _>::new(policy.clone(), 0.0, f64::INFINITY).step(grads, 0.0).1
    }

    /// Whether `a` is `b` but for a thousandth.
    pub fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-3 * b.abs() + 1e-9
    }

    /// Two prompts of two samples each; the second of two objectives pays ten times as much, for another sample.
    pub fn of_two_objectives() -> Vec<Rollout> {
        let contributions = [[1.0, 0.0], [0.0, 0.0], [0.0, 10.0], [0.0, 0.0]];
        let one = |(n, c): (usize, &[f64; 2])| Rollout { contributions: c.to_vec(), ..rollout(n / 2, 7.0, 1) };
        contributions.iter().enumerate().map(one).collect()
    }

    /// A rollout of `prompt` with a score and as many tokens.
    pub fn rollout(prompt: usize, score: f64, tokens: usize) -> Rollout {
        let answer =
            Answer { tokens: (0..tokens as u32).collect(), log_probs: vec![-1.0; tokens], ended: true, ..Default::default() };
        Rollout {
            index: 0,
            prompt,
            answer,
            distributions: vec![],
            contributions: vec![],
            penalty: 0.0,
            score,
            kl: 0.0,
            reward: score,
            reference_log_probs: vec![-1.0; tokens],
            asked: vec![],
            expected: vec![],
            advantage: 0.0,
            per_token: None,
        }
    }

    #[test]
    fn schedules_go_by_the_share_of_the_run() {
        let at = |step, total| learning_rate(2.0, step, total);
        // A twentieth of warm-up, three quarters at the top, a quarter down.
        assert_eq!([0, 1, 9, 10, 74, 100, 150, 199].map(|n| at(n, 200)), [0.2, 0.4, 2.0, 2.0, 2.0, 2.0, 2.0, 0.04]);
        assert_eq!([0, 4, 19].map(|n| at(n, 20)), [2.0, 2.0, 0.4]);
        assert_eq!(at(0, 1), 2.0);
    }

    #[test]
    fn prompts_stay_together_and_every_pass_sees_all() {
        let rollouts: Vec<Rollout> = (0..5).flat_map(|p| (0..3).map(move |n| rollout(p, n as f64, 1))).collect();
        let config = PolicyConfig { epochs: 2, minibatches: 2, ..Default::default() };
        let parts = minibatches(&rollouts, &config, &mut rand::SeedableRng::seed_from_u64(3));
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2, 3, 2]);
        for pass in parts.chunks(2) {
            let mut seen: Vec<usize> = pass.iter().flatten().map(|g| g[0].prompt).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4]);
            assert!(pass.iter().flatten().all(|g| g.len() == 3));
        }
        assert!(minibatches(&[], &config, &mut rand::SeedableRng::seed_from_u64(3)).is_empty());
    }

    #[test]
    fn a_tally_counts_ratios_at_both_ends() {
        let mut tally = Tally::default();
        let ratios = |all: &[f64]| all.iter().map(|r| r.ln() as f32).collect::<Vec<f32>>();
        tally.observe(&ratios(&[0.7, 0.9, 1.1, 1.25]), (0.2, 0.3), 2.0);
        tally.observe(&ratios(&[1.4, 1.0, 1.0, 1.0]), (0.2, 0.3), 1.0);
        let report = tally.report();
        assert!((report.first_ratio - 0.9875).abs() < 1e-6);
        assert_eq!((report.clip_fraction, report.gradient_norm), (0.25, 2.0));
        let squares: f64 = [0.7f64, 0.9, 1.1, 1.25, 1.4].iter().map(|r| r.ln().powi(2)).sum();
        assert!((report.approx_kl - squares / 16.0).abs() < 1e-6);
    }

    #[test]
    fn a_tally_of_nothing_has_moved_nothing_and_the_ends_of_the_range_are_within_it() {
        let report = Tally::default().report();
        assert_eq!((report.first_ratio, report.clip_fraction, report.approx_kl, report.gradient_norm), (1.0, 0.0, 0.0, 0.0));
        // Ratios of exactly one, in a range that is no more than that; the largest norm is not the first.
        let mut tally = Tally::default();
        tally.observe(&[0.0, 0.0], (0.0, 0.0), 1.0);
        tally.observe(&[0.0], (0.0, 0.0), 3.0);
        let report = tally.report();
        assert_eq!((report.first_ratio, report.clip_fraction, report.gradient_norm), (1.0, 0.0, 3.0));
        let config = |clip_high| PolicyConfig { clip: 0.1, clip_high, ..Default::default() };
        assert_eq!([None, Some(0.3)].map(|high| clip_range(&config(high))), [(0.1, 0.1), (0.1, 0.3)]);
    }

    #[test]
    fn groups_are_flat_whose_scores_are_all_equal() {
        let scores: [(usize, f64); 7] = [(0, 0.5), (0, 0.5), (1, 1.0), (1, 0.5), (2, 0.1), (2, 0.1), (2, 0.4)];
        let all = scores.map(|(prompt, score)| rollout(prompt, score, 1));
        assert_eq!((zero_std_groups(&all), zero_std_groups(&all[..2]), zero_std_groups(&[])), (1.0 / 3.0, 1.0, 0.0));
        // Lower than the first is not equal, a last digit is.
        assert!(!is_flat(&all[2..4]) && !is_flat(&all[4..]));
        assert!(is_flat(&[rollout(0, 0.5, 1), rollout(0, 0.5 - 1e-12, 1), rollout(0, 0.5 + 1e-12, 1)]));
        // Two of the prompt, four and one of the answers.
        assert_eq!(tokens(&[rollout(2, 0.0, 4), rollout(2, 0.0, 1)], &prompts()), 7);
    }

    #[test]
    fn the_penalty_is_in_the_reward_or_in_the_loss() {
        let of = |optimizer, kl_penalty| {
            let config = PolicyConfig { optimizer, kl_penalty, ..Default::default() };
            let u = Update { beta: 0.25, ..told(&[], &config) };
            (u.reward_beta(), u.penalty())
        };
        assert_eq!(of(PolicyOptimizer::Rloo, KlPenalty::Own), (0.25, None));
        assert_eq!(of(PolicyOptimizer::Rloo, KlPenalty::K2Loss), (0.0, Some((KlLoss::K2, 0.25))));
        assert_eq!(of(PolicyOptimizer::Grpo, KlPenalty::Own), (0.0, Some((KlLoss::K3, 0.25))));
        assert_eq!(of(PolicyOptimizer::Grpo, KlPenalty::K1Reward), (0.25, None));
        assert_eq!(of(PolicyOptimizer::Dapo, KlPenalty::Own), (0.0, None));
        assert_eq!(of(PolicyOptimizer::OnlineDpo, KlPenalty::K1Reward), (0.0, None));
    }

    #[test]
    fn rows_are_shared_by_the_steps_of_a_pass_and_weigh_their_mean_likelihood() {
        let policy = policy();
        let rows: [(&[u32], &[u32], f64); 3] = [(&[13, 1], &[5, 3, 0], 0.5), (&[13], &[7, 0], 2.0), (&[13, 4, 4], &[9], 1.5)];
        let supervised = rows.map(|(prompt, answer, weight)| Supervised { prompt: prompt.into(), answer: answer.into(), weight });
        let prompts: Vec<Prompt> = rows.iter().map(|row| Prompt { tokens: row.0.into(), ..prompts().remove(0) }).collect();
        let answers: Vec<Rollout> = rows.iter().enumerate().map(|(n, row)| said(n, row.1)).collect();
        let embedding = |grads: &GradientsParams| -> Vec<f32> {
            grads.get::<Flex, 2>(policy.embedding.id).expect("a gradient").into_data().to_vec().unwrap()
        };
        let before = || gradient(&policy, &prompts, &answers[2..], &[0.25], 1.0);
        let config = PolicyConfig { minibatches: 2, temperature: 0.5, ..Default::default() };
        let u = Update { supervised: &supervised, ..told(&[], &config) };
        // Two rows in the first step: their weights over two rows and their three and two tokens. One in the second. Then they come again.
        let first = [0.5 / 6.0, 0.5 / 6.0, 0.5 / 6.0, 2.0 / 4.0, 2.0 / 4.0];
        for (step, taken, coefficients, read) in [(0, 0..2, &first[..], 8), (1, 2..3, &[1.5][..], 4), (2, 0..2, &first[..], 8)] {
            let mut work = Work { forward_tokens: 0, training_tokens: 100 };
            let got = embedding(&u.mix_in(&policy, before(), step, &mut work));
            let own = embedding(&gradient(&policy, &prompts, &answers[taken], coefficients, 1.0));
            let want = embedding(&before()).into_iter().zip(own).map(|(before, own)| before + own);
            assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-5), "step {step}");
            assert_eq!(work, Work { forward_tokens: 0, training_tokens: 100 + read });
        }
        // Of one row the second step of a pass gets none.
        let u = Update { supervised: &supervised[..1], ..told(&[], &config) };
        let mut work = Work::default();
        assert!(embedding(&u.mix_in(&policy, before(), 1, &mut work)) == embedding(&before()) && work == Work::default());
    }
}
