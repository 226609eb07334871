//! Whether the clock can be trusted: what is removed for its age is gone, and a clock may be set ten years ahead by mistake.

use std::time::{Duration, Instant, SystemTime};

/// By how much the clock may differ from the time that has passed. More is a jump.
const JUMP: Duration = Duration::from_secs(60);

/// A clock that is looked at now and then.
pub struct Clock {
    /// What it showed when it was last looked at, and when that was.
    last: (SystemTime, Instant),
    /// Since when it has not jumped.
    steady: Instant,
}

impl Clock {
    /// One that nothing is known of yet.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { last: (SystemTime::now(), now), steady: now }
    }

    /// For how long it has gone as time does: since it was first looked at, or since it jumped.
    pub fn steady(&mut self) -> Duration {
        self.shows(SystemTime::now(), Instant::now())
    }

    fn shows(&mut self, clock: SystemTime, now: Instant) -> Duration {
        let passed = now - self.last.1;
        let apart = clock.duration_since(self.last.0).map_or_else(|back| back.duration() + passed, |by| by.abs_diff(passed));
        self.last = (clock, now);
        if apart > JUMP {
            self.steady = now;
        }
        now - self.steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_is_not_trusted_for_a_while() {
        let hour = Duration::from_secs(3600);
        let years = 87_600 * hour;
        let mut clock = Clock::new();
        let (mut shown, mut now) = clock.last;
        let mut after = |by: Duration, ahead: Duration, back: Duration| {
            (now, shown) = (now + by, shown + by + ahead - back);
            clock.shows(shown, now)
        };
        let none = Duration::ZERO;
        assert_eq!([after(hour, none, none), after(hour, JUMP, none), after(hour, none, JUMP)], [hour, 2 * hour, 3 * hour]);
        assert_eq!([after(hour, years, none), after(hour, none, none)], [none, hour]);
        assert_eq!([after(hour, none, years), after(hour, none, none)], [none, hour]);
        // By less than what passes: it goes back all the same.
        assert_eq!(after(hour, none, hour / 2), none);
    }
}
