//! Views made by hand.

use crate::core::view::{ClusterView, NodeView, ObjectView, RevisionView, ServiceView, Since, TaskView};
use crate::ids::{ClusterId, NodeId, ObjectId, ServiceId, TaskId};
use crate::model::node::{EngineState, Liveness, NodeFact, NodePolicy};
use crate::model::object::{self, Object, ObjectKind};
use crate::model::record::{Hlc, RevisionId, Term};
use crate::model::rollout::{Rollout, RolloutState};
use crate::model::service::{Revision, Service};
use crate::model::spec::{
    ContainerSpec, Mode, Placement, Protocol, PublishMode, PublishedPort, Resources, RestartPolicy, ServiceSpec,
    TaskSpec, UpdateConfig,
};
use crate::model::task::{Desired, Slot, Task, TaskPhase, TaskStatus};
use crate::shell::api::backend::Snapshot;
use crate::time::Wall;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const NOW: Wall = Wall(1_780_000_000_000);
pub const CLUSTER: ClusterId = ClusterId::from_u128(42);

/// Spread over the whole range, so that short ids differ.
pub fn node_id(n: u8) -> NodeId {
    NodeId::from_u128(u128::from(n) << 120)
}

pub fn node(n: u8, hostname: &str) -> NodeView {
    let id = node_id(n);
    let fact = NodeFact {
        id,
        hostname: hostname.to_owned(),
        addr: format!("10.0.0.{n}:7717").parse().unwrap(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        nano_cpus: 2_000_000_000,
        memory_bytes: 8 << 30,
        agent_version: "0.1.0".to_owned(),
        engine_version: "28.2.2".to_owned(),
        engine_labels: BTreeMap::new(),
        engine: EngineState::Ready,
        boot: 1,
        joined: NOW,
        blocked_ports: BTreeMap::new(),
    };
    NodeView {
        id,
        fact: Some(fact),
        policy: NodePolicy::new(id),
        index: Hlc::new(NOW, 1),
        liveness: Liveness::Alive,
        heard: None,
        is_self: n == 1,
        is_holder: n == 1,
        is_voter: true,
    }
}

pub fn spec_json(name: &str, replicas: u32, image: &str) -> String {
    format!(
        r#"{{"Name":"{name}","Labels":{{"tier":"front"}},"TaskTemplate":{{"ContainerSpec":{{"Image":"{image}","Init":false}},"ForceUpdate":0}},"Mode":{{"Replicated":{{"Replicas":{replicas}}}}},"EndpointSpec":{{"Mode":"vip","Ports":[{{"Protocol":"tcp","TargetPort":5000,"PublishMode":"ingress"}}]}}}}"#
    )
}

pub fn spec(name: &str, replicas: u32, image: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::from([("tier".to_owned(), "front".to_owned())]),
        mode: Mode::Replicated(replicas),
        task: TaskSpec {
            container: ContainerSpec { image: image.to_owned(), ..ContainerSpec::default() },
            resources: Resources::default(),
            restart: RestartPolicy::default(),
            placement: Placement::default(),
            log_driver: None,
            force_update: 0,
        },
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        ports: vec![port(0)],
    }
}

fn port(published: u16) -> PublishedPort {
    PublishedPort { name: String::new(), protocol: Protocol::Tcp, target: 5000, published, mode: PublishMode::Ingress }
}

pub fn revision_id(count: u16) -> RevisionId {
    RevisionId { hlc: Hlc::new(NOW, count), author: node_id(1) }
}

pub fn object(kind: ObjectKind, spec_json: &str, data: &[u8]) -> ObjectView {
    let heading = object::heading(spec_json).unwrap();
    let object = Object {
        id: ObjectId::of_name(CLUSTER, kind, &heading.name),
        kind,
        name: heading.name,
        labels: heading.labels,
        spec_json: spec_json.to_owned(),
        data: data.to_vec(),
        created: NOW,
        updated: NOW,
    };
    ObjectView { object, index: Hlc::new(NOW, 1) }
}

pub fn service(name: &str, replicas: u32) -> ServiceView {
    ServiceView {
        service: Service {
            id: ServiceId::of_name(CLUSTER, name),
            name: name.to_owned(),
            created: NOW,
            updated: NOW,
            current: revision_id(1),
            previous: None,
            rolled_back: false,
            ports: vec![port(30000)],
        },
        index: Hlc::new(NOW, 1),
        effective: revision_id(1),
        spec_json: spec_json(name, replicas, "greeter:1"),
        spec: Arc::new(spec(name, replicas, "greeter:1")),
        previous_json: None,
        rollout: None,
        running: replicas,
        desired: replicas,
        completed: 0,
        pending: None,
    }
}

pub fn rollout(view: &ServiceView, state: RolloutState) -> Rollout {
    Rollout {
        service: view.service.id,
        from: Some(revision_id(0)),
        to: view.service.current,
        state,
        started: NOW,
        completed: (!state.is_active()).then_some(Wall(NOW.0 + 1000)),
        message: String::new(),
        total: 2,
        failed: BTreeSet::new(),
    }
}

pub fn revisions(view: &ServiceView) -> Vec<RevisionView> {
    let revision = |number: u16, image: &str| RevisionView {
        number: number.into(),
        revision: Revision {
            service: view.service.id,
            id: revision_id(number),
            spec_json: spec_json(&view.service.name, 2, image),
            registry_auth: Some("c2VjcmV0".to_owned()),
            created: NOW,
        },
        current: number == 2,
        rolled_back_from: false,
        fallback: number == 1,
    };
    vec![revision(1, "greeter:1"), revision(2, "greeter:2")]
}

/// A task of the service that runs.
pub fn task(service: &ServiceView, slot: u32, id: u8, node: NodeId) -> TaskView {
    let id = TaskId::from_u128(u128::from(id) << 119 | u128::from(slot));
    let mut status = TaskStatus::new(id, node, NOW);
    status.phase = TaskPhase::Running;
    status.container_id = Some("76ef44724c03".to_owned());
    status.pid = Some(16905);
    TaskView {
        task: Task {
            id,
            service: service.service.id,
            slot: Slot::Replica(slot),
            node: Some(node),
            revision: service.effective,
            desired: Desired::Running,
            created: NOW,
            updated: NOW,
            replaces: None,
            in_rollout: false,
            message: String::new(),
        },
        index: Hlc::new(NOW, 2),
        status: Some(status),
        service_name: service.service.name.clone(),
        spec_json: Some(service.spec_json.clone()),
        spec: Some(service.spec.clone()),
        up_to_date: true,
        out_of_sight: None,
    }
}

/// Three nodes, two services, three tasks.
pub fn snapshot() -> Snapshot {
    let (web, db) = (service("web", 2), service("db", 1));
    let tasks = vec![task(&web, 1, 10, node_id(1)), task(&web, 2, 20, node_id(2)), task(&db, 1, 30, node_id(3))];
    let nodes = vec![node(1, "node1"), node(2, "node2"), node(3, "node3")];
    let cluster = ClusterView {
        id: CLUSTER,
        node: node_id(1),
        created: NOW,
        join_secret: "secret".to_owned(),
        index: Hlc::new(NOW, 0),
        voters: nodes.iter().map(|node| node.id).collect(),
        electorate_epoch: 0,
        holder: Some((node_id(1), Term { round: 7, node: node_id(1) })),
        holder_since: Some(Since { at: NOW, is_exact: true }),
        has_quorum: true,
        records: 17,
        disk_trouble: None,
        refused_records: 0,
        tasks_here: vec![tasks[0].task.id],
    };
    Snapshot { services: vec![web, db], tasks, nodes, cluster }
}
