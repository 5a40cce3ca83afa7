//! Which slots a service is to have, and what is in each.

use super::*;
use crate::model::spec::Mode;

/// What the wanted slots are; all other live tasks go.
pub(super) struct Slots {
    pub(super) wanted: BTreeSet<Slot>,
}

/// The live tasks of one slot.
#[derive(Debug, Default, Clone)]
pub(super) struct SlotTasks {
    /// What the slot has: serves, or should.
    pub(super) current: Option<TaskId>,
    /// What is to take over from it.
    pub(super) successor: Option<TaskId>,
    /// Live tasks beyond the two, from holders that didn't know of each other.
    pub(super) surplus: Vec<TaskId>,
}

impl ServicePlan<'_> {
    pub(super) fn wanted_slots(&self, spec: &ServiceSpec, placer: &Placer) -> Slots {
        Slots {
            wanted: match spec.mode {
                Mode::Replicated(replicas) => self.replica_slots(replicas),
                Mode::Global | Mode::GlobalJob => self.node_slots(spec, placer),
                // Not how a job's slots are told: see `job`.
                Mode::ReplicatedJob { .. } => BTreeSet::new(),
            },
        }
    }

    /// The tasks of slots that are not wanted go.
    pub(super) fn let_go(&mut self, spec: &ServiceSpec, slots: &Slots) {
        let surplus: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|t| t.desired < Desired::Remove && !slots.wanted.contains(&t.slot))
            .map(|t| t.id)
            .collect();
        for id in surplus {
            let keeps_history = matches!(spec.mode, Mode::Global) || !self.tasks[&id].desired.is_live();
            let desired = if keeps_history { Desired::Shutdown } else { Desired::Remove };
            self.raise(id, desired, self.why_not_wanted(id));
        }
    }

    fn why_not_wanted(&self, id: TaskId) -> &'static str {
        match self.tasks[&id].slot {
            Slot::Replica(_) => "scaled down",
            Slot::Node(node) => match self.nodes.get(&node) {
                Some(n) if n.policy.availability == Availability::Drain => "node is drained",
                _ => "node is no longer eligible",
            },
        }
    }

    /// Keeps the slots that do best and opens the lowest free numbers.
    fn replica_slots(&self, replicas: u32) -> BTreeSet<Slot> {
        let mut on_node: BTreeMap<NodeId, u32> = BTreeMap::new();
        let mut slots: BTreeMap<Slot, (bool, Option<NodeId>)> = BTreeMap::new();
        for task in self.tasks.values().filter(|t| t.desired.is_live() && matches!(t.slot, Slot::Replica(_))) {
            let serves = self.serves(task);
            let entry = slots.entry(task.slot).or_insert((false, task.node));
            if serves && !entry.0 {
                *entry = (true, task.node);
            }
        }
        for node in slots.values().filter_map(|(_, node)| *node) {
            *on_node.entry(node).or_default() += 1;
        }
        let mut wanted: BTreeSet<Slot> = slots.keys().copied().collect();
        while wanted.len() > replicas as usize {
            // Not serving goes first, then from the node with most of the service, then the highest number.
            let worst = wanted.iter().max_by_key(|slot| {
                let (serves, node) = slots[slot];
                (!serves, node.and_then(|n| on_node.get(&n)).copied().unwrap_or(u32::MAX), **slot)
            });
            let Some(worst) = worst.copied() else { break };
            wanted.remove(&worst);
            if let Some(count) = slots[&worst].1.and_then(|n| on_node.get_mut(&n)) {
                *count -= 1;
            }
        }
        let mut number = 1;
        while wanted.len() < replicas as usize {
            wanted.insert(Slot::Replica(number));
            number += 1;
        }
        wanted
    }

    /// Every eligible node, and those that keep what they have: down ones until they return, paused ones.
    fn node_slots(&self, spec: &ServiceSpec, placer: &Placer) -> BTreeSet<Slot> {
        // A node that takes nothing new just now (paused, unreachable engine) is wanted only for what it has.
        let ready = |id: &NodeId| self.nodes.get(id).is_some_and(NodeInfo::is_ready);
        let mut wanted: BTreeSet<Slot> = placer.eligible(spec).into_iter().filter(ready).map(Slot::Node).collect();
        for task in self.tasks.values().filter(|t| t.desired.is_live()) {
            let Slot::Node(node) = task.slot else { continue };
            let Some(info) = self.nodes.get(&node) else { continue };
            let drained = info.policy.availability == Availability::Drain || info.policy.removed;
            let absent = info.liveness != Liveness::Alive || !matches!(info.fact.engine, EngineState::Ready);
            if !drained && (absent || placer.check(node, spec).is_ok()) {
                wanted.insert(task.slot);
            }
        }
        wanted
    }

    /// Sorts a slot's live tasks by their part in it.
    pub(super) fn slot_tasks(&self, memory: &Memory) -> BTreeMap<Slot, SlotTasks> {
        let mut live: BTreeMap<Slot, Vec<&Task>> = BTreeMap::new();
        for task in self.tasks.values().filter(|t| t.desired.is_live()) {
            live.entry(task.slot).or_default().push(task);
        }
        live.into_iter().map(|(slot, tasks)| (slot, self.cast(&tasks, memory))).collect()
    }

    fn cast(&self, tasks: &[&Task], memory: &Memory) -> SlotTasks {
        // The best comes first: serving, of the wanted revision, wanted to run, oldest.
        let clean = |t: &Task| !self.is_dirty(t);
        let lost = |t: &Task| t.node.is_some_and(|n| self.is_lost(n, memory));
        let mut ranked: Vec<&Task> = tasks.to_vec();
        ranked.sort_by_key(|t| (!self.serves(t), lost(t), t.desired != Desired::Running, !clean(t), t.created, t.id));
        let is_successor_of = |t: &Task, current: &Task| t.replaces == Some(current.id);
        // A task that takes over is not the current one while the one it replaces is still live.
        let replaced_live = |t: &Task| tasks.iter().any(|o| is_successor_of(t, o));
        let Some(current) = ranked.iter().find(|t| !replaced_live(t)).or(ranked.first()).copied() else {
            return SlotTasks::default();
        };
        let successor = ranked.iter().find(|t| is_successor_of(t, current)).copied();
        let surplus = ranked.iter().filter(|t| t.id != current.id && successor.is_none_or(|s| s.id != t.id));
        SlotTasks {
            current: Some(current.id),
            successor: successor.map(|t| t.id),
            surplus: surplus.map(|t| t.id).collect(),
        }
    }

    /// Runs something else than its slot should.
    pub(super) fn is_dirty(&self, task: &Task) -> bool {
        let target = self.target();
        if task.revision == target {
            return false;
        }
        match (self.specs.get(&target), self.specs.get(&task.revision)) {
            (Some(wanted), Some(has)) => wanted.needs_replacement(has),
            _ => true,
        }
    }
}
