//! The invariants, each written once as a predicate on plain values: asserted where the core decides (debug builds) and
//! held by the simulator and the lab's chaos against what every node has (`netsim/src/law`).

use crate::ids::NodeId;
use crate::model::rollout::{Rollout, RolloutState};
use crate::model::task::{Task, TaskPhase, TaskStatus};
use std::collections::BTreeSet;

/// P3: a task's status only moves forward: a later attempt, or a later phase of the same attempt.
pub fn status_moves_forward(old: &TaskStatus, new: &TaskStatus) -> bool {
    (new.attempt, new.phase) >= (old.attempt, old.phase)
}

/// L6: no majority of the voters `a` is disjoint from any majority of the voters `b`: two electorates that follow on each
/// other can't be acted under side by side.
pub fn majorities_meet(a: &BTreeSet<NodeId>, b: &BTreeSet<NodeId>) -> bool {
    let shared = a.intersection(b).count();
    let needed = |x: &BTreeSet<NodeId>| (x.len() / 2 + 1).saturating_sub(x.len() - shared);
    needed(a) + needed(b) > shared
}

/// A phase that ends an attempt.
pub fn is_terminal(phase: TaskPhase) -> bool {
    phase >= TaskPhase::Complete
}

/// P2, P3: what one holder makes of a task that it knows. It is the same task in the same slot of the same revision; once
/// it has a node it stays there; what is desired of it only rises.
pub fn task_moves_forward(old: &Task, new: &Task) -> bool {
    let same = old.id == new.id && old.service == new.service && old.slot == new.slot && old.revision == new.revision;
    same && (old.node.is_none() || old.node == new.node) && old.desired <= new.desired
}

/// U3: what one holder makes of a rollout that it knows. An end is an end, a pause is left by nobody but an operator (who
/// then begins another rollout), a rollback begins where an update was under way, and a failure is never forgotten, but
/// that a rollback starts its own account.
pub fn rollout_moves_forward(old: &Rollout, new: &Rollout) -> bool {
    use RolloutState::{Completed, Paused, RollbackCompleted, RollbackPaused, RollbackStarted, Updating};
    if (old.to, old.started) != (new.to, new.started) {
        return true;
    }
    let turned = old.state == Updating && new.state.is_rollback();
    let may = match old.state {
        // A rollback that has nothing to do is over at once.
        Updating => true,
        RollbackStarted => matches!(new.state, RollbackStarted | RollbackPaused | RollbackCompleted),
        Paused | Completed | RollbackPaused | RollbackCompleted => new.state == old.state,
    };
    may && old.from == new.from && (turned || new.failed.is_superset(&old.failed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ServiceId, TaskId};
    use crate::model::record::{Hlc, RevisionId};
    use crate::model::task::{Desired, Slot};
    use crate::time::Wall;

    const REVISION: RevisionId = RevisionId { hlc: Hlc(1), author: NodeId::from_u128(1) };

    #[test]
    fn which_majorities_meet() {
        let set = |nodes: &[u128]| nodes.iter().map(|n| NodeId::from_u128(*n)).collect();
        assert!(majorities_meet(&set(&[1, 2, 3]), &set(&[1, 2, 3, 4])));
        assert!(majorities_meet(&set(&[1]), &set(&[1, 2])));
        assert!(!majorities_meet(&set(&[1, 2, 3]), &set(&[2, 3, 4])), "a swap in one step");
        assert!(!majorities_meet(&set(&[1]), &set(&[1, 2, 3])));
    }

    #[test]
    fn a_task_stays_and_what_is_desired_of_it_rises() {
        let old = Task {
            id: TaskId::from_u128(1),
            service: ServiceId::from_u128(1),
            slot: Slot::Replica(1),
            node: None,
            revision: REVISION,
            desired: Desired::Ready,
            created: Wall(0),
            updated: Wall(0),
            replaces: None,
            in_rollout: false,
            message: String::new(),
        };
        let placed = Task { node: Some(NodeId::from_u128(2)), desired: Desired::Running, ..old.clone() };
        let moved = Task { node: Some(NodeId::from_u128(3)), ..placed.clone() };
        assert!(task_moves_forward(&old, &placed));
        assert!(!task_moves_forward(&placed, &moved));
        assert!(!task_moves_forward(&placed, &Task { desired: Desired::Ready, ..placed.clone() }));
        assert!(!task_moves_forward(&placed, &Task { slot: Slot::Replica(2), ..placed.clone() }));
    }

    #[test]
    fn a_rollout_forgets_no_failure_and_leaves_no_end() {
        let failed = |ids: &[u128]| ids.iter().map(|id| TaskId::from_u128(*id)).collect::<BTreeSet<_>>();
        let rollout = |state, ids: &[u128]| Rollout {
            service: ServiceId::from_u128(1),
            from: None,
            to: REVISION,
            state,
            started: Wall(0),
            completed: None,
            message: String::new(),
            total: 3,
            failed: failed(ids),
        };
        let law = |old, had: &[u128], new, has: &[u128]| rollout_moves_forward(&rollout(old, had), &rollout(new, has));
        use RolloutState::*;
        assert!(law(Updating, &[1], Updating, &[1, 2]));
        assert!(!law(Updating, &[1], Updating, &[]), "a new holder counts on");
        assert!(law(Updating, &[1], RollbackStarted, &[]), "the way back has its own account");
        assert!(!law(Paused, &[1], Updating, &[1]));
        assert!(!law(Completed, &[], RollbackStarted, &[]));
        let later = Rollout { started: Wall(9), ..rollout(Updating, &[]) };
        assert!(rollout_moves_forward(&rollout(Paused, &[1]), &later), "an operator began another one");
    }
}
