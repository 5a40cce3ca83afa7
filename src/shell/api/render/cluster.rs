//! The cluster as Docker shows a swarm (`/swarm` and the `Swarm` part of `/info`), and as we show it (`/peer/status`).

use super::Version;
use super::node::{liveness, state};
use crate::core::view::{NodeView, TaskView};
use crate::ids::NodeId;
use crate::limits::TASK_HISTORY;
use crate::model::node::Liveness;
use crate::model::task::TaskPhase;
use crate::shell::api::backend::Snapshot;
use serde::Serialize;
use serde_json::{Value, json};

/// Our certificates live as long as Swarm's: 90 days.
const CERTIFICATE_LIFE_NS: u64 = 90 * 24 * 3600 * 1_000_000_000;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cluster {
    #[serde(rename = "ID")]
    id: String,
    version: Version,
    created_at: String,
    updated_at: String,
    spec: Value,
    #[serde(rename = "TLSInfo")]
    tls_info: Value,
    root_rotation_in_progress: bool,
    default_addr_pool: Option<()>,
    subnet_size: u32,
    data_path_port: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_tokens: Option<JoinTokens>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct JoinTokens {
    worker: String,
    manager: String,
}

/// `token`: only where the client asked for the swarm itself. There is one for both roles, as all nodes are equal.
impl Cluster {
    /// What `docker swarm ca` shows.
    pub fn with_trust_root(mut self, pem: &str) -> Self {
        self.tls_info = json!({ "TrustRoot": pem });
        self
    }
}

pub fn cluster(snapshot: &Snapshot, token: Option<String>) -> Cluster {
    let cluster = &snapshot.cluster;
    Cluster {
        id: cluster.id.to_string(),
        version: cluster.index.into(),
        created_at: cluster.created.rfc3339(),
        updated_at: cluster.index.wall().max(cluster.created).rfc3339(),
        spec: spec(),
        tls_info: json!({}),
        root_rotation_in_progress: false,
        default_addr_pool: None,
        subnet_size: 0,
        data_path_port: 0,
        join_tokens: token.map(|token| JoinTokens { worker: token.clone(), manager: token }),
    }
}

/// The docker CLI prints all of these without asking whether they are there.
fn spec() -> Value {
    json!({
        "Name": "default",
        "Labels": {},
        "Orchestration": { "TaskHistoryRetentionLimit": TASK_HISTORY + 1 },
        "Raft": { "SnapshotInterval": 0, "KeepOldSnapshots": 0, "LogEntriesForSlowFollowers": 0,
            "ElectionTick": 0, "HeartbeatTick": 0 },
        "Dispatcher": { "HeartbeatPeriod": 0 },
        "CAConfig": { "NodeCertExpiry": CERTIFICATE_LIFE_NS },
        "TaskDefaults": {},
        "EncryptionConfig": { "AutoLockManagers": false },
    })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Swarm {
    #[serde(rename = "NodeID")]
    node_id: String,
    node_addr: String,
    local_node_state: &'static str,
    control_available: bool,
    error: String,
    remote_managers: Vec<RemoteManager>,
    nodes: usize,
    managers: usize,
    cluster: Cluster,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RemoteManager {
    #[serde(rename = "NodeID")]
    node_id: String,
    addr: String,
}

pub fn swarm(snapshot: &Snapshot) -> Swarm {
    let this = snapshot.this_node().and_then(|node| node.fact.as_ref());
    let remote = |node: &NodeView| {
        let fact = node.fact.as_ref().filter(|_| node.liveness != Liveness::Down)?;
        Some(RemoteManager { node_id: node.id.to_string(), addr: fact.addr.to_string() })
    };
    Swarm {
        node_id: snapshot.cluster.node.to_string(),
        node_addr: this.map(|fact| fact.addr.ip().to_string()).unwrap_or_default(),
        local_node_state: "active",
        control_available: true,
        error: troubles(snapshot).join("; "),
        remote_managers: snapshot.nodes.iter().filter_map(remote).collect(),
        nodes: snapshot.nodes.len(),
        managers: snapshot.nodes.len(),
        cluster: cluster(snapshot, None),
    }
}

/// What an operator must know before anything else.
fn troubles(snapshot: &Snapshot) -> Vec<String> {
    let mut troubles = Vec::new();
    if !snapshot.cluster.has_quorum {
        troubles.push(
            "no majority of the voters is alive: running containers stay, nothing is placed anew \
             (see `peer status`, and `peer cluster recover` if they are lost for good)"
                .to_owned(),
        );
    }
    if let Some(why) = &snapshot.cluster.disk_trouble {
        troubles.push(format!("this node's disk refuses writes: {why}"));
    }
    for node in &snapshot.nodes {
        let Some(fact) = node.fact.as_ref().filter(|_| node.liveness != Liveness::Down) else { continue };
        for (port, why) in &fact.blocked_ports {
            troubles.push(format!("published port {port} can't be opened on {}: {why}", fact.hostname));
        }
    }
    troubles
}

/// `/peer/status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status<'a> {
    #[serde(rename = "ClusterID")]
    cluster_id: String,
    created_at: String,
    agent_version: &'a str,
    mesh: &'a str,
    node: Named<'a>,
    quorum: bool,
    holder: Option<Holder<'a>>,
    electorate_epoch: u32,
    voters: Vec<Named<'a>>,
    nodes: NodeCounts,
    services: usize,
    /// All that is kept, so with those that have ended.
    tasks: usize,
    tasks_here: usize,
    tasks_running: usize,
    tasks_running_here: usize,
    tasks_ended: usize,
    /// Of those that haven't ended, as far as anybody knows.
    tasks_on_down_nodes: usize,
    /// Services whose last write no majority is known to hold, with how it stands.
    pending: Vec<Pending<'a>>,
    records: usize,
    refused_records: u64,
    troubles: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Named<'a> {
    #[serde(rename = "ID")]
    id: String,
    hostname: &'a str,
    addr: String,
    state: &'static str,
    liveness: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Holder<'a> {
    term: u64,
    #[serde(flatten)]
    node: Named<'a>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NodeCounts {
    total: usize,
    ready: usize,
    /// Stopped on purpose, and expected back.
    away: usize,
    down: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pending<'a> {
    service: &'a str,
    why: &'a str,
}

pub fn status<'a>(snapshot: &'a Snapshot, agent_version: &'a str, mesh: &'a str) -> Status<'a> {
    let cluster = &snapshot.cluster;
    let counted = |wanted: &str| snapshot.nodes.iter().filter(|node| state(node) == wanted).count();
    let here = |view: &TaskView| view.task.node == Some(cluster.node);
    let pending = |view: &'a crate::core::view::ServiceView| {
        view.pending.as_deref().map(|why| Pending { service: &view.service.name, why })
    };
    Status {
        cluster_id: cluster.id.to_string(),
        created_at: cluster.created.rfc3339(),
        agent_version,
        mesh,
        node: named(snapshot, cluster.node),
        quorum: cluster.has_quorum,
        holder: cluster.holder.map(|(node, term)| Holder { term: term.round, node: named(snapshot, node) }),
        electorate_epoch: cluster.electorate_epoch,
        voters: cluster.voters.iter().map(|node| named(snapshot, *node)).collect(),
        nodes: NodeCounts {
            total: snapshot.nodes.len(),
            ready: counted("ready"),
            away: counted("disconnected"),
            down: counted("down"),
        },
        services: snapshot.services.len(),
        tasks: snapshot.tasks.len(),
        tasks_here: cluster.tasks_here.len(),
        tasks_running: snapshot.tasks.iter().filter(|view| runs(view)).count(),
        tasks_running_here: snapshot.tasks.iter().filter(|view| here(view) && runs(view)).count(),
        tasks_ended: snapshot.tasks.iter().filter(|view| has_ended(view)).count(),
        tasks_on_down_nodes: snapshot
            .tasks
            .iter()
            .filter(|view| view.out_of_sight.is_some() && !has_ended(view))
            .count(),
        pending: snapshot.services.iter().filter_map(pending).collect(),
        records: cluster.records,
        refused_records: cluster.refused_records,
        troubles: troubles(snapshot),
    }
}

