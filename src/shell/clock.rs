//! The agent's two clocks, read together. The monotonic one is CLOCK_BOOTTIME, which runs on in suspend
//! (Rust's `Instant` does not): a lease holder that slept must know that its lease is over.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::time::{Mono, Now, Wall};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Cheap to clone; all clones share one floor, so no two readings of the monotonic clock go backwards.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    floor_us: Arc<AtomicU64>,
}

impl Clock {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn now(&self) -> Now {
        let mono_us = self.raise_floor(monotonic_us());
        Now { mono: Mono(mono_us), wall: wall() }
    }

    /// The kernel promises this already; a hypervisor that lies about it must not reach the core.
    fn raise_floor(&self, reading_us: u64) -> u64 {
        self.floor_us.fetch_max(reading_us, Ordering::Relaxed).max(reading_us)
    }
}

fn monotonic_us() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let reading = rustix::time::clock_gettime(CLOCK);
    let seconds = u64::try_from(reading.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(reading.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000)
}

/// The wall clock; a time before 1970 reads as 1970.
pub fn wall() -> Wall {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_read_and_the_monotonic_one_never_goes_back() {
        let clock = Clock::new();
        let mut last = clock.now();
        assert!(last.mono > Mono(0));
        assert!(last.wall > Wall(1_600_000_000_000));
        for _ in 0..1_000 {
            let next = clock.clone().now();
            assert!(next.mono >= last.mono);
            last = next;
        }
    }

    #[test]
    fn a_reading_below_the_last_is_lifted_to_it() {
        let clock = Clock::new();
        assert_eq!(clock.raise_floor(10), 10);
        assert_eq!(clock.raise_floor(7), 10);
        assert_eq!(clock.clone().raise_floor(11), 11);
        assert_eq!(clock.raise_floor(10), 11);
    }
}
