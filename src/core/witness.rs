//! What a checker may look at: the parts as they are, read only. The simulator compares what a core believes with what is
//! true at every instant; a real agent that is asked to has a [`Witness`] write down what there is to judge later.

use super::*;
use crate::membership::Member;
use crate::model::container::EngineOp;
use crate::model::lease::Electorate;
use crate::model::record::{Hlc, Log, Record, Stamp};
use crate::model::service::Revision;
use crate::store::Blob;
use crate::time::Wall;
use crate::wire::message::{Digest, LeaseMessage};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

impl Core {
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The term under which this node would decide at this instant of its own clock.
    pub fn held(&self, now: Mono) -> Option<Term> {
        self.lease.held(now)
    }

    /// Likewise, and the instant from which it no longer will unless the lease is renewed.
    pub fn held_until(&self, now: Mono) -> Option<(Term, Mono)> {
        self.lease.held_until(now)
    }

    /// It votes on nothing yet.
    pub fn is_in_doubt(&self) -> bool {
        self.lease.is_in_doubt()
    }

    /// It holds the lease at this instant and has read what a majority of the voters holds: what it plans is in force.
    pub fn decides(&self, now: Mono) -> bool {
        self.lease.held(now).is_some() && self.leading.as_ref().is_some_and(|l| l.is_ready())
    }

    pub fn electorate(&self) -> &Electorate {
        self.lease.electorate()
    }

    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.membership.members()
    }

    /// Which life of this one it is, as membership numbers them.
    pub fn bump(&self) -> u64 {
        self.membership.bump()
    }

    /// The latest life of a member that this node has heard of, and how it lives.
    pub fn life(&self, node: NodeId) -> Option<(u64, Liveness)> {
        self.membership.life(node)
    }

    /// Others that are alive or suspect.
    pub fn live_others(&self) -> usize {
        self.membership.live_count()
    }

    /// When those who are not seen alive are announced to next.
    pub fn announces_at(&self) -> Mono {
        self.membership.announces_at()
    }

    pub fn removed(&self) -> &BTreeSet<NodeId> {
        &self.removed
    }

    pub fn is_removed(&self, node: NodeId) -> bool {
        self.removed.contains(&node)
    }

    /// The highest ballot that this voter promised, maybe a moment before its disk has it.
    pub fn promised(&self) -> Term {
        self.lease.promised()
    }

    /// To whom this voter's grant goes, and until when.
    pub fn granted(&self, now: Mono) -> Option<(Term, Mono)> {
        self.lease.granted(now)
    }

    /// A revision's checked form, if its record is here.
    pub fn parsed(&self, revision: RevisionId) -> Option<&Arc<ServiceSpec>> {
        self.specs.get(&revision)
    }

    /// What the holder would decide if it planned once more at this instant: nothing, right after it has.
    pub fn second_thoughts(&self, now: Now) -> Vec<String> {
        let Some(leading) = self.leading.as_ref().filter(|l| self.lease.held(now.mono) == Some(l.term())) else {
            return Vec::new();
        };
        leading.would_change(self, now)
    }

    /// What is bounded: its name, how much there is, and how much there may be.
    pub fn sizes(&self) -> [(&'static str, usize, usize); 4] {
        [
            ("effects held back for the disk", self.outbox.gated(), limits::MAX_GATED_EFFECTS),
            ("questions of others about routes", self.withdrawals.questions(), withdraw::MAX_WAITING_QUESTIONS),
            ("members", self.membership.members().count(), limits::MAX_MEMBERS),
            ("voters", self.lease.electorate().voters.len(), lease::MAX_VOTERS),
        ]
    }

    /// What a disk holds of one key.
    pub fn record_on_disk(durable: &BTreeMap<impl Blob, impl Blob>, key: &Key) -> Option<Record> {
        store::record_on_disk(durable, key)
    }

    /// Of which record an entry of a disk is, if it is a record's.
    pub fn key_on_disk(entry: &[u8]) -> Option<Key> {
        store::key_on_disk(entry)
    }

    pub fn records_on_disk(durable: &BTreeMap<impl Blob, impl Blob>) -> impl Iterator<Item = Record> {
        store::records_on_disk(durable)
    }

    /// The record in which a life finds what it promised: its key on disk.
    pub fn lease_on_disk(durable: &BTreeMap<impl Blob, impl Blob>) -> Option<lease::Durable> {
        codec::decode(durable.get(DISK_LEASE)?.borrow(), limits::MAX_MESSAGE_BYTES).ok()
    }

    /// How far the disk holds a log; `None` if it says nothing of it.
    pub fn log_on_disk(durable: &BTreeMap<impl Blob, impl Blob>, log: Log) -> Option<u32> {
        store::log_on_disk(durable, log)
    }

    /// What a message that leaves a node says to be held durably, if it acknowledges writes.
    pub fn acknowledged_in(bytes: &[u8]) -> Option<Digest> {
        static TAG: OnceLock<u8> = OnceLock::new();
        if bytes.get(2) != Some(TAG.get_or_init(|| tag_of(&Message::PushAck { held: Digest::new() }))) {
            return None;
        }
        match codec::decode(bytes, limits::MAX_MESSAGE_BYTES) {
            Ok(Message::PushAck { held }) => Some(held),
            _ => None,
        }
    }

    /// What a message that leaves a node promises as a voter, if it does.
    pub fn promise_in(bytes: &[u8]) -> Option<Term> {
        if bytes.get(2) != Some(&lease_tag()) {
            return None;
        }
        match codec::decode(bytes, limits::MAX_MESSAGE_BYTES) {
            Ok(Message::Lease(LeaseMessage::Promise { ballot } | LeaseMessage::Accepted { ballot, .. })) => {
                Some(ballot)
            }
            _ => None,
        }
    }
}

