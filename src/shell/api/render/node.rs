//! Docker's Node object. Every node is a "manager" here, and the lease holder is the "leader".

use super::Version;
use crate::core::view::NodeView;
use crate::model::generic;
use crate::model::node::{EngineState, Liveness, NodeFact};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node<'a> {
    #[serde(rename = "ID")]
    id: String,
    version: Version,
    created_at: String,
    updated_at: String,
    spec: Spec<'a>,
    description: Description<'a>,
    status: Status,
    manager_status: ManagerStatus,
    peer_status: PeerStatus<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Spec<'a> {
    labels: &'a BTreeMap<String, String>,
    role: &'static str,
    availability: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description<'a> {
    hostname: &'a str,
    platform: Platform<'a>,
    resources: Resources,
    engine: Engine<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Platform<'a> {
    architecture: &'a str,
    #[serde(rename = "OS")]
    os: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Resources {
    #[serde(rename = "NanoCPUs")]
    nano_cpus: u64,
    memory_bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    generic_resources: Vec<GenericResource>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct GenericResource {
    discrete_resource_spec: Discrete,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Discrete {
    kind: String,
    value: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Engine<'a> {
    engine_version: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    plugins: [(); 0],
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    addr: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ManagerStatus {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    leader: bool,
    reachability: &'static str,
    addr: String,
}

/// What Docker has no field for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PeerStatus<'a> {
    liveness: &'static str,
    voter: bool,
    #[serde(rename = "Self")]
    this: bool,
    agent_version: &'a str,
    blocked_ports: BTreeMap<u16, &'a str>,
}

pub fn node(view: &NodeView) -> Node<'_> {
    let fact = view.fact.as_ref();
    let joined = fact.map(|fact| fact.joined).unwrap_or_default();
    Node {
        id: view.id.to_string(),
        version: view.index.into(),
        created_at: joined.rfc3339(),
        updated_at: view.index.wall().max(joined).rfc3339(),
        spec: Spec { labels: &view.policy.labels, role: "manager", availability: view.policy.availability.as_str() },
        description: description(fact),
        status: status(view),
        manager_status: ManagerStatus {
            leader: view.is_holder,
            reachability: if view.liveness <= Liveness::Suspect { "reachable" } else { "unreachable" },
            addr: fact.map(|fact| fact.addr.to_string()).unwrap_or_default(),
        },
        peer_status: PeerStatus {
            liveness: liveness(view.liveness),
            voter: view.is_voter,
            this: view.is_self,
            agent_version: fact.map_or("", |fact| &fact.agent_version),
            blocked_ports: fact
                .map(|fact| fact.blocked_ports.iter().map(|(port, why)| (*port, why.as_str())).collect())
                .unwrap_or_default(),
        },
    }
}

fn description(fact: Option<&NodeFact>) -> Description<'_> {
    let generic = fact.map(|fact| generic::of_node(&fact.engine_labels)).unwrap_or_default();
    let engine_labels = fact.into_iter().flat_map(|fact| &fact.engine_labels);
    Description {
        hostname: fact.map_or("", |fact| &fact.hostname),
        platform: Platform { architecture: fact.map_or("", |fact| &fact.arch), os: fact.map_or("", |fact| &fact.os) },
        resources: Resources {
            nano_cpus: fact.map_or(0, |fact| fact.nano_cpus),
            memory_bytes: fact.map_or(0, |fact| fact.memory_bytes),
            generic_resources: generic
                .into_iter()
                .map(|(kind, value)| GenericResource { discrete_resource_spec: Discrete { kind, value } })
                .collect(),
        },
        engine: Engine {
            engine_version: fact.map_or("", |fact| &fact.engine_version),
            labels: engine_labels.map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            plugins: [],
        },
    }
}

pub fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Away => "away",
        Liveness::Down => "down",
    }
}

