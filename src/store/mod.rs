//! Replicated records: one version per key, merged by stamp; the digest that says what this node holds; and the
//! form in which both are kept on disk. What a record means is nobody's business here but for three rules that
//! merging must know: who may author a key, that a removal of a node is final, and how far a clock may run ahead.
//!
//! The law: per key the version never goes back; the digest never claims a record that isn't held (or was
//! superseded by one that is). Replication is Scuttlebutt's (van Renesse et al. 2008), see [`exchange`].

mod exchange;
pub use exchange::{Delta, fits_one_message};
#[cfg(test)]
mod tests;

use crate::ids::{NodeId, ObjectId, ServiceId, TaskId};
use crate::limits;
use crate::model::object::{Object, ObjectKind};
use crate::model::record::{Hlc, Key, Record, RevisionId, Stamp, Term, Value};
use crate::model::rollout::Rollout;
use crate::model::service::{Revision, Service};
use crate::model::task::{Task, TaskStatus};
use crate::plant::{Bug, is_planted};
use crate::time::{Now, Wall};
use crate::wire::codec::{self, CodecError};
use crate::wire::message::{Digest, Message};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Keys on disk: one letter, then the encoded key or author.
const DISK_RECORD: u8 = b'r';
const DISK_DIGEST: u8 = b'd';

pub struct Store {
    me: NodeId,
    records: BTreeMap<Key, Record>,
    /// The current version of each key by its author's number: what deltas are cut from.
    by_author: BTreeMap<(NodeId, u64), Key>,
    digest: Digest,
    /// Numbers that stand behind a gap, and maybe some whose gap has been closed.
    beyond: BTreeSet<(NodeId, u64)>,
    /// What others said they hold, durably.
    peers: BTreeMap<NodeId, Digest>,
    /// The latest hybrid time issued or accepted.
    clock: Hlc,
    /// The highest number given to a write of ours. `digest[me]` stands below it only after a rewind, until the
    /// lost writes have come back.
    own: u64,
    /// `own` when this life began: what was numbered after it may have to be numbered again.
    started_at: u64,
    refused: u64,
    out: VecDeque<Output>,
}

#[derive(Debug, PartialEq)]
pub enum Output {
    /// One atomic write of what the outputs since the last `Persist` rest on.
    Persist(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// This key has a new version, or none any more.
    Changed(Key),
    Send {
        to: NodeId,
        message: Message,
    },
    /// New to the cluster as far as this node knows: to be pushed to the others.
    Push(Vec<Record>),
    /// Peers hold writes of ours that our own disk has forgotten: it was put back to an earlier state.
    Rewound {
        had: u64,
        peers_have: u64,
    },
    /// A record was not taken: who wrote it, and why.
    Refused {
        author: NodeId,
        why: &'static str,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("record {key:02x?}: {why}")]
    Record { key: Vec<u8>, why: CodecError },
    #[error("record {0:02x?} does not fit its key")]
    Misplaced(Vec<u8>),
}

impl Store {
    /// From what was persisted; entries under other letters are left to others.
    pub fn load<'a>(
        me: NodeId,
        durable: impl IntoIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
    ) -> Result<Self, LoadError> {
        let mut store = Self {
            me,
            records: BTreeMap::new(),
            by_author: BTreeMap::new(),
            digest: Digest::new(),
            beyond: BTreeSet::new(),
            peers: BTreeMap::new(),
            clock: Hlc::default(),
            own: 0,
            started_at: 0,
            refused: 0,
            out: VecDeque::new(),
        };
        for (key, bytes) in durable {
            let error = |why| LoadError::Record { key: key.clone(), why };
            match key.split_first() {
                Some((&DISK_RECORD, _)) => {
                    let record: Record = codec::decode(bytes, limits::MAX_RECORD_BYTES).map_err(error)?;
                    if *key != disk_record_key(&record.key)
                        || record.value.as_ref().is_some_and(|v| !record.key.fits(v))
                    {
                        return Err(LoadError::Misplaced(key.clone()));
                    }
                    store.clock = store.clock.max(record.stamp.hlc);
                    store.insert(record);
                }
                Some((&DISK_DIGEST, author)) => {
                    let author: NodeId = codec::decode(author, 64).map_err(error)?;
                    store.digest.insert(author, codec::decode(bytes, 64).map_err(error)?);
                }
                _ => {}
            }
        }
        // All were inserted before their digests were known.
        store.forget_closed_gaps();
        let numbered = store.by_author.range((me, 0)..=(me, u64::MAX)).next_back().map_or(0, |(&(_, seq), _)| seq);
        store.own = store.held(me).max(numbered);
        store.started_at = store.own;
        Ok(store)
    }

    // ---- reading

    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.records.get(key)?.value.as_ref()
    }

