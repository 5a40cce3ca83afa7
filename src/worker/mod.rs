//! This node's duties: what the lease holder assigned to it, compared with the containers its engine has, gives
//! engine operations and task statuses. Nothing here needs another node: containers are kept, restarted and
//! adopted with the rest of the cluster gone (DESIGN rule 2).
//!
//! The laws it keeps: a task's status only moves forward; a task has one engine operation in flight at most
//! (a pull or a probe that is no longer wanted is let go and its answer ignored); a container is stopped only on
//! an explicit order, after routing was withdrawn and drained or the bounds for that have passed; what is missing
//! is no order, and containers of tasks it knows nothing of are left alone; every wait has a deadline.
//!
//! It is told the engine's truth as whole observations and compares levels, so a lost reply costs a listing.
//! It must not know how engines are driven, how statuses are replicated or who follows the route table.

mod attempt;
mod ops;
mod plan;
mod restart;
mod resume;
mod status;
mod stop;
mod task;
#[cfg(test)]
mod tests;

use crate::ids::TaskId;
use crate::model::container::*;
use crate::model::node::EngineState;
use crate::model::object::{PlannedFile, PlannedNetwork};
use crate::model::spec::ServiceSpec;
use crate::model::task::{Task, TaskStatus};
use crate::time::{Mono, Now};
use plan::ThisNode;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use task::Machine;

/// A listing that has not been answered after this is asked for again.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Listings are at least this far apart.
const LIST_EVERY: Duration = Duration::from_secs(1);
/// After a listing failed, or if none came by itself when the engine returned.
const LIST_AGAIN: Duration = Duration::from_secs(5);

/// A task for this node, with what it takes to run it.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    pub task: Task,
    pub service_name: String,
    /// The spec of the task's revision; `None` until that record has arrived: the task waits for it.
    pub spec: Option<Arc<ServiceSpec>>,
    /// X-Registry-Auth for its pull.
    pub auth: Option<String>,
    /// The service publishes ports through the mesh now, whatever the task's own revision says.
    pub ingress: bool,
    /// Its secrets and configs.
    pub files: Vec<PlannedFile>,
    pub networks: Vec<PlannedNetwork>,
    /// What this node last recorded about it; read when the task is first assigned in this life of the agent.
    pub recorded: Option<TaskStatus>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    Engine {
        op: OpId,
        what: EngineOp,
    },
    Status(TaskStatus),
    /// Nobody is to route new connections to it; answer with [`Worker::handle_withdrawn`].
    Withdraw(TaskId),
    /// Answer with [`Worker::handle_drained`] once no connection through this node is open. Unless it is withdrawn
    /// `everywhere`, some node may still lead new ones to it.
    AwaitDrained {
        task: TaskId,
        everywhere: bool,
    },
    EngineState {
        state: EngineState,
        info: Option<EngineInfo>,
    },
}

pub struct Worker {
    node: ThisNode,
    engine: EngineState,
    info: Option<EngineInfo>,
    /// The engine's containers are known as of after it was last reached.
    seen: bool,
    observations: u64,
    containers: BTreeMap<TaskId, BTreeMap<u32, ObservedContainer>>,
    tasks: BTreeMap<TaskId, Machine>,
    /// The listing in flight and when it counts as lost.
    list: Option<(OpId, Mono)>,
    list_not_before: Mono,
    /// When a listing that is wanted may be asked for.
    list_wake: Option<Mono>,
    /// This node is no member any more: see [`Worker::abandon`].
    abandoned: bool,
    /// When the first task wants to be looked at, once somebody has asked; asked again after every event.
    wake: Cell<Option<Option<Mono>>>,
    out: Outbox,
}

/// What the tasks write to.
#[derive(Debug)]
struct Outbox {
    next_op: u64,
    queue: VecDeque<Output>,
    list_wanted: bool,
}

impl Outbox {
    fn engine(&mut self, what: EngineOp) -> OpId {
        let op = OpId(self.next_op);
        self.next_op = self.next_op.wrapping_add(1);
        self.queue.push_back(Output::Engine { op, what });
        op
    }
}

/// What a task sees while it decides.
struct World<'a> {
    now: Now,
    /// The engine answers and its containers are known.
    ready: bool,
    observations: u64,
    /// This task's containers by attempt.
    containers: &'a BTreeMap<u32, ObservedContainer>,
    node: &'a ThisNode,
    out: &'a mut Outbox,
}

static NO_CONTAINERS: BTreeMap<u32, ObservedContainer> = BTreeMap::new();

