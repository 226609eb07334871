//! What is read off a run: questions that views ask.

use crate::state::progress::Phase;
use crate::state::run::RunState;
use moslim_shared::config::{KlPlacement, PolicyOptimizer};
use moslim_shared::event::{PolicyStep, Stage};
use moslim_shared::method::Method;
use moslim_shared::summary::{Answerer, ControlReport, Grader};

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

    /// Where their KL penalty is.
    pub fn kl_placement(&self) -> KlPlacement {
        self.config.as_ref().map(|c| c.policy.kl_placement()).unwrap_or(self.optimizer().kl_placement())
    }

    /// Whether its policies are optimised by sampling; else they are trained on given answers, or not at all.
    pub fn optimises(&self) -> bool {
        self.method().optimises()
    }

    /// Whether what a prompt asks for decides the reward.
    pub fn asks(&self) -> bool {
        self.method() == Method::Moslim
    }

    /// Control by `policy` as seen by `grader`.
    pub fn control(&self, policy: Answerer, grader: Grader) -> Option<&ControlReport> {
        self.controls.iter().find(|c| c.policy == policy && c.grader == grader).map(|c| &c.report)
    }

    /// Who graded the evaluation, besides the reward model that was optimised for: the gold grader where the task has one.
    pub fn grader(&self) -> Grader {
        let held_out = self.controls.iter().any(|c| c.grader == Grader::HeldOutRewardModel);
        if held_out { Grader::HeldOutRewardModel } else { Grader::Gold }
    }

    /// Control by what the run has trained, as seen by [`Self::grader`]; once it is evaluated.
    pub fn measured(&self) -> Option<&ControlReport> {
        self.control(Answerer::Policy, self.grader())
    }

    /// Steps of the policy in training.
    pub fn policy(&self) -> &[PolicyStep] {
        self.policies.get(&self.current).map_or(&[], Vec::as_slice)
    }

    /// Of a long run every so many steps of the policy are known: how many, where that is not 1. The first is always known, and the newest are.
    pub fn thinned(&self) -> Option<usize> {
        let apart = self.policy().get(1..)?.windows(2).map(|pair| pair[1].step.saturating_sub(pair[0].step)).max()?;
        (apart > 1).then_some(apart)
    }

    /// The stages that the run has, in order.
    pub fn stage_list(&self) -> Vec<Stage> {
        let planned = self.config.as_ref().map_or_else(|| Stage::of(&Default::default()), Stage::of);
        let begun = |s: &Stage| self.stages[*s as usize].phase != Phase::Waiting;
        Stage::ALL.into_iter().filter(|s| planned.contains(s) || begun(s)).collect()
    }

    /// (step, loss) of a stage: a name and a curve for each of its parts.
    pub fn loss_curves(&self, stage: Stage) -> Vec<(usize, &[(f64, f64)])> {
        self.losses
            .iter()
            .filter(|((s, _), curve)| *s == stage && !curve.is_empty())
            .map(|((_, n), c)| (*n, c.as_slice()))
            .collect()
    }

    /// Asked x achieved on the answers of the last ten steps, each row a share; rows with no answer are all zero.
    pub fn rollout_matrix(&self, objective: usize) -> Option<Vec<Vec<f64>>> {
        matrix_of(recent(self.policy()), objective)
    }

    /// KL coefficient of a policy step.
    pub fn kl_coefficient(&self, step: usize) -> Option<f64> {
        self.policy().iter().rev().find(|p| p.step == step).map(|p| p.kl_coefficient)
    }
}

/// The last ten steps, or those of them that are known.
pub(super) fn recent(steps: &[PolicyStep]) -> &[PolicyStep] {
    let last = steps.last().map_or(0, |p| p.step);
    &steps[steps.partition_point(|p| p.step + MATRIX_WINDOW <= last)..]
}

/// Asked x achieved over some steps, each row a share.
pub(super) fn matrix_of(steps: &[PolicyStep], objective: usize) -> Option<Vec<Vec<f64>>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_live_matrix_sums_the_last_steps_and_normalises_rows() {
        let old = vec![vec![vec![9.0, 0.0], vec![0.0, 0.0]]];
        let new = vec![vec![vec![1.0, 3.0], vec![0.0, 0.0]]];
        let mut state = RunState::default();
        state.policies.entry(0).or_default().push(PolicyStep { step: 1, matrix: old, ..Default::default() });
        state.policies.entry(0).or_default().extend((2..=11).map(|step| PolicyStep {
            step,
            matrix: new.clone(),
            ..Default::default()
        }));
        assert_eq!(state.rollout_matrix(0), Some(vec![vec![0.25, 0.75], vec![0.0, 0.0]]));
        assert_eq!(RunState::default().rollout_matrix(0), None);
    }

    #[test]
    fn that_not_every_step_is_known_is_seen_by_their_numbers() {
        let thinned = |steps: &[usize]| {
            let steps = steps.iter().map(|&step| PolicyStep { step, ..Default::default() });
            let mut state = RunState::default();
            state.policies.insert(0, steps.collect());
            state.thinned()
        };
        assert_eq!(
            [&[][..], &[1, 2], &[1, 2, 3], &[1, 8, 16], &[1, 2, 3, 4, 8, 9]].map(thinned),
            [None, None, None, Some(8), Some(4)]
        );
        // Nor are ten steps of a thinned run the last ten.
        let steps: Vec<PolicyStep> = [1, 64, 128, 190, 191].map(|step| PolicyStep { step, ..Default::default() }).into();
        assert_eq!(recent(&steps).iter().map(|p| p.step).collect::<Vec<_>>(), [190, 191]);
        assert!(recent(&steps[..3]).len() == 1 && recent(&[]).is_empty());
    }
}
