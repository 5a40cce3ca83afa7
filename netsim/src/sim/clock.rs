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

    /// That of the machine in its place, which never showed what this one did.
    pub fn is_anothers(&mut self) {
        self.ahead_ms = self.wall_off_ms;
    }

    pub fn now(&self, true_us: u64) -> Now {
        let until = self.stands_since.map_or(true_us, |since| since.min(true_us));
        let since = until.saturating_sub(self.booted);
        let mono = since.saturating_add_signed(self.drift(since));
        let drift_ms = self.drift(true_us) / 1_000;
        let wall = (EPOCH_MS + true_us / 1_000).saturating_add_signed(drift_ms.saturating_add(self.wall_off_ms));
        Now { mono: Mono(mono), wall: Wall(wall) }
    }

    /// How much further than it should this clock went in so many microseconds. (Asked several times an event: 128-bit
    /// division showed in profiles of whole sweeps, so what fits 64 bits is done in them.)
    fn drift(&self, us: u64) -> i64 {
        match (us as i64).checked_mul(self.ppm) {
            Some(millionths) if us <= i64::MAX as u64 => millionths / 1_000_000,
            _ => (i128::from(us) * i128::from(self.ppm) / 1_000_000) as i64,
        }
    }

    /// No wall time later than this was ever shown.
    pub fn latest_wall(&self, true_us: u64) -> Wall {
        let now = self.now(true_us).wall.0;
        Wall(now.saturating_add(self.ahead_ms.saturating_sub(self.wall_off_ms).unsigned_abs()))
    }

    /// The first true instant at which the monotonic clock shows `at` or more.
    pub fn when(&self, at: Mono) -> u64 {
        let rate = 1_000_000u64.saturating_add_signed(self.ppm).max(1);
        let since = match at.0.checked_mul(1_000_000) {
            Some(millionths) => millionths.div_ceil(rate),
            None => (u128::from(at.0) * 1_000_000).div_ceil(u128::from(rate)) as u64,
        };
        self.booted.saturating_add(since).saturating_add(1)
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
