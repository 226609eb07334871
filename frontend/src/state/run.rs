//! A run as its events tell it.

use crate::state::progress::StageState;
use moslim_shared::config::RunConfig;
use moslim_shared::event::{
    DeviceReport, Event, EventBody, Frame, ModelReport, Outcome, Part, PolicyStep, RunInfo, RunStatus, Sample, Stage,
};
use moslim_shared::objective::Objective;
use moslim_shared::summary::{Answerer, ControlReport, FrontReport, FrontSeen, Grader, KlPoint, RewardModelReport, RunSummary};
use std::collections::BTreeMap;

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
    /// What was measured at the end, and what was set: nothing of it changes while a policy is optimised.
    Measured,
}

const TOPICS: usize = 9;

/// Sets of samples that are kept; of more, every second goes.
const MOST_PAST: usize = 120;

/// Statistics and temperatures, frozen under a hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibrated {
    pub temperatures: Vec<f64>,
    pub hash: String,
}

/// Control by one policy as seen by one grader.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    pub policy: Answerer,
    pub grader: Grader,
    pub report: ControlReport,
}

/// Everything a page needs to draw a run.
#[derive(Debug, Default)]
pub struct RunState {
    info: Option<RunInfo>,
    last_seq: u64,
    revisions: [u64; TOPICS],
    voided: u64,
    pub objectives: Vec<Objective>,
    pub config: Option<RunConfig>,
    pub device: Option<DeviceReport>,
    pub model: Option<ModelReport>,
    pub stages: [StageState; Stage::ALL.len()],
    /// (step, loss) of every model and policy: by stage, and by part of it from 1, 0 where it has none.
    pub losses: BTreeMap<(Stage, usize), Vec<(f64, f64)>>,
    /// (step, QWK) of every head: by stage (a reward model, or the held-out one) and objective.
    pub validation: BTreeMap<(Stage, usize), Vec<(f64, f64)>>,
    /// Steps of every policy: by part of the stage from 1, 0 where there is only one.
    pub policies: BTreeMap<usize, Vec<PolicyStep>>,
    /// Which of them trains, or did last.
    pub current: usize,
    /// Reward against KL.
    pub frontier: Vec<KlPoint>,
    /// Fronts of the (last) policy on the way, as the reward model saw them.
    pub fronts_seen: Vec<FrontSeen>,
    /// The newest samples and their step.
    pub samples: Option<(usize, Vec<Sample>)>,
    /// Samples of earlier steps, a few over the whole run.
    pub past: Vec<(usize, Vec<Sample>)>,
    pub controls: Vec<Control>,
    pub front: Option<FrontReport>,
    pub reward_model: Option<RewardModelReport>,
    pub calibrated: Option<Calibrated>,
    pub checkpoint: Option<(Stage, usize)>,
    pub notes: Vec<String>,
    pub ended: Option<(Outcome, String)>,
    pub summary: Option<Box<RunSummary>>,
    /// What the server refused or could not do.
    pub error: Option<String>,
}

impl RunState {
    /// The run as the server lists it.
    pub fn info(&self) -> Option<&RunInfo> {
        self.info.as_ref()
    }

    /// What it reaches over its trade-offs, once that is measured. Runs without a front, and those from before there was one, report no
    /// points.
    pub fn trade_offs(&self) -> Option<&FrontReport> {
        self.front.as_ref().or(self.summary.as_ref().map(|s| &s.front)).filter(|front| !front.points.is_empty())
    }

    /// Sequence number of the last event that was folded in.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Whether all that was there when one began to listen has been heard.
    pub fn is_told(&self) -> bool {
        self.error.is_some() || self.info().is_some_and(|i| self.ended.is_some() || self.last_seq >= i.last_seq)
    }

    /// Grows when what `topic` shows has changed.
    pub fn revision(&self, topic: Topic) -> u64 {
        self.revisions[topic as usize]
    }

    /// Grows when steps of the policy that were told are void, or those of another one are told: else they are never changed.
    pub fn voided(&self) -> u64 {
        self.voided
    }

