//! The filters, in the order in which they are asked, and their words for people. A node that fits no demand
//! is counted once, under the first filter that it fails.

use super::node::{NodeInfo, Unready};
use super::occupancy::{Claim, Port, Room, Seat};
use crate::model::generic;
use crate::model::node::EngineState;
use crate::model::spec::{Mode, ServiceSpec};
use std::collections::BTreeMap;
use std::fmt;

/// Why a node can't take a task. Small and ordered, so that a thousand of them are counted quickly; a constraint is
/// meant by its place in the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    Unready(Unready),
    Constraint(usize),
    Platform,
    Cpus,
    Memory,
    /// A kind by its place among those that the spec reserves.
    Generic(usize),
    HostPort(Port),
    MaxReplicas,
}

/// May a new task go here?
pub fn misfit(seat: &Seat<'_>, room: &Room<'_>, spec: &ServiceSpec, claim: &Claim) -> Option<Misfit> {
    if let Some(unready) = seat.unready {
        return Some(Misfit::Unready(unready));
    }
    lasting_misfit(seat.node, spec)
        .or_else(|| overdrawn(seat, room, claim))
        .or_else(|| {
            claim.ports.iter().find(|port| seat.is_port_taken(room, **port)).map(|port| Misfit::HostPort(*port))
        })
        .or_else(|| too_many(room, spec))
}

/// What holds for a task as long as it runs, whatever else runs there.
pub fn lasting_misfit(node: &NodeInfo, spec: &ServiceSpec) -> Option<Misfit> {
    let placement = &spec.task.placement;
    if let Some(at) = placement.constraints.iter().position(|constraint| !node.meets(constraint)) {
        return Some(Misfit::Constraint(at));
    }
    (!node.runs_platform(&placement.platforms)).then_some(Misfit::Platform)
}

/// Who reserves nothing fits any node, and a node whose size isn't known has room for all.
pub fn overdrawn(seat: &Seat<'_>, room: &Room<'_>, claim: &Claim) -> Option<Misfit> {
    let exceeds =
        |taken: u64, more: u64, capacity: u64| more > 0 && capacity > 0 && taken.saturating_add(more) > capacity;
    if exceeds(room.nano_cpus, claim.nano_cpus, seat.node.fact.nano_cpus) {
        return Some(Misfit::Cpus);
    }
    if exceeds(room.memory, claim.memory, seat.node.fact.memory_bytes) {
        return Some(Misfit::Memory);
    }
    generic_missing(seat, room, claim).map(Misfit::Generic)
}

/// A node has none of a kind that it doesn't name; what it has isn't known before its engine was reached.
fn generic_missing(seat: &Seat<'_>, room: &Room<'_>, claim: &Claim) -> Option<usize> {
    if claim.generic.is_empty() || seat.node.fact.engine == EngineState::Unknown {
        return None;
    }
    let has = generic::of_node(&seat.node.fact.engine_labels);
    claim.generic.iter().position(|(kind, count)| {
        seat.generic_taken(room, kind).saturating_add(*count) > has.get(kind).copied().unwrap_or_default()
    })
}

/// A global service has one task a node anyhow.
fn too_many(room: &Room<'_>, spec: &ServiceSpec) -> Option<Misfit> {
    let max = spec.task.placement.max_replicas;
    let is_counted = max > 0 && !matches!(spec.mode, Mode::Global | Mode::GlobalJob);
    (is_counted && u64::from(room.of_service) >= max).then_some(Misfit::MaxReplicas)
}

impl Misfit {
    /// What is wrong with the whole node, as an adjective; nothing where a part of it doesn't suit.
    fn state(self) -> Option<&'static str> {
        let Misfit::Unready(unready) = self else { return None };
        match unready {
            Unready::Removed => Some("removed"),
            Unready::Down => Some("down"),
            Unready::Away => Some("away for a restart"),
            Unready::Suspect => Some("suspected down"),
            Unready::Draining => Some("draining"),
            Unready::Paused => Some("paused"),
            Unready::EngineUnreachable | Unready::EngineUnknown => None,
        }
    }

    /// What is wrong with one node.
    fn words(self, spec: &ServiceSpec) -> String {
        let placement = &spec.task.placement;
        match self {
            Misfit::Unready(Unready::EngineUnreachable) => "engine unreachable".to_owned(),
            Misfit::Unready(Unready::EngineUnknown) => "engine not reached yet".to_owned(),
            Misfit::Unready(_) => format!("node {}", self.state().unwrap_or("not ready")),
            Misfit::Constraint(at) => {
                let text = placement.constraints.get(at).map(ToString::to_string).unwrap_or_default();
                format!("constraint {text} not met")
            }
            Misfit::Platform => "unsupported platform".to_owned(),
            Misfit::Cpus => "insufficient CPUs".to_owned(),
            Misfit::Memory => "insufficient memory".to_owned(),
            Misfit::Generic(at) => {
                let kind = spec.task.resources.reserve_generic.keys().nth(at).map(String::as_str);
                format!("insufficient {}", kind.unwrap_or("generic resources"))
            }
            Misfit::HostPort((protocol, number)) => format!("host port {number}/{} in use", protocol.as_str()),
            Misfit::MaxReplicas => format!("max replicas per node ({}) reached", placement.max_replicas),
        }
    }

    /// "2 nodes down", "insufficient memory on 1 node".
    fn phrase(self, count: u32, spec: &ServiceSpec) -> String {
        let nodes = if count == 1 { "node" } else { "nodes" };
        match self.state() {
            Some(state) => format!("{count} {nodes} {state}"),
            None => format!("{} on {count} {nodes}", self.words(spec)),
        }
    }

    pub fn unfit(self, spec: &ServiceSpec) -> Unfit {
        Unfit(self.words(spec))
    }
}

/// Why one node doesn't suit: "insufficient memory".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

impl Unfit {
    pub fn unknown_node() -> Self {
        Self("node not known".to_owned())
    }
}

/// Why no node suits, each reason with its number of nodes, the most frequent first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct NoFit {
    reasons: Vec<String>,
}

impl NoFit {
    pub fn new(counts: BTreeMap<Misfit, u32>, spec: &ServiceSpec) -> Self {
        let mut counts: Vec<(Misfit, u32)> = counts.into_iter().collect();
        // Nobody wants to read about nodes that were removed.
        counts.retain(|(misfit, _)| *misfit != Misfit::Unready(Unready::Removed));
        // Stable: the filters' own order stays among equals.
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Self { reasons: counts.into_iter().map(|(misfit, count)| misfit.phrase(count, spec)).collect() }
    }

    /// "insufficient memory on 2 nodes", and so on.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }
}

impl fmt::Display for NoFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reasons.is_empty() {
            true => f.write_str("no suitable node (there are no nodes)"),
            false => write!(f, "no suitable node ({})", self.reasons.join("; ")),
        }
    }
}