/// As a service's own count has it: what a dead node said last counts no more.
fn runs(view: &TaskView) -> bool {
    view.out_of_sight.is_none() && view.status.as_ref().is_some_and(|status| status.phase == TaskPhase::Running)
}

/// One that never began has no status, but may be wanted no more.
fn has_ended(view: &TaskView) -> bool {
    view.status.as_ref().map_or(!view.task.desired.is_live(), |status| status.phase > TaskPhase::Running)
}

fn named(snapshot: &Snapshot, id: NodeId) -> Named<'_> {
    let node = snapshot.node(id);
    let fact = node.and_then(|node| node.fact.as_ref());
    Named {
        id: id.to_string(),
        hostname: fact.map_or("", |fact| &fact.hostname),
        addr: fact.map(|fact| fact.addr.to_string()).unwrap_or_default(),
        state: node.map_or("unknown", state),
        liveness: node.map_or("unknown", |node| liveness(node.liveness)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::views;
    use super::*;

    #[test]
    fn every_node_is_a_manager_and_one_token_serves_both_roles() {
        let snapshot = views::snapshot();
        let swarm = serde_json::to_value(swarm(&snapshot)).unwrap();
        assert_eq!((&swarm["Nodes"], &swarm["Managers"]), (&json!(3), &json!(3)));
        assert_eq!((&swarm["LocalNodeState"], &swarm["ControlAvailable"]), (&json!("active"), &json!(true)));
        assert_eq!(swarm["NodeAddr"], "10.0.0.1");
        assert_eq!(swarm["RemoteManagers"][0]["Addr"], "10.0.0.1:7717");
        assert_eq!(swarm["Cluster"].get("JoinTokens"), None, "anybody who may run `docker info` sees it");
        assert_eq!(swarm["Cluster"]["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 5);
        let cluster = serde_json::to_value(cluster(&snapshot, Some("PEERTKN".to_owned()))).unwrap();
        assert_eq!(cluster["JoinTokens"], json!({ "Worker": "PEERTKN", "Manager": "PEERTKN" }));
    }

    #[test]
    fn what_a_dead_node_said_last_is_not_counted_as_running() {
        let mut snapshot = views::snapshot();
        let counts = |snapshot: &Snapshot| {
            let status = serde_json::to_value(status(snapshot, "0.1.0", "")).unwrap();
            ["Tasks", "TasksRunning", "TasksOnDownNodes", "TasksEnded"].map(|key| status[key].as_u64().unwrap())
        };
        assert_eq!(counts(&snapshot), [3, 3, 0, 0]);
        snapshot.tasks[1].out_of_sight = Some("node node2 is down".to_owned());
        assert_eq!(counts(&snapshot), [3, 2, 1, 0]);
    }

    #[test]
    fn a_lost_quorum_is_said_first() {
        let mut snapshot = views::snapshot();
        assert_eq!(serde_json::to_value(swarm(&snapshot)).unwrap()["Error"], "");
        snapshot.nodes[1].fact.as_mut().unwrap().blocked_ports.insert(7373, "address in use".to_owned());
        snapshot.cluster.has_quorum = false;
        snapshot.services[0].pending = Some("held by 1 of 3 nodes".to_owned());
        let status = serde_json::to_value(status(&snapshot, "0.1.0", "in userspace")).unwrap();
        assert!(status["Troubles"][0].as_str().unwrap().contains("peer cluster recover"));
        assert_eq!(status["Troubles"][1], "published port 7373 can't be opened on node2: address in use");
        assert_eq!(status["Pending"], json!([{ "Service": "web", "Why": "held by 1 of 3 nodes" }]));
        assert_eq!(status["Holder"]["Hostname"], "node1");
        assert_eq!(status["Holder"]["Term"], 7);
    }
}
