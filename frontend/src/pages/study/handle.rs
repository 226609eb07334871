//! A study as its page follows it: what is asked of the server, and when.

use crate::api;
use crate::parts::memo::memo;
use crate::state::study::StudyData;
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::study::{StudyResults, StudyState};

/// What the page knows of one study.
#[derive(Clone, Copy)]
pub struct Study {
    id: StoredValue<String>,
    data: RwSignal<StudyData>,
    pub busy: RwSignal<bool>,
}

impl Study {
    /// A study of which nothing is known yet.
    pub fn new(id: String) -> Self {
        Self { id: StoredValue::new(id), data: RwSignal::new(StudyData::default()), busy: RwSignal::new(false) }
    }

    /// A value that follows what is known.
    pub fn memo<T: PartialEq + Send + Sync + 'static>(self, f: impl Fn(&StudyData) -> T + Send + Sync + 'static) -> Memo<T> {
        memo(move || self.data.with(&f))
    }

    /// A value that follows the results; a default while there are none.
    pub fn found<T: PartialEq + Default + Send + Sync + 'static>(
        self,
        f: impl Fn(&StudyResults) -> T + Send + Sync + 'static,
    ) -> Memo<T> {
        self.memo(move |d| d.results.as_ref().map(&f).unwrap_or_default())
    }

    /// Looks how it stands.
    pub fn load(self) {
        let Some(id) = self.id.try_get_value() else { return };
        spawn_local(async move {
            let answer = api::study(&id).await;
            self.learn(|d| match answer {
                Ok(state) => d.learn(state),
                Err(failure) => std::mem::replace(&mut d.failure, failure.message.clone()) != failure.message,
            });
        });
    }

    /// Looks again if somebody works on it.
    pub fn tick(self) {
        if self.data.try_with_untracked(|d| d.state.as_ref().is_some_and(|s| s.active)) == Some(true) {
            self.load();
        }
    }

    /// Asks for `cancel` or `resume`.
    pub fn ask(self, action: &'static str) {
        if self.busy.get_untracked() {
            return;
        }
        self.busy.set(true);
        let id = self.id.get_value();
        spawn_local(async move {
            let answer: Result<StudyState, _> = api::act_on_study(&id, action).await;
            let _ = self.busy.try_set(false);
            self.learn(|d| {
                d.refused = answer.as_ref().err().map(|f| f.message.clone()).unwrap_or_default();
                if let Ok(state) = answer {
                    d.learn(state);
                }
                true
            });
        });
    }

    /// Nothing is drawn again when nothing changed; nothing is left to do when the page is another one by now.
    fn learn(self, f: impl FnOnce(&mut StudyData) -> bool) {
        if self.data.try_maybe_update(|d| (f(d), ())).is_some() {
            self.fetch();
        }
    }

    /// Asks for the results if there may be others.
    pub fn fetch(self) {
        let wanted = self.data.try_update_untracked(|d| {
            let wanted = d.outdated() && !d.asking;
            d.asking |= wanted;
            wanted
        });
        if wanted != Some(true) {
            return;
        }
        let id = self.id.get_value();
        spawn_local(async move {
            let answer = api::study_results(&id).await;
            let _ = self.data.try_update(|d| {
                d.asking = false;
                match answer {
                    Ok(results) => {
                        d.missing.clear();
                        d.results = Some(results);
                    }
                    Err(failure) => d.missing = failure.message,
                }
            });
        });
    }
}
