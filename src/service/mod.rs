//! The lease holder's duties as one pure function: from what is wanted and what is seen to the next decisions.
//!
//! There is one replacement engine ([`replace`]) for what is to run for ever, and one for what is to end ([`job`]). A new spec, a rollback, a drain, a changed constraint, a node that is
//! gone and a task that keeps failing where it is all mean "replace this task", under one disruption budget per
//! service. All that must survive a change of the holder stands in the records; [`Memory`] holds only what a new
//! holder may learn again by waiting a little longer.
//!
//! The law: planning twice changes nothing (`plan(apply(plan(x)))` is empty); what is desired of a task only rises;
//! a task's node never changes; the last serving task of a slot is not stopped for one that has not been seen to serve
//! (start-first) or to be ready to start (stop-first).

mod job;
mod memory;
mod place;
mod reap;
mod replace;
mod rollout;
mod slots;
#[cfg(test)]
mod tests;

pub use memory::Memory;

use crate::ids::{NodeId, ServiceId, TaskId};
use crate::model::node::{Availability, EngineState, Liveness};
use crate::model::record::RevisionId;
use crate::model::rollout::Rollout;
use crate::model::service::Service;
use crate::model::spec::{ServiceSpec, UpdateConfig};
use crate::model::task::{Desired, Slot, Task, TaskPhase, TaskStatus};
use crate::plant::{Bug, is_planted};
use crate::schedule::{Demand, NodeInfo, Placer, Vacating};
use crate::time::{Mono, Now};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// An engine that doesn't answer for this long is taken for gone, as a node is (and about as fast). One that is started
/// again at once, its containers living on, is back within it.
const ENGINE_GRACE: Duration = Duration::from_secs(2);

pub struct View<'a> {
    pub services: BTreeMap<ServiceId, ServiceState<'a>>,
    pub nodes: &'a BTreeMap<NodeId, NodeInfo>,
    /// Tasks whose service is gone.
    pub orphans: Vec<Orphan<'a>>,
    /// Tasks that an earlier holder made and, as far as is known here, gave to no node.
    pub inherited: BTreeSet<TaskId>,
}

pub struct Orphan<'a> {
    pub task: &'a Task,
    pub status: Option<&'a TaskStatus>,
    /// What it runs, if that is still known.
    pub spec: Option<Arc<ServiceSpec>>,
}

pub struct ServiceState<'a> {
    pub service: &'a Service,
    /// Every revision that the service, its rollout or its tasks name, as far as their records are here.
    pub specs: BTreeMap<RevisionId, Arc<ServiceSpec>>,
    pub rollout: Option<&'a Rollout>,
    pub tasks: Vec<(&'a Task, Option<&'a TaskStatus>)>,
}

impl ServiceState<'_> {
    /// What a rollback goes back to is not known here.
    fn lacks_the_way_back(&self) -> bool {
        let back = self.rollout.filter(|r| r.to == self.service.current && r.state.is_rollback());
        let known = |revision: &RevisionId| self.specs.contains_key(revision);
        back.is_some_and(|r| !known(&r.target(self.service.rolled_back))) && known(&self.service.current)
    }
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// At most one for each task.
    pub changes: Vec<Change>,
    /// Plan again then, even if nothing has changed.
    pub wake: Option<Mono>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    PutTask(Task),
    /// The assignment and its status.
    RemoveTask(TaskId),
    PutRollout(Rollout),
    RemoveRollout(ServiceId),
}

pub fn plan(view: &View, memory: &mut Memory, now: Now, new_id: &mut dyn FnMut() -> TaskId) -> Plan {
    memory.observe(view, now.mono);
    let mut placer = Placer::new(view.nodes);
    occupy(view, &mut placer);
    let mut out = Plan::default();
    memory.begin_moves(view, now.mono);
    for (id, state) in &view.services {
        let wake = match memory.rests(*id, now.mono) {
            Some(wake) => wake,
            None => plan_service(view, state, memory, &mut placer, now, new_id, &mut out.changes),
        };
        out.wake = [out.wake, wake].into_iter().flatten().min();
    }
    reap::orphans(view, memory, now, &mut out);
    out
}

/// Returns when time alone may ask for another plan.
fn plan_service(
    view: &View,
    state: &ServiceState,
    memory: &mut Memory,
    placer: &mut Placer,
    now: Now,
    new_id: &mut dyn FnMut() -> TaskId,
    changes: &mut Vec<Change>,
) -> Option<Mono> {
    let before = changes.len();
    let wake = ServicePlan::new(view, state, now).run(memory, placer, new_id, changes);
    // Who waits for a place waits for whatever other services leave.
    let waits = state.tasks.iter().any(|(task, _)| task.node.is_none() && task.desired.is_live());
    if changes.len() == before && !waits {
        memory.rest(state.service.id, wake, now.mono);
    }
    wake
}

/// Everything that runs, or will, or has not yet ended, takes its place.
fn occupy(view: &View, placer: &mut Placer) {
    let mut occupy = |task: &Task, status: Option<&TaskStatus>, spec: Option<&Arc<ServiceSpec>>| {
        let (Some(node), Some(spec)) = (task.node, spec) else { return };
        let for_good = |s: &TaskStatus| !task.desired.is_live() || (spec.mode.is_job() && s.is_given_up());
        if !status.is_some_and(|s| s.is_over() && for_good(s)) {
            placer.occupy(node, task.service, spec);
        }
    };
    for state in view.services.values() {
        for (task, status) in &state.tasks {
            occupy(task, *status, state.specs.get(&task.revision));
        }
    }
    for orphan in &view.orphans {
        occupy(orphan.task, orphan.status, orphan.spec.as_ref());
    }
}

