#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
use burn::backend::Flex;
use burn::prelude::*;
use std::time::Instant;
fn main() {
    let d = Default::default();
    for (m, k, n) in [(2880, 96, 192), (2880, 96, 512), (2880, 256, 96), (2000, 96, 768), (2880,512,96), (2880,128,512), (256,96,512), (1024,1024,1024)] {
        let a = Tensor::<Flex, 2>::ones([m, k], &d);
        let b = Tensor::<Flex, 2>::ones([k, n], &d);
        let t = Instant::now();
        let reps = 20;
        for _ in 0..reps { std::hint::black_box(a.clone().matmul(b.clone())); }
        let s = t.elapsed().as_secs_f64() / reps as f64;
        // dW = a^T g
        let g = Tensor::<Flex, 2>::ones([m, n], &d);
        let t = Instant::now();
        for _ in 0..reps { std::hint::black_box(a.clone().transpose().matmul(g.clone())); }
        let s2 = t.elapsed().as_secs_f64() / reps as f64;
        let t = Instant::now();
        for _ in 0..reps { std::hint::black_box(g.clone().matmul(b.clone().transpose())); }
        let s3 = t.elapsed().as_secs_f64() / reps as f64;
        let f = 2.0 * (m * k * n) as f64 / 1e9;
        println!("{m}x{k}x{n}: fwd {:.2} ms {:.0} GF/s; dW {:.2} ms {:.0}; dX {:.2} ms {:.0}", s * 1e3, f / s, s2 * 1e3, f / s2, s3 * 1e3, f / s3);
    }
}
