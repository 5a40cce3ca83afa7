//! One task as a machine: explicit steps from assignment to the end of an attempt, and on to the next.
//! Each call of [`Machine::advance`] compares what is wanted with what is known and takes as many steps as it can;
//! the engine's answers (`ops.rs`), stopping (`stop.rs`) and starting from a record (`resume.rs`) stand beside it.

use super::ops::{Flight, Kind};
use super::plan::{container_name, plan};
use super::restart::History;
use super::{Assignment, World};
use crate::ids::{NodeId, TaskId};
use crate::limits::{PULL_TIMEOUT, START_TIMEOUT};
use crate::model::container::*;
use crate::model::spec::{Protocol, ServiceSpec};
use crate::model::task::{Desired, TaskPhase, TaskStatus};
use crate::plant::{Bug, is_planted};
use crate::time::{Mono, Now};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Creating or starting may take the engine this long.
const OP_TIMEOUT: Duration = Duration::from_secs(60);
/// How much later than the engine's own bound an operation counts as lost.
const PROBE_SLACK: Duration = Duration::from_secs(5);
/// One probe lasts this long at most, so that a lost answer doesn't cost the attempt.
const PROBE_WITHIN: Duration = Duration::from_secs(20);
/// What takes longer than this to accept connections says that it waits for it.
const FIRST_PROBE: Duration = Duration::from_secs(2);
/// While a started container is not seen as it should be, a listing is asked for this often.
const NUDGE: Duration = Duration::from_secs(15);
/// The first such listing.
const FIRST_NUDGE: Duration = Duration::from_secs(3);
/// An observation this soon after an operation may have been taken before it: absence in it is not believed yet.
const SETTLED: Duration = Duration::from_secs(10);
/// More steps than this are never taken at once; it only keeps a mistake from hanging the agent.
const MAX_ROUNDS: usize = 32;

/// Docker's defaults where a health check leaves them open.
const HEALTH_INTERVAL: Duration = Duration::from_secs(30);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(30);
const HEALTH_RETRIES: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Assigned; what the engine has of it is not known yet.
    Look,
    Pull,
    Create,
    /// Created; waits for desired Running.
    Hold,
    Start,
    /// Started; waits to be seen running, and healthy where it has a health check.
    Starting {
        until: Mono,
        health: bool,
    },
    /// Runs; waits for its port to accept connections.
    Probe {
        until: Mono,
        port: u16,
    },
    Serve,
    /// To be stopped: nobody is to route to it any more.
    Withdraw {
        until: Mono,
    },
    /// To be stopped: its open connections may end.
    Drain {
        until: Mono,
    },
    Stop,
    /// The attempt is over. Its container is stopped if it must be, another attempt follows by the policy.
    Over,
    /// Forgotten, and nothing of it is left.
    Gone,
}

impl Step {
    fn is_before_stopping(self) -> bool {
        !matches!(self, Step::Withdraw { .. } | Step::Drain { .. } | Step::Stop | Step::Over | Step::Gone)
    }
}

/// What this life of the agent knows of the current attempt.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub must_pull: bool,
    /// Its container may exist.
    pub exists: bool,
    /// It may have been started.
    pub may_run: bool,
    /// It runs no more, whatever an older observation says.
    pub stopped: bool,
    /// Its container is removed, whatever an older observation says.
    pub removed: bool,
    /// Began before this life of the agent.
    pub adopted: bool,
    pub started: Option<Mono>,
    /// Was missing from the last observation.
    pub missed: bool,
    /// Ended while engine or agent was away.
    pub blameless: bool,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) id: TaskId,
    /// `None` for a task that was forgotten before it was known.
    pub(super) order: Option<Assignment>,
    pub(super) forgotten: bool,
    /// Assigned again after it was forgotten.
    pub(super) again: Option<Assignment>,
    pub(super) status: TaskStatus,
    /// The status as last given out, or as it was recorded by an earlier life.
    pub(super) said: Option<TaskStatus>,
    pub(super) step: Step,
    pub(super) flight: Option<Flight>,
    /// Nothing is decided before an observation later than this one.
    pub(super) look: Option<u64>,
    /// Nothing is tried again before this.
    pub(super) pause: Option<Mono>,
    /// Lost replies in a row, and the last of them in words.
    pub(super) tries: u32,
    pub(super) trouble: String,
    pub(super) run: Run,
    /// The engine, or this agent, was away since the last observation.
    pub(super) away: bool,
    pub(super) last_done: Option<Mono>,
    pub(super) history: History,
    pub(super) retry: Option<Mono>,
    /// Containers to remove, and not before when.
    pub(super) litter: BTreeMap<String, Mono>,
    pub(super) nudge: Mono,
    wake: Option<Mono>,
}

