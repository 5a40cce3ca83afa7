//! What `peer demo` is made of: its greeter and the images of it ([`greeter`], [`image`]), the addresses of its nodes,
//! and its directory. The command itself (`cli/demo`) starts every agent as a process of its own.
//!
//! [`Demo`] is the same in one process, for tests: several real agents over the built-in engine.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod greeter;
pub mod image;
mod program;
mod tar;

use crate::core::face::Timing;
use crate::shell::agent::{Agent, AgentConfig, Dashboard, EngineChoice, Join, MeshChoice, MeshTransport};
use crate::shell::engine::{AnyEngine, DemoEngine};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// For everything to come up.
const UP_LIMIT: Duration = Duration::from_secs(60);
const MAX_NODES: usize = 50;

/// Agents of one demo; dropping it leaves the directory to [`Demo::end`].
pub struct Demo {
    pub agents: Vec<Option<Agent>>,
    pub configs: Vec<AgentConfig>,
    pub engine: DemoEngine,
    dir: tempfile_dir::Dir,
}

impl Demo {
    /// Brings up `nodes` agents that know each other.
    pub async fn start(nodes: usize) -> anyhow::Result<Self> {
        if nodes == 0 || nodes > MAX_NODES {
            bail!("--nodes {nodes}: want 1 to {MAX_NODES}");
        }
        let dir = tempfile_dir::Dir::new()?;
        let mut demo = Self { agents: Vec::new(), configs: Vec::new(), engine: DemoEngine::new(), dir };
        for number in 1..=nodes {
            let join = match demo.agents.first().and_then(Option::as_ref) {
                Some(first) => Some(Join { host: first.addr.to_string(), token: first.token().await? }),
                None => None,
            };
            let config = demo.config(number, join)?;
            let agent = Agent::start(config.clone(), demo.engine_of(&config)).await?;
            demo.agents.push(Some(agent));
            demo.configs.push(config);
        }
        Ok(demo)
    }

    fn engine_of(&self, config: &AgentConfig) -> AnyEngine {
        AnyEngine::Demo(self.engine.on_host(&config.hostname))
    }

    fn config(&self, number: usize, join: Option<Join>) -> anyhow::Result<AgentConfig> {
        let config = config(self.dir.path(), number)?;
        let ip = config.publish_on;
        Ok(AgentConfig {
            socket: config.data_dir.join("peer.sock"),
            advertise: Some(config.listen),
            join,
            dashboard: if number == 1 { Dashboard::Default } else { Dashboard::On(SocketAddr::new(ip, 0)) },
            ..config
        })
    }

    /// The node's agent, which must run.
    pub fn agent(&self, index: usize) -> anyhow::Result<&Agent> {
        self.agents.get(index).and_then(Option::as_ref).context("that node is stopped")
    }

    /// As `kill -9` would.
    pub async fn kill(&mut self, index: usize) {
        if let Some(agent) = self.agents[index].take() {
            agent.kill().await;
        }
    }

    pub async fn stop(&mut self, index: usize) {
        if let Some(agent) = self.agents[index].take() {
            agent.stop().await;
        }
    }

    pub async fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        let config = AgentConfig { join: None, ..self.configs[index].clone() };
        self.agents[index] = Some(Agent::start(config.clone(), self.engine_of(&config)).await?);
        Ok(())
    }

    /// Until `node` of the demo sees `count` others and itself alive and somebody holds the lease.
    pub async fn wait_formed(&self, count: usize) -> anyhow::Result<()> {
        let agent = self.agents.iter().flatten().next().context("no node runs")?;
        let deadline = Instant::now() + UP_LIMIT;
        loop {
            let (alive, held) = agent
                .handle
                .query(|core| {
                    let ready = |n: &crate::core::view::NodeView| {
                        n.liveness == crate::model::node::Liveness::Alive
                            && n.fact.as_ref().is_some_and(|f| f.engine == crate::model::node::EngineState::Ready)
                    };
                    (core.nodes().iter().filter(|n| ready(n)).count(), core.cluster().holder.is_some())
                })
                .await?;
            if alive >= count && held {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{alive} of {count} nodes are ready after {} s", UP_LIMIT.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops all agents and removes what they and their services left.
    pub async fn end(mut self) {
        for index in 0..self.agents.len() {
            self.kill(index).await;
        }
    }
}

/// On Linux every address of 127/8 is this machine, so each node has its own and can publish the same ports.
pub fn address(number: usize) -> IpAddr {
    let last = u8::try_from(number).unwrap_or(u8::MAX);
    let own = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    if TcpListener::bind((own, 0)).is_ok() { own } else { IpAddr::V4(Ipv4Addr::LOCALHOST) }
}

/// A node in `dir`, over the built-in engine and on an address of its own; it founds a cluster and has no page.
///
/// # Errors
/// There is no free port on its address.
pub fn config(dir: &Path, number: usize) -> anyhow::Result<AgentConfig> {
    let ip = address(number);
    Ok(AgentConfig {
        socket: dir.join(format!("node{number}.sock")),
        data_dir: dir.join(format!("node{number}")),
        listen: SocketAddr::new(ip, free_udp_port(ip)?),
        advertise: None,
        join: None,
        standby: false,
        engine: EngineChoice::Demo,
        hostname: format!("node{number}"),
        labels: BTreeMap::new(),
        availability: None,
        publish_on: ip,
        mesh: MeshChoice::Userspace,
        mesh_transport: MeshTransport::Auto,
        dashboard: Dashboard::None,
        api: None,
        timing: Timing::default(),
        trace_file: None,
    })
}

pub fn free_tcp_addr(ip: IpAddr) -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((ip, 0)).context("no free TCP port")?.local_addr()?)
}

pub fn free_udp_port(ip: IpAddr) -> anyhow::Result<u16> {
    Ok(UdpSocket::bind((ip, 0)).context("no free UDP port")?.local_addr()?.port())
}

/// A directory that goes when its owner does.
pub mod tempfile_dir {
    use crate::shell::identity::random;
    use std::os::unix::fs::DirBuilderExt;
    use std::path::{Path, PathBuf};

    pub struct Dir(PathBuf);

    impl Dir {
        pub fn new() -> anyhow::Result<Self> {
            let name = format!("peer-demo-{:08x}", random::number()? as u32);
            let path = std::env::temp_dir().join(name);
            // The agents' logs are in it, and in those the token: whoever joins commands this user's engine.
            std::fs::DirBuilder::new().mode(0o700).create(&path)?;
            Ok(Self(path))
        }
        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// The sockets of a running demo, for tests.
impl Demo {
    pub fn socket(&self, index: usize) -> PathBuf {
        self.configs[index].socket.clone()
    }
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}
