//! Signs of life of the work that goes on for ever beside requests: whoever watches the server hears that one has stopped.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time that the work may be silent, starts and looks at slow disks included.
const LONGEST: Duration = Duration::from_secs(60);
/// The same of the index, without which the server goes on.
const LONGEST_INDEX: Duration = Duration::from_secs(10);

/// Journals are followed.
pub static FOLLOWING: Pulse = Pulse::new();
/// It is looked whose turn it is.
pub static TURNS: Pulse = Pulse::new();
/// The index has all that is known of runs.
pub static INDEX: Pulse = Pulse::new();

/// What times are counted from.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// When something last gave a sign of life, in milliseconds from [`ORIGIN`].
#[derive(Debug)]
pub struct Pulse(AtomicU64);

impl Pulse {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// A sign of life.
    pub fn beat(&self) {
        let now = u64::try_from(ORIGIN.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.store(now, Ordering::Relaxed);
    }

    /// Time since the last sign; where there was none, since anybody first gave one or asked for one.
    fn silence(&self) -> Duration {
        ORIGIN.elapsed().saturating_sub(Duration::from_millis(self.0.load(Ordering::Relaxed)))
    }
}

/// What goes on no more although runs need it.
pub fn stopped() -> Vec<String> {
    too_silent(&[
        ("nobody has followed runs", FOLLOWING.silence(), LONGEST),
        ("nobody has looked whose turn it is", TURNS.silence(), LONGEST),
    ])
}

/// What goes on no more, and is made up for later.
pub fn behind() -> Vec<String> {
    too_silent(&[("the index has not been written", INDEX.silence(), LONGEST_INDEX)])
}

/// What has been silent for longer than it may, and for how long.
fn too_silent(all: &[(&str, Duration, Duration)]) -> Vec<String> {
    let silent = all.iter().filter(|(_, silence, longest)| silence > longest);
    silent.map(|(what, silence, _)| format!("{what} for {} seconds", silence.as_secs())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_silent_for_too_long_is_named() {
        let pulse = Pulse::new();
        pulse.silence();
        std::thread::sleep(Duration::from_millis(20));
        assert!(pulse.silence() >= Duration::from_millis(20));
        pulse.beat();
        assert!(pulse.0.load(Ordering::Relaxed) >= 20);
        let seconds = Duration::from_secs;
        let said =
            too_silent(&[("a", seconds(9), seconds(10)), ("b", seconds(11), seconds(10)), ("c", seconds(10), seconds(10))]);
        assert_eq!(said, ["b for 11 seconds"]);
    }
}
