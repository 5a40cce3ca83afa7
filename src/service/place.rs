//! Which node a task goes to, or in its own message why none fits.

use super::*;

impl ServicePlan<'_> {
    pub(super) fn place(&self, task: &mut Task, placer: &mut Placer) {
        let Some(spec) = self.specs.get(&task.revision) else { return };
        match self.find_place(task, spec, placer) {
            Ok(node) => {
                task.node = Some(node);
                task.message.clear();
                placer.occupy(node, task.service, spec);
            }
            Err(why) => task.message = why,
        }
    }

    fn find_place(&self, task: &Task, spec: &ServiceSpec, placer: &Placer) -> Result<NodeId, String> {
        let avoid = self.failures_by_node(task.revision);
        let old = task.replaces.and_then(|id| self.tasks.get(&id)).filter(|t| t.desired.is_live());
        // Of what it ran nothing may be known any more: it was made for a service of this name that was removed since.
        let frees = old.filter(|_| task.desired == Desired::Ready).and_then(|t| self.specs.get(&t.revision));
        let instead_of = old.and_then(|t| t.node).map(|node| Vacating { node, frees: frees.map(Arc::as_ref) });
        let demand = Demand { service: task.service, spec, avoid: &avoid, instead_of };
        match task.slot {
            Slot::Node(node) => placer.admit(node, &demand).map(|()| node).map_err(|unfit| unfit.to_string()),
            Slot::Replica(_) => placer.place(&demand).map_err(|no_fit| no_fit.to_string()),
        }
    }

    /// Some node has room for one like this beside the task that it replaces.
    pub(super) fn starts_beside(&self, successor: &Task, placer: &Placer) -> bool {
        self.fits_as(Desired::Running, successor, placer)
    }

    /// A successor that is to start first has room nowhere, but would have it where the old task is, which fails and runs
    /// another release: nobody loses anything if that one stops first, and if it doesn't, the update that mends it may never come.
    /// (To run the same again where it fails would mend nothing.)
    pub(super) fn takes_the_old_ones_room(&self, successor: &Task, placer: &Placer) -> bool {
        if successor.node.is_some() || successor.desired != Desired::Running {
            return false;
        }
        let Some(old) = successor.replaces.and_then(|id| self.tasks.get(&id)) else { return false };
        let Some(spec) = self.specs.get(&successor.revision) else { return false };
        let fails = !self.serves(old) && self.status.get(&old.id).is_some_and(|s| s.ever_failed());
        fails
            && self.asks_for_other_than(old, spec)
            && !self.fits_as(Desired::Running, successor, placer)
            && self.fits_as(Desired::Ready, successor, placer)
    }

    fn asks_for_other_than(&self, old: &Task, spec: &ServiceSpec) -> bool {
        self.specs.get(&old.revision).is_some_and(|has| spec.needs_replacement(has))
    }

    fn fits_as(&self, desired: Desired, successor: &Task, placer: &Placer) -> bool {
        let task = Task { desired, ..successor.clone() };
        self.specs.get(&task.revision).is_some_and(|spec| self.find_place(&task, spec, placer).is_ok())
    }

    pub(super) fn failures_by_node(&self, revision: RevisionId) -> BTreeMap<NodeId, u32> {
        let mut failures = BTreeMap::new();
        for task in self.tasks.values().filter(|t| t.revision == revision) {
            if let (Some(node), Some(status)) = (task.node, self.status.get(&task.id))
                && status.ever_failed()
            {
                *failures.entry(node).or_default() += 1;
            }
        }
        failures
    }

    pub(super) fn place_waiting(&mut self, placer: &mut Placer) {
        let waiting: Vec<TaskId> =
            self.tasks.values().filter(|t| t.node.is_none() && t.desired.is_live()).map(|t| t.id).collect();
        for id in waiting {
            let mut task = self.tasks[&id].clone();
            self.place(&mut task, placer);
            self.tasks.insert(id, task);
        }
    }
}
