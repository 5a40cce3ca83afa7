//! The invariants, each written once as a predicate, used by debug assertions, tests and the simulator.

use crate::ids::NodeId;
use crate::model::task::{TaskPhase, TaskStatus};
use std::collections::BTreeSet;

/// A task's status only moves forward: a later attempt, or a later phase of the same attempt.
pub fn status_moves_forward(old: &TaskStatus, new: &TaskStatus) -> bool {
    (new.attempt, new.phase) >= (old.attempt, old.phase)
}

/// No majority of the voters `a` is disjoint from any majority of the voters `b`: two electorates that follow on each other
/// can't be acted under side by side.
pub fn majorities_meet(a: &BTreeSet<NodeId>, b: &BTreeSet<NodeId>) -> bool {
    let shared = a.intersection(b).count();
    let needed = |x: &BTreeSet<NodeId>| (x.len() / 2 + 1).saturating_sub(x.len() - shared);
    needed(a) + needed(b) > shared
}

/// A phase that ends an attempt.
pub fn is_terminal(phase: TaskPhase) -> bool {
    phase >= TaskPhase::Complete
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_majorities_meet() {
        let set = |nodes: &[u128]| nodes.iter().map(|n| NodeId::from_u128(*n)).collect();
        assert!(majorities_meet(&set(&[1, 2, 3]), &set(&[1, 2, 3, 4])));
        assert!(majorities_meet(&set(&[1]), &set(&[1, 2])));
        assert!(!majorities_meet(&set(&[1, 2, 3]), &set(&[2, 3, 4])), "a swap in one step");
        assert!(!majorities_meet(&set(&[1]), &set(&[1, 2, 3])));
    }
}
