//! What is taken on each node: tasks, reservations, host ports.

use super::node::{NodeInfo, Unready};
use super::{Demand, Vacating};
use crate::ids::NodeId;
use crate::model::generic::Generic;
use crate::model::spec::{Protocol, ServiceSpec};
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

pub type Port = (Protocol, u16);

/// What one task takes of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub nano_cpus: u64,
    pub memory: u64,
    pub generic: Generic,
    /// Bound on the machine itself; those whose number the engine chooses can't collide and don't count.
    pub ports: Vec<Port>,
}

impl Claim {
    pub fn of(spec: &ServiceSpec) -> Self {
        Self {
            nano_cpus: spec.task.resources.reserve_nano_cpus,
            memory: spec.task.resources.reserve_memory,
            generic: spec.task.resources.reserve_generic.clone(),
            ports: spec.host_ports().filter(|p| p.published != 0).map(|p| (p.protocol, p.published)).collect(),
        }
    }
}

/// One service's tasks on one node.
#[derive(Debug, Clone, Default)]
pub struct Held {
    pub count: u32,
    /// Usually one kind, two in a rollout that changes what is claimed.
    claims: Vec<(Claim, u32)>,
}

impl Held {
    pub fn add(&mut self, claim: Claim) {
        self.count += 1;
        match self.claims.iter_mut().find(|(known, _)| *known == claim) {
            Some((_, count)) => *count += 1,
            None => self.claims.push((claim, 1)),
        }
    }

    /// False if there was none such.
    pub fn remove(&mut self, claim: &Claim) -> bool {
        let Some(at) = self.claims.iter().position(|(known, _)| known == claim) else { return false };
        self.count = self.count.saturating_sub(1);
        self.claims[at].1 -= 1;
        if self.claims[at].1 == 0 {
            self.claims.swap_remove(at);
        }
        true
    }

    /// What a task with this spec claims, if there is one such.
    fn vacated(&self, spec: &ServiceSpec) -> Option<&Claim> {
        let claim = Claim::of(spec);
        self.claims.iter().map(|(known, _)| known).find(|known| **known == claim)
    }
}

/// A node with what is taken on it.
#[derive(Debug, Clone)]
pub struct Seat<'a> {
    pub node: &'a NodeInfo,
    pub unready: Option<Unready>,
    tasks: u32,
    nano_cpus: u64,
    memory: u64,
    generic: Generic,
    ports: BTreeMap<Port, u32>,
}

/// What is taken of a seat in the eyes of one demand, without the task that makes room for it.
#[derive(Debug, Clone, Copy)]
pub struct Room<'h> {
    pub of_service: u32,
    pub tasks: u32,
    pub nano_cpus: u64,
    pub memory: u64,
    freed_ports: &'h [Port],
    freed_generic: Option<&'h Generic>,
}

impl<'a> Seat<'a> {
    pub fn new(node: &'a NodeInfo) -> Self {
        Self {
            node,
            unready: node.unready(),
            tasks: 0,
            nano_cpus: 0,
            memory: 0,
            generic: Generic::new(),
            ports: BTreeMap::new(),
        }
    }

    pub fn take(&mut self, claim: &Claim) {
        self.tasks += 1;
        self.nano_cpus = self.nano_cpus.saturating_add(claim.nano_cpus);
        self.memory = self.memory.saturating_add(claim.memory);
        for (kind, count) in &claim.generic {
            let taken = self.generic.entry(kind.clone()).or_default();
            *taken = taken.saturating_add(*count);
        }
        for port in &claim.ports {
            *self.ports.entry(*port).or_default() += 1;
        }
    }