    pub fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// The live version's hybrid time: Docker's `Version.Index`.
    pub fn index(&self, key: &Key) -> Option<Hlc> {
        self.records.get(key).filter(|r| r.value.is_some()).map(|r| r.stamp.hlc)
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All of them, tombstones too, by key.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    pub fn refused(&self) -> u64 {
        self.refused
    }

    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The highest number of `author`'s writes up to which nothing is missing here.
    pub fn held(&self, author: NodeId) -> u64 {
        self.digest.get(&author).copied().unwrap_or(0)
    }

    /// The number of this node's last write.
    pub fn own_seq(&self) -> u64 {
        self.own
    }

    /// `node` is known to hold `author`'s writes up to `seq`.
    pub fn peer_holds(&self, node: NodeId, author: NodeId, seq: u64) -> bool {
        let held = if node == self.me { Some(&self.digest) } else { self.peers.get(&node) };
        held.and_then(|d| d.get(&author)).is_some_and(|held| *held >= seq)
    }

    /// What `author` numbered above `after`, as far as it is still the version of its key.
    pub fn written_by(&self, author: NodeId, after: u64) -> impl Iterator<Item = &Record> {
        let range = (author, after.saturating_add(1))..=(author, u64::MAX);
        self.by_author.range(range).filter_map(|(_, key)| self.records.get(key))
    }

    fn values(&self, range: RangeInclusive<Key>) -> impl Iterator<Item = &Value> {
        self.records.range(range).filter_map(|(_, r)| r.value.as_ref())
    }

    pub fn services(&self) -> impl Iterator<Item = &Service> {
        let all = Key::Service(ServiceId::from_u128(0))..=Key::Service(ServiceId::from_u128(u128::MAX));
        self.values(all).filter_map(|v| if let Value::Service(s) = v { Some(s) } else { None })
    }

    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        match self.get(&Key::Service(id))? {
            Value::Service(service) => Some(service),
            _ => None,
        }
    }

    /// Oldest first.
    pub fn revisions(&self, service: ServiceId) -> impl Iterator<Item = &Revision> {
        let at = |hlc, author| Key::Revision(service, RevisionId { hlc, author });
        let all = at(Hlc(0), NodeId::from_u128(0))..=at(Hlc(u64::MAX), NodeId::from_u128(u128::MAX));
        self.values(all).filter_map(|v| if let Value::Revision(r) = v { Some(r) } else { None })
    }

    /// Every revision of every service, even of those that are gone; oldest first within a service.
    pub fn all_revisions(&self) -> impl Iterator<Item = (ServiceId, RevisionId)> {
        let bound = |service, n| {
            let id = RevisionId { hlc: Hlc(n), author: NodeId::from_u128(if n == 0 { 0 } else { u128::MAX }) };
            Key::Revision(ServiceId::from_u128(service), id)
        };
        let all = bound(0, 0)..=bound(u128::MAX, u64::MAX);
        self.values(all).filter_map(|v| if let Value::Revision(r) = v { Some((r.service, r.id)) } else { None })
    }

    pub fn revision(&self, service: ServiceId, id: RevisionId) -> Option<&Revision> {
        match self.get(&Key::Revision(service, id))? {
            Value::Revision(revision) => Some(revision),
            _ => None,
        }
    }

    pub fn rollout(&self, service: ServiceId) -> Option<&Rollout> {
        match self.get(&Key::Rollout(service))? {
            Value::Rollout(rollout) => Some(rollout),
            _ => None,
        }
    }

