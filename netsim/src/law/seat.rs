//! One node as its trace tells of it: what it holds, believes and routes to, after each thing that was seen.

use super::records::{Version, version};
use peer::core::witness::{Look, Seen};
use peer::ids::{NodeId, ServiceId, TaskId};
use peer::model::record::{Key, RevisionId, Term, Value};
use peer::model::rollout::Rollout;
use peer::model::service::Service;
use peer::model::task::{Task, TaskPhase, TaskStatus};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub version: Version,
    pub tombstone: bool,
    pub value: Option<Box<Value>>,
}

/// The lease, as its holder believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holds {
    pub term: Term,
    /// On the clock of [`Look::at`].
    pub until: u64,
    pub until_wall: u64,
}

#[derive(Debug, Default)]
pub struct Seat {
    pub id: Option<NodeId>,
    pub records: BTreeMap<Key, Held>,
    pub holds: Option<Holds>,
    pub routed: BTreeSet<TaskId>,
    /// The highest promise that left it, over all its lives.
    pub promised: Option<Term>,
    /// Its trace reached its bound: it tells no more.
    pub full: bool,
}

impl Seat {
    pub fn take(&mut self, look: &Look, seen: &Seen) {
        match seen {
            Seen::Boot { node, .. } => {
                *self = Self { id: Some(*node), promised: self.promised, full: self.full, ..Self::default() };
            }
            Seen::Holds { term, until } => {
                let until_wall = look.wall.0 + until.saturating_sub(look.at) / 1_000;
                self.holds = Some(Holds { term: *term, until: *until, until_wall });
            }
            Seen::Lost { .. } => self.holds = None,
            Seen::Promised { ballot } => self.promised = self.promised.max(Some(*ballot)),
            Seen::Record { key, stamp, tombstone, value } => {
                let version = version(value.as_deref(), *stamp);
                self.records.insert(key.clone(), Held { version, tombstone: *tombstone, value: value.clone() });
            }
            Seen::Gone { key } => drop(self.records.remove(key)),
            Seen::Routed { tasks } => self.routed.clone_from(tasks),
            Seen::Full => self.full = true,
            Seen::Accepted { .. } | Seen::Stops { .. } => {}
        }
    }

    fn value(&self, key: &Key) -> Option<&Value> {
        self.records.get(key)?.value.as_deref()
    }

    fn values(&self) -> impl Iterator<Item = &Value> {
        self.records.values().filter_map(|held| held.value.as_deref())
    }

    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.value(&Key::Task(id)).and_then(|v| if let Value::Task(task) = v { Some(task) } else { None })
    }

    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.values().filter_map(|v| if let Value::Task(task) = v { Some(task) } else { None })
    }

    pub fn status(&self, id: TaskId) -> Option<&TaskStatus> {
        let status = self.value(&Key::TaskStatus(id))?;
        if let Value::TaskStatus(status) = status { Some(status) } else { None }
    }

    pub fn says_running(&self, id: TaskId) -> bool {
        self.status(id).is_some_and(|s| s.phase == TaskPhase::Running)
    }

    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.values().filter_map(|v| if let Value::Service(service) = v { Some(service) } else { None })
    }

    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        let service = self.value(&Key::Service(id))?;
        if let Value::Service(service) = service { Some(service) } else { None }
    }

    pub fn rollout(&self, id: ServiceId) -> Option<&Rollout> {
        let rollout = self.value(&Key::Rollout(id))?;
        if let Value::Rollout(rollout) = rollout { Some(rollout) } else { None }
    }

    pub fn spec_json(&self, service: ServiceId, revision: RevisionId) -> Option<&str> {
        let revision = self.value(&Key::Revision(service, revision))?;
        if let Value::Revision(revision) = revision { Some(&revision.spec_json) } else { None }
    }

    /// The first key of which the two don't have the same version.
    pub fn differs(&self, other: &Self) -> Option<Key> {
        let all = self.records.keys().chain(other.records.keys());
        let version = |seat: &Self, key: &Key| seat.records.get(key).map(|held| (held.version, held.tombstone));
        all.into_iter().find(|key| version(self, key) != version(other, key)).cloned()
    }
}
