//! Who is routable: the endpoint table that every node's data plane follows, as a pure function of the records.

use crate::ids::{NodeId, TaskId};
use crate::model::spec::Protocol;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Published port -> the replicas behind it, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    pub ports: BTreeMap<(Protocol, u16), Vec<Backend>>,
    /// Every local replica's published targets, withdrawn ones too while their connections last: the only
    /// places this agent will connect a tunnel from another node to.
    pub local: BTreeMap<(TaskId, u16), SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub task: TaskId,
    pub node: NodeId,
    pub target: u16,
    pub reach: Reach,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// A container of this node.
    Local(IpAddr),
    /// Through the agent of `Backend::node` at this address.
    Remote(SocketAddr),
}
