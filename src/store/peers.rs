//! What others are known to hold, durably. All of it is remembered for the few whose word on everything counts (the
//! voters); of the rest only what concerns this node's own log and those that hold old tombstones, so that a node
//! in a big cluster does not keep a digest of everybody's for everybody.

use crate::ids::NodeId;
use crate::model::record::Log;
use crate::wire::message::Digest;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Peers {
    /// In one map: of most others it is a single number that is remembered.
    known: BTreeMap<(NodeId, Log), u32>,
    /// Of these everything is remembered.
    whole: BTreeSet<NodeId>,
    /// Of everybody these are.
    logs: BTreeSet<Log>,
    /// The hash of the last whole digest that was noted of each of those.
    noted: BTreeMap<NodeId, u64>,
}

impl Peers {
    pub fn hold(&self, node: NodeId, log: Log, number: u32) -> bool {
        self.known.get(&(node, log)).is_some_and(|held| *held >= number)
    }

    /// How far it is known to hold a log.
    pub fn number(&self, node: NodeId, log: Log) -> u32 {
        self.known.get(&(node, log)).copied().unwrap_or(0)
    }

    /// What others hold only grows: an older message that comes late takes nothing back.
    pub fn note<'a>(&mut self, from: NodeId, held: impl IntoIterator<Item = (&'a Log, &'a u32)>) {
        let all = self.whole.contains(&from);
        for (log, number) in held {
            if all || self.logs.contains(log) {
                let entry = self.known.entry((from, *log)).or_default();
                *entry = (*entry).max(*number);
            }
        }
    }

    /// It holds all that this node does, of which this is the hash. Said every second, and mostly nothing new.
    pub fn note_all(&mut self, from: NodeId, held: &Digest, hash: u64) {
        if !self.whole.contains(&from) {
            let known = self.logs.iter().filter_map(|log| Some((*log, *held.get(log)?))).collect::<Vec<_>>();
            self.note(from, known.iter().map(|(log, number)| (log, number)));
        } else if self.noted.insert(from, hash) != Some(hash) {
            self.note(from, held);
        }
    }

    /// Nothing that it said counts any more: it left, or begins a new life, maybe on an older disk.
    pub fn forget(&mut self, node: NodeId) {
        let log = |n, life| Log { author: NodeId::from_u128(n), life };
        let all = (node, log(0, 0))..=(node, log(u128::MAX, u32::MAX));
        let gone: Vec<(NodeId, Log)> = self.known.range(all).map(|(place, _)| *place).collect();
        for place in gone {
            self.known.remove(&place);
        }
        self.noted.remove(&node);
    }

    pub fn remember_whole(&mut self, nodes: BTreeSet<NodeId>) {
        if self.whole != nodes {
            self.whole = nodes;
            self.shrink();
        }
    }

    pub fn remember_logs(&mut self, logs: BTreeSet<Log>) {
        if self.logs != logs {
            self.logs = logs;
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        self.noted.retain(|node, _| self.whole.contains(node));
        let (whole, logs) = (&self.whole, &self.logs);
        self.known.retain(|(node, log), _| whole.contains(node) || logs.contains(log));
    }

    /// Entries remembered, of all together.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.known.len()
    }
}
