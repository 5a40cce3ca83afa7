//! What an agent is started with. What was said at the first start holds until it is said otherwise, so that a later
//! start needs nothing but the data directory.

use crate::core::face::Timing;
use crate::model::node::Availability;
use crate::shell::api::ApiConfig;
use crate::shell::identity::DataDir;
use crate::shell::net::DEFAULT_PORT;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub(super) const SETTINGS_FILE: &str = "settings.json";
const SETTINGS_VERSION: u32 = 1;
const EVERYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Everything settled.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    pub data_dir: PathBuf,
    /// UDP, for everything between nodes.
    pub listen: SocketAddr,
    /// What others dial; guessed from the routing table when it isn't given.
    pub advertise: Option<SocketAddr>,
    pub join: Option<Join>,
    /// Without a cluster it waits to be told, by `docker swarm init` or `join`, instead of founding one.
    pub standby: bool,
    pub engine: EngineChoice,
    /// The API's unix socket.
    pub socket: PathBuf,
    pub hostname: String,
    /// Only used at a node's first start.
    pub labels: BTreeMap<String, String>,
    /// Likewise.
    pub availability: Option<Availability>,
    /// Published ports are opened on this address.
    pub publish_on: IpAddr,
    pub mesh: MeshChoice,
    pub mesh_transport: MeshTransport,
    pub dashboard: Dashboard,
    /// The API over TCP, for clients with a certificate.
    pub api: Option<SocketAddr>,
    pub timing: Timing,
    /// See [`crate::shell::trace`].
    pub trace_file: Option<PathBuf>,
}

impl AgentConfig {
    pub(super) fn api_config(&self) -> ApiConfig {
        let engine = match &self.engine {
            EngineChoice::Docker(socket) => Some(socket.clone()),
            EngineChoice::Demo => None,
        };
        ApiConfig { socket: self.socket.clone(), engine, agent_version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// What carries the connections to published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MeshChoice {
    /// The kernel where it can, this process where it can't.
    #[default]
    Auto,
    Kernel,
    Userspace,
}

/// How they get to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MeshTransport {
    /// Plainly where the kernels of both nodes carry them, else in tunnels.
    #[default]
    Auto,
    /// In tunnels only.
    Quic,
}

/// Where the cluster page is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dashboard {
    None,
    /// On [`crate::shell::page::DEFAULT_ADDR`], or another port of loopback where that is taken.
    Default,
    /// Here and nowhere else.
    On(SocketAddr),
}

#[derive(Debug, Clone)]
pub struct Join {
    /// HOST or HOST:PORT.
    pub host: String,
    pub token: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineChoice {
    /// Docker's unix socket.
    Docker(PathBuf),
    /// The engine built into the binary.
    Demo,
}

/// What somebody said on the command line; the rest comes from the last start or is the default.
#[derive(Debug, Clone)]
pub struct StartOptions {
    pub data_dir: PathBuf,
    pub listen: Option<SocketAddr>,
    /// Without a port: that of `listen`.
    pub advertise: Option<(IpAddr, Option<u16>)>,
    pub join: Option<Join>,
    pub standby: Option<bool>,
    pub engine: Option<EngineChoice>,
    pub socket: Option<PathBuf>,
    pub default_socket: PathBuf,
    pub hostname: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub availability: Option<Availability>,
    pub dashboard: Option<Dashboard>,
    pub publish_on: Option<IpAddr>,
    pub mesh: Option<MeshChoice>,
    pub mesh_transport: Option<MeshTransport>,
    /// Nothing was said, or none, or where.
    pub api: Option<Option<SocketAddr>>,
}

/// Kept in the data directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Settings {
    version: u32,
    listen: SocketAddr,
    advertise: Option<SocketAddr>,
    /// Docker's socket, or none for the demo engine.
    engine: Option<PathBuf>,
    socket: PathBuf,
    hostname: String,
    // These came later than version 1's other fields.
    dashboard: Option<Dashboard>,
    /// Likewise.
    #[serde(default)]
    standby: bool,
    mesh: Option<MeshChoice>,
    mesh_transport: Option<MeshTransport>,
    publish_on: Option<IpAddr>,
    /// Likewise.
    #[serde(default)]
    api: Option<SocketAddr>,
}

