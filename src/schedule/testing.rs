//! Nodes and specs for the tests of this folder.

use super::{Demand, NodeInfo, Placer, Vacating};
use crate::ids::{NodeId, ServiceId};
use crate::model::node::{EngineState, Liveness, NodeFact, NodePolicy};
use crate::model::spec::{ServiceSpec, parse};
use crate::time::Wall;
use std::collections::BTreeMap;

pub const GIB: u64 = 1 << 30;

pub fn id(n: u128) -> NodeId {
    NodeId::from_u128(n)
}

/// Ready, linux, amd64, 4 CPUs, 8 GiB.
pub fn node(n: u128) -> NodeInfo {
    NodeInfo {
        id: id(n),
        fact: NodeFact {
            id: id(n),
            hostname: format!("n{n}"),
            addr: "10.0.0.1:7000".parse().unwrap(),
            os: "linux".into(),
            arch: "x86_64".into(),
            nano_cpus: 4_000_000_000,
            memory_bytes: 8 * GIB,
            agent_version: String::new(),
            engine_version: String::new(),
            engine_labels: BTreeMap::new(),
            engine: EngineState::Ready,
            boot: 0,
            joined: Wall(0),
            blocked_ports: BTreeMap::new(),
        },
        policy: NodePolicy::new(id(n)),
        liveness: Liveness::Alive,
    }
}

pub fn cluster(count: u128, change: impl Fn(u128, &mut NodeInfo)) -> BTreeMap<NodeId, NodeInfo> {
    let changed = |n| {
        let mut node = node(n);
        change(n, &mut node);
        node
    };
    (1..=count).map(|n| (id(n), changed(n))).collect()
}

/// A spec with this as its task's Resources, Placement and so on, and these ports.
pub fn spec_with(task: serde_json::Value, ports: serde_json::Value) -> ServiceSpec {
    let mut text = serde_json::json!({"Name": "web", "TaskTemplate": task, "EndpointSpec": {"Ports": ports}});
    text["TaskTemplate"]["ContainerSpec"]["Image"] = "nginx".into();
    parse(&text.to_string()).unwrap()
}

pub fn spec() -> ServiceSpec {
    spec_with(serde_json::json!({}), serde_json::json!([]))
}

pub fn service(n: u128) -> ServiceId {
    ServiceId::from_u128(n)
}

static NOWHERE: BTreeMap<NodeId, u32> = BTreeMap::new();

pub fn demand(service: ServiceId, spec: &ServiceSpec) -> Demand<'_> {
    Demand { service, spec, avoid: &NOWHERE, instead_of: None }
}

/// `frees`: what the old task runs, if it stops first.
pub fn instead_of<'d>(demand: Demand<'d>, node: NodeId, frees: Option<&'d ServiceSpec>) -> Demand<'d> {
    Demand { instead_of: Some(Vacating { node, frees }), ..demand }
}

/// Places `count` tasks one after another and says how many each node got.
pub fn fill(placer: &mut Placer<'_>, demand: &Demand<'_>, count: usize) -> BTreeMap<NodeId, u32> {
    let mut got = BTreeMap::new();
    for _ in 0..count {
        let node = placer.place(demand).unwrap();
        placer.occupy(node, demand.service, demand.spec);
        *got.entry(node).or_default() += 1;
    }
    got
}