    pub fn rollouts(&self) -> impl Iterator<Item = &Rollout> {
        let all = Key::Rollout(ServiceId::from_u128(0))..=Key::Rollout(ServiceId::from_u128(u128::MAX));
        self.values(all).filter_map(|v| if let Value::Rollout(r) = v { Some(r) } else { None })
    }

    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        let all = Key::Task(TaskId::from_u128(0))..=Key::Task(TaskId::from_u128(u128::MAX));
        self.values(all).filter_map(|v| if let Value::Task(t) = v { Some(t) } else { None })
    }

    /// Tasks that are known to be gone.
    pub fn buried_tasks(&self) -> impl Iterator<Item = TaskId> {
        let all = Key::Task(TaskId::from_u128(0))..=Key::Task(TaskId::from_u128(u128::MAX));
        let buried = self.records.range(all).filter(|(_, r)| r.value.is_none());
        buried.filter_map(|(key, _)| if let Key::Task(id) = key { Some(*id) } else { None })
    }

    pub fn task(&self, id: TaskId) -> Option<&Task> {
        match self.get(&Key::Task(id))? {
            Value::Task(task) => Some(task),
            _ => None,
        }
    }

    pub fn status(&self, id: TaskId) -> Option<&TaskStatus> {
        match self.get(&Key::TaskStatus(id))? {
            Value::TaskStatus(status) => Some(status),
            _ => None,
        }
    }

    pub fn statuses(&self) -> impl Iterator<Item = &TaskStatus> {
        let all = Key::TaskStatus(TaskId::from_u128(0))..=Key::TaskStatus(TaskId::from_u128(u128::MAX));
        self.values(all).filter_map(|v| if let Value::TaskStatus(s) = v { Some(s) } else { None })
    }

    /// All of one kind, by id.
    pub fn objects(&self, kind: ObjectKind) -> impl Iterator<Item = &Object> {
        let all = Key::Object(kind, ObjectId::from_u128(0))..=Key::Object(kind, ObjectId::from_u128(u128::MAX));
        self.values(all).filter_map(|v| if let Value::Object(o) = v { Some(o) } else { None })
    }

    pub fn object(&self, kind: ObjectKind, id: ObjectId) -> Option<&Object> {
        match self.get(&Key::Object(kind, id))? {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The ids of all nodes that a fact or a policy names.
    pub fn nodes(&self) -> Vec<NodeId> {
        let (least, most) = (NodeId::from_u128(0), NodeId::from_u128(u128::MAX));
        let named = |(key, record): (&Key, &Record)| match key {
            Key::NodeFact(id) | Key::NodePolicy(id) if record.value.is_some() => Some(*id),
            _ => None,
        };
        let facts = self.records.range(Key::NodeFact(least)..=Key::NodeFact(most)).filter_map(named);
        let policies = self.records.range(Key::NodePolicy(least)..=Key::NodePolicy(most)).filter_map(named);
        let mut nodes: Vec<NodeId> = facts.chain(policies).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    // ---- writing

    /// A new hybrid time, later than every one issued or accepted before, whatever the wall clock does.
    pub fn tick(&mut self, now: Now) -> Hlc {
        self.clock = Hlc::new(now.wall, 0).max(Hlc(self.clock.0 + 1));
        self.clock
    }

    /// Writes in this node's name, all or none; the outputs say what to persist and push.
    /// Values must fit their keys (checked in debug builds); `term` is the lease's for decisions, zero otherwise.
    pub fn write(&mut self, changes: Vec<(Key, Option<Value>)>, term: Term, now: Now) -> Vec<Stamp> {
        let mut records = Vec::with_capacity(changes.len());
        for (key, value) in changes {
            debug_assert!(value.as_ref().is_none_or(|v| key.fits(v)), "{key:?} got another kind of value");
            debug_assert_eq!(key.is_decision(), term != Term::ZERO, "{key:?} under the wrong kind of term");
            let stamp = Stamp { term, hlc: self.tick(now), author: self.me };
            self.own += 1;
            let seq = self.own;
            if self.held(self.me) + 1 == seq {
                self.digest.insert(self.me, seq);
            }
            let record = Record { key, value, stamp, seq };
            self.take(record.clone());
            records.push(record);
        }
        let stamps = records.iter().map(|r| r.stamp).collect();
        if !records.is_empty() {
            self.persist(&records);
            self.out.push_back(Output::Push(records));
        }
        stamps
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Takes a record from elsewhere. True if it is now the version of its key.
    fn merge(&mut self, record: &Record, now: Now) -> bool {
        if let Some(why) = objection(record, now.wall) {
            self.refused += 1;
            self.out.push_back(Output::Refused { author: record.stamp.author, why });
            return false;
        }
        self.clock = self.clock.max(record.stamp.hlc);
        self.take(record.clone())
    }

    /// Replaces the key's version if this one is later.
    fn take(&mut self, record: Record) -> bool {
        if self.records.get(&record.key).is_some_and(|held| rank(held) >= rank(&record)) {
            return false;
        }
        self.out.push_back(Output::Changed(record.key.clone()));
        self.insert(record);
        true
    }

    fn insert(&mut self, record: Record) {
        let number = (record.stamp.author, record.seq);
        if record.seq > self.held(record.stamp.author) {
            self.beyond.insert(number);
        }
        if let Some(old) = self.records.insert(record.key.clone(), record.clone()) {
            self.by_author.remove(&(old.stamp.author, old.seq));
        }
        self.by_author.insert(number, record.key);
    }

    /// Persists these records (those that are still current) and the digest entries of their authors.
    fn persist(&mut self, records: &[Record]) {
        let mut writes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for record in records.iter().filter(|r| self.records.get(&r.key).is_some_and(|held| held.stamp == r.stamp)) {
            writes.insert(disk_record_key(&record.key), Some(codec::encode(record)));
        }
        for author in records.iter().map(|r| r.stamp.author) {
            writes.insert(disk_digest_key(author), Some(codec::encode(&self.held(author))));
        }
        self.out.push_back(Output::Persist(writes.into_iter().collect()));
    }

    /// Forgets tombstones older than the retention that every member holds: nobody is left who could bring back
    /// what they buried. `members` are all that have not been removed, whether they live or not.
    pub fn collect_tombstones(&mut self, members: &[NodeId], retention: Duration, now: Now) -> usize {
        let horizon = Wall(now.wall.0.saturating_sub(retention.as_millis() as u64));
        let dead: Vec<Key> = self
            .records
            .values()
            .filter(|r| r.value.is_none() && (r.stamp.hlc.wall() < horizon || is_planted(Bug::TombstoneEarly)))
            .filter(|r| {
                let everywhere = members.iter().all(|node| self.peer_holds(*node, r.stamp.author, r.seq));
                everywhere || is_planted(Bug::TombstoneUnseen)
            })
            .map(|r| r.key.clone())
            .collect();
        let mut writes = Vec::with_capacity(dead.len());
        for key in &dead {
            if let Some(old) = self.records.remove(key) {
                self.by_author.remove(&(old.stamp.author, old.seq));
            }
            writes.push((disk_record_key(key), None));
        }
        if !writes.is_empty() {
            self.out.push_back(Output::Persist(writes));
        }
        dead.len()
    }
}

/// What orders versions of one key. Everything goes by the stamp, except that no later write un-removes a node.
fn rank(record: &Record) -> (bool, Stamp) {
    let removed = matches!(&record.value, Some(Value::NodePolicy(policy)) if policy.removed);
    (removed, record.stamp)
}

/// Why a record from elsewhere is not taken.
fn objection(record: &Record, now: Wall) -> Option<&'static str> {
    let author = record.stamp.author;
    if record.value.as_ref().is_some_and(|v| !record.key.fits(v)) {
        return Some("its value does not fit its key");
    }
    if record.key.is_decision() == (record.stamp.term == Term::ZERO) {
        return Some("decisions need a term, nothing else may have one");
    }
    if record.key.is_decision() && record.stamp.term.node != author {
        return Some("a decision written by another than its term's holder");
    }
    let foreign = match (&record.key, &record.value) {
        (Key::NodeFact(id), _) => *id != author,
        (Key::TaskStatus(_), Some(Value::TaskStatus(status))) => status.node != author,
        _ => false,
    };
    if foreign {
        return Some("a node's own fact written by another");
    }
    let limit = now.0.saturating_add(limits::MAX_CLOCK_DRIFT.as_millis() as u64);
    (record.stamp.hlc.wall().0 > limit)
        .then_some("its time is too far ahead (max_clock_drift): check that node's clock")
}

/// What a disk holds of one key.
pub fn record_on_disk(durable: &BTreeMap<Vec<u8>, Vec<u8>>, key: &Key) -> Option<Record> {
    codec::decode(durable.get(&disk_record_key(key))?, limits::MAX_RECORD_BYTES).ok()
}

/// All the records of a disk.
pub fn records_on_disk(durable: &BTreeMap<Vec<u8>, Vec<u8>>) -> impl Iterator<Item = Record> {
    let from = durable.range(vec![DISK_RECORD]..vec![DISK_RECORD + 1]);
    from.filter_map(|(_, bytes)| codec::decode(bytes, limits::MAX_RECORD_BYTES).ok())
}

/// Up to which number of `author`'s writes a disk says that it misses nothing.
pub fn held_on_disk(durable: &BTreeMap<Vec<u8>, Vec<u8>>, author: NodeId) -> u64 {
    durable.get(&disk_digest_key(author)).and_then(|bytes| codec::decode(bytes, 64).ok()).unwrap_or(0)
}

fn disk_record_key(key: &Key) -> Vec<u8> {
    [&[DISK_RECORD], codec::encode(key).as_slice()].concat()
}

fn disk_digest_key(author: NodeId) -> Vec<u8> {
    [&[DISK_DIGEST], codec::encode(&author).as_slice()].concat()
}
