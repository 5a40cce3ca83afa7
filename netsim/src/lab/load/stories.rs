//! What operators do all day, under load at every node, on a layer 4 and on an HTTP-aware port of one service at once: no
//! request may fail. Which failures a plain port can't prevent is said in [`Story::excuses`], and nothing else is excused.

use super::{Load, LoadConfig, Mode, Report, header};
use crate::lab::http::json;
use crate::lab::{Lab, address, image, wait_until};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(super) const SERVICE: &str = "web";
/// Layer 4, and HTTP-aware.
pub const PORTS: [(u16, &str); 2] = [(9_000, "tcp"), (9_001, "http")];
const PATIENCE: Duration = Duration::from_secs(120);
/// A request takes at most this long, a slow one's 1.5 s counted in.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// A load goes on for this long before anything happens, and after everything has.
const MARGIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Story {
    /// 2 replicas, then 10, then 3
    Scale,
    /// A rolling update of 5, the old one of each first
    StopFirst,
    /// Likewise, the new one first
    StartFirst,
    /// Each node is drained and comes back, one after the other
    Drain,
    /// Each agent is stopped gracefully and started again
    Restart,
    /// The agent that holds the lease is stopped gracefully, and started when another one has it
    Lease,
}

impl Story {
    pub const ALL: [Self; 6] =
        [Self::Scale, Self::StopFirst, Self::StartFirst, Self::Drain, Self::Restart, Self::Lease];

    /// Failures that can't be prevented there.
    fn excuses(self, http: bool, mode: Mode, dies_at_once: bool) -> bool {
        // Nobody in between sees where one request ends and the next begins: a connection that is kept busy is cut when
        // its time is up, be it by a server that doesn't end it at a boundary or by an agent that stops.
        let cut_here = dies_at_once || matches!(self, Self::Restart | Self::Lease);
        !http && mode == Mode::KeepAlive && cut_here
    }
}

#[derive(Debug, Clone)]
pub struct StoryConfig {
    /// The image's tag: `1` finishes requests on SIGTERM, `exit` dies at once.
    pub tag: String,
    /// Clients of each mode at each port of each node.
    pub clients: usize,
    /// Of each client after each answer.
    pub rest: Duration,
    /// The load goes on until so many requests were made...
    pub requests: u64,
    /// ... or so long.
    pub at_most: Duration,
}

/// What came of one port and mode.
pub struct Row {
    pub story: Story,
    pub port: &'static str,
    pub mode: Mode,
    pub report: Report,
    pub excused: bool,
}

impl Row {
    pub fn is_broken(&self) -> bool {
        self.report.failures() > 0 && !self.excused
    }
}

/// Runs the stories, one after the other, on a lab that has agents.
pub fn run(lab: &Lab, stories: &[Story], config: &StoryConfig) -> Result<Vec<Row>> {
    create(lab, config)?;
    println!("{:<12}{:<6}{:<11}{}", "story", "port", "mode", header());
    let mut rows = Vec::new();
    for story in stories {
        let told = tell(lab, *story, config).with_context(|| format!("the story {story:?}"))?;
        for row in &told {
            let excused =
                if row.excused && row.report.failures() > 0 { "  (can't be prevented on this port)" } else { "" };
            let (story, mode) = (format!("{:?}", row.story), format!("{:?}", row.mode));
            println!("{story:<12}{:<6}{mode:<11}{}{excused}", row.port, row.report);
            row.report.told.iter().take(5).for_each(|line| println!("    {line}"));
        }
        rows.extend(told);
    }
    lab.peer_ok(1, &["service", "rm", SERVICE])?;
    Ok(rows)
}

pub(super) fn create(lab: &Lab, config: &StoryConfig) -> Result<()> {
    let [plain, aware] = PORTS.map(|(port, protocol)| format!("published={port},target=5000,protocol={protocol}"));
    let image = image(&config.tag);
    let mut create = vec!["service", "create", "-q", "--name", SERVICE, "--replicas", "5", "--publish", &plain];
    create.extend(["--publish", &aware, "--restart-delay", "500ms", "--update-monitor", "500ms", &image]);
    lab.peer_ok(1, &create)?;
    until_replicas(lab, 1, 5)?;
    for (node, (port, _)) in (1..=lab.config.nodes).flat_map(|node| PORTS.map(|port| (node, port))) {
        let target = target(node, port)?;
        let answers = || {
            let load = |mode| LoadConfig {
                targets: vec![target],
                mode,
                ..load_config(Vec::new(), Mode::New, 1, Duration::ZERO)
            };
            let probe = Load::start(load(Mode::New));
            probe.is_ok_and(|probe| {
                let deadline = Instant::now() + REQUEST_PATIENCE;
                while probe.made() == 0 && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(10));
                }
                probe.end().failures() == 0
            })
        };
        wait_until(&format!("node {node} answers on port {port}"), PATIENCE, answers)?;
    }
    Ok(())
}

