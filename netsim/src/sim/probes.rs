//! What a sweep has been through: rare paths are named where they are taken, and a sweep tells which it never saw.

use std::collections::BTreeMap;

/// Every probe that there is, so that one never hit can be told.
pub const ALL: &[&str] = &[
    "a holder lost its lease",
    "a node was seen down",
    "a rewound disk was noticed",
    "a rollback began",
    "a rollback completed",
    "a task had no node for a while",
    "a write was acknowledged with a warning",
    "a write was refused",
    "an update completed",
    "an update paused",
    "disk full",
    "engine reply lost",
];

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

    pub fn never(&self) -> Vec<&'static str> {
        ALL.iter().copied().filter(|name| !self.0.contains_key(name)).collect()
    }
}
