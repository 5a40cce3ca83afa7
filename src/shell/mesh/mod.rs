//! The data plane: a published port answers on this node and reaches every routable replica. It follows the route
//! table that the core publishes and decides nothing about who is in it.
//!
//! The law, which "stop only what nobody routes to" rests on: [`MeshEvent::Applied`] is said only when no connection
//! picked by an older table is still on its way to its replica, and [`MeshEvent::Drained`] only when no connection
//! through this node to the replica carries anything any more.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[cfg(target_os = "linux")]
pub mod kernel;
#[cfg(not(target_os = "linux"))]
#[path = "no_kernel.rs"]
pub mod kernel;
mod proxy;
mod table;
#[cfg(test)]
mod tests;
mod tunnel;
mod watched;

pub use proxy::Userspace;
pub use tunnel::{TUNNEL_TIMEOUT, TunnelFuture, Tunnels, VERSION as TUNNEL_KIND};

use crate::core::face::MeshEvent;
use crate::ids::{NodeId, TaskId};
use crate::routes::RouteTable;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// What the agent asks of a data plane; none of it blocks. Answers come as [`MeshEvent`]s.
pub trait DataPlane: Send + Sync {
    /// Follow this table from now on; say so when it is in force.
    fn apply(&self, version: u64, table: Arc<RouteTable>);
    /// Say so when the task's connections through this node have ended, or have been quiet for a while.
    fn await_drained(&self, task: TaskId);
    /// Another node has opened a stream to one of our replicas; its first byte, [`TUNNEL_KIND`], has been read.
    fn accept(&self, from: NodeId, send: quinn::SendStream, recv: quinn::RecvStream);
    /// This node is no member any more: nothing that would outlive the process is to stay.
    fn retire(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

/// Where a data plane's events go.
pub type Events = tokio::sync::mpsc::Sender<MeshEvent>;
