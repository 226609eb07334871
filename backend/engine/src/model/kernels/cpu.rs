//! Fused loops over plain slices. Each is compiled for several instruction sets and chosen at run time; no floating-point
//! operation is reordered between them, so results do not depend on the processor. All but those over weights (sums
//! and [`adamw`]) run on the calling thread: work is spread over threads in larger pieces (see `packed::map`).

use super::super::packed::Span;
use super::{AdamStep, AttentionShape, RopeTable};
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

#[inline(always)]
fn sum_of_products(a: &[f32], b: &[f32]) -> f32 {
    let mut parts = [0f32; LANES];
    let (a16, a_rest) = a.as_chunks::<LANES>();
    let (b16, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a16.iter().zip(b16) {
        for l in 0..LANES {
            parts[l] += x[l] * y[l];
        }
    }
    let mut total = add_up(parts);
    for (x, y) in a_rest.iter().zip(b_rest) {
        total += x * y;
    }
    total
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

/// Numbers that one instruction handles at best; buffers are padded to multiples of it.
const LANES: usize = 16;

fn padded(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// Keys or values of one key-value head: `rows[position][width]` with `width` the padded head dimension, and
/// `columns[head_dim][stride]`.
struct Side {
    rows: Vec<f32>,
    columns: Vec<f32>,
    width: usize,
    stride: usize,
}

impl Side {
    /// All zero, for `n` positions.
    fn new(n: usize, head_dim: usize) -> Self {
        // A read of whole lanes may begin at the last position.
        let (width, stride) = (padded(head_dim), padded(n) + LANES);
        Self { rows: vec![0.0; n * width], columns: vec![0.0; head_dim * stride], width, stride }
    }

    #[inline(always)]
    fn set(&mut self, position: usize, value: &[f32]) {
        self.rows[position * self.width..position * self.width + value.len()].copy_from_slice(value);
        for (d, &v) in value.iter().enumerate() {
            self.columns[d * self.stride + position] = v;
        }
    }
}

/// Sum of all lanes, halving their number again and again.
#[inline(always)]
fn add_up(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
    }
    lanes[0]
}

/// Largest of all lanes.
#[inline(always)]
fn largest(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] = if lanes[l + half] > lanes[l] { lanes[l + half] } else { lanes[l] };
        }
    }
    lanes[0]
}

#[inline(always)]
fn lanes(values: &[f32], at: usize) -> &[f32; LANES] {
    values[at..at + LANES].try_into().expect("a slice of that length")
}

/// `sums += w * x`
#[inline(always)]
fn multiply_add(sums: &mut [f32; LANES], w: f32, x: &[f32; LANES]) {
    for l in 0..LANES {
        sums[l] += w * x[l];
    }
}

/// `out += sum_j weights[j] * rows[j]`; row `j` begins at `j * stride`, and `out` has whole lanes.
#[inline(always)]
fn add_weighted_rows(out: &mut [f32], weights: &[f32], rows: &[f32], stride: usize) {
    // Two sums at a time: an addition need not wait for the one before it.
    let (pairs, rest) = out.as_chunks_mut::<{ 2 * LANES }>();
    let mut at = 0;
    for out in pairs {
        let (mut first, mut second) = (*lanes(out, 0), *lanes(out, LANES));
        for (j, &w) in weights.iter().enumerate() {
            multiply_add(&mut first, w, lanes(rows, at + j * stride));
            multiply_add(&mut second, w, lanes(rows, at + j * stride + LANES));
        }
        out[..LANES].copy_from_slice(&first);
        out[LANES..].copy_from_slice(&second);
        at += 2 * LANES;
    }
    if !rest.is_empty() {
        let mut sums = *lanes(rest, 0);
        for (j, &w) in weights.iter().enumerate() {
            multiply_add(&mut sums, w, lanes(rows, at + j * stride));
        }
        rest.copy_from_slice(&sums);
    }
}

/// Queries that are computed together: their sums do not wait for each other, and keys and values are read once for all.
const BLOCK: usize = 4;

