//! Rollouts: prompts with preferences, sampled answers, and everything that their rewards are made of.

use super::targets::TargetSampler;
use crate::model::generate::{Answer, Sampling, generate};
use crate::model::kernels::Kernels;
use crate::model::transformer::{Batch, Transformer};
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
    /// Tagged prompt and answer.
    pub sequence: Vec<u32>,
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

impl Rollout {
    /// Where the answer stands in the sequence.
    pub fn span(&self) -> (usize, usize) {
        (self.sequence.len() - self.answer.tokens.len(), self.sequence.len())
    }
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

/// Log-probability of every answer under `model`, summed over its tokens, in order. `sequences` are (tokens, span).
pub fn answer_log_probs<B: Kernels>(
    model: &Transformer<B>,
    sequences: &[(&[u32], (usize, usize))],
    pad: u32,
    temperature: f32,
) -> Vec<f64> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| sequences[i].0.len());
    let mut out = vec![0f64; sequences.len()];
    for chunk in order.chunks(64) {
        let views: Vec<&[u32]> = chunk.iter().map(|&i| sequences[i].0).collect();
        let spans: Vec<(usize, usize)> = chunk.iter().map(|&i| sequences[i].1).collect();
        let (log_probs, rows) = model.answer_log_probs(&Batch::right_padded(&views, pad), &spans, temperature);
        let log_probs: Vec<f32> = log_probs.into_data().to_vec().expect("log-probabilities are f32");
        for (log_prob, row) in log_probs.into_iter().zip(rows) {
            out[chunk[row]] += log_prob as f64;
        }
    }
    out
}

/// The sequence that the reward model reads: untagged question, answer, end-of-sequence, also where the policy forgot it.
pub fn judged_sequence(tokenizer: &Tokenizer, question: &[u32], answer: &[u32]) -> Vec<u32> {
    let mut sequence = tokenizer.untagged_prompt(question);
    sequence.extend_from_slice(answer);
    if answer.last() != Some(&tokenizer.eos) {
        sequence.push(tokenizer.eos);
    }
    sequence
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
    let tokenizer = actors.tokenizer;
    let owners: Vec<usize> = (0..prompts.len()).flat_map(|p| std::iter::repeat_n(p, config.samples_per_prompt)).collect();
    let inputs: Vec<Vec<u32>> = owners.iter().map(|&p| prompts[p].tokens.clone()).collect();
    let sampling = Sampling { temperature: config.temperature, top_p: 1.0, max_new_tokens: config.max_new_tokens, seed };
    let answers = generate(actors.policy, &inputs, tokenizer.pad, tokenizer.eos, &sampling);

    let sequences: Vec<Vec<u32>> = inputs.iter().zip(&answers).map(|(p, a)| [p.as_slice(), &a.tokens].concat()).collect();
    let spans: Vec<(&[u32], (usize, usize))> =
        sequences.iter().zip(&inputs).map(|(s, p)| (s.as_slice(), (p.len(), s.len()))).collect();
    let reference = answer_log_probs(actors.reference, &spans, tokenizer.pad, config.temperature as f32);

    let judged: Vec<Vec<u32>> = owners
        .iter()
        .zip(&answers)
        .map(|(&p, a)| judged_sequence(tokenizer, &actors.questions[prompts[p].question].tokens, &a.tokens))
        .collect();
    let views: Vec<&[u32]> = judged.iter().map(Vec::as_slice).collect();
    let distributions = actors.judge.distributions(&views);

    let mut rollouts = Vec::with_capacity(owners.len());
    for ((((prompt, answer), sequence), reference), distributions) in
        owners.into_iter().zip(answers).zip(sequences).zip(reference).zip(distributions)
    {
        let mapped = actors.judge.reward(&distributions, &prompts[prompt].preference);
        let penalty = if answer.ended { 0.0 } else { -config.missing_eos_penalty };
        let score = mapped.scalar + penalty;
        let kl = k1(answer.log_probs.iter().map(|&l| l as f64).sum(), reference);
        rollouts.push(Rollout {
            prompt,
            answer,
            sequence,
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
