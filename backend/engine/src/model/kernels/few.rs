//! Products of a few rows with large weights, as sampling makes them: a token of each of some dozen answers, times weights that lie in memory.
//!
//! A product of hundreds of rows reads each weight once for many multiplications, and is as fast as the processor multiplies. Here
//! it is as fast as weights arrive, and general code for products waits for them: it walks down a band of columns, where every
//! row is far from the last one, which no processor foresees. So weights are read here in the order in which they lie, a few rows of them at a
//! time, those that come next are called for while these are used, and all rows use a weight while it is near.
//!
//! For processors with AVX-512 or AVX2; where [`columns`] computes none, the caller's other way does it.

#![allow(unsafe_code)]

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Most rows that are few: beyond, general code is as fast.
const ROWS: usize = 64;

/// Least numbers of a right factor that do not stay in a core's nearest cache.
const WEIGHTS: usize = 1 << 14;

/// Rows of weights that are used before the next ones are read: with the columns of a tile they fit into the nearest cache.
const DEEP: usize = 32;

/// Registers of columns that a tile is wide.
const WIDE: usize = 3;

/// Rows of weights that are multiplied at a time when they are the columns of the right factor.
const COLUMNS: usize = 12;

/// A matrix of f32 whose rows, or columns, lie together: where it begins, and how far it is from one to the next.
#[derive(Clone, Copy)]
pub struct Lines<T> {
    pub from: T,
    pub apart: usize,
}

/// The right factor of a product.
#[derive(Clone, Copy)]
pub enum Right {
    /// Its rows lie together.
    Rows(Lines<*const f32>),
    /// Its columns do.
    Columns(Lines<*const f32>),
}

/// Shape of a product of `rows x inner` with `inner x columns`.
#[derive(Clone, Copy)]
pub struct Size {
    pub rows: usize,
    pub inner: usize,
    pub columns: usize,
}

/// Computes the first columns of `left right`, as many as it can, and returns how many; added to what is in `into` when `add`.
///
/// # Safety
/// `left` must be valid for reading `rows` rows of `inner` numbers, `right` for reading what it says, and `into` for writing `rows` rows of
/// `columns` numbers, and for reading them when `add`.
pub unsafe fn columns(into: Lines<*mut f32>, left: Lines<*const f32>, right: Right, size: Size, add: bool) -> usize {
    // A single row fills a register of rows badly, and general code reads its weights as they lie.
    let fewest = if matches!(right, Right::Columns(_)) { 2 } else { 1 };
    if !(fewest..=ROWS).contains(&size.rows) || size.inner * size.columns < WEIGHTS {
        return 0;
    }
    // SAFETY: the processor has what the function is compiled for; the caller vouches for the pointers.
    unsafe {
        if has_avx512() {
            with_avx512(into, left, right, size, add)
        } else if has_avx2() {
            with_avx2(into, left, right, size, add)
        } else {
            0
        }
    }
}

fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

fn has_avx512() -> bool {
    has_avx2() && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl")
}

/// 32 registers of 16 numbers: a tile of 8 rows has 24 of them for its sums.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
unsafe fn with_avx512(into: Lines<*mut f32>, left: Lines<*const f32>, right: Right, size: Size, add: bool) -> usize {
    // SAFETY: as the caller vouches for.
    unsafe { compute::<16, 8>(into, left, right, size, add) }
}

/// 16 registers of 8 numbers: a tile of 4 rows has 12 of them.
#[target_feature(enable = "avx2,fma")]
unsafe fn with_avx2(into: Lines<*mut f32>, left: Lines<*const f32>, right: Right, size: Size, add: bool) -> usize {
    // SAFETY: as the caller vouches for.
    unsafe { compute::<8, 4>(into, left, right, size, add) }
}

#[inline(always)]
unsafe fn compute<const LANES: usize, const TALL: usize>(
    into: Lines<*mut f32>,
    left: Lines<*const f32>,
    right: Right,
    size: Size,
    add: bool,
) -> usize {
    // SAFETY: as the caller vouches for.
    unsafe {
        match right {
            Right::Rows(right) => by_rows::<LANES, TALL>(into, left, right, size, add),
            Right::Columns(right) => by_columns::<LANES>(into, left, right, size, add),
        }
    }
}

