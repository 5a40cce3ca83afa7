//! The replacement engine: fills empty slots, starts replacements within the budget, and drives each pair of a
//! task and its successor to the end, whatever the cause was.
//!
//! stop-first: the successor is made ready (image pulled, container created) beside the old task; only then the old
//! one is told to stop, and only when it has stopped the successor starts. start-first: the successor starts beside
//! the old task, which is told to stop when the successor is *seen* running. Nothing else stops a serving task.
//!
//! start-first needs room for both. Where no node has that, what fails and doesn't serve is replaced stop-first, or failing tasks
//! could fill the nodes for ever; it is looked at again before it is told to stop, and let be if it serves by then.

use super::slots::{SlotTasks, Slots};
use super::*;
use crate::model::spec::Order;
use crate::plant::{Bug, is_planted};

/// A task that has failed this often where it is may run better elsewhere.
const MOVE_AFTER_ATTEMPTS: u32 = 2;
/// Drives at most this many steps of a slot within one plan: old told to stop, successor told to run.
const STEPS: usize = 3;

/// Why a slot's task is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    Updated,
    Drained,
    Unfit(String),
    /// Its release is paused for failing, and what ran before is known.
    FailingRelease,
    FailingHere,
}

impl Cause {
    fn message(&self) -> String {
        match self {
            Cause::Updated => "replaced by update".to_owned(),
            Cause::Drained => "node is drained".to_owned(),
            Cause::Unfit(why) => format!("node no longer fits: {why}"),
            Cause::FailingRelease => "replaced by what ran before the paused update".to_owned(),
            Cause::FailingHere => "failed repeatedly on this node".to_owned(),
        }
    }
}

