//! What a data plane does on this node, as it really has it: for `peer mesh ls` and the metrics.

use crate::ids::{NodeId, TaskId};
use crate::model::spec::{PortOptions, Protocol};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Which data plane carries the ports.
    pub plane: &'static str,
    pub ports: Vec<PortView>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortView {
    pub protocol: Protocol,
    pub port: u16,
    pub options: PortOptions,
    /// What carries its connections just now: `kernel`, which counts what is open and nothing else, or `userspace`.
    pub path: &'static str,
    /// Why it isn't open here, if it isn't.
    pub blocked: Option<String>,
    pub totals: Totals,
    pub replicas: Vec<ReplicaView>,
}

/// Since the port is open here. On an HTTP-aware port requests are counted, elsewhere connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Tries included that a replica didn't take.
    pub connections: u64,
    pub open: u64,
    /// Times another replica was tried.
    pub retries: u64,
    /// Clients that were turned away.
    pub failures: u64,
    /// Towards replicas.
    pub sent_bytes: u64,
    /// Towards clients.
    pub received_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaView {
    pub task: TaskId,
    pub node: NodeId,
    pub target: u16,
    /// It runs on this node.
    pub local: bool,
    pub state: ReplicaState,
    pub open: u64,
    pub total: u64,
    /// Times that it didn't take, or didn't answer, what was sent its way.
    pub failures: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaState {
    /// It gets what comes.
    Routable,
    /// It gets nothing new; what it has may end.
    Draining,
}
