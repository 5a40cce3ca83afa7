//! S2 and S4: per key a node's version never goes back, and nothing that was removed returns by itself.
//! S3: what was acknowledged to an operator is there at the end, or something later.

use super::World;
use crate::law::Breach;
use crate::law::records::{covers, version};
use peer::model::record::{Hlc, Key};

impl World {
    /// Looks at one node after the other.
    pub(super) fn check_versions(&mut self) {
        let n = self.check.next_look % self.nodes.len();
        self.check.next_look = n + 1;
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let seen = &mut self.check.versions[n];
        let records = core.store().records();
        let mut wrong = records.filter_map(|r| seen.see(&r.key, version(r.value.as_ref(), r.stamp))).last();
        if seen.len() > core.store().len() && wrong.is_none() {
            wrong = seen.lost(|key| core.store().record(key).is_some());
        }
        self.judge(wrong.map(|Breach { law, text }| Breach::of(law, format!("n{n}: {text}"))));
    }

    pub(in crate::sim) fn promised(&mut self, key: Key, index: Hlc) {
        self.check.ledger.push((key, index));
    }

    /// Something acknowledged that some node of the core no longer has, nor anything later.
    pub(super) fn lost_write(&self) -> Option<String> {
        for (n, core) in self.live() {
            for (key, index) in &self.check.ledger {
                let held = core.store().record(key);
                if !covers(held.map(|r| version(r.value.as_ref(), r.stamp)), *index) {
                    let has = held.map(|r| r.stamp.hlc);
                    return Some(format!("n{n} has {has:?} of {key:?}, but {index:?} was acknowledged"));
                }
            }
        }
        None
    }
}
