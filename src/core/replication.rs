//! Messages between members, and who is told what: pushes to all in small clusters, to a random few in big ones;
//! a random node asked every second; acknowledgements counted for the writes that operators wait for.

use super::*;
use crate::membership::MembersPart;
use crate::model::record::{Log, Record};
use crate::store::Delta;
use crate::wire::message::Digest;
use rand::RngExt;
use rand::seq::IteratorRandom;

/// New records of others are passed on so soon after they came.
const PASS_ON_AFTER: Duration = Duration::from_millis(5);
/// So many nodes of a big cluster compare with one that has come up, about, and one node with so many.
const GREETERS: usize = 4;
const GREETINGS_PER_SECOND: usize = 4;

impl Core {
    pub(super) fn handle_message(&mut self, from: NodeId, bytes: &[u8], now: Now) {
        if self.removed.contains(&from) || from == self.me {
            return;
        }
        let message = match codec::decode::<Message>(bytes, limits::MAX_MESSAGE_BYTES) {
            Ok(message) => message,
            Err(error) => {
                self.notice(Notice::Warning(format!("dropped a message from node {from}: {error}")));
                return;
            }
        };
        self.membership.heard_from(from, now.mono);
        match message {
            Message::Gossip(packet) => self.membership.handle_gossip(from, &packet, now.mono),
            Message::Members { members, reply } => self.membership.handle_members(from, members, reply, now.mono),
            Message::MembersHash { buckets } => self.membership.handle_members_hash(from, &buckets, now.mono),
            Message::MembersPart { of, buckets, members, reply } => {
                self.membership.handle_members_part(from, MembersPart { of, buckets, members, reply }, now.mono);
            }
            Message::Leaving { for_good } => self.membership.handle_leaving(from, for_good, now.mono),
            Message::Compare { hash } => self.store.handle_compare(from, hash),
            Message::Same { hash } => self.store.handle_same(from, hash),
            Message::Differs { buckets } => self.store.handle_differs(from, &buckets),
            Message::Ask { nonce, scope, digest, in_return } => {
                self.store.handle_ask(from, nonce, scope, &digest, in_return);
            }
            Message::Delta { nonce, scope, base, mut records, mut upto, more } => {
                self.refuse_in_our_name(from, &mut records, Some(&mut upto));
                let whole = self.store.handle_delta(from, Delta { nonce, scope, base, records, upto, more }, now);
                if whole {
                    self.note_answer(from, nonce);
                }
            }
            Message::AskOn { nonce, scope, read } => self.store.handle_ask_on(from, nonce, scope, &read),
            Message::Push { mut records } => {
                self.refuse_in_our_name(from, &mut records, None);
                let fresh = self.store.handle_push(from, records, now);
                self.pass_on(fresh, now);
            }
            Message::PushAck { held } => self.store.handle_push_ack(from, &held),
            Message::Collected { places } => self.store.handle_collected(&places),
            Message::SeenAsk { author, seq } => self.handle_seen_ask(from, author, seq),
            Message::Seen { author, seq } => self.handle_seen(from, author, seq),
            Message::Lease(message) => self.lease.handle(from, message, now.mono),
            Message::OldAsk { .. } | Message::OldDelta { .. } | Message::OldPushAck { .. } => {}
        }
    }

    /// Only this process writes to the log of this life, so what it holds nothing of is made up. (Of an earlier life it may be
    /// that our disk was put back.)
    fn refuse_in_our_name(&mut self, from: NodeId, records: &mut Vec<Record>, upto: Option<&mut Digest>) {
        if is_planted(Bug::OneLogForAllLives) {
            return;
        }
        let (log, last) = Log::of(self.me, self.store.own_seq());
        let count = records.len();
        records.retain(|record| record.place().0 != log || record.place().1 <= last);
        let claimed = upto.filter(|upto| upto.get(&log).is_some_and(|number| *number > last));
        let is_claimed = claimed.is_some_and(|upto| upto.remove(&log).is_some());
        if records.len() < count || is_claimed {
            let text = format!("refused: node {from} tells of writes in this node's name that it never made");
            self.notice(Notice::Warning(text));
        }
    }

