//! What the page shows, as small JSON values by key, and the difference between two pictures. Built from the core's
//! views and nothing else; a spec's environment and labels of containers never get in.

use crate::core::view::{ClusterView, NodeView, ServiceView, TaskView};
use crate::ids::NodeId;
use crate::model::node::{EngineState, Liveness};
use crate::model::spec::{Mode, Order, PublishMode};
use crate::model::task::Slot;
use crate::shell::api::Snapshot;
use crate::shell::vitals::Usage;
use crate::time::Wall;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What is finer than this isn't shown, and so is no change: thousandths of a processor, and bytes.
const CPU_STEP: u64 = 100;
const MEMORY_STEP: u64 = 1 << 26;

/// `c` is the cluster, `n/ID` a node, `u/ID` what is in use of its machine, `s/ID` a service, `t/ID` a task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Picture(pub BTreeMap<String, Value>);

impl Picture {
    pub fn of(seen: &Snapshot, usage: &BTreeMap<NodeId, Usage>) -> Self {
        let mut entries = BTreeMap::from([("c".to_owned(), cluster(&seen.cluster))]);
        entries.extend(seen.nodes.iter().map(|n| (format!("n/{}", n.id), node(n))));
        let there = |id: &NodeId| seen.node(*id).is_some_and(|node| node.liveness == Liveness::Alive);
        entries.extend(usage.iter().filter(|(id, _)| there(id)).map(|(id, u)| (format!("u/{id}"), used(u))));
        entries.extend(seen.services.iter().map(|s| (format!("s/{}", s.service.id), service(s))));
        entries.extend(seen.tasks.iter().map(|t| (format!("t/{}", t.task.id), task(t))));
        Self(entries)
    }

    /// What makes `older` this one: changed and new entries, and `null` for those that are gone.
    pub fn since(&self, older: &Picture) -> Picture {
        let fresh = self.0.iter().filter(|(key, value)| older.0.get(*key) != Some(value));
        let gone = older.0.keys().filter(|key| !self.0.contains_key(*key)).map(|key| (key.clone(), Value::Null));
        Picture(fresh.map(|(key, value)| (key.clone(), value.clone())).chain(gone).collect())
    }
}

fn cluster(view: &ClusterView) -> Value {
    let holder = view.holder.map(|(node, term)| json!({"node": node.to_string(), "term": term.round}));
    json!({
        "id": view.id.to_string(),
        "self": view.node.to_string(),
        "created": millis(view.created),
        "holder": holder,
        "since": view.holder_since.map(|since| seconds(since.at)),
        "sinceExactly": view.holder_since.is_some_and(|since| since.is_exact),
        "voters": view.voters.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "epoch": view.electorate_epoch,
        "quorum": view.has_quorum,
        "disk": view.disk_trouble,
    })
}

fn node(view: &NodeView) -> Value {
    let status = match view.liveness {
        Liveness::Alive => "ready",
        Liveness::Suspect => "suspect",
        Liveness::Away => "away",
        Liveness::Down => "down",
    };
    let fact = view.fact.as_ref();
    let trouble = fact.and_then(|f| match &f.engine {
        EngineState::Unreachable(why) => Some(why.clone()),
        EngineState::Unknown | EngineState::Ready => None,
    });
    json!({
        "id": view.id.to_string(),
        "name": fact.map_or_else(|| view.id.to_string(), |f| f.hostname.clone()),
        "status": status,
        // Of one that is heard all the time it would change all the time.
        "heard": view.heard.filter(|_| view.liveness != Liveness::Alive).map(seconds),
        "availability": view.policy.availability.as_str(),
        "addr": fact.map(|f| f.addr.to_string()),
        "engine": fact.map(|f| f.engine_version.clone()),
        "agent": fact.map(|f| f.agent_version.clone()),
        "trouble": trouble,
        "cpus": fact.map(|f| f.nano_cpus),
        "memory": fact.map(|f| f.memory_bytes),
        "labels": view.policy.labels,
        "blocked": fact.map(|f| f.blocked_ports.clone()),
        "joined": fact.map(|f| millis(f.joined)),
        "holder": view.is_holder,
        "voter": view.is_voter,
    })
}