/// The byte behind the format and the version.
fn tag_of(message: &Message) -> u8 {
    codec::encode(message).get(2).copied().unwrap_or_default()
}

/// The tag that says "a lease message".
fn lease_tag() -> u8 {
    static TAG: OnceLock<u8> = OnceLock::new();
    *TAG.get_or_init(|| {
        let sample = LeaseMessage::Release { ballot: Term { round: 0, node: NodeId::from_u128(0) } };
        tag_of(&Message::Lease(sample))
    })
}

/// All that one event brought about, in its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Microseconds on CLOCK_BOOTTIME: one clock for all agents of one machine, and it never jumps.
    pub at: u64,
    /// For people.
    pub wall: Wall,
    pub seen: Vec<Seen>,
}

/// One thing that laws are about. (A secret's or config's content, join secrets and registry logins are left out.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Seen {
    /// A life begins, with what the disk says was promised.
    Boot { node: NodeId, hostname: String, promised: Term },
    /// It decides under this term, until then if nothing more is heard.
    Holds { term: Term, until: u64 },
    /// It no longer does, from now on.
    Lost { term: Term },
    /// A promise or an acceptance leaves for another voter.
    Promised { ballot: Term },
    /// A key has this version; `tombstone` also tells a removal from a value that is not shown.
    Record { key: Key, stamp: Stamp, tombstone: bool, value: Option<Box<Value>> },
    /// A key has no version any more, not even a tombstone.
    Gone { key: Key },
    /// An operator was told that the write of this node with this hybrid time was accepted; `pending`: with the warning
    /// that no majority has it.
    Accepted { index: Hlc, pending: bool },
    /// The engine is told to stop the task's container, or to remove it.
    Stops { task: TaskId },
    /// The data plane has come to lead to these tasks and to no others.
    Routed { tasks: BTreeSet<TaskId> },
    /// The file has reached its bound: what follows is not in it.
    Full,
}

/// Turns a running core into [`Look`]s. To be asked after every event, before its effects are carried out, and for each
/// effect.
#[derive(Debug, Default)]
pub struct Witness {
    changes: u64,
    versions: BTreeMap<Key, Stamp>,
    holds: Option<(Term, Mono)>,
    /// Where the tables that were given to the data plane lead, by version, from the one that it follows on.
    tables: BTreeMap<u64, BTreeSet<TaskId>>,
    routed: BTreeSet<TaskId>,
    applied: u64,
}

impl Witness {
    /// `promised`: see [`Core::lease_on_disk`].
    pub fn boot(&mut self, core: &Core, promised: Term, now: Now) -> Look {
        let boot = Seen::Boot { node: core.me, hostname: core.fact.hostname.clone(), promised };
        let mut look = Look { at: now.mono.0, wall: now.wall, seen: vec![boot] };
        self.records(core, &mut look.seen);
        look
    }

    pub fn look(&mut self, core: &Core, now: Now) -> Option<Look> {
        let mut seen = Vec::new();
        if core.changes() != self.changes {
            self.records(core, &mut seen);
        }
        self.lease(core, now.mono, &mut seen);
        self.routes(core, &mut seen);
        (!seen.is_empty()).then_some(Look { at: now.mono.0, wall: now.wall, seen })
    }

