//! What the page knows of a run: a fold over its events, free of the browser.

use moslim_shared::config::RunConfig;
use moslim_shared::event::{
    DeviceReport, Event, EventBody, Frame, ModelReport, Outcome, PolicyStep, RunInfo, RunStatus, Sample, Stage,
};
use moslim_shared::objective::Objective;
use moslim_shared::summary::{ControlReport, RewardModelReport, RunSummary};
use std::collections::VecDeque;

/// Steps of policy optimisation that the live control matrix sums over.
pub const MATRIX_WINDOW: usize = 10;
/// Progress reports that the remaining time is estimated from.
const RATE_WINDOW: usize = 20;

/// Parts of the page that change together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Header, stages, notes, banner.
    Head,
    Loss,
    Validation,
    Policy,
    Samples,
    Control,
    Reward,
    Summary,
}

const TOPICS: usize = 8;

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    #[default]
    Waiting,
    Running,
    Cached,
    Done,
}

impl Phase {
    /// Name for people and for tests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Cached => "cached",
            Self::Done => "done",
        }
    }
}

/// Progress of one stage.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StageState {
    pub phase: Phase,
    pub step: usize,
    pub total: usize,
    /// Wall seconds, once it is over.
    pub seconds: Option<f64>,
    recent: VecDeque<(u64, usize)>,
}

impl StageState {
    fn advance(&mut self, time: u64, step: usize, total: usize) {
        self.phase = Phase::Running;
        self.step = step;
        self.total = total;
        self.recent.push_back((time, step));
        if self.recent.len() > RATE_WINDOW {
            self.recent.pop_front();
        }
    }

    /// Seconds left at the recent rate; unknown before two reports.
    pub fn remaining(&self) -> Option<f64> {
        let (&(t0, s0), &(t1, s1)) = (self.recent.front()?, self.recent.back()?);
        if self.phase != Phase::Running || s1 <= s0 || t1 <= t0 {
            return None;
        }
        let per_step = (t1 - t0) as f64 / 1000.0 / (s1 - s0) as f64;
        Some(per_step * self.total.saturating_sub(self.step) as f64)
    }
}

/// Statistics and temperatures, frozen under a hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibrated {
    pub temperatures: Vec<f64>,
    pub hash: String,
}

/// Control by one policy as seen by one judge.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    pub policy: String,
    pub judge: String,
    pub report: ControlReport,
}

/// Everything a page needs to draw a run.
#[derive(Debug, Default)]
pub struct RunState {
    info: Option<RunInfo>,
    last_seq: u64,
    revisions: [u64; TOPICS],
    pub objectives: Vec<Objective>,
    pub config: Option<RunConfig>,
    pub device: Option<DeviceReport>,
    pub model: Option<ModelReport>,
    pub stages: [StageState; 5],
    /// (step, loss) of SFT and of the reward model.
    pub losses: [Vec<(f64, f64)>; 2],
    /// QWK per objective by step of the reward model.
    pub validation: Vec<(usize, Vec<f64>)>,
    pub policy: Vec<PolicyStep>,
    /// The newest samples and their step.
    pub samples: Option<(usize, Vec<Sample>)>,
    pub controls: Vec<Control>,
    pub reward_model: Option<RewardModelReport>,
    pub calibrated: Option<Calibrated>,
    pub checkpoint: Option<(Stage, usize)>,
    pub notes: Vec<String>,
    pub ended: Option<(Outcome, String)>,
    pub summary: Option<RunSummary>,
    /// What the server refused or could not do.
    pub error: Option<String>,
}

impl RunState {
    /// The run as the server lists it.
    pub fn info(&self) -> Option<&RunInfo> {
        self.info.as_ref()
    }

    /// Sequence number of the last event that was folded in.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Grows when what `topic` shows has changed.
    pub fn revision(&self, topic: Topic) -> u64 {
        self.revisions[topic as usize]
    }

    /// Folds in what the server sent.
    pub fn receive(&mut self, frame: Frame) {
        match frame {
            Frame::Snapshot { info } => {
                if info.last_seq < self.last_seq {
                    // The server knows less than this page did: its store was replaced.
                    let revisions = self.revisions;
                    *self = Self { revisions: revisions.map(|r| r + 1), ..Self::default() };
                }
                self.error = None;
                self.set_info(info);
            }
            Frame::Info { info } => self.set_info(info),
            Frame::Events { events } => events.into_iter().for_each(|e| self.apply(e)),
            Frame::Error { message } => {
                self.error = Some(message);
                self.touch(Topic::Head);
            }
        }
    }

