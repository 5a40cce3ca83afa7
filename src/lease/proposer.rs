//! What a candidate and a holder do: ask a majority for promises, propose, renew (R3, R4), and drop it all
//! as soon as this node itself has promised or adopted something higher (R7).
//!
//! A candidate asks itself last, once the others' promises and its own would do: a voter that is cut off then
//! doesn't bind itself to ballots that nobody else ever saw, and can still accept the holder's renewals
//! when it is back. For the same reason it repeats its ballot until somebody has promised a higher one.

use super::{Lease, MAX_ROUND, Output, Timing};
use crate::ids::NodeId;
use crate::model::lease::{Electorate, ElectorateId};
use crate::model::record::Term;
use crate::plant::{Bug, is_planted};
use crate::time::Mono;
use crate::wire::message::LeaseMessage;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Renewals under way at a time; more only if answers take longer than this many renewal periods.
const MAX_ROUNDS_UNDER_WAY: usize = 8;

#[derive(Debug, Clone)]
pub(super) enum Role {
    Follower,
    Preparing(Preparing),
    Leading(Leading),
}

/// Asking for promises. Counted against the electorate that the campaign began with: if this node adopts
/// another one the campaign ends.
#[derive(Debug, Clone)]
pub(super) struct Preparing {
    pub ballot: Term,
    pub promised: BTreeSet<NodeId>,
    pub asked_self: bool,
    /// Voters that refused because of a grant, and until when it lives.
    pub granted_until: BTreeMap<NodeId, Mono>,
    pub tries: u32,
    pub resend_at: Mono,
}

/// Promised by a majority: proposing, then holding.
#[derive(Debug, Clone)]
pub(super) struct Leading {
    pub ballot: Term,
    pub began: Mono,
    pub seq: u64,
    /// Proposals under way, by `seq`; all carry the current electorate.
    pub rounds: BTreeMap<u64, Round>,
    /// The end of the lease by the best round so far.
    pub until: Option<Mono>,
    /// The electorate last accepted by a majority of itself.
    pub committed: Option<ElectorateId>,
    /// The change of the electorate that waits for its majority.
    pub change: Option<Change>,
    pub no_change_before: Mono,
    /// Who accepted a proposal of this term, and when last; voters and nodes that may become one.
    pub heard: BTreeMap<NodeId, Mono>,
    /// Refused because they promised a higher ballot, and will as long as this term lasts.
    pub estranged: BTreeSet<NodeId>,
    pub renew_at: Mono,
    pub resend_at: Option<Mono>,
}

#[derive(Debug, Clone)]
pub(super) struct Round {
    /// Before the proposal left: no voter's grant began earlier.
    pub began: Mono,
    pub accepted: BTreeSet<NodeId>,
}

#[derive(Debug, Clone)]
pub(super) struct Change {
    pub since: Mono,
    /// The voters before it, in force still; `None` if it takes an earlier change back.
    pub previous: Option<BTreeSet<NodeId>>,
}

impl Leading {
    pub fn in_force(&self, now: Mono, timing: Timing) -> bool {
        self.until.is_some_and(|until| now + timing.margin() < until)
    }

    /// When this comes to an end unless a round succeeds: the lease's end less the margin, or, for one that
    /// never held it, as long as a lease.
    pub fn lapses_at(&self, timing: Timing) -> Mono {
        self.until.map_or(self.began + timing.holder, |until| until - timing.margin())
    }

    pub fn deadline(&self, timing: Timing) -> Mono {
        let next = self.lapses_at(timing).min(self.renew_at);
        self.resend_at.map_or(next, |at| at.min(next))
    }

    /// Counts the proposals of this term.
    pub fn turn(&self) -> usize {
        usize::try_from(self.seq).unwrap_or(0)
    }

    /// So many voters promised a higher ballot that no round of this one can succeed.
    fn is_outbid(&self, electorate: &Electorate) -> bool {
        !electorate.is_majority(electorate.voters.difference(&self.estranged))
    }

    /// The electorate changed: what older rounds gather counts no more.
    pub fn forget_rounds(&mut self) {
        self.rounds.clear();
    }
}

impl Role {
    pub fn ballot(&self) -> Option<Term> {
        match self {
            Role::Follower => None,
            Role::Preparing(preparing) => Some(preparing.ballot),
            Role::Leading(leading) => Some(leading.ballot),
        }
    }
}

// Coming and going.
impl Lease {
    /// Stand for election some time after `from`, and not while a grant of ours to somebody else lives.
    pub(super) fn plan_campaign(&mut self, from: Mono) {
        if !self.is_voter() || self.retired || self.doubt.is_some() {
            self.campaign_at = None;
            return;
        }
        let free = self.granted_to_another(self.me, from).unwrap_or(from);
        let delay = self.candidate_delay();
        self.campaign_at = Some(free + delay);
    }

