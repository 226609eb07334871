//! What is on the screen, and what moves by itself while it is there.

use crate::parts::every::every;
use crate::parts::memo::effect;
use crate::parts::theme::still;
use js_sys::Array;
use leptos::html::{Div, ElementType};
use leptos::prelude::*;
use std::cell::Cell;
use std::time::Duration;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{Element, Event, IntersectionObserver, IntersectionObserverEntry, IntersectionObserverInit};

/// How long a toy has been in view when it has been looked at, milliseconds: who passes by on the way to another place saw nothing.
const GLANCE: f64 = 1_000.0;

/// Watches the element from when it is there until the view is gone. `watch` begins, and returns what ends it.
pub fn watched<E, T>(element: NodeRef<E>, watch: impl Fn(&Element) -> Option<T> + 'static)
where
    E: ElementType,
    E::Output: JsCast + Clone + 'static,
    T: FnOnce() + 'static,
{
    let kept = StoredValue::new_local(None::<T>);
    effect(move || {
        if let Some(element) = element.get() {
            kept.set_value(watch(element.unchecked_ref::<Element>()));
        }
    });
    on_cleanup(move || {
        if let Some(end) = kept.try_update_value(Option::take).flatten() {
            end();
        }
    });
}

/// Whether the element is on the screen; `margin`: how far beyond its edges counts, too, or how far within does not, as in a style sheet.
pub fn seen<E>(element: NodeRef<E>, margin: &'static str) -> ReadSignal<bool>
where
    E: ElementType,
    E::Output: JsCast + Clone + 'static,
{
    let (now, tell) = signal(false);
    watched(element, move |element| {
        let changed = Closure::<dyn FnMut(Array)>::new(move |entries: Array| {
            let last = entries.iter().last().map(JsCast::unchecked_into::<IntersectionObserverEntry>);
            let _ = last.and_then(|entry| tell.try_set(entry.is_intersecting()));
        });
        let options = IntersectionObserverInit::new();
        options.set_root_margin(margin);
        let observer = IntersectionObserver::new_with_options(changed.as_ref().unchecked_ref(), &options).ok()?;
        observer.observe(element);
        Some(move || {
            observer.disconnect();
            drop(changed);
        })
    });
    now
}

/// How far playing by itself has come.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Course {
    Waits,
    /// Since when, milliseconds.
    Plays(f64),
    Over,
}

impl Course {
    /// What it is when the toy is in view, or no longer, at `now`.
    fn after(self, seen: bool, now: f64) -> Self {
        match (self, seen) {
            (Self::Waits, true) => Self::Plays(now),
            (Self::Plays(since), false) if now - since < GLANCE => Self::Waits,
            (Self::Plays(_), false) => Self::Over,
            (same, _) => same,
        }
    }
}

/// Whether a toy plays by itself: once, from when it comes into view until it leaves it or a control of it is pressed. Never for those who
/// want nothing to move by itself.
#[derive(Clone, Copy)]
pub struct Alone(RwSignal<Course>);

impl Alone {
    /// A toy that is in `stage`.
    pub fn new(stage: NodeRef<Div>) -> Self {
        let course = RwSignal::new(Course::Waits);
        if !still() {
            // What only touches the edge of the screen is not looked at yet.
            let seen = seen(stage, "-20% 0px");
            effect(move || {
                let seen = seen.get();
                course.update(|course| *course = course.after(seen, js_sys::Date::now()));
            });
        }
        Self(course)
    }

    /// Whether it plays by itself now.
    pub fn plays(self) -> bool {
        matches!(self.0.get(), Course::Plays(_))
    }

    /// It does not play by itself any more.
    pub fn end(self) {
        self.0.set(Course::Over);
    }

    /// What happens in the stage; a control that is pressed or moved ends the playing.
    pub fn touched(self, event: &Event) {
        if event_target::<Element>(event).closest("button, input, select").is_ok_and(|control| control.is_some()) {
            self.end();
        }
    }

    /// Calls `f` whenever `pause` has passed while it plays by itself, with the number of calls.
    pub fn every(self, pause: Duration, f: impl Fn(usize) + 'static) {
        let beat = Cell::new(0);
        every(pause, move || {
            if untrack(|| self.plays()) {
                beat.set(beat.get() + 1);
                f(beat.get());
            }
        });
    }
}

/// Goes from 0 to `most` and back again, by one at every beat.
pub fn to_and_fro(beat: usize, most: usize) -> usize {
    let place = beat % (2 * most);
    place.min(2 * most - place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toy_plays_by_itself_once() {
        let course = |steps: &[(bool, f64)]| steps.iter().fold(Course::Waits, |course, (seen, now)| course.after(*seen, *now));
        assert_eq!(course(&[(false, 5.0)]), Course::Waits);
        assert_eq!(course(&[(false, 0.0), (true, 5.0), (true, 9.0)]), Course::Plays(5.0));
        assert_eq!(course(&[(true, 5.0), (false, 5.0 + GLANCE)]), Course::Over);
        assert_eq!(course(&[(true, 5.0), (false, 6.0 + GLANCE), (true, 9_000.0)]), Course::Over);
        // Who passes by has not seen it.
        assert_eq!(course(&[(true, 5.0), (false, 4.0 + GLANCE)]), Course::Waits);
        assert_eq!(course(&[(true, 5.0), (false, 6.0), (true, 70.0)]), Course::Plays(70.0));
        assert_eq!(Course::Over.after(true, 1.0), Course::Over);
    }

    #[test]
    fn to_and_fro_turns_at_both_ends() {
        let places: Vec<usize> = (0..9).map(|beat| to_and_fro(beat, 3)).collect();
        assert_eq!(places, [0, 1, 2, 3, 2, 1, 0, 1, 2]);
    }
}
