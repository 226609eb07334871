//! Operations that take one row of activations at a time: norm, gate, log-probabilities, and the weights of sampling.

use super::lanes::{LANES, exp, sum_of_products};
use multiversion::multiversion;

/// Turns logits into weights `exp(logit * scale - top)` in place, `top` being the largest scaled logit; returns their sum and
/// `sum weight * (logit * scale - top)`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn sampling_weights(logits: &mut [f32], scale: f32) -> (f32, f32) {
    let mut tops = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks_mut::<LANES>();
    for chunk in chunks.iter() {
        for l in 0..LANES {
            tops[l] = if chunk[l] > tops[l] { chunk[l] } else { tops[l] };
        }
    }
    let top = tops.iter().chain(rest.iter()).copied().fold(f32::NEG_INFINITY, f32::max) * scale;
    let (mut totals, mut means) = ([0f32; LANES], [0f32; LANES]);
    for chunk in chunks.iter_mut() {
        for l in 0..LANES {
            let x = (chunk[l] * scale - top).max(-80.0);
            let w = exp(x);
            totals[l] += w;
            means[l] += w * x;
            chunk[l] = w;
        }
    }
    let (mut total, mut mean) = (totals.iter().sum::<f32>(), means.iter().sum::<f32>());
    for w in rest {
        let x = (*w * scale - top).max(-80.0);
        *w = exp(x);
        total += *w;
        mean += *w * x;
    }
    (total, mean)
}

/// Forward RMS norm; returns the output and `1 / rms` per row.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
    let mut out = vec![0f32; x.len()];
    let mut inverse = vec![0f32; x.len() / weight.len()];
    rms_norm_rows(&mut out, &mut inverse, x, weight, eps);
    (out, inverse)
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn rms_norm_rows(out: &mut [f32], inverse: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let d = weight.len();
    for ((out, x), inverse) in out.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(inverse) {
        let scale = 1.0 / (sum_of_products(x, x) / d as f32 + eps).sqrt();
        *inverse = scale;
        for ((o, x), w) in out.iter_mut().zip(x).zip(weight) {
            *o = x * scale * w;
        }
    }
}

/// Gradients of [`rms_norm`] with respect to `x` and `weight`.
pub fn rms_norm_backward(x: &[f32], weight: &[f32], inverse: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let mut dx = vec![0f32; x.len()];
    let dw = rms_norm_rows_backward(&mut dx, x, weight, inverse, grad);
    (dx, dw)
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn rms_norm_rows_backward(dx: &mut [f32], x: &[f32], weight: &[f32], inverse: &[f32], grad: &[f32]) -> Vec<f32> {
    let d = weight.len();
    let mut dw = vec![0f32; d];
    let mut weighted = vec![0f32; d];
    for (((dx, x), grad), &r) in dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(grad.chunks_exact(d)).zip(inverse) {
        for i in 0..d {
            weighted[i] = grad[i] * weight[i];
            dw[i] += grad[i] * x[i] * r;
        }
        let shrink = sum_of_products(&weighted, x) / d as f32 * r * r * r;
        for i in 0..d {
            dx[i] = weighted[i] * r - x[i] * shrink;
        }
    }
    dw
}

/// Forward SwiGLU, `[n, 2 f]` to `[n, f]`.
pub fn swiglu(gate_up: &[f32], f: usize) -> Vec<f32> {
    let mut out = vec![0f32; gate_up.len() / 2];
    swiglu_rows(&mut out, gate_up, f);
    out
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn swiglu_rows(out: &mut [f32], gate_up: &[f32], f: usize) {
    for (out, row) in out.chunks_exact_mut(f).zip(gate_up.chunks_exact(2 * f)) {
        let (gate, up) = row.split_at(f);
        for i in 0..f {
            out[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
        }
    }
}

/// Gradient of [`swiglu`].
pub fn swiglu_backward(gate_up: &[f32], grad: &[f32], f: usize) -> Vec<f32> {
    let mut out = vec![0f32; gate_up.len()];
    swiglu_rows_backward(&mut out, gate_up, grad, f);
    out
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn swiglu_rows_backward(out: &mut [f32], gate_up: &[f32], grad: &[f32], f: usize) {
    for ((out, row), grad) in out.chunks_exact_mut(2 * f).zip(gate_up.chunks_exact(2 * f)).zip(grad.chunks_exact(f)) {
        let (gate, up) = row.split_at(f);
        let (d_gate, d_up) = out.split_at_mut(f);
        for i in 0..f {
            let s = 1.0 / (1.0 + exp(-gate[i]));
            d_up[i] = grad[i] * gate[i] * s;
            d_gate[i] = grad[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s));
        }
    }
}

/// Log-probability of each target, and `log sum exp(logits / temperature)` per row.
pub fn log_prob(logits: &[f32], targets: &[u32], temperature: f32) -> (Vec<f32>, Vec<f32>) {
    let classes = logits.len() / targets.len().max(1);
    let mut out = vec![0f32; targets.len()];
    let mut log_sums = vec![0f32; targets.len()];
    log_prob_rows(&mut out, &mut log_sums, logits, targets, classes, 1.0 / temperature);
    (out, log_sums)
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn log_prob_rows(out: &mut [f32], log_sums: &mut [f32], logits: &[f32], targets: &[u32], classes: usize, scale: f32) {
    for (n, row) in logits.chunks_exact(classes).enumerate() {
        let mut parts = [f32::NEG_INFINITY; 16];
        let (chunks, rest) = row.as_chunks::<16>();
        for chunk in chunks {
            for l in 0..16 {
                parts[l] = if chunk[l] > parts[l] { chunk[l] } else { parts[l] };
            }
        }
        let top = parts.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max) * scale;
        let mut parts = [0f32; 16];
        for chunk in chunks {
            for l in 0..16 {
                parts[l] += exp(chunk[l] * scale - top);
            }
        }
        let mut total: f32 = parts.iter().sum();
        for l in rest {
            total += exp(l * scale - top);
        }
        log_sums[n] = top + total.ln();
        out[n] = row[targets[n] as usize] * scale - log_sums[n];
    }
}

/// Gradient of [`log_prob`] with respect to the logits.
pub fn log_prob_backward(logits: &[f32], targets: &[u32], log_sums: &[f32], grad: &[f32], temperature: f32) -> Vec<f32> {
    let classes = logits.len() / targets.len().max(1);
    let mut out = vec![0f32; logits.len()];
    log_prob_rows_backward(&mut out, logits, targets, log_sums, grad, classes, 1.0 / temperature);
    out
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
#[allow(clippy::too_many_arguments)]
fn log_prob_rows_backward(
    out: &mut [f32],
    logits: &[f32],
    targets: &[u32],
    log_sums: &[f32],
    grad: &[f32],
    classes: usize,
    scale: f32,
) {
    for n in 0..targets.len() {
        let row = &logits[n * classes..(n + 1) * classes];
        let out = &mut out[n * classes..(n + 1) * classes];
        let g = grad[n] * scale;
        if g == 0.0 {
            continue;
        }
        for (o, l) in out.iter_mut().zip(row) {
            *o = -g * exp(l * scale - log_sums[n]);
        }
        out[targets[n] as usize] += g;
    }
}
