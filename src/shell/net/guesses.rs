//! Who guesses at the join secret, and how often. A source that was wrong too often is refused for a while, right or
//! wrong, so that guessing from there tells it nothing.

use crate::shell::places::network;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

const MAX_WRONG: u32 = 5;
const WITHIN: Duration = Duration::from_secs(10);
const BLOCKED_FOR: Duration = Duration::from_secs(60);
const MAX_SOURCES: usize = 1_024;

#[derive(Debug, Default)]
pub struct Guesses {
    sources: BTreeMap<IpAddr, Tally>,
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    wrong: u32,
    since: Instant,
    blocked: bool,
}

impl Tally {
    fn ends(&self) -> Instant {
        self.since + if self.blocked { BLOCKED_FOR } else { WITHIN }
    }
}

impl Guesses {
    /// For how long this source is still refused, if it is.
    pub fn blocked(&self, source: IpAddr, now: Instant) -> Option<Duration> {
        let tally = self.sources.get(&network(source))?;
        (tally.blocked && now < tally.ends()).then(|| tally.ends() - now)
    }

    /// Whether this wrong guess was one too many.
    pub fn wrong(&mut self, source: IpAddr, now: Instant) -> bool {
        self.make_room(now);
        let fresh = Tally { wrong: 0, since: now, blocked: false };
        let tally = self.sources.entry(network(source)).or_insert(fresh);
        if now >= tally.ends() {
            *tally = fresh;
        }
        tally.wrong += 1;
        if tally.wrong < MAX_WRONG || tally.blocked {
            return false;
        }
        *tally = Tally { blocked: true, since: now, ..*tally };
        true
    }

    fn make_room(&mut self, now: Instant) {
        if self.sources.len() < MAX_SOURCES {
            return;
        }
        self.sources.retain(|_, tally| now < tally.ends());
        while self.sources.len() >= MAX_SOURCES {
            let oldest = self.sources.iter().min_by_key(|(_, tally)| tally.since).map(|(source, _)| *source);
            let Some(oldest) = oldest else { return };
            self.sources.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "10.0.0.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn five_wrong_guesses_in_ten_seconds_shut_the_door_for_a_minute() {
        let mut guesses = Guesses::default();
        let start = Instant::now();
        for n in 0..4 {
            assert!(!guesses.wrong(ip(ALICE), start + Duration::from_secs(n)));
            assert_eq!(guesses.blocked(ip(ALICE), start), None);
        }
        let fifth = start + Duration::from_secs(9);
        assert!(guesses.wrong(ip(ALICE), fifth));
        assert_eq!(guesses.blocked(ip(ALICE), fifth), Some(BLOCKED_FOR));
        assert_eq!(guesses.blocked(ip("10.0.0.2"), fifth), None);
        assert_eq!(guesses.blocked(ip(ALICE), fifth + BLOCKED_FOR), None);
    }

    #[test]
    fn slow_mistakes_are_forgiven() {
        let mut guesses = Guesses::default();
        let start = Instant::now();
        for n in 0..20 {
            assert!(!guesses.wrong(ip(ALICE), start + Duration::from_secs(3 * n)));
        }
    }

    #[test]
    fn a_subnet_of_ipv6_is_one_source_and_the_table_is_bounded() {
        let mut guesses = Guesses::default();
        let start = Instant::now();
        let blocked = (0..5).filter(|n| guesses.wrong(ip(&format!("2001:db8::{n}")), start)).count();
        assert_eq!(blocked, 1);
        assert!(guesses.blocked(ip("2001:db8::ffff"), start).is_some());
        for n in 0..3_000u32 {
            guesses.wrong(IpAddr::from(n.to_be_bytes()), start + Duration::from_millis(u64::from(n)));
        }
        assert!(guesses.sources.len() <= MAX_SOURCES);
    }
}
