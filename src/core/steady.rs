//! Whether this machine's wall clock may say how old something is: not just after it was set. A clock that is days ahead for
//! a minute would take every tombstone for old, and collect it while messages that bring back what it buried are under way.

use crate::time::{Mono, Now};
use std::time::Duration;

/// Less is what clocks are corrected by while they run.
const MAX_STEP_MS: u64 = 5_000;

#[derive(Debug)]
pub(super) struct Steady {
    last: Now,
    since: Mono,
}

impl Steady {
    pub fn new(now: Now) -> Self {
        Self { last: now, since: now.mono }
    }

    /// For how long the wall clock has gone on as the monotonic one has, forward and back: since it was last set, or since this life began.
    pub fn look(&mut self, now: Now) -> Duration {
        if now.wall_at(self.last.mono).0.abs_diff(self.last.wall.0) > MAX_STEP_MS {
            self.since = now.mono;
        }
        self.last = now;
        now.mono.since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    #[test]
    fn a_clock_that_is_set_is_not_steady_for_a_while() {
        let at = |secs: u64, ahead_ms: u64| Now { mono: Mono(secs * 1_000_000), wall: Wall(secs * 1_000 + ahead_ms) };
        let mut steady = Steady::new(at(0, 0));
        assert_eq!(steady.look(at(10, 400)), Duration::from_secs(10), "it is a little fast");
        let day = 86_400_000;
        assert_eq!(steady.look(at(20, day)), Duration::ZERO);
        assert_eq!(steady.look(at(30, day + 9)), Duration::from_secs(10));
        assert_eq!(steady.look(at(40, 0)), Duration::ZERO, "it is set right");
        assert_eq!(steady.look(at(900, 0)), Duration::from_secs(860));
    }
}
