//! A service spec as checked types. `parse` makes them from Docker's JSON, once, at the edge: whatever has
//! one of these types is within its bounds and means something. Defaults are Swarm's (reference: moby/swarmkit
//! api/defaults/service.go) and already filled in.

mod container;
mod defaults;
mod files;
pub mod hardware;
mod image;
mod parse;
mod placement;
mod port_options;
mod read;
pub mod template;
pub use defaults::{is_unnamed, resolve_defaults, resolve_minimum, with_files_of, with_name};
pub use files::{HOST_NETWORK, NETWORKS_ARE_LOCAL, target_path};
pub use hardware::Hardware;
pub use parse::{SpecError, parse, parse_with_warnings, warnings};
pub use placement::parse_network;
pub use port_options::{AppProtocol, PortOptions, ProxyProtocol};

use crate::model::generic::Generic;
use crate::model::object::{FileRef, NetworkRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub mode: Mode,
    pub task: TaskSpec,
    pub update: UpdateConfig,
    pub rollback: UpdateConfig,
    /// As the operator wrote them; a published port of 0 means "any". [`crate::model::service::Service::ports`] has the numbers.
    pub ports: Vec<PublishedPort>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Replicated(u32),
    Global,
    /// `total` slots, each run to a successful end once, `concurrent` of them at a time.
    ReplicatedJob {
        concurrent: u32,
        total: u32,
    },
    /// Run to a successful end once on every node that fits.
    GlobalJob,
}

impl Mode {
    /// Each of its tasks is to come to an end.
    pub fn is_job(self) -> bool {
        matches!(self, Mode::ReplicatedJob { .. } | Mode::GlobalJob)
    }

    /// The name that Docker's filters and `--mode` have for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Replicated(_) => "replicated",
            Mode::Global => "global",
            Mode::ReplicatedJob { .. } => "replicated-job",
            Mode::GlobalJob => "global-job",
        }
    }
}

/// What a task runs and where it may: a change of it (but for `placement` where the node still fits) replaces tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSpec {
    pub container: ContainerSpec,
    pub resources: Resources,
    pub restart: RestartPolicy,
    pub placement: Placement,
    pub log_driver: Option<LogDriver>,
    /// Raised by `--force` to replace tasks whose spec is otherwise the same.
    pub force_update: u64,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ContainerSpec {
    pub image: String,
    pub labels: BTreeMap<String, String>,
    /// The entrypoint, as in Docker's `Command`.
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub hostname: Option<String>,
    pub env: Vec<String>,
    pub dir: Option<String>,
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub tty: bool,
    pub open_stdin: bool,
    pub read_only: bool,
    pub init: Option<bool>,
    pub mounts: Vec<Mount>,
    pub stop_signal: Option<String>,
    /// From SIGTERM to SIGKILL; 10 s unless set.
    pub stop_grace: Option<Duration>,
    pub healthcheck: Option<Healthcheck>,
    /// "IP host [alias...]" as in hosts(5).
    pub hosts: Vec<String>,
    pub dns: Dns,
    pub sysctls: BTreeMap<String, String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub ulimits: Vec<Ulimit>,
    pub oom_score_adj: i64,
    /// Secrets and configs.
    pub files: Vec<FileRef>,
    /// None: the engine's default network. From `TaskTemplate.Networks`.
    pub networks: Vec<NetworkRef>,
    /// On its node's own network instead: no other, and no ports but the node's.
    pub host_network: bool,
    /// From labels of the service.
    pub hardware: Hardware,
}

pub const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(10);

impl ContainerSpec {
    pub fn stop_grace(&self) -> Duration {
        self.stop_grace.unwrap_or(DEFAULT_STOP_GRACE)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    pub servers: Vec<String>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDriver {
    pub name: String,
    pub options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Mount {
    pub kind: MountKind,
    /// Host path of a bind, name of a volume (none: anonymous), nothing for tmpfs.
    pub source: Option<String>,
    pub target: String,
    pub read_only: bool,
    /// Docker's BindOptions, VolumeOptions and TmpfsOptions as they came, passed on to the engine.
    pub options: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    Bind,
    Volume,
    Tmpfs,
}

/// `test` as in Docker: ["NONE"], ["CMD", args...] or ["CMD-SHELL", text]; empty inherits the image's.
/// Zero durations and retries inherit too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    pub test: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

/// Limits are enforced by the engine (0: none); reservations only count in placement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    pub limit_nano_cpus: u64,
    pub limit_memory: u64,
    pub limit_pids: u64,
    pub reserve_nano_cpus: u64,
    pub reserve_memory: u64,
    pub reserve_generic: Generic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    pub delay: Duration,
    /// 0: no limit.
    pub max_attempts: u64,
    /// Attempts older than this don't count against `max_attempts`; zero: all count.
    pub window: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartCondition {
    None,
    OnFailure,
    Any,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: Duration::from_secs(5),
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    pub constraints: Vec<Constraint>,
    /// Spread over the values of these node attributes ("node.labels.zone"), the first is the outermost.
    pub spread: Vec<NodeAttribute>,
    /// 0: no limit.
    pub max_replicas: u64,
    /// (os, architecture) the image runs on; empty: any. Empty parts match all.
    pub platforms: Vec<(String, String)>,
}

/// `node.labels.zone == east`: compared without regard to case, as Swarm does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    pub attribute: NodeAttribute,
    pub equal: bool,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAttribute {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Arch,
    Label(String),
    EngineLabel(String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateConfig {
    /// Slots replaced at once; 0 means all.
    pub parallelism: u32,
    /// A slot's place in the budget stays taken this long after it is done.
    pub delay: Duration,
    pub failure_action: FailureAction,
    /// A task that fails within this after it first ran counts as a failure of the rollout.
    pub monitor: Duration,
    pub max_failure_ratio: f64,
    pub order: Order,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureAction {
    Pause,
    Continue,
    Rollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    StopFirst,
    StartFirst,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: Duration::from_secs(5),
            max_failure_ratio: 0.0,
            order: Order::StopFirst,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    pub name: String,
    pub protocol: Protocol,
    pub target: u16,
    /// 0 before a number was chosen.
    pub published: u16,
    pub mode: PublishMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PublishMode {
    /// Answers on every node, spread over all replicas.
    Ingress,
    /// Bound on the node that runs the task.
    Host,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl PublishMode {
    pub fn as_str(self) -> &'static str {
        match self {
            PublishMode::Ingress => "ingress",
            PublishMode::Host => "host",
        }
    }
}

impl ServiceSpec {
    /// Running tasks made from `old` must be replaced to run `self` (on a node whose fit is checked elsewhere).
    /// Labels of the service, replicas, update policy, placement and restart policy alone don't touch them.
    pub fn needs_replacement(&self, old: &ServiceSpec) -> bool {
        self.task.container != old.task.container
            || self.task.resources != old.task.resources
            || self.task.log_driver != old.task.log_driver
            || self.task.force_update != old.task.force_update
            || self.host_ports().ne(old.host_ports())
    }

    /// What a port of this spec asks of the mesh, its number chosen or not.
    pub fn options(&self, port: &PublishedPort) -> PortOptions {
        PortOptions::of(&self.labels, port)
    }

    /// Ports bound by the container itself; the mesh's can change under a running task.
    pub fn host_ports(&self) -> impl Iterator<Item = &PublishedPort> {
        self.ports.iter().filter(|p| p.mode == PublishMode::Host)
    }
}
