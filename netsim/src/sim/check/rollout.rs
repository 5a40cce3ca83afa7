//! U1 and D2: what is stopped on purpose never exceeds the service's budget, whoever leads. U2: with start-first the
//! last serving task of a slot is stopped only for one that serves.

use super::World;
use peer::ids::{ServiceId, TaskId};
use peer::model::spec::{self, Order, UpdateConfig};
use peer::model::task::{Slot, Task, TaskPhase};

/// The holder's words for stops that replace nothing within the budget.
const NOT_REPLACED: &[&str] = &["its node is down", "scaled down", "service removed", "another task has its slot"];

impl World {
    /// A serving container is about to get its SIGTERM.
    pub(in crate::sim) fn check_stop(&mut self, n: usize, name: &str) {
        let now = self.now;
        let Some(container) = self.nodes[n].engine.containers.get(name) else { return };
        let id = container.plan.task;
        let serving = container.is_running() && container.accepts_at <= now;
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let Some(task) = core.store().task(id).cloned() else { return };
        self.trace.say(now, Some(n), || {
            let (slot, why) = (task.slot, &task.message);
            let phase = core.store().status(id).map_or("-", |s| s.phase.as_str());
            format!("stops {id:?} of {slot:?} ({phase}, serving: {serving}): {why}")
        });
        let said = core.store().status(id).is_some_and(|s| s.phase == TaskPhase::Running);
        if !serving || !said || task.desired.is_live() || self.nodes[n].gone {
            return;
        }
        let replaced = !NOT_REPLACED.contains(&task.message.as_str()) && core.store().service(task.service).is_some();
        let seen = |t: &Task| {
            let said = core.store().status(t.id).is_some_and(|s| s.phase == TaskPhase::Running);
            t.id != id && t.service == task.service && t.slot == task.slot && t.desired.is_live() && said
        };
        // Without a health check what has just been started passes for serving.
        let seen = core.store().tasks().any(seen);
        self.check_withdrawn(n, &task);
        if !replaced || matches!(task.slot, Slot::Node(_)) {
            return;
        }
        self.learn_budget(n, task.service);
        if seen || self.is_served(task.service, task.slot, id) {
            return;
        }
        let Some((parallelism, start_first)) = self.check.budget.get(&task.service).copied() else { return };
        if start_first && self.is_calm() {
            self.violate("U2", || format!("n{n} stops {id:?}, the last that serves {:?}: {}", task.slot, task.message));
        }
        self.check.disrupted.insert((task.service, task.slot), now);
        self.forget_undisrupted();
        let slots = self.check.disrupted.keys().filter(|(service, _)| *service == task.service).count() as u64;
        if parallelism > 0 && slots > parallelism && self.is_calm() {
            let since: Vec<_> = self.check.disrupted.iter().filter(|((s, _), _)| *s == task.service).collect();
            let since = format!("{since:?}");
            self.violate("U1", || {
                format!(
                    "{slots} slots of a service were stopped for replacements, the budget is {parallelism}: {}; {since}",
                    task.message
                )
            });
        }
    }

    /// Some container of this slot serves, beside that of `except`.
    fn is_served(&self, service: ServiceId, slot: Slot, except: TaskId) -> bool {
        self.nodes.iter().any(|node| {
            node.engine.containers.values().any(|c| {
                c.plan.service == service
                    && c.plan.task != except
                    && c.serves(self.now)
                    && self.slot_of(c.plan.task) == Some(slot)
            })
        })
    }

    fn slot_of(&self, task: TaskId) -> Option<Slot> {
        self.live().find_map(|(_, core)| core.store().task(task)).map(|t: &Task| t.slot)
    }

    /// Slots that are served again, or whose replacement failed, or that are wanted no more, count no longer.
    pub(super) fn forget_undisrupted(&mut self) {
        let slots: Vec<(ServiceId, Slot)> = self.check.disrupted.keys().copied().collect();
        for (service, slot) in slots {
            let served = self.is_served(service, slot, TaskId::from_u128(0));
            let failed_or_gone = self.live().any(|(_, core)| {
                let of_slot: Vec<&Task> = core
                    .store()
                    .tasks()
                    .filter(|t| t.service == service && t.slot == slot && t.desired.is_live())
                    .collect();
                of_slot.is_empty()
                    || of_slot.iter().any(|t| core.store().status(t.id).is_some_and(|s| s.ever_failed() || s.is_over()))
            });
            if served || failed_or_gone {
                self.check.disrupted.remove(&(service, slot));
            }
        }
    }

    fn learn_budget(&mut self, n: usize, service: ServiceId) {
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        let new: Vec<_> =
            core.store().revisions(service).filter(|r| !self.check.specs.contains_key(&r.id)).cloned().collect();
        for revision in new {
            let Ok(parsed) = spec::parse(&revision.spec_json) else { continue };
            let most = |c: &UpdateConfig| if c.parallelism == 0 { u64::MAX } else { u64::from(c.parallelism) };
            let parallelism = most(&parsed.update).max(most(&parsed.rollback));
            let first = parsed.update.order == Order::StartFirst && parsed.rollback.order == Order::StartFirst;
            let entry = self.check.budget.entry(service).or_insert((0, true));
            *entry = (entry.0.max(parallelism), entry.1 && first);
            self.check.specs.insert(revision.id, parsed.into());
        }
    }
}
