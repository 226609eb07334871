//! Sums of products for several queries at a time, which share every row of keys or values that is read.
//!
//! Everywhere `Q` is the number of queries and `W` of registers of lanes that are computed together.

use super::lanes::{LANES, multiply_add};

/// `sums[b][w] += x[b] * row[w]`: what all loops here are made of. `row` is a copy, and nothing is checked in between, so that the sums stay in
/// registers.
#[inline(always)]
fn add_products<const Q: usize, const W: usize>(
    sums: &mut [[[f32; LANES]; W]; Q],
    x: impl Fn(usize) -> f32,
    row: [[f32; LANES]; W],
) {
    for (b, sums) in sums.iter_mut().enumerate() {
        let x = x(b);
        for (sums, row) in sums.iter_mut().zip(&row) {
            multiply_add(sums, x, row);
        }
    }
}

/// `W` registers of lanes from `at` on.
#[inline(always)]
fn registers<const W: usize>(values: &[f32], at: usize) -> [[f32; LANES]; W] {
    let all: &[[f32; LANES]; W] = values[at..at + W * LANES].as_chunks().0.try_into().expect("as many lanes");
    *all
}

/// `out[b][j] = sum_d q[b][d] * columns[d][j]` for `len` positions, whole lanes, of which `W` are computed together. Rows of `out` are
/// `size` apart.
#[inline(always)]
pub fn dot_columns<const Q: usize, const W: usize>(
    out: &mut [f32],
    size: usize,
    len: usize,
    q: [&[f32]; Q],
    columns: &[f32],
    stride: usize,
) {
    let most = len - len % (W * LANES);
    for at in (0..most).step_by(W * LANES) {
        dot_lanes::<Q, W>(out, size, at, q, columns, stride);
    }
    for at in (most..len).step_by(LANES) {
        dot_lanes::<Q, 1>(out, size, at, q, columns, stride);
    }
}

#[inline(always)]
fn dot_lanes<const Q: usize, const W: usize>(
    out: &mut [f32],
    size: usize,
    at: usize,
    q: [&[f32]; Q],
    columns: &[f32],
    stride: usize,
) {
    let mut sums = [[[0f32; LANES]; W]; Q];
    // Equally long: that `d` is within one of them is known of all.
    let q: [&[f32]; Q] = std::array::from_fn(|b| &q[b][..q[0].len()]);
    for (d, column) in columns.chunks(stride).take(q[0].len()).enumerate() {
        add_products(&mut sums, |b| q[b][d], registers(column, at));
    }
    for (b, sums) in sums.iter().enumerate() {
        out[b * size + at..][..W * LANES].copy_from_slice(sums.as_flattened());
    }
}

/// `out[b] += sum_j weights[b][j] * rows[j]` for the first `n` rows. Rows of `out` and `rows` are `wide`, whole lanes, of which `W` are
/// computed together; those of `weights` are `size` apart.
#[inline(always)]
pub fn add_weighted<const Q: usize, const W: usize>(
    out: &mut [f32],
    wide: usize,
    weights: &[f32],
    size: usize,
    n: usize,
    rows: &[f32],
) {
    let most = wide - wide % (W * LANES);
    for at in (0..most).step_by(W * LANES) {
        add_weighted_lanes::<Q, W>(out, wide, weights, size, n, rows, at);
    }
    for at in (most..wide).step_by(LANES) {
        add_weighted_lanes::<Q, 1>(out, wide, weights, size, n, rows, at);
    }
}

#[inline(always)]
fn add_weighted_lanes<const Q: usize, const W: usize>(
    out: &mut [f32],
    wide: usize,
    weights: &[f32],
    size: usize,
    n: usize,
    rows: &[f32],
    at: usize,
) {
    let weights: [&[f32]; Q] = self::rows(weights, size, n);
    let mut sums: [[[f32; LANES]; W]; Q] = std::array::from_fn(|b| registers(out, b * wide + at));
    for (j, row) in rows.chunks_exact(wide).take(n).enumerate() {
        add_products(&mut sums, |b| weights[b][j], registers(row, at));
    }
    for (b, sums) in sums.iter().enumerate() {
        out[b * wide + at..][..W * LANES].copy_from_slice(sums.as_flattened());
    }
}

/// `rows[j] += sum_b weights[b][j] * x[b]` for the first `n` rows; laid out like [`add_weighted`].
#[inline(always)]
pub fn add_outer<const Q: usize, const W: usize>(
    rows: &mut [f32],
    wide: usize,
    weights: &[f32],
    size: usize,
    n: usize,
    x: &[f32],
) {
    let most = wide - wide % (W * LANES);
    for at in (0..most).step_by(W * LANES) {
        add_outer_lanes::<Q, W>(rows, wide, weights, size, n, x, at);
    }
    for at in (most..wide).step_by(LANES) {
        add_outer_lanes::<Q, 1>(rows, wide, weights, size, n, x, at);
    }
}

#[inline(always)]
fn add_outer_lanes<const Q: usize, const W: usize>(
    rows: &mut [f32],
    wide: usize,
    weights: &[f32],
    size: usize,
    n: usize,
    x: &[f32],
    at: usize,
) {
    let weights: [&[f32]; Q] = self::rows(weights, size, n);
    // Copies: sums that might lie on top of `x` would be formed one by one.
    let x: [[[f32; LANES]; W]; Q] = std::array::from_fn(|b| registers(x, b * wide + at));
    for (j, row) in rows.chunks_exact_mut(wide).take(n).enumerate() {
        let mut sums = [registers(row, at)];
        for (b, x) in x.iter().enumerate() {
            add_products(&mut sums, |_| weights[b][j], *x);
        }
        row[at..at + W * LANES].copy_from_slice(sums[0].as_flattened());
    }
}

/// The first `n` numbers of each of `Q` rows that are `apart`.
#[inline(always)]
pub fn rows<const Q: usize>(values: &[f32], apart: usize, n: usize) -> [&[f32]; Q] {
    std::array::from_fn(|b| &values[b * apart..b * apart + n])
}
