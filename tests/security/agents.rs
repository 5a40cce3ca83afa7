//! Real agents in this process, and as processes of their own.

use crate::net_support::{DEADLINE, Node, loopback, nobody_joins, patient};
use peer::core::Core;
use peer::core::face::{Reply, Request};
use peer::ids::NodeId;
use peer::model::node::Liveness;
use peer::shell::agent::{Agent, AgentConfig, Join};
use peer::shell::clock::wall;
use peer::shell::demo::{address, config, free_udp_port};
use peer::shell::engine::{AnyEngine, DemoEngine};
use peer::shell::identity::{Identity, Token};
use peer::shell::net::{self, JoinError, Joined, Net, NetConfig};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

pub struct Running {
    pub config: AgentConfig,
    pub agent: Agent,
}

pub async fn start(dir: &Path, number: usize, join: Option<Join>) -> Running {
    start_as(AgentConfig { join, ..config(dir, number).unwrap() }).await
}

pub async fn start_as(config: AgentConfig) -> Running {
    let engine = AnyEngine::Demo(DemoEngine::new().on_host(&config.hostname));
    let agent = Agent::start(config.clone(), engine).await.unwrap();
    Running { config, agent }
}

/// Two that see each other alive, one of which holds the lease.
pub async fn pair(dir: &Path) -> (Running, Running) {
    let one = start(dir, 1, None).await;
    let two = start(dir, 2, Some(one.join().await)).await;
    for agent in [&one, &two] {
        agent
            .until("both are alive and somebody holds the lease", |core| {
                let alive = core.nodes().iter().filter(|n| n.liveness == Liveness::Alive && n.fact.is_some()).count();
                alive == 2 && core.cluster().holder.is_some() && !core.cluster().join_secret.is_empty()
            })
            .await;
    }
    (one, two)
}

impl Running {
    pub fn id(&self) -> NodeId {
        self.agent.node
    }

    pub async fn token(&self) -> Token {
        Token::parse(&self.agent.token().await.unwrap()).unwrap()
    }

    pub async fn join(&self) -> Join {
        Join { host: self.agent.addr.to_string(), token: self.agent.token().await.unwrap() }
    }

    /// A stranger's attempt to become a member.
    pub async fn joined_with(&self, token: &Token) -> Result<Joined, JoinError> {
        let listen = SocketAddr::from(([0, 0, 0, 0], 7373));
        let addrs = [self.agent.addr];
        let joining = net::join(&addrs, token, "stranger", listen, wall());
        timeout(DEADLINE, joining).await.expect("an end of the join")
    }

    pub async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&Core) -> T + Send + 'static) -> T {
        self.agent.handle.query(question).await.unwrap()
    }

    pub async fn request(&self, request: Request) -> Reply {
        self.agent.handle.request(request).await
    }

    pub async fn until(&self, awaited: &str, is_so: impl Fn(&Core) -> bool + Send + Sync + Clone + 'static) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let is_so = is_so.clone();
            if self.ask(move |core| is_so(core)).await {
                return;
            }
            assert!(Instant::now() < deadline, "waited until {awaited}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn again(self) -> Running {
        self.agent.kill().await;
        start_as(AgentConfig { join: None, ..self.config }).await
    }
}

/// The network half of a member, without a core: it says what it is told to.
pub fn without_a_core(identity: Identity) -> Node {
    let identity = Arc::new(identity);
    let mut config = NetConfig::new(loopback(), identity.clone());
    config.timing = patient();
    let (net, events) = Net::start(config, nobody_joins()).unwrap();
    let addr = net.local_addr().unwrap();
    Node { net, events, identity, addr }
}

/// An agent as a process of its own, to be looked at from outside.
pub struct Process {
    pub child: Child,
    pub socket: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `peer start` over the built-in engine, with all that it needs to stand beside others, and `more`.
pub fn command(dir: &Path, number: usize, more: &[&str]) -> Command {
    let ip = address(number);
    let listen = SocketAddr::new(ip, free_udp_port(ip).unwrap()).to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
    command.args(["start", "--engine", "demo", "--mesh", "userspace", "--hostname", &format!("node{number}")]);
    command.args(["--listen-addr", &listen, "--publish-addr", &ip.to_string()]);
    command.arg("--socket").arg(dir.join(format!("{number}.sock")));
    command.arg("--data-dir").arg(dir.join(format!("data{number}"))).args(more);
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

pub async fn spawn(mut command: Command, socket: PathBuf) -> Process {
    let process = Process { child: command.spawn().unwrap(), socket };
    let deadline = Instant::now() + DEADLINE;
    while std::os::unix::net::UnixStream::connect(&process.socket).is_err() {
        assert!(Instant::now() < deadline, "the agent's socket answers");
        sleep(Duration::from_millis(20)).await;
    }
    process
}

impl Process {
    pub fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id())
    }

    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// What `peer` says when it is asked through this agent.
    pub fn peer(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        let output = command.arg("-H").arg(format!("unix://{}", self.socket.display())).args(args).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    pub fn get(&self, path: &str) -> serde_json::Value {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(&self.socket).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body.trim()).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
    }
}