    pub fn give_back(&mut self, claim: &Claim) {
        self.tasks = self.tasks.saturating_sub(1);
        self.nano_cpus = self.nano_cpus.saturating_sub(claim.nano_cpus);
        self.memory = self.memory.saturating_sub(claim.memory);
        for (kind, count) in &claim.generic {
            if let Some(taken) = self.generic.get_mut(kind) {
                *taken = taken.saturating_sub(*count);
            }
        }
        for port in &claim.ports {
            if let Some(count) = self.ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.ports.remove(port);
                }
            }
        }
    }

    /// `held` is what the demand's own service has here.
    pub fn room<'h>(&self, demand: &Demand<'_>, held: Option<&'h Held>) -> Room<'h> {
        let mut room = Room {
            of_service: held.map_or(0, |h| h.count),
            tasks: self.tasks,
            nano_cpus: self.nano_cpus,
            memory: self.memory,
            freed_ports: &[],
            freed_generic: None,
        };
        let (Some(Vacating { node, frees }), Some(held)) = (demand.instead_of, held) else { return room };
        if node != self.node.id {
            return room;
        }
        room.of_service = room.of_service.saturating_sub(1);
        room.tasks = room.tasks.saturating_sub(1);
        if let Some(freed) = frees.and_then(|spec| held.vacated(spec)) {
            room.nano_cpus = room.nano_cpus.saturating_sub(freed.nano_cpus);
            room.memory = room.memory.saturating_sub(freed.memory);
            room.freed_ports = &freed.ports;
            room.freed_generic = Some(&freed.generic);
        }
        room
    }

    /// The room as a task that is counted here, and claims this, sees it.
    pub fn others<'c>(&self, claim: &'c Claim) -> Room<'c> {
        Room {
            of_service: 0,
            tasks: self.tasks.saturating_sub(1),
            nano_cpus: self.nano_cpus.saturating_sub(claim.nano_cpus),
            memory: self.memory.saturating_sub(claim.memory),
            freed_ports: &[],
            freed_generic: Some(&claim.generic),
        }
    }

    /// How many of a kind others have.
    pub fn generic_taken(&self, room: &Room<'_>, kind: &str) -> u64 {
        let freed = room.freed_generic.and_then(|freed| freed.get(kind)).copied().unwrap_or_default();
        self.generic.get(kind).copied().unwrap_or_default().saturating_sub(freed)
    }

    pub fn is_port_taken(&self, room: &Room<'_>, port: Port) -> bool {
        let freed = u32::from(room.freed_ports.contains(&port));
        self.ports.get(&port).is_some_and(|holders| *holders > freed)
    }

    /// How full the node would be with the new task: a task weighs 1,000, and a node all of whose CPUs or memory
    /// are reserved weighs ten tasks more than one with none reserved.
    pub fn load_with(&self, room: &Room<'_>, claim: &Claim) -> u64 {
        const TASK: u64 = 1_000;
        const RESERVED_PERMILLE: u64 = 10;
        let cpus = permille(room.nano_cpus.saturating_add(claim.nano_cpus), self.node.fact.nano_cpus);
        let memory = permille(room.memory.saturating_add(claim.memory), self.node.fact.memory_bytes);
        u64::from(room.tasks) * TASK + cpus.max(memory).saturating_mul(RESERVED_PERMILLE).min(u64::MAX / 2)
    }
}

/// A capacity of 0 is unknown, and nothing is a share of it.
fn permille(part: u64, capacity: u64) -> u64 {
    if part == 0 { 0 } else { part.saturating_mul(1_000).checked_div(capacity).unwrap_or(0) }
}

/// Walks a map along with the nodes, both in the order of ids: looking up a thousand nodes costs one pass.
pub struct Along<'m, V> {
    rest: Option<Peekable<btree_map::Iter<'m, NodeId, V>>>,
}

impl<'m, V> Along<'m, V> {
    pub fn new(map: Option<&'m BTreeMap<NodeId, V>>) -> Self {
        Self { rest: map.filter(|m| !m.is_empty()).map(|m| m.iter().peekable()) }
    }

    /// Must be asked in rising order.
    pub fn at(&mut self, id: NodeId) -> Option<&'m V> {
        let rest = self.rest.as_mut()?;
        while rest.next_if(|(key, _)| **key < id).is_some() {}
        rest.next_if(|(key, _)| **key == id).map(|(_, value)| value)
    }
}
