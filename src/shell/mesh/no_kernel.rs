//! Where there is no nftables: nothing is ever found that could carry the mesh.

use super::{DataPlane, Events, Tunnels};
use crate::ids::{NodeId, TaskId};
use crate::routes::RouteTable;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub struct Style {
    pub publish_on: Option<Ipv4Addr>,
    pub own: Option<Ipv4Addr>,
    pub plain: bool,
}

pub enum Found {}

pub enum Kernel {}

pub async fn examine(_: Style) -> Result<Found, String> {
    Err("only Linux has nftables".to_owned())
}

pub async fn sweep() {}

impl Kernel {
    pub async fn start(
        found: Found,
        _: IpAddr,
        _: Arc<dyn Tunnels>,
        _: Events,
        _: CancellationToken,
    ) -> io::Result<Self> {
        match found {}
    }
}

impl DataPlane for Kernel {
    fn apply(&self, _: u64, _: Arc<RouteTable>) {
        match *self {}
    }

    fn await_drained(&self, _: TaskId, _: bool) {
        match *self {}
    }

    fn accept(&self, _: NodeId, _: quinn::SendStream, _: quinn::RecvStream) {
        match *self {}
    }
}
