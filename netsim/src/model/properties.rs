//! What must be true at every moment, and what must be possible.

use super::state::{State, node_id};
use super::{Scenario, World, calm};
use crate::sim::hash::Hash as Digest;
use peer::ids::NodeId;
use stateright::Property;
use std::hash::{Hash, Hasher};

pub const TWO_HOLDERS: &str = "never two holders (L1)";
pub const TERMS: &str = "terms only rise (L2)";
pub const BINDING: &str = "what binds a voter only grows (L4)";
pub const FOLLOWING: &str = "majorities of successive electorates meet (L6)";
pub const COMMITTING: &str = "never two electorates that can come into force";
pub const CALM: &str = "in a calm somebody holds (L5)";

/// One moment in so many is followed into a calm: each costs as much as hundreds of steps.
const CALM_EVERY: u64 = 512;

pub fn all(scenario: &Scenario) -> Vec<Property<World>> {
    let mut all = vec![
        Property::always(TWO_HOLDERS, |_, state| keeps(state, "L1")),
        Property::always(TERMS, |_, state| keeps(state, "L2")),
        Property::always(BINDING, |_, state| keeps(state, "L4")),
        Property::always(FOLLOWING, |_, state| keeps(state, "L6")),
        Property::always(COMMITTING, |_, state: &State| proposers_that_can_win(state) <= 1),
        Property::always(CALM, |world: &World, state| !is_chosen(state) || calm::finds_a_holder(world, state)),
        Property::sometimes("somebody holds", |_, state: &State| state.holders.last().is_some()),
    ];
    if scenario.bounds.elections > 1 {
        all.push(Property::sometimes("a second one holds", |_, state: &State| second(state)));
    }
    if scenario.bounds.elections > 1 && scenario.bounds.restarts > 0 {
        all.push(Property::sometimes("a second one holds after a restart", |_, state: &State| {
            state.spent.held_before_a_restart && second(state)
        }));
    }
    if scenario.changes {
        all.push(Property::sometimes("another electorate is in force", |world: &World, state: &State| {
            state.electorates.differ_from(&world.scenario.first)
        }));
    }
    all
}

fn keeps(state: &State, law: &str) -> bool {
    state.breach.as_ref().is_none_or(|breach| breach.law != law)
}

fn second(state: &State) -> bool {
    state.spent.elections > 1 && state.nodes.iter().any(|peer| peer.held.is_some_and(|held| held.round > 1))
}

/// Proposers whose electorate a majority of itself could still accept, by what is on the voters' disks. A majority's promises
/// to one take that from every other, whatever electorate it goes by.
fn proposers_that_can_win(state: &State) -> usize {
    let can_win = |peer: &super::state::Peer| {
        let Some(ballot) = peer.lease.proposes() else { return false };
        let electorate = peer.lease.electorate();
        let accepts = |(n, voter): (usize, &std::sync::Arc<super::state::Peer>)| -> Option<NodeId> {
            let disk = &voter.disk;
            (disk.promised <= ballot && disk.electorate.id <= electorate.id).then(|| node_id(n))
        };
        let would: Vec<NodeId> = state.nodes.iter().enumerate().filter_map(accepts).collect();
        electorate.is_majority(&would)
    };
    state.nodes.iter().filter(|peer| can_win(peer)).count()
}

fn is_chosen(state: &State) -> bool {
    let mut hasher = Digest::default();
    state.hash(&mut hasher);
    hasher.finish().is_multiple_of(CALM_EVERY)
}
