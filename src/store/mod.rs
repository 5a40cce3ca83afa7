//! Replicated records: one version per key, merged by stamp; the digest that says what this node holds; and the
//! form in which both are kept on disk. What a record means is nobody's business here but for three rules that
//! merging must know: who may author a key, that a removal of a node is final, and how far a clock may run ahead.
//!
//! The law: per key the version never goes back; the digest never claims a record that isn't held (or was
//! superseded by one that is). Replication is Scuttlebutt's (van Renesse et al. 2008), see [`exchange`].
//!
//! Writes are numbered within the life that makes them ([`Log`]), from one: a number is given once, by one process, so
//! that a disk which was put back to an earlier state can't make two records of one number. A log of which no record
//! is current any more leaves the digest: it claims nothing that would be missed, and lives would pile up in it.

mod answer;
mod exchange;
mod held;
mod peers;
pub use answer::Delta;
pub use exchange::fits_one_message;
#[cfg(test)]
mod tests;

use crate::ids::{NodeId, ObjectId, ServiceId, TaskId};
use crate::limits;
use crate::model::object::{Object, ObjectKind};
use crate::model::record::{Hlc, Key, Log, Record, RevisionId, Stamp, Term, Value};
use crate::model::rollout::Rollout;
use crate::model::service::{Revision, Service};
use crate::model::task::{Task, TaskStatus};
use crate::plant::{Bug, is_planted};
use crate::time::{Mono, Now, Wall};
use crate::wire::codec::{self, CodecError};
use crate::wire::message::{Digest, Message};
use answer::Reading;
use held::Held;
use peers::Peers;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

/// Keys on disk: one letter, then the encoded key or log.
const DISK_RECORD: u8 = b'r';
const DISK_LOG: u8 = b'n';
/// How far a life's hybrid time leaps at its start, at most: sixteen milliseconds.
const MAX_LEAP: u32 = 0xf_ffff;
/// A node whose clock is far ahead is complained of again after this.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Of so many at a time.
const MAX_TOLD: usize = 1_024;
/// Of versions that knew no lives: by author.
const DISK_OLD_DIGEST: u8 = b'd';

/// Puts a record where it is to stay. `Arc::new`, but where many cores live in one process, which may keep what all of
/// them hold alike only once.
pub type Keep = fn(Record) -> Arc<Record>;

pub struct Store {
    me: NodeId,
    records: BTreeMap<Key, Arc<Record>>,
    /// The current version of each key by its place: what deltas are cut from.
    by_log: BTreeMap<(Log, u32), Arc<Record>>,
    keep: Keep,
    held: Held,
    peers: Peers,
    reading: Option<Reading>,
    /// The latest hybrid time issued or accepted.
    clock: Hlc,
    /// What this life writes to, and the number of its last write.
    own_log: Log,
    own: u32,
    /// How far our own earlier lives came, by what is here of them.
    mine: BTreeMap<u32, u32>,
    /// Peers have shown that these are not all.
    rewound: bool,
    /// Tombstones of ours that somebody has collected: every member has had them.
    buried: BTreeSet<(Log, u32)>,
    /// Logs that may have lost their last record since the last [`Store::commit`].
    emptied: BTreeSet<Log>,
    refused: u64,
    /// Whose clock was last complained of, and when.
    early_told: BTreeMap<NodeId, Mono>,
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
    /// Peers hold writes of an earlier life of ours that our own disk has forgotten: it was put back. Told once a life.
    Rewound {
        had: u32,
        peers_have: u32,
    },
    /// A record was not taken: who wrote it, and why.
    Refused {
        author: NodeId,
        why: &'static str,
    },
}

/// In the year 6429: what is later was read from a disk that is damaged, and no write could ever be later still.
const LATEST: Hlc = Hlc(u64::MAX / 2);

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("record {key:02x?}: {why}")]
    Record { key: Vec<u8>, why: CodecError },
    #[error("record {0:02x?} does not fit its key")]
    Misplaced(Vec<u8>),
    #[error("record {0:02x?} has a time that no clock shows")]
    Time(Vec<u8>),
}

