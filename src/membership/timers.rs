//! Everything that waits for an instant in the detector's own time, and the clock of that time.
//!
//! Foca's timers can't be cancelled and must be delivered in order of (deadline, kind): an indirect probe before the
//! next probe that is due at the same instant. All stand in one ordered map.
//!
//! The detector's time stands still while this node does. A node that was stalled (swap, a suspended laptop, an
//! overloaded host) must not take the silence it caused itself for the death of others. So when the earliest deadline
//! is found missed by more than a tolerance, the clock is set back by the lateness: every pending timer moves by the
//! same amount and their distances, which are what the protocol means, stay whole. The first such finding also grants
//! one tolerance on top, so that the answers waiting in the socket are read before anyone is accused. The second in a
//! row grants none, so a node that is always late still makes progress: it is merely slow to accuse, as Lifeguard asks.

use super::identity::Timer;
use crate::ids::NodeId;
use crate::time::Mono;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pending {
    Foca(Timer),
    /// The node was asked for a sign of life: whether it gave one shows now.
    Check(NodeId),
    /// A verdict on a suspect may be due.
    Verdict(NodeId),
    /// A suspect is told again.
    Remind(NodeId),
}

impl Pending {
    /// foca's order of events that are due at the same instant.
    fn rank(&self) -> u8 {
        match self {
            Pending::Foca(Timer::SendIndirectProbe { .. }) => 0,
            Pending::Foca(Timer::ProbeRandomMember(_)) => 1,
            Pending::Foca(_) => 3,
            Pending::Check(_) => 4,
            Pending::Remind(_) => 5,
            Pending::Verdict(_) => 6,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    /// (detector's time, rank, order of arrival)
    queue: BTreeMap<(Mono, u8, u64), Pending>,
    arrivals: u64,
    /// How long the detector's clock has stood still so far.
    frozen: Duration,
    /// The last freeze granted the tolerance and no timer has fired since.
    excused: bool,
}

impl Timers {
    pub fn put(&mut self, what: Pending, after: Duration, now: Mono) {
        self.arrivals += 1;
        self.queue.insert(((now - self.frozen) + after, what.rank(), self.arrivals), what);
    }

    /// The detector's time, which stands still while this node does.
    pub fn clock(&self, now: Mono) -> Mono {
        now - self.frozen
    }

    pub fn deadline(&self) -> Option<Mono> {
        self.queue.keys().next().map(|(at, _, _)| *at + self.frozen)
    }

    pub fn pop_due(&mut self, now: Mono) -> Option<Pending> {
        if self.deadline()? > now {
            return None;
        }
        self.excused = false;
        self.queue.pop_first().map(|(_, what)| what)
    }

    /// Returns for how long this node did not do its work, if it was longer than `tolerance`.
    pub fn notice_stall(&mut self, now: Mono, tolerance: Duration) -> Option<Duration> {
        let late = now.since(self.deadline()?);
        if late <= tolerance {
            return None;
        }
        self.frozen += if self.excused { late } else { late + tolerance };
        self.excused = true;
        Some(late)
    }

    /// A new foca starts: the timers of the old one mean nothing to it.
    pub fn drop_focas(&mut self) {
        self.queue.retain(|_, what| !matches!(what, Pending::Foca(_)));
    }

    pub fn clear(&mut self) {
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000)
    }

    fn check(n: u128) -> Pending {
        Pending::Check(NodeId::from_u128(n))
    }

    #[test]
    fn due_at_once_means_in_focas_order() {
        let mut timers = Timers::default();
        let probed = super::super::identity::Identity::tombstone(NodeId::from_u128(1));
        timers.put(check(9), 10 * MS, at(0));
        timers.put(Pending::Foca(Timer::ProbeRandomMember(0)), 10 * MS, at(0));
        timers.put(Pending::Foca(Timer::SendIndirectProbe { probed_id: probed.clone(), token: 0 }), 10 * MS, at(0));
        assert_eq!(timers.pop_due(at(9)), None);
        let first = timers.pop_due(at(10));
        assert_eq!(first, Some(Pending::Foca(Timer::SendIndirectProbe { probed_id: probed, token: 0 })));
        assert_eq!(timers.pop_due(at(10)), Some(Pending::Foca(Timer::ProbeRandomMember(0))));
        assert_eq!(timers.pop_due(at(10)), Some(check(9)));
        assert_eq!(timers.deadline(), None);
    }

    #[test]
    fn a_stall_moves_everything_and_keeps_the_distances() {
        let mut timers = Timers::default();
        timers.put(check(1), 100 * MS, at(0));
        timers.put(check(2), 400 * MS, at(0));
        assert_eq!(timers.notice_stall(at(250), 300 * MS), None);
        assert_eq!(timers.notice_stall(at(5_100), 300 * MS), Some(5_000 * MS));
        // One tolerance to read what has arrived meanwhile, then the first; the second 300 ms after it, as planned.
        assert_eq!(timers.deadline(), Some(at(5_400)));
        assert_eq!(timers.pop_due(at(5_399)), None);
        assert_eq!(timers.pop_due(at(5_400)), Some(check(1)));
        assert_eq!(timers.deadline(), Some(at(5_700)));
        timers.put(check(3), 100 * MS, at(5_400));
        assert_eq!(timers.deadline(), Some(at(5_500)));
    }

    #[test]
    fn a_node_that_is_always_late_still_gets_on() {
        let mut timers = Timers::default();
        for n in 0..5 {
            timers.put(check(n), 100 * MS, at(0));
        }
        let (mut fired, mut now) = (0, at(0));
        for _ in 0..20 {
            let Some(deadline) = timers.deadline() else { break };
            now = now.max(deadline + 500 * MS);
            timers.notice_stall(now, 300 * MS);
            while timers.pop_due(now).is_some() {
                fired += 1;
            }
        }
        assert_eq!(fired, 5);
    }
}
