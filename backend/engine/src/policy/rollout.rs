//! Rollouts: prompts with preferences, sampled answers, and everything that their rewards are made of.

use super::targets::TargetSampler;
use crate::data::Gold;
use crate::model::generate::Answer;
use crate::model::kernels::Kernels;
use crate::model::packed::{Group, Packed, chunks, share};
use crate::model::transformer::Transformer;
use crate::reward::frozen::FrozenRewardModel;
use crate::text::Tokenizer;
use crate::text::corpus::EncodedQuestion;
use anyhow::Result;
use moslim_shared::config::PolicyConfig;
use moslim_shared::kl::k1;
use moslim_shared::mapping::{MappedReward, MappingConfig, RewardStatistics, expected_reward, map_group, map_weighted};
use moslim_shared::preference::Preference;
use rand::Rng;
use rand::rngs::StdRng;

/// A tagged prompt.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Position in the list of questions.
    pub question: usize,
    pub preference: Preference,
    pub tokens: Vec<u32>,
}

/// One sample with its reward.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// Position among the rollouts of its iteration.
    pub index: usize,
    /// Position in the list of prompts; samples of one prompt form a group.
    pub prompt: usize,
    pub answer: Answer,
    /// `[objective][class]`, calibrated.
    pub distributions: Vec<Vec<f64>>,
    pub contributions: Vec<f64>,
    /// 0, or minus the penalty for an answer that did not end.
    pub penalty: f64,
    /// Mapped reward plus penalty.
    pub score: f64,
    /// `sum_t k1` against the reference, nats.
    pub kl: f64,
    /// `score - beta * kl`
    pub reward: f64,
    /// Log-probability of each token under the reference.
    pub reference_log_probs: Vec<f32>,
    /// Whether each objective is part of the reward.
    pub asked: Vec<bool>,
    /// The mapped reward that the reward model's heads expect before each token; empty where nobody asks for it.
    pub expected: Vec<f64>,
    /// Filled in by the optimiser.
    pub advantage: f64,
    /// Where the advantage differs from token to token.
    pub per_token: Option<Vec<f32>>,
}

impl Rollout {
    /// `k1` of each token.
    pub fn log_ratios(&self) -> Vec<f64> {
        let pairs = self.answer.log_probs.iter().zip(&self.reference_log_probs);
        pairs.map(|(&l, &r)| k1(f64::from(l), f64::from(r))).collect()
    }

    /// One advantage for each token.
    pub fn token_advantages(&self) -> Vec<f32> {
        self.per_token.clone().unwrap_or_else(|| vec![self.advantage as f32; self.answer.tokens.len()])
    }
}

/// What a policy is rewarded for.
#[derive(Debug, Clone, PartialEq)]
pub enum Aim {
    /// What its prompt asks for (MOSLIM).
    Preference,
    /// A weighted sum of the objectives, the same for every prompt; prompts carry no tags.
    Weights(Vec<f64>),
}

/// Draws `n` prompts, tagged where the aim is what they ask for. `gold` tells what a question can meet.
pub fn draw_prompts(
    n: usize,
    questions: &[EncodedQuestion],
    (targets, gold): (&TargetSampler, Option<&dyn Gold>),
    tokenizer: &Tokenizer,
    aim: &Aim,
    rng: &mut StdRng,
) -> Result<Vec<Prompt>> {
    (0..n)
        .map(|_| {
            let question = rng.random_range(0..questions.len());
            let preference = match aim {
                Aim::Preference => targets.draw(&questions[question].text, gold, rng),
                Aim::Weights(weights) => Preference::none(weights.len()),
            };
            let tokens = tokenizer.prompt(&questions[question].tokens, &preference, &targets.manner(rng))?;
            Ok(Prompt { question, preference, tokens })
        })
        .collect()
}

/// Groups of neighbouring rollouts that answer the same prompt.
pub fn groups<'a>(rollouts: &[&'a Rollout], prompts: &'a [Prompt]) -> Vec<Group<'a>> {
    rollouts
        .chunk_by(|a, b| a.prompt == b.prompt)
        .map(|same| Group {
            prompt: &prompts[same[0].prompt].tokens,
            answers: same.iter().map(|r| r.answer.tokens.as_slice()).collect(),
        })
        .collect()
}

/// Log-probability of every token of every answer under `model`, in order.
pub fn answer_log_probs<B: Kernels>(model: &Transformer<B>, groups: &[Group], temperature: f32) -> Vec<Vec<f32>> {
    let pieces = chunks::<B, _>(groups, Group::tokens);
    let values = share::<B, _, _, _>(model, pieces, |model, groups| {
        let values: Vec<f32> =
            model.answer_log_probs(&Packed::new(groups), temperature).into_data().to_vec().expect("log-probabilities are f32");
        let mut rest = values.as_slice();
        let mut out = Vec::new();
        for answer in groups.iter().flat_map(|g| &g.answers) {
            let (own, tail) = rest.split_at(answer.len());
            out.push(own.to_vec());
            rest = tail;
        }
        out
    });
    values.concat()
}

/// The answer as the reward model reads it: with an end-of-sequence, also where the policy forgot it.
pub fn ended_answer(answer: &[u32], eos: u32) -> Vec<u32> {
    let mut answer = answer.to_vec();
    if answer.last() != Some(&eos) {
        answer.push(eos);
    }
    answer
}

/// What a reward model says about answers to untagged questions.
pub struct Classified {
    /// `[answer][objective][class]`
    pub answers: Vec<Vec<Vec<f64>>>,
    /// What its heads expect before every token, `[answer][token][objective][class]`; empty where nobody asks for it.
    pub beginnings: Vec<Vec<Vec<Vec<f64>>>>,
    /// Tokens that it read.
    pub read: u64,
}

