//! Several whole nodes on one machine: a network namespace, a private mount, pid and uts namespace and a `dockerd` for
//! each, joined by a bridge, with a registry on it and a peer agent in each. Needs root, `dockerd`, `docker-registry`,
//! `ip`, `iptables`, `nft` and `tini`.
//!
//! The law: it touches nothing that it didn't make, and leaves nothing behind. What it makes carries its mark and is
//! noted in its state file beforehand; [`Lab::down`] works from any process; a [`Lab`] that is dropped, or whose process
//! dies in any way, is taken down; what is left of one that died with its guard, by the next [`Lab::up`].

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod against;
mod agent;
pub mod bench;
pub mod chaos;
pub mod cli;
mod down;
mod engine;
mod guard;
mod http;
mod images;
pub mod load;
mod mesh_bench;
mod network;
mod process;
mod state;

pub use images::image;
pub use process::wait_until;

use anyhow::{Result, bail, ensure};
use guard::Guard;
use process::{MARK, search_path, sh_ok};
use state::State;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const SUBNET: &str = "10.77.0";
const BRIDGE: &str = "br-peerlab";
const CGROUP: &str = "peerlab";
const UP_LIMIT: Duration = Duration::from_secs(60);
/// The most nodes that a lab may have.
pub const NODES_MAX: usize = 20;
/// A unix socket's path has 107 bytes; dockerd and containerd add up to 50 of their own.
const DIR_LEN_MAX: usize = 40;

#[derive(Debug, Clone)]
pub struct LabConfig {
    pub nodes: usize,
    pub dir: PathBuf,
    /// The `peer` binary; `None` starts no agents.
    pub peer: Option<PathBuf>,
}

/// A running lab, or one that an earlier process left running.
pub struct Lab {
    pub config: LabConfig,
    /// Agents write down what there is to judge.
    traced: bool,
    /// What agents are told by `--mesh`, if anything.
    mesh: Option<String>,
    /// Agents aren't started with the lab.
    bare: bool,
    made: BTreeSet<String>,
    /// Taken down when dropped.
    owned: bool,
    guard: Option<Guard>,
}

impl Lab {
    /// Why the lab can't run here, if it can't.
    pub fn missing() -> Option<String> {
        if !sh_ok("test \"$(id -u)\" = 0") {
            return Some("it needs root".to_owned());
        }
        let tools = [
            "dockerd",
            "ip",
            "iptables",
            "nft",
            "tini",
            "nsenter",
            "unshare",
            "curl",
            "docker",
            "docker-registry",
            "rustc",
        ];
        tools
            .iter()
            .find(|tool| !sh_ok(&format!("command -v {tool} >/dev/null")))
            .map(|tool| format!("{tool} is not installed"))
    }

    pub fn up(config: LabConfig) -> Result<Self> {
        Self::bring_up(config, false, None, false)
    }

    /// With engines alone: agents are started later, if at all.
    pub fn up_bare(config: LabConfig) -> Result<Self> {
        Self::bring_up(config, false, None, true)
    }

    /// With agents whose mesh this carries: `kernel` or `userspace`.
    pub fn up_on(config: LabConfig, mesh: &str) -> Result<Self> {
        Self::bring_up(config, false, Some(mesh.to_owned()), false)
    }

    /// With agents that write traces, see [`Lab::trace_file`].
    pub fn up_traced(config: LabConfig) -> Result<Self> {
        Self::bring_up(config, true, None, false)
    }

    fn bring_up(config: LabConfig, traced: bool, mesh: Option<String>, bare: bool) -> Result<Self> {
        if let Some(why) = Self::missing() {
            bail!("the lab can't run here: {why}");
        }
        ensure!((1..=NODES_MAX).contains(&config.nodes), "--nodes {}: want 1 to {NODES_MAX}", config.nodes);
        let dir = config.dir.display();
        // It stands in commands.
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        ensure!(
            config.dir.is_absolute() && dir.to_string().chars().all(plain),
            "--dir {dir}: want a plain absolute path"
        );
        ensure!(config.dir.as_os_str().len() < DIR_LEN_MAX, "--dir {dir}: too long for unix sockets in it");
        ensure!(!config.dir.exists(), "{dir} exists: is a lab up already? End it with: lab down");
        Self::bury_the_dead()?;
        Self::check_names(config.nodes)?;
        let made = Self::names(config.nodes).collect();
        fs::create_dir_all(&config.dir)?;
        let state = State { nodes: config.nodes, peer: config.peer.clone(), made };
        state.save(&config.dir)?;
        let mut lab = Self { config, traced, mesh, bare, made: state.made, owned: true, guard: None };
        lab.guard = Some(Guard::post(&lab.config.dir)?);
        lab.build()?;
        Ok(lab)
    }

    /// A lab that is up already, whoever brought it up.
    pub fn attach(dir: PathBuf) -> Result<Self> {
        let State { nodes, peer, made } = State::load(&dir)?;
        let config = LabConfig { nodes, dir, peer };
        Ok(Self { config, traced: false, mesh: None, bare: false, made, owned: false, guard: None })
    }

    /// Leaves it running when this value, or this process, goes.
    pub fn keep(mut self) {
        self.owned = false;
        if let Some(mut guard) = self.guard.take() {
            guard.dismiss();
        }
    }

    fn build(&self) -> Result<()> {
        let dir = self.config.dir.display();
        self.make_bridge()?;
        self.sh(&format!(
            "mkdir -p {dir}/cg && mount --rbind /sys/fs/cgroup {dir}/cg && mount --make-rprivate {dir}/cg"
        ))?;
        let nodes = 1..=self.config.nodes;
        for node in nodes.clone() {
            self.make_node(node)?;
            self.spawn_engine(node)?;
        }
        images::serve(self)?;
        images::compile(self)?;
        nodes.clone().try_for_each(|node| self.await_engine(node))?;
        images::fill(self)?;
        if self.config.peer.is_some() && !self.bare {
            self.start_agent(1, None)?;
            let token = self.peer_ok(1, &["token", "-q"])?;
            nodes.skip(1).try_for_each(|node| self.start_agent(node, Some(token.trim())))?;
        }
        Ok(())
    }

    /// That the lab has such a node.
    pub fn check(&self, node: usize) -> Result<()> {
        let count = self.config.nodes;
        ensure!((1..=count).contains(&node), "there is no node {node}: this lab has 1 to {count}");
        Ok(())
    }

    /// A command that carries the lab's mark, and with it everything that it starts.
    fn marked(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env(MARK, &self.config.dir).env("PATH", search_path()).stdin(Stdio::null());
        command
    }

    /// What makes something of the lab.
    fn sh(&self, command: &str) -> Result<()> {
        let output = self.marked("bash").args(["-c", command]).output()?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    fn node_dir(&self, node: usize) -> PathBuf {
        self.config.dir.join(node.to_string())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = self.down()
        {
            eprintln!("lab: {error:#}");
        }
    }
}

pub fn address(node: usize) -> String {
    format!("{SUBNET}.{node}")
}

/// The network namespace of a node.
pub fn namespace(node: usize) -> String {
    format!("peerlab{node}")
}

fn link(node: usize) -> String {
    format!("vpeerlab{node}")
}
