//! Jobs: services whose tasks come to an end. Each revision is a run of its own (Docker's JobIteration): an update
//! stops what is left of the run before and begins again.
//!
//! A slot is done when a task of it has ended with success. It is run *at least* once, and twice only for cause: its node
//! was lost, drained, or restarted while it ran. A slot whose task has used up its restarts stays failed, as in
//! Swarm, until the job is updated. Unlike Swarm's, a job's lost tasks run elsewhere at once and not after a day, and a
//! new lease holder finds what is done in the records (Swarm's runs jobs again when its leader changes, moby#53632).

use super::slots::Slots;
use super::*;
use crate::model::spec::Mode;

/// What became of one slot of this run.
#[derive(Debug, Default)]
struct Tally {
    done: bool,
    /// Its restarts are used up.
    failed: bool,
    /// Tasks that run or will, the furthest first.
    active: Vec<TaskId>,
    /// Something may run of it that was told to stop.
    stopping: bool,
}

impl Tally {
    fn is_free(&self) -> bool {
        !self.done && !self.failed && !self.stopping && self.active.is_empty()
    }
}

impl ServicePlan<'_> {
    pub(super) fn run_job(
        &mut self,
        spec: &ServiceSpec,
        memory: &mut Memory,
        placer: &mut Placer,
        new_id: &mut dyn FnMut() -> TaskId,
    ) {
        self.rollout = None;
        self.end_earlier_runs();
        self.give_up_lost(&Slots { wanted: self.tasks.values().map(|t| t.slot).collect() }, memory);
        if let Some(at) = memory.next_engine_loss(self.now.mono) {
            self.wake_at(at);
        }
        self.leave_drained();
        self.end_surplus(memory);
        for slot in self.slots_to_begin(spec, memory, placer) {
            let revision = self.service.current;
            self.create(new_id(), slot, revision, None, Desired::Running, placer);
        }
        self.place_waiting(placer);
        // All slots' tasks are this run's history: what is done is known by them.
        self.reap(&Slots { wanted: self.tasks.values().map(|t| t.slot).collect() }, memory);
    }

    fn end_earlier_runs(&mut self) {
        let earlier: Vec<TaskId> =
            self.tasks.values().filter(|t| t.revision != self.service.current).map(|t| t.id).collect();
        for id in earlier {
            self.raise(id, Desired::Remove, "the job was updated");
        }
    }

    /// What has ended on a drained node stays there as what it is.
    fn leave_drained(&mut self) {
        let drained = |node: NodeId| {
            let policy = self.nodes.get(&node).map(|n| &n.policy);
            policy.is_some_and(|p| p.removed || p.availability == Availability::Drain)
        };
        let leave: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|t| t.desired.is_live() && t.node.is_some_and(drained) && !self.has_ended(t))
            .map(|t| t.id)
            .collect();
        for id in leave {
            self.raise(id, Desired::Shutdown, "node is drained");
        }
    }

    fn has_ended(&self, task: &Task) -> bool {
        self.phase(task.id) == TaskPhase::Complete || self.status.get(&task.id).is_some_and(|s| s.given_up)
    }

    /// Of a slot that is done, and of one that two holders have begun, one task is enough.
    fn end_surplus(&mut self, memory: &Memory) {
        for tally in self.tallies(memory).into_values() {
            let enough = usize::from(!tally.done);
            for id in tally.active.into_iter().skip(enough) {
                self.raise(id, Desired::Shutdown, "another task has its slot");
            }
        }
    }

    fn tallies(&self, memory: &Memory) -> BTreeMap<Slot, Tally> {
        let mut tallies: BTreeMap<Slot, Tally> = BTreeMap::new();
        for task in self.tasks.values().filter(|t| t.revision == self.service.current) {
            let tally = tallies.entry(task.slot).or_default();
            if self.phase(task.id) == TaskPhase::Complete {
                tally.done = true;
            } else if !task.desired.is_live() {
                let gone = |node| self.is_lost(node, memory);
                tally.stopping |= !self.is_over(task.id) && !task.node.is_none_or(gone);
            } else if self.has_ended(task) {
                tally.failed = true;
            } else {
                tally.active.push(task.id);
            }
        }
        for tally in tallies.values_mut() {
            tally.active.sort_by_key(|id| (std::cmp::Reverse(self.phase(*id)), self.tasks[id].created, *id));
        }
        tallies
    }

    fn slots_to_begin(&self, spec: &ServiceSpec, memory: &Memory, placer: &Placer) -> Vec<Slot> {
        let tallies = self.tallies(memory);
        let is_free = |slot: &Slot| tallies.get(slot).is_none_or(Tally::is_free);
        match spec.mode {
            Mode::ReplicatedJob { concurrent, total } => {
                let busy = tallies.values().filter(|t| !t.done && (t.stopping || !t.active.is_empty())).count();
                // Numbered from 0, as Swarm's are: the docker CLI's progress counts on it.
                let open = (0..total).map(Slot::Replica).filter(is_free);
                open.take((concurrent as usize).saturating_sub(busy)).collect()
            }
            // Swarm's node by node rule: one that joins or returns later has its turn too.
            _ => self.wanted_slots(spec, placer).wanted.into_iter().filter(is_free).collect(),
        }
    }
}
