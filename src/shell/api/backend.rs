//! What the handlers know of the cluster: a snapshot, taken in one question to the agent, and requests to change it.
//! The agent is behind a small trait so that the tests can answer with hand-made snapshots.

use crate::core::Core;
use crate::core::face::{Refused, Reply, Request};
use crate::core::view::{ClusterView, NodeView, ObjectView, RevisionView, ServiceView, TaskView};
use crate::ids::{NodeId, ServiceId};
use crate::model::object::ObjectKind;
use crate::shell::handle::AgentHandle;
use futures_util::future::BoxFuture;

/// Which lists a handler needs; the others stay empty, so that a poll for one doesn't copy them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    pub services: bool,
    pub tasks: bool,
    pub nodes: bool,
}

impl Want {
    pub const CLUSTER: Self = Self { services: false, tasks: false, nodes: false };
    pub const SERVICES: Self = Self { services: true, ..Self::CLUSTER };
    pub const NODES: Self = Self { nodes: true, ..Self::CLUSTER };
    pub const ALL: Self = Self { services: true, tasks: true, nodes: true };
}

/// The cluster at one instant, as this node sees it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub services: Vec<ServiceView>,
    pub tasks: Vec<TaskView>,
    pub nodes: Vec<NodeView>,
    pub cluster: ClusterView,
}

impl Snapshot {
    pub fn of(core: &Core, want: Want) -> Self {
        let mut snapshot = Self {
            services: if want.services { core.services() } else { Vec::new() },
            tasks: if want.tasks { core.tasks() } else { Vec::new() },
            nodes: if want.nodes { core.nodes() } else { Vec::new() },
            cluster: core.cluster(),
        };
        snapshot.nodes.retain(|node| !node.policy.removed);
        snapshot
    }

    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.id == id)
    }

    pub fn this_node(&self) -> Option<&NodeView> {
        self.node(self.cluster.node)
    }
}

pub trait Backend: Send + Sync + 'static {
    fn snapshot(&self, want: Want) -> BoxFuture<'_, Result<Snapshot, Refused>>;
    /// Oldest first.
    fn revisions(&self, service: ServiceId) -> BoxFuture<'_, Result<Vec<RevisionView>, Refused>>;
    /// All secrets, configs or networks, by id.
    fn objects(&self, kind: ObjectKind) -> BoxFuture<'_, Result<Vec<ObjectView>, Refused>>;
    fn request(&self, request: Request) -> BoxFuture<'_, Reply>;
}

impl Backend for AgentHandle {
    fn snapshot(&self, want: Want) -> BoxFuture<'_, Result<Snapshot, Refused>> {
        Box::pin(self.query(move |core| Snapshot::of(core, want)))
    }

    fn revisions(&self, service: ServiceId) -> BoxFuture<'_, Result<Vec<RevisionView>, Refused>> {
        Box::pin(self.query(move |core| core.revisions(service)))
    }

    fn objects(&self, kind: ObjectKind) -> BoxFuture<'_, Result<Vec<ObjectView>, Refused>> {
        Box::pin(self.query(move |core| core.objects(kind)))
    }

    fn request(&self, request: Request) -> BoxFuture<'_, Reply> {
        Box::pin(AgentHandle::request(self, request))
    }
}
