//! S2 and S4: per key a node's version never goes back, and nothing that was removed returns by itself.
//! S3: what was acknowledged to an operator is there at the end, or something later.

use super::World;
use peer::model::record::{Hlc, Key, Record, Stamp, Value};

/// As the store orders versions.
fn rank(record: &Record) -> (bool, Stamp) {
    (matches!(&record.value, Some(Value::NodePolicy(policy)) if policy.removed), record.stamp)
}

impl World {
    /// Looks at one node after the other.
    pub(super) fn check_versions(&mut self) {
        let n = self.check.next_look % self.nodes.len();
        self.check.next_look = n + 1;
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let seen = &mut self.check.versions[n];
        let mut wrong = None;
        let mut found = 0;
        for record in core.store().records() {
            let now = rank(record);
            match seen.get_mut(&record.key) {
                Some(before) if *before > now => {
                    wrong = Some(format!("{:?} went from {before:?} to {now:?}", record.key))
                }
                Some(before) => {
                    *before = now;
                    found += 1;
                }
                None => {
                    seen.insert(record.key.clone(), now);
                    found += 1;
                }
            }
        }
        if found < seen.len() && wrong.is_none() {
            let lost = seen.keys().find(|key| core.store().record(key).is_none());
            wrong = Some(format!("{lost:?} is gone, tombstone and all"));
        }
        if let Some(text) = wrong {
            self.violate("S2", || format!("n{n}: {text}"));
        }
    }

    pub(in crate::sim) fn promised(&mut self, key: Key, index: Hlc) {
        self.check.ledger.push((key, index));
    }

    /// Something acknowledged that some node of the core no longer has, nor anything later.
    pub(super) fn lost_write(&self) -> Option<String> {
        for (n, core) in self.live() {
            for (key, index) in &self.check.ledger {
                let held = core.store().record(key);
                if held.is_none_or(|r| r.stamp.hlc < *index && !rank(r).0) {
                    let has = held.map(|r| r.stamp.hlc);
                    return Some(format!("n{n} has {has:?} of {key:?}, but {index:?} was acknowledged"));
                }
            }
        }
        None
    }
}
