//! S2 and S4: per key a node's version never goes back, and nothing that was removed returns by itself.
//! S3: what was acknowledged is there, or something later.

use super::Breach;
use peer::model::record::{Hlc, Key, Stamp, Value};
use std::collections::BTreeMap;

/// As the store orders the versions of a key: a node's removal is final.
pub type Version = (bool, Stamp);

pub fn version(value: Option<&Value>, stamp: Stamp) -> Version {
    (matches!(value, Some(Value::NodePolicy(policy)) if policy.removed), stamp)
}

/// What one node was seen to have within one life.
#[derive(Debug, Default)]
pub struct Versions(BTreeMap<Key, Version>);

impl Versions {
    pub fn see(&mut self, key: &Key, now: Version) -> Option<Breach> {
        match self.0.get_mut(key) {
            Some(before) if *before > now => Some(Breach::of("S2", format!("{key:?} went from {before:?} to {now:?}"))),
            Some(before) => {
                *before = now;
                None
            }
            None => {
                self.0.insert(key.clone(), now);
                None
            }
        }
    }

    /// Something seen that isn't `there` any more, not even as a tombstone.
    pub fn lost(&self, there: impl Fn(&Key) -> bool) -> Option<Breach> {
        let lost = self.0.keys().find(|key| !there(key))?;
        Some(Breach::of("S2", format!("{lost:?} is gone, tombstone and all")))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The node's process ended: what it held in memory alone may be gone.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// What a node holds of a key is what was acknowledged as `index`, or later.
pub fn covers(held: Option<Version>, index: Hlc) -> bool {
    held.is_some_and(|(removed, stamp)| removed || stamp.hlc >= index)
}
