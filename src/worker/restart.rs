//! When an attempt that ended is followed by another: the service's restart policy, kept by the node itself
//! (DESIGN rule 2), with a backoff for a container that keeps dying young.
//!
//! The delay is the policy's for the first three quick ends in a row; from then on it doubles up to a minute
//! (or stays the policy's where that is longer). An attempt that ran for ten seconds ends the row. An attempt
//! that died with its engine is followed at once, unless it too is part of such a row.
//!
//! `max_attempts` counts restarts, as in Swarm. Without a window the attempt's own number is the count, and
//! so survives the agent; with one, only restarts of this life of the agent are known.

use crate::model::spec::{RestartCondition, RestartPolicy};
use crate::model::task::TaskPhase;
use crate::time::Mono;
use std::collections::VecDeque;
use std::time::Duration;

/// An attempt that ended sooner than this after its start ended quickly.
const QUICK: Duration = Duration::from_secs(10);
/// Quick ends in a row that still get the policy's own delay.
const PATIENCE: u32 = 3;
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Restarts remembered for a policy with a window.
const MAX_REMEMBERED: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    After(Duration),
    GiveUp,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub attempt: u32,
    pub phase: TaskPhase,
    /// The engine or the agent was away when it happened: not the container's doing.
    pub blameless: bool,
}

/// What a node remembers of a task's restarts, in this life of the agent.
#[derive(Debug, Default)]
pub(super) struct History {
    restarts: VecDeque<Mono>,
    quick_ends: u32,
}

impl History {
    /// An attempt is over that began this long ago; `None`: before this life, so not quickly.
    pub fn note_end(&mut self, ran: Option<Duration>) {
        match ran {
            Some(ran) if ran < QUICK => self.quick_ends = self.quick_ends.saturating_add(1),
            _ => self.quick_ends = 0,
        }
    }

    pub fn note_restart(&mut self, now: Mono) {
        self.restarts.push_back(now);
        if self.restarts.len() > MAX_REMEMBERED {
            self.restarts.pop_front();
        }
    }

    pub fn verdict(&self, policy: &RestartPolicy, ended: Ended, now: Mono) -> Verdict {
        let allowed = match policy.condition {
            RestartCondition::None => false,
            RestartCondition::OnFailure => ended.phase != TaskPhase::Complete,
            RestartCondition::Any => true,
        };
        if !allowed || self.used_up(policy, ended.attempt, now) {
            return Verdict::GiveUp;
        }
        Verdict::After(self.delay(policy.delay, ended.blameless))
    }

    fn used_up(&self, policy: &RestartPolicy, attempt: u32, now: Mono) -> bool {
        if policy.max_attempts == 0 {
            return false;
        }
        let used = if policy.window.is_zero() {
            u64::from(attempt)
        } else {
            self.restarts.iter().filter(|at| now.since(**at) <= policy.window).count() as u64
        };
        used >= policy.max_attempts
    }

    fn delay(&self, policy: Duration, blameless: bool) -> Duration {
        if self.quick_ends <= PATIENCE {
            return if blameless { Duration::ZERO } else { policy };
        }
        // A policy without delay starts doubling from half a second.
        let base = policy.max(Duration::from_millis(500));
        let doublings = (self.quick_ends - PATIENCE).min(16);
        base.saturating_mul(1 << doublings).min(MAX_BACKOFF).max(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono(1_000_000_000);

    fn failed(attempt: u32) -> Ended {
        Ended { attempt, phase: TaskPhase::Failed, blameless: false }
    }

    fn delays(policy: &RestartPolicy, ends: usize) -> Vec<u64> {
        let mut history = History::default();
        (0..ends)
            .map(|_| {
                history.note_end(Some(Duration::from_secs(1)));
                match history.verdict(policy, failed(0), NOW) {
                    Verdict::After(delay) => delay.as_secs(),
                    Verdict::GiveUp => panic!("gave up"),
                }
            })
            .collect()
    }

    #[test]
    fn the_policys_delay_three_times_and_then_twice_as_long_each_time_up_to_a_minute() {
        assert_eq!(delays(&RestartPolicy::default(), 8), [5, 5, 5, 10, 20, 40, 60, 60]);
        let at_once = RestartPolicy { delay: Duration::ZERO, ..RestartPolicy::default() };
        assert_eq!(delays(&at_once, 8), [0, 0, 0, 1, 2, 4, 8, 16]);
        let patient = RestartPolicy { delay: Duration::from_secs(90), ..RestartPolicy::default() };
        assert_eq!(delays(&patient, 6), [90; 6]);
    }

    #[test]
    fn a_long_run_ends_the_backoff() {
        let mut history = History::default();
        for _ in 0..6 {
            history.note_end(Some(Duration::from_secs(1)));
        }
        history.note_end(Some(QUICK));
        let verdict = history.verdict(&RestartPolicy::default(), failed(7), NOW);
        assert_eq!(verdict, Verdict::After(Duration::from_secs(5)));
    }

    #[test]
    fn what_died_with_its_engine_returns_at_once_unless_it_loops() {
        let mut history = History::default();
        let ended = Ended { blameless: true, ..failed(0) };
        history.note_end(None);
        assert_eq!(history.verdict(&RestartPolicy::default(), ended, NOW), Verdict::After(Duration::ZERO));
        for _ in 0..4 {
            history.note_end(Some(Duration::ZERO));
        }
        assert_eq!(history.verdict(&RestartPolicy::default(), ended, NOW), Verdict::After(Duration::from_secs(10)));
    }

    #[test]
    fn the_condition_decides_what_is_followed() {
        let history = History::default();
        let complete = Ended { phase: TaskPhase::Complete, ..failed(0) };
        for (condition, after_failure, after_success) in [
            (RestartCondition::None, false, false),
            (RestartCondition::OnFailure, true, false),
            (RestartCondition::Any, true, true),
        ] {
            let policy = RestartPolicy { condition, ..RestartPolicy::default() };
            assert_eq!(history.verdict(&policy, failed(0), NOW) != Verdict::GiveUp, after_failure);
            assert_eq!(history.verdict(&policy, complete, NOW) != Verdict::GiveUp, after_success);
        }
    }

    #[test]
    fn attempts_are_used_up_for_good_or_within_the_window() {
        let for_good = RestartPolicy { max_attempts: 2, ..RestartPolicy::default() };
        let history = History::default();
        assert_ne!(history.verdict(&for_good, failed(1), NOW), Verdict::GiveUp);
        assert_eq!(history.verdict(&for_good, failed(2), NOW), Verdict::GiveUp);

        let windowed = RestartPolicy { window: Duration::from_secs(60), ..for_good };
        let mut history = History::default();
        history.note_restart(NOW);
        history.note_restart(NOW + Duration::from_secs(30));
        assert_eq!(history.verdict(&windowed, failed(2), NOW + Duration::from_secs(31)), Verdict::GiveUp);
        assert_ne!(history.verdict(&windowed, failed(2), NOW + Duration::from_secs(61)), Verdict::GiveUp);
    }
}
