//! What a voter must hear before it votes in a life that isn't its first (R10).
//!
//! Its disk tells what it promised, unless the disk was put back to an earlier state; and that no disk tells. So it asks the
//! other voters what is promised by now, and until it knows enough it promises and accepts nothing:
//!
//! - It hears as many, none of them in doubt itself, that they meet every majority this voter can have been one of, in the
//!   electorate that it knows or in the next one (of five voters, three of the four others). Whatever ballot it forgot, one of
//!   them has promised it or a later one. It promises nothing below the highest, and if that is news to it, it
//!   grants nobody anything until all grants that it may have forgotten have ended.
//! - Or it hears all others that were not removed, in doubt or not. A ballot that counts is still its candidate's own, and
//!   that one is among them.
//! - Or it hears no more than a majority, and in the life of a grant from then on nobody shows that its disk was put back:
//!   then it trusts the disk. Else losing power everywhere and a voter for good would cost the lease. Once
//!   shown that its disk was put back, it trusts it no more.
//!
//! Where the electorate is small enough to have changed without anybody in it (one or two voters), all members are asked.

use super::acceptor::Grant;
use super::{Lease, Output, is_sane};
use crate::ids::NodeId;
use crate::model::lease::Electorate;
use crate::model::record::Term;
use crate::time::Mono;
use crate::wire::message::LeaseMessage;
use std::collections::{BTreeMap, BTreeSet};

/// Answers come within this many resend periods, once links stand.
pub(super) const MAX_BACKOFF: u32 = 3;
/// Nobody has this id: whom a grant to nobody is for.
pub(super) const NOBODY: NodeId = NodeId::from_u128(0);

#[derive(Debug, Clone)]
pub(super) struct Doubt {
    pub nonce: u64,
    pub answers: BTreeMap<NodeId, Answer>,
    /// When every grant of an earlier life has ended.
    pub grants_end: Mono,
    /// When the disk is trusted, from the moment on that a majority has answered.
    pub trust_at: Option<Mono>,
    pub ask_at: Mono,
    pub tries: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub promised: Term,
    pub sure: bool,
}

impl Doubt {
    pub fn new(nonce: u64, grants_end: Mono, now: Mono) -> Self {
        Self { nonce, answers: BTreeMap::new(), grants_end, trust_at: None, ask_at: now, tries: 0 }
    }

    fn highest(&self) -> Term {
        self.answers.values().map(|a| a.promised).max().unwrap_or(Term::ZERO)
    }

    /// When to look again.
    pub fn deadline(&self, may_trust: bool) -> Mono {
        self.trust_at.filter(|_| may_trust).map_or(self.ask_at, |at| at.min(self.ask_at))
    }
}

/// With `voters` of them, how many others are in every majority's way, of this electorate and of the next.
fn enough(voters: usize) -> usize {
    let majority = |n: usize| n / 2 + 1;
    // Of the next one's majority this voter is one, and so may be the voter that is new in it.
    let grown = majority(voters + 1).saturating_sub(2);
    let shrunk = majority(voters.saturating_sub(1)).saturating_sub(1);
    voters - grown.min(shrunk).min(voters)
}

impl Lease {
    pub fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// What it asks, in doubt: whose answers it waits for.
    pub fn asks(&self) -> Option<u64> {
        self.doubt.as_ref().map(|doubt| doubt.nonce)
    }

    /// Peers hold writes that this node forgot. If it trusted its disk it does so no more.
    pub fn disk_was_put_back(&mut self, now: Mono) {
        if std::mem::take(&mut self.trusts_its_disk) {
            let nonce = self.draw();
            self.doubt = Some(Doubt::new(nonce, now + self.timing.acceptor, now));
            self.step_down(now);
        }
        if self.doubt.is_some() && !self.durable.put_back {
            // For the next lives too, if this one doesn't get to hear enough.
            self.durable.put_back = true;
            self.save(true);
        }
    }

    /// Whom it takes to resolve the doubt.
    fn witnesses(&self) -> BTreeSet<NodeId> {
        let mut witnesses = self.durable.electorate.voters.clone();
        if witnesses.len() <= 2 {
            witnesses.extend(self.members.all());
        }
        witnesses.remove(&self.me);
        witnesses.retain(|n| !self.removed.contains(n));
        witnesses
    }

