//! How a study stands.

use crate::words::t;
use moslim_shared::study::{StudyResults, StudyRunStatus, StudyState};

/// What is known of one study.
#[derive(Debug, Default)]
pub struct StudyData {
    pub state: Option<StudyState>,
    /// Why the last look came to nothing; empty when it did not.
    pub failure: String,
    /// Why the last button came to nothing.
    pub refused: String,
    pub results: Option<StudyResults>,
    /// Why there are no results yet, though a run is finished.
    pub missing: String,
    /// Whether an answer with results is on its way.
    pub asking: bool,
    /// Whether the first run was seen to be finished just now. Its results are written a moment later.
    fresh: bool,
}

impl StudyData {
    /// Takes a new state; whether anything changed.
    pub fn learn(&mut self, state: StudyState) -> bool {
        let changed = !self.failure.is_empty() || self.state.as_ref() != Some(&state);
        let none = self.state.as_ref().is_some_and(|s| s.count(StudyRunStatus::Finished) == 0);
        self.fresh = state.active && none && state.count(StudyRunStatus::Finished) > 0;
        self.failure.clear();
        self.state = Some(state);
        changed
    }

    /// Whether all that there is to know has been heard.
    pub fn is_told(&self) -> bool {
        let without = |s: &StudyState| s.count(StudyRunStatus::Finished) == 0;
        let state = self.state.as_ref();
        !self.failure.is_empty() || state.is_some_and(|s| without(s) || self.results.is_some() || !self.missing.is_empty())
    }

    /// Whether a run is finished that the results do not contain.
    pub fn outdated(&self) -> bool {
        let finished = self.state.as_ref().map_or(0, |s| s.count(StudyRunStatus::Finished));
        !self.fresh && finished > 0 && finished != self.results.as_ref().map_or(0, |r| r.runs.len())
    }
}

/// How a study stands, in one word for people and for style classes.
pub fn standing(state: &StudyState) -> &'static str {
    let left = state.runs.iter().any(|r| matches!(r.status, StudyRunStatus::Waiting | StudyRunStatus::Running));
    if state.active {
        "running"
    } else if left {
        "stopped"
    } else if state.count(StudyRunStatus::Failed) > 0 {
        "failed"
    } else {
        "finished"
    }
}

/// Name of a setting: its label on every axis.
pub fn setting(labels: &[String]) -> String {
    if labels.is_empty() { t("base").into() } else { labels.join(" · ") }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use moslim_shared::study::StudyRunState;
    use moslim_shared::study::StudyRunStatus::{Failed, Finished, Running, Waiting};

    /// A study with runs that stand like this.
    pub fn state(active: bool, statuses: &[StudyRunStatus]) -> StudyState {
        let run = |status: &StudyRunStatus| StudyRunState {
            run: "r".into(),
            labels: vec!["a".into()],
            seed: 1,
            status: *status,
            message: String::new(),
        };
        StudyState {
            id: "s".into(),
            name: "methods".into(),
            question: String::new(),
            created: 0,
            active,
            on: Default::default(),
            runs: statuses.iter().map(run).collect(),
            seconds_left: None,
        }
    }

    #[test]
    fn a_study_stands_as_its_runs_do() {
        assert_eq!(standing(&state(true, &[Waiting])), "running");
        assert_eq!(standing(&state(false, &[Finished, Waiting])), "stopped");
        assert_eq!(standing(&state(false, &[Failed, Running])), "stopped");
        assert_eq!(standing(&state(false, &[Finished, Failed])), "failed");
        assert_eq!(standing(&state(false, &[Finished])), "finished");
    }

    #[test]
    fn results_are_asked_for_when_a_run_is_not_in_them() {
        let mut data = StudyData::default();
        assert!(!data.outdated());
        assert!(data.learn(state(true, &[Running])));
        assert!(!data.learn(state(true, &[Running])) && !data.outdated());
        assert!(data.learn(state(true, &[Finished])) && !data.outdated(), "they are being written");
        assert!(!data.learn(state(true, &[Finished])) && data.outdated());
        data.results = Some(StudyResults { runs: vec![Default::default()], ..Default::default() });
        assert!(!data.outdated());
        data.failure = "The server did not answer.".into();
        assert!(data.learn(state(true, &[Finished])) && data.failure.is_empty());
        let mut opened_later = StudyData::default();
        assert!(opened_later.learn(state(false, &[Finished])) && opened_later.outdated());
    }
}
