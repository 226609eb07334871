//! Estimators of the Kullback-Leibler divergence from the reference policy, and the adaptive coefficient.
//!
//! `d = log pi(y_t) - log ref(y_t)` at the sampled token. k1 belongs into the reward, k2 and k3 into a loss
//! (Schulman, "Approximating KL divergence").

use serde::{Deserialize, Serialize};

/// Log-ratios are clamped to this magnitude (nats) before any exponential.
const MAX_LOG_RATIO: f64 = 20.0;

/// `k1 = d`: unbiased, may be negative.
///
/// ```
/// assert_eq!(moslim_shared::kl::k1(-1.0, -1.5), 0.5);
/// ```
pub fn k1(log_prob: f64, log_prob_reference: f64) -> f64 {
    log_prob - log_prob_reference
}

/// `k2 = d^2 / 2`: never negative, biased, with the gradient of the reverse KL.
///
/// ```
/// assert_eq!(moslim_shared::kl::k2(-1.0, -1.5), 0.125);
/// ```
pub fn k2(log_prob: f64, log_prob_reference: f64) -> f64 {
    let d = k1(log_prob, log_prob_reference);
    d * d / 2.0
}

/// `k3 = exp(-d) - 1 + d`: unbiased, never negative, low variance.
///
/// ```
/// use moslim_shared::kl::k3;
/// assert_eq!(k3(-1.0, -1.0), 0.0);
/// assert!((k3(-1.0, -1.5) - 0.106531).abs() < 1e-6);
/// ```
pub fn k3(log_prob: f64, log_prob_reference: f64) -> f64 {
    let d = k1(log_prob, log_prob_reference).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
    (-d).exp() - 1.0 + d
}

/// Proportional controller of the KL coefficient (Ziegler et al. 2019, section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct AdaptiveKl {
    /// Current coefficient beta, per nat.
    pub coefficient: f64,
    /// Wanted KL, nats per sequence.
    pub target: f64,
    /// Samples over which the coefficient may change by about 20 %.
    pub horizon: f64,
}

impl AdaptiveKl {
    /// Moves the coefficient after `samples` sequences whose mean KL was `kl` (nats per sequence).
    ///
    /// ```
    /// use moslim_shared::kl::AdaptiveKl;
    /// let mut beta = AdaptiveKl { coefficient: 0.1, target: 5.0, horizon: 1000.0 };
    /// // Twice the target is too far: the coefficient grows, by a fifth of samples / horizon.
    /// beta.update(10.0, 100);
    /// assert!((beta.coefficient - 0.102).abs() < 1e-12);
    /// ```
    pub fn update(&mut self, kl: f64, samples: usize) {
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        self.coefficient *= 1.0 + error * samples as f64 / self.horizon;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-5, "{a} is not {b}");
    }

    #[test]
    fn estimators_match_the_vectors() {
        let log_prob = [-1.0, -0.5, -2.0];
        let reference = [-1.2, -0.4, -1.5];
        let want = [(0.2, 0.02, 0.018731), (-0.1, 0.005, 0.005171), (-0.5, 0.125, 0.148721)];
        for i in 0..3 {
            close(k1(log_prob[i], reference[i]), want[i].0);
            close(k2(log_prob[i], reference[i]), want[i].1);
            close(k3(log_prob[i], reference[i]), want[i].2);
        }
        assert!(k3(-1e3, 0.0).is_finite());
    }

    #[test]
    fn the_adaptive_coefficient_matches_the_vectors() {
        let start = AdaptiveKl { coefficient: 0.2, target: 6.0, horizon: 10_000.0 };
        let mut low = start;
        low.update(3.0, 256);
        close(low.coefficient, 0.198976);
        let mut high = start;
        high.update(9.0, 256);
        close(high.coefficient, 0.201024);
    }
}
