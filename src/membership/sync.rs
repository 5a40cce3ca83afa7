//! Push-pull: tables brought in step two by two, so that no rumour has a long tail. Whole tables would cost every node as
//! many bytes as there are members, so a node says one short hash for each bucket of its table, and only the buckets
//! that differ travel, both ways. Nodes that meet for the first time show each other all.

use super::identity::{self, Member as FocaMember};
use super::{Membership, Scope};
use crate::ids::NodeId;
use crate::limits::MAX_MEMBERS;
use crate::model::node::Liveness;
use crate::time::Mono;
use crate::wire::message::{MemberEntry, MemberState, Message};
use rand::seq::IteratorRandom;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Members of one bucket, about.
const PER_BUCKET: usize = 16;
/// Of those that another's table calls dead so many are looked into at once.
const ACCUSED_AT_ONCE: usize = 8;
/// So many hashes fit a datagram.
const MAX_BUCKETS: usize = 128;

fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
    (product as u64) ^ (product >> 64) as u64 ^ 0x2545_f491_4f6c_dd1d
}

fn mix_wide(state: u64, word: u128) -> u64 {
    mix(mix(state, word as u64), (word >> 64) as u64)
}

fn bucket_of(node: NodeId, buckets: usize) -> usize {
    (mix_wide(0, node.as_u128()) % buckets.max(1) as u64) as usize
}

fn fingerprint(entry: &MemberEntry) -> u64 {
    let ip = match entry.addr.ip() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    // Down is the end of a life; which incarnation it had then is told in several ways.
    let (state, incarnation) = match entry.state {
        MemberState::Alive => (1, entry.incarnation),
        MemberState::Suspect => (2, entry.incarnation),
        MemberState::Down => (3, 0),
    };
    let state = mix_wide(mix_wide(state, entry.node.as_u128()), ip);
    mix(mix(state, entry.bump), u64::from(entry.addr.port()) << 16 | u64::from(incarnation))
}

/// One hash a bucket; order doesn't matter.
fn hashes(entries: &[MemberEntry], buckets: usize) -> Vec<u32> {
    let mut sums = vec![0u64; buckets];
    for entry in entries {
        if let Some(sum) = sums.get_mut(bucket_of(entry.node, buckets)) {
            *sum = sum.wrapping_add(fingerprint(entry));
        }
    }
    sums.into_iter().map(|sum| (sum ^ sum >> 32) as u32).collect()
}

/// So many members of a table are told on, one by one. More of them at once, as where a node joins or two sides of a cut meet, are
/// the tables' affair: each rumour is sent several times by everybody who hears it.
const RUMOURS_AT_ONCE: usize = 32;

impl Membership {
    /// The first half of an exchange.
    pub(super) fn offer_table(&mut self, to: NodeId) {
        let entries = self.spoken();
        let buckets = hashes(&entries, entries.len().div_ceil(PER_BUCKET).clamp(1, MAX_BUCKETS));
        self.tell_message(to, Message::MembersHash { buckets }, true);
    }

    /// A node's table in short: it is shown, and asked for, what differs.
    pub fn handle_members_hash(&mut self, from: NodeId, buckets: &[u32], now: Mono) {
        if !self.enter(now) || !self.concerns_another(from) {
            return;
        }
        if buckets.is_empty() || buckets.len() > MAX_BUCKETS {
            return self.reject();
        }
        self.heard(from);
        self.tell_if_dead(from);
        let entries = self.spoken();
        let ours = hashes(&entries, buckets.len());
        let differs = (0u8..).zip(buckets.iter().zip(&ours)).filter(|(_, (a, b))| a != b).map(|(n, _)| n);
        let differs: BTreeSet<u8> = differs.collect();
        if !differs.is_empty() {
            self.show_buckets(from, buckets.len(), differs, entries, true);
        }
    }

    /// What a node holds in these buckets.
    pub fn handle_members_part(&mut self, from: NodeId, part: MembersPart, now: Mono) {
        let MembersPart { of, buckets, members, reply } = part;
        if !self.enter(now) || !self.concerns_another(from) {
            return;
        }
        if members.len() > MAX_MEMBERS || usize::from(of) > MAX_BUCKETS {
            return self.reject();
        }
        self.heard(from);
        self.merge_members(from, &members);
        if reply {
            let entries = self.spoken();
            self.show_buckets(from, usize::from(of), buckets, entries, false);
        }
        self.tell_if_dead(from);
    }

    fn show_buckets(&mut self, to: NodeId, of: usize, which: BTreeSet<u8>, mut entries: Vec<MemberEntry>, reply: bool) {
        entries.retain(|entry| which.contains(&(bucket_of(entry.node, of) as u8)));
        let message = Message::MembersPart { of: of as u8, buckets: which, members: entries, reply };
        self.tell_message(to, message, false);
    }

