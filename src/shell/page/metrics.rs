//! `GET /metrics` in Prometheus' text format 0.0.4. Gauges are read from the core at the moment of the scrape; counters
//! are kept since the agent's start.

use super::Shared;
use crate::core::face::Notice;
use crate::core::view::{HealthView, ServiceView};
use crate::ids::NodeId;
use crate::model::node::Liveness;
use crate::model::task::TaskPhase;
use crate::shell::api::{Answer, Snapshot, Want};
use crate::shell::clock::wall;
use crate::shell::mesh::{PortView, View};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What has happened since the agent's start.
#[derive(Debug, Default)]
pub struct Counters {
    nodes_up: AtomicU64,
    nodes_down: AtomicU64,
    leases_acquired: AtomicU64,
    leases_lost: AtomicU64,
    electorate_changes: AtomicU64,
    tasks_failed: AtomicU64,
    tasks_rejected: AtomicU64,
    rollouts_completed: AtomicU64,
    rollouts_paused: AtomicU64,
    rollbacks: AtomicU64,
    warnings: AtomicU64,
}

impl Counters {
    pub fn count(&self, notice: &Notice) {
        let counter = match notice {
            Notice::NodeUp(_) => &self.nodes_up,
            Notice::NodeDown(_) => &self.nodes_down,
            Notice::LeaseAcquired { .. } => &self.leases_acquired,
            Notice::LeaseLost { .. } => &self.leases_lost,
            Notice::ElectorateChanged { .. } => &self.electorate_changes,
            Notice::TaskStatus { phase, .. } if *phase == TaskPhase::Failed.as_str() => &self.tasks_failed,
            Notice::TaskStatus { phase, .. } if *phase == TaskPhase::Rejected.as_str() => &self.tasks_rejected,
            Notice::RolloutState { state: "completed", .. } => &self.rollouts_completed,
            Notice::RolloutState { state: "paused" | "rollback_paused", .. } => &self.rollouts_paused,
            Notice::RolloutState { state: "rollback_started", .. } => &self.rollbacks,
            Notice::TaskStatus { .. } | Notice::RolloutState { .. } | Notice::Removed => return,
            Notice::Warning(_) => &self.warnings,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// `GET /metrics`.
pub async fn serve(State(page): State<Arc<Shared>>, headers: HeaderMap) -> Answer {
    page.guard.may_look(&headers)?;
    let (snapshot, health) = page.agent.query(|core| (Snapshot::of(core, Want::ALL), core.health())).await?;
    let mut text = Text::default();
    gauges(&mut text, &snapshot);
    replication(&mut text, &health, &snapshot);
    counters(&mut text, &page.counters);
    mesh(&mut text, &page.mesh.view(), &snapshot);
    page.measured.write(&mut text);
    process(&mut text);
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text.0).into_response())
}

fn gauges(text: &mut Text, seen: &Snapshot) {
    let cluster = &seen.cluster;
    text.metric(
        "build_info",
        "gauge",
        "Always 1; the agent's version.",
        [(labels(&[("version", env!("CARGO_PKG_VERSION"))]), 1)],
    );

    let mut members =
        BTreeMap::from([Liveness::Alive, Liveness::Suspect, Liveness::Away, Liveness::Down].map(|l| (l, 0u64)));
    for node in &seen.nodes {
        *members.entry(node.liveness).or_default() += 1;
    }
    let rows = members.into_iter().map(|(liveness, count)| (labels(&[("state", liveness_name(liveness))]), count));
    text.metric("members", "gauge", "Nodes of the cluster by how this node sees them.", rows);

    text.one(
        "quorum",
        "gauge",
        "1 while a majority of the electorate is alive in this node's eyes.",
        u64::from(cluster.has_quorum),
    );
    let holds = cluster.holder.is_some_and(|(node, _)| node == cluster.node);
    text.one("lease_held", "gauge", "1 while this node holds the scheduler's lease.", u64::from(holds));
    let round = cluster.holder.map_or(0, |(_, term)| term.round);
    text.one(
        "lease_round",
        "gauge",
        "The round of the lease's term as far as this node knows; 0 without a holder.",
        round,
    );
    let age = cluster.holder_since.map_or(Duration::ZERO, |since| wall().since(since.at));
    text.one(
        "lease_age_seconds",
        "gauge",
        "How long the present holder has held the lease, as far as this node knows; 0 without one.",
        format!("{:.3}", age.as_secs_f64()),
    );
    text.one("electorate_voters", "gauge", "Voters of the electorate.", cluster.voters.len());
    text.one(
        "electorate_epoch",
        "gauge",
        "Epoch of the electorate: only `peer cluster recover` raises it.",
        cluster.electorate_epoch,
    );
    text.one("records", "gauge", "Replicated records this node holds.", cluster.records);
    text.one("records_refused_total", "counter", "Records of others that this node refused.", cluster.refused_records);
    text.one(
        "disk_failing",
        "gauge",
        "1 while the disk refuses the agent's writes.",
        u64::from(cluster.disk_trouble.is_some()),
    );

    let mut phases: BTreeMap<(&str, bool), u64> = BTreeMap::new();
    for task in &seen.tasks {
        let phase = task.status.as_ref().map_or(TaskPhase::Pending, |s| s.phase).as_str();
        *phases.entry((phase, task.task.node == Some(cluster.node))).or_default() += 1;
    }
    let rows = phases.into_iter().map(|((phase, here), count)| {
        (labels(&[("phase", phase), ("here", if here { "true" } else { "false" })]), count)
    });
    text.metric("tasks", "gauge", "Tasks of the cluster by phase, and whether they are this node's.", rows);

    let each = |value: fn(&ServiceView) -> u64| {
        seen.services.iter().map(move |s| (labels(&[("service", &s.service.name)]), value(s))).collect::<Vec<_>>()
    };
    text.metric("service_replicas_desired", "gauge", "Replicas that should run.", each(|s| s.desired.into()));
    text.metric("service_replicas_running", "gauge", "Replicas that run.", each(|s| s.running.into()));
    text.metric(
        "service_rollout_paused",
        "gauge",
        "1 while the service's update is paused.",
        each(|s| u64::from(s.rollout.as_ref().is_some_and(|r| r.state.is_paused()))),
    );
    text.metric(
        "service_write_pending",
        "gauge",
        "1 while no majority of the electorate is known to hold the service's last change.",
        each(|s| u64::from(s.pending.is_some())),
    );
}

fn replication(text: &mut Text, health: &HealthView, seen: &Snapshot) {
    text.one("suspicions_total", "counter", "Times this node came to suspect another one.", health.suspicions);
    text.one(
        "suspicions_refuted_total",
        "counter",
        "False alarms: times that one whom this node suspected turned out to live.",
        health.refuted,
    );
    text.one(
        "probe_patience",
        "gauge",
        "How many times as slowly as usual this node probes others, because it doubts itself; 1 is well.",
        health.patience,
    );
    let name = |id: &NodeId| {
        let fact = seen.node(*id).and_then(|node| node.fact.as_ref());
        fact.map_or_else(|| id.to_string(), |fact| fact.hostname.clone())
    };
    // By name, of which two may be alike: the worse one counts.
    let mut lags: BTreeMap<String, u32> = BTreeMap::new();
    for (node, lag) in &health.lags {
        let worst = lags.entry(name(node)).or_default();
        *worst = (*worst).max(*lag);
    }
    let rows = lags.into_iter().map(|(name, lag)| (labels(&[("node", &name)]), lag));
    text.metric(
        "replication_lag_records",
        "gauge",
        "How many of this node's writes each other node is not known to hold.",
        rows,
    );
}

fn counters(text: &mut Text, counters: &Counters) {
    let mut one = |name, help, counter: &AtomicU64| text.one(name, "counter", help, counter.load(Ordering::Relaxed));
    one("nodes_up_total", "Times a node came up in this node's eyes.", &counters.nodes_up);
    one("nodes_down_total", "Times a node went down in this node's eyes.", &counters.nodes_down);
    one("leases_acquired_total", "Times this node got the lease.", &counters.leases_acquired);
    one("leases_lost_total", "Times this node lost or gave up the lease.", &counters.leases_lost);
    one("electorate_changes_total", "Changes of the electorate that this node saw.", &counters.electorate_changes);
    one("tasks_failed_total", "Tasks of this node that failed, attempts counted one by one.", &counters.tasks_failed);
    one("tasks_rejected_total", "Tasks of this node that could not be started.", &counters.tasks_rejected);
    one("rollouts_completed_total", "Updates completed while this node held the lease.", &counters.rollouts_completed);
    one(
        "rollouts_paused_total",
        "Updates and rollbacks paused while this node held the lease.",
        &counters.rollouts_paused,
    );
    one("rollbacks_total", "Automatic rollbacks begun while this node held the lease.", &counters.rollbacks);
    one("warnings_total", "Warnings in this agent's log.", &counters.warnings);
}

/// Of what comes in through this node's published ports, by service and port.
fn mesh(text: &mut Text, view: &View, seen: &Snapshot) {
    let each = |value: fn(&PortView) -> u64| {
        let row = move |port: &PortView| {
            let owns = |s: &&ServiceView| {
                s.service.ports.iter().any(|p| (p.protocol, p.published) == (port.protocol, port.port))
            };
            let service = seen.services.iter().find(owns).map_or("", |s| s.service.name.as_str());
            (labels(&[("service", service), ("port", &port.port.to_string())]), value(port))
        };
        view.ports.iter().map(row).collect::<Vec<_>>()
    };
    let mut counter = |name, help, value| text.metric(name, "counter", help, each(value));
    counter(
        "mesh_connections_total",
        "Connections (on an HTTP-aware port: requests) sent to replicas through this node's port.",
        |port| port.totals.connections,
    );
    counter("mesh_retries_total", "Times another replica was tried.", |port| port.totals.retries);
    counter("mesh_failures_total", "Clients that were turned away.", |port| port.totals.failures);
    counter("mesh_sent_bytes_total", "Bytes sent to replicas.", |port| port.totals.sent_bytes);
    counter("mesh_received_bytes_total", "Bytes received from replicas.", |port| port.totals.received_bytes);
    text.metric(
        "mesh_connections_open",
        "gauge",
        "Connections (on an HTTP-aware port: requests) that are open.",
        each(|port| port.totals.open),
    );
    text.metric(
        "mesh_port_blocked",
        "gauge",
        "1 while the port can't be opened on this node.",
        each(|port| u64::from(port.blocked.is_some())),
    );
}

/// Under the names that every exporter uses, with our prefix. Where there is no /proc they are left out.
fn process(text: &mut Text) {
    if let Some(kilobytes) = status_field("VmRSS:") {
        text.one("process_resident_memory_bytes", "gauge", "Resident memory of the agent.", kilobytes * 1024);
    }
    let times = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = times.tv_sec as f64 + times.tv_nsec as f64 / 1e9;
    text.one("process_cpu_seconds_total", "counter", "CPU time of the agent.", format!("{seconds:.3}"));
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        text.one("process_open_fds", "gauge", "Open file descriptors of the agent.", open.count());
    }
}

