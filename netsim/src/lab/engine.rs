//! A node's own Docker Engine. The traps: libnetwork wants a fresh `/sys` in the node's namespaces, which hides the
//! cgroups, so those are bound in from a copy; two paths below `/run` are fixed and need a tmpfs each; tini as pid 1
//! makes one SIGKILL end a whole engine with its containers.

use super::process::{alive, kill, record, sh_ok, wait_until};
use super::{CGROUP, Lab, SUBNET, UP_LIMIT, namespace};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;

const CPU_GROUPS: &str = "/sys/fs/cgroup/cpuacct";

fn cpu_group(node: usize) -> PathBuf {
    PathBuf::from(CPU_GROUPS).join(CGROUP).join(node.to_string())
}

impl Lab {
    /// Starts it and waits until it answers.
    pub fn start_engine(&self, node: usize) -> Result<()> {
        self.spawn_engine(node)?;
        self.await_engine(node)
    }

    pub(super) fn spawn_engine(&self, node: usize) -> Result<()> {
        if alive(&self.engine_file(node)).is_some() {
            bail!("the engine of node {node} runs already");
        }
        let (at, root) = (self.node_dir(node).display().to_string(), self.config.dir.display().to_string());
        fs::create_dir_all(self.node_dir(node).join("data"))?;
        let pid_file = self.node_dir(node).join("engine.init");
        // The last of an earlier start must not be taken for this one's.
        let _ = fs::remove_file(&pid_file);
        // The shell reads its own pid, which tini inherits, as the host counts: before the new /proc is mounted.
        let group = cpu_group(node).display().to_string();
        let inside = format!(
            "set -e; if [ -d {CPU_GROUPS} ]; then mkdir -p {group}; echo 0 > {group}/cgroup.procs; fi; hostname node{node}; read -r pid _ < /proc/self/stat; mount -t proc proc /proc; \
             mkdir -p /run/docker /run/containerd; mount -t tmpfs lab /run/docker; mount -t tmpfs lab /run/containerd; \
             mount -t sysfs sysfs /sys; mount --rbind {root}/cg /sys/fs/cgroup; rm -rf {at}/exec {at}/dockerd.pid {at}/docker.sock; \
             echo $pid > {at}/engine.init; \
             exec tini -s -- dockerd --data-root {at}/data --exec-root {at}/exec --pidfile {at}/dockerd.pid \
             -H unix://{at}/docker.sock --insecure-registry {SUBNET}.0/24 --cgroup-parent /{CGROUP}/{node}"
        );
        let log = fs::File::create(self.node_dir(node).join("engine.log"))?;
        let mut starter = self
            .marked("setsid")
            .args(["nsenter", &format!("--net=/var/run/netns/{}", namespace(node))])
            .args(["unshare", "-m", "-u", "-i", "-p", "-f", "--kill-child", "--propagation", "private"])
            .args(["bash", "-c", &inside])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting dockerd")?;
        // Known before anything else is done, so that whoever takes the lab down finds it.
        wait_until(&format!("the engine of node {node} has a process"), UP_LIMIT, || {
            fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n'))
                || starter.try_wait().is_ok_and(|s| s.is_some())
        })?;
        let pid = fs::read_to_string(&pid_file).map_err(|_| self.engine_trouble(node))?;
        record(&self.engine_file(node), pid.trim().parse()?).map_err(|_| self.engine_trouble(node))
    }

    /// Counts a process with its node's processor time, where there is cgroup v1; engines see to it themselves.
    pub(super) fn account(&self, node: usize, pid: u32) -> Result<()> {
        let group = cpu_group(node);
        if fs::metadata(CPU_GROUPS).is_err() {
            return Ok(());
        }
        fs::create_dir_all(&group)?;
        // Its threads with it; one that has ended already needs no account.
        let _ = fs::write(group.join("cgroup.procs"), pid.to_string());
        Ok(())
    }

    /// Seconds that a node's engine, containers and agent have taken since the lab came up; `None` where it isn't counted.
    pub(super) fn cpu_s(&self, node: usize) -> Option<f64> {
        let nanoseconds = fs::read_to_string(cpu_group(node).join("cpuacct.usage")).ok()?;
        Some(nanoseconds.trim().parse::<f64>().ok()? / 1e9)
    }

    pub(super) fn await_engine(&self, node: usize) -> Result<()> {
        let ping = format!("curl -sf -m 2 --unix-socket {} http://docker/_ping", self.engine_socket(node).display());
        wait_until(&format!("the engine of node {node} answers"), UP_LIMIT, || {
            sh_ok(&ping) || alive(&self.engine_file(node)).is_none()
        })?;
        if alive(&self.engine_file(node)).is_none() {
            return Err(self.engine_trouble(node));
        }
        Ok(())
    }

    /// Its own last words: the log goes with the lab.
    fn engine_trouble(&self, node: usize) -> anyhow::Error {
        let log = fs::read_to_string(self.node_dir(node).join("engine.log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        anyhow::anyhow!("the engine of node {node} ended: {}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    /// SIGKILL to the engine's pid 1: the kernel ends everything in it, containers included.
    pub fn kill_engine(&self, node: usize) -> Result<()> {
        kill(&self.engine_file(node), "KILL").with_context(|| format!("the engine of node {node}"))
    }

    pub(super) fn engine_runs(&self, node: usize) -> bool {
        alive(&self.engine_file(node)).is_some()
    }

    fn engine_file(&self, node: usize) -> PathBuf {
        self.node_dir(node).join("engine.pid")
    }

    pub fn engine_socket(&self, node: usize) -> PathBuf {
        self.node_dir(node).join("docker.sock")
    }

    /// Of the engine's own init, below which everything of it runs.
    pub fn engine_pid(&self, node: usize) -> Result<u32> {
        alive(&self.engine_file(node)).with_context(|| format!("the engine of node {node} is not running"))
    }
}