    /// Taken from the cluster: nobody hears it any more, so that no ballot of its own counts, and it answers nobody.
    pub fn forget_voter(&mut self, node: NodeId, now: Mono) {
        self.removed.insert(node);
        self.resolve_doubt(now);
    }

    pub(super) fn doubt_on(&mut self, now: Mono) {
        self.resolve_doubt(now);
        if self.doubt.is_none() {
            return;
        }
        let patience = self.courtesy(self.timing.resend());
        let witnesses = self.witnesses();
        let Some(doubt) = &mut self.doubt else { return };
        if doubt.ask_at > now {
            return;
        }
        doubt.ask_at = now + patience * (1 << doubt.tries.min(MAX_BACKOFF));
        doubt.tries += 1;
        let nonce = doubt.nonce;
        let unsure = |n: &NodeId| !doubt.answers.get(n).is_some_and(|a| a.sure);
        for to in witnesses.into_iter().filter(unsure) {
            self.outputs.push_back(Output::Send { to, message: LeaseMessage::Recall { nonce } });
        }
    }

    /// Behind whatever this node's own state waits for: what it answers is durable.
    pub(super) fn on_recall(&mut self, from: NodeId, nonce: u64) {
        let promised = self.durable.least().max(self.role.ballot().unwrap_or(Term::ZERO));
        let electorate = self.durable.electorate.clone();
        let sure = self.doubt.is_none();
        self.save(false);
        self.send(from, LeaseMessage::Recalled { nonce, promised, electorate, sure });
    }

    pub(super) fn on_recalled(
        &mut self,
        from: NodeId,
        nonce: u64,
        promised: Term,
        electorate: Electorate,
        sure: bool,
        now: Mono,
    ) {
        let Some(doubt) = self.doubt.as_mut().filter(|d| d.nonce == nonce) else { return };
        doubt.answers.insert(from, Answer { promised: promised.max(electorate.id.term), sure });
        self.saw_round(promised.round);
        if electorate.id > self.durable.electorate.id && is_sane(&electorate) {
            self.adopt(electorate);
            self.save(true);
            // Others are to be asked now.
            if let Some(doubt) = &mut self.doubt {
                doubt.ask_at = now;
            }
        }
        self.resolve_doubt(now);
    }

    pub(super) fn resolve_doubt(&mut self, now: Mono) {
        if self.doubt.is_none() {
            return;
        }
        // Of a cluster this node may know no electorate, or not yet its members. Then there is nobody to ask.
        let voters = self.durable.electorate.voters.len();
        let knows = voters > 2 || (voters > 0 && self.members.are_known());
        let witnesses = if knows { self.witnesses() } else { BTreeSet::new() };
        let Some(doubt) = &mut self.doubt else { return };
        let voters = &self.durable.electorate.voters;
        if doubt.trust_at.is_none() && self.durable.electorate.is_majority(doubt.answers.keys().chain([&self.me])) {
            doubt.trust_at = Some(now + self.timing.acceptor);
        }
        let sure = voters.iter().filter(|n| doubt.answers.get(n).is_some_and(|a| a.sure)).count();
        let all = witnesses.iter().all(|n| doubt.answers.contains_key(n));
        let told = (knows && all) || (voters.len() > 2 && sure >= enough(voters.len()));
        let trusts = !self.durable.put_back && doubt.trust_at.is_some_and(|at| at <= now);
        if !told && !trusts {
            return;
        }
        let (highest, grants_end) = (doubt.highest(), doubt.grants_end);
        self.trusts_its_disk = !told;
        self.doubt = None;
        let news = highest > self.durable.promised;
        let put_back = std::mem::take(&mut self.durable.put_back);
        let higher = highest > self.durable.least();
        self.durable.floor = self.durable.floor.max(highest);
        if higher || put_back {
            self.save(true);
        }
        if news || put_back {
            self.grant = Some(Grant { ballot: Term { round: highest.round, node: NOBODY }, expires: grants_end });
        }
        self.plan_campaign(now);
    }
}

#[cfg(test)]
mod tests {
    use super::enough;

    #[test]
    fn enough_meet_every_majority_that_a_voter_can_have_been_one_of() {
        let ways: Vec<(usize, usize)> = (1..=6).map(|voters| (voters, enough(voters))).collect();
        assert_eq!(ways, [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)]);
    }
}
