//! Matrix products on plain slices. The tensor library clears its output and copies it once more before it multiplies;
//! with models this small that costs as much as the other fused operations together.

#![allow(unsafe_code)]

use gemm::{Parallelism, gemm};

/// A view of a matrix of f32.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
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
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
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
    let (m, n, k) = (a.rows, b.columns, a.columns);
    let (beta, columns) = (1.0, n as isize);
    let read = if add { 1.0 } else { 0.0 };
    // SAFETY: `Matrix` has checked that its strides stay within its slice; the caller vouches for `into`.
    unsafe {
        gemm(
            m,
            n,
            k,
            into,
            1,
            columns,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            read,
            beta,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
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
}
