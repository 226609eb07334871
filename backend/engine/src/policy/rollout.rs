//! Rollouts: prompts with preferences, sampled answers, and everything that their rewards are made of.

use super::ppo::Values;
use super::targets::TargetSampler;
use crate::model::generate::{Answer, Sampling, generate};
use crate::model::kernels::Kernels;
use crate::model::packed::{Group, Packed, chunks, map};
use crate::model::transformer::Transformer;
use crate::reward::judge::Judge;
use crate::text::Tokenizer;
use crate::text::corpus::EncodedQuestion;
use moslim_shared::config::PolicyConfig;
use moslim_shared::kl::k1;
use moslim_shared::mapping::{MappedReward, RewardStatistics, map_group, map_weighted};
use moslim_shared::preference::Preference;
use moslim_shared::summary::Work;
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
    /// Filled in by the optimiser.
    pub advantage: f64,
    /// Where the advantage differs from token to token.
    pub per_token: Option<Vec<f32>>,
    /// Filled in by PPO.
    pub values: Values,
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

/// Draws `n` prompts, tagged where the aim is what they ask for.
pub fn draw_prompts(
    n: usize,
    questions: &[EncodedQuestion],
    targets: &TargetSampler,
    tokenizer: &Tokenizer,
    aim: &Aim,
    rng: &mut StdRng,
) -> Vec<Prompt> {
    (0..n)
        .map(|_| {
            let question = rng.random_range(0..questions.len());
            let preference = match aim {
                Aim::Preference => targets.draw(rng),
                Aim::Weights(weights) => Preference::none(weights.len()),
            };
            let tokens = tokenizer.prompt(&questions[question].tokens, &preference, &targets.order(rng));
            Prompt { question, preference, tokens }
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
    let values = map::<B, _, _, _>(model, pieces, |model, groups| {
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
pub fn judged_answer(answer: &[u32], eos: u32) -> Vec<u32> {
    let mut answer = answer.to_vec();
    if answer.last() != Some(&eos) {
        answer.push(eos);
    }
    answer
}

/// What a judge says about answers to untagged questions, `[answer][objective][class]`, and the tokens that it read. `answers`:
/// position of the prompt and tokens; those of one prompt are neighbours, and it is read once for all of them.
pub fn judge_answers<B: Kernels>(
    judge: &Judge<B>,
    answers: &[(usize, &[u32])],
    prompts: &[Prompt],
    questions: &[EncodedQuestion],
    tokenizer: &Tokenizer,
) -> (Vec<Vec<Vec<f64>>>, u64) {
    let untagged: Vec<Vec<u32>> = prompts.iter().map(|p| tokenizer.untagged_prompt(&questions[p.question].tokens)).collect();
    let judged: Vec<Vec<u32>> = answers.iter().map(|(_, a)| judged_answer(a, tokenizer.eos)).collect();
    let mut rest = judged.as_slice();
    let groups: Vec<Group> = answers
        .chunk_by(|a, b| a.0 == b.0)
        .map(|same| {
            let (own, tail) = rest.split_at(same.len());
            rest = tail;
            Group { prompt: &untagged[same[0].0], answers: own.iter().map(Vec::as_slice).collect() }
        })
        .collect();
    (judge.distributions(&groups), read(&groups))
}

/// Tokens of all groups; a prompt is read once for all its answers.
fn read(groups: &[Group]) -> u64 {
    groups.iter().map(|g| g.tokens() as u64).sum()
}

/// Models that a rollout needs; reference and judge are frozen.
pub struct Actors<'a, B: Kernels> {
    pub policy: &'a Transformer<B>,
    pub reference: &'a Transformer<B>,
    pub judge: &'a Judge<B>,
    pub tokenizer: &'a Tokenizer,
    pub questions: &'a [EncodedQuestion],
    pub aim: &'a Aim,
    /// Statistics of the mapping, as far as they have moved.
    pub statistics: &'a RewardStatistics,
    /// Which objectives are better when higher.
    pub higher_is_better: &'a [bool],
}

/// Samples `samples_per_prompt` answers to each prompt and scores them. Group members are neighbours.
/// Also returns the work that it took.
pub fn roll_out<B: Kernels>(
    actors: &Actors<B>,
    prompts: &[Prompt],
    config: &PolicyConfig,
    beta: f64,
    seed: u64,
) -> (Vec<Rollout>, Work) {
    let (tokenizer, samples) = (actors.tokenizer, config.samples_per_prompt);
    let inputs: Vec<&[u32]> = prompts.iter().map(|p| p.tokens.as_slice()).collect();
    let sampling = Sampling { temperature: config.temperature, top_p: 1.0, max_new_tokens: config.max_new_tokens, seed };
    let answers = generate(actors.policy, &inputs, samples, tokenizer.eos, &sampling);

    let tagged: Vec<Group> = inputs
        .iter()
        .zip(answers.chunks(samples))
        .map(|(&prompt, answers)| Group { prompt, answers: answers.iter().map(|a| a.tokens.as_slice()).collect() })
        .collect();
    let reference = answer_log_probs(actors.reference, &tagged, config.temperature as f32);

    let pairs: Vec<(usize, &[u32])> = answers.iter().enumerate().map(|(n, a)| (n / samples, a.tokens.as_slice())).collect();
    let (distributions, judged) = judge_answers(actors.judge, &pairs, prompts, actors.questions, tokenizer);

    let mapping = &actors.judge.calibration.mapping;
    let rewards: Vec<MappedReward> = match actors.aim {
        Aim::Preference => distributions
            .chunks(samples)
            .zip(prompts)
            .flat_map(|(group, p)| map_group(mapping, actors.statistics, group, &p.preference))
            .collect(),
        Aim::Weights(weights) => {
            distributions.iter().map(|d| map_weighted(mapping, actors.statistics, d, weights, actors.higher_is_better)).collect()
        }
    };

    // Policy and reference read the tagged prompt, the reward model the untagged one.
    let work = Work { forward_tokens: 2 * read(&tagged) + judged, training_tokens: 0 };
    let mut rollouts = Vec::with_capacity(answers.len());
    for (n, (((answer, reference), distributions), mapped)) in
        answers.into_iter().zip(reference).zip(distributions).zip(rewards).enumerate()
    {
        let prompt = n / samples;
        let penalty = if answer.ended { 0.0 } else { -config.missing_eos_penalty };
        let score = mapped.scalar + penalty;
        let sum = |values: &[f32]| values.iter().map(|&l| f64::from(l)).sum::<f64>();
        let kl = k1(sum(&answer.log_probs), sum(&reference));
        let asked = match actors.aim {
            Aim::Preference => prompts[prompt].preference.0.iter().map(Option::is_some).collect(),
            Aim::Weights(weights) => weights.iter().map(|&w| w > 0.0).collect(),
        };
        rollouts.push(Rollout {
            prompt,
            answer,
            distributions,
            contributions: mapped.contributions,
            penalty,
            score,
            kl,
            // The penalty is part of the reward whether or not the optimiser reads it there.
            reward: score - beta * kl,
            reference_log_probs: reference,
            asked,
            advantage: 0.0,
            per_token: None,
            values: Values::default(),
        });
    }
    (rollouts, work)
}
