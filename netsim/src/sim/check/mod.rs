//! What must be true, compared with what the cores believe and do. One file an area; the ids are those of
//! docs/netsim.md. A check speaks by [`World::violate`]; the first word ends the run. What the lab's chaos judges by, too,
//! stands in [`crate::law`].

mod disk;
mod lease;
mod mesh;
mod records;
mod rollout;
mod settled;
mod tasks;

use super::world::World;
use crate::law::Breach;
use crate::law::lease::Holders;
use crate::law::records::Versions;
use crate::law::rollout::Budgets;
use peer::ids::{NodeId, TaskId};
use peer::model::record::{Hlc, Key};
use peer::wire::message::Digest;
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The law that was broken.
    pub id: &'static str,
    pub at: u64,
    pub text: String,
}

/// What the checks remember between two looks.
#[derive(Debug)]
pub struct Checks {
    /// What each node's disk must hold.
    pub disks: Vec<disk::Ledger>,
    holders: Holders,
    /// The version of each key that a node was last seen to have.
    versions: Vec<Versions>,
    next_look: usize,
    /// Acknowledged to an operator without a warning.
    pub ledger: Vec<(Key, Hlc)>,
    budgets: Budgets,
    known_tasks: BTreeSet<TaskId>,
    /// Nodes that stay down in the second phase.
    pub left_dead: BTreeSet<NodeId>,
    quiet_since: Option<u64>,
    quiet_mark: Vec<(u64, u64)>,
    rest_since: u64,
    /// All that anybody held ten to twenty seconds ago, and more lately.
    digest_before: Digest,
    digest_now: Digest,
    pub reason: String,
}

impl Checks {
    pub fn new(nodes: usize) -> Self {
        Self {
            disks: (0..nodes).map(|_| disk::Ledger::default()).collect(),
            holders: Holders::default(),
            versions: (0..nodes).map(|_| Versions::default()).collect(),
            next_look: 0,
            ledger: Vec::new(),
            budgets: Budgets::default(),
            known_tasks: BTreeSet::new(),
            left_dead: BTreeSet::new(),
            quiet_since: None,
            quiet_mark: Vec::new(),
            rest_since: 0,
            digest_before: Digest::new(),
            digest_now: Digest::new(),
            reason: String::new(),
        }
    }

    /// Its process ended: what it held in memory alone may be gone.
    pub fn forget_node(&mut self, node: usize) {
        self.versions[node].clear();
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

    pub(super) fn check_after(&mut self, n: usize) {
        self.check_lease(n);
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let changes = core.changes();
        if changes != self.nodes[n].seen_changes {
            self.nodes[n].seen_changes = changes;
            if self.nodes[n].held.is_some() {
                self.check_decisions(n);
            }
        }
    }

    pub(super) fn check_each_second(&mut self) {
        self.check_versions();
        self.forget_undisrupted();
    }
}
