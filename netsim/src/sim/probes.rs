//! What a sweep has been through: rare paths are named where they are taken, and a sweep tells which it never saw.

use std::collections::BTreeMap;

/// Every probe that there is, so that one never hit can be told.
pub const ALL: &[&str] = &[
    "a drain was interrupted by the loss of the lease",
    "a duplicate was trimmed",
    "a false suspicion was refuted",
    "a holder lost its lease",
    "a later term overruled an earlier one's later word",
    "a link was half open",
    "a machine was suspended",
    "a message came again later",
    "a narrow link lost a datagram",
    "a node came to hold the lease",
    "a node joined a cluster at work",
    "a node was replaced by one with an empty disk",
    "a node was seen down",
    "a removed node heard of it by a refused connection",
    "a replacement started first",
    REWOUND,
    "a rollback began by itself",
    "a rollback completed",
    "a rollout was continued by another holder",
    "a task had no node for a while",
    "a tombstone was collected",
    "a voter was dropped",
    "a wall clock was days ahead",
    "a wall clock was days behind",
    "a write that a full disk refused was acknowledged later",
    "a write was acknowledged with a warning",
    "a write was refused",
    "an operator asked the same again",
    "an operator rolled back",
    "an update completed",
    "an update paused",
    "containers outlived their agent, or their engine's absence",
    "disk full",
    "engine reply lost",
    "the electorate changed",
];

/// Seen where disks are put back, which not every profile does.
pub const REWOUND: &str = "a rewound disk was noticed";

#[derive(Debug, Clone, Default)]
pub struct Probes(pub BTreeMap<&'static str, u64>);

impl Probes {
    pub fn hit(&mut self, name: &'static str) {
        *self.0.entry(name).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// Those that should have been hit and weren't; `rewinds` tells whether disks were put back.
    pub fn never(&self, rewinds: bool) -> Vec<&'static str> {
        let due = ALL.iter().copied().filter(|name| rewinds || *name != REWOUND);
        due.filter(|name| !self.0.contains_key(name)).collect()
    }
}
