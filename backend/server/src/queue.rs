//! Whose turn it is: runs wait for a slot of the device that they take, the most urgent first, and of one priority who came first.
//!
//! Here belongs the order, and a run's place in it. What starts runs is `supervisor.rs`.

use crate::folder::write_file;
use crate::id::{RunId, now_ms};
use anyhow::Context;
use moslim_shared::config::DeviceChoice;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::io::ErrorKind;
use std::path::Path;
use std::str::FromStr;

/// The file of a run that waits, in its folder.
const FILE: &str = "queue.json";
/// The highest priority; the lowest is as far below 0.
const MOST_URGENT: i32 = 100;
/// Runs of one device at a time, at most.
const MOST_SLOTS: usize = 64;

/// How urgent a run is that waits: the highest goes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Priority(i32);

impl TryFrom<i32> for Priority {
    type Error = String;

    fn try_from(number: i32) -> Result<Self, String> {
        let allowed = (-MOST_URGENT..=MOST_URGENT).contains(&number);
        if allowed { Ok(Self(number)) } else { Err(format!("is {number}; allowed is -{MOST_URGENT} to {MOST_URGENT}")) }
    }
}

impl From<Priority> for i32 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

impl FromStr for Priority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<i32>().map_err(|_| format!("\"{text}\" is no whole number"))?.try_into()
    }
}

/// A run's place in the queue, as its folder keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    priority: i32,
    /// Milliseconds since the Unix epoch.
    since: u64,
}

impl Place {
    /// The last place of a priority, behind those who wait already: one of them may have come when the clock was ahead.
    pub fn last(priority: Priority, waiting: impl IntoIterator<Item = Self>) -> Self {
        let before = waiting.into_iter().map(|place| place.since).max();
        Self { priority: priority.0, since: before.map_or(0, |since| since.saturating_add(1)).max(now_ms()) }
    }

    /// The place that who came at the same time has with another priority.
    pub fn with(self, priority: Priority) -> Self {
        Self { priority: priority.0, ..self }
    }

    /// The place of the run in a folder; `None` where it does not wait.
    pub fn read(run: &Path) -> Option<Self> {
        let bytes = std::fs::read(run.join(FILE)).ok()?;
        // One that is damaged is a place all the same.
        Some(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Gives this place to the run in a folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(self, run: &Path) -> anyhow::Result<()> {
        write_file(&run.join(FILE), &serde_json::to_vec(&self)?)
    }

    /// The run in a folder waits no more.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn leave(run: &Path) -> anyhow::Result<()> {
        match std::fs::remove_file(run.join(FILE)) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).with_context(|| format!("taking {} out of the queue", run.display()))
            }
            _ => Ok(()),
        }
    }

    /// What is said of a run that waits here.
    pub fn told(self) -> String {
        format!("It begins when its device has a free slot; its priority is {}.", self.priority)
    }
}

/// How many runs train at a time on each device: one, where nothing else is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots(Vec<(DeviceChoice, usize)>);

impl FromStr for Slots {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut slots = Self::default();
        for part in text.split(',') {
            let (name, number) = part.split_once('=').ok_or_else(|| format!("\"{part}\" is not like cpu=2"))?;
            let device: DeviceChoice = name.parse()?;
            if device == DeviceChoice::Auto {
                return Err("auto is no device of its own; allowed are cpu, cuda, wgpu".into());
            }
            if slots.0.iter().any(|(own, _)| *own == device) {
                return Err(format!("{name} is named twice"));
            }
            let number = number.parse::<usize>().ok().filter(|n| (1..=MOST_SLOTS).contains(n));
            slots.0.push((device, number.ok_or_else(|| format!("\"{part}\": allowed is 1 to {MOST_SLOTS}"))?));
        }
        Ok(slots)
    }
}

impl Slots {
    /// How many runs a device takes at a time.
    pub fn of(&self, device: DeviceChoice) -> usize {
        self.0.iter().find(|(own, _)| *own == device).map_or(1, |(_, number)| *number)
    }

    /// Whether a device has a free slot while runs train on the devices `taken`.
    pub fn has_room(&self, device: DeviceChoice, taken: &[DeviceChoice]) -> bool {
        taken.iter().filter(|own| **own == device).count() < self.of(device)
    }

    /// Threads of a run on a device, where it may not have all: of several runs on the CPU each has its share of the `cores`.
    pub fn threads(&self, device: DeviceChoice, cores: usize) -> Option<usize> {
        let runs = self.of(DeviceChoice::Cpu);
        (device == DeviceChoice::Cpu && runs > 1).then(|| (cores / runs).max(1))
    }
}

