//! Random weights.

use burn::module::Param;
use burn::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Draws normal weights on the host, so that they do not depend on the device.
pub struct Initialiser {
    rng: StdRng,
}

impl Initialiser {
    /// Weights that depend on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed) }
    }

    /// `N(0, std^2)` numbers.
    pub fn normal(&mut self, n: usize, std: f64) -> Vec<f32> {
        (0..n)
            .map(|_| {
                // Box-Muller; one of the pair is enough here.
                let u: f64 = 1.0 - self.rng.random::<f64>();
                let v: f64 = self.rng.random();
                (std * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
            })
            .collect()
    }

    /// A matrix parameter of `N(0, std^2)` numbers.
    pub fn matrix<B: Backend>(&mut self, rows: usize, columns: usize, std: f64, device: &B::Device) -> Param<Tensor<B, 2>> {
        Param::from_tensor(Tensor::from_data(TensorData::new(self.normal(rows * columns, std), [rows, columns]), device))
    }
}
