//! What is replicated: a key, a value or a tombstone, the stamp that orders versions of one key, and the
//! author's sequence number that drives replication. Each key has one kind of author (DESIGN rule 3).

use crate::ids::{NodeId, ObjectId, ServiceId, TaskId};
use crate::model::object::{Object, ObjectKind};
use crate::model::{lease::Electorate, node::*, rollout::Rollout, service::*, task::*};
use crate::time::Wall;
use serde::{Deserialize, Serialize};

/// Hybrid logical time: the upper 48 bits are wall milliseconds, the lower 16 count within one.
/// It is Docker's `Version.Index` of the objects that operators write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Hlc(pub u64);

impl Hlc {
    pub fn new(wall: Wall, count: u16) -> Self {
        Self(wall.0 << 16 | u64::from(count))
    }
    pub fn wall(self) -> Wall {
        Wall(self.0 >> 16)
    }
}

/// The lease's ballot: who leads, and the fence that orders what successive leaders wrote.
/// Zero for what operators and nodes write themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term {
    pub round: u64,
    pub node: NodeId,
}

impl Term {
    pub const ZERO: Term = Term { round: 0, node: NodeId::from_u128(0) };
}

/// Orders the versions of one key: the later term wins, then the later hybrid time, then the author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    pub term: Term,
    pub hlc: Hlc,
    pub author: NodeId,
}

/// Names one accepted version of a service's spec, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RevisionId {
    pub hlc: Hlc,
    pub author: NodeId,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// Cluster-wide settings. Author: operators.
    Cluster,
    /// Who votes. Author: the lease holder.
    Electorate,
    /// What a node says of itself. Author: that node.
    NodeFact(NodeId),
    /// What operators want of a node. Author: operators.
    NodePolicy(NodeId),
    /// Author: operators.
    Service(ServiceId),
    /// Immutable. Author: operators.
    Revision(ServiceId, RevisionId),
    /// Author: the lease holder.
    Rollout(ServiceId),
    /// An assignment. Author: the lease holder.
    Task(TaskId),
    /// Author: the node that the task is assigned to.
    TaskStatus(TaskId),
    /// A secret, config or network. Author: operators.
    Object(ObjectKind, ObjectId),
}

/// New fields go into new variants: the encoding is positional.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    Cluster(ClusterSettings),
    Electorate(Electorate),
    NodeFact(NodeFact),
    NodePolicy(NodePolicy),
    Service(Service),
    Revision(Revision),
    Rollout(Rollout),
    Task(Task),
    TaskStatus(TaskStatus),
    Object(Object),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub key: Key,
    /// `None` is a tombstone.
    pub value: Option<Value>,
    pub stamp: Stamp,
    /// The author's (`stamp.author`) number for it: which life of the author in the upper half, and in the lower one
    /// the how manieth write of that life, without gaps, from 1. (Writes of the first versions have life 0.)
    pub seq: u64,
}

/// All that one node wrote within one of its lives: what replication counts by. One process writes it and nobody else
/// ever adds to it, so that no two records have the same place in it, whatever becomes of the author's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Log {
    pub author: NodeId,
    pub life: u32,
}

impl Log {
    /// The log and the place in it that a record's author and `seq` tell.
    pub fn of(author: NodeId, seq: u64) -> (Self, u32) {
        (Self { author, life: (seq >> 32) as u32 }, seq as u32)
    }

    pub fn seq(self, number: u32) -> u64 {
        u64::from(self.life) << 32 | u64::from(number)
    }
}

impl Record {
    /// Its log, and its place in it.
    pub fn place(&self) -> (Log, u32) {
        Log::of(self.stamp.author, self.seq)
    }
}

impl Key {
    /// True if `value` is the kind that belongs under this key, naming the same object.
    /// Everything that decodes records from elsewhere asks this before it trusts them.
    pub fn fits(&self, value: &Value) -> bool {
        match (self, value) {
            (Key::Cluster, Value::Cluster(_)) | (Key::Electorate, Value::Electorate(_)) => true,
            (Key::NodeFact(id), Value::NodeFact(fact)) => fact.id == *id,
            (Key::NodePolicy(id), Value::NodePolicy(policy)) => policy.id == *id,
            (Key::Service(id), Value::Service(service)) => service.id == *id,
            (Key::Revision(service, id), Value::Revision(r)) => r.service == *service && r.id == *id,
            (Key::Rollout(id), Value::Rollout(rollout)) => rollout.service == *id,
            (Key::Task(id), Value::Task(task)) => task.id == *id,
            (Key::TaskStatus(id), Value::TaskStatus(status)) => status.task == *id,
            (Key::Object(kind, id), Value::Object(object)) => object.kind == *kind && object.id == *id,
            _ => false,
        }
    }

    /// Written only by whoever holds the lease, under its term.
    pub fn is_decision(&self) -> bool {
        matches!(self, Key::Electorate | Key::Rollout(_) | Key::Task(_))
    }
}

/// Cluster-wide settings that operators change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    pub created: Wall,
    /// The secret half of the join token.
    pub join_secret: String,
}
