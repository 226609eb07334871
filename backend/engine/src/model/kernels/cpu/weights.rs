//! Loops over weights and their gradients: sums, and the step of AdamW. They spread over threads by themselves.

use super::super::shape::AdamStep;
use super::lanes::sum_of_products;
use multiversion::multiversion;
use rayon::prelude::*;

/// Weights that one task of [`adamw`] takes.
const WEIGHTS_PER_TASK: usize = 1 << 15;

/// `sum += part` for each of `parts` in order, in one pass.
pub fn add_all(sum: &mut [f32], parts: &[&[f32]]) {
    sum.par_chunks_mut(WEIGHTS_PER_TASK).enumerate().for_each(|(n, sum)| {
        let from = n * WEIGHTS_PER_TASK;
        for part in parts {
            for (s, p) in sum.iter_mut().zip(&part[from..]) {
                *s += p;
            }
        }
    });
}

/// Sum of the squares; the partial sums do not depend on the number of threads.
pub fn square_sum(x: &[f32]) -> f64 {
    let parts: Vec<f32> = x.par_chunks(WEIGHTS_PER_TASK).map(square_sum_part).collect();
    parts.into_iter().map(f64::from).sum()
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn square_sum_part(x: &[f32]) -> f32 {
    sum_of_products(x, x)
}

/// One AdamW step in place, in one pass.
pub fn adamw(weights: &mut [f32], grad: &[f32], first: &mut [f32], second: &mut [f32], step: &AdamStep) {
    weights
        .par_chunks_mut(WEIGHTS_PER_TASK)
        .zip(grad.par_chunks(WEIGHTS_PER_TASK))
        .zip(first.par_chunks_mut(WEIGHTS_PER_TASK))
        .zip(second.par_chunks_mut(WEIGHTS_PER_TASK))
        .for_each(|(((weights, grad), first), second)| adamw_part(weights, grad, first, second, step));
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn adamw_part(weights: &mut [f32], grad: &[f32], first: &mut [f32], second: &mut [f32], step: &AdamStep) {
    let [correct_1, correct_2] = step.corrections();
    let (keep, rate) = (1.0 - step.learning_rate * step.weight_decay, step.learning_rate);
    for (((w, g), m), v) in weights.iter_mut().zip(grad).zip(first).zip(second) {
        *m = *m * step.beta_1 + g * (1.0 - step.beta_1);
        *v = *v * step.beta_2 + g * g * (1.0 - step.beta_2);
        *w = *w * keep - (*m / correct_1) / ((*v / correct_2).sqrt() + step.epsilon) * rate;
    }
}
