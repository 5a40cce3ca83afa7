//! Which data plane carries this node's published ports.

use super::StartError;
use super::options::{AgentConfig, EngineChoice, MeshChoice, MeshTransport};
use crate::shell::mesh::kernel::{self, Found, Kernel, Style};
use crate::shell::mesh::{DataPlane, Events, Tunnels, Userspace};
use anyhow::Context;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub enum Plane {
    Kernel {
        found: Found,
        plain: bool,
    },
    /// And why not the kernel.
    Userspace(String),
}

/// What was asked for, or the best there is. An agent whose kernel carries nothing leaves no earlier one's rules behind.
pub async fn choose(config: &AgentConfig, addr: SocketAddr) -> anyhow::Result<Plane> {
    let wanted = match config.mesh {
        MeshChoice::Userspace => Err("--mesh userspace".to_owned()),
        MeshChoice::Auto | MeshChoice::Kernel => find(config, addr).await,
    };
    match wanted {
        Ok(found) => {
            tracing::info!("the kernel carries connections to published ports (nftables, table ip peer)");
            Ok(Plane::Kernel { found, plain: is_plain(config) })
        }
        Err(why) if config.mesh == MeshChoice::Kernel => Err(StartError {
            why: format!("--mesh kernel: {why}"),
            hint: "with --mesh auto this process carries the connections where the kernel can't",
        }
        .into()),
        Err(why) => {
            tracing::info!(why, "this process carries connections to published ports, not the kernel");
            // A node of a demo lives beside others, and has a loopback address.
            if matches!(config.engine, EngineChoice::Docker(_)) && !config.publish_on.is_loopback() {
                kernel::sweep().await;
            }
            Ok(Plane::Userspace(why))
        }
    }
}

fn is_plain(config: &AgentConfig) -> bool {
    config.mesh_transport == MeshTransport::Auto
}

async fn find(config: &AgentConfig, addr: SocketAddr) -> Result<Found, String> {
    if config.engine == EngineChoice::Demo {
        return Err("the demo engine's containers have no network that a kernel could lead to".to_owned());
    }
    let publish_on = match config.publish_on {
        IpAddr::V4(ip) if ip.is_loopback() => return Err("ports are published on loopback only".to_owned()),
        IpAddr::V4(ip) => Some(ip).filter(|ip| !ip.is_unspecified()),
        IpAddr::V6(ip) if ip.is_unspecified() => None,
        IpAddr::V6(_) => return Err("ports are published on an IPv6 address only".to_owned()),
    };
    // Where the network translates addresses, others know this machine by one that it doesn't have itself.
    let own = match addr.ip() {
        IpAddr::V4(ip) => Some(ip).filter(|ip| UdpSocket::bind((*ip, 0)).is_ok()),
        IpAddr::V6(_) => None,
    };
    kernel::examine(Style { publish_on, own, plain: is_plain(config) }).await
}

impl Plane {
    /// Whether other nodes' kernels may send here.
    pub fn delivers(&self, addr: SocketAddr) -> bool {
        matches!(self, Plane::Kernel { plain: true, .. }) && addr.is_ipv4()
    }

    pub fn in_words(&self) -> String {
        match self {
            Plane::Kernel { plain: true, .. } => "in the kernel".to_owned(),
            Plane::Kernel { plain: false, .. } => "in the kernel, but for what goes between nodes".to_owned(),
            Plane::Userspace(why) => format!("in userspace ({why})"),
        }
    }

    pub async fn start(
        self,
        publish_on: IpAddr,
        tunnels: Arc<dyn Tunnels>,
        events: Events,
        stop: CancellationToken,
    ) -> anyhow::Result<Arc<dyn DataPlane>> {
        Ok(match self {
            Plane::Kernel { found, .. } => {
                let plane = Kernel::start(found, publish_on, tunnels, events, stop).await;
                Arc::new(plane.context("the kernel can't carry the mesh after all")?)
            }
            Plane::Userspace(why) => {
                let no_udp = format!("UDP takes a mesh in the kernel, and here it is in userspace ({why})");
                Arc::new(Userspace::start(publish_on, Some(no_udp), tunnels, events, stop))
            }
        })
    }
}
