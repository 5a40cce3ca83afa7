//! The set of voters behind the lease.

use crate::ids::NodeId;
use crate::model::record::Term;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Ordered by `id` alone: the later version replaces the earlier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Electorate {
    pub id: ElectorateId,
    pub voters: BTreeSet<NodeId>,
}

/// (epoch, term that wrote it, counter within the term). Only `peer cluster recover` raises the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ElectorateId {
    pub epoch: u32,
    pub term: Term,
    pub version: u32,
}

impl Electorate {
    /// The electorate of a cluster's first moment: its first node alone.
    pub fn first(node: NodeId) -> Self {
        Self { id: ElectorateId { epoch: 0, term: Term::ZERO, version: 0 }, voters: BTreeSet::from([node]) }
    }

    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    pub fn is_majority<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeId>) -> bool {
        nodes.into_iter().filter(|n| self.voters.contains(n)).count() >= self.majority()
    }
}
