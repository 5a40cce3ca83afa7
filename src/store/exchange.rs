//! Replication between two nodes: hashes, digests, deltas and pushes.
//!
//! Two nodes that hold the same find out by one hash each way. Others tell each other the hashes of buckets of logs, and
//! then exchange digests and deltas of the buckets that differ. A delta is every current record numbered above the
//! asker's digest, closed by "complete up to": numbers that are missing in between were superseded by records that
//! are in it or that the asker already holds.
//!
//! The law: what is here is just what the digest says. A push moves it only where it joins on without a gap; what
//! lies behind a gap is left alone and asked for, for if what is missing is lost with its author, nothing that was taken
//! from behind it could ever travel further.
//!
//! Tombstones are collected by each node for itself. Whoever has done so leaves the log out of its digest if nothing else
//! is left of it, but still knows that it held it ([`Held::ever`]): the tombstone isn't taken again from those that
//! keep it yet, who are told instead that it is gone ([`Message::Collected`]). That one is enough for them: every member
//! has had it. Else one that has started since would wait for the word of a member that died meanwhile, and never get it.
//! So the nodes that have it only become fewer.

use super::held::{MAX_BUCKETS, bucket};
use super::{Output, Store};
use crate::ids::NodeId;
use crate::limits::{MAX_DELTA_BYTES, MAX_DELTA_RECORDS};
use crate::model::record::{Log, Record, Value};
use crate::plant::{Bug, is_planted};
use crate::time::Now;
use crate::wire::message::{Digest, Message, Scope};
use std::collections::BTreeSet;

/// Up to so many logs the digest itself is not bigger than what it takes to find the difference.
const FEW_LOGS: usize = 24;

/// [`Message::Delta`] taken apart.
#[derive(Debug)]
pub struct Delta {
    pub nonce: u64,
    pub scope: Scope,
    pub base: Digest,
    pub records: Vec<Record>,
    pub upto: Digest,
    pub more: bool,
}

impl Store {
    /// Finds out whether `to` holds the same, and exchanges what differs.
    pub fn compare(&mut self, to: NodeId) {
        let hash = self.held.hash();
        self.send(to, Message::Compare { hash });
    }

    /// Asks `to` for all that it has and we lack, and offers the reverse. The answer carries the nonce.
    pub fn ask(&mut self, to: NodeId, nonce: u64) {
        let digest = self.held.logs().clone();
        self.send(to, Message::Ask { nonce, scope: Scope::All, digest, in_return: false });
    }

    pub fn handle_compare(&mut self, from: NodeId, hash: u64) {
        if hash == self.held.hash() {
            self.peers.note_all(from, self.held.logs(), hash);
            self.send(from, Message::Same { hash });
        } else if self.held.logs().len() <= FEW_LOGS {
            self.ask(from, 0);
        } else {
            let buckets = self.held.buckets(self.held.bucket_count());
            self.send(from, Message::Differs { buckets });
        }
    }

    pub fn handle_same(&mut self, from: NodeId, hash: u64) {
        if hash == self.held.hash() {
            self.peers.note_all(from, self.held.logs(), hash);
        }
    }

    pub fn handle_differs(&mut self, from: NodeId, theirs: &[u64]) {
        let of = theirs.len();
        if !(1..=MAX_BUCKETS).contains(&of) {
            return;
        }
        let ours = self.held.buckets(of);
        let differs = |n: usize| ours.get(n) != theirs.get(n);
        self.peers.note(from, self.held.logs().iter().filter(|(log, _)| !differs(bucket(**log, of))));
        let which: Vec<u16> = (0..of).filter(|n| differs(*n)).map(|n| n as u16).collect();
        if which.is_empty() {
            return;
        }
        let scope = Scope::Buckets { of: of as u16, which };
        let digest = self.held.within(&scope, &Digest::new());
        self.send(from, Message::Ask { nonce: 0, scope, digest, in_return: false });
    }

    pub fn handle_ask(&mut self, from: NodeId, nonce: u64, scope: Scope, digest: &Digest, in_return: bool) {
        self.notice_rewind(digest);
        self.peers.note(from, digest);
        let delta = self.delta(nonce, scope.clone(), digest);
        self.send(from, delta);
        // A question in return is never returned, or two nodes that lack something of each other would go on for ever.
        if !in_return && digest.iter().any(|(log, number)| self.held.of(*log) < *number) {
            self.ask_again(from, 0, scope, digest);
        }
    }

