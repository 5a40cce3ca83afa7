//! What must be true, compared with what the cores believe and do. One file an area; the ids are those of
//! docs/netsim.md. A check speaks by [`World::violate`]; the first word ends the run.

mod lease;
mod mesh;
mod records;
mod rollout;
mod settled;
mod tasks;

use super::world::World;
use peer::ids::{NodeId, ServiceId, TaskId};
use peer::model::record::{Hlc, Key, RevisionId, Stamp, Term};
use peer::model::spec::ServiceSpec;
use peer::model::task::Slot;
use peer::wire::message::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    last_term: Option<(Term, usize)>,
    /// The version of each key that a node was last seen to have.
    versions: Vec<BTreeMap<Key, (bool, Stamp)>>,
    next_look: usize,
    /// Acknowledged to an operator without a warning.
    pub ledger: Vec<(Key, Hlc)>,
    specs: BTreeMap<RevisionId, Arc<ServiceSpec>>,
    /// The most parallel any revision of a service allows, and whether each starts first.
    budget: BTreeMap<ServiceId, (u64, bool)>,
    known_tasks: BTreeSet<TaskId>,
    /// Slots whose serving task was stopped on purpose while nothing else served them.
    disrupted: BTreeMap<(ServiceId, Slot), u64>,
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
            last_term: None,
            versions: vec![BTreeMap::new(); nodes],
            next_look: 0,
            ledger: Vec::new(),
            specs: BTreeMap::new(),
            budget: BTreeMap::new(),
            known_tasks: BTreeSet::new(),
            disrupted: BTreeMap::new(),
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