    /// One after the other by id, those that are down left out, later after each failure.
    /// A lone voter has nobody to wait for.
    fn candidate_delay(&mut self) -> Duration {
        if self.durable.electorate.voters.len() == 1 {
            return Duration::ZERO;
        }
        let before_me = |n: &&NodeId| **n < self.me && self.members.may_be_up(**n);
        let rank = self.durable.electorate.voters.iter().filter(before_me).count();
        let slot = self.timing.slot();
        let rank = u32::try_from(rank).unwrap_or(u32::MAX).min(8);
        self.courtesy(slot * rank) + self.jitter(slot * (1 << self.failures.min(4)))
    }

    /// Drops what this node had under way, the lease with it.
    pub(super) fn step_down(&mut self, now: Mono) {
        if let Role::Leading(leading) = &self.role
            && leading.until.is_some()
        {
            self.outputs.push_back(Output::Lost(leading.ballot));
        }
        self.role = Role::Follower;
        self.plan_campaign(now);
    }

    pub(super) fn step_down_if_lapsed(&mut self, now: Mono) {
        if let Role::Leading(leading) = &self.role
            && now >= leading.lapses_at(self.timing)
        {
            if leading.until.is_none() {
                self.failures = self.failures.saturating_add(1);
            }
            self.abandon_step();
            self.step_down(now);
        }
    }

    /// This node promised `ballot` to another: its own lower round is over (R7), and the other gets a chance.
    pub(super) fn yield_to(&mut self, ballot: Term, now: Mono) {
        if is_planted(Bug::NoStepDown) {
            return;
        }
        if self.role.ballot().is_some_and(|own| own > ballot) {
            return;
        }
        self.step_down(now + self.courtesy(self.timing.resend() * 2));
    }

    /// This node accepted a proposal of another, which has a majority's promises: nothing is left to do here.
    pub(super) fn follow(&mut self, ballot: Term, now: Mono) {
        if is_planted(Bug::NoStepDown) {
            return;
        }
        self.failures = 0;
        self.hearsay = Some((ballot, now + self.timing.acceptor));
        self.step_down(now);
    }

    /// `by` gave the lease up on purpose.
    pub(super) fn lease_came_free(&mut self, by: NodeId, now: Mono) {
        match &mut self.role {
            Role::Follower => self.plan_campaign(now),
            Role::Preparing(preparing) => {
                preparing.granted_until.clear();
                preparing.resend_at = preparing.resend_at.min(now + self.timing.slot());
            }
            Role::Leading(leading) => {
                leading.heard.remove(&by);
            }
        }
    }
}

// The candidate.
impl Lease {
    pub(super) fn campaign(&mut self, now: Mono) {
        if !self.is_voter() || self.retired {
            self.campaign_at = None;
            return;
        }
        if self.granted_to_another(self.me, now).is_some() {
            self.plan_campaign(now);
            return;
        }
        self.campaign_at = None;
        let round = self.highest_round.saturating_add(1).min(MAX_ROUND);
        self.saw_round(round);
        self.durable.round_used = round;
        self.role = Role::Preparing(Preparing {
            ballot: Term { round, node: self.me },
            promised: BTreeSet::new(),
            asked_self: false,
            granted_until: BTreeMap::new(),
            tries: 0,
            resend_at: now,
        });
        // A ballot is used in one life only: its round is durable before anybody hears of it.
        self.save(true);
        self.prepare_again(now);
    }

    /// Asks those that haven't promised yet. More and more seldom; not before enough grants can have ended.
    pub(super) fn prepare_again(&mut self, now: Mono) {
        let patience = self.courtesy(self.timing.resend());
        let jitter = self.jitter(self.timing.slot());
        let others = self.others();
        let Role::Preparing(preparing) = &mut self.role else { return };
        preparing.resend_at = now + patience * (1 << preparing.tries.min(3)) + jitter;
        preparing.tries = preparing.tries.saturating_add(1);
        preparing.granted_until.retain(|_, until| *until > now);
        let ballot = preparing.ballot;
        let mut to: Vec<NodeId> = others.into_iter().filter(|n| !preparing.promised.contains(n)).collect();
        if preparing.asked_self && !preparing.promised.contains(&self.me) {
            to.push(self.me);
        }
        self.save(false);
        for to in to {
            let electorate = self.durable.electorate.clone();
            self.send(to, LeaseMessage::Prepare { ballot, electorate });
        }
        self.count_promises(now);
    }