/// `out[b][j] = sum_d q[b][d] * columns[d][j]` for `len` positions, whole lanes. Rows of `out` are `size` apart, those of `q`
/// `wide`.
#[inline(always)]
fn dot_columns<const Q: usize>(out: &mut [f32], size: usize, len: usize, q: &[f32], wide: usize, columns: &[f32], stride: usize) {
    for at in (0..len).step_by(LANES) {
        let mut sums = [[0f32; LANES]; Q];
        for (d, column) in columns.chunks(stride).enumerate() {
            let k = lanes(column, at);
            for b in 0..Q {
                multiply_add(&mut sums[b], q[b * wide + d], k);
            }
        }
        for b in 0..Q {
            out[b * size + at..b * size + at + LANES].copy_from_slice(&sums[b]);
        }
    }
}

/// `out[b] += sum_j weights[b][j] * rows[j]` for the first `n` rows. Rows of `out` and `rows` are `wide`, whole lanes; those
/// of `weights` are `size` apart.
#[inline(always)]
fn add_weighted<const Q: usize>(out: &mut [f32], wide: usize, weights: &[f32], size: usize, n: usize, rows: &[f32]) {
    for at in (0..wide).step_by(LANES) {
        let mut sums: [[f32; LANES]; Q] = std::array::from_fn(|b| *lanes(out, b * wide + at));
        for (j, row) in rows.chunks_exact(wide).take(n).enumerate() {
            let x = lanes(row, at);
            for b in 0..Q {
                multiply_add(&mut sums[b], weights[b * size + j], x);
            }
        }
        for b in 0..Q {
            out[b * wide + at..b * wide + at + LANES].copy_from_slice(&sums[b]);
        }
    }
}

/// `rows[j] += sum_b weights[b][j] * x[b]` for the first `n` rows; laid out like [`add_weighted`].
#[inline(always)]
fn add_outer<const Q: usize>(rows: &mut [f32], wide: usize, weights: &[f32], size: usize, n: usize, x: &[f32]) {
    for at in (0..wide).step_by(LANES) {
        // Copies: sums that might lie on top of `x` would be formed one by one.
        let x: [[f32; LANES]; Q] = std::array::from_fn(|b| *lanes(x, b * wide + at));
        for (j, row) in rows.chunks_exact_mut(wide).take(n).enumerate() {
            let mut sums = *lanes(row, at);
            for b in 0..Q {
                multiply_add(&mut sums, weights[b * size + j], &x[b]);
            }
            row[at..at + LANES].copy_from_slice(&sums);
        }
    }
}

/// What one query sees: the first `prompt` positions of its group, and `own` positions from `start`.
#[derive(Clone, Copy)]
struct View {
    prompt: usize,
    start: usize,
    own: usize,
}

impl View {
    /// Whole lanes for the prompt's part of a buffer of scores.
    #[inline(always)]
    fn gap(&self) -> usize {
        padded(self.prompt)
    }

    #[inline(always)]
    fn size(&self) -> usize {
        self.gap() + padded(self.own)
    }

    /// What the query `later` positions on sees.
    #[inline(always)]
    fn after(&self, later: usize) -> Self {
        Self { own: self.own + later, ..*self }
    }

    /// `out = q . columns` for a block of queries, the last of which sees this; each row of `out` is `size` long.
    #[inline(always)]
    fn dots<const Q: usize>(&self, out: &mut [f32], q: &[f32], wide: usize, side: &Side) {
        let (gap, size) = (self.gap(), self.size());
        dot_columns::<Q>(out, size, gap, q, wide, &side.columns, side.stride);
        // The last column ends with the table.
        let own = &side.columns[self.start..];
        dot_columns::<Q>(&mut out[gap..], size, size - gap, q, wide, own, side.stride);
    }

    /// Puts `value` where nothing is seen.
    #[inline(always)]
    fn blank(&self, out: &mut [f32], value: f32) {
        let gap = self.gap();
        out[self.prompt..gap].fill(value);
        out[gap + self.own..].fill(value);
    }

    /// Where weights begin in a row of scores, first position and number of positions: of the prompt and of the answer.
    #[inline(always)]
    fn parts(&self) -> [(usize, usize, usize); 2] {
        [(0, 0, self.prompt), (self.gap(), self.start, self.own)]
    }
}

/// `exp(scores - log_sum)` in place, 0 where nothing is seen.
#[inline(always)]
fn probabilities(scores: &mut [f32], view: &View, log_sum: f32) {
    for chunk in scores.as_chunks_mut::<LANES>().0 {
        for s in chunk {
            *s = exp(*s - log_sum);
        }
    }
    view.blank(scores, 0.0);
}