impl ServicePlan<'_> {
    pub(super) fn fill_and_replace(
        &mut self,
        spec: &ServiceSpec,
        slots: &Slots,
        memory: &mut Memory,
        placer: &mut Placer,
        new_id: &mut dyn FnMut() -> TaskId,
    ) {
        if let Some(at) = memory.next_engine_loss(self.now.mono) {
            self.wake_at(at);
        }
        self.give_up_lost(slots, memory);
        self.give_up_undone();
        // What fills a slot takes its place in the budget before another is stopped.
        self.fill(slots, memory, placer, new_id);
        for _ in 0..STEPS {
            let by_slot = self.slot_tasks(memory);
            let before = self.tasks.clone();
            let mut may_stop = self.budget(spec).saturating_sub(self.out_of_service(spec, slots, memory, placer));
            for tasks in slots.wanted.iter().filter_map(|slot| by_slot.get(slot)) {
                self.drive(spec, tasks, &mut may_stop, memory, placer);
            }
            if self.tasks == before {
                break;
            }
        }
        self.fill(slots, memory, placer, new_id);
        self.start_replacements(spec, slots, memory, placer, new_id);
        self.place_waiting(placer);
    }

    // ---- slots without a task

    /// Tasks on nodes that are gone are told to stop, should they ever hear of it; their slots are filled anew.
    /// A global service's task stays where it belongs and returns with its node.
    pub(super) fn give_up_lost(&mut self, slots: &Slots, memory: &mut Memory) {
        let on_lost =
            |t: &&Task| t.desired.is_live() && slots.wanted.contains(&t.slot) && matches!(t.slot, Slot::Replica(_));
        let lost: Vec<(TaskId, NodeId)> =
            self.tasks.values().filter(on_lost).filter_map(|t| Some((t.id, t.node?))).collect();
        for (id, node) in lost {
            if !self.is_lost(node, memory) || self.status.get(&id).is_some_and(|s| s.is_given_up()) {
                continue;
            }
            match memory.take_move(self.now.mono) {
                Ok(()) => self.raise(id, Desired::Shutdown, "its node is down"),
                Err(at) => self.wake_at(at),
            }
        }
    }

    /// What holders decided that didn't know of each other. A task without a node may have been given to one by the last word of
    /// an earlier holder, which gets lost: it is not given to another. And what was told to stop by one holder isn't
    /// started again by the next.
    fn give_up_undone(&mut self) {
        let stopped = |t: &Task| self.phase(t.id) == TaskPhase::Shutdown;
        let undone = |t: &&Task| t.desired.is_live() && (stopped(t) || self.inherited.contains(&t.id));
        for id in self.tasks.values().filter(undone).map(|t| t.id).collect::<Vec<_>>() {
            self.raise(id, Desired::Shutdown, "undone by a change of the lease holder");
        }
    }

    fn fill(&mut self, slots: &Slots, memory: &Memory, placer: &mut Placer, new_id: &mut dyn FnMut() -> TaskId) {
        let by_slot = self.slot_tasks(memory);
        for slot in &slots.wanted {
            if by_slot.get(slot).is_some_and(|t| t.current.is_some()) {
                continue;
            }
            let revision = self.revision_to_make();
            self.create(new_id(), *slot, revision, None, Desired::Running, placer);
        }
    }

    pub(super) fn create(
        &mut self,
        id: TaskId,
        slot: Slot,
        revision: RevisionId,
        replaces: Option<TaskId>,
        desired: Desired,
        placer: &mut Placer,
    ) {
        // Also what fills a slot anew (its node was lost in the middle of it): it runs the release on trial.
        let in_rollout = self.rollout.as_ref().is_some_and(|r| r.state.is_active());
        let mut task = Task {
            id,
            service: self.service.id,
            slot,
            node: None,
            revision,
            desired,
            created: self.now.wall,
            updated: self.now.wall,
            replaces,
            in_rollout,
            message: String::new(),
        };
        if self.takes_the_old_ones_room(&task, placer) {
            task.desired = Desired::Ready;
        }
        self.place(&mut task, placer);
        self.tasks.insert(id, task);
    }

    // ---- slots with a task

    /// Takes a slot's tasks one step on. `may_stop` is how many slots that serve the budget lets stop now.
    fn drive(&mut self, spec: &ServiceSpec, tasks: &SlotTasks, may_stop: &mut usize, memory: &Memory, placer: &Placer) {
        let Some(current) = tasks.current.map(|id| self.tasks[&id].clone()) else { return };
        if self.serves(&current) {
            for id in &tasks.surplus {
                self.raise(*id, Desired::Shutdown, "another task has its slot");
            }
        }
        let Some(successor) = tasks.successor.map(|id| self.tasks[&id].clone()) else {
            return self.drive_alone(&current, memory);
        };
        if let Some(why) = self.not_wanted(spec, &current, &successor, memory, placer) {
            self.raise(successor.id, Desired::Shutdown, why);
            return;
        }
        let ready = (TaskPhase::Ready..TaskPhase::Complete).contains(&self.phase(successor.id));
        let takes_over = match successor.desired {
            Desired::Ready => ready,
            _ if is_planted(Bug::KillsForTheUnproven) => ready,
            _ => self.serves(&successor),
        };
        if takes_over {
            if self.serves(&current) && self.is_instead_of_start_first(spec, &successor) {
                return; // Not yet: see `not_wanted`.
            }
            let cause = self.cause(spec, &current, memory, placer);
            let unbounded = is_planted(Bug::DrainIgnoresBudget) && cause == Some(Cause::Drained);
            if self.serves(&current) && !self.serves(&successor) && !unbounded {
                let Some(left) = may_stop.checked_sub(1) else { return };
                *may_stop = left;
            }
            let why = cause.map_or("replaced".to_owned(), |c| c.message());
            self.raise(current.id, Desired::Shutdown, &why);
        }
    }

    fn drive_alone(&mut self, current: &Task, memory: &Memory) {
        if current.node.is_none() && current.revision != self.revision_to_make() {
            self.raise(current.id, Desired::Shutdown, "superseded before it was placed");
            return;
        }
        if current.desired == Desired::Ready && self.has_stopped(current.replaces, memory) {
            self.raise(current.id, Desired::Running, "");
        }
    }

    /// The task that a successor waits for no longer runs, or nobody can tell.
    fn has_stopped(&self, old: Option<TaskId>, memory: &Memory) -> bool {
        let Some(old) = old.and_then(|id| self.tasks.get(&id)) else { return true };
        let Some(node) = old.node else { return true };
        !old.desired.is_live() && (self.is_over(old.id) || self.is_lost(node, memory))
    }

    /// Why a successor that doesn't serve yet should not go on.
    fn not_wanted(
        &mut self,
        spec: &ServiceSpec,
        current: &Task,
        successor: &Task,
        memory: &Memory,
        placer: &Placer,
    ) -> Option<&'static str> {
        let made_of = self.revision_to_make();
        let stale = successor.revision != made_of && {
            match (self.specs.get(&made_of), self.specs.get(&successor.revision)) {
                (Some(wanted), Some(has)) => wanted.needs_replacement(has),
                _ => true,
            }
        };
        if self.serves(successor) {
            // It serves what it should: let it take over. Otherwise the old one serves as well as it would.
            return (stale && self.serves(current)).then_some("superseded");
        }
        if stale {
            return Some("superseded");
        }
        // Between two attempts a failing task looks as if it might still come up: only one that serves is proof.
        if self.serves(current) && self.cause(spec, current, memory, placer).is_none() {
            return Some("no longer needed");
        }
        if self.serves(current) && self.is_instead_of_start_first(spec, successor) {
            // What comes up may fail again in a moment: only one that has proven itself is waited for no more.
            let monitor = self.config(spec).monitor;
            let since = memory.running_since(current.id).unwrap_or(self.now.mono);
            self.wake_at(since + monitor);
            if self.now.mono.since(since) >= monitor || self.starts_beside(successor, placer) {
                return Some("what it was to replace serves");
            }
        }
        if self.takes_the_old_ones_room(successor, placer) {
            return Some("what it is to replace makes room for another");
        }
        let node = successor.node.and_then(|n| self.nodes.get(&n))?;
        if node.policy.availability == Availability::Drain && !matches!(successor.slot, Slot::Node(_)) {
            return Some("node is drained");
        }
        // Made ready in vain: a worker doesn't try again what isn't to run yet.
        (self.is_over(successor.id) && successor.desired == Desired::Ready).then_some("could not be made ready")
    }

    /// Why this task is to be replaced, if it is.
    fn cause(&self, spec: &ServiceSpec, task: &Task, memory: &Memory, placer: &Placer) -> Option<Cause> {
        let node = self.nodes.get(&task.node?)?;
        if self.is_lost(node.id, memory) {
            return None; // Not replaced but given up: see `give_up_lost`.
        }
        let paused = self.rollout.as_ref().filter(|r| r.state.is_paused());
        let status = self.status.get(&task.id);
        if paused.is_none() && self.is_dirty(task) {
            // A paused node of a global service can't take the new version.
            let stuck = matches!(task.slot, Slot::Node(_)) && !node.is_ready();
            return (!stuck).then_some(Cause::Updated);
        }
        let failing = status.is_some_and(|s| s.phase >= TaskPhase::Failed);
        if let Some(rollout) = paused {
            let unproven = task.in_rollout && task.revision != self.revision_to_make();
            if failing && unproven && rollout.from.is_some() {
                return Some(Cause::FailingRelease);
            }
        }
        if status.is_some_and(|s| s.is_given_up()) {
            return None; // Dead until the spec changes, as in Swarm.
        }
        if matches!(task.slot, Slot::Node(_)) {
            return None;
        }
        if node.policy.availability == Availability::Drain {
            return Some(Cause::Drained);
        }
        if node.is_ready() {
            let own = if self.is_dirty(task) { self.specs.get(&task.revision).map(Arc::as_ref) } else { Some(spec) };
            if let Some(Err(unfit)) = own.map(|own| placer.check(node.id, own)) {
                return Some(Cause::Unfit(unfit.to_string()));
            }
        }
        let repeatedly = status.is_some_and(|s| s.attempt >= MOVE_AFTER_ATTEMPTS);
        (failing && repeatedly && self.has_elsewhere(task)).then_some(Cause::FailingHere)
    }

    /// Some other ready node has not failed this version yet.
    fn has_elsewhere(&self, task: &Task) -> bool {
        let failures = self.failures_by_node(task.revision);
        self.nodes.values().any(|n| n.is_ready() && Some(n.id) != task.node && !failures.contains_key(&n.id))
    }

    fn order(&self, spec: &ServiceSpec, slot: Slot) -> Order {
        // A container that binds a port of its node can't start beside the old one there.
        let same_node = matches!(slot, Slot::Node(_)) && spec.host_ports().next().is_some();
        if same_node { Order::StopFirst } else { self.config(spec).order }
    }

    /// Made to be started when the old task has stopped, though the service's tasks are to start first.
    fn is_instead_of_start_first(&self, spec: &ServiceSpec, successor: &Task) -> bool {
        successor.desired == Desired::Ready && self.order(spec, successor.slot) == Order::StartFirst
    }

    // ---- the budget

    /// How many slots may be out of service at once for a change that somebody planned.
    fn budget(&self, spec: &ServiceSpec) -> usize {
        match self.config(spec).parallelism {
            0 => usize::MAX,
            _ if is_planted(Bug::NoBudget) => usize::MAX,
            at_once => at_once as usize,
        }
    }

    /// Slots that are on their way back to serving. What was begun within the budget may have to wait before it stops
    /// anything: since then a slot may have been lost, or let go and wanted again.
    fn out_of_service(&mut self, spec: &ServiceSpec, slots: &Slots, memory: &Memory, placer: &Placer) -> usize {
        let by_slot = self.slot_tasks(memory);
        let mut out = 0;
        for tasks in slots.wanted.iter().filter_map(|slot| by_slot.get(slot)) {
            let Some(current) = tasks.current.map(|id| self.tasks[&id].clone()) else { continue };
            let served = [tasks.current, tasks.successor].iter().flatten().any(|id| self.serves(&self.tasks[id]));
            out += usize::from(!served && self.in_transition(spec, &current, tasks.successor, memory, placer));
        }
        out
    }

    fn start_replacements(
        &mut self,
        spec: &ServiceSpec,
        slots: &Slots,
        memory: &Memory,
        placer: &mut Placer,
        new_id: &mut dyn FnMut() -> TaskId,
    ) {
        let limit = self.budget(spec);
        let by_slot = self.slot_tasks(memory);
        let mut in_transition = 0;
        let mut held_up = 0;
        let mut waiting = Vec::new();
        for (slot, tasks) in by_slot.iter().filter(|(slot, _)| slots.wanted.contains(slot)) {
            let Some(current) = tasks.current.map(|id| self.tasks[&id].clone()) else { continue };
            if self.in_transition(spec, &current, tasks.successor, memory, placer) {
                in_transition += 1;
                let has_no_place = tasks.successor.is_some_and(|id| self.tasks[&id].node.is_none());
                held_up += usize::from(has_no_place && self.serves(&current));
            } else if tasks.successor.is_none() && self.cause(spec, &current, memory, placer).is_some() {
                let tried = self.failed_to_replace(&current).filter(|t| t.revision == self.revision_to_make()).count();
                waiting.push(((tried, self.serves(&current), *slot), current));
            }
        }
        // What was tried less often comes first: a try may take longer than a slot cools down, and the others would never
        // have their turn. Of those, what doesn't serve anyway.
        waiting.sort_by_key(|(order, _)| *order);
        for ((.., slot), current) in waiting {
            let unbounded = is_planted(Bug::DrainIgnoresBudget)
                && self.cause(spec, &current, memory, placer) == Some(Cause::Drained);
            // A successor that waits for a place beside what serves may wait for ever: no slot that fails waits with it.
            let before_it = if self.serves(&current) { in_transition } else { in_transition - held_up };
            if before_it >= limit && !unbounded {
                continue;
            }
            if self.cools_down(&current, spec, memory) {
                continue;
            }
            let desired = match self.order(spec, slot) {
                Order::StopFirst => Desired::Ready,
                Order::StartFirst => Desired::Running,
            };
            let (id, revision) = (new_id(), self.revision_to_make());
            self.create(id, slot, revision, Some(current.id), desired, placer);
            in_transition += 1;
            held_up += usize::from(self.tasks[&id].node.is_none() && self.serves(&current));
        }
    }

    /// A slot takes a place in the budget from the moment its replacement begins until the new task serves, and for
    /// the delay after that. One that was filled anew (its node was lost, or it was let go and wanted again while
    /// its old task still stopped) takes one, too, until it serves: whatever the cause, it is one that serves less.
    fn in_transition(
        &mut self,
        spec: &ServiceSpec,
        current: &Task,
        successor: Option<TaskId>,
        memory: &Memory,
        placer: &Placer,
    ) -> bool {
        // One that failed is no longer on its way: what becomes of it is the failure action's affair.
        let has_failed = |id: TaskId| self.status.get(&id).is_some_and(|s| s.ever_failed());
        // A global service's task on a node that is gone, or its successor: nothing of it is on its way.
        let latest = successor.map_or(current, |id| &self.tasks[&id]);
        if latest.node.is_some_and(|n| self.is_lost(n, memory)) {
            return false;
        }
        if let Some(successor) = successor {
            return !has_failed(successor);
        }
        if current.desired == Desired::Ready {
            return true;
        }
        if current.replaces.is_none() {
            // What has no node waits for a room that the others' replacement may make, and what is to be replaced
            // itself is not on its way to what is wanted.
            let comes =
                current.node.is_some() && !self.serves(current) && self.cause(spec, current, memory, placer).is_none();
            return comes && !has_failed(current.id) && !self.is_over(current.id);
        }
        if !self.serves(current) {
            return !has_failed(current.id) && !self.is_over(current.id);
        }
        let delay = self.config(spec).delay;
        let Some(since) = memory.running_since(current.id).filter(|_| !delay.is_zero()) else { return false };
        let fresh = self.now.mono.since(since) < delay;
        if fresh {
            self.wake_at(since + delay);
        }
        fresh
    }

    /// The successors of this task that failed to get ready, as far as they are remembered.
    fn failed_to_replace(&self, current: &Task) -> impl Iterator<Item = &Task> {
        let was_to_replace_it = move |t: &&Task| t.replaces == Some(current.id) && !t.desired.is_live();
        self.tasks.values().filter(was_to_replace_it).filter(|t| self.phase(t.id) >= TaskPhase::Failed)
    }

    /// A successor that failed to get ready was dropped a moment ago: not at once again, and later each time. Its tries
    /// leave records behind, so an image that no registry has must not be tried every few seconds for ever.
    fn cools_down(&mut self, current: &Task, spec: &ServiceSpec, memory: &Memory) -> bool {
        let revision = self.revision_to_make();
        let ended: Vec<(Mono, bool)> = self
            .failed_to_replace(current)
            .filter_map(|t| Some((memory.ended_since(t.id)?, t.revision == revision)))
            .collect();
        let Some(last) = ended.iter().map(|(at, _)| *at).max() else { return false };
        // As many as the history keeps: from half a second to eight, from Docker's five seconds to over a minute.
        let doublings =
            ended.iter().filter(|(_, same)| *same).count().saturating_sub(1).min(crate::limits::TASK_HISTORY);
        let until = last + spec.task.restart.delay * (1 << doublings);
        self.wake_at(until);
        self.now.mono < until
    }
}