/// One service's planning: works on copies of its tasks, and tells at the end what has changed.
struct ServicePlan<'a> {
    service: &'a Service,
    specs: &'a BTreeMap<RevisionId, Arc<ServiceSpec>>,
    nodes: &'a BTreeMap<NodeId, NodeInfo>,
    inherited: &'a BTreeSet<TaskId>,
    before: BTreeMap<TaskId, &'a Task>,
    status: BTreeMap<TaskId, &'a TaskStatus>,
    tasks: BTreeMap<TaskId, Task>,
    removed: Vec<TaskId>,
    rollout_before: Option<&'a Rollout>,
    rollout: Option<Rollout>,
    now: Now,
    wake: Option<Mono>,
}

impl<'a> ServicePlan<'a> {
    fn new(view: &'a View, state: &'a ServiceState, now: Now) -> Self {
        // A rollout about another revision than the current one is history: nothing may act on it.
        let rollout = state.rollout.filter(|r| r.to == state.service.current).cloned();
        Self {
            service: state.service,
            specs: &state.specs,
            nodes: view.nodes,
            inherited: &view.inherited,
            before: state.tasks.iter().map(|(t, _)| (t.id, *t)).collect(),
            status: state.tasks.iter().filter_map(|(t, s)| Some((t.id, (*s)?))).collect(),
            tasks: state.tasks.iter().map(|(t, _)| (t.id, (*t).clone())).collect(),
            removed: Vec::new(),
            rollout_before: state.rollout,
            rollout,
            now,
            wake: None,
        }
    }

    fn run(
        mut self,
        memory: &mut Memory,
        placer: &mut Placer,
        new_id: &mut dyn FnMut() -> TaskId,
        changes: &mut Vec<Change>,
    ) -> Option<Mono> {
        self.cant_go_back(memory);
        // Without the spec that is wanted nothing can be judged: its record is on its way.
        let Some(spec) = self.specs.get(&self.target()).cloned() else { return self.wake };
        if spec.mode.is_job() {
            self.run_job(&spec, memory, placer, new_id);
            let wake = self.wake;
            self.emit(changes);
            return wake;
        }
        let slots = self.wanted_slots(&spec, placer);
        self.begin_rollout(&spec, &slots, placer);
        self.account_failures(memory);
        // The failures may have turned the rollout round, to a revision with other slots: nothing goes before that.
        let spec = self.specs.get(&self.target()).cloned().unwrap_or(spec);
        let slots = self.wanted_slots(&spec, placer);
        self.let_go(&spec, &slots);
        self.fill_and_replace(&spec, &slots, memory, placer, new_id);
        self.finish_rollout(&spec, &slots, memory, placer);
        self.reap(&slots, memory);
        let wake = self.wake;
        self.emit(changes);
        wake
    }

    fn emit(self, changes: &mut Vec<Change>) {
        match (self.rollout_before, self.rollout) {
            (Some(old), Some(new)) if *old == new => {}
            (None, None) => {}
            (_, Some(new)) => changes.push(Change::PutRollout(new)),
            (Some(_), None) => changes.push(Change::RemoveRollout(self.service.id)),
        }
        changes.extend(self.removed.iter().map(|id| Change::RemoveTask(*id)));
        let changed = self.tasks.into_values().filter(|task| self.before.get(&task.id).is_none_or(|old| *old != task));
        changes.extend(changed.map(Change::PutTask));
    }

    /// The revision that slots are to run.
    fn target(&self) -> RevisionId {
        self.rollout.as_ref().map_or(self.service.current, |r| r.target(self.service.rolled_back))
    }

    /// The revision for tasks that are made now: while a rollout is paused that is what ran before it, so that
    /// a bad release doesn't spread as nodes fail (Swarm's does).
    fn revision_to_make(&self) -> RevisionId {
        let pinned = self.rollout.as_ref().filter(|r| r.state.is_paused()).and_then(|r| r.from);
        let pinned = pinned.filter(|_| !is_planted(Bug::PausedSpreads));
        pinned.filter(|r| self.specs.contains_key(r)).unwrap_or_else(|| self.target())
    }

    fn config(&self, spec: &ServiceSpec) -> UpdateConfig {
        let rolling_back = self.rollout.as_ref().is_some_and(|r| r.state.is_rollback());
        if rolling_back { spec.rollback } else { spec.update }
    }

    fn wake_at(&mut self, at: Mono) {
        if at > self.now.mono {
            self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
        }
    }

    // ---- questions about tasks

    fn phase(&self, id: TaskId) -> TaskPhase {
        self.status.get(&id).map_or(TaskPhase::Pending, |s| s.phase)
    }

    fn is_over(&self, id: TaskId) -> bool {
        self.phase(id) >= TaskPhase::Complete
    }

    /// Seen running on a node that is there, or will be right back.
    fn serves(&self, task: &Task) -> bool {
        self.phase(task.id) == TaskPhase::Running && task.node.is_some_and(|n| !self.is_down(n))
    }

    fn is_down(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|n| n.policy.removed || n.liveness == Liveness::Down)
    }

    /// Gone as far as anyone can tell: nothing there can be asked to stop or to start.
    fn is_lost(&self, node: NodeId, memory: &Memory) -> bool {
        self.is_down(node) || memory.engine_gone(node, self.now.mono)
    }

    fn raise(&mut self, id: TaskId, desired: Desired, why: &str) {
        let wall = self.now.wall;
        if let Some(task) = self.tasks.get_mut(&id).filter(|t| t.desired < desired) {
            task.desired = desired;
            task.updated = wall;
            why.clone_into(&mut task.message);
        }
    }
}