/// Softmax of the scores that are seen, in place, 0 elsewhere. Returns `log sum exp` of the scores.
#[inline(always)]
fn softmax(scores: &mut [f32], view: &View) -> f32 {
    view.blank(scores, f32::NEG_INFINITY);
    let mut tops = [f32::NEG_INFINITY; LANES];
    for chunk in scores.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            tops[l] = if chunk[l] > tops[l] { chunk[l] } else { tops[l] };
        }
    }
    let top = largest(tops);
    let mut sums = [0f32; LANES];
    for chunk in scores.as_chunks_mut::<LANES>().0 {
        for l in 0..LANES {
            // What is hidden counts e^-87 of the largest: nothing in f32.
            chunk[l] = exp(chunk[l] - top);
            sums[l] += chunk[l];
        }
    }
    let total = add_up(sums);
    let scale = 1.0 / total;
    for chunk in scores.as_chunks_mut::<LANES>().0 {
        for s in chunk {
            *s *= scale;
        }
    }
    view.blank(scores, 0.0);
    top + total.ln()
}

/// The runs of a group: its prompt, then each answer. `(first index, first position, what the first query sees, length)`;
/// indices count from the group's first token, positions within a sequence.
fn runs(span: &Span) -> impl Iterator<Item = (usize, usize, View, usize)> + '_ {
    let (base, prompt) = (span.prompt.start, span.prompt.len());
    let first = (0, 0, View { prompt: 0, start: 0, own: 1 }, prompt);
    let answers = span.answers.iter().map(move |a| {
        let start = a.start - base;
        (start, prompt, View { prompt, start, own: 1 }, a.len())
    });
    std::iter::once(first).chain(answers)
}

/// Forward attention of all groups. `qkv`: `[positions, qkv_dim]`. Returns the output `[positions, heads * head_dim]` and
/// `log sum exp` of each position's scores per head, `[positions, heads]`, for the gradient.
pub fn attention(qkv: &[f32], shape: &AttentionShape, spans: &[Span]) -> (Vec<f32>, Vec<f32>) {
    let n = qkv.len() / shape.qkv_dim();
    let mut out = vec![0f32; n * shape.heads * shape.head_dim];
    let mut log_sums = vec![0f32; n * shape.heads];
    let size = shape.heads * shape.head_dim;
    for span in spans {
        let all = span.all();
        attention_group(
            &qkv[all.start * shape.qkv_dim()..all.end * shape.qkv_dim()],
            &mut out[all.start * size..all.end * size],
            &mut log_sums[all.start * shape.heads..all.end * shape.heads],
            shape,
            span,
        );
    }
    (out, log_sums)
}

/// Rotated keys and values of key-value head `kv` of a group.
#[inline(always)]
fn keys_values(qkv: &[f32], shape: &AttentionShape, span: &Span, kv: usize) -> (Side, Side) {
    let (h, g, hd, width) = (shape.heads, shape.kv_heads, shape.head_dim, shape.qkv_dim());
    let n = qkv.len() / width;
    let (mut k, mut v) = (Side::new(n, hd), Side::new(n, hd));
    let mut rotated = vec![0f32; hd];
    for (first, position, _, length) in runs(span) {
        for t in 0..length {
            let i = first + t;
            let from = i * width + (h + kv) * hd;
            rotate(&mut rotated, &qkv[from..from + hd], &shape.rope, position + t, 1.0);
            k.set(i, &rotated);
            let from = i * width + (h + g + kv) * hd;
            v.set(i, &qkv[from..from + hd]);
        }
    }
    (k, v)
}

/// Where one head's queries are, and the buffers of a block of them.
struct Head<'a> {
    shape: &'a AttentionShape,
    head: usize,
    k: &'a Side,
    v: &'a Side,
    /// `[BLOCK][padded head_dim]`
    q: Vec<f32>,
    /// The same: outputs, or gradients of queries.
    o: Vec<f32>,
    /// The same: gradients of outputs.
    go: Vec<f32>,
    /// `[BLOCK][positions]`
    p: Vec<f32>,
    ds: Vec<f32>,
}

impl<'a> Head<'a> {
    /// `n`: tokens of the group.
    fn new(shape: &'a AttentionShape, head: usize, k: &'a Side, v: &'a Side, n: usize) -> Self {
        let (wide, size) = (padded(shape.head_dim), padded(n) + 2 * LANES);
        let rows = |width: usize| vec![0f32; BLOCK * width];
        Self { shape, head, k, v, q: rows(wide), o: rows(wide), go: rows(wide), p: rows(size), ds: rows(size) }
    }

