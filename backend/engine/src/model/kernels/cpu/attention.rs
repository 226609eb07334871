//! Attention over whole sequences, forward and backward.

use super::super::shape::{AttentionShape, RopeTable};
use super::blocks::{add_outer, add_weighted, dot_columns, rows};
use super::lanes::{LANES, add_up, exp, largest, padded, sum_of_products};
use crate::model::span::Span;
use multiversion::{multiversion, target::target_cfg_f};

/// Rotates one head vector from `x` into `out` by `position`; `direction` -1 undoes it.
#[inline(always)]
pub fn rotate(out: &mut [f32], x: &[f32], rope: &RopeTable, position: usize, direction: f32) {
    let half = rope.half;
    let cos = &rope.cos[position * half..(position + 1) * half];
    let sin = &rope.sin[position * half..(position + 1) * half];
    let (x1, x2) = x[..2 * half].split_at(half);
    let (o1, o2) = out[..2 * half].split_at_mut(half);
    for ((o, x), (cos, sin)) in o1.iter_mut().zip(x1.iter().zip(x2)).zip(cos.iter().zip(sin)) {
        *o = x.0 * cos - x.1 * (direction * sin);
    }
    for ((o, x), (cos, sin)) in o2.iter_mut().zip(x1.iter().zip(x2)).zip(cos.iter().zip(sin)) {
        *o = x.1 * cos + x.0 * (direction * sin);
    }
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

/// Most queries that are computed together: their sums do not wait for each other, and keys and values are read once for all.
/// With two registers of lanes each they fill half of the 32 that AVX-512 has; elsewhere there is room for a quarter of that.
const BLOCK: usize = 8;

/// What one query sees: the first `prompt` positions of its group, and `own` positions from `start`.
#[derive(Clone, Copy)]
pub struct View {
    pub prompt: usize,
    pub start: usize,
    pub own: usize,
}

impl View {
    /// Whole lanes for the prompt's part of a buffer of scores.
    #[inline(always)]
    pub fn gap(&self) -> usize {
        padded(self.prompt)
    }

    #[inline(always)]
    pub fn size(&self) -> usize {
        self.gap() + padded(self.own)
    }

    /// What the query `later` positions on sees.
    #[inline(always)]
    pub fn after(&self, later: usize) -> Self {
        Self { own: self.own + later, ..*self }
    }

    /// `out = q . columns` for a block of queries, the last of which sees this; each row of `out` is `size` long.
    #[inline(always)]
    fn dots<const Q: usize, const W: usize>(&self, out: &mut [f32], q: [&[f32]; Q], side: &Side) {
        let (gap, size) = (self.gap(), self.size());
        dot_columns::<Q, W>(out, size, gap, q, &side.columns, side.stride);
        // The last column ends with the table.
        let own = &side.columns[self.start..];
        dot_columns::<Q, W>(&mut out[gap..], size, size - gap, q, own, side.stride);
    }

    /// Puts `value` where nothing is seen.
    #[inline(always)]
    pub fn blank(&self, out: &mut [f32], value: f32) {
        let gap = self.gap();
        out[self.prompt..gap].fill(value);
        out[gap + self.own..].fill(value);
    }

    /// Where weights begin in a row of scores, first position and number of positions: of the prompt and of the answer.
    #[inline(always)]
    pub fn parts(&self) -> [(usize, usize, usize); 2] {
        [(0, 0, self.prompt), (self.gap(), self.start, self.own)]
    }
}

/// `exp(scores - log_sum)` in place, 0 where nothing is seen.
#[inline(always)]
fn probabilities(scores: &mut [f32], view: &View, log_sum: f32) {
    for s in scores.iter_mut() {
        *s = exp(*s - log_sum);
    }
    view.blank(scores, 0.0);
}

/// `exp(scores - largest)` of the scores that are seen, in place, 0 elsewhere. Returns the largest, and the sum that a softmax divides by:
/// it is cheaper to divide what is made of them.
#[inline(always)]
pub fn exponentials(scores: &mut [f32], view: &View) -> (f32, f32) {
    view.blank(scores, f32::NEG_INFINITY);
    let mut tops = [f32::NEG_INFINITY; LANES];
    for chunk in scores.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            tops[l] = if chunk[l] > tops[l] { chunk[l] } else { tops[l] };
        }
    }
    let top = largest(tops);
    for s in scores.iter_mut() {
        *s = exp(*s - top);
    }
    view.blank(scores, 0.0);
    let mut sums = [0f32; LANES];
    for chunk in scores.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            sums[l] += chunk[l];
        }
    }
    (top, add_up(sums))
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
    /// As `q`: outputs, or gradients of queries.
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

    /// Outputs and log-sums of the block of `Q` that begins at an index and a position; the view is what its first query sees. Returns `Q`.
    #[inline(always)]
    fn forward<const Q: usize, const W: usize>(
        &mut self,
        qkv: &[f32],
        out: &mut [f32],
        log_sums: &mut [f32],
        (i, position, first): (usize, usize, View),
    ) -> usize {
        let (h, hd) = (self.shape.heads, self.shape.head_dim);
        let (wide, last) = (padded(hd), first.after(Q - 1));
        let size = last.size();
        self.read_queries::<Q>(qkv, i, position);
        last.dots::<Q, W>(&mut self.p, rows(&self.q, wide, hd), self.k);
        let mut scales = [0f32; Q];
        for b in 0..Q {
            let (top, total) = exponentials(&mut self.p[b * size..(b + 1) * size], &first.after(b));
            log_sums[(i + b) * h + self.head] = top + total.ln();
            scales[b] = 1.0 / total;
        }
        self.o.fill(0.0);
        for (from, start, n) in last.parts() {
            add_weighted::<Q, W>(&mut self.o, wide, &self.p[from..], size, n, &self.v.rows[start * wide..]);
        }
        for (b, o) in self.o.chunks_exact(wide).take(Q).enumerate() {
            let to = ((i + b) * h + self.head) * hd;
            for (out, o) in out[to..to + hd].iter_mut().zip(o) {
                *out = o * scales[b];
            }
        }
        Q
    }

    /// Adds a block's gradients of keys and values to `dk` and `dv`, `[positions][padded head_dim]`, and writes those of its
    /// queries into `out`. Returns `Q`.
    #[inline(always)]
    fn backward<const Q: usize, const W: usize>(
        &mut self,
        qkv: &[f32],
        log_sums: &[f32],
        grad: &[f32],
        out: &mut [f32],
        (dk, dv): (&mut [f32], &mut [f32]),
        (i, position, first): (usize, usize, View),
    ) -> usize {
        let (h, hd, width) = (self.shape.heads, self.shape.head_dim, self.shape.qkv_dim());
        let (wide, last) = (padded(hd), first.after(Q - 1));
        let size = last.size();
        self.read_queries::<Q>(qkv, i, position);
        for (b, go) in self.go.chunks_exact_mut(wide).take(Q).enumerate() {
            let from = ((i + b) * h + self.head) * hd;
            go[..hd].copy_from_slice(&grad[from..from + hd]);
        }
        last.dots::<Q, W>(&mut self.p, rows(&self.q, wide, hd), self.k);
        // dP = grad V^T, dS = P (dP - sum P dP); P is 0 where nothing is seen.
        last.dots::<Q, W>(&mut self.ds, rows(&self.go, wide, hd), self.v);
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
            add_outer::<Q, W>(&mut dv[rows.clone()], wide, &self.p[from..], size, n, &self.go);
            add_outer::<Q, W>(&mut dk[rows.clone()], wide, &self.ds[from..], size, n, &self.q);
            add_weighted::<Q, W>(&mut self.o, wide, &self.ds[from..], size, n, &self.k.rows[rows]);
        }
        let scale = 1.0 / (hd as f32).sqrt();
        for (b, dq) in self.o.chunks_exact_mut(wide).take(Q).enumerate() {
            dq.iter_mut().for_each(|q| *q *= scale);
            let to = (i + b) * width + self.head * hd;
            rotate(&mut out[to..to + hd], &dq[..hd], &self.shape.rope, position + b, -1.0);
        }
        Q
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn attention_group(qkv: &[f32], out: &mut [f32], log_sums: &mut [f32], shape: &AttentionShape, span: &Span) {
    let wide_registers = target_cfg_f!(target_feature = "avx512f");
    let (h, g) = (shape.heads, shape.kv_heads);
    let n = qkv.len() / shape.qkv_dim();
    for kv in 0..g {
        let (k, v) = keys_values(qkv, shape, span, kv);
        for head in kv * (h / g)..(kv + 1) * (h / g) {
            let mut head = Head::new(shape, head, &k, &v, n);
            for (first, position, view, length) in runs(span) {
                let mut t = 0;
                while t < length {
                    let at = (first + t, position + t, view.after(t));
                    t += match length - t {
                        BLOCK.. if wide_registers => head.forward::<BLOCK, 2>(qkv, out, log_sums, at),
                        4.. => head.forward::<4, 1>(qkv, out, log_sums, at),
                        _ => head.forward::<1, 1>(qkv, out, log_sums, at),
                    };
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
    let wide_registers = target_cfg_f!(target_feature = "avx512f");
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
                let mut t = 0;
                while t < length {
                    let at = (first + t, position + t, view.after(t));
                    let sums = (&mut dk[..], &mut dv[..]);
                    t += match length - t {
                        BLOCK.. if wide_registers => head.backward::<BLOCK, 2>(qkv, log_sums, grad, out, sums, at),
                        4.. => head.backward::<4, 1>(qkv, log_sums, grad, out, sums, at),
                        _ => head.backward::<1, 1>(qkv, log_sums, grad, out, sums, at),
                    };
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
