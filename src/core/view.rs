//! What the API shows, as owned values: the core answers questions about itself here and nowhere else.

use crate::ids::{ClusterId, NodeId, TaskId};
use crate::model::node::{Liveness, NodeFact, NodePolicy};
use crate::model::object::Object;
use crate::model::record::{Hlc, RevisionId, Term};
use crate::model::rollout::Rollout;
use crate::model::service::{Revision, Service};
use crate::model::spec::ServiceSpec;
use crate::model::task::{Task, TaskStatus};
use crate::time::Wall;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct ServiceView {
    pub service: Service,
    /// `Version.Index`: moved by operators' writes only.
    pub index: Hlc,
    /// The revision that its slots are to run: `service.current`, or what an automatic rollback went back to.
    pub effective: RevisionId,
    /// Docker's ServiceSpec of the effective revision, to the letter.
    pub spec_json: String,
    pub spec: Arc<ServiceSpec>,
    /// Docker's PreviousSpec.
    pub previous_json: Option<String>,
    /// The rollout of `service.current`, if it needed one.
    pub rollout: Option<Rollout>,
    /// A manual or automatic rollback; the rollout is shown as one.
    pub running: u32,
    /// How many are to run; of a job, what may run at a time.
    pub desired: u32,
    /// Of a job: slots, or nodes, of this run that have ended with success.
    pub completed: u32,
    /// Set while no majority of the electorate is known to hold the last write: "held by 1 of 5 nodes".
    pub pending: Option<String>,
}

#[derive(Debug, Clone)]
pub struct RevisionView {
    /// 1 is the oldest kept.
    pub number: u32,
    pub revision: Revision,
    pub current: bool,
    /// The last rollback led away from it. (Of those before that one nothing is kept.)
    pub rolled_back_from: bool,
    /// What the rollout under way, or paused, came upon, while tasks of it serve: known to run, and so a way back.
    pub fallback: bool,
}

#[derive(Debug, Clone)]
pub struct TaskView {
    pub task: Task,
    pub index: Hlc,
    pub status: Option<TaskStatus>,
    pub service_name: String,
    pub spec_json: Option<String>,
    pub spec: Option<Arc<ServiceSpec>>,
    /// Runs what the service's effective revision asks for (Docker's `_up-to-date` filter).
    pub up_to_date: bool,
    /// Why nobody can tell whether it still is what its node said last: "node web3 is down".
    pub out_of_sight: Option<String>,
}

#[derive(Debug, Clone)]
pub struct NodeView {
    pub id: NodeId,
    /// `None` until the node's own record has arrived.
    pub fact: Option<NodeFact>,
    pub policy: NodePolicy,
    /// `Version.Index`: that of the policy.
    pub index: Hlc,
    pub liveness: Liveness,
    /// When it last spoke to this node itself, by this node's wall clock; `None` if it hasn't in this life.
    pub heard: Option<Wall>,
    pub is_self: bool,
    pub is_holder: bool,
    pub is_voter: bool,
}

#[derive(Debug, Clone)]
pub struct ObjectView {
    pub object: Object,
    pub index: Hlc,
}

/// How well this node keeps up with others, and they with it.
#[derive(Debug, Clone)]
pub struct HealthView {
    /// Times that this node came to suspect another one, and that such a one turned out to live.
    pub suspicions: u64,
    pub refuted: u64,
    /// How many times as slowly as usual this node probes, because it doubts itself.
    pub patience: u32,
    /// How many of this life's writes each other node that is not down is not known to hold.
    pub lags: Vec<(NodeId, u32)>,
}

/// Another node as this one's membership has it.
pub use crate::membership::Sighting;

/// Since when something is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    pub at: Wall,
    /// If not, it may have been so before.
    pub is_exact: bool,
}

#[derive(Debug, Clone)]
pub struct ClusterView {
    pub id: ClusterId,
    pub node: NodeId,
    pub created: Wall,
    pub join_secret: String,
    pub index: Hlc,
    pub voters: Vec<NodeId>,
    pub electorate_epoch: u32,
    /// Who holds the lease, as far as this node knows, and under which term.
    pub holder: Option<(NodeId, Term)>,
    /// Since when it does, as far as this node can know.
    pub holder_since: Option<Since>,
    /// A majority of the electorate is alive in this node's eyes.
    pub has_quorum: bool,
    pub records: usize,
    /// Set while the disk refuses writes.
    pub disk_trouble: Option<String>,
    pub refused_records: u64,
    pub tasks_here: Vec<TaskId>,
}