    pub(super) fn on_promise(&mut self, from: NodeId, ballot: Term, now: Mono) {
        if let Role::Preparing(preparing) = &mut self.role
            && preparing.ballot == ballot
        {
            preparing.promised.insert(from);
            preparing.granted_until.remove(&from);
            self.count_promises(now);
        }
    }

    fn count_promises(&mut self, now: Mono) {
        let electorate = &self.durable.electorate;
        let Role::Preparing(preparing) = &mut self.role else { return };
        if electorate.is_majority(&preparing.promised) {
            let ballot = preparing.ballot;
            self.propose_first(ballot, now);
        } else if !preparing.asked_self && electorate.is_majority(preparing.promised.iter().chain([&self.me])) {
            preparing.asked_self = true;
            let (to, ballot) = (self.me, preparing.ballot);
            let electorate = electorate.clone();
            self.send(to, LeaseMessage::Prepare { ballot, electorate });
        }
    }

    /// The first proposal carries the electorate restamped with the new term: that is what it commits first,
    /// so that a change which an earlier holder left half done can't come back later.
    fn propose_first(&mut self, ballot: Term, now: Mono) {
        let id = ElectorateId { epoch: self.durable.electorate.id.epoch, term: ballot, version: 0 };
        let id = if is_planted(Bug::NoRestamp) { self.durable.electorate.id } else { id };
        self.durable.electorate.id = id;
        self.save(true);
        self.role = Role::Leading(Leading {
            ballot,
            began: now,
            seq: 0,
            rounds: BTreeMap::new(),
            until: None,
            committed: None,
            change: None,
            no_change_before: now,
            heard: BTreeMap::new(),
            estranged: BTreeSet::new(),
            renew_at: now,
            resend_at: None,
        });
        self.propose(now);
    }

    pub(super) fn on_held(&mut self, from: NodeId, promised: Term, holder: Option<NodeId>, left: Duration, now: Mono) {
        self.saw_round(promised.round);
        let until = now + left.min(self.timing.acceptor);
        if let Some(holder) = holder
            && promised.node == holder
            && holder != self.me
            && until > now
        {
            self.hearsay = Some((promised, until));
        }
        match &mut self.role {
            Role::Follower => {}
            Role::Preparing(preparing) if promised > preparing.ballot => {
                self.failures = self.failures.saturating_add(1);
                self.step_down(now);
                if holder.is_some_and(|h| h != self.me) {
                    self.campaign_at = self.campaign_at.map(|at| at.max(until));
                }
            }
            Role::Preparing(preparing) => {
                if holder.is_some_and(|h| h != self.me) {
                    preparing.granted_until.insert(from, until);
                    let free = self.enough_grants_end(now);
                    let jitter = self.jitter(self.timing.slot());
                    if let Role::Preparing(preparing) = &mut self.role
                        && free > now
                    {
                        preparing.resend_at = free + jitter;
                    }
                }
            }
            Role::Leading(leading) => {
                if promised > leading.ballot {
                    leading.estranged.insert(from);
                }
                if leading.until.is_none() && leading.is_outbid(&self.durable.electorate) {
                    self.failures = self.failures.saturating_add(1);
                    self.step_down(now);
                }
            }
        }
    }

    /// When, by what refusals said, a majority may promise: the instant at which the last grant that
    /// stands in the way ends. Voters that said nothing may promise at once.
    fn enough_grants_end(&self, now: Mono) -> Mono {
        let Role::Preparing(preparing) = &self.role else { return now };
        let electorate = &self.durable.electorate;
        let free_at = |n: &NodeId| preparing.granted_until.get(n).copied().unwrap_or(now);
        let mut free: Vec<Mono> = electorate.voters.iter().map(free_at).collect();
        free.sort_unstable();
        free.get(electorate.majority() - 1).copied().unwrap_or(now)
    }
}

// The holder.
impl Lease {
    pub(super) fn leading(&mut self) -> Option<&mut Leading> {
        match &mut self.role {
            Role::Leading(leading) => Some(leading),
            _ => None,
        }
    }

    /// A deadline of a node that leads: renew, or say the last proposal again.
    pub(super) fn lead_on(&mut self, now: Mono) {
        let Role::Leading(leading) = &self.role else { return };
        if leading.renew_at <= now {
            if self.wants_higher_ballot(now) {
                self.abandon_step();
                self.step_down(now);
                self.campaign(now);
                return;
            }
            if !self.maintain(now) {
                self.propose(now);
            }
        } else if leading.resend_at.is_some_and(|at| at <= now) {
            self.propose_again(now);
        }
    }

