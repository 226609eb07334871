//! Batched sampling with a KV cache. Rows that have ended leave the batch, so the work shrinks with them.

use super::kernels::Kernels;
use super::transformer::{Batch, Transformer, index_tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;

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
#[derive(Debug, Clone, PartialEq)]
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

/// Samples one answer to each prompt, in order. Prompts longer than the context leaves room for are an error of the caller.
pub fn generate<B: Kernels>(
    model: &Transformer<B>,
    prompts: &[Vec<u32>],
    pad: u32,
    eos: u32,
    sampling: &Sampling,
) -> Vec<Answer> {
    let mut answers: Vec<Answer> =
        prompts.iter().map(|_| Answer { tokens: vec![], log_probs: vec![], entropies: vec![], ended: false }).collect();
    if prompts.is_empty() || sampling.max_new_tokens == 0 {
        return answers;
    }
    let device = model.device();
    let mut rngs: Vec<StdRng> = (0..prompts.len())
        .map(|r| StdRng::seed_from_u64(sampling.seed ^ (r as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        .collect();
    let views: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let batch = Batch::left_padded(&views, pad);
    let capacity = (batch.time + sampling.max_new_tokens).min(model.context());
    let mut cache = model.cache(capacity);
    let mut starts = batch.starts.clone();
    // Position in `prompts` of each row still in the batch.
    let mut active: Vec<usize> = (0..prompts.len()).collect();
    let hidden = model.extend(&batch.tokens, &starts, &mut cache);
    let last: Vec<u32> = (0..batch.rows).map(|r| ((r + 1) * batch.time - 1) as u32).collect();
    let mut hidden = hidden.select(0, index_tensor(&last, &device));
    for length in batch.time.. {
        let logits: Vec<f32> = model.logits(hidden).into_data().to_vec().expect("logits are f32");
        let outputs = logits.len() / active.len();
        // Rows draw in parallel, each from its own stream.
        let mut slots: Vec<Option<&mut StdRng>> = rngs.iter_mut().map(Some).collect();
        let mine: Vec<&mut StdRng> = active.iter().map(|&a| slots[a].take().expect("a row is active once")).collect();
        let drawn: Vec<Drawn> =
            logits.par_chunks(outputs).zip(mine).map(|(row, rng)| draw(row, sampling.temperature, sampling.top_p, rng)).collect();
        let mut kept = Vec::new();
        let mut tokens = Vec::new();
        for (row, drawn) in drawn.into_iter().enumerate() {
            let answer = &mut answers[active[row]];
            answer.tokens.push(drawn.token);
            answer.log_probs.push(drawn.log_prob);
            answer.entropies.push(drawn.entropy);
            answer.ended = drawn.token == eos;
            if !answer.ended && answer.tokens.len() < sampling.max_new_tokens {
                kept.push(row);
                tokens.push(drawn.token);
            }
        }
        if kept.is_empty() || length >= capacity {
            break;
        }
        if kept.len() < active.len() {
            cache.iter_mut().for_each(|layer| layer.keep(&kept, &device));
            active = kept.iter().map(|&r| active[r]).collect();
            starts = kept.iter().map(|&r| starts[r]).collect();
        }
        hidden = model.extend(&tokens, &starts, &mut cache);
    }
    answers
}

struct Drawn {
    token: u32,
    log_prob: f32,
    entropy: f32,
}

fn draw(logits: &[f32], temperature: f64, top_p: f64, rng: &mut StdRng) -> Drawn {
    let greedy = temperature == 0.0;
    let scale = if greedy { 1.0 } else { 1.0 / temperature as f32 };
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) * scale;
    let mut weights: Vec<f32> = logits.iter().map(|l| (l * scale - top).exp()).collect();
    let total: f64 = weights.iter().map(|&w| w as f64).sum();
    let log_total = total.ln() as f32;
    // H = log Z - E[logit]
    let mean: f64 = weights.iter().zip(logits).map(|(&w, &l)| w as f64 * (l * scale - top) as f64).sum::<f64>() / total;
    let entropy = (total.ln() - mean) as f32;
    let token = if greedy {
        (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
    } else {
        let mut mass = total;
        if top_p < 1.0 {
            let mut order: Vec<usize> = (0..weights.len()).collect();
            order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
            mass = 0.0;
            let mut reached = false;
            for i in order {
                if reached {
                    weights[i] = 0.0;
                } else {
                    mass += weights[i] as f64;
                    reached = mass >= top_p * total;
                }
            }
        }
        let mut left = rng.random::<f64>() * mass;
        let mut chosen = weights.iter().rposition(|&w| w > 0.0).unwrap_or(0);
        for (i, &w) in weights.iter().enumerate() {
            left -= w as f64;
            if left < 0.0 {
                chosen = i;
                break;
            }
        }
        chosen
    };
    Drawn { token: token as u32, log_prob: logits[token] * scale - top - log_total, entropy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use moslim_shared::config::ModelConfig;

    fn model() -> Transformer<Flex> {
        let config = ModelConfig { layers: 2, d_model: 24, heads: 4, kv_heads: 2, d_ff: 40, context: 64, tied_embeddings: false };
        Transformer::new(&config, 50, 40, 3, &Default::default())
    }

    const SAMPLING: Sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: 12, seed: 5 };

    #[test]
    fn an_answer_does_not_depend_on_the_batch_and_its_log_probs_are_the_models() {
        let model = model();
        let prompts = vec![vec![1, 5, 9], vec![4], vec![7, 8, 3, 2, 6]];
        let together = generate(&model, &prompts, 41, 0, &SAMPLING);
        assert_eq!(generate(&model, &prompts[..1], 41, 0, &SAMPLING)[0].tokens, together[0].tokens);
        for (prompt, answer) in prompts.iter().zip(&together) {
            let sequence = [prompt.as_slice(), &answer.tokens].concat();
            let batch = Batch::right_padded(&[&sequence], 41);
            let (log_probs, _) = model.answer_log_probs(&batch, &[(prompt.len(), sequence.len())], 1.0);
            let log_probs: Vec<f32> = log_probs.into_data().to_vec().unwrap();
            for (a, b) in log_probs.iter().zip(&answer.log_probs) {
                assert!((a - b).abs() < 1e-4, "{a} is not {b}");
            }
        }
    }

    #[test]
    fn rows_end_at_eos_and_at_the_limit() {
        let answers = generate(&model(), &vec![vec![1, 2]; 200], 41, 0, &SAMPLING);
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
        let draws: Vec<Drawn> = (0..4_000).map(|_| draw(&logits, 1.0, 1.0, &mut rng)).collect();
        let share = draws.iter().filter(|d| d.token == 1).count() as f64 / 4_000.0;
        assert!((share - 0.75).abs() < 0.03, "{share}");
        assert!(
            draws
                .iter()
                .all(|d| d.token != 2 && (d.log_prob - if d.token == 1 { 0.75f32.ln() } else { 0.25f32.ln() }).abs() < 1e-5)
        );
        let entropy = -(0.75f32 * 0.75f32.ln() + 0.25 * 0.25f32.ln());
        let cut = draw(&[0.0, 3f32.ln(), -50.0], 1.0, 0.7, &mut rng);
        assert_eq!(cut.token, 1);
        assert!((cut.entropy - entropy).abs() < 1e-5);
        assert_eq!(draw(&logits, 0.0, 1.0, &mut rng).token, 1);
    }
}
