//! Time as values. Nothing in the core reads a clock: the driver says what time it is with every event.
//!
//! Decisions compare [`Mono`]; [`Wall`] is for people, for record stamps (bounded, see `store`), and never
//! decides when something expires on another node.

use serde::{Deserialize, Serialize};
use std::ops::{Add, Sub};
use std::time::Duration;

/// Microseconds on this node's monotonic clock (CLOCK_BOOTTIME in the agent: it runs on in suspend).
/// Means nothing on another node or after a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

/// Milliseconds since the Unix epoch by this node's wall clock, which may be wrong and may jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Wall(pub u64);

/// Both clocks at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub mono: Mono,
    pub wall: Wall,
}

impl Mono {
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, d: Duration) -> Mono {
        Mono(self.0.saturating_sub(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Wall {
    /// RFC 3339 with nanoseconds, as Docker writes times.
    pub fn rfc3339(self) -> String {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "0001-01-01T00:00:00Z".to_owned(), |t| format!("{t:.9}"))
    }

    /// How long ago `earlier` was by the wall clock; zero if the clock went back.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Now {
    /// What the wall clock showed when the monotonic clock showed `at`, by the distance between the two now.
    pub fn wall_at(&self, at: Mono) -> Wall {
        let ago = self.mono.since(at).as_millis();
        let ahead = at.since(self.mono).as_millis();
        let ms = u128::from(self.wall.0).saturating_sub(ago).saturating_add(ahead);
        Wall(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}