/// Whose turn it is of those that wait, each with the device that it takes, while runs train on the devices `taken`. Whose device has no
/// free slot blocks nobody who needs another. Who has no `place` has left the queue.
pub fn next(
    waiting: Vec<(RunId, DeviceChoice)>,
    taken: &[DeviceChoice],
    slots: &Slots,
    place: impl Fn(&RunId) -> Option<Place>,
) -> Option<RunId> {
    let ready = waiting.into_iter().filter(|(_, device)| slots.has_room(*device, taken));
    let placed = ready.filter_map(|(id, _)| Some((place(&id)?, id)));
    placed.min_by_key(|(place, id)| (Reverse(place.priority), place.since, id.to_string())).map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeviceChoice::{Cpu, Cuda, Wgpu};

    /// Runs that wait: name, device, priority, since when.
    const WAITING: [(&str, DeviceChoice, i32, u64); 5] =
        [("a", Cpu, 0, 30), ("b", Cuda, 0, 10), ("c", Cpu, 5, 40), ("d", Cuda, -1, 5), ("e", Cpu, 5, 40)];

    #[test]
    fn the_most_urgent_goes_first_and_waits_for_no_other_device() {
        let turn = |slots: &str, taken: &[DeviceChoice], gone: &[&str]| {
            let left = WAITING.iter().filter(|(name, ..)| !gone.contains(name));
            let waiting: Vec<(RunId, DeviceChoice)> = left.map(|(name, device, ..)| (name.parse().unwrap(), *device)).collect();
            let place = |id: &RunId| {
                let (_, _, priority, since) = WAITING.into_iter().find(|(name, ..)| *name == id.as_str()).unwrap();
                (since != 5).then_some(Place { priority, since })
            };
            next(waiting, taken, &slots.parse().unwrap(), place).map(|id| id.to_string())
        };
        // Slots, devices of runs that train, runs that wait no more, and whose turn it is.
        type Case<'a> = (&'a str, &'a [DeviceChoice], &'a [&'a str], Option<&'a str>);
        let cases: [Case; 10] = [
            ("cpu=1", &[], &[], Some("c")),
            // Of the same moment, by name.
            ("cpu=1", &[], &["c"], Some("e")),
            ("cpu=1", &[], &["c", "e"], Some("b")),
            // What needs the CPU is more urgent, and lets pass who needs the GPU.
            ("cpu=1", &[Cpu], &[], Some("b")),
            ("cpu=1", &[Cpu, Cuda], &[], None),
            ("cpu=2", &[Cpu, Cuda], &[], Some("c")),
            ("cpu=2,cuda=2", &[Cpu, Cpu, Cuda], &[], Some("b")),
            ("cpu=2", &[Cpu, Cpu, Cpu, Cuda], &[], None),
            ("cpu=1", &[Wgpu], &[], Some("c")),
            // The one that is left has no place any more.
            ("cuda=1", &[], &["a", "b", "c", "e"], None),
        ];
        for (slots, taken, gone, expected) in cases {
            assert_eq!(turn(slots, taken, gone).as_deref(), expected, "{slots} {taken:?} {gone:?}");
        }
    }

    #[test]
    fn slots_are_read_or_refused_and_cores_are_shared() {
        let slots: Slots = "cpu=3,wgpu=64".parse().unwrap();
        assert_eq!([Cpu, Cuda, Wgpu].map(|device| slots.of(device)), [3, 1, 64]);
        assert_eq!([(Cpu, 8), (Cpu, 2), (Cuda, 8)].map(|(device, cores)| slots.threads(device, cores)), [Some(2), Some(1), None]);
        assert_eq!(Slots::default().threads(Cpu, 8), None, "alone it has all");
        for (text, said) in [
            ("", "not like cpu=2"),
            ("cpu", "not like cpu=2"),
            ("cpu=0", "allowed is 1 to 64"),
            ("cpu=65", "allowed is 1 to 64"),
            ("cpu=-1", "allowed is 1 to 64"),
            ("cpu=many", "allowed is 1 to 64"),
            ("tpu=1", "unknown device"),
            ("auto=1", "auto is no device"),
            ("cpu=1,cpu=2", "cpu is named twice"),
        ] {
            let refused = text.parse::<Slots>().unwrap_err();
            assert!(refused.contains(said), "{text}: {refused}");
        }
    }

    #[test]
    fn priorities_have_bounds_and_a_place_is_kept_with_its_time() {
        let read = |text: &str| text.parse::<Priority>();
        assert_eq!((read("-100"), read("7")), (Ok(Priority(-100)), Ok(Priority(7))));
        assert_eq!(read("101"), Err("is 101; allowed is -100 to 100".to_string()));
        assert!(read("high").is_err() && serde_json::from_str::<Priority>("-101").is_err());
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Place::read(folder.path()), None);
        let place = Place::last(Priority(3), []);
        let ahead = Place { since: place.since + 1_000_000_000, ..place };
        assert_eq!(Place::last(Priority(0), [ahead, place]).since, ahead.since + 1);
        assert!(Place::last(Priority(0), [Place::default()]).since >= place.since);
        place.with(Priority(-2)).write(folder.path()).unwrap();
        assert_eq!(Place::read(folder.path()), Some(Place { priority: -2, ..place }));
        std::fs::write(folder.path().join(FILE), "?").unwrap();
        assert_eq!(Place::read(folder.path()), Some(Place::default()), "a damaged place is one");
        Place::leave(folder.path()).unwrap();
        Place::leave(folder.path()).unwrap();
        assert_eq!(Place::read(folder.path()), None);
    }
}
