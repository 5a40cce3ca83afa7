//! S2 and S4: per key a node's version never goes back, and nothing that was removed returns by itself. P3: nor does what
//! a node says of a task. S6: hybrid time is bounded. S3: what was acknowledged is there, or something later.

use super::Breach;
use peer::law::status_moves_forward;
use peer::model::record::{Hlc, Key, Stamp, Value};
use peer::model::task::TaskStatus;
use peer::time::Wall;
use std::collections::BTreeMap;

/// As the store orders the versions of a key: a node's removal is final.
pub type Version = (bool, Stamp);

pub fn version(value: Option<&Value>, stamp: Stamp) -> Version {
    (matches!(value, Some(Value::NodePolicy(policy)) if policy.removed), stamp)
}

/// What one node was seen to have, within one life of its process or for as long as its disk keeps it.
#[derive(Debug, Default)]
pub struct Versions(BTreeMap<Key, Seen>);

#[derive(Debug)]
struct Seen {
    version: Version,
    /// A tombstone; one that was collected may be gone, but what it buried must stay so.
    tombstone: bool,
    collected: bool,
}

impl Versions {
    pub fn see(&mut self, key: &Key, now: Version, tombstone: bool) -> Option<Breach> {
        let Some(seen) = self.0.get_mut(key) else {
            self.0.insert(key.clone(), Seen { version: now, tombstone, collected: false });
            return None;
        };
        let before = seen.version;
        if before > now {
            let law = if seen.tombstone && !tombstone { "S4" } else { "S2" };
            return Some(Breach::of(law, format!("{key:?} went from {before:?} to {now:?}")));
        }
        *seen = Seen { version: now, tombstone, collected: false };
        None
    }

    /// This one isn't there any more; see [`Versions::lost`].
    pub fn is_gone(&mut self, key: &Key, removed: Option<Stamp>, may_go: impl Fn(Stamp) -> bool) -> Option<Breach> {
        self.0.get_mut(key).filter(|seen| !seen.collected)?.goes(key, removed, may_go)
    }

    /// Something seen that isn't `there` any more. `removed` gives the last stamp under which a key was removed; `may_go` tells which tombstones have reached their age.
    pub fn lost(
        &mut self,
        there: impl Fn(&Key) -> bool,
        removed: impl Fn(&Key) -> Option<Stamp>,
        may_go: impl Fn(Stamp) -> bool,
    ) -> Option<Breach> {
        for (key, seen) in self.0.iter_mut().filter(|(key, seen)| !seen.collected && !there(key)) {
            let breach = seen.goes(key, removed(key), &may_go);
            if breach.is_some() {
                return breach;
            }
        }
        None
    }

    /// All that were seen and not collected.
    pub fn len(&self) -> usize {
        self.0.values().filter(|seen| !seen.collected).count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node's process ended: what it held in memory alone may be gone.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl Seen {
    fn goes(&mut self, key: &Key, removed: Option<Stamp>, may_go: impl Fn(Stamp) -> bool) -> Option<Breach> {
        let Some(stamp) = removed.filter(|stamp| *stamp >= self.version.1) else {
            return Some(Breach::of(
                "S2",
                format!("{key:?} is gone, and was not removed: had {:?}, last removal {removed:?}", self.version),
            ));
        };
        if !may_go(stamp) {
            return Some(Breach::of("S4", format!("the tombstone of {key:?} is gone before its time")));
        }
        *self = Seen { version: self.version.max((false, stamp)), tombstone: true, collected: true };
        None
    }
}

/// S6: a node takes no hybrid time that is further ahead than its own clock ever allowed it to.
pub fn runs_ahead(key: &Key, stamp: Stamp, furthest: Wall) -> Option<Breach> {
    let ahead = stamp.hlc.wall().since(furthest);
    let text = || format!("{key:?} has a hybrid time {} s further ahead than any that it may take", ahead.as_secs());
    (stamp.hlc.wall() > furthest).then(|| Breach::of("S6", text()))
}

/// P3, across two versions of one status as one node has them.
pub fn goes_back(old: &TaskStatus, new: &TaskStatus) -> Option<Breach> {
    let text = || {
        let (before, after) = ((old.attempt, old.phase.as_str()), (new.attempt, new.phase.as_str()));
        format!("the status of {:?} went from {before:?} to {after:?}", new.task)
    };
    (old.node == new.node && !status_moves_forward(old, new)).then(|| Breach::of("P3", text()))
}

/// What a node holds of a key is what was acknowledged as `index`, or later.
pub fn covers(held: Option<Version>, index: Hlc) -> bool {
    held.is_some_and(|(removed, stamp)| removed || stamp.hlc >= index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peer::ids::{NodeId, ServiceId};
    use peer::model::record::Term;

    fn at(hlc: u64) -> Version {
        (false, Stamp { term: Term::ZERO, hlc: Hlc(hlc), author: NodeId::from_u128(1) })
    }

    #[test]
    fn hybrid_time_is_bounded() {
        let breach = |ms, furthest| {
            let stamp = Stamp { hlc: Hlc::new(Wall(ms), 7), ..at(0).1 };
            runs_ahead(&Key::Cluster, stamp, Wall(furthest)).map(|b| b.law)
        };
        assert_eq!(breach(1_000, 1_000), None);
        assert_eq!(breach(1_001, 1_000), Some("S6"));
    }

    #[test]
    fn what_was_removed_stays_so_also_when_its_tombstone_is_gone() {
        let key = Key::Service(ServiceId::from_u128(1));
        let law = |breach: Option<Breach>| breach.map(|b| b.law);
        let removed = |_: &Key| Some(at(2).1);
        let mut versions = Versions::default();
        assert_eq!(law(versions.see(&key, at(1), false)), None);
        assert_eq!(law(versions.lost(|_| false, |_| None, |_| true)), Some("S2"), "it was not removed");
        assert_eq!(law(versions.see(&key, at(2), true)), None);
        assert_eq!(law(versions.lost(|_| false, removed, |_| false)), Some("S4"), "too early");
        assert_eq!(law(versions.lost(|_| false, removed, |_| true)), None);
        assert!(versions.is_empty());
        assert_eq!(law(versions.see(&key, at(1), false)), Some("S4"), "risen from the dead");
        assert_eq!(law(versions.see(&key, at(3), false)), None, "made anew");
    }
}
