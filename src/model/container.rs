//! What the worker asks of an engine and what an engine reports, as data. The engines themselves live in the shell.

use crate::ids::{ClusterId, NodeId, ServiceId, TaskId};
use crate::model::object::{PlannedFile, PlannedNetwork};
use crate::model::spec::template::TemplateContext;
use crate::model::spec::{PublishedPort, TaskSpec};
use crate::time::Wall;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// One engine operation; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Labels by which an agent knows its containers. One without all of them is never touched.
pub const LABEL_CLUSTER: &str = "peer.cluster";
pub const LABEL_NODE: &str = "peer.node";
pub const LABEL_TASK: &str = "peer.task";
pub const LABEL_ATTEMPT: &str = "peer.attempt";
pub const LABEL_SERVICE: &str = "peer.service";
/// On a bridge that stands for one of the cluster's networks: that network's id.
pub const LABEL_NETWORK: &str = "peer.network";

/// Whose containers an agent looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub cluster: ClusterId,
    pub node: NodeId,
}

#[derive(Debug, Clone, PartialEq)]
pub enum EngineOp {
    /// Make sure the image is there. An image that is present by digest, or present at all where the
    /// registry can't be asked, is good enough; `auth` is X-Registry-Auth as the client sent it.
    Pull { image: String, auth: Option<String> },
    /// Create the container; one of this name that is ours already counts as success.
    Create(Box<ContainerPlan>),
    /// Start it; already running counts as success.
    Start { name: String },
    /// Send `signal` (the image's or SIGTERM if none), after `grace` SIGKILL. Done when it is not running.
    Stop { name: String, signal: Option<String>, grace: Duration },
    /// Remove it with its anonymous volumes, killing it if it must; gone already counts as success.
    Remove { name: String },
    /// Done (`Ok`) as soon as the container accepts a TCP connection on `port`; fails after `within`.
    Probe { name: String, port: u16, within: Duration },
    /// Report all of `Owner`'s containers as an [`EngineEvent::Observed`].
    List,
}

/// Everything an engine needs to create a task's container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerPlan {
    /// `service.slot.task` and `.attempt` after the first: derived, so that creating twice is creating once.
    pub name: String,
    pub service: ServiceId,
    pub task: TaskId,
    pub attempt: u32,
    /// The spec's container labels, Swarm's `com.docker.swarm.*` and ours.
    pub labels: BTreeMap<String, String>,
    pub spec: Arc<TaskSpec>,
    /// The container's hostname, templates filled in; `None` leaves it to the engine.
    pub hostname: Option<String>,
    /// `KEY=value`, templates filled in.
    pub env: Vec<String>,
    /// Ports in host mode, to be bound on this machine.
    pub host_ports: Vec<PublishedPort>,
    /// Secrets and configs, with their content.
    pub files: Vec<PlannedFile>,
    /// None: the engine's default network.
    pub networks: Vec<PlannedNetwork>,
    /// What templates in its files stand for.
    pub context: TemplateContext,
}

/// What went wrong, in the engine's words, short enough to keep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The engine understood and refused: no such image, port taken, bad mount. Trying again at once won't help.
    #[error("{0}")]
    Refused(String),
    /// The engine did not answer, or broke off. What it did is unknown: list before the next step.
    #[error("engine unreachable: {0}")]
    Unreachable(String),
    /// It took longer than the operation may.
    #[error("timed out: {0}")]
    TimedOut(String),
}

#[derive(Debug, Clone, PartialEq)]
pub enum EngineEvent {
    Done {
        op: OpId,
        result: Result<(), OpError>,
    },
    /// All of this agent's containers as the engine has them now: the truth that events only hint at.
    Observed(Vec<ObservedContainer>),
    /// The engine answers (again); always followed by an `Observed`.
    Reachable(EngineInfo),
    Unreachable(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineInfo {
    pub version: String,
    pub os: String,
    /// Docker's architecture names as Swarm stores them: "x86_64", "aarch64".
    pub arch: String,
    pub nano_cpus: u64,
    pub memory_bytes: u64,
    pub labels: BTreeMap<String, String>,
}

/// One container of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedContainer {
    pub name: String,
    pub id: String,
    pub task: TaskId,
    pub attempt: u32,
    pub state: ContainerState,
    pub pid: Option<i64>,
    /// Where this machine reaches its ports, while it runs.
    pub address: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    Created,
    Running { health: Health },
    Exited { code: i64, error: String, at: Wall },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The container has no health check.
    None,
    Starting,
    Healthy,
    Unhealthy,
}