    /// Reads the rotated and scaled queries of the block of `Q` that begins at index `i` and `position`.
    #[inline(always)]
    fn read_queries<const Q: usize>(&mut self, qkv: &[f32], i: usize, position: usize) {
        let (hd, width) = (self.shape.head_dim, self.shape.qkv_dim());
        let scale = 1.0 / (hd as f32).sqrt();
        for (b, q) in self.q.chunks_exact_mut(padded(hd)).take(Q).enumerate() {
            let from = (i + b) * width + self.head * hd;
            rotate(&mut q[..hd], &qkv[from..from + hd], &self.shape.rope, position + b, 1.0);
            q[..hd].iter_mut().for_each(|q| *q *= scale);
        }
    }

    /// Outputs and log-sums of a block; `first` is what its first query sees.
    #[inline(always)]
    fn forward<const Q: usize>(
        &mut self,
        qkv: &[f32],
        out: &mut [f32],
        log_sums: &mut [f32],
        i: usize,
        position: usize,
        first: View,
    ) {
        let (h, hd) = (self.shape.heads, self.shape.head_dim);
        let (wide, last) = (padded(hd), first.after(Q - 1));
        let size = last.size();
        self.read_queries::<Q>(qkv, i, position);
        last.dots::<Q>(&mut self.p, &self.q, wide, self.k);
        for b in 0..Q {
            log_sums[(i + b) * h + self.head] = softmax(&mut self.p[b * size..(b + 1) * size], &first.after(b));
        }
        self.o.fill(0.0);
        for (from, start, n) in last.parts() {
            add_weighted::<Q>(&mut self.o, wide, &self.p[from..], size, n, &self.v.rows[start * wide..]);
        }
        for (b, o) in self.o.chunks_exact(wide).take(Q).enumerate() {
            let to = ((i + b) * h + self.head) * hd;
            out[to..to + hd].copy_from_slice(&o[..hd]);
        }
    }