    /// To a member, behind every write issued so far; nothing if its address isn't known.
    pub(super) fn send(&mut self, to: NodeId, message: &Message) {
        let Some(addr) = self.address(to) else { return };
        // What is said every second anyway may get lost.
        let datagram = matches!(message, Message::Compare { .. } | Message::Same { .. });
        self.outbox.push(Effect::Send { to, addr, datagram, bytes: codec::encode(message) });
    }

    fn reachable(&self) -> impl Iterator<Item = NodeId> {
        let live = self.membership.members().filter(|m| m.liveness <= Liveness::Suspect);
        live.map(|m| m.node).filter(|n| *n != self.me && !self.removed.contains(n))
    }

    /// Finds out what we and one live node lack of each other: a voter whose word something waits for, else any,
    /// unless a long answer is being read just now.
    pub(super) fn exchange_with_someone(&mut self, now: Now) {
        // In the order of their ids.
        let live: Vec<NodeId> = self.reachable().collect();
        let lives = |n: &NodeId| live.binary_search(n).is_ok();
        let owing: Vec<NodeId> = self.voters_owing().chain(self.voters_behind()).filter(lives).collect();
        let chosen = if !owing.is_empty() {
            owing.into_iter().choose(&mut self.rng)
        } else if self.store.is_reading(now.mono) {
            None
        } else {
            live.into_iter().choose(&mut self.rng)
        };
        if let Some(node) = chosen {
            self.store.compare(node);
        }
    }

    /// New records of ours: at once to all, or in a big cluster to the voters and a random few who pass them on.
    pub(super) fn push_records(&mut self, records: Vec<Record>) {
        let live: Vec<NodeId> = self.reachable().collect();
        let mut targets: BTreeSet<NodeId> = if live.len() <= limits::PUSH_TO_ALL_NODES {
            live.into_iter().collect()
        } else {
            let few = fan_out(live.len());
            live.into_iter().sample(&mut self.rng, few).into_iter().collect()
        };
        targets.extend(self.lease.electorate().voters.iter().filter(|v| **v != self.me));
        self.push_to(&targets, records);
    }

    /// In a big cluster what is new here is passed on, once, together with what comes in the same moment.
    fn pass_on(&mut self, records: Vec<Record>, now: Now) {
        if records.is_empty() || self.membership.live_count() <= limits::PUSH_TO_ALL_NODES {
            return;
        }
        self.passing.at.get_or_insert(now.mono + PASS_ON_AFTER);
        self.passing.records.extend(records);
    }

    pub(super) fn pass_on_what_came(&mut self, now: Now) {
        if self.passing.at.take_if(|at| *at <= now.mono).is_none() {
            return;
        }
        let records = std::mem::take(&mut self.passing.records);
        let live: Vec<NodeId> = self.reachable().collect();
        let few = fan_out(live.len());
        let targets = live.into_iter().sample(&mut self.rng, few).into_iter().collect();
        self.push_to(&targets, records);
    }

    /// A node has come up: whether to compare with it at once. In a big cluster a few do, and nobody with all of many.
    pub(super) fn greets(&mut self, now: Now) -> bool {
        let live = self.membership.live_count();
        let chosen = live <= limits::PUSH_TO_ALL_NODES || self.rng.random_range(0..live) < GREETERS;
        if now.mono.since(self.greeted.0) >= Duration::from_secs(1) {
            self.greeted = (now.mono, 0);
        }
        self.greeted.1 += usize::from(chosen);
        chosen && (live <= limits::PUSH_TO_ALL_NODES || self.greeted.1 <= GREETINGS_PER_SECOND)
    }

    fn push_to(&mut self, targets: &BTreeSet<NodeId>, records: Vec<Record>) {
        if targets.is_empty() {
            return;
        }
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(store::fits_one_message(rest));
            rest = later;
            let message = Message::Push { records: now.to_vec() };
            for node in targets {
                self.send(*node, &message);
            }
        }
    }
}

/// What is passed on by a node of a big cluster, and when.
#[derive(Default)]
pub(super) struct Passing {
    pub at: Option<Mono>,
    records: Vec<Record>,
}

/// ln n: with each passing on at first sight, all but about one of n nodes hear of it; the rest pull.
fn fan_out(nodes: usize) -> usize {
    (nodes.max(2) as f64).ln().ceil() as usize
}