    pub fn effect(&mut self, effect: &Effect, now: Now) -> Option<Look> {
        let seen = match effect {
            Effect::Publish { version, table } => {
                let tasks =
                    table.ports.values().flat_map(|backends| backends.iter()).map(|backend| backend.task).collect();
                self.tables.insert(*version, tasks);
                return None;
            }
            Effect::Send { bytes, .. } => Seen::Promised { ballot: Core::promise_in(bytes)? },
            Effect::Engine { what: EngineOp::Stop { name, .. } | EngineOp::Remove { name }, .. } => {
                Seen::Stops { task: task_of(name)? }
            }
            Effect::Reply { reply: Ok(accepted), .. } => {
                let pending = accepted.warnings.iter().any(|w| w.starts_with("pending"));
                Seen::Accepted { index: accepted.index, pending }
            }
            _ => return None,
        };
        Some(Look { at: now.mono.0, wall: now.wall, seen: vec![seen] })
    }

    fn records(&mut self, core: &Core, seen: &mut Vec<Seen>) {
        self.changes = core.changes();
        for record in core.store.records() {
            if self.versions.get(&record.key) != Some(&record.stamp) {
                self.versions.insert(record.key.clone(), record.stamp);
                seen.push(shown(record));
            }
        }
        if self.versions.len() > core.store.len() {
            let gone = |key: &&Key| core.store.record(key).is_none();
            let gone: Vec<Key> = self.versions.keys().filter(gone).cloned().collect();
            for key in gone {
                self.versions.remove(&key);
                seen.push(Seen::Gone { key });
            }
        }
    }

    fn lease(&mut self, core: &Core, now: Mono, seen: &mut Vec<Seen>) {
        let holds = core.held_until(now);
        if holds == self.holds {
            return;
        }
        match (self.holds, holds) {
            (_, Some((term, until))) => seen.push(Seen::Holds { term, until: until.0 }),
            (Some((term, _)), None) => seen.push(Seen::Lost { term }),
            (None, None) => {}
        }
        self.holds = holds;
    }

    fn routes(&mut self, core: &Core, seen: &mut Vec<Seen>) {
        if core.routes.applied == self.applied {
            return;
        }
        self.applied = core.routes.applied;
        self.tables = self.tables.split_off(&self.applied);
        if let Some(tasks) = self.tables.get(&self.applied)
            && *tasks != self.routed
        {
            self.routed.clone_from(tasks);
            seen.push(Seen::Routed { tasks: tasks.clone() });
        }
    }
}

fn shown(record: &Record) -> Seen {
    let value = match &record.value {
        Some(Value::Cluster(_) | Value::Object(_)) | None => None,
        Some(Value::Revision(revision)) => Some(Value::Revision(Revision { registry_auth: None, ..revision.clone() })),
        Some(value) => Some(value.clone()),
    };
    let (key, tombstone) = (record.key.clone(), record.value.is_none());
    Seen::Record { key, stamp: record.stamp, tombstone, value: value.map(Box::new) }
}

/// The part of a container's name that is an id; a service's name may have dots of its own.
fn task_of(name: &str) -> Option<TaskId> {
    name.rsplit('.').find_map(|part| part.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_names_its_task() {
        let task = TaskId::from_u128(77);
        assert_eq!(task_of(&format!("my.web.1.{task}")), Some(task));
        assert_eq!(task_of(&format!("web.1.{task}.2")), Some(task));
        assert_eq!(task_of("somebody-elses"), None);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let service = crate::ids::ServiceId::from_u128(1);
        let id = RevisionId { hlc: Hlc(1), author: NodeId::from_u128(2) };
        let revision = Revision {
            service,
            id,
            spec_json: "{}".to_owned(),
            registry_auth: Some("a-login".to_owned()),
            created: Wall(0),
        };
        let settings = crate::model::record::ClusterSettings { created: Wall(0), join_secret: "a-secret".to_owned() };
        let stamp = Stamp { term: Term::ZERO, hlc: Hlc(1), author: NodeId::from_u128(2) };
        for (key, value) in
            [(Key::Revision(service, id), Value::Revision(revision)), (Key::Cluster, Value::Cluster(settings))]
        {
            let seen = shown(&Record { key, value: Some(value), stamp, seq: 1 });
            let text = serde_json::to_string(&seen).unwrap();
            assert!(!text.contains("a-login") && !text.contains("a-secret"), "{text}");
            // And what is written is what is read.
            assert_eq!(serde_json::from_str::<Seen>(&text).unwrap(), seen);
        }
    }
}
