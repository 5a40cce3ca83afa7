//! What a voter does: promise, accept, and refuse while a grant of its own lives (R1, R2).
//!
//! A promise is durable, so it binds later lives too. A grant is not: a restarted voter acts as if it had
//! just granted the lease to whomever it last made a promise.

use super::{Durable, Lease, MAX_ROUND, Timing, is_sane};
use crate::ids::NodeId;
use crate::model::lease::Electorate;
use crate::model::record::Term;
use crate::plant::{Bug, is_planted};
use crate::time::Mono;
use crate::wire::message::LeaseMessage;
use std::time::Duration;

/// While it lives, nobody but `ballot.node` gets a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub ballot: Term,
    pub expires: Mono,
}

impl Grant {
    /// The boot wait: a grant that an earlier life may have given and forgotten, assumed to be as fresh as can be.
    ///
    /// Only one node can be owed it, the one that holds the last durable promise. A promise is made only while
    /// no grant to another lives, so right after it every living grant is its own. A later acceptance of a
    /// higher ballot raises the promise with it and overwrites the grant; a grant it overwrites was worthless,
    /// since a proposal shows that a majority promised its ballot after all earlier leases had ended. And an
    /// answer whose persist was not durable never left, so nobody counts on it.
    ///
    /// So everybody else waits for one grant's life after a restart, and that node doesn't: a voter that last
    /// promised to itself leads again at once after a restart (its own earlier life is over and acts no more),
    /// under a new, higher round, which is what a cluster with one voter needs.
    pub fn of_an_earlier_life(durable: &Durable, timing: Timing, now: Mono) -> Option<Self> {
        (durable.promised != Term::ZERO).then_some(Self { ballot: durable.promised, expires: now + timing.acceptor })
    }
}

impl Lease {
    /// Until when a grant to a node other than `node` lives.
    pub(super) fn granted_to_another(&self, node: NodeId, now: Mono) -> Option<Mono> {
        self.grant.filter(|g| g.ballot.node != node && g.expires > now).map(|g| g.expires)
    }

    pub(super) fn on_prepare(&mut self, from: NodeId, ballot: Term, electorate: &Electorate, now: Mono) {
        if !is_own(from, ballot) || !is_sane(electorate) {
            return;
        }
        self.saw_round(ballot.round);
        if electorate.id < self.durable.electorate.id && !is_planted(Bug::OldElectorates) {
            let electorate = self.durable.electorate.clone();
            self.send(from, LeaseMessage::Newer { electorate });
            return;
        }
        let taken = self.granted_to_another(from, now).is_some() && !is_planted(Bug::PromiseWhileGranted);
        // The same ballot again: the answer was lost, and says nothing new.
        if ballot < self.durable.least() || taken {
            self.refuse(from, now);
            return;
        }
        let changed = ballot != self.durable.promised;
        self.durable.promised = ballot;
        self.save(changed);
        self.send(from, LeaseMessage::Promise { ballot });
        if from != self.me {
            self.yield_to(ballot, now);
        }
    }

    pub(super) fn on_propose(&mut self, from: NodeId, ballot: Term, seq: u64, electorate: Electorate, now: Mono) {
        if !is_own(from, ballot) || !is_sane(&electorate) {
            return;
        }
        self.saw_round(ballot.round);
        if ballot < self.durable.least() {
            self.refuse(from, now);
            return;
        }
        if electorate.id < self.durable.electorate.id && !is_planted(Bug::OldElectorates) {
            let electorate = self.durable.electorate.clone();
            self.send(from, LeaseMessage::Newer { electorate });
            return;
        }
        let mut changed = electorate.id > self.durable.electorate.id;
        if changed {
            self.adopt(electorate);
        }
        if self.released == Some(ballot) {
            return;
        }
        changed |= ballot != self.durable.promised;
        self.durable.promised = ballot;
        self.grant = Some(Grant { ballot, expires: now + self.timing.acceptor });
        self.save(changed);
        self.send(from, LeaseMessage::Accepted { ballot, seq });
        if from != self.me {
            self.follow(ballot, now);
        }
    }

    /// The holder gave its lease up: whoever is first may have it. Only its own grant goes; if a delayed
    /// proposal of the same ballot turns up later it renews nothing.
    pub(super) fn on_release(&mut self, from: NodeId, ballot: Term, now: Mono) {
        if !is_own(from, ballot) {
            return;
        }
        self.released = self.released.max(Some(ballot));
        if self.grant.is_some_and(|g| g.ballot == ballot) {
            self.grant = None;
        }
        if self.hearsay.is_some_and(|(term, _)| term == ballot) {
            self.hearsay = None;
        }
        if from != self.me {
            self.lease_came_free(from, now);
        }
    }

    fn refuse(&mut self, to: NodeId, now: Mono) {
        let alive = self.grant.filter(|g| g.expires > now);
        let remaining = alive.map_or(Duration::ZERO, |g| g.expires.since(now));
        self.send(
            to,
            LeaseMessage::Held {
                promised: self.durable.least(),
                holder: alive.map(|g| g.ballot.node),
                // Rounded up: a millisecond too early would be refused again.
                remaining_ms: u32::try_from(remaining.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX),
            },
        );
    }
}

/// A ballot carries its candidate; nobody speaks for another.
fn is_own(from: NodeId, ballot: Term) -> bool {
    ballot.node == from && ballot != Term::ZERO && ballot.round <= MAX_ROUND
}
