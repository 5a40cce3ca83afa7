//! Replication between two nodes: digests, deltas and pushes.
//!
//! A delta is every current record numbered above the asker's digest, closed by "complete up to": numbers that
//! are missing in between were superseded by records that are in it or that the asker already holds. So it carries
//! those, too, that stand behind a gap of its sender's own: they may be what superseded. A push carries records as they
//! are written; it moves the digest only where it joins on without a gap, and a gap asks for a delta. What comes late, and
//! is neither here nor above the digest, was superseded by a tombstone that has been collected since.

use super::{Output, Store};
use crate::ids::NodeId;
use crate::limits::{MAX_DELTA_BYTES, MAX_DELTA_RECORDS};
use crate::model::record::{Record, Value};
use crate::plant::{Bug, is_planted};
use crate::time::Now;
use crate::wire::message::{Digest, Message};
use std::collections::BTreeMap;

/// [`Message::Delta`] taken apart.
#[derive(Debug)]
pub struct Delta {
    pub nonce: u64,
    pub base: Digest,
    pub records: Vec<Record>,
    pub upto: Digest,
    pub more: bool,
}

impl Store {
    /// Asks `to` for what it has and we lack, and offers the reverse. The answer carries the nonce.
    pub fn ask(&mut self, to: NodeId, nonce: u64) {
        let digest = self.digest.clone();
        self.send(to, Message::Ask { nonce, digest, in_return: false });
    }

    pub fn handle_ask(&mut self, from: NodeId, nonce: u64, digest: &Digest, in_return: bool, now: Now) {
        self.notice_rewind(digest, now);
        self.note_peer(from, digest);
        let delta = self.delta(nonce, digest);
        self.send(from, delta);
        // A question in return is never returned, or two nodes that lack something of each other would go on for ever.
        if !in_return && digest.iter().any(|(author, seq)| self.held(*author) < *seq) {
            let ours = self.digest.clone();
            self.send(from, Message::Ask { nonce, digest: ours, in_return: true });
        }
    }

    /// Merges an answer to [`Store::ask`]; asks on if there is more.
    pub fn handle_delta(&mut self, from: NodeId, delta: Delta, now: Now) {
        let late = |store: &Self, record: &Record| store.is_collected(record);
        let records = delta.records.into_iter();
        let fresh: Vec<Record> = records.filter(|r| !late(self, r) && self.merge(r, now)).collect();
        let mut moved = Vec::new();
        for (author, seq) in &delta.upto {
            let joins_on = self.held(*author) >= delta.base.get(author).copied().unwrap_or(0);
            if joins_on && *seq > self.held(*author) {
                // Our own lost writes are back: what was numbered again since joins on to them.
                let held = if *author == self.me { self.own.max(*seq) } else { *seq };
                self.digest.insert(*author, held);
                moved.push(*author);
            }
        }
        self.forget_closed_gaps();
        self.note_peer(from, &delta.upto);
        if !fresh.is_empty() || !moved.is_empty() {
            self.persist_with(&fresh, &moved);
        }
        let digest = self.digest.clone();
        if delta.more {
            self.send(from, Message::Ask { nonce: delta.nonce, digest, in_return: true });
        } else if !fresh.is_empty() {
            self.send(from, Message::PushAck { held: digest });
        }
    }

    /// Returns the records that were new here, for the caller to pass on in clusters too big to push to all.
    pub fn handle_push(&mut self, from: NodeId, mut records: Vec<Record>, now: Now) -> Vec<Record> {
        records.sort_by_key(|r| (r.stamp.author, r.seq));
        let mut fresh = Vec::new();
        let mut moved = Vec::new();
        let mut gap = false;
        let mut held = Digest::new();
        for record in records {
            let (author, seq) = (record.stamp.author, record.seq);
            let known = self.held(author);
            let collected = self.is_collected(&record);
            if seq == known + 1 || (seq > known && is_planted(Bug::DigestOverGap)) {
                self.digest.insert(author, seq);
                moved.push(author);
            } else if seq > known + 1 {
                gap = true;
            }
            if !collected && self.merge(&record, now) {
                fresh.push(record);
            }
            held.insert(author, self.held(author));
        }
        self.forget_closed_gaps();
        // What it pushes of others' it may hold with gaps of its own; of its own it has all.
        if let Some(seq) = held.get(&from) {
            let entry = self.peers.entry(from).or_default().entry(from).or_default();
            *entry = (*entry).max(*seq);
        }
        if !fresh.is_empty() || !moved.is_empty() {
            self.persist_with(&fresh, &moved);
        }
        self.send(from, Message::PushAck { held });
        if gap {
            self.ask(from, 0);
        }
        fresh
    }

