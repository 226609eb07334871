//! Fused loops over plain slices. Each is compiled for several instruction sets and chosen at run time; no floating-point
//! operation is reordered between them, and each output is computed by one thread in a fixed order, so results do not
//! depend on the processor or on the number of threads.

use super::{AttentionShape, RopeTable};
use multiversion::multiversion;
use rayon::prelude::*;

/// `exp(x)` for f32 with a relative error below 3e-7, written so that loops over it vectorise (Cephes' polynomial).
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // Adding 1.5 * 2^23 rounds to an integer in the low mantissa bits.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let scale = f32::from_bits(((shifted.to_bits() as i32).wrapping_sub(0x4B40_0000).wrapping_add(127) << 23) as u32);
    y * scale
}

/// Sum in eight interleaved partial sums, in a fixed order.
#[inline(always)]
fn sum(values: impl Iterator<Item = f32>) -> f32 {
    let mut parts = [0f32; 16];
    for (i, v) in values.enumerate() {
        parts[i % 16] += v;
    }
    parts.iter().sum()
}

#[inline(always)]
fn sum_of_products(a: &[f32], b: &[f32]) -> f32 {
    let mut parts = [0f32; 16];
    let (a16, a_rest) = a.as_chunks::<16>();
    let (b16, b_rest) = b.as_chunks::<16>();
    for (x, y) in a16.iter().zip(b16) {
        for l in 0..16 {
            parts[l] += x[l] * y[l];
        }
    }
    let mut total = 0.0;
    for p in parts {
        total += p;
    }
    for (x, y) in a_rest.iter().zip(b_rest) {
        total += x * y;
    }
    total
}

