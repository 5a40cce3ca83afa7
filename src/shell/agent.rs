//! One agent: the core in its loop, and the drivers around it.
#![allow(clippy::disallowed_methods)]

use crate::core::face::Timing;
use crate::model::node::Availability;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

#[derive(Debug, Clone)]
pub struct AgentConfig {
    pub data_dir: PathBuf,
    /// UDP, for everything between nodes.
    pub listen: SocketAddr,
    /// What others dial; guessed from the routing table when it isn't given.
    pub advertise: Option<SocketAddr>,
    pub join: Option<Join>,
    pub engine: EngineChoice,
    /// The API's unix socket.
    pub socket: PathBuf,
    pub hostname: String,
    /// Only used at a node's first start.
    pub labels: BTreeMap<String, String>,
    pub availability: Availability,
    /// Published ports are opened on this address.
    pub publish_on: IpAddr,
    pub timing: Timing,
}

#[derive(Debug, Clone)]
pub struct Join {
    /// HOST or HOST:PORT.
    pub host: String,
    pub token: String,
}

#[derive(Debug, Clone)]
pub enum EngineChoice {
    /// Docker's unix socket.
    Docker(PathBuf),
    /// The engine built into the binary.
    Demo,
}
