//! Several whole nodes on one machine: a network namespace, a private mount, pid and uts namespace and a `dockerd` for
//! each, joined by a bridge, with a peer agent in each. Needs root, `dockerd`, `ip`, `iptables` and `tini`.
//!
//! Everything it makes carries the lab's tag in its name or lies in its directory; it touches nothing else, and
//! [`Lab::down`] (also run when a [`Lab`] is dropped) takes it all away again. The recipe's traps: libnetwork wants a
//! fresh `/sys` in the node's namespaces, which hides the cgroups, so those are bound in from a copy; tini as pid 1 makes
//! one SIGKILL end a whole engine with its containers; unix socket paths must stay below 108 bytes.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod bench;
mod http;
mod registry;

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SUBNET: &str = "10.77.0";
const BRIDGE: &str = "br-peerlab";
const UP_LIMIT: Duration = Duration::from_secs(60);
/// Tag and command of each test image.
const IMAGES: [(&str, &[&str]); 4] = [
    ("greeter:1", &["1"]),
    ("greeter:2", &["2"]),
    ("greeter:crash", &["crash", "crash"]),
    ("greeter:exit", &["1", "exit"]),
];

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
    /// Taken down when dropped.
    owned: bool,
}

impl Lab {
    /// Why the lab can't run here, if it can't.
    pub fn missing() -> Option<String> {
        if !sh_ok("test \"$(id -u)\" = 0") {
            return Some("it needs root".to_owned());
        }
        let tools = ["dockerd", "ip", "iptables", "tini", "nsenter", "unshare", "curl", "docker"];
        tools
            .iter()
            .find(|tool| !sh_ok(&format!("command -v {tool} >/dev/null")))
            .map(|tool| format!("{tool} is not installed"))
    }

    pub fn up(config: LabConfig) -> Result<Self> {
        if let Some(why) = Self::missing() {
            bail!("the lab can't run here: {why}");
        }
        ensure!((1..=20).contains(&config.nodes), "--nodes {}: want 1 to 20", config.nodes);
        ensure!(config.dir.as_os_str().len() < 40, "--dir {}: too long for unix sockets in it", config.dir.display());
        ensure!(!config.dir.exists(), "{} exists: is a lab up already? End it with: lab down", config.dir.display());
        ensure!(!sh_ok(&format!("ip link show {BRIDGE}")), "a lab is up already ({BRIDGE}): end it with: lab down");
        let lab = Self { config, owned: true };
        lab.build()?;
        Ok(lab)
    }

    /// A lab that is up already.
    pub fn attach(dir: PathBuf) -> Result<Self> {
        let text = fs::read_to_string(dir.join("lab")).with_context(|| format!("no lab in {}", dir.display()))?;
        // Without agents nothing stands behind the blank.
        let (nodes, peer) = text.split_once(' ').context("the lab's state file is damaged")?;
        let peer = Some(peer.trim()).filter(|peer| !peer.is_empty()).map(PathBuf::from);
        Ok(Self { config: LabConfig { nodes: nodes.parse()?, dir, peer }, owned: false })
    }

    /// Leaves it running when this value goes.
    pub fn keep(mut self) {
        self.owned = false;
    }

    fn build(&self) -> Result<()> {
        let dir = self.config.dir.display();
        fs::create_dir_all(&self.config.dir)?;
        let peer = self.config.peer.as_ref().map_or(String::new(), |p| p.display().to_string());
        fs::write(self.config.dir.join("lab"), format!("{} {peer}", self.config.nodes))?;
        sh(&format!(
            "ip link add {BRIDGE} type bridge && ip addr add {SUBNET}.254/24 dev {BRIDGE} && ip link set {BRIDGE} up"
        ))?;
        sh(&format!("mkdir -p {dir}/cg && mount --rbind /sys/fs/cgroup {dir}/cg && mount --make-rprivate {dir}/cg"))?;
        for node in 1..=self.config.nodes {
            self.make_node(node)?;
            self.start_engine(node)?;
        }
        self.build_images()?;
        if self.config.peer.is_some() {
            self.start_agent(1, None)?;
            let token = self.peer_ok(1, &["token", "-q"])?;
            for node in 2..=self.config.nodes {
                self.start_agent(node, Some(token.trim()))?;
            }
        }
        Ok(())
    }

    fn make_node(&self, node: usize) -> Result<()> {
        let (ns, veth) = (namespace(node), link(node));
        fs::create_dir_all(self.node_dir(node).join("data"))?;
        sh(&format!(
            "ip netns add {ns} && ip link add {veth} type veth peer name eth0 netns {ns} && ip link set {veth} master {BRIDGE} up \
             && ip netns exec {ns} ip link set lo up && ip netns exec {ns} ip addr add {}/24 dev eth0 \
             && ip netns exec {ns} ip link set eth0 up && ip netns exec {ns} ip route add default via {SUBNET}.254",
            address(node)
        ))
    }

