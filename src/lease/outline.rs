//! A lease as a model checker sees it: all that decides what it will do, and nothing else, so that two moments from
//! which the same can follow count as one.
//!
//! It is one without jitter and courtesy ([`Lease::impatient`]). Instants go in as distances from now, in steps of the checker's clock, and as none once it makes no difference how
//! long ago they were. Everything is named here: who adds a field must say what it decides.

use super::doubt::{Answer, Doubt, MAX_BACKOFF};
use super::electorate::Members;
use super::proposer::{Change, Leading, Preparing, Role, Round};
use super::{Durable, Lease};
use crate::time::Mono;
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// Distances from now.
#[derive(Clone, Copy)]
struct Steps {
    now: Mono,
    step: u64,
}

impl Steps {
    /// How many steps of the clock until `at` has come; a deadline between two steps is met by the later one.
    fn until(self, at: Mono) -> u64 {
        at.0.saturating_sub(self.now.0).div_ceil(self.step)
    }

    /// How many steps ago; whatever lies further back than `relevant` is the same.
    fn since(self, at: Mono, relevant: Duration) -> u64 {
        let relevant = u64::try_from(relevant.as_micros()).unwrap_or(u64::MAX) / self.step;
        (self.now.0.saturating_sub(at.0) / self.step).min(relevant.saturating_add(1))
    }
}

impl Lease {
    /// Feeds `into` what this lease is, as one whose clock moves by whole `step`s, whose outputs were taken, and whose settings
    /// (timing, upkeep, whether changes are allowed) stay as they are.
    pub fn outline(&self, now: Mono, step: Duration, into: &mut impl Hasher) {
        let Self {
            me: _,
            timing: _,
            upkeep: _,
            durable: Durable { promised, electorate, round_used, floor, put_back },
            unsaved,
            doubt,
            trusts_its_disk,
            grant,
            released,
            role,
            campaign_at,
            // Only lengthens the jitter.
            failures: _,
            highest_round,
            // For people.
            hearsay: _,
            retired,
            changes_allowed,
            removed,
            members: Members { states, gone },
            chance: _,
            outputs,
        } = self;
        debug_assert!(outputs.is_empty());
        let steps = Steps { now, step: u64::try_from(step.as_micros()).unwrap_or(u64::MAX).max(1) };
        (promised, electorate.id, &electorate.voters, round_used, floor, put_back).hash(into);
        trusts_its_disk.hash(into);
        doubt.as_ref().map(|doubt| outline_doubt(doubt, steps, into)).is_some().hash(into);
        (unsaved, released, highest_round, retired, changes_allowed).hash(into);
        grant.filter(|g| g.expires > now).map(|g| (g.ballot, steps.until(g.expires))).hash(into);
        campaign_at.map(|at| steps.until(at)).hash(into);
        // For how long somebody has been so matters to changes of the electorate alone.
        let relevant = self.upkeep.replace_after.max(self.upkeep.admit_after).max(self.upkeep.admit_first_after);
        for (node, (state, since)) in states {
            (node, *state as u8, changes_allowed.then(|| steps.since(*since, relevant))).hash(into);
        }
        (gone, removed).hash(into);
        match role {
            Role::Follower => 0u8.hash(into),
            Role::Preparing(preparing) => outline_preparing(preparing, steps, into),
            Role::Leading(leading) => self.outline_leading(leading, steps, into),
        }
    }

    fn outline_leading(&self, leading: &Leading, steps: Steps, into: &mut impl Hasher) {
        let Leading {
            ballot,
            began,
            seq,
            rounds,
            until,
            committed,
            change,
            no_change_before,
            heard,
            estranged,
            renew_at,
            resend_at,
        } = leading;
        let holder = self.timing.holder;
        (2u8, ballot, seq, committed, estranged).hash(into);
        (until.map(|at| steps.until(at)), steps.until(*renew_at), resend_at.map(|at| steps.until(at))).hash(into);
        for (seq, Round { began, accepted }) in rounds {
            (seq, steps.since(*began, holder), accepted).hash(into);
        }
        // Who was heard when decides on changes of the electorate and on which spares to try.
        let spares = self.members.states.keys().any(|n| !self.durable.electorate.voters.contains(n));
        if self.changes_allowed || spares {
            let upkeep = self.upkeep.replace_after.max(self.upkeep.replace_mute_after);
            let relevant = self.timing.acceptor.max(upkeep);
            steps.since(*began, relevant).hash(into);
            steps.until(*no_change_before).hash(into);
            for (node, at) in heard {
                (node, steps.since(*at, relevant)).hash(into);
            }
        }
        if until.is_none() {
            steps.since(*began, holder).hash(into);
        }
        if let Some(Change { since, previous }) = change {
            (steps.since(*since, holder / 3), previous).hash(into);
        }
    }
}

fn outline_preparing(preparing: &Preparing, steps: Steps, into: &mut impl Hasher) {
    let Preparing { ballot, promised, asked_self, granted_until, tries, resend_at } = preparing;
    (1u8, ballot, promised, asked_self, steps.until(*resend_at)).hash(into);
    // Repetitions slow down no further after the third.
    (*tries).min(3).hash(into);
    for (node, until) in granted_until {
        let left = steps.until(*until);
        if left > 0 {
            (node, left).hash(into);
        }
    }
}

fn outline_doubt(doubt: &Doubt, steps: Steps, into: &mut impl Hasher) {
    let Doubt { nonce, answers, grants_end, trust_at, ask_at, tries } = doubt;
    (nonce, steps.until(*grants_end), trust_at.map(|at| steps.until(at)), steps.until(*ask_at)).hash(into);
    // Questions slow down no further after that.
    (*tries).min(MAX_BACKOFF).hash(into);
    for (node, Answer { promised, sure }) in answers {
        (node, promised, sure).hash(into);
    }
}
