//! Placement: which node a task should run on, as a pure function of what is known of the nodes and of what runs
//! on them. The same question gets the same answer on every machine.
//!
//! Filters come first and explain themselves (`fit`): the user reads "no suitable node (insufficient memory on
//! 2 nodes)". Among the nodes that are left the emptiest wins (`rank`): where this version hasn't just failed, by the
//! spread preferences from the outermost in, by tasks of this service, by all tasks weighed by what they reserve, and
//! last by a fixed shuffle that differs from service to service.
//!
//! Nothing here knows of slots, rollouts or time. A caller that places several tasks says what it placed
//! ([`Placer::occupy`]) before it asks for the next.

mod fit;
mod node;
mod occupancy;
mod rank;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use fit::{NoFit, Unfit};
pub use node::{NodeInfo, Unready};

use crate::ids::{NodeId, ServiceId};
use crate::model::node::{Availability, Liveness};
use crate::model::spec::ServiceSpec;
use fit::Misfit;
use occupancy::{Along, Claim, Held, Seat};
use rank::{Branches, Rank};
use std::collections::BTreeMap;

/// Somebody who wants a place for one task.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'d> {
    pub service: ServiceId,
    pub spec: &'d ServiceSpec,
    /// Nodes where this version failed lately, and how often: tried last.
    pub avoid: &'d BTreeMap<NodeId, u32>,
    pub instead_of: Option<Vacating<'d>>,
}

/// The task that the new one replaces. It must still be counted (not yet vacated).
///
/// It never counts against the maximum of replicas per node, or no full node could ever be updated
/// start-first (moby#40797).
#[derive(Debug, Clone, Copy)]
pub struct Vacating<'d> {
    pub node: NodeId,
    /// What it runs, if it ends before the new one starts: what that reserves and its host ports are free for the new one.
    /// Nothing is where its spec is no longer known: then it isn't counted either.
    pub frees: Option<&'d ServiceSpec>,
}

/// The nodes, and what is placed on them.
#[derive(Debug, Clone)]
pub struct Placer<'a> {
    /// In the order of their ids.
    seats: Vec<Seat<'a>>,
    held: BTreeMap<ServiceId, BTreeMap<NodeId, Held>>,
}

impl<'a> Placer<'a> {
    pub fn new(nodes: &'a BTreeMap<NodeId, NodeInfo>) -> Self {
        Self { seats: nodes.values().map(Seat::new).collect(), held: BTreeMap::new() }
    }

    /// A live task of this service is on this node. One on a node that we don't know counts nowhere.
    pub fn occupy(&mut self, node: NodeId, service: ServiceId, spec: &ServiceSpec) {
        let Some(at) = self.seat_index(node) else { return };
        let claim = Claim::of(spec);
        self.seats[at].take(&claim);
        self.held.entry(service).or_default().entry(node).or_default().add(claim);
    }

    /// Undoes [`Self::occupy`] with the same arguments; does nothing if there was none.
    pub fn vacate(&mut self, node: NodeId, service: ServiceId, spec: &ServiceSpec) {
        let Some(at) = self.seat_index(node) else { return };
        let Some(on_nodes) = self.held.get_mut(&service) else { return };
        let Some(held) = on_nodes.get_mut(&node) else { return };
        let claim = Claim::of(spec);
        if held.remove(&claim) {
            self.seats[at].give_back(&claim);
        }
        if held.count == 0 {
            on_nodes.remove(&node);
        }
    }