fn status_field(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn liveness_name(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Away => "away",
        Liveness::Down => "down",
    }
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

#[derive(Default)]
pub(super) struct Text(pub(super) String);

impl Text {
    pub(super) fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help, [(String::new(), value)]);
    }

    pub(super) fn metric<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        rows: impl IntoIterator<Item = (String, V)>,
    ) {
        self.head(name, kind, help);
        for (labels, value) in rows {
            self.row(name, &labels, value);
        }
    }

    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string can't fail.
        let _ = writeln!(self.0, "# HELP peer_{name} {help}\n# TYPE peer_{name} {kind}");
    }

    pub(super) fn row(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "peer_{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_label_is_escaped() {
        assert_eq!(labels(&[("a", "b"), ("c", "x\"y\\z\n")]), r#"{a="b",c="x\"y\\z\n"}"#);
    }

    #[test]
    fn notices_are_counted_by_kind() {
        let counters = Counters::default();
        counters.count(&Notice::LeaseAcquired { term: 1 });
        counters.count(&Notice::LeaseAcquired { term: 2 });
        let mut text = Text::default();
        super::counters(&mut text, &counters);
        assert!(text.0.contains("\npeer_leases_acquired_total 2\n"), "{}", text.0);
        assert!(text.0.contains("\npeer_leases_lost_total 0\n"));
    }
}