    fn set_info(&mut self, info: RunInfo) {
        if self.config.is_none() {
            self.config = Some(info.config.clone());
        }
        if info.summary.is_some() && self.summary != info.summary {
            self.summary.clone_from(&info.summary);
            self.touch(Topic::Summary);
        }
        self.info = Some(info);
        self.touch(Topic::Head);
    }

    fn touch(&mut self, topic: Topic) {
        self.revisions[topic as usize] += 1;
    }

    fn touch_all(&mut self) {
        self.revisions.iter_mut().for_each(|r| *r += 1);
    }

    fn set_status(&mut self, status: RunStatus, message: &str) {
        if let Some(info) = &mut self.info {
            info.status = status;
            info.message = message.to_string();
        }
    }

    /// Folds in one event; one that was seen before changes nothing.
    pub fn apply(&mut self, event: Event) {
        if event.seq <= self.last_seq {
            return;
        }
        self.last_seq = event.seq;
        let time = event.time;
        match event.body {
            EventBody::Started { config, device, objectives, .. } => {
                self.config = Some(config);
                self.device = Some(device);
                self.objectives = objectives;
                self.ended = None;
                self.set_status(RunStatus::Running, "");
                self.touch_all();
            }
            EventBody::Model { model } => {
                self.model = Some(model);
                self.touch(Topic::Head);
            }
            EventBody::StageBegan { stage, from, total } => self.stage_began(time, stage, from, total),
            EventBody::StageEnded { stage, seconds, cached } => {
                let state = &mut self.stages[stage as usize];
                state.phase = if cached { Phase::Cached } else { Phase::Done };
                state.seconds = Some(seconds);
                self.touch(Topic::Head);
            }
            EventBody::Loss { stage, step, total, loss, .. } => {
                self.stages[stage as usize].advance(time, step, total);
                if let Some(curve) = self.losses.get_mut(stage as usize) {
                    curve.push((step as f64, loss));
                }
                self.touch(Topic::Loss);
                self.touch(Topic::Head);
            }
            EventBody::Validation { step, qwk } => {
                self.validation.push((step, qwk));
                self.touch(Topic::Validation);
            }
            EventBody::RewardModel { report } => {
                self.reward_model = Some(report);
                self.touch(Topic::Reward);
            }
            EventBody::Calibrated { temperatures, hash, .. } => {
                self.calibrated = Some(Calibrated { temperatures, hash });
                self.touch(Topic::Reward);
            }
            EventBody::Policy { total, step } => {
                self.stages[Stage::Policy as usize].advance(time, step.step, total);
                self.policy.push(step);
                self.touch(Topic::Policy);
                self.touch(Topic::Control);
                self.touch(Topic::Head);
            }
            EventBody::Samples { step, samples } => {
                self.samples = Some((step, samples));
                self.touch(Topic::Samples);
            }
            EventBody::Checkpoint { stage, step } => {
                self.checkpoint = Some((stage, step));
                self.touch(Topic::Head);
            }
            EventBody::Evaluating { done, total } => {
                self.stages[Stage::Evaluation as usize].advance(time, done, total);
                self.touch(Topic::Head);
            }
            EventBody::Control { policy, judge, report } => {
                self.controls.retain(|c| c.policy != policy || c.judge != judge);
                self.controls.push(Control { policy, judge, report });
                self.touch(Topic::Control);
            }
            EventBody::Summary { summary } => {
                self.summary = Some(summary);
                self.touch(Topic::Summary);
            }
            EventBody::Note { text } => {
                self.notes.push(text);
                self.touch(Topic::Head);
            }
            EventBody::Ended { outcome, message } => {
                self.set_status(outcome.into(), &message);
                self.ended = Some((outcome, message));
                self.touch(Topic::Head);
            }
        }
    }

