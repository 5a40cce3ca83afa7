//! U1 and D2: what is stopped on purpose never exceeds the service's budget, whoever leads. U2: with start-first the
//! last serving task of a slot is stopped only for one that serves.

use super::World;
use crate::law::rollout::is_replaced;
use peer::ids::{ServiceId, TaskId};
use peer::model::task::{Slot, Task, TaskPhase, TaskStatus};

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
        if task.message == "another task has its slot" {
            self.probes.hit("a duplicate was trimmed");
        }
        if !task.desired.is_live() && !is_replaced(&task) {
            self.check.budgets.dropped(&task);
        }
        let said = core.store().status(id).is_some_and(|s| s.phase == TaskPhase::Running);
        if !serving || !said || task.desired.is_live() || self.nodes[n].gone {
            return;
        }
        let replaced = is_replaced(&task) && core.store().service(task.service).is_some();
        // That it ran when the order was given is enough, if it died before the order came.
        let ran = |s: &TaskStatus| matches!(s.phase, TaskPhase::Running | TaskPhase::Complete) || s.ever_failed();
        let seen = |t: &Task| {
            let status = core.store().status(t.id);
            let serves = t.desired.is_live() && status.is_some_and(ran);
            let ended = |s: &TaskStatus| matches!(s.phase, TaskPhase::Complete | TaskPhase::Failed);
            let served = t.replaces == Some(id) && status.is_some_and(ended);
            t.id != id && t.service == task.service && t.slot == task.slot && (serves || served)
        };
        // Without a health check what has just been started passes for serving, and may have died since it was believed.
        let seen = core.store().tasks().any(seen);
        self.check_withdrawn(n, &task);
        if !replaced {
            return;
        }
        self.learn_budget(n, task.service);
        if seen || self.is_served(task.service, task.slot, id) {
            return;
        }
        let mut budgets = std::mem::take(&mut self.check.budgets);
        let breaches = budgets.stopped(&task, now, |service, slot| self.is_over(service, slot));
        self.check.budgets = budgets;
        if self.is_calm() {
            for breach in breaches {
                self.judge(Some(breach));
            }
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

    pub(super) fn forget_undisrupted(&mut self) {
        let mut budgets = std::mem::take(&mut self.check.budgets);
        budgets.forget(|service, slot| self.is_over(service, slot));
        self.check.budgets = budgets;
    }

    /// Served again, or its replacement says that it runs, or it failed, or the slot is wanted no more. Without a health check what
    /// dies a moment after its start passes for serving until it has said so (seed 33496 of calm at 600 s).
    fn is_over(&self, service: ServiceId, slot: Slot) -> bool {
        self.is_served(service, slot, TaskId::from_u128(0))
            || self.live().any(|(_, core)| {
                let of_slot: Vec<&Task> = core
                    .store()
                    .tasks()
                    .filter(|t| t.service == service && t.slot == slot && t.desired.is_live())
                    .collect();
                of_slot.is_empty()
                    || of_slot.iter().any(|t| {
                        let status = core.store().status(t.id);
                        status.is_some_and(|s| s.phase == TaskPhase::Running || s.ever_failed() || s.is_over())
                    })
            })
    }

    fn learn_budget(&mut self, n: usize, service: ServiceId) {
        let Some(core) = self.nodes[n].core.as_ref() else { return };
        for revision in core.store().revisions(service) {
            self.check.budgets.learn(service, revision.id, &revision.spec_json);
        }
    }
}
