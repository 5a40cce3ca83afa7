//! The data plane: a published port answers on this node and reaches every routable replica. It follows the route
//! table that the core publishes and decides nothing about who is in it.
//!
//! The law, which "stop only what nobody routes to" rests on: [`MeshEvent::Applied`] is said only when no connection
//! picked by an older table is still on its way to its replica, and [`MeshEvent::Drained`] only when no connection
//! through this node to the replica carries anything any more.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod copy;
mod http;
#[cfg(target_os = "linux")]
pub mod kernel;
#[cfg(not(target_os = "linux"))]
#[path = "no_kernel.rs"]
pub mod kernel;
mod pick;
mod proxy;
mod proxy_header;
mod reach;
mod table;
#[cfg(test)]
mod tests;
mod tunnel;
mod view;

pub use proxy::Userspace;
pub use tunnel::{HELD_VERSION as HELD_TUNNEL_KIND, TUNNEL_TIMEOUT, TunnelFuture, Tunnels, VERSION as TUNNEL_KIND};
pub use view::{PortView, ReplicaState, ReplicaView, Totals, View};

use crate::core::face::MeshEvent;
use crate::ids::{NodeId, TaskId};
use crate::routes::RouteTable;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// What the agent asks of a data plane; none of it blocks. Answers come as [`MeshEvent`]s.
pub trait DataPlane: Send + Sync {
    /// Follow this table from now on; say so when it is in force.
    fn apply(&self, version: u64, table: Arc<RouteTable>);
    /// Say so when the task's connections through this node have ended, or have been quiet for a while. `everywhere`:
    /// no node leads new ones to it any more.
    fn await_drained(&self, task: TaskId, everywhere: bool);
    /// Another node has opened a stream to one of our replicas; its first byte, [`TUNNEL_KIND`], has been read.
    fn accept(&self, from: NodeId, send: quinn::SendStream, recv: quinn::RecvStream);
    /// Likewise; its first byte was [`HELD_TUNNEL_KIND`].
    fn accept_held(&self, from: NodeId, send: quinn::SendStream, recv: quinn::RecvStream) {
        self.accept(from, send, recv);
    }
    /// What it does on this node, as it really has it.
    fn view(&self) -> View {
        View::default()
    }
    /// The agent stops: take nothing new, end what can be ended at a boundary, and let what is under way end, for a
    /// bounded time.
    fn close(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
    /// This node is no member any more: nothing that would outlive the process is to stay.
    fn retire(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Where a data plane's events go.
pub type Events = tokio::sync::mpsc::Sender<MeshEvent>;