impl Store {
    /// From what was persisted; entries under other letters are left to others. `life` is drawn at random for this one.
    pub fn load<'a>(
        me: NodeId,
        life: u64,
        keep: Keep,
        durable: impl IntoIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
    ) -> Result<Self, LoadError> {
        let mut store = Self {
            me,
            records: BTreeMap::new(),
            by_log: BTreeMap::new(),
            keep,
            held: Held::default(),
            peers: Peers::default(),
            reading: None,
            clock: Hlc::default(),
            own_log: Log { author: me, life: 0 },
            own: 0,
            mine: BTreeMap::new(),
            rewound: false,
            buried: BTreeSet::new(),
            emptied: BTreeSet::new(),
            refused: 0,
            early_told: BTreeMap::new(),
            out: VecDeque::new(),
        };
        let mut logs = Digest::new();
        let mut old = Vec::new();
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
                    if record.stamp.hlc > LATEST {
                        return Err(LoadError::Time(key.clone()));
                    }
                    store.clock = store.clock.max(record.stamp.hlc);
                    store.insert(record);
                }
                Some((&DISK_LOG, log)) => {
                    let log: Log = codec::decode(log, 64).map_err(error)?;
                    logs.insert(log, codec::decode(bytes, 64).map_err(error)?);
                }
                Some((&DISK_OLD_DIGEST, author)) => {
                    let author: NodeId = codec::decode(author, 64).map_err(error)?;
                    let number: u64 = codec::decode(bytes, 64).map_err(error)?;
                    old.push((key.clone(), Log { author, life: 0 }, number as u32));
                }
                _ => {}
            }
        }
        store.adopt_old_digest(old, &mut logs);
        for (log, number) in logs {
            if log.author == me {
                store.mine.insert(log.life, number);
            }
            if store.has_records(log) {
                store.held.set(log, number);
            }
        }
        // Zero is that of versions which knew no lives.
        let mut life = (life ^ (life >> 32)) as u32;
        while life == 0 || store.mine.contains_key(&life) {
            life = life.wrapping_add(1);
        }
        if is_planted(Bug::OneLogForAllLives) {
            life = 1;
            store.own = store.mine.get(&life).copied().unwrap_or(0);
        }
        store.own_log.life = life;
        // Nor should two lives that begin from the same disk give the same times, where these name something for ever
        // (a revision). So each begins some milliseconds later, how many nobody else draws.
        if !store.is_empty() {
            store.clock.0 += u64::from(life & MAX_LEAP);
        }
        store.emptied.clear();
        store.peers.remember_logs(BTreeSet::from([store.own_log]));
        Ok(store)
    }

    /// What was written by versions that knew no lives is that of life zero.
    fn adopt_old_digest(&mut self, old: Vec<(Vec<u8>, Log, u32)>, logs: &mut Digest) {
        let mut writes = Vec::with_capacity(2 * old.len());
        for (key, log, number) in old {
            writes.push((key, None));
            writes.push((disk_log_key(log), Some(codec::encode(&number))));
            logs.insert(log, number);
        }
        if !writes.is_empty() {
            self.out.push_back(Output::Persist(writes));
        }
    }

    // ---- reading

    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.records.get(key)?.value.as_ref()
    }

    pub fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key).map(Arc::as_ref)
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
        self.records.values().map(Arc::as_ref)
    }

    pub fn refused(&self) -> u64 {
        self.refused
    }

    pub fn digest(&self) -> &Digest {
        self.held.logs()
    }

    /// Nothing that `author` wrote up to `seq` in that life is missing here.
    pub fn holds(&self, author: NodeId, seq: u64) -> bool {
        let (log, number) = Log::of(author, seq);
        self.held.of(log) >= number
    }

    /// The number of this node's last write.
    pub fn own_seq(&self) -> u64 {
        self.own_log.seq(self.own)
    }

    /// `node` is known to hold all that `author` wrote up to `seq` in that life.
    pub fn peer_holds(&self, node: NodeId, author: NodeId, seq: u64) -> bool {
        let (log, number) = Log::of(author, seq);
        self.peer_has(node, log, number)
    }

    /// How many writes of this life it is not known to hold.
    pub fn lag_of(&self, node: NodeId) -> u32 {
        self.own.saturating_sub(self.peers.number(node, self.own_log))
    }

    pub fn peer_has(&self, node: NodeId, log: Log, number: u32) -> bool {
        if node == self.me { self.held.of(log) >= number } else { self.peers.hold(node, log, number) }
    }

    /// What this life numbered above `after` (a `seq`), as far as it is still the version of its key.
    pub fn written_since(&self, after: u64) -> impl Iterator<Item = &Record> {
        let (log, number) = Log::of(self.me, after);
        let first = if log == self.own_log { number.saturating_add(1) } else { 1 };
        let range = (self.own_log, first)..=(self.own_log, u32::MAX);
        self.by_log.range(range).map(|(_, record)| record.as_ref())
    }

    fn has_records(&self, log: Log) -> bool {
        self.by_log.range((log, 0)..=(log, u32::MAX)).next().is_some()
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

    /// As the node that has the task says; another's word on it counts for nothing.
    pub fn status_of(&self, task: &Task) -> Option<&TaskStatus> {
        self.status(task.id).filter(|status| task.node == Some(status.node))
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
        let named = |(key, record): (&Key, &Arc<Record>)| match key {
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
            let seq = self.next_number();
            let record = Record { key, value, stamp, seq };
            self.take(record.clone());
            records.push(record);
        }
        let stamps = records.iter().map(|r| r.stamp).collect();
        if !records.is_empty() {
            self.commit(&records, BTreeSet::from([self.own_log]));
            self.out.push_back(Output::Push(records));
        }
        stamps
    }

    fn next_number(&mut self) -> u64 {
        if self.own == u32::MAX {
            // As good as a new life.
            self.own_log.life = self.own_log.life.wrapping_add(1).max(1);
            self.own = 0;
        }
        self.own += 1;
        self.held.set(self.own_log, self.own);
        self.own_log.seq(self.own)
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        limits::give_back(&mut self.out);
        self.out.pop_front()
    }

    /// Takes a record from elsewhere. True if it is now the version of its key.
    fn merge(&mut self, record: &Record) -> bool {
        if let Some(why) = objection(record) {
            self.refused += 1;
            self.out.push_back(Output::Refused { author: record.stamp.author, why });
            return false;
        }
        self.clock = self.clock.max(record.stamp.hlc);
        self.take(record.clone())
    }

    /// Too far ahead of our clock to be taken now. Unlike what breaks a rule it isn't passed over, for it may be our own
    /// clock that is wrong: until that is mended nothing from here on in its log is held by us, and nobody is told so.
    fn is_early(&mut self, record: &Record, now: Now) -> bool {
        let limit = now.wall.0.saturating_add(limits::MAX_CLOCK_DRIFT.as_millis() as u64);
        if record.stamp.hlc.wall().0 <= limit || is_planted(Bug::HlcUnbounded) {
            return false;
        }
        self.refused += 1;
        let author = record.stamp.author;
        self.early_told.retain(|_, told| now.mono.since(*told) < TELL_AGAIN);
        if !self.early_told.contains_key(&author) && self.early_told.len() < MAX_TOLD {
            self.early_told.insert(author, now.mono);
            let why = "its time is too far ahead (max_clock_drift): check that node's clock, and this one's";
            self.out.push_back(Output::Refused { author, why });
        }
        true
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
        let (key, place) = (record.key.clone(), record.place());
        let record = (self.keep)(record);
        if let Some(old) = self.records.insert(key, record.clone()) {
            self.unplace(&old);
        }
        self.by_log.insert(place, record);
    }

    fn unplace(&mut self, old: &Record) {
        let (log, number) = old.place();
        self.by_log.remove(&(log, number));
        self.emptied.insert(log);
    }

    /// Persists these records (those that are still current) and how far their logs, and `moved`, are held here.
    fn commit(&mut self, records: &[Record], moved: BTreeSet<Log>) {
        let mut writes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for record in records.iter().filter(|r| self.records.get(&r.key).is_some_and(|held| held.place() == r.place()))
        {
            writes.insert(disk_record_key(&record.key), Some(codec::encode(record)));
        }
        let emptied = std::mem::take(&mut self.emptied);
        for log in emptied.union(&moved) {
            let number = self.held.of(*log);
            let ours = log.author == self.me;
            if !self.has_records(*log) {
                self.held.set(*log, 0);
            }
            if ours && *log != self.own_log {
                let came = self.mine.entry(log.life).or_default();
                *came = (*came).max(number);
            }
            // How far our own lives came is never forgotten.
            match (self.held.of(*log), number) {
                (0, _) if !ours => drop(writes.insert(disk_log_key(*log), None)),
                (_, number) if number > 0 => drop(writes.insert(disk_log_key(*log), Some(codec::encode(&number)))),
                _ => {}
            }
        }
        if !writes.is_empty() {
            self.out.push_back(Output::Persist(writes.into_iter().collect()));
        }
    }

    /// Forgets tombstones older than the retention that every member holds, or of which another has found that out:
    /// nobody is left who could bring back what they buried. `members` are all that have not been removed, whether they
    /// live or not.
    pub fn collect_tombstones(&mut self, members: &[NodeId], retention: Duration, now: Now) -> usize {
        let horizon = Wall(now.wall.0.saturating_sub(retention.as_millis() as u64));
        let is_old = |r: &&Record| r.stamp.hlc.wall() < horizon || is_planted(Bug::TombstoneEarly);
        let old: Vec<&Record> = self.records().filter(|r| r.value.is_none()).filter(is_old).collect();
        let everywhere = |r: &&&Record| {
            let (log, number) = r.place();
            self.buried.contains(&(log, number))
                || members.iter().all(|node| self.peer_has(*node, log, number))
                || is_planted(Bug::TombstoneUnseen)
        };
        let dead: Vec<Key> = old.iter().filter(everywhere).map(|r| r.key.clone()).collect();
        let logs = old.iter().map(|r| r.place().0).chain([self.own_log]).collect();
        let by_log = &self.by_log;
        self.buried.retain(|place| by_log.contains_key(place));
        self.peers.remember_logs(logs);
        let mut writes = Vec::with_capacity(dead.len());
        for key in &dead {
            if let Some(old) = self.records.remove(key) {
                self.unplace(&old);
            }
            writes.push((disk_record_key(key), None));
        }
        if !writes.is_empty() {
            self.out.push_back(Output::Persist(writes));
            self.commit(&[], BTreeSet::new());
        }
        dead.len()
    }
}

