//! The agents, their client, and whole nodes: power off and on.

use super::http::ask;
use super::process::{alive, kill, record, search_path, sh, wait_until};
use super::{Lab, UP_LIMIT, address, namespace};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

impl Lab {
    /// With a token it joins the first node's cluster; without one it goes on where it was, or makes a cluster.
    pub fn start_agent(&self, node: usize, token: Option<&str>) -> Result<()> {
        let mut command = self.agent_command(node)?;
        if let Some(token) = token {
            command.args(["--join", &address(1)]).env("PEER_TOKEN", token);
        }
        self.run_agent(node, command, || self.peer(node, &["status"]).is_ok_and(|o| o.status.success()))
    }

    /// In no cluster: `POST /swarm/init` or `/swarm/join` at its socket makes it a member.
    pub fn start_agent_on_standby(&self, node: usize) -> Result<()> {
        let mut command = self.agent_command(node)?;
        command.arg("--standby");
        self.run_agent(node, command, || ask(&self.socket(node), "GET", "/_ping", None).is_ok())
    }

    /// It logs to [`Lab::log_file`].
    fn agent_command(&self, node: usize) -> Result<Command> {
        let peer = self.config.peer.as_ref().context("this lab has no agents")?;
        if alive(&self.agent_file(node)).is_some() {
            bail!("the agent of node {node} runs already");
        }
        let at = self.node_dir(node);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file(node))?;
        let mut command = self.marked("ip");
        command.args(["netns", "exec", &namespace(node), "setsid"]).arg(peer).arg("start");
        command.arg("--data-dir").arg(at.join("peer")).arg("--socket").arg(self.socket(node));
        command.arg("--engine").arg(format!("unix://{}", self.engine_socket(node).display()));
        command.args(["--advertise-addr", &address(node), "--hostname", &format!("node{node}")]);
        // It remembers what it was told at its first start.
        if let Some(mesh) = &self.mesh {
            command.args(["--mesh", mesh]);
        }
        if self.traced {
            command.arg("--trace-file").arg(self.trace_file(node));
        }
        command.stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn run_agent(&self, node: usize, mut command: Command, answers: impl Fn() -> bool) -> Result<()> {
        // `ip netns exec` and `setsid` become the agent: the pid is its own.
        let child = command.spawn()?;
        record(&self.agent_file(node), child.id())?;
        self.account(node, child.id())?;
        wait_until(&format!("the agent of node {node} answers"), UP_LIMIT, || {
            answers() || alive(&self.agent_file(node)).is_none()
        })?;
        if alive(&self.agent_file(node)).is_none() {
            let log = fs::read_to_string(self.log_file(node)).unwrap_or_default();
            bail!("the agent of node {node} ended: {}", log.lines().last().unwrap_or("without a word"));
        }
        Ok(())
    }

    /// SIGKILL: as a power cut would, for the agent alone.
    pub fn kill_agent(&self, node: usize) -> Result<()> {
        kill(&self.agent_file(node), "KILL").with_context(|| format!("the agent of node {node}"))
    }

    /// SIGTERM.
    pub fn stop_agent(&self, node: usize) -> Result<()> {
        kill(&self.agent_file(node), "TERM").with_context(|| format!("the agent of node {node}"))
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal_agent(&self, node: usize, signal: &str) -> Result<()> {
        sh(&format!("kill -{signal} {}", self.agent_pid(node)?))
    }

    /// What the agent of a lab that was brought up with traces believed, promised and did, over all its lives.
    pub fn trace_file(&self, node: usize) -> PathBuf {
        self.node_dir(node).join("trace.jsonl")
    }

    pub fn log_file(&self, node: usize) -> PathBuf {
        self.node_dir(node).join("peer.log")
    }

    /// A power cut: agent, engine and containers are gone at once, and so is the node from the network.
    pub fn power_off(&self, node: usize) -> Result<()> {
        self.set_link(node, false)?;
        if alive(&self.agent_file(node)).is_some() {
            self.kill_agent(node)?;
        }
        self.kill_engine(node)
    }

    /// What was on its disk is there.
    pub fn power_on(&self, node: usize) -> Result<()> {
        self.set_link(node, true)?;
        self.start_engine(node)?;
        if self.config.peer.is_some() { self.start_agent(node, None) } else { Ok(()) }
    }

    pub(super) fn agent_runs(&self, node: usize) -> bool {
        alive(&self.agent_file(node)).is_some()
    }

    fn agent_file(&self, node: usize) -> PathBuf {
        self.node_dir(node).join("peer.pid")
    }

    pub fn socket(&self, node: usize) -> PathBuf {
        self.node_dir(node).join("peer.sock")
    }

    pub fn agent_pid(&self, node: usize) -> Result<u32> {
        alive(&self.agent_file(node)).with_context(|| format!("the agent of node {node} is not running"))
    }

    /// `peer ARGS` against a node's agent.
    pub fn peer(&self, node: usize, args: &[&str]) -> Result<Output> {
        let peer = self.config.peer.as_ref().context("this lab has no agents")?;
        let host = format!("unix://{}", self.socket(node).display());
        Ok(Command::new(peer).args(["-H", &host]).args(args).stdin(Stdio::null()).output()?)
    }

    /// Likewise, but ended after so many seconds.
    pub fn peer_within(&self, node: usize, seconds: u64, args: &[&str]) -> Result<Output> {
        let peer = self.config.peer.as_ref().context("this lab has no agents")?;
        let host = format!("unix://{}", self.socket(node).display());
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", &seconds.to_string()]).arg(peer).args(["-H", &host]).args(args);
        Ok(command.stdin(Stdio::null()).output()?)
    }

    pub fn peer_ok(&self, node: usize, args: &[&str]) -> Result<String> {
        let output = self.peer(node, args)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "peer {} on node {node}: {out}{err}", args.join(" "));
        Ok(out.into_owned())
    }

    /// Any command in a node's network, with both clients pointed at its sockets.
    pub fn exec(&self, node: usize, command: &[String]) -> Result<Output> {
        Ok(self.command(node, command).stdin(Stdio::null()).output()?)
    }

    /// As [`Lab::exec`], for the caller to run.
    pub fn command(&self, node: usize, command: &[String]) -> Command {
        let mut run = Command::new("ip");
        run.args(["netns", "exec", &namespace(node)]).args(command);
        let beside = self.config.peer.as_ref().and_then(|p| p.parent()).map(Path::display);
        run.env("PATH", beside.map_or(search_path(), |beside| format!("{beside}:{}", search_path())));
        run.env("PEER_HOST", format!("unix://{}", self.socket(node).display()));
        run.env("DOCKER_HOST", format!("unix://{}", self.engine_socket(node).display()));
        run
    }

    /// One line for each node: what of it runs.
    pub fn status(&self) -> String {
        let runs = |pid: Result<u32>| pid.map_or("is not running".to_owned(), |pid| format!("runs ({pid})"));
        let line = |node: usize| {
            let (engine, agent) = (runs(self.engine_pid(node)), runs(self.agent_pid(node)));
            let cable = if self.is_plugged(node) { "plugged" } else { "pulled" };
            format!("node {node} {}: engine {engine}, agent {agent}, cable {cable}\n", address(node))
        };
        (1..=self.config.nodes).map(line).collect()
    }
}
