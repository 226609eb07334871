//! Matrix products on plain slices. The tensor library clears its output and copies it once more before it multiplies;
//! with models this small that costs as much as the other fused operations together.
//!
//! The right factor may be kept in bf16, which are the upper halves of f32: it is turned into f32 a block of columns at a time, so that
//! the whole is never there twice, and the product is that of its numbers in f32.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use super::few::{self, Lines, Right, Size};
use burn::tensor::bf16;
use gemm::{Parallelism, gemm};
use multiversion::multiversion;

/// Numbers of a right factor that are turned into f32 at a time: a megabyte, which stays in a core's cache until it is used.
const BLOCK: usize = 1 << 18;

#[derive(Clone, Copy)]
enum Values<'a> {
    Whole(&'a [f32]),
    Half(&'a [bf16]),
}

/// A view of a matrix of f32 or bf16.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    values: Values<'a>,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `values[row * columns + column]`
    ///
    /// # Panics
    /// When there are not exactly `rows * columns` values.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "a matrix of {rows} x {columns}");
        Self { values: Values::Whole(values), rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// As [`Matrix::new`], of numbers in bf16. It can be the right factor of a product, and not the left one.
    ///
    /// # Panics
    /// When there are not exactly `rows * columns` values.
    pub fn of_halves(values: &'a [bf16], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "a matrix of {rows} x {columns}");
        Self { values: Values::Half(values), rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The same numbers, rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// `a b`, row after row.
pub fn product(a: Matrix, b: Matrix) -> Vec<f32> {
    let size = a.rows * b.columns;
    let mut out: Vec<f32> = Vec::with_capacity(size);
    if a.columns == 0 {
        out.resize(size, 0.0);
        return out;
    }
    // SAFETY: the buffer holds `size` numbers, and all of them are written: `into` is not read.
    unsafe {
        multiply(out.as_mut_ptr(), a, b, false);
        out.set_len(size);
    }
    out
}

/// `out += a b`
///
/// # Panics
/// When `out` is not as large as the product.
pub fn add_product(out: &mut [f32], a: Matrix, b: Matrix) {
    assert_eq!(out.len(), a.rows * b.columns, "a sum of equal shapes");
    // SAFETY: the slice holds as many numbers as the product has.
    unsafe { multiply(out.as_mut_ptr(), a, b, true) }
}

/// Writes `a b`, plus what is there when `add`, on the calling thread.
///
/// # Safety
/// `into` must be valid for writing `a.rows * b.columns` numbers, and for reading them when `add`.
unsafe fn multiply(into: *mut f32, a: Matrix, b: Matrix, add: bool) {
    assert_eq!(a.columns, b.rows, "inner dimensions");
    let Values::Whole(left) = a.values else { panic!("the left factor is f32") };
    let (n, k) = (b.columns, b.rows);
    let left = (left.as_ptr(), a.row_stride, a.column_stride, a.rows);
    match b.values {
        // SAFETY: `Matrix` has checked that its strides stay within its slice; the caller vouches for `into`.
        Values::Whole(right) => unsafe { write((into, n), left, (right.as_ptr(), b.row_stride, b.column_stride), (n, k), add) },
        Values::Half(right) => {
            let wide = (BLOCK / k.max(1)).clamp(1, n.max(1));
            let mut block = vec![0.0; wide * k];
            for from in (0..n).step_by(wide) {
                let width = wide.min(n - from);
                let strides = if b.row_stride == 1 {
                    // A column after the other, as they lie there.
                    widen(&right[from * k..(from + width) * k], &mut block);
                    (1, k)
                } else {
                    for (row, own) in block.chunks_exact_mut(width).take(k).enumerate() {
                        widen(&right[row * n + from..][..width], own);
                    }
                    (width, 1)
                };
                // SAFETY: the block holds `width` columns of `k` numbers with these strides, and `into` has `width` columns from `from` on.
                unsafe { write((into.add(from), n), left, (block.as_ptr(), strides.0, strides.1), (width, k), add) }
            }
        }
    }
}

/// What bf16 stand for. `into` may be longer.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn widen(halves: &[bf16], into: &mut [f32]) {
    for (wide, half) in into.iter_mut().zip(halves) {
        *wide = f32::from_bits(u32::from(half.to_bits()) << 16);
    }
}

/// Writes a product of `k` columns with `n` to `into`, whose rows are `.1` numbers apart.
///
/// # Safety
/// Both factors must hold what their strides (of rows, then of columns) reach, `into` what the product writes.
unsafe fn write(
    (into, apart): (*mut f32, usize),
    (left, left_rows, left_columns, m): (*const f32, usize, usize, usize),
    (right, right_rows, right_columns): (*const f32, usize, usize),
    (n, k): (usize, usize),
    add: bool,
) {
    let beta = 1.0;
    let read = if add { 1.0 } else { 0.0 };
    // SAFETY: as the caller vouches for.
    unsafe {
        let done =
            columns_of_few(into, apart, (left, left_rows, left_columns, m), (right, right_rows, right_columns), (n, k), add);
        if done == n {
            return;
        }
        let (into, right, n) = (into.add(done), right.add(done * right_columns), n - done);
        gemm(
            m,
            n,
            k,
            into,
            1,
            apart as isize,
            add,
            left,
            left_columns as isize,
            left_rows as isize,
            right,
            right_columns as isize,
            right_rows as isize,
            read,
            beta,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// How many of the first columns [`few`] has computed.
///
/// # Safety
/// As of [`write`].
#[cfg(target_arch = "x86_64")]
unsafe fn columns_of_few(
    into: *mut f32,
    apart: usize,
    (left, left_rows, left_columns, rows): (*const f32, usize, usize, usize),
    (right, right_rows, right_columns): (*const f32, usize, usize),
    (columns, inner): (usize, usize),
    add: bool,
) -> usize {
    let right = match (right_rows, right_columns) {
        (apart, 1) => Right::Rows(Lines { from: right, apart }),
        (1, apart) => Right::Columns(Lines { from: right, apart }),
        _ => return 0,
    };
    if left_columns != 1 {
        return 0;
    }
    let (into, left) = (Lines { from: into, apart }, Lines { from: left, apart: left_rows });
    // SAFETY: as the caller vouches for.
    unsafe { few::columns(into, left, right, Size { rows, inner, columns }, add) }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn columns_of_few(
    _: *mut f32,
    _: usize,
    _: (*const f32, usize, usize, usize),
    _: (*const f32, usize, usize),
    _: (usize, usize),
    _: bool,
) -> usize {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_sums_are_right_in_every_orientation() {
        let a: Vec<f32> = (0..6).map(|i| i as f32).collect(); // [2, 3]
        let b: Vec<f32> = (0..12).map(|i| (i * i % 7) as f32).collect(); // [3, 4]
        let plain = |i: usize, j: usize| (0..3).map(|k| a[i * 3 + k] * b[k * 4 + j]).sum::<f32>();
        let want: Vec<f32> = (0..2).flat_map(|i| (0..4).map(move |j| (i, j))).map(|(i, j)| plain(i, j)).collect();
        let (x, y) = (Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 4));
        assert_eq!(product(x, y), want);
        let turned: Vec<f32> = (0..4).flat_map(|j| (0..2).map(move |i| (i, j))).map(|(i, j)| plain(i, j)).collect();
        assert_eq!(product(y.transposed(), x.transposed()), turned);
        let mut sum = vec![1.0; 8];
        add_product(&mut sum, x, y);
        assert_eq!(sum, want.iter().map(|w| w + 1.0).collect::<Vec<_>>());
        assert_eq!(product(Matrix::new(&[], 2, 0), Matrix::new(&[], 0, 2)), [0.0; 4]);
    }

    /// A few rows times many weights go another way than many rows do, but for the columns that are left over.
    #[test]
    fn few_rows_and_many_have_the_same_products() {
        let (many, k, n) = (200, 130, 1001);
        let number = |i: usize| ((i * 7919 % 2003) as f32 - 1001.0) / 512.0;
        let a: Vec<f32> = (0..many * k).map(number).collect();
        let b: Vec<f32> = (0..k * n).map(|i| number(3 * i + 1)).collect();
        for right in [Matrix::new(&b, k, n), Matrix::new(&b, n, k).transposed()] {
            let all = product(Matrix::new(&a, many, k), right);
            for rows in [1, 5, 16, 48] {
                let left = Matrix::new(&a[..rows * k], rows, k);
                let few = product(left, right);
                let mut sum = vec![1.0; rows * n];
                add_product(&mut sum, left, right);
                for (i, want) in all[..rows * n].iter().enumerate() {
                    assert!(
                        (few[i] - want).abs() < 1e-2 && (sum[i] - want - 1.0).abs() < 1e-2,
                        "{rows}, {i}: {}, not {want}",
                        few[i]
                    );
                }
            }
        }
    }

    /// Blocks of columns that do not divide the matrix, in both orientations.
    #[test]
    fn halves_multiply_as_the_numbers_that_they_stand_for() {
        let (m, k, n) = (3, 700, 1000);
        let number = |i: usize| ((i * 7919 % 2003) as f32 - 1001.0) / 512.0;
        let a: Vec<f32> = (0..m * k).map(number).collect();
        let halves: Vec<bf16> = (0..k * n).map(|i| bf16::from_f32(number(3 * i + 1))).collect();
        let wide: Vec<f32> = halves.iter().map(|h| h.to_f32()).collect();
        assert!(BLOCK / k < n && n % (BLOCK / k) != 0, "several blocks, the last one narrower");
        let close = |got: &[f32], want: &[f32]| {
            assert_eq!(got.len(), want.len());
            for (i, (g, w)) in got.iter().zip(want).enumerate() {
                assert!((g - w).abs() < 1e-2, "{i}: {g}, not {w}");
            }
        };
        let left = Matrix::new(&a, m, k);
        close(&product(left, Matrix::of_halves(&halves, k, n)), &product(left, Matrix::new(&wide, k, n)));
        let turned = |right: Matrix| product(left, right.transposed());
        close(&turned(Matrix::of_halves(&halves, n, k)), &turned(Matrix::new(&wide, n, k)));
        let mut sums = [vec![2.0; m * n], vec![2.0; m * n]];
        add_product(&mut sums[0], left, Matrix::of_halves(&halves, k, n));
        add_product(&mut sums[1], left, Matrix::new(&wide, k, n));
        close(&sums[0], &sums[1]);
    }
}