    /// For a scope that was asked about before, of which `listed` gave the logs.
    fn ask_again(&mut self, to: NodeId, nonce: u64, scope: Scope, listed: &Digest) {
        let mut digest = self.held.within(&scope, listed);
        if scope == Scope::Listed {
            for log in listed.keys() {
                digest.entry(*log).or_insert(0);
            }
        }
        // Of logs of which nothing is left here the rest is enough.
        for log in listed.keys().filter(|log| self.held.of(**log) < self.held.ever(**log)) {
            digest.insert(*log, self.held.ever(*log));
        }
        self.send(to, Message::Ask { nonce, scope, digest, in_return: true });
    }

    /// Merges an answer to [`Store::ask`]; asks on if there is more. False if something was refused that others than its author
    /// have taken: then it is our own clock that is wrong, and what `from` holds isn't known here.
    pub fn handle_delta(&mut self, from: NodeId, delta: Delta, now: Now) -> bool {
        let Delta { nonce, scope, base, records, upto, more } = delta;
        self.notice_rewind(&upto);
        // What we don't hold up to where the answer begins would have a gap: nothing may be left of the log, or it was an earlier
        // life of ours that asked, and our disk has been put back since. A log without a beginning is one that the asker had all of.
        let begins = |log: &Log| base.get(log).is_some_and(|before| self.held.ever(*log) >= *before);
        let joins_on: BTreeSet<Log> = upto.keys().filter(|log| begins(log)).copied().collect();
        let mut fresh = Vec::new();
        let mut collected = Vec::new();
        // That nothing is missing up to here rests on all that the answer holds: what a refused record superseded, in whichever
        // log, is neither in it nor here. Then only what joins on number by number is taken.
        let mut early = BTreeSet::new();
        for record in &records {
            let (log, number) = record.place();
            if number > self.held.of(log) && self.is_early(record, now) {
                early.insert((log, number));
            }
        }
        let mut reached = Digest::new();
        for record in records {
            let (log, number) = record.place();
            if !early.is_empty() {
                let held = reached.entry(log).or_insert(self.held.of(log));
                if number != held.saturating_add(1) || early.contains(&(log, number)) {
                    continue;
                }
                *held = number;
            }
            let due = number > self.held.of(log) && upto.get(&log).is_some_and(|upto| number <= *upto);
            if !due || !joins_on.contains(&log) {
                continue;
            }
            if self.has_collected(&record) {
                collected.push((log, number));
            } else if self.merge(&record) {
                fresh.push(record);
            }
        }
        let mut moved = BTreeSet::new();
        for (log, number) in upto.iter().filter(|(log, _)| joins_on.contains(log)) {
            // A log of which nothing is left, here or there, is not taken up again.
            let number = if early.is_empty() { number } else { reached.get(log).unwrap_or(&0) };
            if *number > self.held.of(*log) && (self.held.of(*log) > 0 || self.has_records(*log)) {
                self.held.set(*log, *number);
                moved.insert(*log);
            }
        }
        self.peers.note(from, &upto);
        let mut held: Digest = moved.iter().map(|log| (*log, self.held.of(*log))).collect();
        let has_ended =
            |(log, number): &(&Log, &u32)| self.held.of(**log) < **number && **number <= self.held.ever(**log);
        let ended = upto.iter().filter(has_ended);
        held.extend(ended);
        self.commit(&fresh, moved);
        if !collected.is_empty() {
            self.send(from, Message::Collected { places: collected });
        }
        // What is refused would come again at once.
        if more && early.is_empty() {
            self.ask_again(from, nonce, scope, &upto);
        } else if !held.is_empty() {
            self.send(from, Message::PushAck { held });
        }
        early.iter().all(|(log, _)| log.author == from)
    }

    /// A tombstone that was here and has gone, since every member had it. (A live record in its place is taken: only a disk
    /// that was put back by more than the retention can hold one.)
    fn has_collected(&self, record: &Record) -> bool {
        let (log, number) = record.place();
        record.value.is_none() && number <= self.held.ever(log) && !self.records.contains_key(&record.key)
    }

    /// Whether we may follow is for our own clock to say ([`Store::collect_tombstones`]).
    pub fn handle_collected(&mut self, places: &[(Log, u32)]) {
        for place in places {
            if self.by_log.get(place).is_some_and(|record| record.value.is_none()) {
                self.buried.insert(*place);
            }
        }
    }

