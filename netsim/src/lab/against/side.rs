//! The two orchestrators, driven alike: nodes that wait with an engine each (and peer's agent on standby), made a cluster by
//! the same requests to a node's socket, and blank again afterwards.

use super::cluster::Cluster;
use crate::lab::bench::containers;
use crate::lab::http::{ask, ask_within, json};
use crate::lab::process::{sh, sh_ok};
use crate::lab::{Lab, address, namespace, wait_until};
use anyhow::{Context, Result};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
/// A Swarm without its majority may take long to let a node go; then its state is deleted.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);
/// The first so many nodes are managers; the others are workers. Peer's nodes are all alike.
pub const MANAGERS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orchestrator {
    Swarm,
    Peer,
}

impl Orchestrator {
    pub const BOTH: [Self; 2] = [Self::Swarm, Self::Peer];

    pub fn name(self) -> &'static str {
        match self {
            Self::Swarm => "Swarm",
            Self::Peer => "peer",
        }
    }

    /// Where a node of it takes Docker's requests.
    pub fn socket(self, lab: &Lab, node: usize) -> PathBuf {
        match self {
            Self::Swarm => lab.engine_socket(node),
            Self::Peer => lab.socket(node),
        }
    }

    /// What the other nodes join.
    fn port(self) -> u16 {
        match self {
            Self::Swarm => 2377,
            Self::Peer => 7373,
        }
    }

    /// Each node is ready to be made a member.
    pub fn stand_by(self, lab: &Lab) -> Result<()> {
        match self {
            Self::Swarm => Ok(()),
            Self::Peer => (1..=lab.config.nodes).try_for_each(|node| lab.start_agent_on_standby(node)),
        }
    }

    /// Makes the first so many nodes a cluster, one join after the other.
    pub fn form<'l>(self, lab: &'l Lab, nodes: usize, image: &str) -> Result<Formed<'l>> {
        let cluster = Cluster::new(lab, self, nodes, image);
        let first = self.socket(lab, 1);
        let began = Instant::now();
        let listen = "0.0.0.0:2377";
        let init = json!({"ListenAddr": listen, "AdvertiseAddr": address(1), "Spec": {}});
        ask(&first, "POST", "/swarm/init", Some(&init))?;
        let tokens = json(&first, "GET", "/swarm", None)?["JoinTokens"].take();
        for node in 2..=nodes {
            let role = if node <= MANAGERS { "Manager" } else { "Worker" };
            let join = json!({
                "ListenAddr": listen,
                "AdvertiseAddr": address(node),
                "RemoteAddrs": [format!("{}:{}", address(1), self.port())],
                "JoinToken": tokens[role].as_str().with_context(|| format!("no token for a {role}"))?,
            });
            ask(&self.socket(lab, node), "POST", "/swarm/join", Some(&join))?;
        }
        cluster.until("all nodes are ready", PATIENCE, |cluster| Ok(cluster.ready()?.len() == nodes))?;
        let ready = began.elapsed();
        cluster.until("the leader's loss can be survived", PATIENCE, |cluster| self.survives_a_loss(cluster))?;
        Ok(Formed { ready, settled: began.elapsed(), cluster })
    }

    /// All are in place who decide who leads: Swarm's managers, and those who vote on peer's lease, which it admits one by one.
    fn survives_a_loss(self, cluster: &Cluster) -> Result<bool> {
        match self {
            Self::Swarm => {
                let nodes = cluster.get("/nodes")?;
                let nodes = nodes.as_array().into_iter().flatten();
                let reachable = nodes.filter(|node| node["ManagerStatus"]["Reachability"] == "reachable");
                Ok(reachable.count() == MANAGERS.min(cluster.nodes))
            }
            // Odd, and at most five: the lab's clusters have three or five nodes.
            Self::Peer => Ok(cluster.get("/peer/status")?["Voters"].as_array().map_or(0, Vec::len) == cluster.nodes),
        }
    }
}

pub struct Formed<'l> {
    pub cluster: Cluster<'l>,
    /// How long it took until all nodes were ready.
    pub ready: Duration,
    /// And until the one that leads could be lost.
    pub settled: Duration,
}

/// Whatever happened: every node is plugged, has an engine that runs and belongs to nobody, and no container.
pub fn blank(lab: &Lab) -> Result<()> {
    lab.heal()?;
    let clear = |node| blank_node(lab, node).with_context(|| format!("clearing node {node}"));
    std::thread::scope(|scope| {
        let nodes: Vec<_> = (1..=lab.config.nodes).map(|node| scope.spawn(move || clear(node))).collect();
        nodes.into_iter().try_for_each(|node| node.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
    })
}

fn blank_node(lab: &Lab, node: usize) -> Result<()> {
    if lab.agent_runs(node) {
        lab.kill_agent(node)?;
    }
    let at = lab.node_dir(node).display().to_string();
    sh(&format!("rm -rf {at}/peer {at}/peer.sock"))?;
    // There is one only if an agent has left it.
    sh_ok(&format!("ip netns exec {} nft delete table ip peer", namespace(node)));
    if lab.engine_runs(node) {
        let engine = lab.engine_socket(node);
        let left = ask_within(LEAVE_PATIENCE, &engine, "POST", "/swarm/leave?force=1", None);
        if left.is_err_and(|error| !error.to_string().contains("not part of a swarm")) {
            lab.kill_engine(node)?;
        }
    }
    if !lab.engine_runs(node) {
        sh(&format!("rm -rf {at}/data/swarm"))?;
        lab.start_engine(node)?;
    }
    // Those of a Swarm that was left may be going by themselves.
    wait_until(&format!("node {node} has no containers"), PATIENCE, || {
        let Ok(left) = containers(lab, node) else { return false };
        for container in &left {
            let _ = ask(&lab.engine_socket(node), "DELETE", &format!("/containers/{container}?force=1"), None);
        }
        left.is_empty()
    })
}