/// What orders versions of one key. Everything goes by the stamp, except that no later write un-removes a node. Two lives
/// that began from the same disk may have given the same stamp: then any order will do, as long as all agree on it.
fn rank(record: &Record) -> (bool, Stamp, (Log, u32)) {
    let removed = matches!(&record.value, Some(Value::NodePolicy(policy)) if policy.removed);
    (removed, record.stamp, record.place())
}

/// Why a record from elsewhere is not taken.
fn objection(record: &Record) -> Option<&'static str> {
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
    foreign.then_some("a node's own fact written by another")
}

/// Bytes as whoever keeps a disk has them.
pub trait Blob: Ord + Borrow<[u8]> {}
impl<T: Ord + Borrow<[u8]>> Blob for T {}

/// What a disk holds of one key.
pub fn record_on_disk(durable: &BTreeMap<impl Blob, impl Blob>, key: &Key) -> Option<Record> {
    codec::decode(durable.get(disk_record_key(key).as_slice())?.borrow(), limits::MAX_RECORD_BYTES).ok()
}

/// Of which record an entry of a disk is, if it is a record's.
pub fn key_on_disk(entry: &[u8]) -> Option<Key> {
    codec::decode(entry.strip_prefix(&[DISK_RECORD])?, limits::MAX_RECORD_BYTES).ok()
}

/// All the records of a disk.
pub fn records_on_disk(durable: &BTreeMap<impl Blob, impl Blob>) -> impl Iterator<Item = Record> {
    let bounds = (Bound::Included([DISK_RECORD].as_slice()), Bound::Excluded([DISK_RECORD + 1].as_slice()));
    let from = durable.range::<[u8], _>(bounds);
    from.filter_map(|(_, bytes)| codec::decode(bytes.borrow(), limits::MAX_RECORD_BYTES).ok())
}

fn disk_record_key(key: &Key) -> Vec<u8> {
    [&[DISK_RECORD], codec::encode(key).as_slice()].concat()
}

/// What the disk says of a log.
pub fn log_on_disk(durable: &BTreeMap<impl Blob, impl Blob>, log: Log) -> Option<u32> {
    codec::decode(durable.get(disk_log_key(log).as_slice())?.borrow(), 64).ok()
}

fn disk_log_key(log: Log) -> Vec<u8> {
    [&[DISK_LOG], codec::encode(&log).as_slice()].concat()
}