    /// A whole table, a part of one, or what one node says about another.
    pub fn handle_members(&mut self, from: NodeId, members: Vec<MemberEntry>, reply: bool, now: Mono) {
        if !self.enter(now) || !self.concerns_another(from) {
            return;
        }
        if members.len() > MAX_MEMBERS {
            return self.reject();
        }
        self.heard(from);
        self.merge_members(from, &members);
        match (members.as_slice(), reply) {
            ([us, asker], true) if us.node == self.me.node && asker.node == from => {
                self.tell(from, vec![self.own_entry()], false);
            }
            ([one], true) if one.node != from && self.concerns_another(one.node) => self.bear_witness(from, one.node),
            ([one], false) if one.node != from && one.state != MemberState::Alive => self.confirm(one.node, from),
            (_, true) => self.tell(from, self.spoken(), false),
            (_, false) => self.tell_if_dead(from),
        }
    }

    /// It doesn't know that we hold it for dead, and is the only one who can change that.
    fn tell_if_dead(&mut self, node: NodeId) {
        if self.table.liveness(node).is_some_and(|liveness| liveness >= Liveness::Away) {
            self.tell_of_itself(node, false);
        }
    }

    fn merge_members(&mut self, from: NodeId, members: &[MemberEntry]) {
        let mut news = self.take_what_concerns_us(members, from);
        let mut accused = Vec::new();
        for entry in members {
            let stale = self.table.get(entry.node).is_some_and(|known| known.bump > entry.bump);
            if stale || !self.concerns_another(entry.node) || self.table.holds(entry) {
                continue;
            }
            if entry.state == MemberState::Down && self.lives_on_our_word(entry) {
                if !self.is_being_judged(entry.node) {
                    accused.push(entry.node);
                }
                continue;
            }
            let member = identity::from_entry(entry);
            if entry.bump > identity::MAX_BUMP || !self.admit(&member) {
                self.reject();
            } else {
                news.push(member);
            }
        }
        if !news.is_empty() {
            let about = news.iter().map(|member| member.id().node).collect();
            let spread = news.len() <= RUMOURS_AT_ONCE;
            let wanted = self.swim.apply(news, spread);
            self.settle(wanted, Scope::These(about), None);
        }
        // Whoever calls many dead may have been cut off himself, or we were: then to ask after all of them at once would
        // be what keeps the cluster busy. The rest come up again with the next exchange, here or elsewhere.
        for node in accused.into_iter().sample(&mut self.rng, ACCUSED_AT_ONCE) {
            self.take_for_dead(node);
        }
    }

    /// Answers a suspicion, outdoes a verdict. Returns what foca is to hear about us.
    fn take_what_concerns_us(&mut self, members: &[MemberEntry], from: NodeId) -> Vec<FocaMember> {
        let mut suspected = None;
        let mut highest = self.me.bump;
        let mut dead = false;
        for entry in members.iter().filter(|entry| entry.node == self.me.node && entry.bump <= identity::MAX_BUMP) {
            if entry.bump > highest {
                (highest, dead) = (entry.bump, true);
            } else if entry.bump == self.me.bump && entry.state == MemberState::Down {
                dead = true;
            } else if entry.bump == self.me.bump && entry.state == MemberState::Suspect {
                suspected = Some(FocaMember::new(self.me.clone(), entry.incarnation, foca::State::Suspect));
            }
        }
        if dead {
            self.renew(highest.saturating_add(1), Some(from));
            return Vec::new();
        }
        if suspected.as_ref().is_some_and(|s| s.incarnation() >= self.swim.incarnation()) {
            self.was_suspected();
        }
        suspected.into_iter().collect()
    }

    /// The same life that another calls down has not been found dead by us.
    fn lives_on_our_word(&self, entry: &MemberEntry) -> bool {
        self.table.liveness(entry.node).is_some_and(|liveness| liveness < Liveness::Away)
            && self.table.get(entry.node).is_some_and(|known| known.bump == entry.bump)
    }
}

/// [`Message::MembersPart`] taken apart.
#[derive(Debug)]
pub struct MembersPart {
    pub of: u8,
    pub buckets: BTreeSet<u8>,
    pub members: Vec<MemberEntry>,
    pub reply: bool,
}

#[cfg(test)]
mod tests {
    use super::super::sim::list;
    use super::*;

    #[test]
    fn equal_tables_have_equal_hashes_whatever_their_order() {
        let table = list(1_000);
        let mut other = table.clone();
        other.reverse();
        assert_eq!(hashes(&table, 63), hashes(&other, 63));
        other[3].incarnation = 1;
        let (a, b) = (hashes(&table, 63), hashes(&other, 63));
        assert_eq!(a.iter().zip(&b).filter(|(a, b)| a != b).count(), 1);
        assert!(table.iter().all(|entry| bucket_of(entry.node, MAX_BUCKETS) < 256));
    }
}