    /// Folds in what the server sent.
    pub fn receive(&mut self, frame: Frame) {
        match frame {
            Frame::Snapshot { info } => {
                if info.last_seq < self.last_seq {
                    // The server knows less than this page did: its store was replaced.
                    let revisions = self.revisions.map(|r| r + 1);
                    *self = Self { revisions, voided: self.voided + 1, ..Self::default() };
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
            // It is for whoever shows the list.
            Frame::Changed(_) => {}
        }
    }

    fn set_info(&mut self, info: RunInfo) {
        if self.config.is_none() {
            self.config = Some(info.config.clone());
            self.touch(Topic::Measured);
        }
        if info.summary.is_some() && self.summary != info.summary {
            self.summary.clone_from(&info.summary);
            self.touch(Topic::Summary);
            self.touch(Topic::Measured);
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
            EventBody::StageBegan { stage, part, from, total } => self.stage_began(time, stage, part, from, total),
            EventBody::StageEnded { stage, seconds, cached, .. } => {
                self.stages[stage as usize].end(seconds, cached);
                self.touch(Topic::Head);
            }
            EventBody::Loss { stage, part, step, total, loss, .. } => {
                self.stages[stage as usize].advance(time, step, total);
                let curve = self.losses.entry((stage, number(part.as_ref()))).or_default();
                cut(curve, step, |p| p.0 as usize);
                curve.push((step as f64, loss));
                self.touch(Topic::Loss);
                self.touch(Topic::Head);
            }
            EventBody::Validation { stage, step, objectives, qwk, .. } => {
                let heads = if objectives.is_empty() { (0..qwk.len()).collect() } else { objectives };
                for (objective, value) in heads.into_iter().zip(qwk) {
                    let curve = self.validation.entry((stage, objective)).or_default();
                    cut(curve, step, |p| p.0 as usize);
                    curve.push((step as f64, value));
                }
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
            EventBody::Policy { part, total, step } => {
                self.stages[Stage::Policy as usize].advance(time, step.step, total);
                let own = number(part.as_ref());
                let curve = self.policies.entry(own).or_default();
                let known = curve.len();
                cut(curve, step.step, |p| p.step);
                if self.current != own || curve.len() < known {
                    self.voided += 1;
                }
                self.current = own;
                curve.push(step);
                self.touch(Topic::Policy);
                self.touch(Topic::Control);
                self.touch(Topic::Head);
            }
            EventBody::KlFrontier { point, .. } => {
                cut(&mut self.frontier, point.step, |p| p.step);
                self.frontier.push(point);
                self.touch(Topic::Policy);
            }
            EventBody::FrontSeen { front, .. } => {
                cut(&mut self.fronts_seen, front.step, |f| f.step);
                self.fronts_seen.push(front);
                self.touch(Topic::Policy);
            }
            EventBody::Samples { step, samples, .. } => {
                cut(&mut self.past, step, |p| p.0);
                if self.past.len() >= MOST_PAST {
                    let mut n = 0;
                    self.past.retain(|_| (n % 2 == 0, n += 1).0);
                }
                self.past.push((step, samples.clone()));
                self.samples = Some((step, samples));
                self.touch(Topic::Samples);
            }
            EventBody::Checkpoint { stage, step, .. } => {
                self.checkpoint = Some((stage, step));
                self.touch(Topic::Head);
            }
            // What can be asked is said by lists.
            EventBody::Milestone { .. } => {}
            EventBody::Answering { done, total } => {
                self.stages[Stage::Answers as usize].advance(time, done, total);
                self.touch(Topic::Head);
            }
            EventBody::Evaluating { done, total } => {
                self.stages[Stage::Evaluation as usize].advance(time, done, total);
                self.touch(Topic::Head);
            }
            EventBody::Control { policy, grader, report } => {
                self.controls.retain(|c| c.policy != policy || c.grader != grader);
                self.controls.push(Control { policy, grader, report });
                self.touch(Topic::Control);
                self.touch(Topic::Measured);
            }
            EventBody::Front { report } => {
                self.front = Some(report);
                self.touch(Topic::Summary);
                self.touch(Topic::Measured);
            }
            EventBody::Summary { summary } => {
                self.summary = Some(Box::new(summary));
                self.touch(Topic::Summary);
                self.touch(Topic::Measured);
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

    /// Points of a stage's part after `from` are void: the run was resumed from a checkpoint made there.
    fn stage_began(&mut self, time: u64, stage: Stage, part: Option<Part>, from: usize, total: usize) {
        let own = number(part.as_ref());
        if let Some(curve) = self.losses.get_mut(&(stage, own)) {
            cut(curve, from + 1, |p| p.0 as usize);
        }
        let named = part.as_ref().and_then(|p| self.objectives.iter().position(|o| o.id == p.name));
        for (_, curve) in self.validation.iter_mut().filter(|((s, o), _)| *s == stage && named.is_none_or(|own| own == *o)) {
            cut(curve, from + 1, |p| p.0 as usize);
        }
        match stage {
            Stage::Policy => {
                self.current = own;
                self.voided += 1;
                cut(self.policies.entry(own).or_default(), from + 1, |p| p.step);
                cut(&mut self.frontier, from + 1, |p| p.step);
                cut(&mut self.fronts_seen, from + 1, |f| f.step);
                cut(&mut self.past, from + 1, |p| p.0);
                if own > 1 && from == 0 || self.samples.as_ref().is_some_and(|s| s.0 > from) {
                    self.samples = None;
                }
                self.controls.retain(|c| c.policy != Answerer::Policy);
                self.front = None;
            }
            Stage::Evaluation => {
                self.controls.clear();
                self.front = None;
            }
            _ => {}
        }
        for later in Stage::ALL.into_iter().filter(|&s| s > stage) {
            self.stages[later as usize] = StageState::default();
        }
        self.stages[stage as usize].begin(time, part, from, total);
        self.touch_all();
    }
}

/// The number of a part; 0 where a stage has none.
fn number(part: Option<&Part>) -> usize {
    part.map_or(0, |p| p.index)
}

/// Drops the end of a curve, from `step` on: it is reported again.
fn cut<T>(curve: &mut Vec<T>, step: usize, of: fn(&T) -> usize) {
    while curve.last().is_some_and(|p| of(p) >= step) {
        curve.pop();
    }
}

#[cfg(test)]
mod tests;