impl StartOptions {
    /// Fills in what the last start in this data directory used, and keeps it all for the next.
    pub fn settle(self) -> anyhow::Result<AgentConfig> {
        let dir = DataDir::open(&self.data_dir)?;
        let last = match dir.read_private(SETTINGS_FILE)? {
            Some(bytes) => Some(read(&bytes).with_context(|| {
                format!("{} can't be used; it was left as it is", dir.path().join(SETTINGS_FILE).display())
            })?),
            None => None,
        };
        let default_listen = SocketAddr::new(EVERYWHERE, DEFAULT_PORT);
        let listen = self.listen.or(last.as_ref().map(|l| l.listen)).unwrap_or(default_listen);
        let said = self.advertise.map(|(ip, port)| SocketAddr::new(ip, port.unwrap_or(listen.port())));
        let engine = self
            .engine
            .or_else(|| last.as_ref().map(|l| l.engine.clone().map_or(EngineChoice::Demo, EngineChoice::Docker)));
        let config = AgentConfig {
            data_dir: self.data_dir,
            listen,
            advertise: said.or(last.as_ref().and_then(|l| l.advertise)),
            join: self.join,
            standby: self.standby.unwrap_or_else(|| last.as_ref().is_some_and(|l| l.standby)),
            engine: engine.unwrap_or_else(|| EngineChoice::Docker(PathBuf::from("/var/run/docker.sock"))),
            socket: self.socket.or_else(|| last.as_ref().map(|l| l.socket.clone())).unwrap_or(self.default_socket),
            hostname: self.hostname.or_else(|| last.as_ref().map(|l| l.hostname.clone())).unwrap_or_else(machine_name),
            labels: self.labels,
            availability: self.availability,
            publish_on: self.publish_on.or(last.as_ref().and_then(|l| l.publish_on)).unwrap_or(EVERYWHERE),
            mesh: self.mesh.or(last.as_ref().and_then(|l| l.mesh)).unwrap_or_default(),
            mesh_transport: self.mesh_transport.or(last.as_ref().and_then(|l| l.mesh_transport)).unwrap_or_default(),
            dashboard: self.dashboard.or(last.as_ref().and_then(|l| l.dashboard)).unwrap_or(Dashboard::Default),
            api: self.api.unwrap_or_else(|| last.as_ref().and_then(|l| l.api)),
            timing: Timing::default(),
            trace_file: None,
        };
        check_family(&config)?;
        let settings = Settings {
            version: SETTINGS_VERSION,
            listen: config.listen,
            advertise: config.advertise,
            engine: match &config.engine {
                EngineChoice::Docker(path) => Some(path.clone()),
                EngineChoice::Demo => None,
            },
            socket: config.socket.clone(),
            hostname: config.hostname.clone(),
            dashboard: Some(config.dashboard),
            standby: config.standby,
            mesh: Some(config.mesh),
            mesh_transport: Some(config.mesh_transport),
            publish_on: Some(config.publish_on),
            api: config.api,
        };
        dir.write_private(SETTINGS_FILE, &serde_json::to_vec_pretty(&settings)?)?;
        Ok(config)
    }
}

fn read(bytes: &[u8]) -> anyhow::Result<Settings> {
    let settings: Settings = serde_json::from_slice(bytes)?;
    anyhow::ensure!(
        settings.version <= SETTINGS_VERSION,
        "version {} is newer than this build reads ({SETTINGS_VERSION}): upgrade peer on this node",
        settings.version
    );
    if let Some(engine) = settings.engine.as_ref().filter(|path| !path.is_absolute()) {
        anyhow::bail!("engine {engine:?}: want the path of a Docker Engine's socket, or null for the demo engine");
    }
    Ok(settings)
}

/// What listens on an address of one kind is not reached at one of the other, save the IPv6 address that stands for all.
pub(super) fn check_family(config: &AgentConfig) -> anyhow::Result<()> {
    let listen = config.listen.ip();
    let takes_both = listen.is_ipv6() && listen.is_unspecified();
    match config.advertise {
        Some(addr) if addr.is_ipv4() != listen.is_ipv4() && !takes_both => anyhow::bail!(
            "--advertise-addr {addr}: nothing of this node is there, it listens on {} (--listen-addr)",
            config.listen
        ),
        _ => Ok(()),
    }
}

fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn options(dir: &std::path::Path) -> StartOptions {
        StartOptions {
            data_dir: dir.to_owned(),
            listen: None,
            advertise: None,
            join: None,
            standby: None,
            engine: Some(EngineChoice::Demo),
            socket: None,
            default_socket: dir.join("peer.sock"),
            hostname: None,
            labels: BTreeMap::new(),
            availability: None,
            dashboard: None,
            publish_on: None,
            mesh: None,
            mesh_transport: None,
            api: None,
        }
    }

    #[test]
    fn an_address_of_the_other_kind_is_refused_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let settle = |listen: &str, advertise: &str| {
            let advertise = Some((advertise.parse().unwrap(), None));
            StartOptions { listen: Some(listen.parse().unwrap()), advertise, ..options(dir.path()) }.settle()
        };
        for (listen, advertise) in [("[::1]:7984", "127.0.0.1"), ("0.0.0.0:7373", "::1")] {
            let error = settle(listen, advertise).unwrap_err().to_string();
            assert!(error.starts_with("--advertise-addr") && error.contains(listen), "{error}");
        }
        assert!(!dir.path().join(SETTINGS_FILE).exists());
        settle("[::]:7373", "127.0.0.1").expect("it listens on both");
        settle("[::1]:7373", "::1").unwrap();
    }

    /// A restart must not open on all addresses what was to be on one.
    #[test]
    fn where_ports_are_published_is_remembered_until_it_is_said_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let settle = |said: Option<&str>| {
            let publish_on = said.map(|ip| ip.parse().unwrap());
            StartOptions { publish_on, ..options(dir.path()) }.settle().unwrap().publish_on.to_string()
        };
        let told: Vec<String> =
            [None, Some("127.0.0.7"), None, Some("0.0.0.0"), None].into_iter().map(settle).collect();
        assert_eq!(told, ["0.0.0.0", "127.0.0.7", "127.0.0.7", "0.0.0.0", "0.0.0.0"]);
    }

    #[test]
    fn settings_that_make_no_sense_are_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        options(dir.path()).settle().unwrap();
        let path = dir.path().join(SETTINGS_FILE);
        let good: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let with = |key: &str, value: serde_json::Value| {
            let mut bad = good.clone();
            bad[key] = value;
            bad.to_string()
        };
        for bad in ["".to_owned(), "]".to_owned(), with("engine", "podman".into()), with("version", 2.into())] {
            std::fs::write(&path, &bad).unwrap();
            let error = format!("{:#}", options(dir.path()).settle().unwrap_err());
            assert!(error.contains(&path.display().to_string()) && error.contains("left as it is"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
        }
    }
}
