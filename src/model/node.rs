//! Nodes: what each says of itself, and what operators want of it.

use crate::ids::NodeId;
use crate::time::Wall;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What a node says of itself; only that node writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFact {
    pub id: NodeId,
    pub hostname: String,
    /// Where other agents reach this one (UDP).
    pub addr: SocketAddr,
    pub os: String,
    pub arch: String,
    pub nano_cpus: u64,
    pub memory_bytes: u64,
    pub agent_version: String,
    pub engine_version: String,
    pub engine_labels: BTreeMap<String, String>,
    pub engine: EngineState,
    /// Drawn at every start, so that others can tell a restart.
    pub boot: u64,
    pub joined: Wall,
    /// Ports that the mesh could not open here, with the reason: this node's ingress for them is degraded.
    pub blocked_ports: BTreeMap<u16, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineState {
    /// Not asked yet since the agent started.
    Unknown,
    Ready,
    /// With the reason in the engine's or the system's words.
    Unreachable(String),
}

/// What operators want of a node. A node without a record is [`NodePolicy::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePolicy {
    pub id: NodeId,
    pub availability: Availability,
    pub labels: BTreeMap<String, String>,
    /// Forgotten for good: its certificate counts no more.
    pub removed: bool,
}

impl NodePolicy {
    pub fn new(id: NodeId) -> Self {
        Self { id, availability: Availability::Active, labels: BTreeMap::new(), removed: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Availability {
    Active,
    /// Gets no new tasks, keeps those it has.
    Pause,
    /// Gets none and gives up those it has, within each service's budget.
    Drain,
}

impl Availability {
    pub fn as_str(self) -> &'static str {
        match self {
            Availability::Active => "active",
            Availability::Pause => "pause",
            Availability::Drain => "drain",
        }
    }
}

impl std::str::FromStr for Availability {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "active" => Ok(Availability::Active),
            "pause" => Ok(Availability::Pause),
            "drain" => Ok(Availability::Drain),
            _ => Err(format!("invalid availability {text:?}: want active, pause or drain")),
        }
    }
}

/// How this node sees another, from membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Liveness {
    Alive,
    /// Missed a probe; given time to refute.
    Suspect,
    /// Stopped on purpose and expected back soon: keeps its tasks for the restart grace.
    Away,
    Down,
}