    /// Returns the records that were new here, for the caller to pass on in clusters too big to push to all.
    pub fn handle_push(&mut self, from: NodeId, mut records: Vec<Record>, now: Now) -> Vec<Record> {
        records.sort_by_key(Record::place);
        let mut new = Vec::new();
        let mut moved = BTreeSet::new();
        let mut lacks = false;
        let mut held = Digest::new();
        let mut stopped = BTreeSet::new();
        for record in records {
            let (log, number) = record.place();
            let known = self.held.of(log);
            held.insert(log, known);
            if stopped.contains(&log) || (number > known && self.is_early(&record, now)) {
                stopped.insert(log);
            } else if number > known.saturating_add(1) && !is_planted(Bug::DigestOverGap) {
                lacks = true;
            } else if number > known {
                self.held.set(log, number);
                moved.insert(log);
                held.insert(log, number);
                self.merge(&record);
                new.push(record);
            }
        }
        self.peers.note(from, &held);
        self.commit(&new, moved);
        self.send(from, Message::PushAck { held });
        if lacks {
            self.make_up_with(from);
        }
        new
    }

    /// What is missing of one log may have been superseded by another's: who asked for the one alone would then claim what
    /// it has nothing of.
    fn make_up_with(&mut self, with: NodeId) {
        if self.held.logs().len() <= FEW_LOGS {
            let digest = self.held.logs().clone();
            self.send(with, Message::Ask { nonce: 0, scope: Scope::All, digest, in_return: true });
        } else {
            self.compare(with);
        }
    }

    pub fn handle_push_ack(&mut self, from: NodeId, held: &Digest) {
        self.notice_rewind(held);
        self.peers.note(from, held);
    }

    /// Forgets what a node said that is no longer a member, or begins a new life.
    pub fn forget_peer(&mut self, node: NodeId) {
        self.peers.forget(node);
    }

    /// Whose word on everything counts, and so is remembered.
    pub fn remember(&mut self, voters: BTreeSet<NodeId>) {
        self.peers.remember_whole(voters);
    }

    /// Records of the scope above `asked`, as many as one message should carry.
    fn delta(&self, nonce: u64, scope: Scope, asked: &Digest) -> Message {
        let mut records = Vec::new();
        let mut base = Digest::new();
        let mut upto = Digest::new();
        let mut bytes = 0;
        let mut more = false;
        'logs: for (log, last) in self.held.within(&scope, asked) {
            let known = asked.get(&log).copied().unwrap_or(0);
            if known >= last {
                upto.insert(log, last);
                continue;
            }
            base.insert(log, known);
            for (&(_, number), record) in self.by_log.range((log, known + 1)..=(log, last)) {
                let size = weight(record);
                if !records.is_empty() && (bytes + size > MAX_DELTA_BYTES || records.len() >= MAX_DELTA_RECORDS) {
                    upto.insert(log, number - 1);
                    more = true;
                    break 'logs;
                }
                bytes += size;
                records.push(record.as_ref().clone());
            }
            upto.insert(log, last);
        }
        Message::Delta { nonce, scope, base, records, upto, more }
    }

    /// If a peer holds more of what we wrote in an earlier life than we do, our disk was put back. The lost writes come
    /// back as anybody's would: their numbers are no others'. But what else was forgotten nobody can tell.
    fn notice_rewind(&mut self, theirs: &Digest) {
        let lives = Log { author: self.me, life: 0 }..=Log { author: self.me, life: u32::MAX };
        for (log, number) in theirs.range(lives) {
            let had = if *log == self.own_log { self.own } else { self.mine.get(&log.life).copied().unwrap_or(0) };
            if *number > had && !self.rewound {
                self.rewound = true;
                self.out.push_back(Output::Rewound { had, peers_have: *number });
            }
        }
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.out.push_back(Output::Send { to, message });
    }
}

/// How many of these records, at least one, one message should carry.
pub fn fits_one_message(records: &[Record]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&Record| {
        bytes += weight(record);
        bytes <= MAX_DELTA_BYTES
    };
    records.iter().take(MAX_DELTA_RECORDS).take_while(fits).count().max(1)
}

/// About how many bytes a record takes in a message; the big ones are measured, the rest are small.
fn weight(record: &Record) -> usize {
    match &record.value {
        Some(Value::Revision(revision)) => {
            256 + revision.spec_json.len() + revision.registry_auth.as_ref().map_or(0, String::len)
        }
        Some(Value::TaskStatus(status)) => 256 + status.error.len() * (1 + status.past.len()),
        Some(_) => 512,
        None => 128,
    }
}