    fn node_dir(&self, node: usize) -> PathBuf {
        self.config.dir.join(node.to_string())
    }

    pub fn start_engine(&self, node: usize) -> Result<()> {
        let (at, root) = (self.node_dir(node).display().to_string(), self.config.dir.display().to_string());
        // The shell reads its own pid, which tini inherits, as the host counts: before the new /proc is mounted.
        let inside = format!(
            "hostname node{node}; read -r pid _ < /proc/self/stat; echo $pid > {at}/engine.pid; mount -t proc proc /proc; \
             mkdir -p /run/docker /run/containerd; mount -t tmpfs lab /run/docker; mount -t tmpfs lab /run/containerd; \
             mount -t sysfs sysfs /sys; mount --rbind {root}/cg /sys/fs/cgroup; rm -rf {at}/exec {at}/dockerd.pid {at}/docker.sock; \
             exec tini -s -- dockerd --data-root {at}/data --exec-root {at}/exec --pidfile {at}/dockerd.pid \
             -H unix://{at}/docker.sock --insecure-registry {SUBNET}.0/24 --cgroup-parent /peerlab/{node}"
        );
        let log = fs::File::create(self.node_dir(node).join("engine.log"))?;
        Command::new("setsid")
            .args(["nsenter", &format!("--net=/var/run/netns/{}", namespace(node))])
            .args(["unshare", "-m", "-u", "-i", "-p", "-f", "--propagation", "private", "bash", "-c", &inside])
            .env("PATH", search_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting dockerd")?;
        let ping = format!("curl -sf -m 2 --unix-socket {at}/docker.sock http://docker/_ping");
        wait_until(&format!("the engine of node {node} answers"), UP_LIMIT, || sh_ok(&ping))
    }

    /// SIGKILL to the engine's pid 1: the kernel ends everything in it, containers included.
    pub fn kill_engine(&self, node: usize) -> Result<()> {
        kill(&self.node_dir(node).join("engine.pid"), "KILL", "dockerd")
    }

    /// From scratch and a static binary: nothing can be pulled here.
    fn build_images(&self) -> Result<()> {
        let build = self.config.dir.join("image");
        fs::create_dir_all(&build)?;
        fs::write(build.join("greeter.rs"), include_str!("../images/greeter.rs"))?;
        let at = build.display();
        sh(&format!(
            "cd {at} && rustc --edition 2021 -O -C target-feature=+crt-static -C strip=symbols -o greeter greeter.rs"
        ))?;
        for node in 1..=self.config.nodes {
            for (tag, args) in IMAGES {
                let args = args.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(",");
                let file = format!("FROM scratch\nCOPY greeter /greeter\nENTRYPOINT [\"/greeter\",{args}]\n");
                fs::write(build.join("Dockerfile"), file)?;
                let socket = self.node_dir(node).join("docker.sock");
                sh(&format!(
                    "DOCKER_BUILDKIT=0 docker -H unix://{} build -q -t localhost:1/{tag} {at}",
                    socket.display()
                ))?;
            }
        }
        Ok(())
    }

    // ---- agents

    pub fn start_agent(&self, node: usize, token: Option<&str>) -> Result<()> {
        let peer = self.config.peer.as_ref().context("this lab has no agents")?;
        let at = self.node_dir(node);
        let log = fs::OpenOptions::new().create(true).append(true).open(at.join("peer.log"))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace(node), "setsid"]).arg(peer).arg("start");
        command.arg("--data-dir").arg(at.join("peer")).arg("--socket").arg(self.socket(node));
        command.arg("--engine").arg(format!("unix://{}", at.join("docker.sock").display()));
        command.args(["--advertise-addr", &address(node), "--hostname", &format!("node{node}")]);
        if let Some(token) = token {
            command.args(["--join", &address(1)]).env("PEER_TOKEN", token);
        }
        // `ip netns exec` and `setsid` become the agent: the pid is its own.
        let child: Child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        fs::write(at.join("peer.pid"), child.id().to_string())?;
        wait_until(&format!("the agent of node {node} answers"), UP_LIMIT, || {
            self.peer(node, &["status"]).is_ok_and(|o| o.status.success())
        })
    }

    /// As a power cut would, for the agent alone.
    pub fn kill_agent(&self, node: usize) -> Result<()> {
        kill(&self.node_dir(node).join("peer.pid"), "KILL", "peer")
    }

    pub fn stop_agent(&self, node: usize) -> Result<()> {
        kill(&self.node_dir(node).join("peer.pid"), "TERM", "peer")
    }

    pub fn socket(&self, node: usize) -> PathBuf {
        self.node_dir(node).join("peer.sock")
    }

    pub fn engine_socket(&self, node: usize) -> PathBuf {
        self.node_dir(node).join("docker.sock")
    }

    pub fn agent_pid(&self, node: usize) -> Result<u32> {
        pid(&self.node_dir(node).join("peer.pid"))
    }

    /// Of the engine's own init, below which everything of it runs.
    pub fn engine_pid(&self, node: usize) -> Result<u32> {
        pid(&self.node_dir(node).join("engine.pid"))
    }

    /// `peer ARGS` against a node's agent.
    pub fn peer(&self, node: usize, args: &[&str]) -> Result<Output> {
        let peer = self.config.peer.as_ref().context("this lab has no agents")?;
        let host = format!("unix://{}", self.socket(node).display());
        Ok(Command::new(peer).args(["-H", &host]).args(args).stdin(Stdio::null()).output()?)
    }

    pub fn peer_ok(&self, node: usize, args: &[&str]) -> Result<String> {
        let output = self.peer(node, args)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "peer {} on node {node}: {out}{err}", args.join(" "));
        Ok(out.into_owned())
    }

    /// Any command in a node's network, with both clients pointed at its sockets.
    pub fn exec(&self, node: usize, command: &[String]) -> Result<Output> {
        let mut run = Command::new("ip");
        run.args(["netns", "exec", &namespace(node)]).args(command);
        let beside = self.config.peer.as_ref().and_then(|p| p.parent()).unwrap_or(Path::new("/")).display();
        run.env("PATH", format!("{beside}:{}", search_path()));
        run.env("PEER_HOST", format!("unix://{}", self.socket(node).display()));
        run.env("DOCKER_HOST", format!("unix://{}", self.node_dir(node).join("docker.sock").display()));
        Ok(run.output()?)
    }

    // ---- the network

    pub fn set_link(&self, node: usize, up: bool) -> Result<()> {
        sh(&format!("ip link set {} {}", link(node), if up { "up" } else { "down" }))
    }

    /// Nothing passes between the two, in either direction, and neither is told.
    pub fn cut(&self, a: usize, b: usize) -> Result<()> {
        for (here, there) in [(a, b), (b, a)] {
            let rule = format!("INPUT -s {} -m comment --comment peerlab -j DROP", address(there));
            sh(&format!("ip netns exec {} iptables -I {rule}", namespace(here)))?;
        }
        Ok(())
    }

    pub fn heal(&self) -> Result<()> {
        for node in 1..=self.config.nodes {
            let ns = namespace(node);
            sh(&format!(
                "ip netns exec {ns} iptables -S INPUT | grep peerlab | sed 's/^-A/-D/' | \
                 while read -r rule; do ip netns exec {ns} iptables $rule; done; ip link set {} up",
                link(node)
            ))?;
        }
        Ok(())
    }

    /// Ends everything and leaves nothing. Goes on past what fails; says at the end whether all is gone.
    pub fn down(&mut self) -> Result<()> {
        self.owned = false;
        let dir = self.config.dir.display();
        for node in 1..=self.config.nodes {
            let at = self.node_dir(node);
            // Not running any more is as good.
            let _ = kill(&at.join("peer.pid"), "KILL", "peer");
            let _ = kill(&at.join("engine.pid"), "KILL", "dockerd");
            sh_ok(&format!("ip netns del {}; ip link del {}", namespace(node), link(node)));
        }
        sh_ok(&format!("ip link del {BRIDGE}; umount -l {dir}/cg"));
        let cleared = || {
            sh_ok("find /sys/fs/cgroup/*/peerlab /sys/fs/cgroup/peerlab -depth -type d -exec rmdir {} + 2>/dev/null");
            sh_ok(&format!("! mountpoint -q {dir}/cg && rm -rf --one-file-system {dir} && test ! -e {dir}"))
        };
        wait_until(&format!("{dir} is gone"), Duration::from_secs(20), cleared)
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

fn namespace(node: usize) -> String {
    format!("peerlab{node}")
}

fn link(node: usize) -> String {
    format!("vpeerlab{node}")
}

fn pid(file: &Path) -> Result<u32> {
    fs::read_to_string(file)?.trim().parse().with_context(|| format!("{} is damaged", file.display()))
}

/// Signals a process that we started, if the pid is still one of that name.
fn kill(pid_file: &Path, signal: &str, name: &str) -> Result<()> {
    let pid = pid(pid_file)?;
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    ensure!(command.contains(name), "process {pid} is not a {name} (any more)");
    sh(&format!("kill -{signal} {pid}"))?;
    wait_until(&format!("process {pid} has ended"), Duration::from_secs(20), || {
        // A zombie of ours has ended, too.
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    })
}

/// Waits for a level; the error says what was awaited.
pub fn wait_until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !is_so() {
        ensure!(Instant::now() < deadline, "not so after {} s: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// dockerd and ip live where not every shell looks.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn shell(command: &str) -> std::io::Result<Output> {
    Command::new("bash").args(["-c", command]).env("PATH", search_path()).stdin(Stdio::null()).output()
}

fn sh_ok(command: &str) -> bool {
    shell(command).is_ok_and(|output| output.status.success())
}

fn sh(command: &str) -> Result<()> {
    let output = shell(command)?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
