//! Tasks: one attempt to fill one slot of a service on one node. After Swarm's task model
//! (moby/swarmkit design/task_model.md): what is wanted and what is seen are kept apart, and both only grow.
//!
//! One thing differs. A node restarts a crashed task by itself (DESIGN rule 2), so a task has *attempts*;
//! its status is ordered by (attempt, phase).

use crate::ids::{NodeId, ServiceId, TaskId};
use crate::model::record::RevisionId;
use crate::model::spec::Protocol;
use crate::time::Wall;
use serde::{Deserialize, Serialize};

/// The place a task fills: the n-th replica (from 1), or a node of a global service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    Replica(u32),
    Node(NodeId),
}

/// What the lease holder wants of a task. Only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Desired {
    /// Image pulled, container created, not started.
    Ready,
    Running,
    /// Withdrawn from routing, then stopped.
    Shutdown,
    /// Stopped, and forgotten once it is.
    Remove,
}

/// An assignment; the lease holder writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    pub service: ServiceId,
    pub slot: Slot,
    /// `None` while no node fits; once set it never changes.
    pub node: Option<NodeId>,
    pub revision: RevisionId,
    pub desired: Desired,
    pub created: Wall,
    /// When `desired` was last raised.
    pub updated: Wall,
    /// The task of the same slot that this one is to take over from.
    pub replaces: Option<TaskId>,
    /// Made by a rollout: its failures count for it.
    pub in_rollout: bool,
    /// Why it has no node, or why it is to stop; for people.
    pub message: String,
}

/// What is seen of a task. The order is Swarm's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskPhase {
    /// No node yet.
    Pending,
    Assigned,
    /// The node has seen it.
    Accepted,
    /// Pulling the image, creating the container.
    Preparing,
    /// Created, waiting for desired Running.
    Ready,
    /// Started; not yet healthy, or its port not yet accepting.
    Starting,
    /// Serving: it may get traffic.
    Running,
    /// Exited with 0.
    Complete,
    /// Stopped because it was told to.
    Shutdown,
    /// Died after it was started.
    Failed,
    /// Could not be started at all (image, mount, port).
    Rejected,
}

impl TaskPhase {
    /// Docker's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskPhase::Pending => "pending",
            TaskPhase::Assigned => "assigned",
            TaskPhase::Accepted => "accepted",
            TaskPhase::Preparing => "preparing",
            TaskPhase::Ready => "ready",
            TaskPhase::Starting => "starting",
            TaskPhase::Running => "running",
            TaskPhase::Complete => "complete",
            TaskPhase::Shutdown => "shutdown",
            TaskPhase::Failed => "failed",
            TaskPhase::Rejected => "rejected",
        }
    }
}

impl Desired {
    pub fn as_str(self) -> &'static str {
        match self {
            Desired::Ready => "ready",
            Desired::Running => "running",
            Desired::Shutdown => "shutdown",
            Desired::Remove => "remove",
        }
    }
    /// The task is to serve, now or soon.
    pub fn is_live(self) -> bool {
        self <= Desired::Running
    }
}

/// What the node says of a task; only the task's node writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    pub task: TaskId,
    pub node: NodeId,
    /// 0 at first; one more for each local restart.
    pub attempt: u32,
    pub phase: TaskPhase,
    /// When this phase was reached, by the node's wall clock.
    pub since: Wall,
    /// What is going on, for people ("pulling image", "waiting for port 5000").
    pub message: String,
    /// Why it failed or was rejected, in the engine's words where it had some; empty otherwise.
    pub error: String,
    pub exit_code: Option<i64>,
    pub container_id: Option<String>,
    pub pid: Option<i64>,
    /// Attempts before this one, oldest first, at most `MAX_PAST_ATTEMPTS`.
    pub past: Vec<PastAttempt>,
    /// The node will start another attempt by the restart policy, not before this time of its wall clock.
    pub retry_at: Option<Wall>,
    pub standing: Standing,
}

/// What else there is to know of a task, by its phase. The encoding begins with that of the `given_up: bool` which once
/// stood here, so that older records still read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    Plain,
    /// A terminal phase that the restart policy makes final: attempts used up, or not to be restarted.
    GivenUp,
    /// It runs, and other nodes reach it without an agent in between at these ports of its node.
    Delivers(Vec<Delivery>),
}

/// A port of a task's node that leads other members to one published target of this one task, and to nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub protocol: Protocol,
    pub target: u16,
    /// One of [`crate::limits::DELIVERY_PORTS`].
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastAttempt {
    pub attempt: u32,
    pub phase: TaskPhase,
    pub since: Wall,
    pub error: String,
    pub exit_code: Option<i64>,
    pub container_id: Option<String>,
}

impl TaskStatus {
    /// Before the node has said anything.
    pub fn new(task: TaskId, node: NodeId, now: Wall) -> Self {
        Self {
            task,
            node,
            attempt: 0,
            phase: TaskPhase::Assigned,
            since: now,
            message: String::new(),
            error: String::new(),
            exit_code: None,
            container_id: None,
            pid: None,
            past: Vec::new(),
            retry_at: None,
            standing: Standing::Plain,
        }
    }

    pub fn is_given_up(&self) -> bool {
        self.standing == Standing::GivenUp
    }

    pub fn deliveries(&self) -> &[Delivery] {
        match &self.standing {
            Standing::Delivers(deliveries) => deliveries,
            Standing::Plain | Standing::GivenUp => &[],
        }
    }

    /// Some attempt has failed, even if a later one runs.
    pub fn ever_failed(&self) -> bool {
        self.attempt > 0 || self.phase >= TaskPhase::Failed
    }

    /// Nothing of it runs or will run without a new order.
    pub fn is_over(&self) -> bool {
        self.phase >= TaskPhase::Complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec;

    /// Records of before there were deliveries ended with `given_up: bool`.
    #[test]
    fn a_status_without_deliveries_reads_and_writes_as_it_always_did() {
        let plain = TaskStatus::new(TaskId::from_u128(1), NodeId::from_u128(2), Wall(3));
        let (mut old, mut given_up) = (codec::encode(&plain), plain.clone());
        assert_eq!(old.pop(), Some(0));
        old.push(1);
        given_up.standing = Standing::GivenUp;
        assert_eq!(codec::decode::<TaskStatus>(&old, 1_000).unwrap(), given_up);
        let delivery = Delivery { protocol: Protocol::Udp, target: 53, port: 61_000 };
        let delivers = TaskStatus { standing: Standing::Delivers(vec![delivery]), ..plain };
        assert_eq!(codec::decode::<TaskStatus>(&codec::encode(&delivers), 1_000).unwrap(), delivers);
    }
}