    /// Points of the stage after `from` are void: the run was resumed from a checkpoint made there.
    fn stage_began(&mut self, time: u64, stage: Stage, from: usize, total: usize) {
        match stage {
            Stage::Sft | Stage::RewardModel => {
                if let Some(curve) = self.losses.get_mut(stage as usize) {
                    curve.retain(|p| p.0 <= from as f64);
                }
                if stage == Stage::RewardModel {
                    self.validation.retain(|v| v.0 <= from);
                }
            }
            Stage::Policy => {
                self.policy.retain(|p| p.step <= from);
                if self.samples.as_ref().is_some_and(|s| s.0 > from) {
                    self.samples = None;
                }
                self.controls.retain(|c| c.policy != "policy");
            }
            Stage::Evaluation => self.controls.clear(),
            Stage::Calibration => {}
        }
        for later in Stage::ALL.into_iter().filter(|&s| s > stage) {
            self.stages[later as usize] = StageState::default();
        }
        let mut state = StageState::default();
        state.advance(time, from, total);
        self.stages[stage as usize] = state;
        self.touch_all();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn events(bodies: Vec<EventBody>) -> Vec<Event> {
        bodies.into_iter().zip(1..).map(|(body, seq)| Event { seq, time: seq * 1000, body }).collect()
    }

    fn folded(bodies: Vec<EventBody>) -> RunState {
        let mut state = RunState::default();
        state.receive(Frame::Events { events: events(bodies) });
        state
    }

    fn policy(step: usize, matrix: Vec<Vec<Vec<f64>>>) -> EventBody {
        EventBody::Policy { total: 10, step: PolicyStep { step, matrix, ..Default::default() } }
    }

    fn info(last_seq: u64) -> RunInfo {
        RunInfo {
            id: "r".into(),
            name: String::new(),
            preset: "smoke".into(),
            seed: 1,
            status: RunStatus::Running,
            created: 0,
            last_seq,
            message: String::new(),
            config: RunConfig::default(),
            summary: None,
        }
    }

    #[test]
    fn an_event_seen_twice_counts_once() {
        let list = events(vec![policy(1, vec![]), policy(2, vec![])]);
        let mut state = RunState::default();
        state.receive(Frame::Events { events: list.clone() });
        state.receive(Frame::Events { events: list });
        assert_eq!(state.policy.len(), 2);
        assert_eq!(state.last_seq(), 2);
    }

    #[test]
    fn a_resumed_stage_voids_what_came_after_its_checkpoint() {
        let state = folded(vec![
            EventBody::StageBegan { stage: Stage::Policy, from: 0, total: 10 },
            policy(1, vec![]),
            policy(2, vec![]),
            policy(3, vec![]),
            EventBody::Samples { step: 3, samples: vec![] },
            EventBody::StageBegan { stage: Stage::Policy, from: 2, total: 10 },
            policy(3, vec![]),
        ]);
        assert_eq!(state.policy.iter().map(|p| p.step).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(state.samples, None);
        assert_eq!(state.stages[Stage::Policy as usize].step, 3);
    }

    #[test]
    fn the_time_left_follows_the_recent_rate() {
        let state = folded(vec![
            EventBody::StageBegan { stage: Stage::Policy, from: 0, total: 10 },
            policy(1, vec![]),
            policy(2, vec![]),
        ]);
        assert_eq!(state.stages[Stage::Policy as usize].remaining(), Some(8.0));
        assert_eq!(state.stages[Stage::Sft as usize].remaining(), None);
    }

    #[test]
    fn the_live_matrix_sums_the_last_steps_and_normalises_rows() {
        let old = vec![vec![vec![9.0, 0.0], vec![0.0, 0.0]]];
        let new = vec![vec![vec![1.0, 3.0], vec![0.0, 0.0]]];
        let mut bodies = vec![policy(1, old)];
        bodies.extend((2..=11).map(|s| policy(s, new.clone())));
        assert_eq!(folded(bodies).rollout_matrix(0), Some(vec![vec![0.25, 0.75], vec![0.0, 0.0]]));
        assert_eq!(RunState::default().rollout_matrix(0), None);
    }

    #[test]
    fn a_snapshot_from_an_older_store_starts_afresh() {
        let mut state = folded(vec![policy(1, vec![]), policy(2, vec![])]);
        let before = state.revision(Topic::Policy);
        state.receive(Frame::Snapshot { info: info(1) });
        assert!(state.policy.is_empty());
        assert_eq!(state.last_seq(), 0);
        assert!(state.revision(Topic::Policy) > before);
        state.receive(Frame::Snapshot { info: info(5) });
        assert_eq!(state.last_seq(), 0);
    }

    #[test]
    fn only_the_topic_that_changed_moves() {
        let mut state = folded(vec![policy(1, vec![])]);
        let (policy, loss) = (state.revision(Topic::Policy), state.revision(Topic::Loss));
        let body = EventBody::Loss { stage: Stage::Sft, step: 1, total: 2, loss: 3.0, rate: 1.0 };
        state.apply(Event { seq: 2, time: 0, body });
        assert_eq!(state.revision(Topic::Policy), policy);
        assert_eq!(state.revision(Topic::Loss), loss + 1);
        assert_eq!(state.losses[0], [(1.0, 3.0)]);
    }

    #[test]
    fn the_end_of_a_run_shows_in_its_status() {
        let mut state = RunState::default();
        state.receive(Frame::Snapshot { info: info(1) });
        let body = EventBody::Ended { outcome: Outcome::Failed, message: "out of memory".into() };
        state.apply(Event { seq: 1, time: 0, body });
        assert_eq!(state.info().map(|i| (i.status, i.message.clone())), Some((RunStatus::Failed, "out of memory".into())));
    }
}