fn load_config(targets: Vec<SocketAddr>, mode: Mode, clients: usize, rest: Duration) -> LoadConfig {
    LoadConfig { targets, mode, clients, rest, patience: REQUEST_PATIENCE, expect: "Hello from greeter ".to_owned() }
}

fn target(node: usize, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address(node).parse()?, port))
}

/// A load for each port and mode.
pub(super) struct Loads(Vec<(&'static str, Mode, Load)>);

impl Loads {
    /// `nodes`: those that are asked, by the port's protocol.
    pub(super) fn start<'n>(nodes: impl Fn(&str) -> &'n [usize], config: &StoryConfig) -> Result<Self> {
        let mut loads = Vec::new();
        for (port, protocol) in PORTS {
            for mode in [Mode::New, Mode::KeepAlive, Mode::Slow] {
                let targets = nodes(protocol).iter().map(|node| target(*node, port)).collect::<Result<Vec<_>>>()?;
                loads.push((protocol, mode, Load::start(load_config(targets, mode, config.clients, config.rest))?));
            }
        }
        Ok(Self(loads))
    }

    fn made(&self) -> u64 {
        self.0.iter().map(|(_, _, load)| load.made()).sum()
    }

    pub(super) fn end(self) -> Vec<(&'static str, Mode, Report)> {
        self.0.into_iter().map(|(port, mode, load)| (port, mode, load.end())).collect()
    }
}

fn tell(lab: &Lab, story: Story, config: &StoryConfig) -> Result<Vec<Row>> {
    let nodes: Vec<usize> = (1..=lab.config.nodes).collect();
    prepare(lab, story)?;
    let mut reports: Vec<(&'static str, Mode, Report)> = Vec::new();
    let mut add = |told: Vec<(&'static str, Mode, Report)>| {
        for (port, mode, report) in told {
            match reports.iter_mut().find(|(p, m, _)| (*p, *m) == (port, mode)) {
                Some((_, _, sum)) => sum.add(report),
                None => reports.push((port, mode, report)),
            }
        }
    };
    let began = Instant::now();
    match story {
        // While its agent is away a node's ports are shut, but those that its kernel carries: of them the others are asked.
        Story::Restart | Story::Lease => {
            let by_kernel = !is_userspace(lab)?;
            let stopped = if story == Story::Lease { vec![holder(lab)?] } else { nodes.clone() };
            let share = config.requests / stopped.len() as u64;
            for node in stopped {
                let others: Vec<usize> = nodes.iter().copied().filter(|n| *n != node).collect();
                let asked = |protocol: &str| if by_kernel && protocol == "tcp" { &nodes[..] } else { &others[..] };
                let loads = Loads::start(asked, config)?;
                std::thread::sleep(MARGIN);
                let acted = restart(lab, node);
                go_on(&loads, share, began, config.at_most);
                add(loads.end());
                acted?;
            }
        }
        _ => {
            let loads = Loads::start(|_| &nodes, config)?;
            std::thread::sleep(MARGIN);
            let acted = act(lab, story, &loads, config, began);
            go_on(&loads, config.requests, began, config.at_most);
            add(loads.end());
            acted?;
        }
    }
    let row = |(port, mode, report)| {
        let excused = story.excuses(port == "http", mode, config.tag == "exit");
        Row { story, port, mode, report, excused }
    };
    Ok(reports.into_iter().map(row).collect())
}

fn go_on(loads: &Loads, requests: u64, began: Instant, at_most: Duration) {
    std::thread::sleep(MARGIN);
    while loads.made() < requests && began.elapsed() < at_most {
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn prepare(lab: &Lab, story: Story) -> Result<()> {
    let replicas = if story == Story::Scale { 2 } else { 5 };
    lab.peer_ok(1, &["service", "scale", &format!("{SERVICE}={replicas}")])?;
    let order = match story {
        Story::StartFirst => "start-first",
        _ => "stop-first",
    };
    lab.peer_ok(1, &["service", "update", "--update-order", order, SERVICE])?;
    until_replicas(lab, 1, replicas)
}

fn act(lab: &Lab, story: Story, loads: &Loads, config: &StoryConfig, began: Instant) -> Result<()> {
    match story {
        Story::Scale => {
            for replicas in [10, 3] {
                lab.peer_ok(2, &["service", "scale", &format!("{SERVICE}={replicas}")])?;
                until_replicas(lab, 1, replicas)?;
            }
            Ok(())
        }
        Story::StopFirst | Story::StartFirst => loop {
            lab.peer_ok(2, &["service", "update", "--force", SERVICE])?;
            until_replicas(lab, 1, 5)?;
            // As many as the load takes.
            if loads.made() >= config.requests || began.elapsed() >= config.at_most {
                return Ok(());
            }
        },
        Story::Drain => {
            for node in 1..=lab.config.nodes {
                let (from, name) = (node % lab.config.nodes + 1, format!("node{node}"));
                lab.peer_ok(from, &["node", "update", "--availability", "drain", &name])?;
                wait_until(&format!("{name} runs nothing, and the others five"), PATIENCE, || {
                    running(lab, from).is_ok_and(|on| on.len() == 5 && !on.contains(&name))
                })?;
                lab.peer_ok(from, &["node", "update", "--availability", "active", &name])?;
            }
            // Some go back to those that are empty now.
            lab.peer_ok(1, &["service", "update", "--force", SERVICE])?;
            until_replicas(lab, 1, 5)
        }
        // Told node by node, above.
        Story::Restart | Story::Lease => Ok(()),
    }
}

/// Stops a node's agent gracefully, and starts it when another one holds the lease.
fn restart(lab: &Lab, node: usize) -> Result<()> {
    lab.stop_agent(node)?;
    let other = node % lab.config.nodes + 1;
    let name = format!("node{node}");
    wait_until("another agent holds the lease", PATIENCE, || {
        leader(lab, other).is_ok_and(|leader| !leader.is_empty() && leader != name)
    })?;
    lab.start_agent(node, None)?;
    until_ready(lab, other)?;
    until_replicas(lab, node, 5)
}

/// As the agent of the asked node sees them.
pub(in crate::lab) fn until_ready(lab: &Lab, asked: usize) -> Result<()> {
    let ready = || {
        let listed = lab.peer_ok(asked, &["node", "ls"]);
        listed.is_ok_and(|table| table.matches(" Ready ").count() == lab.config.nodes)
    };
    wait_until("all nodes are ready", PATIENCE, ready)
}

fn leader(lab: &Lab, asked: usize) -> Result<String> {
    let table = lab.peer_ok(asked, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"])?;
    Ok(table.lines().find_map(|line| line.strip_suffix(" Leader")).unwrap_or_default().to_owned())
}

fn holder(lab: &Lab) -> Result<usize> {
    let leader = leader(lab, 1)?;
    leader.strip_prefix("node").and_then(|number| number.parse().ok()).context("nobody holds the lease")
}

pub(in crate::lab) fn is_userspace(lab: &Lab) -> Result<bool> {
    Ok(json(&lab.socket(1), "GET", "/peer/mesh", None)?["Plane"] == "userspace")
}

/// The nodes of the tasks that run and are to run.
fn running(lab: &Lab, asked: usize) -> Result<Vec<String>> {
    let format = "{{.Node}} {{.DesiredState}} {{.CurrentState}}";
    let table = lab.peer_ok(asked, &["service", "ps", "--no-trunc", "--format", format, SERVICE])?;
    let runs = |line: &str| {
        let (node, rest) = line.split_once(' ')?;
        rest.starts_with("Running Running").then(|| node.to_owned())
    };
    Ok(table.lines().filter_map(runs).collect())
}

pub(super) fn until_replicas(lab: &Lab, asked: usize, count: usize) -> Result<()> {
    let run = || running(lab, asked).is_ok_and(|on| on.len() == count);
    wait_until(&format!("{count} replicas run"), PATIENCE, run)
}

/// Holds so many idle connections through one node's layer 4 port, each of which has carried a request, and tells by how
/// much its agent has grown, in KiB.
pub fn idle(lab: &Lab, node: usize, port: u16, count: usize) -> Result<(u64, u64)> {
    let target = target(node, port)?;
    let pid = lab.agent_pid(node)?;
    let before = rss_kib(pid)?;
    let mut kept = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream = super::client::open(target, REQUEST_PATIENCE)?;
        super::client::exchange(&mut stream, REQUEST_PATIENCE)
            .with_context(|| format!("the request on connection {number}"))?;
        kept.push(stream);
    }
    let after = rss_kib(pid)?;
    let alive = kept.iter().filter(|stream| super::client::is_open(stream)).count();
    ensure!(alive == count, "only {alive} of {count} connections are open");
    Ok((before, after))
}

fn rss_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).context("no number")
}