/// Docker's states are `ready`, `down`, `disconnected` and `unknown`; the docker CLI counts tasks on all but `down`.
pub fn state(view: &NodeView) -> &'static str {
    match (view.liveness, view.fact.as_ref().map(|fact| &fact.engine)) {
        (Liveness::Down, _) => "down",
        (Liveness::Away, _) => "disconnected",
        (_, Some(EngineState::Ready)) => "ready",
        (_, Some(EngineState::Unknown | EngineState::Unreachable(_)) | None) => "unknown",
    }
}

fn status(view: &NodeView) -> Status {
    let mut notes = Vec::new();
    match view.liveness {
        Liveness::Alive => {}
        Liveness::Suspect => notes.push("suspect: missed a probe".to_owned()),
        Liveness::Away => notes.push("stopped on purpose and expected back: keeps its tasks for now".to_owned()),
        Liveness::Down => notes.push("down: doesn't answer".to_owned()),
    }
    match view.fact.as_ref().map(|fact| &fact.engine) {
        Some(EngineState::Ready) => {}
        Some(EngineState::Unknown) => notes.push("its engine has not answered yet".to_owned()),
        Some(EngineState::Unreachable(why)) => notes.push(format!("engine unreachable: {why}")),
        None => notes.push("nothing heard from it yet".to_owned()),
    }
    let blocked = view.fact.iter().flat_map(|fact| &fact.blocked_ports);
    notes.extend(blocked.map(|(port, why)| format!("port {port} can't be opened here: {why}")));
    Status {
        state: state(view),
        message: notes.join("; "),
        addr: view.fact.as_ref().map(|fact| fact.addr.ip().to_string()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::views;
    use super::*;
    use serde_json::{Value, json};

    fn shown(view: &NodeView) -> Value {
        serde_json::to_value(node(view)).unwrap()
    }

    #[test]
    fn every_field_that_the_docker_cli_reads_is_there() {
        let mut view = views::node(1, "node1");
        view.is_holder = true;
        let node = shown(&view);
        assert_eq!(node["ID"], view.id.to_string());
        assert_eq!(node["Version"]["Index"], view.index.0);
        assert!(node["CreatedAt"].as_str().unwrap().ends_with('Z'));
        assert_eq!(node["Spec"], json!({ "Labels": {}, "Role": "manager", "Availability": "active" }));
        assert_eq!(node["Description"]["Hostname"], "node1");
        assert_eq!(node["Description"]["Platform"], json!({ "Architecture": "x86_64", "OS": "linux" }));
        assert_eq!(node["Description"]["Resources"]["NanoCPUs"], 2_000_000_000u64);
        assert_eq!(node["Description"]["Engine"]["EngineVersion"], "28.2.2");
        assert_eq!(node["Status"], json!({ "State": "ready", "Addr": "10.0.0.1" }));
        assert_eq!(
            node["ManagerStatus"],
            json!({ "Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:7717" })
        );
    }

    #[test]
    fn a_node_says_why_it_is_not_ready() {
        let mut view = views::node(1, "node1");
        view.fact.as_mut().unwrap().engine = EngineState::Unreachable("connection refused".to_owned());
        assert_eq!(shown(&view)["Status"]["State"], "unknown");
        assert_eq!(shown(&view)["Status"]["Message"], "engine unreachable: connection refused");
        view.liveness = Liveness::Down;
        assert_eq!(shown(&view)["Status"]["State"], "down");
        assert_eq!(shown(&view)["ManagerStatus"]["Reachability"], "unreachable");
        // Its agent was stopped: it is neither ready nor reachable, and not down yet.
        view.liveness = Liveness::Away;
        assert_eq!(shown(&view)["Status"]["State"], "disconnected");
        assert_eq!(shown(&view)["ManagerStatus"]["Reachability"], "unreachable");
        view.liveness = Liveness::Alive;
        view.fact = None;
        assert_eq!(shown(&view)["Status"]["State"], "unknown");
        assert_eq!(shown(&view)["Description"]["Hostname"], "");
    }
}
