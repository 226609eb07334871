//! Sums, products and the exponential over lanes of a vector register, from which the loops are made.

/// `exp(x)` for f32 with a relative error below 3e-7, written so that loops over it vectorise (Cephes' polynomial).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // Adding 1.5 * 2^23 rounds to an integer in the low mantissa bits.
    let shifted = fused(x, std::f32::consts::LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    let r = fused(n, 2.121_944_4e-4, fused(n, -0.693_359_4, x));
    let mut p = 1.987_569_2e-4;
    p = fused(p, r, 1.398_2e-3);
    p = fused(p, r, 8.333_452e-3);
    p = fused(p, r, 4.166_579_6e-2);
    p = fused(p, r, 1.666_666_5e-1);
    p = fused(p, r, 0.5);
    let y = fused(p, r * r, r) + 1.0;
    let scale = f32::from_bits(((shifted.to_bits() as i32).wrapping_sub(0x4B40_0000).wrapping_add(127) << 23) as u32);
    y * scale
}

#[inline(always)]
pub fn sum_of_products(a: &[f32], b: &[f32]) -> f32 {
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

/// Numbers that one instruction handles at best; buffers are padded to multiples of it.
pub const LANES: usize = 16;

pub fn padded(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// Sum of all lanes, halving their number again and again.
#[inline(always)]
pub fn add_up(lanes: [f32; LANES]) -> f32 {
    fold(lanes, |a, b| a + b)
}

/// Largest of all lanes.
#[inline(always)]
pub fn largest(lanes: [f32; LANES]) -> f32 {
    fold(lanes, |a, b| if b > a { b } else { a })
}

#[inline(always)]
fn fold(lanes: [f32; LANES], both: impl Fn(f32, f32) -> f32) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|l| both(lanes[l], lanes[l + 8]));
    let four: [f32; 4] = std::array::from_fn(|l| both(eight[l], eight[l + 4]));
    let two: [f32; 2] = std::array::from_fn(|l| both(four[l], four[l + 2]));
    both(two[0], two[1])
}

#[inline(always)]
pub fn lanes(values: &[f32], at: usize) -> &[f32; LANES] {
    values[at..at + LANES].try_into().expect("a slice of that length")
}

/// `a * b + c`, rounded once: one instruction of processors with FMA or NEON. One without it calls a function for every number and is slow, and
/// WebAssembly, which has none, rounds twice.
#[inline(always)]
pub fn fused(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_arch = "wasm32") { a * b + c } else { a.mul_add(b, c) }
}

/// `sums += w * x`
#[inline(always)]
pub fn multiply_add(sums: &mut [f32; LANES], w: f32, x: &[f32; LANES]) {
    for l in 0..LANES {
        sums[l] = fused(w, x[l], sums[l]);
    }
}

/// `out += sum_j weights[j] * rows[j]`; row `j` begins at `j * stride`, and `out` has whole lanes.
#[inline(always)]
pub fn add_weighted_rows(out: &mut [f32], weights: &[f32], rows: &[f32], stride: usize) {
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
