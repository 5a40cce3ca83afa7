//! From any moment: nothing fails any more, clocks run alike, messages arrive at once, nodes act in time. Is a holder found?

use super::state::{Letter, Peer, State, index, node_id};
use super::{STEP, World};
use peer::ids::NodeId;
use peer::lease::Output;
use peer::model::node::Liveness;
use std::collections::{BTreeMap, VecDeque};

/// Grants' lives that it may take: one that was given, one that is assumed after a restart or heard of with a later electorate,
/// and what is lost to candidates that meet.
const LIVES: u32 = 5;

pub fn finds_a_holder(world: &World, from: &State) -> bool {
    let mut nodes: Vec<Peer> = from.nodes.iter().map(|peer| Peer::clone(peer)).collect();
    let live: BTreeMap<NodeId, Liveness> = (0..nodes.len()).map(|n| (node_id(n), Liveness::Alive)).collect();
    let mut letters = VecDeque::new();
    for node in 0..nodes.len() {
        let now = nodes[node].now;
        nodes[node].lease.set_live(&live, now);
        take(&mut nodes, node, &mut letters);
    }
    let steps = world.scenario.timing.acceptor.as_micros().div_ceil(STEP.as_micros());
    for _ in 0..u32::try_from(steps).unwrap_or(u32::MAX).saturating_mul(LIVES) {
        for node in 0..nodes.len() {
            let now = nodes[node].now;
            if nodes[node].lease.deadline().is_some_and(|at| at <= now) {
                nodes[node].lease.handle_deadline(now);
                take(&mut nodes, node, &mut letters);
            }
            while let Some(Letter { from, to, message, .. }) = letters.pop_front() {
                let now = nodes[to].now;
                nodes[to].lease.handle(node_id(from), message, now);
                take(&mut nodes, to, &mut letters);
            }
        }
        if nodes.iter().any(|peer| peer.lease.held(peer.now).is_some()) {
            return true;
        }
        for peer in &mut nodes {
            peer.now = peer.now + STEP;
        }
    }
    false
}

fn take(nodes: &mut [Peer], node: usize, letters: &mut VecDeque<Letter>) {
    while let Some(output) = nodes[node].lease.poll_output() {
        if let Output::Send { to, message } = output {
            letters.push_back(Letter::new(node, index(to), message));
        }
    }
}