    /// Adds a block's gradients of keys and values to `dk` and `dv`, `[positions][padded head_dim]`, and writes those of its
    /// queries into `out`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn backward<const Q: usize>(
        &mut self,
        qkv: &[f32],
        log_sums: &[f32],
        grad: &[f32],
        out: &mut [f32],
        (dk, dv): (&mut [f32], &mut [f32]),
        i: usize,
        position: usize,
        first: View,
    ) {
        let (h, hd, width) = (self.shape.heads, self.shape.head_dim, self.shape.qkv_dim());
        let (wide, last) = (padded(hd), first.after(Q - 1));
        let size = last.size();
        self.read_queries::<Q>(qkv, i, position);
        for (b, go) in self.go.chunks_exact_mut(wide).take(Q).enumerate() {
            let from = ((i + b) * h + self.head) * hd;
            go[..hd].copy_from_slice(&grad[from..from + hd]);
        }
        last.dots::<Q>(&mut self.p, &self.q, wide, self.k);
        // dP = grad V^T, dS = P (dP - sum P dP); P is 0 where nothing is seen.
        last.dots::<Q>(&mut self.ds, &self.go, wide, self.v);
        for (b, (p, ds)) in self.p.chunks_exact_mut(size).zip(self.ds.chunks_exact_mut(size)).take(Q).enumerate() {
            probabilities(p, &first.after(b), log_sums[(i + b) * h + self.head]);
            let mean = sum_of_products(p, ds);
            for (ds, p) in ds.iter_mut().zip(p.iter()) {
                *ds = p * (*ds - mean);
            }
        }
        self.o.fill(0.0);
        for (from, start, n) in last.parts() {
            let rows = start * wide..(start + n) * wide;
            add_outer::<Q>(&mut dv[rows.clone()], wide, &self.p[from..], size, n, &self.go);
            add_outer::<Q>(&mut dk[rows.clone()], wide, &self.ds[from..], size, n, &self.q);
            add_weighted::<Q>(&mut self.o, wide, &self.ds[from..], size, n, &self.k.rows[rows]);
        }
        let scale = 1.0 / (hd as f32).sqrt();
        for (b, dq) in self.o.chunks_exact_mut(wide).take(Q).enumerate() {
            dq.iter_mut().for_each(|q| *q *= scale);
            let to = (i + b) * width + self.head * hd;
            rotate(&mut out[to..to + hd], &dq[..hd], &self.shape.rope, position + b, -1.0);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn attention_group(qkv: &[f32], out: &mut [f32], log_sums: &mut [f32], shape: &AttentionShape, span: &Span) {
    let (h, g) = (shape.heads, shape.kv_heads);
    let n = qkv.len() / shape.qkv_dim();
    for kv in 0..g {
        let (k, v) = keys_values(qkv, shape, span, kv);
        for head in kv * (h / g)..(kv + 1) * (h / g) {
            let mut head = Head::new(shape, head, &k, &v, n);
            for (first, position, view, length) in runs(span) {
                let whole = length - length % BLOCK;
                for t in (0..whole).step_by(BLOCK) {
                    head.forward::<BLOCK>(qkv, out, log_sums, first + t, position + t, view.after(t));
                }
                for t in whole..length {
                    head.forward::<1>(qkv, out, log_sums, first + t, position + t, view.after(t));
                }
            }
        }
    }
}

/// Gradient of [`attention`] with respect to `qkv`. `grad`: like the output. Returns `[positions, qkv_dim]`.
pub fn attention_backward(qkv: &[f32], log_sums: &[f32], grad: &[f32], shape: &AttentionShape, spans: &[Span]) -> Vec<f32> {
    let (h, width, size) = (shape.heads, shape.qkv_dim(), shape.heads * shape.head_dim);
    let mut out = vec![0f32; qkv.len()];
    for span in spans {
        let all = span.all();
        attention_group_backward(
            &qkv[all.start * width..all.end * width],
            &log_sums[all.start * h..all.end * h],
            &grad[all.start * size..all.end * size],
            &mut out[all.start * width..all.end * width],
            shape,
            span,
        );
    }
    out
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn attention_group_backward(qkv: &[f32], log_sums: &[f32], grad: &[f32], out: &mut [f32], shape: &AttentionShape, span: &Span) {
    let (h, g, hd, width) = (shape.heads, shape.kv_heads, shape.head_dim, shape.qkv_dim());
    let n = qkv.len() / width;
    let wide = padded(hd);
    let (mut dk, mut dv) = (vec![0f32; n * wide], vec![0f32; n * wide]);
    let mut rotated = vec![0f32; hd];
    for kv in 0..g {
        let (k, v) = keys_values(qkv, shape, span, kv);
        dk.fill(0.0);
        dv.fill(0.0);
        for head in kv * (h / g)..(kv + 1) * (h / g) {
            let mut head = Head::new(shape, head, &k, &v, n);
            for (first, position, view, length) in runs(span) {
                let whole = length - length % BLOCK;
                for t in (0..whole).step_by(BLOCK) {
                    let at = (first + t, position + t, view.after(t));
                    head.backward::<BLOCK>(qkv, log_sums, grad, out, (&mut dk, &mut dv), at.0, at.1, at.2);
                }
                for t in whole..length {
                    let at = (first + t, position + t, view.after(t));
                    head.backward::<1>(qkv, log_sums, grad, out, (&mut dk, &mut dv), at.0, at.1, at.2);
                }
            }
        }
        for (first, position, _, length) in runs(span) {
            for t in 0..length {
                let i = first + t;
                rotate(&mut rotated, &dk[i * wide..i * wide + hd], &shape.rope, position + t, -1.0);
                let from = i * width + (h + kv) * hd;
                out[from..from + hd].copy_from_slice(&rotated);
                let from = i * width + (h + g + kv) * hd;
                out[from..from + hd].copy_from_slice(&dv[i * wide..i * wide + hd]);
            }
        }
    }
}

/// Keys and values of one sequence while it grows, for every key-value head.
#[derive(Debug, Clone)]
pub struct HostCache {
    /// Rotated keys, `[kv_head][head_dim][stride]`.
    keys: Vec<f32>,
    /// `[kv_head][position][width]`
    values: Vec<f32>,
    capacity: usize,
}

impl HostCache {
    /// An empty cache for `capacity` positions.
    fn new(shape: &AttentionShape, capacity: usize) -> Self {
        let (g, hd) = (shape.kv_heads, shape.head_dim);
        Self { keys: vec![0.0; g * hd * padded(capacity)], values: vec![0.0; g * capacity * padded(hd)], capacity }
    }

    /// Remembers a token (`qkv_dim` numbers) at `slot`, which stands at `position` of its sequence.
    #[inline(always)]
    fn set(&mut self, slot: usize, position: usize, token: &[f32], shape: &AttentionShape, scratch: &mut [f32]) {
        let (h, g, hd) = (shape.heads, shape.kv_heads, shape.head_dim);
        let (stride, wide) = (padded(self.capacity), padded(hd));
        for kv in 0..g {
            rotate(scratch, &token[(h + kv) * hd..(h + kv + 1) * hd], &shape.rope, position, 1.0);
            for (d, &k) in scratch.iter().enumerate() {
                self.keys[(kv * hd + d) * stride + slot] = k;
            }
            let from = (kv * self.capacity + slot) * wide;
            self.values[from..from + hd].copy_from_slice(&token[(h + g + kv) * hd..(h + g + kv + 1) * hd]);
        }
    }
}

/// Caches of the prompts of `spans`; `qkv`: `[positions, qkv_dim]`.
pub fn prompt_caches(qkv: &[f32], shape: &AttentionShape, spans: &[Span]) -> Vec<HostCache> {
    let width = shape.qkv_dim();
    let mut scratch = vec![0f32; shape.head_dim];
    spans
        .iter()
        .map(|span| {
            let mut cache = HostCache::new(shape, span.prompt.len());
            for (i, at) in span.prompt.clone().enumerate() {
                cache.set(i, i, &qkv[at * width..(at + 1) * width], shape, &mut scratch);
            }
            cache
        })
        .collect()
}

/// Attention of the next token of every answer, at `slot` of its answer; appends it to `answers`. `qkv`: `[rows, qkv_dim]`.
pub fn step_attention(
    qkv: &[f32],
    shape: &AttentionShape,
    prompts: &[HostCache],
    owners: &[usize],
    answers: &mut Vec<HostCache>,
    capacity: usize,
    slot: usize,
) -> Vec<f32> {
    let (width, size) = (shape.qkv_dim(), shape.heads * shape.head_dim);
    if answers.is_empty() {
        answers.extend(owners.iter().map(|_| HostCache::new(shape, capacity)));
    }
    let mut out = vec![0f32; owners.len() * size];
    for ((token, out), (&owner, cache)) in qkv.chunks_exact(width).zip(out.chunks_exact_mut(size)).zip(owners.iter().zip(answers))
    {
        step_attention_row(token, out, shape, &prompts[owner], cache, slot);
    }
    out
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn step_attention_row(
    token: &[f32],
    out: &mut [f32],
    shape: &AttentionShape,
    prompt: &HostCache,
    answer: &mut HostCache,
    slot: usize,
) {
    let (h, g, hd) = (shape.heads, shape.kv_heads, shape.head_dim);
    let scale = 1.0 / (hd as f32).sqrt();
    let wide = padded(hd);
    // The prompt's cache is exactly as long as the prompt.
    let view = View { prompt: prompt.capacity, start: 0, own: slot + 1 };
    let position = prompt.capacity + slot;
    let mut q = vec![0f32; hd];
    answer.set(slot, position, token, shape, &mut q);
    let mut o = vec![0f32; wide];
    let mut scores = vec![0f32; view.size()];
    let size = view.size();
    for head in 0..h {
        let kv = head / (h / g);
        rotate(&mut q, &token[head * hd..(head + 1) * hd], &shape.rope, position, 1.0);
        q.iter_mut().for_each(|q| *q *= scale);
        let (first, second) = scores.split_at_mut(view.gap());
        for (part, cache) in [(first, prompt), (second, &*answer)] {
            let stride = padded(cache.capacity);
            part.fill(0.0);
            add_weighted_rows(part, &q, &cache.keys[kv * hd * stride..(kv + 1) * hd * stride], stride);
        }
        softmax(&mut scores, &view);
        o.fill(0.0);
        for ((from, start, n), cache) in view.parts().into_iter().zip([prompt, &*answer]) {
            let rows = &cache.values[kv * cache.capacity * wide..(kv + 1) * cache.capacity * wide];
            add_weighted::<1>(&mut o, wide, &scores[from..], size, n, &rows[start * wide..]);
        }
        out[head * hd..(head + 1) * hd].copy_from_slice(&o[..hd]);
    }
}

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
