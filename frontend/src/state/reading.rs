//! What is read off a run: questions that views ask.

use crate::state::run::RunState;
use moslim_shared::config::PolicyOptimizer;
use moslim_shared::method::Method;
use moslim_shared::summary::ControlReport;

/// Steps of policy optimisation that the live control matrix sums over.
pub const MATRIX_WINDOW: usize = 10;

impl RunState {
    /// The method of the run.
    pub fn method(&self) -> Method {
        self.config.as_ref().map(|c| c.method.kind).unwrap_or_default()
    }

    /// The optimiser of its policies.
    pub fn optimizer(&self) -> PolicyOptimizer {
        self.config.as_ref().map(|c| c.policy.optimizer).unwrap_or_default()
    }

    /// Whether its policies are optimised by sampling; else they are trained on given answers, or not at all.
    pub fn optimises(&self) -> bool {
        optimises(self.method())
    }

    /// Whether what a prompt asks for decides the reward.
    pub fn asks(&self) -> bool {
        self.method() == Method::Moslim
    }

    /// Control by `policy` as seen by `judge`.
    pub fn control(&self, policy: &str, judge: &str) -> Option<&ControlReport> {
        self.controls.iter().find(|c| c.policy == policy && c.judge == judge).map(|c| &c.report)
    }

    /// Asked x achieved on the answers of the last ten steps, each row a share; rows with no answer are all zero.
    pub fn rollout_matrix(&self, objective: usize) -> Option<Vec<Vec<f64>>> {
        let steps = &self.policy[self.policy.len().saturating_sub(MATRIX_WINDOW)..];
        let mut sum: Vec<Vec<f64>> = steps.last()?.matrix.get(objective)?.clone();
        for step in &steps[..steps.len() - 1] {
            let Some(matrix) = step.matrix.get(objective) else { continue };
            for (row, add) in sum.iter_mut().zip(matrix) {
                row.iter_mut().zip(add).for_each(|(a, b)| *a += b);
            }
        }
        for row in &mut sum {
            let total: f64 = row.iter().sum();
            if total > 0.0 {
                row.iter_mut().for_each(|x| *x /= total);
            }
        }
        Some(sum)
    }

    /// KL coefficient of a policy step.
    pub fn kl_coefficient(&self, step: usize) -> Option<f64> {
        self.policy.iter().rev().find(|p| p.step == step).map(|p| p.kl_coefficient)
    }
}

/// Whether a method optimises policies by sampling.
pub fn optimises(method: Method) -> bool {
    matches!(method, Method::Moslim | Method::Morlhf | Method::RewardedSoups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::event::PolicyStep;

    #[test]
    fn the_live_matrix_sums_the_last_steps_and_normalises_rows() {
        let old = vec![vec![vec![9.0, 0.0], vec![0.0, 0.0]]];
        let new = vec![vec![vec![1.0, 3.0], vec![0.0, 0.0]]];
        let mut state = RunState::default();
        state.policy.push(PolicyStep { step: 1, matrix: old, ..Default::default() });
        state.policy.extend((2..=11).map(|step| PolicyStep { step, matrix: new.clone(), ..Default::default() }));
        assert_eq!(state.rollout_matrix(0), Some(vec![vec![0.25, 0.75], vec![0.0, 0.0]]));
        assert_eq!(RunState::default().rollout_matrix(0), None);
    }
}