fn service(view: &ServiceView) -> Value {
    let replicas = match view.spec.mode {
        Mode::Replicated(n) => Some(n),
        Mode::ReplicatedJob { total, .. } => Some(total),
        Mode::Global | Mode::GlobalJob => None,
    };
    let mode = view.spec.mode.as_str();
    let port = |p: &crate::model::spec::PublishedPort| {
        let mode = if p.mode == PublishMode::Host { "host" } else { "ingress" };
        json!({"published": p.published, "target": p.target, "protocol": p.protocol.as_str(), "mode": mode})
    };
    let rolls_back = view.rollout.as_ref().is_some_and(|r| r.state.is_rollback());
    let config = if rolls_back { view.spec.rollback } else { view.spec.update };
    let rollout = view.rollout.as_ref().map(|r| {
        json!({
            "state": r.state.as_str(),
            "message": r.message,
            "total": r.total,
            "failed": r.failed.len(),
            "started": millis(r.started),
        })
    });
    json!({
        "id": view.service.id.to_string(),
        "name": view.service.name,
        "mode": mode,
        "replicas": replicas,
        "running": view.running,
        "desired": view.desired,
        "image": view.spec.task.container.image,
        "ports": view.service.ports.iter().map(port).collect::<Vec<_>>(),
        "rollout": rollout,
        "pending": view.pending,
        "previous": view.service.previous.is_some(),
        "parallelism": config.parallelism,
        "order": if config.order == Order::StartFirst { "start-first" } else { "stop-first" },
        "cpu": view.spec.task.resources.reserve_nano_cpus,
        "memory": view.spec.task.resources.reserve_memory,
        "updated": millis(view.service.updated),
    })
}

fn task(view: &TaskView) -> Value {
    let slot = match view.task.slot {
        Slot::Replica(n) => json!(n),
        Slot::Node(_) => Value::Null,
    };
    let status = view.status.as_ref();
    json!({
        "id": view.task.id.to_string(),
        "service": view.task.service.to_string(),
        "slot": slot,
        "node": view.task.node.map(|n| n.to_string()),
        "image": view.spec.as_ref().map(|s| s.task.container.image.clone()),
        "desired": view.task.desired.as_str(),
        "phase": status.map_or("pending", |s| s.phase.as_str()),
        "attempt": status.map_or(0, |s| s.attempt),
        "error": status.map(|s| s.error.clone()).filter(|e| !e.is_empty()),
        "note": Some(&view.task.message).filter(|m| !m.is_empty()),
        "since": millis(status.map_or(view.task.created, |s| s.since)),
        "current": view.up_to_date,
    })
}

/// What a machine doesn't tell is left out.
fn used(usage: &Usage) -> Value {
    let rounded = |value: u64, step: u64| value.saturating_add(step / 2) / step * step;
    json!({
        "cpu": usage.cpu.map(|cpu| json!([rounded(cpu.used, CPU_STEP), cpu.of])),
        "memory": usage.memory.map(|memory| json!([rounded(memory.used, MEMORY_STEP), memory.of])),
    })
}

fn millis(wall: Wall) -> u64 {
    wall.0
}

/// Likewise, without what is reckoned anew at each look and may differ by a little.
fn seconds(wall: Wall) -> u64 {
    wall.0 / 1_000 * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(entries: &[(&str, Value)]) -> Picture {
        Picture(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    #[test]
    fn the_difference_has_what_changed_what_came_and_what_went() {
        let older = picture(&[("c", json!(1)), ("t/1", json!("same")), ("t/2", json!("old")), ("t/3", json!(3))]);
        let newer = picture(&[("c", json!(1)), ("t/1", json!("same")), ("t/2", json!("new")), ("t/4", json!(4))]);
        let expected = picture(&[("t/2", json!("new")), ("t/3", Value::Null), ("t/4", json!(4))]);
        assert_eq!(newer.since(&older), expected);
        assert_eq!(newer.since(&newer), Picture::default());
        assert_eq!(newer.since(&Picture::default()), newer);
    }
}
