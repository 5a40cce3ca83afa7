//! A node's clocks: both run off by a fixed rate, the wall clock is wrong from the start and may jump, the monotonic
//! one starts again with the machine.

use peer::plant::{Bug, is_planted};
use peer::time::{Mono, Now, Wall};

/// 2026-01-01: where true wall time begins.
const EPOCH_MS: u64 = 1_767_225_600_000;

#[derive(Debug, Clone)]
pub struct Clock {
    ppm: i64,
    /// True time at which the machine started.
    booted: u64,
    wall_off_ms: i64,
    /// The furthest ahead that the wall clock ever was.
    ahead_ms: i64,
    /// Since when it stands still, which CLOCK_BOOTTIME never does and Rust's `Instant` would, in suspend.
    stands_since: Option<u64>,
}

impl Clock {
    pub fn new(ppm: i64, wall_off_ms: i64) -> Self {
        Self { ppm, booted: 0, wall_off_ms, ahead_ms: wall_off_ms, stands_since: None }
    }

    pub fn reboot(&mut self, now: u64) {
        self.booted = now;
        self.stands_since = None;
    }

    /// The machine sleeps.
    pub fn suspend(&mut self, now: u64) {
        if is_planted(Bug::ClockStopsInSuspend) {
            self.stands_since.get_or_insert(now);
        }
    }

    pub fn resume(&mut self, now: u64) {
        if let Some(since) = self.stands_since.take() {
            self.booted += now.saturating_sub(since);
        }
    }

    pub fn jump(&mut self, ms: i64) {
        self.wall_off_ms = self.wall_off_ms.saturating_add(ms);
        self.ahead_ms = self.ahead_ms.max(self.wall_off_ms);
    }

    pub fn now(&self, true_us: u64) -> Now {
        let until = self.stands_since.map_or(true_us, |since| since.min(true_us));
        let since = i128::from(until.saturating_sub(self.booted));
        let mono = since + since * i128::from(self.ppm) / 1_000_000;
        let drift_ms = i128::from(true_us) * i128::from(self.ppm) / 1_000_000_000;
        let wall = i128::from(EPOCH_MS) + i128::from(true_us / 1_000) + drift_ms + i128::from(self.wall_off_ms);
        Now { mono: Mono(mono.max(0) as u64), wall: Wall(wall.max(0) as u64) }
    }

    /// No wall time later than this was ever shown.
    pub fn latest_wall(&self, true_us: u64) -> Wall {
        let now = self.now(true_us).wall.0;
        Wall(now.saturating_add(self.ahead_ms.saturating_sub(self.wall_off_ms).unsigned_abs()))
    }

    /// The first true instant at which the monotonic clock shows `at` or more.
    pub fn when(&self, at: Mono) -> u64 {
        let rate = 1_000_000 + i128::from(self.ppm);
        let since = (i128::from(at.0) * 1_000_000 + rate - 1) / rate;
        self.booted + since.max(0) as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_met_early() {
        for ppm in [-30_000, -1, 0, 7, 30_000] {
            let mut clock = Clock::new(ppm, 0);
            clock.reboot(12_345);
            for at in [0u64, 1, 999, 1_000_000, 86_400_000_000] {
                let when = clock.when(Mono(at));
                assert!(clock.now(when).mono >= Mono(at), "{ppm} {at}");
                assert!(clock.now(when.saturating_sub(3).max(12_345)).mono <= Mono(at + 3), "{ppm} {at}");
            }
        }
    }
}
