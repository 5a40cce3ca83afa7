//! Stories of one node's tasks, told with a fake engine on virtual time, and chaos that must end well.

mod chaos;
mod fake;
mod stops;
mod stories;
mod troubles;

use super::*;
use crate::ids::{ClusterId, NodeId, ServiceId};
use crate::law;
use crate::model::record::{Hlc, RevisionId};
use crate::model::spec::*;
use crate::model::task::{Desired, Slot, TaskPhase};
use crate::time::Wall;
use fake::FakeEngine;
use std::collections::BTreeSet;

pub(super) const ME: NodeId = NodeId::from_u128(7);
pub(super) const OWNER: Owner = Owner { cluster: ClusterId::from_u128(1), node: ME };
/// Wall time when the monotonic clock shows zero.
const EPOCH_MS: u64 = 1_700_000_000_000;

pub(super) fn task_id(n: u128) -> TaskId {
    TaskId::from_u128(n)
}

pub(super) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) fn spec() -> ServiceSpec {
    ServiceSpec {
        name: "web".to_owned(),
        labels: BTreeMap::new(),
        mode: Mode::Replicated(1),
        task: TaskSpec {
            container: ContainerSpec { image: "web:1".to_owned(), ..ContainerSpec::default() },
            resources: Resources::default(),
            restart: RestartPolicy::default(),
            placement: Placement::default(),
            log_driver: None,
            force_update: 0,
        },
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
        ports: Vec::new(),
    }
}

pub(super) fn publishing(port: u16) -> ServiceSpec {
    let ingress = PublishedPort {
        name: String::new(),
        protocol: Protocol::Tcp,
        target: port,
        published: 80,
        mode: PublishMode::Ingress,
    };
    ServiceSpec { ports: vec![ingress], ..spec() }
}

pub(super) fn order(id: u128, desired: Desired, spec: ServiceSpec) -> Assignment {
    Assignment {
        task: Task {
            id: task_id(id),
            service: ServiceId::from_u128(5),
            slot: Slot::Replica(3),
            node: Some(ME),
            revision: RevisionId { hlc: Hlc(1), author: ME },
            desired,
            created: Wall(EPOCH_MS),
            updated: Wall(EPOCH_MS),
            replaces: None,
            in_rollout: false,
            message: String::new(),
        },
        service_name: spec.name.clone(),
        ingress: spec.ports.iter().any(|p| p.mode == PublishMode::Ingress),
        spec: Some(Arc::new(spec)),
        auth: None,
        files: Vec::new(),
        networks: Vec::new(),
        recorded: None,
    }
}

/// A worker, its engine and the clock. Holds every output against the laws as it comes.
struct Rig {
    pub worker: Worker,
    pub engine: FakeEngine,
    pub mono: Mono,
    pub orders: BTreeMap<TaskId, Assignment>,
    /// What the node has recorded: survives the worker.
    pub recorded: BTreeMap<TaskId, TaskStatus>,
    pub forgotten: BTreeSet<TaskId>,
    pub statuses: Vec<TaskStatus>,
    pub ops: Vec<(Mono, EngineOp)>,
    pub withdraws: Vec<(Mono, TaskId)>,
    pub drains: Vec<(Mono, TaskId)>,
    pub states: Vec<EngineState>,
    /// When this life of the agent began.
    born: Mono,
    /// What a record said before its last change, in case that was not durable yet.
    before: BTreeMap<TaskId, Option<TaskStatus>>,
    /// Routing follows at once.
    pub routing_answers: bool,
    next_base: u64,
}

impl Rig {
    /// An engine that answers, with nothing on it.
    pub fn new() -> Self {
        let mut rig = Self::cold();
        rig.engine.connect(rig.mono);
        rig.run(Duration::from_millis(1));
        rig
    }

    /// An engine that has not been reached yet.
    pub fn cold() -> Self {
        let mono = Mono(1_000_000);
        Self {
            worker: Worker::new(OWNER, "host7".to_owned(), 0, mono),
            engine: FakeEngine::default(),
            mono,
            orders: BTreeMap::new(),
            recorded: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            statuses: Vec::new(),
            ops: Vec::new(),
            withdraws: Vec::new(),
            drains: Vec::new(),
            states: Vec::new(),
            born: mono,
            before: BTreeMap::new(),
            routing_answers: true,
            next_base: 1 << 32,
        }
    }

    pub fn now(&self) -> Now {
        Now { mono: self.mono, wall: Wall(EPOCH_MS + self.mono.0 / 1_000) }
    }

    pub fn assign(&mut self, order: Assignment) {
        self.orders.insert(order.task.id, order.clone());
        self.worker.assign(order, self.now());
        self.pump();
    }

    pub fn want(&mut self, id: u128, desired: Desired) {
        let mut order = self.orders[&task_id(id)].clone();
        order.task.desired = desired;
        self.assign(order);
    }

    pub fn forget(&mut self, id: u128) {
        self.forgotten.insert(task_id(id));
        self.orders.remove(&task_id(id));
        self.recorded.remove(&task_id(id));
        self.worker.forget(task_id(id), self.now());
        self.pump();
    }

    pub fn withdrawn(&mut self, id: u128) {
        self.worker.handle_withdrawn(task_id(id), self.now());
        self.pump();
    }