/// A band of [`DEEP`] rows of weights after the other; in a band, a tile after the other, for all rows of the left factor.
#[inline(always)]
unsafe fn by_rows<const LANES: usize, const TALL: usize>(
    into: Lines<*mut f32>,
    left: Lines<*const f32>,
    right: Lines<*const f32>,
    size: Size,
    add: bool,
) -> usize {
    let width = WIDE * LANES;
    let columns = size.columns / width * width;
    for inner in (0..size.inner).step_by(DEEP) {
        let deep = DEEP.min(size.inner - inner);
        let add = add || inner > 0;
        for column in (0..columns).step_by(width) {
            let mut row = 0;
            while row < size.rows {
                let near = row > 0;
                // SAFETY: rows, columns and `deep` stay within the factors and the product.
                unsafe {
                    let into = Lines { from: into.from.add(row * into.apart + column), ..into };
                    let left = Lines { from: left.from.add(row * left.apart + inner), ..left };
                    let right = Lines { from: right.from.add(inner * right.apart + column), ..right };
                    row += match size.rows - row {
                        rest if rest >= TALL => tile::<LANES, TALL>(into, left, right, deep, add, near),
                        4.. => tile::<LANES, 4>(into, left, right, deep, add, near),
                        2.. => tile::<LANES, 2>(into, left, right, deep, add, near),
                        _ => tile::<LANES, 1>(into, left, right, deep, add, near),
                    };
                }
            }
        }
    }
    columns
}

/// A tile of the product, [`WIDE`] registers of columns and `TALL` rows; returns `TALL`. Where its weights are not `near`, it calls for those of
/// the next tile, too.
#[inline(always)]
unsafe fn tile<const LANES: usize, const TALL: usize>(
    into: Lines<*mut f32>,
    left: Lines<*const f32>,
    right: Lines<*const f32>,
    deep: usize,
    add: bool,
    near: bool,
) -> usize {
    let mut sums = [[[0f32; LANES]; WIDE]; TALL];
    // SAFETY: the caller vouches for a tile's rows and columns; what is only called for may lie anywhere.
    unsafe {
        if add {
            for (row, sums) in sums.iter_mut().enumerate() {
                *sums = into.from.add(row * into.apart).cast::<[[f32; LANES]; WIDE]>().read();
            }
        }
        for inner in 0..deep {
            let at = right.from.add(inner * right.apart);
            if !near {
                for part in 0..WIDE {
                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add((WIDE + part) * LANES).cast());
                }
            }
            let weights = at.cast::<[[f32; LANES]; WIDE]>().read();
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = *left.from.add(row * left.apart + inner);
                for (sums, weights) in sums.iter_mut().zip(&weights) {
                    multiply_add(sums, x, weights);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            into.from.add(row * into.apart).cast::<[[f32; LANES]; WIDE]>().write(*sums);
        }
    }
    TALL
}

/// [`COLUMNS`] rows of weights after the other, each number of them times a register of rows of the left factor, which is turned over for that.
#[inline(always)]
unsafe fn by_columns<const LANES: usize>(
    into: Lines<*mut f32>,
    left: Lines<*const f32>,
    right: Lines<*const f32>,
    size: Size,
    add: bool,
) -> usize {
    let groups = size.rows.div_ceil(LANES);
    let mut turned = vec![[0f32; LANES]; groups * size.inner];
    for row in 0..size.rows {
        for inner in 0..size.inner {
            // SAFETY: a row of the left factor.
            turned[row / LANES * size.inner + inner][row % LANES] = unsafe { *left.from.add(row * left.apart + inner) };
        }
    }
    let columns = size.columns / COLUMNS * COLUMNS;
    for column in (0..columns).step_by(COLUMNS) {
        for (group, turned) in turned.chunks_exact(size.inner).enumerate() {
            let first = group * LANES;
            // SAFETY: rows and columns stay within the factors and the product.
            unsafe {
                let right = Lines { from: right.from.add(column * right.apart), ..right };
                let sums = bar(turned, right, group > 0);
                for row in first..size.rows.min(first + LANES) {
                    for (next, sums) in sums.iter().enumerate() {
                        let into = into.from.add(row * into.apart + column + next);
                        *into = sums[row - first] + if add { *into } else { 0.0 };
                    }
                }
            }
        }
    }
    columns
}

