//! Which of the nodes that fit is best: integers in a total order, so that every machine chooses the same.

use super::occupancy::Along;
use super::{Demand, Placer};
use crate::ids::{NodeId, ServiceId};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Less is better, field by field.
#[derive(Debug, Clone, Copy)]
pub struct Rank {
    /// Of this version, lately, here.
    pub failures: u32,
    /// Where the node hangs in the tree of the spread preferences; [`Branches`] knows how full that is.
    pub branch: usize,
    pub of_service: u32,
    pub load: u64,
    pub tie: u64,
}

/// The tree of the spread preferences: one level a preference, one branch a value; a node without the label hangs on
/// the branch of the empty value. Each branch counts the service's tasks under it, and the emptiest is filled first.
pub struct Branches {
    levels: usize,
    /// For each node in turn, its branch on each level.
    path: Vec<u32>,
    /// The service's tasks under each branch.
    tasks: Vec<u32>,
}

impl Branches {
    pub fn grow(placer: &Placer<'_>, demand: &Demand<'_>) -> Self {
        let preferences = &demand.spec.task.placement.spread;
        let mut tree = Self { levels: preferences.len(), path: Vec::new(), tasks: Vec::new() };
        if tree.levels == 0 {
            return tree;
        }
        let mut known: BTreeMap<(u32, Cow<'_, str>), u32> = BTreeMap::new();
        let mut held = Along::new(placer.held.get(&demand.service));
        tree.path.reserve(placer.seats.len() * tree.levels);
        for seat in &placer.seats {
            let here = seat.room(demand, held.at(seat.node.id)).of_service;
            let mut parent = u32::MAX;
            for attribute in preferences {
                // There are at most as many branches as nodes times levels.
                let fresh = u32::try_from(tree.tasks.len()).unwrap_or(u32::MAX - 1);
                let branch = *known.entry((parent, seat.node.attribute(attribute))).or_insert(fresh);
                if branch == fresh {
                    tree.tasks.push(0);
                }
                tree.tasks[branch as usize] += here;
                tree.path.push(branch);
                parent = branch;
            }
        }
        tree
    }

    /// What to put into [`Rank::branch`] for the node in this place.
    pub fn rank_of(&self, at: usize) -> usize {
        at * self.levels
    }

    fn fill(&self, branch: usize) -> impl Iterator<Item = u32> {
        let path = self.path.get(branch..branch + self.levels).unwrap_or_default();
        path.iter().map(|b| self.tasks.get(*b as usize).copied().unwrap_or(0))
    }

    pub fn compare(&self, a: &Rank, a_id: NodeId, b: &Rank, b_id: NodeId) -> Ordering {
        let inner = |r: &Rank, id: NodeId| (r.of_service, r.load, r.tie, id);
        a.failures
            .cmp(&b.failures)
            .then_with(|| self.fill(a.branch).cmp(self.fill(b.branch)))
            .then_with(|| inner(a, a_id).cmp(&inner(b, b_id)))
    }
}

/// A number that looks random and isn't: services that find all nodes equal don't all begin with the same one.
pub fn shuffle(service: ServiceId, node: NodeId) -> u64 {
    mix(mix(fold(service.as_u128())) ^ fold(node.as_u128()))
}

fn fold(id: u128) -> u64 {
    // Both halves, and not their symmetric sum, so that small ids stay apart.
    mix((id >> 64) as u64) ^ (id as u64)
}

/// The finalizer of splitmix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