impl Worker {
    /// `op_base` is the first operation id of this life; those of earlier lives must lie below it.
    pub fn new(owner: Owner, hostname: String, op_base: u64, now: Mono) -> Self {
        Self {
            node: ThisNode { owner, hostname, os: String::new(), arch: String::new() },
            engine: EngineState::Unknown,
            info: None,
            seen: false,
            observations: 0,
            containers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            list: None,
            list_not_before: now,
            list_wake: None,
            abandoned: false,
            wake: Cell::new(None),
            out: Outbox { next_op: op_base, queue: VecDeque::new(), list_wanted: false },
        }
    }

    // What it knows.

    /// What this node says of a task; `None` while it has nothing to say, and of forgotten tasks.
    pub fn status(&self, task: TaskId) -> Option<&TaskStatus> {
        self.tasks.get(&task)?.said()
    }

    pub fn statuses(&self) -> impl Iterator<Item = &TaskStatus> {
        self.tasks.values().filter_map(Machine::said)
    }

    /// The container of the task's current attempt, as last observed.
    pub fn observed(&self, task: TaskId) -> Option<&ObservedContainer> {
        self.tasks.get(&task)?.current(self.containers.get(&task)?)
    }

    /// Where this machine reaches the containers of current attempts, as last observed.
    pub fn addresses(&self) -> BTreeMap<TaskId, IpAddr> {
        let address = |task: &TaskId| Some((*task, self.observed(*task)?.address?));
        self.tasks.keys().filter_map(address).collect()
    }

    pub fn engine_state(&self) -> &EngineState {
        &self.engine
    }

    /// Containers of ours whose tasks are not known here. They are left alone.
    pub fn unknown(&self) -> usize {
        self.containers.iter().filter(|(task, _)| !self.tasks.contains_key(task)).map(|(_, c)| c.len()).sum()
    }

    // What happens.

    /// A task that is new here, or changed: its desired state raised, its spec arrived. Idempotent.
    pub fn assign(&mut self, assignment: Assignment, now: Now) {
        let task = assignment.task.id;
        if assignment.task.node != Some(self.node.owner.node) || self.abandoned {
            return;
        }
        match self.tasks.get_mut(&task) {
            Some(machine) => machine.reassign(assignment),
            None => {
                self.tasks.insert(task, Machine::new(assignment, self.node.owner.node, now));
            }
        }
        self.advance(task, now, |_, _| ());
        self.settle_list(now);
    }

    /// No task is assigned or being stopped. What an engine that has not been seen holds is not known yet; one that
    /// is out of reach is not waited for.
    pub fn is_idle(&self) -> bool {
        let unseen = self.abandoned && !self.seen && !matches!(self.engine, EngineState::Unreachable(_));
        self.tasks.is_empty() && !unseen
    }

    /// Nobody will look after this node's containers any more: every one of them, also those whose tasks are not
    /// known here and those that turn up later, is stopped and removed, and no new one is taken on.
    pub fn abandon(&mut self, now: Now) {
        self.abandoned = true;
        let all: BTreeSet<TaskId> = self.tasks.keys().chain(self.containers.keys()).copied().collect();
        for task in all {
            self.forget(task, now);
        }
    }

    /// The task is gone from the records: stop and remove whatever of it is here. Says nothing of it any more.
    pub fn forget(&mut self, task: TaskId, now: Now) {
        let node = self.node.owner.node;
        self.tasks.entry(task).or_insert_with(|| Machine::ghost(task, node, now)).forget();
        self.advance(task, now, |_, _| ());
        self.settle_list(now);
    }

    pub fn handle_engine(&mut self, event: EngineEvent, now: Now) {
        self.wake.set(None);
        match event {
            EngineEvent::Done { op, result } => self.engine_done(op, result, now),
            EngineEvent::Observed(containers) => self.engine_observed(containers, now),
            EngineEvent::Reachable(info) => self.engine_reachable(info, now),
            EngineEvent::Unreachable(why) => self.engine_unreachable(why, now),
        }
        self.settle_list(now);
    }

    /// Every live node has stopped routing new connections to it.
    pub fn handle_withdrawn(&mut self, task: TaskId, now: Now) {
        self.advance(task, now, Machine::withdrawn);
        self.settle_list(now);
    }

    /// No open connection through this node remains.
    pub fn handle_drained(&mut self, task: TaskId, now: Now) {
        self.advance(task, now, Machine::drained);
        self.settle_list(now);
    }

    pub fn handle_deadline(&mut self, now: Now) {
        if self.list.is_some_and(|(_, deadline)| deadline <= now.mono) {
            self.list_failed(now);
        }
        let due = |machine: &Machine| machine.wake().is_some_and(|at| at <= now.mono);
        let due: Vec<TaskId> = self.tasks.iter().filter(|(_, m)| due(m)).map(|(task, _)| *task).collect();
        for task in due {
            self.advance(task, now, |_, _| ());
        }
        self.settle_list(now);
    }

