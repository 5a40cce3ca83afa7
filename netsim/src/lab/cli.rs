//! The lab by hand, as `lab` and as `netsim lab`.

use super::against::{self, AgainstConfig};
use super::bench::{self, BenchConfig};
use super::chaos::{self, ChaosConfig};
use super::load::faults::{self, Fault};
use super::load::stories::{self, Story, StoryConfig};
use super::load::{self, Load, LoadConfig, Mode};
use super::mesh_bench::{self, MeshBenchConfig};
use super::{Lab, LabConfig, address, image};
use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const USUAL_DIR: &str = "/tmp/peerlab";

#[derive(Debug, Parser)]
#[command(
    name = "lab",
    about = "Real nodes on one machine: a network namespace, a Docker Engine and a peer agent each"
)]
pub struct Cli {
    /// Where the lab keeps its files (short: unix sockets lie in it)
    #[arg(long, global = true, default_value = USUAL_DIR)]
    dir: PathBuf,
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
pub enum Task {
    /// Bring up N nodes, with test images and agents
    Up {
        #[arg(long, default_value_t = 4)]
        nodes: usize,
        /// Engines only
        #[arg(long)]
        no_agents: bool,
        /// What carries the agents' mesh: kernel or userspace (default: as agents choose)
        #[arg(long)]
        mesh: Option<String>,
        /// The peer binary (default: the one beside this program)
        #[arg(long, env = "PEER_BIN")]
        peer: Option<PathBuf>,
    },
    /// Run a command in a node's network, with PEER_HOST and DOCKER_HOST set to its agent's socket
    Exec {
        /// Set DOCKER_HOST to the engine's own socket, as it is where the lab has no agents
        #[arg(long)]
        engine: bool,
        node: usize,
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// Whether a lab can run here; says what is missing otherwise
    Check,
    /// Wait for the end of who brings a lab up
    #[command(hide = true)]
    Guard,
    /// What runs on each node
    Status,
    /// Cut a node's power: agent, engine, containers and network are gone at once
    PowerOff { node: usize },
    /// Give it back
    PowerOn { node: usize },
    /// Start a node's agent
    Start { node: usize },
    /// Stop a node's agent (SIGTERM)
    Stop { node: usize },
    /// Kill a node's agent (SIGKILL)
    Kill { node: usize },
    /// Kill a node's engine with all its containers
    EngineKill { node: usize },
    /// Start a node's engine
    EngineStart { node: usize },
    /// Pull or plug a node's cable
    Link { node: usize, state: String },
    /// Let nothing pass between two nodes
    Cut { a: usize, b: usize },
    /// Undo cuts and pulled cables
    Heal,
    /// End everything and leave nothing
    Down,
    /// What orchestration costs: create against the engines alone, and an idle agent; or everything against Docker Swarm (in
    /// a lab of its own)
    Bench {
        /// Swarm and peer in turns on the same engines; writes benchmarks.md and benchmarks.json
        #[arg(long, value_enum, conflicts_with_all = ["nodes", "replicas", "idle", "json"])]
        against: Option<Against>,
        /// With --against: which measurements (default: all); rows of the others stay as they are
        #[arg(long, requires = "against", value_delimiter = ',')]
        steps: Vec<String>,
        /// With --against: where benchmarks.md and benchmarks.json are
        #[arg(long, requires = "against", default_value = "docs")]
        docs: PathBuf,
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        #[arg(long, default_value_t = 5)]
        replicas: usize,
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// Seconds for which the idle agent is watched
        #[arg(long, default_value_t = 60)]
        idle: u64,
        /// The peer binary (default: the one beside this program)
        #[arg(long, env = "PEER_BIN")]
        peer: Option<PathBuf>,
        /// Write the figures here, too
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Ask a published port of the lab that is up, from outside, and tell apart how requests fail
    Load {
        /// The nodes to ask (default: all)
        #[arg(long, value_delimiter = ',')]
        nodes: Vec<usize>,
        #[arg(long, default_value_t = 9_000)]
        port: u16,
        #[arg(long, value_enum, default_value_t = Mode::New)]
        mode: Mode,
        /// At once, at each node
        #[arg(long, default_value_t = 10)]
        clients: usize,
        #[arg(long, default_value_t = 20_000)]
        requests: u64,
        /// Hold so many idle connections instead, through the first of the nodes, and tell what its agent takes for them
        #[arg(long, conflicts_with_all = ["mode", "clients", "requests"])]
        idle: Option<usize>,
    },
    /// What operators do all day, under load at every node: no request may fail (in a lab of its own)
    Stories {
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// Which (default: all)
        #[arg(value_enum)]
        stories: Vec<Story>,
        /// The image's tag: 1 finishes requests on SIGTERM, exit dies at once
        #[arg(long, default_value = "1")]
        tag: String,
        /// Of each mode, at each port of each node
        #[arg(long, default_value_t = 2)]
        clients: usize,
        /// Of each story
        #[arg(long, default_value_t = 200_000)]
        requests: u64,
        /// Milliseconds that a client rests after each answer: without it the load takes every CPU there is
        #[arg(long, default_value_t = 0)]
        rest: u64,
        /// A story's load ends after so many seconds, however few requests there were
        #[arg(long, default_value_t = 1_800)]
        at_most: u64,
        /// The peer binary (default: the one beside this program)
        #[arg(long, env = "PEER_BIN")]
        peer: Option<PathBuf>,
    },
    /// Break a replica, a node and an agent under load: how many requests fail, and for how long (in a lab of its own)
    MeshFaults {
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// Which (default: all)
        #[arg(value_enum)]
        faults: Vec<Fault>,
        /// What carries the mesh
        #[arg(long, default_value = "kernel", value_parser = ["kernel", "userspace"])]
        mesh: String,
        /// Of each mode, at each port of each node
        #[arg(long, default_value_t = 2)]
        clients: usize,
        /// Milliseconds that a client rests after each answer
        #[arg(long, default_value_t = 5)]
        rest: u64,
        /// The peer binary (default: the one beside this program)
        #[arg(long, env = "PEER_BIN")]
        peer: Option<PathBuf>,
    },
    /// What a published port costs, against a direct connection and Docker's own port (in labs of its own; ab and wrk ask)
    MeshBench {
        /// What carries the mesh, one after the other
        #[arg(long, value_delimiter = ',', default_value = "kernel,userspace", value_parser = ["kernel", "userspace"])]
        mesh: Vec<String>,
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// New connections, for each figure
        #[arg(long, default_value_t = 20_000)]
        requests: u64,
        /// For each figure over kept connections
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// The peer binary (default: the one beside this program)
        #[arg(long, env = "PEER_BIN")]
        peer: Option<PathBuf>,
        /// Write all rounds here, too
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Break nodes, cables and engines while operators and users work, heal, and judge by the simulator's laws (in a lab of
    /// its own)
    Chaos {
        #[arg(long, default_value_t = 5)]
        nodes: usize,
        #[arg(long, default_value_t = 5)]
        minutes: u64,
        /// Decides what breaks and what operators do, and when
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The peer binary (default: the one beside this program)
        #[arg(long, env = "PEER_BIN")]
        peer: Option<PathBuf>,
        /// Keep the agents' traces and logs here if a law was broken
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Against {
    Swarm,
}

impl Task {
    /// Which nodes it is about.
    fn nodes(&self) -> Vec<usize> {
        match self {
            Task::Exec { node, .. }
            | Task::PowerOff { node }
            | Task::PowerOn { node }
            | Task::Start { node }
            | Task::Stop { node }
            | Task::Kill { node }
            | Task::EngineKill { node }
            | Task::EngineStart { node }
            | Task::Link { node, .. } => vec![*node],
            Task::Cut { a, b } => vec![*a, *b],
            Task::Load { nodes, .. } => nodes.clone(),
            Task::Up { .. }
            | Task::Bench { .. }
            | Task::Chaos { .. }
            | Task::Stories { .. }
            | Task::MeshFaults { .. }
            | Task::MeshBench { .. }
            | Task::Check
            | Task::Guard
            | Task::Status
            | Task::Heal
            | Task::Down => Vec::new(),
        }
    }
}

/// The one that was named, or the one beside this program.
fn binary(named: Option<PathBuf>) -> Result<PathBuf> {
    let peer = named.unwrap_or(std::env::current_exe()?.with_file_name("peer"));
    ensure!(peer.exists(), "{} does not exist: build it, or name it with --peer", peer.display());
    Ok(peer)
}

/// Until the lab's maker has said that all is well, or has ended; then the lab goes.
fn guard(dir: PathBuf) -> Result<()> {
    let mut word = String::new();
    // A pipe that breaks has ended, too.
    let _ = std::io::stdin().read_line(&mut word);
    if word != "dismissed\n" && dir.exists() {
        eprintln!("lab: its maker has ended: taking down what is up");
        Lab::attach(dir)?.down()?;
    }
    Ok(())
}

/// What must be said besides, to mean the lab in this directory.
fn place(dir: &Path) -> String {
    if dir == Path::new(USUAL_DIR) { String::new() } else { format!(" --dir {}", dir.display()) }
}

pub fn run(Cli { dir, command }: Cli) -> Result<()> {
    if let Task::Chaos { nodes, minutes, seed, peer, out } = command {
        let (peer, lasts) = (binary(peer)?, Duration::from_secs(60 * minutes));
        let verdict = chaos::run(&ChaosConfig { dir, peer, nodes, lasts, seed, out })?;
        ensure!(verdict.breaches.is_empty(), "{} laws were broken", verdict.breaches.len());
        return Ok(());
    }
    if let Task::Bench { against: Some(Against::Swarm), steps, docs, rounds, peer, .. } = command {
        return against::run(&AgainstConfig { dir, peer: binary(peer)?, rounds, steps, docs });
    }
    if let Task::Bench { nodes, replicas, rounds, idle, peer, json, .. } = command {
        let (peer, idle) = (binary(peer)?, Duration::from_secs(idle));
        let report = bench::run(BenchConfig { dir, peer, nodes, replicas, rounds, idle })?;
        print!("{}", report.table());
        if let Some(path) = json {
            std::fs::write(&path, format!("{:#}\n", report.json())).with_context(|| path.display().to_string())?;
        }
        return Ok(());
    }
    if let Task::Stories { nodes, stories, tag, clients, requests, rest, at_most, peer } = command {
        let stories = if stories.is_empty() { Story::ALL.to_vec() } else { stories };
        let (rest, at_most) = (Duration::from_millis(rest), Duration::from_secs(at_most));
        let config = StoryConfig { tag, clients, rest, requests, at_most };
        ensure!(nodes >= 2, "--nodes {nodes}: want at least 2");
        let mut lab = Lab::up(LabConfig { nodes, dir, peer: Some(binary(peer)?) })?;
        let rows = stories::run(&lab, &stories, &config)?;
        lab.down()?;
        let broken = rows.iter().filter(|row| row.is_broken()).count();
        ensure!(broken == 0, "requests failed in {broken} of {} loads", rows.len());
        return Ok(());
    }
    if let Task::MeshFaults { nodes, faults, mesh, clients, rest, peer } = command {
        ensure!(nodes >= 3, "--nodes {nodes}: want at least 3");
        let faults = if faults.is_empty() { Fault::ALL.to_vec() } else { faults };
        let rest = Duration::from_millis(rest);
        let config = StoryConfig { tag: "1".to_owned(), clients, rest, requests: 0, at_most: Duration::ZERO };
        let mut lab = Lab::up_on(LabConfig { nodes, dir, peer: Some(binary(peer)?) }, &mesh)?;
        let rows = faults::run(&lab, &faults, &config)?;
        lab.down()?;
        let missed = rows.iter().filter(|row| !row.is_reached()).count();
        ensure!(missed == 0, "requests failed too late after the fault in {missed} of {} loads", rows.len());
        return Ok(());
    }
    if let Task::MeshBench { mesh, rounds, requests, seconds, peer, json } = command {
        let peer = binary(peer)?;
        let mut all = Vec::new();
        for mesh in mesh {
            let (dir, peer) = (dir.clone(), peer.clone());
            let report = mesh_bench::run(MeshBenchConfig { dir, peer, mesh, rounds, requests, seconds })?;
            println!("{}", report.table());
            all.push(report.json());
        }
        if let Some(path) = json {
            let text = format!("{:#}\n", serde_json::Value::Array(all));
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        return Ok(());
    }
    if let Task::Up { nodes, no_agents, mesh, peer } = command {
        let peer = if no_agents { None } else { Some(binary(peer)?) };
        println!("Bringing up {nodes} nodes in {} ...", dir.display());
        let place = place(&dir);
        let config = LabConfig { nodes, dir, peer };
        let lab = match mesh {
            Some(mesh) => Lab::up_on(config, &mesh)?,
            None => Lab::up(config)?,
        };
        let (images, has_agents, socket) = (image("1"), lab.config.peer.is_some(), lab.socket(1));
        lab.keep();
        let ask = if has_agents { "peer node ls" } else { "docker info" };
        println!("Up. Images: {images}, and :2, :crash, :sick, :exit, :slow-stop.");
        println!("Try: lab{place} exec 1 {ask}; lab{place} down ends it.");
        if has_agents {
            println!("Any docker client, on node 1: export DOCKER_HOST=unix://{}", socket.display());
        }
        return Ok(());
    }
    if let Task::Guard = command {
        return guard(dir);
    }
    if let Task::Check = command {
        return Lab::missing().map_or(Ok(()), |why| Err(anyhow::anyhow!("the lab can't run here: {why}")));
    }
    let mut lab = Lab::attach(dir)?;
    for node in command.nodes() {
        lab.check(node)?;
    }
    match command {
        Task::Up { .. }
        | Task::Bench { .. }
        | Task::Chaos { .. }
        | Task::Stories { .. }
        | Task::MeshFaults { .. }
        | Task::MeshBench { .. }
        | Task::Check
        | Task::Guard => {}
        Task::Load { nodes, port, idle: Some(count), .. } => {
            let node = nodes.first().copied().unwrap_or(1);
            let (before, after) = stories::idle(&lab, node, port, count)?;
            let grown = after.saturating_sub(before);
            println!(
                "node {node}: {count} idle connections: resident {before} KiB, then {after} KiB: {grown} KiB more"
            );
        }
        Task::Load { nodes, port, mode, clients, requests, idle: None } => {
            let nodes = if nodes.is_empty() { (1..=lab.config.nodes).collect() } else { nodes };
            let target = |node: &usize| Ok(SocketAddr::new(address(*node).parse()?, port));
            let targets = nodes.iter().map(target).collect::<Result<Vec<_>>>()?;
            let (patience, expect) = (Duration::from_secs(10), "Hello from greeter ".to_owned());
            let load = Load::start(LoadConfig { targets, mode, clients, patience, rest: Duration::ZERO, expect })?;
            while load.made() < requests {
                std::thread::sleep(Duration::from_millis(20));
            }
            let report = load.end();
            println!("{}\n{report}", load::header());
            report.told.iter().for_each(|line| println!("    {line}"));
            ensure!(report.failures() == 0, "{} requests failed", report.failures());
        }
        Task::Status => print!("{}", lab.status()),
        Task::PowerOff { node } => lab.power_off(node)?,
        Task::PowerOn { node } => lab.power_on(node)?,
        Task::Exec { engine, node, command } => {
            let mut run = lab.command(node, &command);
            if !engine && lab.config.peer.is_some() {
                run.env("DOCKER_HOST", format!("unix://{}", lab.socket(node).display()));
            }
            let status = run.status()?;
            std::process::exit(status.code().unwrap_or(1));
        }
        Task::Start { node } => {
            lab.start_agent(node, None)?;
            println!("Node {node}'s agent runs ({}); its log: {}", lab.agent_pid(node)?, lab.log_file(node).display());
        }
        Task::Stop { node } => lab.stop_agent(node)?,
        Task::Kill { node } => lab.kill_agent(node)?,
        Task::EngineKill { node } => lab.kill_engine(node)?,
        Task::EngineStart { node } => lab.start_engine(node)?,
        Task::Link { node, state } => {
            let up = match state.as_str() {
                "up" => true,
                "down" => false,
                other => anyhow::bail!("link {node} {other}: want up or down"),
            };
            lab.set_link(node, up)?;
        }
        Task::Cut { a, b } => lab.cut(a, b)?,
        Task::Heal => lab.heal()?,
        Task::Down => lab.down().context("not everything could be removed")?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_elsewhere_is_named_in_what_to_try() {
        assert_eq!(place(Path::new(USUAL_DIR)), "");
        assert_eq!(place(Path::new("/tmp/other")), " --dir /tmp/other");
    }
}