    /// Voters (or nodes that should become one) that promised a higher ballot to a candidate which came to
    /// nothing refuse every renewal of this term, and quietly cost the lease its tolerance of the next
    /// failure. A new election, which the others' grants to this node let it win at once, brings them back.
    fn wants_higher_ballot(&self, now: Mono) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        let settled = now >= leading.began + self.courtesy(self.timing.acceptor);
        (settled && !leading.estranged.is_empty()) || leading.is_outbid(&self.durable.electorate)
    }

    /// A new round: the same ballot, a later `seq`, the lease counted from now.
    pub(super) fn propose(&mut self, now: Mono) {
        let (renew, resend) = (self.courtesy(self.timing.renew), self.courtesy(self.timing.resend()));
        let lone = self.durable.electorate.voters.len() == 1;
        let Some(leading) = self.leading() else { return };
        leading.seq += 1;
        leading.rounds.insert(leading.seq, Round { began: now, accepted: BTreeSet::new() });
        while leading.rounds.len() > MAX_ROUNDS_UNDER_WAY {
            leading.rounds.pop_first();
        }
        leading.renew_at = now + renew;
        leading.resend_at = (!lone).then_some(now + resend);
        let spares = self.spares_to_try(now);
        let to: Vec<NodeId> = self.durable.electorate.voters.iter().copied().chain(spares).collect();
        self.send_proposal(to);
    }

    /// The same round to those that haven't answered; its lease still counts from when it began.
    fn propose_again(&mut self, now: Mono) {
        let resend = self.courtesy(self.timing.resend());
        let voters = self.durable.electorate.voters.clone();
        let Some(leading) = self.leading() else { return };
        let Some((_, round)) = leading.rounds.last_key_value() else {
            leading.resend_at = None;
            return;
        };
        let to: Vec<NodeId> = voters.difference(&round.accepted).copied().collect();
        leading.resend_at = (!to.is_empty()).then_some(now + resend);
        self.send_proposal(to);
    }

    fn send_proposal(&mut self, to: Vec<NodeId>) {
        let Some((ballot, seq)) = self.leading().map(|l| (l.ballot, l.seq)) else { return };
        self.save(false);
        for to in to {
            let electorate = self.durable.electorate.clone();
            self.send(to, LeaseMessage::Propose { ballot, seq, electorate });
        }
    }

    pub(super) fn on_accepted(&mut self, from: NodeId, ballot: Term, seq: u64, now: Mono) {
        let (holder, margin) = (self.timing.holder, self.timing.margin());
        let electorate = self.durable.electorate.clone();
        let Some(leading) = self.leading() else { return };
        if leading.ballot != ballot || seq > leading.seq {
            return;
        }
        leading.heard.insert(from, now);
        leading.estranged.remove(&from);
        if let Some(round) = leading.rounds.get_mut(&seq) {
            round.accepted.insert(from);
            let until = round.began + holder;
            // Answers that come after the end of what they would grant count for nothing (R4).
            if electorate.is_majority(&round.accepted) && now + margin < until {
                leading.rounds = leading.rounds.split_off(&seq);
                self.round_succeeded(until, &electorate);
            }
        }
        self.maintain(now);
    }

    fn round_succeeded(&mut self, until: Mono, electorate: &Electorate) {
        let Some(leading) = self.leading() else { return };
        let ballot = leading.ballot;
        let first = leading.until.is_none();
        leading.until = leading.until.max(Some(until));
        let newly_committed = leading.committed.replace(electorate.id) != Some(electorate.id);
        if newly_committed {
            leading.change = None;
        }
        if first {
            self.failures = 0;
            self.hearsay = None;
            self.outputs.push_back(Output::Acquired(ballot));
        }
        if newly_committed {
            self.outputs.push_back(Output::Electorate(electorate.clone()));
        }
    }
}

/// One step of the electorate (R6): stored here, proposed at once, in force when a majority of it accepted.
impl Lease {
    pub(super) fn change_electorate(&mut self, voters: BTreeSet<NodeId>, change: Change, now: Mono) {
        let Some(leading) = self.leading() else { return };
        leading.forget_rounds();
        leading.change = Some(change);
        self.next_electorate(voters);
        self.propose(now);
    }

    /// A step that isn't in force as its term ends is taken back: the next campaign counts by what was in force before.
    fn abandon_step(&mut self) {
        let Role::Leading(leading) = &self.role else { return };
        if let Some(previous) = leading.change.as_ref().and_then(|change| change.previous.clone()) {
            self.next_electorate(previous);
        }
    }

    /// The next under this node's own ballot, under which nobody else names any.
    pub(super) fn next_electorate(&mut self, voters: BTreeSet<NodeId>) {
        let id = &mut self.durable.electorate.id;
        id.version = id.version.saturating_add(1);
        self.durable.electorate.voters = voters;
        self.save(true);
    }
}