impl Machine {
    pub fn new(order: Assignment, node: NodeId, now: Now) -> Self {
        let id = order.task.id;
        let said = order.recorded.clone().filter(|recorded| recorded.task == id && recorded.node == node);
        let status = said.clone().unwrap_or_else(|| TaskStatus::new(id, node, now.wall));
        Self { status, said, order: Some(order), ..Self::ghost(id, node, now) }
    }

    /// For a task of which only containers may be here.
    pub fn ghost(id: TaskId, node: NodeId, now: Now) -> Self {
        Self {
            id,
            order: None,
            forgotten: false,
            again: None,
            status: TaskStatus::new(id, node, now.wall),
            said: None,
            step: Step::Look,
            flight: None,
            look: None,
            pause: None,
            tries: 0,
            trouble: String::new(),
            run: Run { must_pull: true, ..Run::default() },
            away: true,
            last_done: None,
            history: History::default(),
            retry: None,
            litter: BTreeMap::new(),
            nudge: now.mono,
            wake: None,
        }
    }

    pub fn reassign(&mut self, new: Assignment) {
        if self.forgotten {
            // A later holder's word against an earlier one's removal: once what was is cleared away, it starts afresh.
            self.again = Some(new);
            return;
        }
        let Some(order) = self.order.as_mut() else { return };
        // Desired states only rise; an older record that comes late must not lower one.
        let desired = order.task.desired.max(new.task.desired);
        let spec = new.spec.or_else(|| order.spec.take());
        let task = crate::model::task::Task { desired, ..new.task };
        *order = Assignment { task, spec, ..new };
    }

    pub fn forget(&mut self) {
        self.forgotten = true;
        self.again = None;
    }

    pub fn said(&self) -> Option<&TaskStatus> {
        self.said.as_ref().filter(|_| !self.forgotten)
    }

    pub fn is_gone(&self) -> bool {
        self.step == Step::Gone
    }

    pub fn needs_look(&self) -> bool {
        self.look.is_some()
    }

    pub fn wake(&self) -> Option<Mono> {
        self.wake
    }