/// `y += a * x`
#[inline(always)]
fn axpy(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// `exp(scores - max)`, normalised, in place.
#[inline(always)]
fn softmax_in_place(scores: &mut [f32]) {
    let mut top = f32::NEG_INFINITY;
    for &s in scores.iter() {
        top = if s > top { s } else { top };
    }
    for s in scores.iter_mut() {
        *s = exp(*s - top);
    }
    let scale = 1.0 / sum(scores.iter().copied());
    for s in scores.iter_mut() {
        *s *= scale;
    }
}

/// Rotates one head vector from `x` into `out` by `position`; `direction` -1 undoes it.
#[inline(always)]
fn rotate(out: &mut [f32], x: &[f32], rope: &RopeTable, position: usize, direction: f32) {
    let half = rope.half;
    let cos = &rope.cos[position * half..(position + 1) * half];
    let sin = &rope.sin[position * half..(position + 1) * half];
    let (x1, x2) = x.split_at(half);
    let (o1, o2) = out.split_at_mut(half);
    for d in 0..half {
        let s = direction * sin[d];
        o1[d] = x1[d] * cos[d] - x2[d] * s;
        o2[d] = x2[d] * cos[d] + x1[d] * s;
    }
}

/// Writes `rows[time][head_dim]` transposed into `out[head_dim][time]`.
#[inline(always)]
fn transpose(out: &mut [f32], rows: &[f32], time: usize, width: usize) {
    for t in 0..time {
        for d in 0..width {
            out[d * time + t] = rows[t * width + d];
        }
    }
}

/// Forward attention of all rows. `qkv`: `[rows, time, qkv_dim]`. Returns the output `[rows, time, heads * head_dim]` and,
/// when `keep`, the attention probabilities `[rows, heads, time, time]` for the gradient.
pub fn attention(
    qkv: &[f32],
    rows: usize,
    time: usize,
    shape: &AttentionShape,
    starts: &[usize],
    keep: bool,
) -> (Vec<f32>, Vec<f32>) {
    let (h, hd) = (shape.heads, shape.head_dim);
    let mut out = vec![0f32; rows * time * h * hd];
    let mut probabilities = vec![0f32; if keep { rows * h * time * time } else { 0 }];
    let probability_size = if keep { h * time * time } else { 0 };
    let mut rest = probabilities.as_mut_slice();
    let mut tasks = Vec::with_capacity(rows);
    for (b, out) in out.chunks_mut(time * h * hd).enumerate() {
        let (mine, others) = rest.split_at_mut(probability_size);
        rest = others;
        tasks.push((b, out, mine));
    }
    let row_size = time * shape.qkv_dim();
    tasks.into_par_iter().for_each(|(b, out, probabilities)| {
        attention_row(&qkv[b * row_size..(b + 1) * row_size], out, probabilities, time, shape, starts[b]);
    });
    (out, probabilities)
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn attention_row(qkv: &[f32], out: &mut [f32], probabilities: &mut [f32], time: usize, shape: &AttentionShape, start: usize) {
    let (h, g, hd, width) = (shape.heads, shape.kv_heads, shape.head_dim, shape.qkv_dim());
    let scale = 1.0 / (hd as f32).sqrt();
    let mut k = vec![0f32; time * hd];
    let mut k_t = vec![0f32; time * hd];
    let mut q = vec![0f32; hd];
    let mut scores = vec![0f32; time];
    for kv in 0..g {
        for t in start..time {
            let from = t * width + (h + kv) * hd;
            rotate(&mut k[t * hd..(t + 1) * hd], &qkv[from..from + hd], &shape.rope, t - start, 1.0);
        }
        transpose(&mut k_t, &k, time, hd);
        for head in kv * (h / g)..(kv + 1) * (h / g) {
            for i in start..time {
                let from = i * width + head * hd;
                rotate(&mut q, &qkv[from..from + hd], &shape.rope, i - start, 1.0);
                let s = &mut scores[start..=i];
                s.fill(0.0);
                for d in 0..hd {
                    axpy(s, q[d] * scale, &k_t[d * time + start..d * time + i + 1]);
                }
                softmax_in_place(s);
                let o = &mut out[i * h * hd + head * hd..i * h * hd + (head + 1) * hd];
                for (j, &p) in s.iter().enumerate() {
                    let from = (start + j) * width + (h + g + kv) * hd;
                    axpy(o, p, &qkv[from..from + hd]);
                }
                if !probabilities.is_empty() {
                    let from = head * time * time + i * time;
                    probabilities[from + start..=from + i].copy_from_slice(s);
                }
            }
        }
    }
}

/// Gradient of [`attention`] with respect to `qkv`. `grad`: like the output. Returns `[rows, time, qkv_dim]`.
pub fn attention_backward(
    qkv: &[f32],
    probabilities: &[f32],
    grad: &[f32],
    rows: usize,
    time: usize,
    shape: &AttentionShape,
    starts: &[usize],
) -> Vec<f32> {
    let (h, hd) = (shape.heads, shape.head_dim);
    let row_size = time * shape.qkv_dim();
    let mut out = vec![0f32; rows * row_size];
    out.par_chunks_mut(row_size).enumerate().for_each(|(b, out)| {
        attention_row_backward(
            &qkv[b * row_size..(b + 1) * row_size],
            &probabilities[b * h * time * time..(b + 1) * h * time * time],
            &grad[b * time * h * hd..(b + 1) * time * h * hd],
            out,
            time,
            shape,
            starts[b],
        );
    });
    out
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
#[allow(clippy::too_many_arguments)]
fn attention_row_backward(
    qkv: &[f32],
    probabilities: &[f32],
    grad: &[f32],
    out: &mut [f32],
    time: usize,
    shape: &AttentionShape,
    start: usize,
) {
    let (h, g, hd, width) = (shape.heads, shape.kv_heads, shape.head_dim, shape.qkv_dim());
    let scale = 1.0 / (hd as f32).sqrt();
    let size = time * hd;
    let (mut k, mut v, mut v_t) = (vec![0f32; size], vec![0f32; size], vec![0f32; size]);
    let (mut dk, mut dv) = (vec![0f32; size], vec![0f32; size]);
    let (mut q, mut dq, mut unrotated) = (vec![0f32; hd], vec![0f32; hd], vec![0f32; hd]);
    let mut dp = vec![0f32; time];
    for kv in 0..g {
        for t in start..time {
            let from = t * width + (h + kv) * hd;
            rotate(&mut k[t * hd..(t + 1) * hd], &qkv[from..from + hd], &shape.rope, t - start, 1.0);
            let from = t * width + (h + g + kv) * hd;
            v[t * hd..(t + 1) * hd].copy_from_slice(&qkv[from..from + hd]);
        }
        transpose(&mut v_t, &v, time, hd);
        dk.fill(0.0);
        dv.fill(0.0);
        for head in kv * (h / g)..(kv + 1) * (h / g) {
            for i in start..time {
                let p = &probabilities[head * time * time + i * time + start..=head * time * time + i * time + i];
                let go = &grad[i * h * hd + head * hd..i * h * hd + (head + 1) * hd];
                let from = i * width + head * hd;
                rotate(&mut q, &qkv[from..from + hd], &shape.rope, i - start, 1.0);
                // dP = grad V^T, dS = P (dP - sum P dP)
                let dp = &mut dp[start..=i];
                dp.fill(0.0);
                for d in 0..hd {
                    axpy(dp, go[d], &v_t[d * time + start..d * time + i + 1]);
                }
                let mean = sum_of_products(p, dp);
                for (dp, p) in dp.iter_mut().zip(p) {
                    *dp = p * (*dp - mean) * scale;
                }
                dq.fill(0.0);
                for j in 0..dp.len() {
                    let row = (start + j) * hd..(start + j + 1) * hd;
                    axpy(&mut dv[row.clone()], p[j], go);
                    axpy(&mut dk[row.clone()], dp[j], &q);
                    axpy(&mut dq, dp[j], &k[row]);
                }
                rotate(&mut out[from..from + hd], &dq, &shape.rope, i - start, -1.0);
            }
        }
        for t in start..time {
            rotate(&mut unrotated, &dk[t * hd..(t + 1) * hd], &shape.rope, t - start, -1.0);
            let from = t * width + (h + kv) * hd;
            out[from..from + hd].copy_from_slice(&unrotated);
            let from = t * width + (h + g + kv) * hd;
            out[from..from + hd].copy_from_slice(&dv[t * hd..(t + 1) * hd]);
        }
    }
}

/// Attention of `new` positions after `before` cached ones. `cache`: `[rows][capacity][keys, values]`, appended to.
#[allow(clippy::too_many_arguments)]
pub fn cached_attention(
    qkv: &[f32],
    new: usize,
    cache: &mut [f32],
    capacity: usize,
    before: usize,
    shape: &AttentionShape,
    starts: &[usize],
) -> Vec<f32> {
    let rows = starts.len();
    let out_size = new * shape.heads * shape.head_dim;
    let cache_size = capacity * 2 * shape.kv_heads * shape.head_dim;
    let row_size = new * shape.qkv_dim();
    let mut out = vec![0f32; rows * out_size];
    out.par_chunks_mut(out_size).zip(cache.par_chunks_mut(cache_size)).enumerate().for_each(|(b, (out, cache))| {
        cached_attention_row(&qkv[b * row_size..(b + 1) * row_size], out, cache, new, before, shape, starts[b]);
    });
    out
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn cached_attention_row(
    qkv: &[f32],
    out: &mut [f32],
    cache: &mut [f32],
    new: usize,
    before: usize,
    shape: &AttentionShape,
    start: usize,
) {
    let (h, g, hd, width) = (shape.heads, shape.kv_heads, shape.head_dim, shape.qkv_dim());
    let scale = 1.0 / (hd as f32).sqrt();
    let entry = 2 * g * hd;
    let mut q = vec![0f32; hd];
    let mut scores = vec![0f32; before + new];
    for i in 0..new {
        let t = before + i;
        if t < start {
            continue;
        }
        let token = &qkv[i * width..(i + 1) * width];
        let slot = &mut cache[t * entry..(t + 1) * entry];
        for kv in 0..g {
            rotate(&mut slot[kv * hd..(kv + 1) * hd], &token[(h + kv) * hd..(h + kv + 1) * hd], &shape.rope, t - start, 1.0);
        }
        slot[g * hd..].copy_from_slice(&token[(h + g) * hd..]);
        for head in 0..h {
            let kv = head / (h / g);
            rotate(&mut q, &token[head * hd..(head + 1) * hd], &shape.rope, t - start, 1.0);
            let s = &mut scores[start..=t];
            for (j, s) in s.iter_mut().enumerate() {
                let from = (start + j) * entry + kv * hd;
                *s = scale * sum_of_products(&q, &cache[from..from + hd]);
            }
            softmax_in_place(s);
            let o = &mut out[i * h * hd + head * hd..i * h * hd + (head + 1) * hd];
            for (j, &p) in s.iter().enumerate() {
                let from = (start + j) * entry + (g + kv) * hd;
                axpy(o, p, &cache[from..from + hd]);
            }
        }
    }
}

/// Rows that one task of a row-wise kernel takes. A constant: sums over rows are made of these parts in order.
const ROWS_PER_TASK: usize = 128;

/// Forward RMS norm; returns the output and `1 / rms` per row.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
    let d = weight.len();
    let mut out = vec![0f32; x.len()];
    let mut inverse = vec![0f32; x.len() / d];
    out.par_chunks_mut(d * ROWS_PER_TASK)
        .zip(inverse.par_chunks_mut(ROWS_PER_TASK))
        .zip(x.par_chunks(d * ROWS_PER_TASK))
        .for_each(|((out, inverse), x)| rms_norm_rows(out, inverse, x, weight, eps));
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
    let d = weight.len();
    let mut dx = vec![0f32; x.len()];
    let parts: Vec<Vec<f32>> = dx
        .par_chunks_mut(d * ROWS_PER_TASK)
        .zip(x.par_chunks(d * ROWS_PER_TASK))
        .zip(grad.par_chunks(d * ROWS_PER_TASK))
        .zip(inverse.par_chunks(ROWS_PER_TASK))
        .map(|(((dx, x), grad), inverse)| rms_norm_rows_backward(dx, x, weight, inverse, grad))
        .collect();
    let mut dw = vec![0f32; d];
    for part in parts {
        axpy(&mut dw, 1.0, &part);
    }
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
    out.par_chunks_mut(f * ROWS_PER_TASK)
        .zip(gate_up.par_chunks(2 * f * ROWS_PER_TASK))
        .for_each(|(out, gate_up)| swiglu_rows(out, gate_up, f));
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
    out.par_chunks_mut(2 * f * ROWS_PER_TASK)
        .zip(gate_up.par_chunks(2 * f * ROWS_PER_TASK))
        .zip(grad.par_chunks(f * ROWS_PER_TASK))
        .for_each(|((out, gate_up), grad)| swiglu_rows_backward(out, gate_up, grad, f));
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
    out.par_chunks_mut(ROWS_PER_TASK)
        .zip(log_sums.par_chunks_mut(ROWS_PER_TASK))
        .zip(logits.par_chunks(classes * ROWS_PER_TASK))
        .zip(targets.par_chunks(ROWS_PER_TASK))
        .for_each(|(((out, log_sums), logits), targets)| {
            log_prob_rows(out, log_sums, logits, targets, classes, 1.0 / temperature)
        });
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
    out.par_chunks_mut(classes * ROWS_PER_TASK).enumerate().for_each(|(task, out)| {
        let from = task * ROWS_PER_TASK;
        let n = out.len() / classes;
        log_prob_rows_backward(
            out,
            &logits[from * classes..(from + n) * classes],
            &targets[from..from + n],
            &log_sums[from..from + n],
            &grad[from..from + n],
            classes,
            1.0 / temperature,
        );
    });
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

#[cfg(test)]
mod tests {
    #[test]
    fn the_exponential_is_accurate() {
        let mut worst = 0f64;
        for i in -8_600..8_700 {
            let x = i as f32 / 100.0;
            let exact = (x as f64).exp();
            worst = worst.max((super::exp(x) as f64 - exact).abs() / exact);
        }
        assert!(worst < 3e-7, "{worst}");
        assert!(super::exp(-1e9) >= 0.0 && super::exp(-1e9) < 1e-37);
    }
}
