//! Batched sampling with a KV cache. A prompt is read once for all its answers; answers that have ended leave the batch, so
//! the work shrinks with them.

use super::kernels::{Kernels, cpu::sampling_weights};
use super::packed::{Group, Packed, even_pieces, map, rows_together, share};
use super::transformer::{Transformer, index_tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How to sample.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Smallest set of most probable tokens whose mass reaches this is sampled from; 1 keeps all.
    pub top_p: f64,
    pub max_new_tokens: usize,
    /// Every row draws from its own stream, made of this and its position in the list of prompts: what a row says does
    /// not depend on which rows share its batch.
    pub seed: u64,
}

/// One sampled answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Sampled tokens, the end-of-sequence token included when there is one.
    pub tokens: Vec<u32>,
    /// Log-probability of each token at the sampling temperature over the whole vocabulary (before top-p).
    pub log_probs: Vec<f32>,
    /// Entropy of each token's distribution, nats.
    pub entropies: Vec<f32>,
    /// Whether it ended by itself.
    pub ended: bool,
}

/// Samples `samples` answers to each prompt; answers to one prompt are neighbours, in the order of the prompts.
///
/// Prompts longer than the context leaves room for are an error of the caller.
pub fn generate<B: Kernels>(
    model: &Transformer<B>,
    prompts: &[&[u32]],
    samples: usize,
    eos: u32,
    sampling: &Sampling,
) -> Vec<Answer> {
    let rows = rows(prompts.len(), samples);
    share::<B, _, _, _>(&model.clone().joined(), pieces::<B>(&rows), |model, rows| {
        sample_rows(&model, prompts, rows, eos, sampling, &|_, _| true)
    })
    .concat()
}

/// The answers to be sampled: (prompt, number of its random stream).
fn rows(prompts: usize, samples: usize) -> Vec<(usize, u64)> {
    (0..prompts).flat_map(|p| (0..samples).map(move |s| (p, (p * samples + s) as u64))).collect()
}

/// Rows that are sampled together.
fn pieces<B: Kernels>(rows: &[(usize, u64)]) -> Vec<&[(usize, u64)]> {
    let pieces = even_pieces::<B>(rows.len(), rows_together::<B>());
    rows.chunks(rows.len().div_ceil(pieces).max(1)).collect()
}

/// Whom every token is told as it is drawn, with the position of its answer; an answer ends where this is false.
pub type Hearing<'a> = &'a (dyn Fn(usize, u32) -> bool + Sync);

/// As [`generate`], heard by `heard`, in this process alone.
pub fn generate_heard<B: Kernels>(
    model: &Transformer<B>,
    prompts: &[&[u32]],
    samples: usize,
    eos: u32,
    sampling: &Sampling,
    heard: Hearing,
) -> Vec<Answer> {
    let rows = rows(prompts.len(), samples);
    let model = model.clone().joined();
    map::<B, _, _, _>(&model, pieces::<B>(&rows), |model, rows| sample_rows(&model, prompts, rows, eos, sampling, heard)).concat()
}