    /// When [`Worker::handle_deadline`] wants to be called next.
    pub fn deadline(&self) -> Option<Mono> {
        let wake = self.wake.get().unwrap_or_else(|| self.tasks.values().filter_map(Machine::wake).min());
        self.wake.set(Some(wake));
        let list = self.list.map(|(_, deadline)| deadline);
        [wake, list, self.list_wake].into_iter().flatten().min()
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.queue.pop_front()
    }

    // How the engine is followed.

    /// For which task an operation is under way.
    pub fn task_of(&self, op: OpId) -> Option<TaskId> {
        self.tasks.iter().find(|(_, machine)| machine.awaits(op)).map(|(task, _)| *task)
    }

    fn engine_done(&mut self, op: OpId, result: Result<(), OpError>, now: Now) {
        if self.list.is_some_and(|(list, _)| list == op) {
            match result {
                Ok(()) => self.list = None,
                Err(_) => self.list_failed(now),
            }
            return;
        }
        // An answer that nobody awaits any more (timed out, let go, of a time before an outage) says nothing.
        let Some(task) = self.tasks.iter().find(|(_, m)| m.awaits(op)).map(|(task, _)| *task) else { return };
        self.advance(task, now, |machine, world| machine.answered(result, world));
    }

    fn engine_observed(&mut self, containers: Vec<ObservedContainer>, now: Now) {
        if self.engine != EngineState::Ready {
            return;
        }
        self.seen = true;
        self.observations += 1;
        self.out.list_wanted = false;
        self.containers.clear();
        for container in containers {
            let attempts = self.containers.entry(container.task).or_default();
            let running = matches!(container.state, ContainerState::Running { .. });
            if running || !attempts.contains_key(&container.attempt) {
                attempts.insert(container.attempt, container);
            }
        }
        for task in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.advance(task, now, Machine::observed);
        }
        if self.abandoned {
            self.abandon(now);
        }
    }

    fn engine_reachable(&mut self, info: EngineInfo, now: Now) {
        let back = self.engine != EngineState::Ready;
        if back {
            self.engine = EngineState::Ready;
            self.list = None;
            self.list_not_before = now.mono + LIST_AGAIN;
            self.tasks.values_mut().for_each(|machine| machine.reconnected(now));
        }
        if back || self.info.as_ref() != Some(&info) {
            (self.node.os, self.node.arch) = (info.os.clone(), info.arch.clone());
            self.info = Some(info);
            self.report_engine();
        }
    }

    fn engine_unreachable(&mut self, why: String, now: Now) {
        self.seen = false;
        self.list = None;
        self.tasks.values_mut().for_each(Machine::disconnected);
        let state = EngineState::Unreachable(why);
        if self.engine != state {
            self.engine = state;
            self.report_engine();
        }
        for task in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.advance(task, now, |_, _| ());
        }
    }

    fn report_engine(&mut self) {
        let (state, info) = (self.engine.clone(), self.info.clone());
        self.out.queue.push_back(Output::EngineState { state, info });
    }

    fn list_failed(&mut self, now: Now) {
        self.list = None;
        self.list_not_before = now.mono + LIST_AGAIN;
    }

    /// Asks for a listing if someone needs one: a task that lost a reply, or everybody, when none came by itself.
    fn settle_list(&mut self, now: Now) {
        self.list_wake = None;
        let wanted = !self.seen || self.out.list_wanted || self.tasks.values().any(Machine::needs_look);
        if self.engine != EngineState::Ready || self.list.is_some() || !wanted {
            return;
        }
        if now.mono < self.list_not_before {
            self.list_wake = Some(self.list_not_before);
            return;
        }
        self.out.list_wanted = false;
        self.list = Some((self.out.engine(EngineOp::List), now.mono + LIST_TIMEOUT));
        self.list_not_before = now.mono + LIST_EVERY;
    }

    fn advance(&mut self, task: TaskId, now: Now, input: impl FnOnce(&mut Machine, &mut World<'_>)) {
        self.wake.set(None);
        let Some(machine) = self.tasks.get_mut(&task) else { return };
        let mut world = World {
            now,
            ready: self.engine == EngineState::Ready && self.seen,
            observations: self.observations,
            containers: self.containers.get(&task).unwrap_or(&NO_CONTAINERS),
            node: &self.node,
            out: &mut self.out,
        };
        input(machine, &mut world);
        machine.advance(&mut world);
        if machine.is_gone()
            && let Some(mut gone) = self.tasks.remove(&task)
            && let Some(order) = gone.again.take()
        {
            self.tasks.insert(task, Machine::new(order, self.node.owner.node, now));
            let nothing: fn(&mut Machine, &mut World<'_>) = |_, _| ();
            self.advance(task, now, nothing);
        }
    }
}