    /// The current attempt's container.
    pub fn current<'c>(&self, containers: &'c BTreeMap<u32, ObservedContainer>) -> Option<&'c ObservedContainer> {
        containers.get(&self.status.attempt).filter(|_| !self.run.removed)
    }

    pub(super) fn spec(&self) -> Option<Arc<ServiceSpec>> {
        self.order.as_ref()?.spec.clone()
    }

    pub(super) fn desired(&self) -> Desired {
        match &self.order {
            Some(order) if !self.forgotten => order.task.desired,
            _ => Desired::Remove,
        }
    }

    pub(super) fn wants_stop(&self) -> bool {
        !self.desired().is_live()
    }

    pub(super) fn container_name(&self, w: &World<'_>) -> Option<String> {
        let seen = self.current(w.containers).map(|c| c.name.clone());
        let derived = |o: &Assignment| container_name(&o.service_name, &o.task, self.status.attempt);
        seen.or_else(|| self.order.as_ref().map(derived))
    }

    /// An operation may be sent.
    pub(super) fn can_issue(&self, w: &World<'_>) -> bool {
        w.ready && self.flight.is_none() && self.look.is_none()
    }

    /// The next operation of the attempt itself may be sent.
    pub(super) fn can_act(&self, w: &World<'_>) -> bool {
        self.can_issue(w) && self.pause.is_none()
    }

    // What happens around it.

    pub fn disconnected(&mut self) {
        self.away = true;
    }

    /// The engine answers again. What was under way when it went is lost; an observation follows.
    pub fn reconnected(&mut self, now: Now) {
        self.flight = None;
        self.look = None;
        self.pause = None;
        self.tries = 0;
        match &mut self.step {
            Step::Starting { until, .. } | Step::Probe { until, .. } => *until = (*until).max(now.mono + START_TIMEOUT),
            _ => {}
        }
    }

    /// A new observation is in.
    pub fn observed(&mut self, w: &mut World<'_>) {
        if self.look.is_some_and(|at| w.observations > at) {
            self.look = None;
        }
        self.collect_litter(w);
        self.judge_absence(w);
    }

    /// A container that should run and is missing is gone, unless the observation may be older than the container.
    fn judge_absence(&mut self, w: &mut World<'_>) {
        let expected = self.run.may_run && !self.run.stopped && !matches!(self.step, Step::Look | Step::Start);
        if !expected || self.current(w.containers).is_some() {
            self.run.missed = false;
            return;
        }
        let settled = self.last_done.is_none_or(|at| w.now.mono.since(at) > SETTLED);
        if !settled && !self.run.missed {
            self.run.missed = true;
            self.look = Some(w.observations);
            return;
        }
        self.run.stopped = true;
        self.run.exists = false;
        if self.step.is_before_stopping() && !self.wants_stop() {
            self.end(TaskPhase::Failed, "container is gone", w);
        }
    }

    // The steps.

    pub fn advance(&mut self, w: &mut World<'_>) {
        self.expire(w);
        for _ in 0..MAX_ROUNDS {
            if !self.round(w) {
                break;
            }
        }
        self.say(w);
        // What happened while nobody looked has now been acted upon.
        self.away &= !w.ready;
        self.wake = self.next_wake(w);
    }

    fn expire(&mut self, w: &mut World<'_>) {
        if self.flight.as_ref().is_some_and(|flight| flight.deadline <= w.now.mono) {
            self.answered(Err(OpError::TimedOut("no answer from the engine".to_owned())), w);
        }
        if self.pause.is_some_and(|until| until <= w.now.mono) {
            self.pause = None;
        }
    }

    /// Only what lies ahead: whatever was due could be done in this call, or waits for another event.
    fn next_wake(&self, w: &World<'_>) -> Option<Mono> {
        let (step, nudge) = match self.step {
            Step::Starting { until, .. } => (Some(until), Some(self.nudge)),
            Step::Probe { until, .. } | Step::Withdraw { until } | Step::Drain { until } => (Some(until), None),
            _ => (None, None),
        };
        let flight = self.flight.as_ref().map(|f| f.deadline);
        let times = [flight, self.pause, self.retry, step, nudge];
        times.into_iter().flatten().chain(self.litter.values().copied()).filter(|at| *at > w.now.mono).min()
    }

    /// Takes one step; false if there is none to take now.
    fn round(&mut self, w: &mut World<'_>) -> bool {
        if self.step.is_before_stopping() && self.wants_stop() {
            return self.turn_to_stop(w);
        }
        match self.step {
            Step::Look => self.look_round(w),
            Step::Pull => self.pull_round(w),
            Step::Create => self.create_round(w),
            Step::Hold => self.hold_round(w),
            Step::Start => self.start_round(w),
            Step::Starting { until, health } => self.starting_round(until, health, w),
            Step::Probe { until, port } => self.probe_round(until, port, w),
            Step::Serve => self.serve_round(w),
            Step::Withdraw { until } => self.withdraw_round(until, w),
            Step::Drain { until } => self.drain_round(until, w),
            Step::Stop => self.stop_round(w),
            Step::Over => self.over_round(w),
            Step::Gone => false,
        }
    }

    fn look_round(&mut self, w: &mut World<'_>) -> bool {
        if w.ready {
            self.resume(w);
            return true;
        }
        if self.spec().is_some() {
            self.raise(TaskPhase::Accepted, "accepted", w);
        }
        false
    }

    fn pull_round(&mut self, w: &mut World<'_>) -> bool {
        let Some(spec) = self.spec() else { return false };
        self.raise(TaskPhase::Accepted, "accepted", w);
        if !self.can_act(w) {
            return false;
        }
        if !self.run.must_pull {
            self.step = Step::Create;
            return true;
        }
        if self.tried_enough(w) {
            return true;
        }
        self.raise(TaskPhase::Preparing, "preparing", w);
        let auth = self.order.as_ref().and_then(|order| order.auth.clone());
        let image = spec.task.container.image.clone();
        self.issue(Kind::Pull, EngineOp::Pull { image, auth }, PULL_TIMEOUT, w);
        false
    }

    fn create_round(&mut self, w: &mut World<'_>) -> bool {
        if !self.can_act(w) {
            return false;
        }
        match self.current(w.containers).map(|c| &c.state) {
            Some(ContainerState::Created) => {
                self.tries = 0;
                self.step = Step::Hold;
            }
            Some(_) => self.enter_starting(w),
            None if self.tried_enough(w) => {}
            None => {
                let (Some(spec), Some(order)) = (self.spec(), self.order.as_ref()) else { return false };
                let plan = plan(order, &spec, self.status.attempt, w.node);
                self.run.exists = true;
                self.raise(TaskPhase::Preparing, "preparing", w);
                self.issue(Kind::Create, EngineOp::Create(Box::new(plan)), OP_TIMEOUT, w);
                return false;
            }
        }
        true
    }

    fn hold_round(&mut self, w: &mut World<'_>) -> bool {
        self.raise(TaskPhase::Ready, "prepared", w);
        if self.desired() == Desired::Running {
            self.step = Step::Start;
            return true;
        }
        self.sweep(w);
        false
    }

    fn start_round(&mut self, w: &mut World<'_>) -> bool {
        // The attempt before this one goes first: never two of one task.
        if self.sweep(w) || !self.can_act(w) {
            return false;
        }
        match self.current(w.containers).map(|c| &c.state) {
            Some(ContainerState::Running { .. } | ContainerState::Exited { .. }) => self.enter_starting(w),
            _ if self.tried_enough(w) => {}
            _ => {
                let Some(name) = self.container_name(w) else { return false };
                self.raise(TaskPhase::Starting, "starting", w);
                self.run.may_run = true;
                self.run.started = Some(w.now.mono);
                self.issue(Kind::Start, EngineOp::Start { name }, OP_TIMEOUT, w);
                return false;
            }
        }
        true
    }

    pub(super) fn enter_starting(&mut self, w: &World<'_>) {
        self.run.may_run = true;
        self.tries = 0;
        self.nudge = w.now.mono + FIRST_NUDGE;
        self.step = Step::Starting { until: w.now.mono + START_TIMEOUT, health: false };
    }

    fn starting_round(&mut self, until: Mono, health: bool, w: &mut World<'_>) -> bool {
        self.raise(TaskPhase::Starting, "starting", w);
        if !w.ready || self.look.is_some() {
            return false;
        }
        match self.current(w.containers).map(|c| c.state.clone()) {
            Some(ContainerState::Exited { code, error, .. }) => self.exited(code, &error, w),
            Some(ContainerState::Running { .. }) if is_planted(Bug::ReadyBeforeHealthy) => self.serve(w),
            Some(ContainerState::Running { health: Health::Unhealthy }) => {
                self.end(TaskPhase::Failed, "unhealthy container", w);
            }
            Some(ContainerState::Running { health: Health::Healthy }) => self.serve(w),
            Some(ContainerState::Running { health: Health::None }) if self.spec().is_some() => self.enter_probe(w),
            Some(ContainerState::Running { health: Health::Starting }) if !health => {
                self.note_container(w);
                self.status.message = "waiting for the health check".to_owned();
                let since = self.run.started.unwrap_or(w.now.mono);
                self.step = Step::Starting { until: since + self.health_wait(), health: true };
            }
            _ if w.now.mono >= until => {
                let wanted = if health { "healthy" } else { "seen running" };
                let within = if health { self.health_wait() } else { START_TIMEOUT };
                self.end(TaskPhase::Failed, &format!("not {wanted} within {} s", within.as_secs()), w);
            }
            _ => {
                self.ask_for_news(w);
                return false;
            }
        }
        true
    }

    fn ask_for_news(&mut self, w: &mut World<'_>) {
        if w.now.mono >= self.nudge {
            self.nudge = w.now.mono + NUDGE;
            w.out.list_wanted = true;
        }
    }

    /// As long as the engine itself takes to call it unhealthy, and one check more.
    fn health_wait(&self) -> Duration {
        let check = self.spec().and_then(|spec| spec.task.container.healthcheck.clone()).unwrap_or_default();
        let or = |set: Duration, default: Duration| if set.is_zero() { default } else { set };
        let retries = if check.retries == 0 { HEALTH_RETRIES } else { check.retries };
        let each = or(check.interval, HEALTH_INTERVAL).saturating_add(or(check.timeout, HEALTH_TIMEOUT));
        let checks = each.saturating_mul(retries.saturating_add(1));
        check.start_period.saturating_add(checks).max(START_TIMEOUT)
    }

    /// Runs and has no health check: a TCP port that it publishes must accept connections before it serves.
    fn enter_probe(&mut self, w: &mut World<'_>) {
        let spec = self.spec();
        let ports = spec.iter().flat_map(|spec| &spec.ports);
        match ports.into_iter().find(|p| p.protocol == Protocol::Tcp).map(|p| p.target) {
            None => self.serve(w),
            Some(port) => {
                self.step = Step::Probe { until: w.now.mono + START_TIMEOUT, port };
            }
        }
    }

    fn probe_round(&mut self, until: Mono, port: u16, w: &mut World<'_>) -> bool {
        match self.current(w.containers).map(|c| c.state.clone()) {
            Some(ContainerState::Exited { code, error, .. }) => {
                self.exited(code, &error, w);
                return true;
            }
            Some(ContainerState::Running { health: Health::Unhealthy }) => {
                self.end(TaskPhase::Failed, "unhealthy container", w);
                return true;
            }
            _ => {}
        }
        if !self.can_issue(w) {
            return false;
        }
        if w.now.mono >= until {
            let why = format!("port {port} did not accept a connection within {} s", START_TIMEOUT.as_secs());
            self.end(TaskPhase::Failed, &why, w);
            return true;
        }
        let Some(name) = self.container_name(w).filter(|_| self.pause.is_none()) else { return false };
        let left = until.since(w.now.mono);
        let first = left >= START_TIMEOUT;
        if !first {
            self.note_container(w);
            self.status.message = format!("waiting for port {port}");
        }
        let within = left.min(if first { FIRST_PROBE } else { PROBE_WITHIN });
        self.issue(Kind::Probe, EngineOp::Probe { name, port, within }, within + PROBE_SLACK, w);
        false
    }

    pub(super) fn serve(&mut self, w: &mut World<'_>) {
        self.step = Step::Serve;
        self.raise(TaskPhase::Running, "started", w);
        self.note_container(w);
    }

    fn serve_round(&mut self, w: &mut World<'_>) -> bool {
        match self.current(w.containers).map(|c| c.state.clone()) {
            Some(ContainerState::Exited { code, error, .. }) => {
                self.exited(code, &error, w);
                true
            }
            Some(ContainerState::Running { health: Health::Unhealthy }) => {
                self.end(TaskPhase::Failed, "unhealthy container", w);
                true
            }
            _ => {
                self.note_container(w);
                self.sweep(w);
                false
            }
        }
    }
}
