//! Rollouts: prompts with preferences, sampled answers, and everything that their rewards are made of.

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
    /// Filled in by the optimiser.
    pub advantage: f64,
}

/// Draws `n` tagged prompts.
pub fn draw_prompts(
    n: usize,
    questions: &[EncodedQuestion],
    targets: &TargetSampler,
    tokenizer: &Tokenizer,
    rng: &mut StdRng,
) -> Vec<Prompt> {
    (0..n)
        .map(|_| {
            let question = rng.random_range(0..questions.len());
            let preference = targets.draw(rng);
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

/// Log-probability of every answer under `model`, summed over its tokens, in order.
pub fn answer_log_probs<B: Kernels>(model: &Transformer<B>, groups: &[Group], temperature: f32) -> Vec<f64> {
    let pieces = chunks::<B, _>(groups, Group::tokens);
    let sums = map::<B, _, _, _>(model, pieces, |model, groups| {
        let values: Vec<f32> =
            model.answer_log_probs(&Packed::new(groups), temperature).into_data().to_vec().expect("log-probabilities are f32");
        let mut rest = values.as_slice();
        let mut sums = Vec::new();
        for answer in groups.iter().flat_map(|g| &g.answers) {
            let (own, tail) = rest.split_at(answer.len());
            sums.push(own.iter().map(|&l| l as f64).sum());
            rest = tail;
        }
        sums
    });
    sums.concat()
}

/// The answer as the reward model reads it: with an end-of-sequence, also where the policy forgot it.
pub fn judged_answer(answer: &[u32], eos: u32) -> Vec<u32> {
    let mut answer = answer.to_vec();
    if answer.last() != Some(&eos) {
        answer.push(eos);
    }
    answer
}

/// Models that a rollout needs; reference and judge are frozen.
pub struct Actors<'a, B: Kernels> {
    pub policy: &'a Transformer<B>,
    pub reference: &'a Transformer<B>,
    pub judge: &'a Judge<B>,
    pub tokenizer: &'a Tokenizer,
    pub questions: &'a [EncodedQuestion],
}

/// Samples `samples_per_prompt` answers to each prompt and scores them. Group members are neighbours.
pub fn roll_out<B: Kernels>(actors: &Actors<B>, prompts: &[Prompt], config: &PolicyConfig, beta: f64, seed: u64) -> Vec<Rollout> {
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

    let questions: Vec<Vec<u32>> =
        prompts.iter().map(|p| tokenizer.untagged_prompt(&actors.questions[p.question].tokens)).collect();
    let judged: Vec<Vec<u32>> = answers.iter().map(|a| judged_answer(&a.tokens, tokenizer.eos)).collect();
    let untagged: Vec<Group> = questions
        .iter()
        .zip(judged.chunks(samples))
        .map(|(prompt, answers)| Group { prompt, answers: answers.iter().map(Vec::as_slice).collect() })
        .collect();
    let distributions = actors.judge.distributions(&untagged);

    let mut rollouts = Vec::with_capacity(answers.len());
    for (n, ((answer, reference), distributions)) in answers.into_iter().zip(reference).zip(distributions).enumerate() {
        let prompt = n / samples;
        let mapped = actors.judge.reward(&distributions, &prompts[prompt].preference);
        let penalty = if answer.ended { 0.0 } else { -config.missing_eos_penalty };
        let score = mapped.scalar + penalty;
        let kl = k1(answer.log_probs.iter().map(|&l| l as f64).sum(), reference);
        rollouts.push(Rollout {
            prompt,
            answer,
            distributions,
            contributions: mapped.contributions,
            penalty,
            score,
            kl,
            reward: score - beta * kl,
            advantage: 0.0,
        });
    }
    rollouts
}
