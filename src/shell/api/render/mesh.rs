//! `GET /peer/mesh`: the data plane's view of this node, with the names of services, tasks and nodes.

use crate::core::view::TaskView;
use crate::model::task::Slot;
use crate::shell::api::Snapshot;
use crate::shell::mesh::{PortView, ReplicaState, ReplicaView, View};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mesh {
    /// Which data plane it is.
    plane: &'static str,
    ports: Vec<Port>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    port: u16,
    protocol: &'static str,
    options: String,
    /// `kernel` or `userspace`: the kernel counts what is open and nothing else.
    path: &'static str,
    service: String,
    /// Why it isn't open on this node; nothing if it is.
    blocked: String,
    connections: u64,
    open: u64,
    retries: u64,
    failures: u64,
    sent_bytes: u64,
    received_bytes: u64,
    replicas: Vec<Replica>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Replica {
    #[serde(rename = "TaskID")]
    task_id: String,
    name: String,
    #[serde(rename = "NodeID")]
    node_id: String,
    hostname: String,
    local: bool,
    target_port: u16,
    state: &'static str,
    open: u64,
    total: u64,
    failures: u64,
}

pub fn mesh(view: &View, seen: &Snapshot) -> Mesh {
    Mesh { plane: view.plane, ports: view.ports.iter().map(|of| port(of, seen)).collect() }
}

fn port(of: &PortView, seen: &Snapshot) -> Port {
    let mut services = seen.services.iter();
    let owner = services.find(|s| s.service.ports.iter().any(|p| (p.protocol, p.published) == (of.protocol, of.port)));
    Port {
        port: of.port,
        protocol: of.protocol.as_str(),
        options: of.options.to_string(),
        path: of.path,
        service: owner.map(|s| s.service.name.clone()).unwrap_or_default(),
        blocked: of.blocked.clone().unwrap_or_default(),
        connections: of.totals.connections,
        open: of.totals.open,
        retries: of.totals.retries,
        failures: of.totals.failures,
        sent_bytes: of.totals.sent_bytes,
        received_bytes: of.totals.received_bytes,
        replicas: of.replicas.iter().map(|r| replica(r, seen)).collect(),
    }
}

fn replica(of: &ReplicaView, seen: &Snapshot) -> Replica {
    let task = seen.tasks.iter().find(|view| view.task.id == of.task);
    let node = seen.node(of.node);
    let name = |view: &TaskView| match view.task.slot {
        Slot::Replica(number) => format!("{}.{number}", view.service_name),
        Slot::Node(node) => format!("{}.{node}", view.service_name),
    };
    Replica {
        task_id: of.task.to_string(),
        name: task.map(name).unwrap_or_default(),
        node_id: of.node.to_string(),
        hostname: node.and_then(|node| node.fact.as_ref()).map(|fact| fact.hostname.clone()).unwrap_or_default(),
        local: of.local,
        target_port: of.target,
        state: match of.state {
            ReplicaState::Routable => "routable",
            ReplicaState::Draining => "draining",
        },
        open: of.open,
        total: of.total,
        failures: of.failures,
    }
}
