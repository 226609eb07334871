//! A run as its events tell it.

use crate::state::progress::{Part, StageState};
use moslim_shared::config::RunConfig;
use moslim_shared::event::{
    DeviceReport, Event, EventBody, Frame, ModelReport, Outcome, PolicyStep, RunInfo, RunStatus, Sample, Stage,
};
use moslim_shared::objective::{Objective, index_of};
use moslim_shared::summary::{ControlReport, FrontReport, KlPoint, RewardModelReport, RunSummary};

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
    /// (step, loss) by stage. That of the policy is from supervised training on tagged prompts: RiC, preference SFT.
    pub losses: [Vec<(f64, f64)>; 5],
    /// QWK per objective by step of the reward model; NaN for objectives whose model is another one.
    pub validation: Vec<(usize, Vec<f64>)>,
    /// Steps of the policy in training.
    pub policy: Vec<PolicyStep>,
    /// Which of several policies that is, from 1; 0 when there is only one.
    policy_part: usize,
    /// Steps of the policy before: a run that is resumed passes the finished policies before it comes back to this one.
    aside: Option<(usize, Vec<PolicyStep>)>,
    /// Reward against KL.
    pub frontier: Vec<KlPoint>,
    /// The newest samples and their step.
    pub samples: Option<(usize, Vec<Sample>)>,
    pub controls: Vec<Control>,
    pub front: Option<FrontReport>,
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
            EventBody::Part { stage, index, count, name } => {
                if stage == Stage::Policy {
                    self.turn_to_policy(index);
                }
                self.stages[stage as usize].part = Some(Part { index, count, name });
                self.touch_all();
            }
            EventBody::StageEnded { stage, seconds, cached } => {
                self.stages[stage as usize].end(seconds, cached);
                self.touch(Topic::Head);
            }
            EventBody::Loss { stage, step, total, loss, .. } => {
                self.stages[stage as usize].advance(time, step, total);
                let curve = &mut self.losses[stage as usize];
                cut(curve, step, |p| p.0 as usize);
                curve.push((step as f64, loss));
                self.touch(Topic::Loss);
                self.touch(Topic::Head);
            }
            EventBody::Validation { step, qwk } => {
                let row = match self.own_objective() {
                    Some(own) => {
                        let value = qwk.first().copied().unwrap_or(f64::NAN);
                        (0..self.objectives.len()).map(|i| if i == own { value } else { f64::NAN }).collect()
                    }
                    None => qwk,
                };
                self.validation.push((step, row));
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
                cut(&mut self.policy, step.step, |p| p.step);
                self.policy.push(step);
                self.touch(Topic::Policy);
                self.touch(Topic::Control);
                self.touch(Topic::Head);
            }
            EventBody::KlFrontier { point } => {
                cut(&mut self.frontier, point.step, |p| p.step);
                self.frontier.push(point);
                self.touch(Topic::Policy);
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
            EventBody::Front { report } => {
                self.front = Some(report);
                self.touch(Topic::Summary);
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
        // Preference SFT and the optimisation after it are both reported as this stage: neither voids what the other said.
        let two = stage == Stage::Policy && self.config.as_ref().is_some_and(|c| c.method.preference_sft > 0);
        if !two {
            self.losses[stage as usize].retain(|p| p.0 <= from as f64);
        }
        match stage {
            Stage::RewardModel => {
                let own = self.own_objective();
                let elsewhere = |qwk: &[f64]| own.is_some_and(|i| qwk.get(i).is_some_and(|v| v.is_nan()));
                self.validation.retain(|(step, qwk)| *step <= from || elsewhere(qwk));
            }
            Stage::Policy => {
                if !two {
                    self.policy.retain(|p| p.step <= from);
                    self.frontier.retain(|p| p.step <= from);
                }
                if self.samples.as_ref().is_some_and(|s| s.0 > from) {
                    self.samples = None;
                }
                self.controls.retain(|c| c.policy != "policy");
                self.front = None;
            }
            Stage::Evaluation => {
                self.controls.clear();
                self.front = None;
            }
            Stage::Sft | Stage::Calibration => {}
        }
        for later in Stage::ALL.into_iter().filter(|&s| s > stage) {
            self.stages[later as usize] = StageState::default();
        }
        self.stages[stage as usize].begin(time, from, total);
        self.touch_all();
    }

    /// The curves are those of one policy: another one begins its own, and one that was put aside finds its own again.
    fn turn_to_policy(&mut self, index: usize) {
        if index == self.policy_part {
            return;
        }
        let steps = std::mem::take(&mut self.policy);
        let (left, kept) = (self.policy_part, self.aside.take());
        self.policy_part = index;
        self.samples = None;
        match kept {
            Some((part, steps)) if part == index => self.policy = steps,
            kept => self.aside = kept,
        }
        if !steps.is_empty() {
            self.aside = Some((left, steps));
        }
    }

    /// The objective that the reward model in training has to itself, where each has a model of its own.
    fn own_objective(&self) -> Option<usize> {
        let part = self.stages[Stage::RewardModel as usize].part.as_ref()?;
        index_of(&self.objectives, &part.name)
    }
}