    pub fn handle_push_ack(&mut self, from: NodeId, held: &Digest) {
        self.note_peer(from, held);
    }

    /// Forgets what a node that is no longer a member said.
    pub fn forget_peer(&mut self, node: NodeId) {
        self.peers.remove(&node);
    }

    /// It was here or was superseded, and nothing of its key is left: not even a tombstone, which everybody has had.
    fn is_collected(&self, record: &Record) -> bool {
        record.seq <= self.held(record.stamp.author) && !self.records.contains_key(&record.key)
    }

    /// Those that stand behind a gap: numbered above our own digest.
    fn beyond_gaps(&self) -> Vec<Record> {
        let beyond = self.beyond.iter().filter(|(author, seq)| self.held(*author) < *seq);
        let keys = beyond.filter_map(|number| self.by_author.get(number));
        keys.filter_map(|key| self.records.get(key)).cloned().collect()
    }

    pub(super) fn forget_closed_gaps(&mut self) {
        let digest = &self.digest;
        self.beyond.retain(|(author, seq)| digest.get(author).is_none_or(|held| held < seq));
    }

    /// Records above `base`, as many as one message should carry.
    fn delta(&self, nonce: u64, base: &Digest) -> Message {
        let mut records = self.beyond_gaps();
        let mut upto = Digest::new();
        let mut bytes: usize = records.iter().map(weight).sum();
        let mut more = false;
        if bytes > MAX_DELTA_BYTES / 2 || records.len() > MAX_DELTA_RECORDS / 2 {
            // Too much is missing here to be complete up to anything; asked again, it is hoped to be better.
            return Message::Delta { nonce, base: base.clone(), records: Vec::new(), upto, more };
        }
        'authors: for (author, last) in &self.digest {
            let first = base.get(author).copied().unwrap_or(0) + 1;
            if first > *last {
                upto.insert(*author, *last);
                continue;
            }
            for (&(_, seq), key) in self.by_author.range((*author, first)..=(*author, *last)) {
                let Some(record) = self.records.get(key) else { continue };
                let size = weight(record);
                if !records.is_empty() && (bytes + size > MAX_DELTA_BYTES || records.len() >= MAX_DELTA_RECORDS) {
                    upto.insert(*author, seq - 1);
                    more = true;
                    break 'authors;
                }
                bytes += size;
                records.push(record.clone());
            }
            upto.insert(*author, *last);
        }
        Message::Delta { nonce, base: base.clone(), records, upto, more }
    }

    /// What others hold only grows, except that a peer may have lost its disk: its own digest is then the truth.
    fn note_peer(&mut self, from: NodeId, held: &Digest) {
        let known = self.peers.entry(from).or_default();
        for (author, seq) in held {
            let entry = known.entry(*author).or_default();
            *entry = (*entry).max(*seq);
        }
    }

    /// If a peer holds more of our own writes than we do, our disk was put back. What we have numbered since the
    /// start is numbered again above theirs; the lost writes come back as anybody's would.
    fn notice_rewind(&mut self, theirs: &Digest, now: Now) {
        let peers_have = theirs.get(&self.me).copied().unwrap_or(0);
        let had = self.own;
        if peers_have <= had {
            return;
        }
        self.out.push_back(Output::Rewound { had, peers_have });
        let mine: Vec<Record> = self
            .by_author
            .range((self.me, self.started_at + 1)..=(self.me, u64::MAX))
            .filter_map(|(_, key)| self.records.get(key).cloned())
            .collect();
        self.digest.insert(self.me, self.started_at.min(self.held(self.me)));
        self.own = peers_have;
        let mut renumbered = Vec::with_capacity(mine.len());
        for mut record in mine {
            self.own += 1;
            record.seq = self.own;
            record.stamp.hlc = self.tick(now);
            self.insert(record.clone());
            renumbered.push(record);
        }
        self.started_at = peers_have;
        self.persist_with(&renumbered, &[self.me]);
    }

    fn persist_with(&mut self, fresh: &[Record], moved: &[NodeId]) {
        let mut writes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        self.persist(fresh);
        if let Some(Output::Persist(records)) = self.out.pop_back() {
            writes.extend(records);
        }
        for author in moved {
            writes.insert(super::disk_digest_key(*author), Some(crate::wire::codec::encode(&self.held(*author))));
        }
        self.out.push_back(Output::Persist(writes.into_iter().collect()));
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
