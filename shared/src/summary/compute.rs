//! What a run cost.

use serde::{Deserialize, Serialize};

/// Work of one stage, in tokens that a model read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Work {
    /// Read without a gradient: sampling, reference, reward model, critic, labelling.
    pub forward_tokens: u64,
    /// Read with a gradient; each costs about three of the above.
    pub training_tokens: u64,
}

impl Work {
    /// Everything in units of one token's forward pass.
    pub fn passes(&self) -> f64 {
        self.forward_tokens as f64 + 3.0 * self.training_tokens as f64
    }
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.forward_tokens += other.forward_tokens;
        self.training_tokens += other.training_tokens;
    }
}

/// What a method cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ComputeReport {
    /// Work of policy optimisation (with preference SFT; for RiC: labelling, both stages of training, sampling).
    pub policy: Work,
    /// Seconds of policy optimisation when it was done, also where a part came from the cache.
    pub policy_seconds: f64,
    /// Policies and reward models that were trained for it.
    pub models_trained: usize,
    /// Models that must be kept to serve every trade-off.
    pub models_kept: usize,
    /// Most memory that the process held, MiB; 0 where the system does not tell.
    pub peak_memory_mib: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_with_a_gradient_costs_three() {
        let mut work = Work { forward_tokens: 5, training_tokens: 7 };
        work += Work { forward_tokens: 2, training_tokens: 3 };
        assert_eq!(work.passes(), 7.0 + 3.0 * 10.0);
    }
}
