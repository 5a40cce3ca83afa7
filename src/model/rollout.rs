//! A rollout's progress, as a record: a new lease holder goes on where the old one stopped (DESIGN rule 8).

use crate::ids::{ServiceId, TaskId};
use crate::model::record::RevisionId;
use crate::time::Wall;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The last rollout of a service. It is about the service's `current` revision `to`; when the service has
/// moved on to another, this record is history and a new one takes its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    pub service: ServiceId,
    /// What ran before; the target of an automatic rollback and what a pause pins for replacements.
    pub from: Option<RevisionId>,
    /// The service's `current` when this rollout began.
    pub to: RevisionId,
    pub state: RolloutState,
    pub started: Wall,
    pub completed: Option<Wall>,
    pub message: String,
    /// Slots that had to change when it began: the failure ratio's denominator.
    pub total: u32,
    /// Tasks of this rollout that failed, each counted once whoever leads.
    pub failed: BTreeSet<TaskId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RolloutState {
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
}

impl RolloutState {
    /// Docker's name for it in `UpdateStatus.State`.
    pub fn as_str(self) -> &'static str {
        match self {
            RolloutState::Updating => "updating",
            RolloutState::Paused => "paused",
            RolloutState::Completed => "completed",
            RolloutState::RollbackStarted => "rollback_started",
            RolloutState::RollbackPaused => "rollback_paused",
            RolloutState::RollbackCompleted => "rollback_completed",
        }
    }

    pub fn is_rollback(self) -> bool {
        matches!(self, Self::RollbackStarted | Self::RollbackPaused | Self::RollbackCompleted)
    }

    /// Slots are being replaced, or will be.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Updating | Self::RollbackStarted)
    }

    pub fn is_paused(self) -> bool {
        matches!(self, Self::Paused | Self::RollbackPaused)
    }
}

impl Rollout {
    /// The revision that slots should run: `to`, or what ran before once an automatic rollback began.
    /// (A manual rollback changes the service's `current` instead, and so `to`.)
    pub fn target(&self, manual: bool) -> RevisionId {
        match self.from {
            Some(from) if self.state.is_rollback() && !manual => from,
            _ => self.to,
        }
    }
}
