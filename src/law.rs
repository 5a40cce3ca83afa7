//! The invariants, each written once as a predicate, used by debug assertions, tests and the simulator.

use crate::model::task::{TaskPhase, TaskStatus};

/// A task's status only moves forward: a later attempt, or a later phase of the same attempt.
pub fn status_moves_forward(old: &TaskStatus, new: &TaskStatus) -> bool {
    (new.attempt, new.phase) >= (old.attempt, old.phase)
}

/// A phase that ends an attempt.
pub fn is_terminal(phase: TaskPhase) -> bool {
    phase >= TaskPhase::Complete
}