    pub fn drained(&mut self, id: u128) {
        self.worker.handle_drained(task_id(id), self.now());
        self.pump();
    }

    /// The agent dies and starts again: the engine's answers to the old one are lost.
    pub fn restart_agent(&mut self) {
        self.worker = Worker::new(OWNER, "host7".to_owned(), self.next_base, self.mono);
        self.next_base += 1 << 32;
        self.born = self.mono;
        self.engine.agent_died();
        for (task, order) in self.orders.clone() {
            let recorded = self.recorded.get(&task).cloned();
            self.worker.assign(Assignment { recorded, ..order }, self.now());
        }
        if self.engine.up {
            self.engine.connect(self.mono);
        }
        self.pump();
    }

    /// The last change of this record was lost with the agent.
    pub fn lose_record(&mut self, id: u128) {
        match self.before.remove(&task_id(id)) {
            Some(Some(old)) => _ = self.recorded.insert(task_id(id), old),
            Some(None) => _ = self.recorded.remove(&task_id(id)),
            None => {}
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.mono + time;
        self.pump();
        loop {
            let next = [self.worker.deadline(), self.engine.next()].into_iter().flatten().min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.mono = self.mono.max(next);
            if self.engine.next().is_some_and(|at| at <= self.mono) {
                let Some(event) = self.engine.take(self.mono) else { continue };
                self.worker.handle_engine(event, self.now());
            } else {
                self.worker.handle_deadline(self.now());
                assert!(self.worker.deadline().is_none_or(|at| at > self.mono), "a deadline that stays due");
            }
            self.pump();
        }
        self.mono = end;
    }

    fn pump(&mut self) {
        while let Some(output) = self.worker.poll_output() {
            match output {
                Output::Status(status) => self.record(status),
                Output::Engine { op, what } => {
                    self.check_stop(&what);
                    self.ops.push((self.mono, what.clone()));
                    self.engine.ask(op, what, self.mono);
                }
                Output::Withdraw(task) => {
                    self.withdraws.push((self.mono, task));
                    if self.routing_answers {
                        self.worker.handle_withdrawn(task, self.now());
                    }
                }
                Output::AwaitDrained { task, .. } => {
                    self.drains.push((self.mono, task));
                    if self.routing_answers {
                        self.worker.handle_drained(task, self.now());
                    }
                }
                Output::EngineState { state, .. } => self.states.push(state),
            }
        }
    }

    /// What serves a published port is withdrawn and drained first.
    fn check_stop(&self, what: &EngineOp) {
        let EngineOp::Stop { .. } = what else { return };
        let Some((task, order)) = fake::task_of(what).and_then(|task| self.orders.get_key_value(&task)) else { return };
        if order.ingress && self.recorded[task].phase == TaskPhase::Running {
            let told = |list: &[(Mono, TaskId)]| list.iter().any(|(at, of)| of == task && *at >= self.born);
            assert!(order.task.desired >= Desired::Shutdown, "stopped without an order");
            assert!(told(&self.withdraws) && told(&self.drains), "stopped while others may route to it");
        }
    }

    fn record(&mut self, status: TaskStatus) {
        assert!(self.orders.contains_key(&status.task), "says something of a forgotten task");
        if let Some(old) = self.recorded.get(&status.task) {
            assert!(law::status_moves_forward(old, &status), "{old:?} to {status:?}");
            assert_ne!(old, &status, "says the same twice");
        }
        let before = self.recorded.insert(status.task, status.clone());
        self.before.insert(status.task, before);
        self.statuses.push(status);
    }

    // Questions.

    pub fn status(&self, id: u128) -> &TaskStatus {
        self.worker.status(task_id(id)).expect("the task has a status")
    }

    pub fn phase(&self, id: u128) -> TaskPhase {
        self.status(id).phase
    }

    pub fn phases(&self, id: u128) -> Vec<(u32, TaskPhase)> {
        self.statuses.iter().filter(|s| s.task == task_id(id)).map(|s| (s.attempt, s.phase)).collect()
    }

    /// The operations so far in short, listings left out.
    pub fn asked(&self) -> Vec<&'static str> {
        self.ops.iter().filter_map(|(_, op)| word(op)).collect()
    }

    pub fn asked_at(&self, what: &str) -> Option<Mono> {
        self.ops.iter().find(|(_, op)| word(op) == Some(what)).map(|(at, _)| *at)
    }

    pub fn listings(&self) -> usize {
        self.ops.iter().filter(|(_, op)| *op == EngineOp::List).count()
    }

    pub fn name(&self, id: u128, attempt: u32) -> String {
        plan::container_name("web", &order(id, Desired::Running, spec()).task, attempt)
    }

    /// A started task whose container is seen running.
    pub fn running(spec: ServiceSpec) -> Self {
        let mut rig = Self::new();
        rig.assign(order(1, Desired::Running, spec));
        rig.run(secs(1));
        assert_eq!(rig.phase(1), TaskPhase::Running);
        rig
    }
}

fn word(op: &EngineOp) -> Option<&'static str> {
    Some(match op {
        EngineOp::Pull { .. } => "pull",
        EngineOp::Create(_) => "create",
        EngineOp::Start { .. } => "start",
        EngineOp::Stop { .. } => "stop",
        EngineOp::Remove { .. } => "remove",
        EngineOp::Probe { .. } => "probe",
        EngineOp::List => return None,
    })
}
