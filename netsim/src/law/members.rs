//! M1 a life that is known of somebody never gives way to an earlier one; M2 a life that was buried doesn't rise again;
//! M3 nobody is known in a life that never began.

use super::Breach;
use peer::ids::NodeId;
use peer::model::node::Liveness;
use std::collections::BTreeMap;

/// What one node, within one life of its process, has held of the lives of others.
#[derive(Debug, Default)]
pub struct Lives {
    latest: BTreeMap<NodeId, u64>,
    /// With the bump that the observer itself had then: when it renews itself, because it was cut off or stood still, its
    /// verdicts on others are void (`membership::heal`), and rightly.
    buried: BTreeMap<NodeId, (u64, u64)>,
    suspected: BTreeMap<NodeId, u64>,
}

impl Lives {
    /// `bump` is the latest life of `node` that the observer knows, `real` the latest that ever began.
    pub fn know(&mut self, node: NodeId, bump: u64, real: u64) -> Option<Breach> {
        if bump > real {
            return Some(Breach::of("M3", format!("life {bump} of {node:?}, who has had but {real}")));
        }
        let latest = self.latest.entry(node).or_insert(bump);
        if *latest > bump {
            return Some(Breach::of("M1", format!("life {bump} of {node:?} after its life {latest}")));
        }
        *latest = bump;
        None
    }

    /// The observer, under its own bump `own`, holds this life of the node for over.
    pub fn bury(&mut self, own: u64, node: NodeId, bump: u64) {
        self.buried.insert(node, (own, bump));
    }

    /// The observer sees the node up in this life.
    pub fn see_up(&self, own: u64, node: NodeId, bump: u64) -> Option<Breach> {
        let (then, buried) = *self.buried.get(&node)?;
        let text = || format!("{node:?} is up in life {bump}, and its life {buried} was held for over");
        (then == own && bump <= buried).then(|| Breach::of("M2", text()))
    }

    /// True when a life that was suspected is trusted again.
    pub fn refutes(&mut self, node: NodeId, bump: u64, liveness: Liveness) -> bool {
        match liveness {
            Liveness::Suspect => {
                self.suspected.insert(node, bump);
                false
            }
            Liveness::Alive => self.suspected.remove(&node) == Some(bump),
            Liveness::Away | Liveness::Down => {
                self.suspected.remove(&node);
                false
            }
        }
    }

    pub fn has_known(&self) -> impl Iterator<Item = NodeId> {
        self.latest.keys().copied()
    }

    /// The observer's process ended.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_only_grow_and_the_buried_stay_buried() {
        let node = NodeId::from_u128(1);
        let law = |breach: Option<Breach>| breach.map(|b| b.law);
        let mut lives = Lives::default();
        assert_eq!(law(lives.know(node, 3, 3)), None);
        assert_eq!(law(lives.know(node, 4, 3)), Some("M3"));
        assert_eq!(law(lives.know(node, 2, 3)), Some("M1"));
        lives.bury(1, node, 3);
        assert_eq!(law(lives.see_up(1, node, 3)), Some("M2"));
        assert_eq!(law(lives.see_up(1, node, 4)), None, "another life");
        assert_eq!(law(lives.see_up(2, node, 3)), None, "the error was the observer's");
    }
}