/// The product of a register of rows with [`COLUMNS`] rows of weights. Where these are not `near`, it calls for the next ones, too.
#[inline(always)]
unsafe fn bar<const LANES: usize>(turned: &[[f32; LANES]], right: Lines<*const f32>, near: bool) -> [[f32; LANES]; COLUMNS] {
    let mut sums = [[0f32; LANES]; COLUMNS];
    for (part, turned) in turned.chunks(LANES).enumerate() {
        let from = part * LANES;
        // SAFETY: the caller vouches for the rows of weights; what is only called for may lie anywhere.
        unsafe {
            if !near {
                for next in 0..COLUMNS {
                    _mm_prefetch::<_MM_HINT_T0>(right.from.wrapping_add((COLUMNS + next) * right.apart + from).cast());
                }
            }
            for (inner, x) in turned.iter().enumerate() {
                for (next, sums) in sums.iter_mut().enumerate() {
                    multiply_add(sums, *right.from.add(next * right.apart + from + inner), x);
                }
            }
        }
    }
    // A copy of their own, so that the sums stay in registers although they are read at places that are known only later.
    let mut out = [[0f32; LANES]; COLUMNS];
    for (out, sums) in out.iter_mut().zip(&sums) {
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = *sum;
        }
    }
    out
}

/// `sums += x * weights`
#[inline(always)]
fn multiply_add<const LANES: usize>(sums: &mut [f32; LANES], x: f32, weights: &[f32; LANES]) {
    for (sum, weight) in sums.iter_mut().zip(weights) {
        *sum = x.mul_add(*weight, *sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Compute = unsafe fn(Lines<*mut f32>, Lines<*const f32>, Right, Size, bool) -> usize;

    /// Every way that this processor has, and the columns of its tiles.
    fn ways() -> Vec<(Compute, usize)> {
        let mut ways: Vec<(Compute, usize)> = Vec::new();
        if has_avx512() {
            ways.push((with_avx512, 48));
        }
        if has_avx2() {
            ways.push((with_avx2, 24));
        }
        ways
    }

    /// Rows that fill tiles and registers and rows that do not, an inner dimension of several bands and a rest, columns that are left over,
    /// factors that are parts of wider ones, a sum; and nothing is written beside the product.
    #[test]
    fn few_rows_are_multiplied_in_every_orientation() {
        let (inner, columns) = (2 * DEEP + 5, 101);
        let number = |i: usize| ((i * 7919 % 2003) as f32 - 1001.0) / 512.0;
        let (left_apart, into_apart) = (inner + 3, columns + 2);
        for rows in [1, 2, 3, 7, 8, 13, 16, 17, 31] {
            let left: Vec<f32> = (0..rows * left_apart).map(number).collect();
            for (turned, apart) in [(false, columns + 1), (true, inner + 1)] {
                let right: Vec<f32> = (0..apart * if turned { columns } else { inner }).map(|i| number(3 * i + 1)).collect();
                let weight = |i: usize, column: usize| if turned { right[column * apart + i] } else { right[i * apart + column] };
                for (add, (compute, width)) in [false, true].into_iter().flat_map(|add| ways().into_iter().map(move |w| (add, w)))
                {
                    let mut into = vec![0.5f32; rows * into_apart];
                    let from = Lines { from: right.as_ptr(), apart };
                    let right = if turned { Right::Columns(from) } else { Right::Rows(from) };
                    // SAFETY: the slices hold what the lines say.
                    let done = unsafe {
                        let into = Lines { from: into.as_mut_ptr(), apart: into_apart };
                        let left = Lines { from: left.as_ptr(), apart: left_apart };
                        compute(into, left, right, Size { rows, inner, columns }, add)
                    };
                    assert_eq!(done, if turned { columns / COLUMNS * COLUMNS } else { columns / width * width });
                    for row in 0..rows {
                        for column in 0..into_apart {
                            let before = if add || column >= done { 0.5 } else { 0.0 };
                            let product = |i: usize| left[row * left_apart + i] * weight(i, column);
                            let want = before + if column < done { (0..inner).map(product).sum::<f32>() } else { 0.0 };
                            let got = into[row * into_apart + column];
                            assert!(
                                (got - want).abs() < 1e-3,
                                "{rows} rows, turned {turned}, add {add}, {row}/{column}: {got}, not {want}"
                            );
                        }
                    }
                }
            }
        }
    }
}
