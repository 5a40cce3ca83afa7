//! What must be true, compared with what the cores believe and do. One file an area; the ids are those of
//! docs/netsim.md. A check speaks by [`World::violate`]; the first word ends the run. What the lab's chaos judges by, too,
//! stands in [`crate::law`].

mod disk;
mod lease;
mod limits;
mod membership;
mod mesh;
mod records;
mod rollout;
mod settled;
mod tasks;
mod wanted;

use super::world::World;
use crate::law::Breach;
use crate::law::lease::{Grants, Holders};
use crate::law::members::Lives;
use crate::law::records::Versions;
use crate::law::rollout::Budgets;
use peer::core::Core;
use peer::core::face::RequestId;
use peer::ids::{NodeId, ServiceId, TaskId};
use peer::model::record::{Hlc, Key, Stamp};
use peer::model::rollout::Rollout;
use peer::model::task::TaskStatus;
use peer::wire::message::Digest;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The law that was broken.
    pub id: &'static str,
    pub at: u64,
    pub text: String,
}

/// The last removal of each key.
#[derive(Debug, Default)]
struct Tombstones {
    of_all: BTreeMap<Key, Stamp>,
    /// By nodes whose writes the others refuse: for themselves alone.
    refused: BTreeMap<(NodeId, Key), Stamp>,
}

impl Tombstones {
    fn note(&mut self, key: Key, stamp: Stamp, is_refused: bool) {
        let last = if is_refused {
            self.refused.entry((stamp.author, key)).or_insert(stamp)
        } else {
            self.of_all.entry(key).or_insert(stamp)
        };
        *last = stamp.max(*last);
    }

    /// As far as `node` can know of it.
    fn last(&self, key: &Key, node: NodeId) -> Option<Stamp> {
        let own = if self.refused.is_empty() { None } else { self.refused.get(&(node, key.clone())) };
        self.of_all.get(key).max(own).copied()
    }
}

/// What the checks remember between two looks.
#[derive(Debug)]
pub struct Checks {
    /// What each node's disk must hold.
    pub disks: Vec<disk::Ledger>,
    holders: Holders,
    pub(in crate::sim) grants: Vec<Grants>,
    pub(in crate::sim) lives: Vec<Lives>,
    /// The latest life of every node, as membership numbers them.
    pub(in crate::sim) bumps: BTreeMap<NodeId, u64>,
    /// The version of each key that a node was last seen to have, in this life and on its disk.
    versions: Vec<Versions>,
    pub(in crate::sim) durable: Vec<Versions>,
    /// What [`Core::changes`] said when a node's records were last looked at.
    looked: Vec<Option<u64>>,
    /// Up to which of each author's numbers a node's claims were looked at.
    claims: Vec<Digest>,
    /// Every write: its key, its stamp, and whether it is final.
    written: BTreeMap<(NodeId, u64), (Key, Stamp, bool)>,
    tombstones: Tombstones,
    /// What each task's own node last said of it, and didn't lose with its process.
    said: BTreeMap<TaskId, TaskStatus>,
    /// Every version of every rollout.
    rollouts: BTreeMap<ServiceId, Vec<(Stamp, Rollout)>>,
    /// Where each task was first given to.
    homes: BTreeMap<TaskId, NodeId>,
    decisions: u64,
    answered: BTreeSet<RequestId>,
    next_look: u64,
    /// Acknowledged to an operator without a warning.
    pub ledger: Vec<(Key, Hlc)>,
    budgets: Budgets,
    /// Nodes that stay down in the second phase.
    pub left_dead: BTreeSet<NodeId>,
    quiet_since: Option<u64>,
    quiet_mark: Vec<(u64, u64)>,
    rest_since: u64,
    /// All that anybody held ten to twenty seconds ago, and more lately.
    digest_before: Digest,
    digest_now: Digest,
    pub reason: String,
    /// How many seconds after the faults each law was last seen unmet.
    pub pending: BTreeMap<&'static str, u64>,
}

impl Checks {
    pub fn new(nodes: usize) -> Self {
        Self {
            disks: (0..nodes).map(|_| disk::Ledger::default()).collect(),
            holders: Holders::default(),
            grants: (0..nodes).map(|_| Grants::default()).collect(),
            lives: (0..nodes).map(|_| Lives::default()).collect(),
            bumps: BTreeMap::new(),
            versions: (0..nodes).map(|_| Versions::default()).collect(),
            durable: (0..nodes).map(|_| Versions::default()).collect(),
            looked: vec![None; nodes],
            claims: vec![Digest::new(); nodes],
            written: BTreeMap::new(),
            tombstones: Tombstones::default(),
            said: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            homes: BTreeMap::new(),
            decisions: 0,
            answered: BTreeSet::new(),
            next_look: 0,
            ledger: Vec::new(),
            budgets: Budgets::default(),
            left_dead: BTreeSet::new(),
            quiet_since: None,
            quiet_mark: Vec::new(),
            rest_since: 0,
            digest_before: Digest::new(),
            digest_now: Digest::new(),
            reason: String::new(),
            pending: BTreeMap::new(),
        }
    }

    /// Another machine has come in a node's place.
    pub(in crate::sim) fn is_another(&mut self, node: usize) {
        self.grants[node] = Grants::default();
        self.lives[node].clear();
        self.durable[node].clear();
    }

    /// The disk of a node came back older than it was, or empty.
    pub(in crate::sim) fn disk_was_lost(&mut self, node: usize) {
        self.grants[node].disk_was_lost();
        self.durable[node].clear();
    }
}

impl World {
    pub fn violate(&mut self, id: &'static str, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let violation = Violation { id, at: self.now, text: text() };
            self.trace.say(self.now, None, || format!("VIOLATION {id}: {}", violation.text));
            self.violation = Some(violation);
        }
    }

    fn judge(&mut self, breach: Option<Breach>) {
        if let Some(Breach { law, text }) = breach {
            self.violate(law, || text);
        }
    }

    fn judge_of(&mut self, n: usize, breach: Option<Breach>) {
        self.judge(breach.map(|Breach { law, text }| Breach::of(law, format!("n{n}: {text}"))));
    }

    pub(super) fn check_after(&mut self, n: usize) {
        let held_before = self.nodes[n].held;
        self.check_lease(n);
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let changes = core.changes();
        self.nodes[n].seen_bump = core.bump();
        if changes != self.nodes[n].seen_changes {
            self.nodes[n].seen_changes = changes;
            self.check_written(n, held_before);
            self.note_rollouts(n);
        }
    }

    /// One node after the other is looked at whole.
    pub(super) fn check_each_second(&mut self) {
        // Where figures are taken the laws are not judged.
        if self.gauge.is_some() {
            return;
        }
        let looks = self.check.next_look;
        self.check.next_look += 1;
        let n = (looks % self.nodes.len() as u64) as usize;
        self.check_versions(n);
        self.check_lives(n);
        self.check_sizes(n);
        self.check_disk(n);
        self.forget_undisrupted();
    }

    /// The process of `n` is about to end, or to start: what it had in memory alone is gone.
    pub(in crate::sim) fn check_ending(&mut self, n: usize) {
        let bump = self.nodes[n].core.as_ref().map_or(0, Core::bump);
        let latest = self.check.bumps.entry(self.nodes[n].id).or_default();
        *latest = bump.max(*latest);
        self.check.versions[n].clear();
        self.check.claims[n].clear();
        self.check.lives[n].clear();
        self.check.looked[n] = None;
    }
}