/// Drops the end of a curve, from `step` on: it is reported again.
fn cut<T>(curve: &mut Vec<T>, step: usize, of: fn(&T) -> usize) {
    while curve.last().is_some_and(|p| of(p) >= step) {
        curve.pop();
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

    fn part(stage: Stage, index: usize, name: &str) -> EventBody {
        EventBody::Part { stage, index, count: 2, name: name.into() }
    }

    fn began(stage: Stage, from: usize) -> EventBody {
        EventBody::StageBegan { stage, from, total: 10 }
    }

    fn loss(stage: Stage, step: usize) -> EventBody {
        EventBody::Loss { stage, step, total: 10, loss: step as f64, rate: 1.0 }
    }

    #[test]
    fn another_policy_begins_new_curves_and_one_that_is_resumed_finds_its_own() {
        let steps = |s: &RunState| s.policy.iter().map(|p| p.step).collect::<Vec<_>>();
        let samples = |step| EventBody::Samples { step, samples: vec![] };
        let ended = EventBody::StageEnded { stage: Stage::Policy, seconds: 2.0, cached: true };
        let mut bodies = vec![part(Stage::Policy, 1, "a"), began(Stage::Policy, 0), policy(1, vec![]), samples(1), ended.clone()];
        bodies.extend([part(Stage::Policy, 2, "b"), began(Stage::Policy, 0)]);
        let state = folded(bodies.clone());
        assert_eq!((steps(&state), state.samples.is_none()), (vec![], true));
        assert_eq!(state.stages[Stage::Policy as usize].part, Some(Part { index: 2, count: 2, name: "b".into() }));

        bodies.extend([policy(1, vec![]), policy(2, vec![]), policy(3, vec![])]);
        // Resumed: earlier stages come from the cache, and so does the first policy.
        bodies.extend([began(Stage::Sft, 0), part(Stage::Policy, 1, "a"), began(Stage::Policy, 0), ended]);
        assert_eq!(steps(&folded(bodies.clone())), Vec::<usize>::new());
        bodies.extend([part(Stage::Policy, 2, "b"), began(Stage::Policy, 2), policy(3, vec![])]);
        assert_eq!(steps(&folded(bodies)), [1, 2, 3]);
    }

    #[test]
    fn every_objective_keeps_the_curve_of_its_own_reward_model() {
        let check = |step, qwk| EventBody::Validation { step, qwk: vec![qwk] };
        let objectives = ["a", "b"].map(|id| Objective::new(id, id, "", &["0", "1"])).to_vec();
        let mut state = RunState { objectives, ..Default::default() };
        let mut bodies = vec![part(Stage::RewardModel, 1, "a"), began(Stage::RewardModel, 0), check(5, 0.1), check(9, 0.2)];
        bodies.extend([part(Stage::RewardModel, 2, "b"), began(Stage::RewardModel, 0), check(5, 0.3)]);
        state.receive(Frame::Events { events: events(bodies) });
        let curve = |i: usize| -> Vec<f64> { state.validation.iter().map(|v| v.1[i]).filter(|q| q.is_finite()).collect() };
        assert_eq!((curve(0), curve(1)), (vec![0.1, 0.2], vec![0.3]));
    }

    #[test]
    fn supervised_training_of_a_policy_has_a_loss_curve() {
        let stage = Stage::Policy;
        let steps = |s: &RunState| s.losses[stage as usize].iter().map(|p| p.0 as usize).collect::<Vec<_>>();
        let mut bodies = vec![began(stage, 0), loss(stage, 4), loss(stage, 8), began(stage, 6)];
        assert_eq!(steps(&folded(bodies.clone())), [4]);
        bodies.push(loss(stage, 8));
        assert_eq!(steps(&folded(bodies)), [4, 8]);

        // Preference SFT keeps its curve when the optimisation after it begins, and the optimisation keeps its own when a run
        // that is resumed trains the one before it again.
        let mut state = RunState::default();
        let mut config = RunConfig::default();
        config.method.preference_sft = 10;
        state.config = Some(config);
        let again = [began(stage, 0), loss(stage, 5), began(stage, 1), policy(2, vec![])];
        let mut bodies = vec![began(stage, 0), loss(stage, 5), began(stage, 0), policy(1, vec![]), policy(2, vec![])];
        bodies.extend(again);
        state.receive(Frame::Events { events: events(bodies) });
        assert_eq!(steps(&state), [5]);
        assert_eq!(state.policy.iter().map(|p| p.step).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn the_frontier_grows_with_the_steps_and_the_front_is_that_of_the_last_evaluation() {
        let point = |step, kl| EventBody::KlFrontier { point: KlPoint { step, kl, ..Default::default() } };
        let mut bodies = vec![began(Stage::Policy, 0), point(1, 0.5), point(5, 2.0), began(Stage::Policy, 3), point(5, 3.0)];
        let state = folded(bodies.clone());
        assert_eq!(state.frontier.iter().map(|p| (p.step, p.kl)).collect::<Vec<_>>(), [(1, 0.5), (5, 3.0)]);
        bodies.extend([began(Stage::Evaluation, 0), EventBody::Front { report: FrontReport::default() }]);
        assert!(folded(bodies.clone()).front.is_some());
        bodies.push(began(Stage::Evaluation, 0));
        assert_eq!(folded(bodies).front, None);
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