    /// The best node for it, or why there is none. Only nodes that are ready for new work come into question.
    pub fn place(&self, demand: &Demand<'_>) -> Result<NodeId, NoFit> {
        let claim = Claim::of(demand.spec);
        let branches = Branches::grow(self, demand);
        let mut held = Along::new(self.held.get(&demand.service));
        let mut avoid = Along::new(Some(demand.avoid));
        let mut best: Option<(Rank, NodeId)> = None;
        for (at, seat) in self.seats.iter().enumerate() {
            let id = seat.node.id;
            let room = seat.room(demand, held.at(id));
            let rank = Rank {
                failures: avoid.at(id).copied().unwrap_or(0),
                branch: branches.rank_of(at),
                of_service: room.of_service,
                load: seat.load_with(&room, &claim),
                tie: rank::shuffle(demand.service, id),
            };
            // Looking at the rank first saves most of the filtering.
            let is_better = best.as_ref().is_none_or(|(b, b_id)| branches.compare(&rank, id, b, *b_id).is_lt());
            if is_better && fit::misfit(seat, &room, demand.spec, &claim).is_none() {
                best = Some((rank, id));
            }
        }
        best.map(|(_, id)| id).ok_or_else(|| self.explain(demand, &claim))
    }

    /// May a new task go to just this node? For global services, which don't choose.
    pub fn admit(&self, node: NodeId, demand: &Demand<'_>) -> Result<(), Unfit> {
        let Some(at) = self.seat_index(node) else { return Err(Unfit::unknown_node()) };
        let claim = Claim::of(demand.spec);
        let held = self.held.get(&demand.service).and_then(|on_nodes| on_nodes.get(&node));
        let room = self.seats[at].room(demand, held);
        fit::misfit(&self.seats[at], &room, demand.spec, &claim).map_or(Ok(()), |m| Err(m.unfit(demand.spec)))
    }

    /// May a task that runs here (and is counted) stay? Asks for constraints, platform and reservations, not for
    /// liveness or availability.
    ///
    /// Where a node has shrunk below what is reserved, every task that reserves is told to go; vacate one before
    /// asking for the next and just enough of them go.
    pub fn check(&self, node: NodeId, spec: &ServiceSpec) -> Result<(), Unfit> {
        let Some(at) = self.seat_index(node) else { return Err(Unfit::unknown_node()) };
        let claim = Claim::of(spec);
        let seat = &self.seats[at];
        let misfit =
            fit::lasting_misfit(seat.node, spec).or_else(|| fit::overdrawn(seat, &seat.others(&claim), &claim));
        misfit.map_or(Ok(()), |m| Err(m.unfit(spec)))
    }

    /// The nodes that a global service should have a task on, in the order of their ids: all that are not removed,
    /// draining or down and that meet constraints and platform. A paused or suspect node, or one whose engine doesn't
    /// answer, keeps the task it has; ask [`Self::admit`] before a new one is put there.
    pub fn eligible(&self, spec: &ServiceSpec) -> Vec<NodeId> {
        let stays = |node: &NodeInfo| {
            !node.policy.removed
                && node.policy.availability != Availability::Drain
                && node.liveness != Liveness::Down
                && fit::lasting_misfit(node, spec).is_none()
        };
        self.seats.iter().map(|seat| seat.node).filter(|node| stays(node)).map(|node| node.id).collect()
    }

    /// Live tasks of the service on the node, as far as they were said to be there.
    pub fn tasks_of(&self, service: ServiceId, node: NodeId) -> u32 {
        self.held.get(&service).and_then(|on_nodes| on_nodes.get(&node)).map_or(0, |held| held.count)
    }

    fn seat_index(&self, node: NodeId) -> Option<usize> {
        self.seats.binary_search_by_key(&node, |seat| seat.node.id).ok()
    }

    fn explain(&self, demand: &Demand<'_>, claim: &Claim) -> NoFit {
        let mut held = Along::new(self.held.get(&demand.service));
        let mut counts: BTreeMap<Misfit, u32> = BTreeMap::new();
        for seat in &self.seats {
            let room = seat.room(demand, held.at(seat.node.id));
            if let Some(misfit) = fit::misfit(seat, &room, demand.spec, claim) {
                *counts.entry(misfit).or_default() += 1;
            }
        }
        NoFit::new(counts, demand.spec)
    }
}
