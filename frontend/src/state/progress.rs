//! How far the stages of a run are.

use crate::words::t;
use moslim_shared::event::Part;
use std::collections::VecDeque;

/// Progress reports that the remaining time is estimated from.
const RATE_WINDOW: usize = 20;

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
    /// Name for style and for tests; [`Self::told`] is for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Cached => "cached",
            Self::Done => "done",
        }
    }

    /// It in a word, in the reader's language.
    pub fn told(self) -> &'static str {
        match self {
            Self::Waiting => t("waiting"),
            Self::Running => t("running"),
            Self::Cached => t("cached"),
            Self::Done => t("done"),
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
    /// Which of several models is trained; none where the stage trains one.
    pub part: Option<Part>,
    /// Wall seconds of the parts before this one.
    before: f64,
    recent: VecDeque<(u64, usize)>,
}

impl StageState {
    /// The stage, or a part of it, begins (again) at step `from`.
    pub fn begin(&mut self, time: u64, part: Option<Part>, from: usize, total: usize) {
        // Each part begins and ends like a stage of its own; the page shows what they took together.
        let before = match &part {
            Some(part) if part.index > 1 => self.seconds.unwrap_or(self.before),
            _ => 0.0,
        };
        *self = Self { part, before, ..Self::default() };
        self.advance(time, from, total);
    }

    /// It is at `step`.
    pub fn advance(&mut self, time: u64, step: usize, total: usize) {
        self.phase = Phase::Running;
        self.step = step;
        self.total = total;
        self.recent.push_back((time, step));
        if self.recent.len() > RATE_WINDOW {
            self.recent.pop_front();
        }
    }

    /// It is over.
    pub fn end(&mut self, seconds: f64, cached: bool) {
        self.phase = if cached { Phase::Cached } else { Phase::Done };
        self.seconds = Some(self.before + seconds);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seconds_of_parts_add_up_and_start_anew_with_the_first() {
        let mut stage = StageState::default();
        for (index, seconds, together) in [(1, 2.0, 2.0), (2, 3.0, 5.0), (3, 1.0, 6.0), (1, 0.5, 0.5), (2, 4.0, 4.5)] {
            stage.begin(0, Some(Part { index, count: 3, name: "p".into() }), 0, 10);
            stage.end(seconds, false);
            assert_eq!(stage.seconds, Some(together), "part {index}");
        }
        stage.begin(0, None, 0, 10);
        assert_eq!((stage.phase, stage.seconds), (Phase::Running, None));
    }
}