/// Samples an answer for every row: (prompt, number of its random stream). Rows of one prompt are neighbours.
fn sample_rows<B: Kernels>(
    model: &Transformer<B>,
    prompts: &[&[u32]],
    rows: &[(usize, u64)],
    eos: u32,
    sampling: &Sampling,
    heard: Hearing,
) -> Vec<Answer> {
    let device = model.device();
    let mut answers = vec![Answer::default(); rows.len()];
    if sampling.max_new_tokens == 0 {
        return answers;
    }
    let mut rngs: Vec<StdRng> = rows
        .iter()
        .map(|&(_, stream)| StdRng::seed_from_u64(sampling.seed ^ (stream + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        .collect();
    // Prompts of these rows, each once, and the position of each row's prompt among them.
    let mut groups: Vec<Group> = Vec::new();
    let mut owners = Vec::with_capacity(rows.len());
    for (n, &(prompt, _)) in rows.iter().enumerate() {
        if n == 0 || rows[n - 1].0 != prompt {
            groups.push(Group { prompt: prompts[prompt], answers: Vec::new() });
        }
        owners.push(groups.len() - 1);
    }
    let packed = Packed::new(&groups);
    let limits: Vec<usize> = owners
        .iter()
        .map(|&o| sampling.max_new_tokens.min(model.context().saturating_sub(packed.spans[o].prompt.len())).max(1))
        .collect();
    let mut cache = model.cache(limits.iter().copied().max().unwrap_or(0));
    let hidden = model.read_prompts(&packed, &mut cache);
    let last: Vec<u32> = packed.spans.iter().map(|s| (s.prompt.end - 1) as u32).collect();
    let ends = model.logits(hidden.select(0, index_tensor(&last, &device)));
    let own: Vec<u32> = owners.iter().map(|&o| o as u32).collect();
    let mut logits = ends.select(0, index_tensor(&own, &device));
    // Position in `rows` of each answer that has not ended.
    let mut active: Vec<usize> = (0..rows.len()).collect();
    loop {
        let mut values: Vec<f32> = logits.into_data().to_vec().expect("logits are f32");
        let outputs = values.len() / active.len();
        let uniform: Vec<f32> = active.iter().map(|&at| rngs[at].random()).collect();
        let draw = |(logits, &uniform): (&mut [f32], &f32)| draw(logits, sampling, uniform);
        // A thread that samples a piece draws for it, too; for the thousands of answers of a GPU's batch, all cores do.
        let drawn: Vec<Drawn> = match B::THREADED {
            true => values.chunks_exact_mut(outputs).zip(&uniform).map(draw).collect(),
            false => values.par_chunks_exact_mut(outputs).zip(&uniform).map(draw).collect(),
        };
        let (mut kept, mut tokens) = (Vec::new(), Vec::new());
        for (row, (drawn, &at)) in drawn.into_iter().zip(&active).enumerate() {
            let answer = &mut answers[at];
            answer.tokens.push(drawn.token);
            answer.log_probs.push(drawn.log_prob);
            answer.entropies.push(drawn.entropy);
            answer.ended = drawn.token == eos;
            let goes_on = heard(rows[at].1 as usize, drawn.token);
            if goes_on && !answer.ended && answer.tokens.len() < limits[at] {
                kept.push(row);
                tokens.push(drawn.token);
            }
        }
        if kept.is_empty() {
            return answers;
        }
        if kept.len() < active.len() {
            cache.iter_mut().for_each(|layer| layer.keep(&kept, &device));
            active = kept.iter().map(|&r| active[r]).collect();
            owners = kept.iter().map(|&r| owners[r]).collect();
        }
        logits = model.logits(model.step(&tokens, &packed.spans, &owners, &mut cache));
    }
}

struct Drawn {
    token: u32,
    log_prob: f32,
    entropy: f32,
}

/// The token at `uniform`, in [0, 1), of the distribution. `logits` are used up.
fn draw(logits: &mut [f32], sampling: &Sampling, uniform: f32) -> Drawn {
    let (greedy, top_p) = (sampling.temperature == 0.0, sampling.top_p);
    let scale = if greedy { 1.0 } else { 1.0 / sampling.temperature as f32 };
    let best = greedy.then(|| (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }));
    let (total, mean) = sampling_weights(logits, scale);
    let weights = logits;
    let token = best.unwrap_or_else(|| {
        let mut mass = total;
        if top_p < 1.0 {
            mass = keep_nucleus(weights, top_p as f32 * total);
        }
        let mut left = uniform * mass;
        let mut chosen = weights.iter().rposition(|&w| w > 0.0).unwrap_or(0);
        for (i, &w) in weights.iter().enumerate() {
            left -= w;
            if left < 0.0 {
                chosen = i;
                break;
            }
        }
        chosen
    });
    // H = log Z - E[logit]
    let log_total = total.ln();
    Drawn { token: token as u32, log_prob: weights[token].ln() - log_total, entropy: log_total - mean / total }
}

/// Sets all weights to 0 but the largest ones that together reach `wanted`; returns the sum of those.
fn keep_nucleus(weights: &mut [f32], wanted: f32) -> f32 {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
    let mut mass = 0.0;
    for i in order {
        if mass >= wanted && mass > 0.0 {
            weights[i] = 0.0;
        } else {
            mass += weights[i];
        }
    }
    mass
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use moslim_shared::config::ModelConfig;

    fn model() -> Transformer<Flex> {
        let config = ModelConfig { d_model: 24, d_ff: 40, context: 64, tied_embeddings: false, ..Default::default() };
        Transformer::new(&config, 50, 40, 3, &Default::default())
    }

    const SAMPLING: Sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: 12, seed: 5 };

    #[test]
    fn an_answer_does_not_depend_on_the_batch_and_its_log_probs_are_the_models() {
        let model = model();
        let prompts: [&[u32]; 3] = [&[1, 5, 9], &[4], &[7, 8, 3, 2, 6]];
        let together = generate(&model, &prompts, 2, 0, &SAMPLING);
        assert_eq!(generate(&model, &prompts[..1], 2, 0, &SAMPLING)[1].tokens, together[1].tokens);
        for (n, answer) in together.iter().enumerate() {
            let packed = Packed::new(&[Group { prompt: prompts[n / 2], answers: vec![&answer.tokens] }]);
            let log_probs: Vec<f32> = model.answer_log_probs(&packed, 1.0).into_data().to_vec().unwrap();
            for (a, b) in log_probs.iter().zip(&answer.log_probs) {
                assert!((a - b).abs() < 1e-4, "{a} is not {b}");
            }
        }
    }

    #[test]
    fn every_token_is_heard_and_who_hears_ends_an_answer() {
        let heard = std::sync::Mutex::new(vec![Vec::new(); 6]);
        let hear = |answer: usize, token: u32| {
            let all = &mut heard.lock().unwrap()[answer];
            all.push(token);
            answer != 4 || all.len() < 2
        };
        let answers = generate_heard(&model(), &[&[1, 2], &[3]], 3, 0, &SAMPLING, &hear);
        let heard = heard.into_inner().unwrap();
        assert_eq!(answers.iter().map(|a| a.tokens.clone()).collect::<Vec<_>>(), heard);
        let alone = generate(&model(), &[&[1, 2], &[3]], 3, 0, &SAMPLING);
        assert_eq!(heard[4], alone[4].tokens[..2]);
        assert_eq!(heard[5], alone[5].tokens);
    }

    #[test]
    fn rows_end_at_eos_and_at_the_limit() {
        let answers = generate(&model(), &[&[1, 2], &[3]], 100, 0, &SAMPLING);
        assert!(answers.iter().any(|a| a.ended) && answers.iter().any(|a| !a.ended));
        for a in &answers {
            assert_eq!(a.ended, a.tokens.last() == Some(&0));
            assert!(a.tokens[..a.tokens.len() - 1].iter().all(|&t| t != 0));
            assert!(a.ended || a.tokens.len() == 12);
        }
    }

    #[test]
    fn drawing_follows_the_distribution_and_top_p_cuts_its_tail() {
        let logits = [0.0, 3f32.ln(), f32::NEG_INFINITY];
        let mut rng = StdRng::seed_from_u64(1);
        let draws: Vec<Drawn> = (0..4_000).map(|_| draw(&mut logits.clone(), &SAMPLING, rng.random())).collect();
        let share = draws.iter().filter(|d| d.token == 1).count() as f64 / 4_000.0;
        assert!((share - 0.75).abs() < 0.03, "{share}");
        assert!(
            draws
                .iter()
                .all(|d| d.token != 2 && (d.log_prob - if d.token == 1 { 0.75f32.ln() } else { 0.25f32.ln() }).abs() < 1e-5)
        );
        let entropy = -(0.75f32 * 0.75f32.ln() + 0.25 * 0.25f32.ln());
        let cut = draw(&mut [0.0, 3f32.ln(), -50.0], &Sampling { top_p: 0.7, ..SAMPLING }, rng.random());
        assert_eq!(cut.token, 1);
        assert!((cut.entropy - entropy).abs() < 1e-5);
        assert_eq!(draw(&mut logits.clone(), &Sampling { temperature: 0.0, ..SAMPLING }, rng.random()).token, 1);
    }
}