/// Reads `answers`: position of the prompt and tokens; those of one prompt are neighbours, and it is read once for all of them.
pub fn classify_answers<B: Kernels>(
    reward_model: &FrozenRewardModel<B>,
    answers: &[(usize, &[u32])],
    prompts: &[Prompt],
    questions: &[EncodedQuestion],
    tokenizer: &Tokenizer,
    beginnings: bool,
) -> Classified {
    let untagged: Vec<Vec<u32>> = prompts.iter().map(|p| tokenizer.untagged_prompt(&questions[p.question].tokens)).collect();
    let ended: Vec<Vec<u32>> = answers.iter().map(|(_, a)| ended_answer(a, tokenizer.eos)).collect();
    let mut rest = ended.as_slice();
    let groups: Vec<Group> = answers
        .chunk_by(|a, b| a.0 == b.0)
        .map(|same| {
            let (own, tail) = rest.split_at(same.len());
            rest = tail;
            Group { prompt: &untagged[same[0].0], answers: own.iter().map(Vec::as_slice).collect() }
        })
        .collect();
    let read = read(&groups);
    if !beginnings {
        return Classified { answers: reward_model.distributions(&groups), beginnings: Vec::new(), read };
    }
    let [whole, begun] = reward_model.distributions_and_beginnings(&groups);
    let mut begun = begun.into_iter();
    // What was put behind an answer is no token of the policy's.
    let own = |(ended, (_, answer)): (&Vec<u32>, &(usize, &[u32]))| {
        let mut own: Vec<Vec<Vec<f64>>> = begun.by_ref().take(ended.len()).collect();
        own.truncate(answer.len());
        own
    };
    Classified { answers: whole, beginnings: ended.iter().zip(answers).map(own).collect(), read }
}

/// Tokens of all groups; a prompt is read once for all its answers.
pub fn read(groups: &[Group]) -> u64 {
    groups.iter().map(|g| g.tokens() as u64).sum()
}

/// What an aim makes of class distributions: the scalar of every answer, `samples` neighbours to each prompt. For MOSLIM
/// `r = 1/sum m * sum_i m_i (f(p_i, t_i) - avg_i[t_i]) / std_i[t_i]`; for fixed weights a weighted sum of the objectives.
/// `higher_is_better`: of each objective.
pub fn map_rewards(
    aim: &Aim,
    mapping: &MappingConfig,
    statistics: &RewardStatistics,
    distributions: &[Vec<Vec<f64>>],
    prompts: &[Prompt],
    samples: usize,
    higher_is_better: &[bool],
) -> Vec<MappedReward> {
    match aim {
        Aim::Preference => distributions
            .chunks(samples)
            .zip(prompts)
            .flat_map(|(group, p)| map_group(mapping, statistics, group, &p.preference))
            .collect(),
        Aim::Weights(weights) => {
            distributions.iter().map(|d| map_weighted(mapping, statistics, d, weights, higher_is_better)).collect()
        }
    }
}

/// What an aim makes of what the heads expect before each token: `[answer][token]`, of `[answer][token][objective][class]`, `samples`
/// neighbours to each prompt.
pub fn map_beginnings(
    aim: &Aim,
    mapping: &MappingConfig,
    statistics: &RewardStatistics,
    beginnings: &[Vec<Vec<Vec<f64>>>],
    prompts: &[Prompt],
    samples: usize,
    higher_is_better: &[bool],
) -> Vec<Vec<f64>> {
    let one = |n: usize, distributions: &Vec<Vec<f64>>| match aim {
        Aim::Preference => expected_reward(mapping, statistics, distributions, &prompts[n / samples].preference),
        Aim::Weights(weights) => map_weighted(mapping, statistics, distributions, weights, higher_is_better).scalar,
    };
    beginnings.iter().enumerate().map(|(n, tokens)| tokens.iter().map(|d| one(n, d)).collect()).collect()
}

/// Puts samples together with what their rewards are made of. All but `prompts`: one for each answer; `samples` neighbours
/// answer the same prompt.
pub fn collect(
    answers: Vec<Answer>,
    reference: Vec<Vec<f32>>,
    distributions: Vec<Vec<Vec<f64>>>,
    mapped: Vec<MappedReward>,
    mut expected: Vec<Vec<f64>>,
    prompts: &[Prompt],
    (aim, config, beta): (&Aim, &PolicyConfig, f64),
) -> Vec<Rollout> {
    let samples = config.samples_per_prompt;
    let parts = answers.into_iter().zip(reference).zip(distributions).zip(mapped).enumerate();
    parts
        .map(|(n, (((answer, reference), distributions), mapped))| {
            let prompt = n / samples;
            let penalty = if answer.ended { 0.0 } else { -config.missing_eos_penalty };
            let score = mapped.scalar + penalty;
            let sum = |values: &[f32]| values.iter().map(|&l| f64::from(l)).sum::<f64>();
            let kl = k1(sum(&answer.log_probs), sum(&reference));
            let asked = match aim {
                Aim::Preference => prompts[prompt].preference.0.iter().map(Option::is_some).collect(),
                Aim::Weights(weights) => weights.iter().map(|&w| w > 0.0).collect(),
            };
            Rollout {
                index: n,
                prompt,
                answer,
                distributions,
                contributions: mapped.contributions,
                penalty,
                score,
                kl,
                // The KL term is part of the reward whether or not the optimiser reads it there.
                reward: score - beta * kl,
                reference_log_probs: reference,
                asked,
                expected: expected.get_mut(n).map(std::mem::take).unwrap_or_default(),
                advantage: 0.0,
                per_token: None,
            }
        })
        .collect()
}
